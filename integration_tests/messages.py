"""Airbyte messages as text.

Nothing here goes through a JSON value and back: a sync may hold numbers that no Python value can, and every byte counts.
Only the places of values in a line are looked up.
"""

import json
import re
import unicodedata
from dataclasses import dataclass

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STRING_OR_BRACKET = re.compile(_STRING.pattern + r"|[{}\[\]]", re.DOTALL)
_SCALAR = re.compile(r"[^ \t\r\n,\]}]+")

Span = tuple[int, int]


def _value_end(text: str, start: int) -> int:
    """Where the JSON value that begins at `start` ends."""
    if text[start] not in "{[":
        return (_STRING if text[start] == '"' else _SCALAR).match(text, start).end()
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    raise ValueError("a bracket is never closed")


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


def members(text: str, span: Span | None):
    """The names and values of an object, as spans; nothing for any other value."""
    if span is None or text[span[0]] != "{":
        return
    at = _skip(text, span[0] + 1)
    while text[at] != "}":
        name = at, _value_end(text, at)
        at = _skip(text, _skip(text, name[1]) + 1)
        value = at, _value_end(text, at)
        yield name, value
        at = _skip(text, value[1])
        if text[at] == ",":
            at = _skip(text, at + 1)


def elements(text: str, span: Span | None):
    """The elements of an array, as spans; nothing for any other value."""
    if span is None or text[span[0]] != "[":
        return
    at = _skip(text, span[0] + 1)
    while text[at] != "]":
        value = at, _value_end(text, at)
        yield value
        at = _skip(text, value[1])
        if text[at] == ",":
            at = _skip(text, at + 1)


def find(text: str, span: Span | None, *path: str) -> Span | None:
    """The place of the value at `path`."""
    for name in path:
        span = next((value for key, value in members(text, span) if _string(text, key) == name), None)
    return span


def _string(text: str, span: Span | None) -> str | None:
    """The string there; None for an absent one and null."""
    value = None if span is None else text[span[0] : span[1]]
    return json.loads(value) if value and value.startswith('"') else None


@dataclass(frozen=True)
class Descriptor:
    """What names an Airbyte stream. No namespace and an empty one are two different things."""

    namespace: str | None
    name: str

    def stream_name(self) -> str:
        """The name of its Kinesis stream."""
        text = unicodedata.normalize("NFKD", f"{self.namespace or ''}_{self.name}")
        text = "".join(c for c in text if not unicodedata.category(c).startswith("M"))
        text = re.sub(r"[ \t\n\x0b\f\r]+", "_", text)
        return re.sub(r"[^A-Za-z0-9_]", "_", text)[:128]

    def prefixed(self, prefix: str) -> "Descriptor":
        """A descriptor of our own: its namespace, or its name where it has none, begins with `prefix`."""
        if self.namespace:
            return Descriptor(prefix + self.namespace, self.name)
        return Descriptor(self.namespace, prefix + self.name)


@dataclass
class Line:
    """One line of input, without its line end."""

    number: int
    text: str
    kind: str | None
    """`RECORD`, `STATE`, something else, or None for what is no message."""
    descriptor: Descriptor | None = None
    """Of a record, or of a state that covers one stream."""
    data: str | None = None
    """Of a record, exactly as the source wrote it."""


def _line(number: int, text: str) -> Line:
    text = text.strip(" \t\r")
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return Line(number, text, None)
    root = 0, len(text)
    kind = _string(text, find(text, root, "type"))
    line = Line(number, text, kind)
    if kind == "RECORD":
        record = find(text, root, "record")
        data = find(text, record, "data")
        line.data = text[slice(*data)]
        line.descriptor = _descriptor(text, record, "stream")
    elif kind == "STATE" and _string(text, find(text, root, "state", "type")) == "STREAM":
        line.descriptor = _descriptor(text, find(text, root, "state", "stream", "stream_descriptor"), "name")
    return line


def _descriptor(text: str, span: Span, name: str) -> Descriptor:
    return Descriptor(_string(text, find(text, span, "namespace")), _string(text, find(text, span, name)))


def read_messages(path) -> list[Line]:
    """All lines of a file that are not blank."""
    with open(path, encoding="utf-8", newline="\n") as file:
        lines = (_line(number, text.rstrip("\n")) for number, text in enumerate(file, 1))
        return [line for line in lines if line.text]


def _prefixed_line(text: str, prefix: str) -> str:
    root = 0, len(text)
    kind = _string(text, find(text, root, "type"))
    places = []
    if kind == "RECORD":
        places.append((find(text, root, "record"), "stream"))
    elif kind == "STATE":
        places.append((find(text, root, "state", "stream", "stream_descriptor"), "name"))
        states = find(text, root, "state", "global", "stream_states")
        places += [(find(text, state, "stream_descriptor"), "name") for state in elements(text, states)]
    changes = []
    for span, name_key in places:
        if span is None or text[span[0]] != "{":
            continue
        old = _descriptor(text, span, name_key)
        new = old.prefixed(prefix)
        key = name_key if new.namespace == old.namespace else "namespace"
        value = new.name if key == name_key else new.namespace
        changes.append((find(text, span, key), json.dumps(value, ensure_ascii=False)))
    for (start, end), value in sorted(changes, reverse=True):
        text = text[:start] + value + text[end:]
    return text


def copy_messages(source, target, prefix: str) -> None:
    """Copies a file of messages; every stream in it gets the prefix, and nothing else changes."""
    with open(source, encoding="utf-8", newline="\n") as old, open(target, "w", encoding="utf-8", newline="") as new:
        for line in old:
            if prefix and _line(0, line.rstrip("\n")).kind in ("RECORD", "STATE"):
                line = _prefixed_line(line, prefix)
            new.write(line)


def read_catalog(path) -> list[Descriptor]:
    """The streams of a configured catalog."""
    with open(path, encoding="utf-8") as file:
        streams = (configured["stream"] for configured in json.load(file)["streams"])
        return [Descriptor(stream.get("namespace"), stream["name"]) for stream in streams]


def copy_catalog(source, target, prefix: str) -> None:
    """Copies a configured catalog; every stream in it gets the prefix."""
    with open(source, encoding="utf-8") as file:
        catalog = json.load(file)
    for configured in catalog["streams"]:
        stream = configured["stream"]
        new = Descriptor(stream.get("namespace"), stream["name"]).prefixed(prefix)
        stream["name"] = new.name
        if "namespace" in stream:
            stream["namespace"] = new.namespace
    with open(target, "w", encoding="utf-8") as file:
        json.dump(catalog, file, ensure_ascii=False)


def without_statistics(text: str) -> tuple[str, str | None]:
    """A state's line without `destinationStats`, and the text of what was there."""
    root = 0, len(text)
    state = find(text, root, "state")
    found = list(members(text, state))
    for index, (name, value) in enumerate(found):
        if _string(text, name) == "destinationStats":
            start, end = name[0], value[1]
            if index + 1 < len(found):
                end = found[index + 1][0][0]
            elif index > 0:
                start = text.index(",", found[index - 1][1][1])
            return text[:start] + text[end:], text[slice(*value)]
    return text, None
