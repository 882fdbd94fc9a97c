"""The comparison itself: it takes what is right, and nothing else."""

import json
import tempfile
import unittest
import uuid
from pathlib import Path

import messages
import sync
from messages import Descriptor, copy_messages, read_catalog, read_messages, without_statistics
from sync import Expectation, Failed, Run

HERE = Path(__file__).resolve().parent
CATALOG = HERE / "configured_catalog.json"
SAMPLES = sorted(HERE.glob("messages*.jsonl"))


class Messages(unittest.TestCase):
    def test_stream_names(self):
        for namespace, name, expected in [
            ("namespace", "stream", "namespace_stream"),
            ("**namespace^h", "##stream", "__namespace_h___stream"),
            (None, "users", "_users"),
            ("", "users", "_users"),
            ("café", "a \t\nb", "cafe_a_b"),
            (None, "日😀", "___"),
            ("n", "é" * 500, "n_" + "e" * 126),
        ]:
            self.assertEqual(Descriptor(namespace, name).stream_name(), expected)

    def test_places_are_found_in_any_json(self):
        text = ' { "a" : "x}\\"]" , "b":[ 1e400 , {"c" : [] } ],"d":null}'.strip()
        root = 0, len(text)
        self.assertEqual(text[slice(*messages.find(text, root, "a"))], '"x}\\"]"')
        self.assertEqual(text[slice(*messages.find(text, root, "b"))], '[ 1e400 , {"c" : [] } ]')
        self.assertEqual(text[slice(*messages.find(text, root, "d"))], "null")
        self.assertIsNone(messages.find(text, root, "b", "c"))
        self.assertEqual(len(list(messages.elements(text, messages.find(text, root, "b")))), 2)

    def test_a_prefix_changes_nothing_but_names(self):
        with tempfile.TemporaryDirectory() as folder:
            for sample in SAMPLES:
                copy = Path(folder) / sample.name
                copy_messages(sample, copy, "prefix-")
                new = copy.read_bytes()
                self.assertNotEqual(new, sample.read_bytes())
                self.assertEqual(new.replace(b"prefix-", b""), sample.read_bytes())
                names = {line.descriptor.stream_name() for line in read_messages(copy) if line.descriptor}
                self.assertTrue(all(name.lstrip("_").startswith("prefix_") for name in names), names)

    def test_statistics_are_taken_out_wherever_they_are(self):
        for text, bare in [
            ('{"type":"STATE","state":{"data":{} ,"destinationStats":{"recordCount":1.0}}}', '{"type":"STATE","state":{"data":{} }}'),
            ('{"state":{"destinationStats":null,"id":5}}', '{"state":{"id":5}}'),
            ('{"state":{ "destinationStats":{}}}', '{"state":{ }}'),
            ('{"state":{"id":5}}', '{"state":{"id":5}}'),
        ]:
            self.assertEqual(without_statistics(text)[0], bare)


class Records(unittest.TestCase):
    def setUp(self):
        self.lines = [line for line in read_messages(SAMPLES[0]) if line.kind == "RECORD"][:5]
        self.stored = [self.kinesis_record(line.data) for line in self.lines]

    @staticmethod
    def kinesis_record(data: str, **changes) -> dict:
        envelope = {"_airbyte_ab_id": str(uuid.uuid4()), "_airbyte_data": data, "_airbyte_emitted_at": 1000.5} | changes
        text = json.dumps(envelope, ensure_ascii=False).encode()
        return {"Data": text, "PartitionKey": envelope["_airbyte_ab_id"], "Place": ("shard", "1"), "Aggregated": False}

    def compare(self) -> int:
        return sync.compare_records("s", self.lines, self.stored, 1000, 1001)

    def test_what_is_right_is_taken(self):
        self.assertEqual(self.compare(), 0)
        self.stored.append(self.stored[0])
        self.assertEqual(self.compare(), 1)

    def test_what_is_wrong_is_not(self):
        data = self.lines[0].data
        for wrong in [
            [],
            self.stored[1:],
            [*self.stored, self.kinesis_record(data)],
            [*self.stored[1:], self.kinesis_record(data + " ")],
            [*self.stored[1:], self.kinesis_record(data, _airbyte_emitted_at=900)],
            [*self.stored[1:], self.kinesis_record(data, _airbyte_emitted_at="1000.5 ")],
            [*self.stored[1:], self.kinesis_record(data, _airbyte_ab_id="1")],
            [*self.stored[1:], self.kinesis_record(data, more=1)],
            [*self.stored[1:], self.kinesis_record(data) | {"PartitionKey": "x"}],
            [*self.stored[1:], self.kinesis_record(data) | {"Data": b"\xff"}],
            [*self.stored, self.stored[0] | {"Data": self.stored[0]["Data"] + b" "}],
        ]:
            with self.subTest(records=len(wrong)), self.assertRaises(Failed):
                self.stored, right = wrong, self.stored
                try:
                    self.compare()
                finally:
                    self.stored = right


class States(unittest.TestCase):
    @staticmethod
    def answers(expected: Expectation) -> list[str]:
        lines = []
        for line, _, count in expected.states:
            bare, _ = without_statistics(line.text)
            end = messages.find(bare, (0, len(bare)), "state")[1] - 1
            lines.append(f'{bare[:end]},"destinationStats":{{"recordCount":{count}.0}}{bare[end:]}')
        return lines

    @staticmethod
    def compare(expected: Expectation, lines: list[str]):
        sync.compare_states(expected, Run("write", 0, "\n".join(lines).encode(), b"", 0, 1))

    def test_what_is_right_is_taken(self):
        for sample in SAMPLES:
            expected = Expectation.of(CATALOG, sample)
            self.assertEqual(expected.records(), sum(count for *_, count in expected.states) + self.uncovered(expected))
            self.compare(expected, ['{"type":"LOG","log":{}}', *self.answers(expected), ""])

    @staticmethod
    def uncovered(expected: Expectation) -> int:
        """Records that no state covers, because their stream has none after them."""
        last = {descriptor: line.number for line, descriptor, _ in expected.states}
        return sum(
            line.number > last.get(line.descriptor, last.get(None, 0)) for lines in expected.streams.values() for line in lines
        )

    def test_what_is_wrong_is_not(self):
        for sample in SAMPLES:
            expected = Expectation.of(CATALOG, sample)
            right = self.answers(expected)
            same = [number for number, (_, descriptor, _) in enumerate(expected.states) if descriptor == expected.states[0][1]]
            swapped = list(right)
            swapped[same[0]], swapped[same[1]] = swapped[same[1]], swapped[same[0]]
            for wrong in [
                right[1:],
                right[:-1],
                [*right, right[0]],
                swapped,
                [right[0].replace(".0}", ".5}"), *right[1:]],
                [right[0].replace('"recordCount":', '"recordCount":1'), *right[1:]],
                [right[0].replace('"type"', '"type" ', 1), *right[1:]],
                [without_statistics(right[0])[0], *right[1:]],
            ]:
                with self.subTest(sample=sample.name), self.assertRaises(Failed):
                    self.compare(expected, wrong)

    def test_states_of_different_streams_may_change_places(self):
        expected = Expectation.of(CATALOG, HERE / "messages.jsonl")
        right = self.answers(expected)
        first = expected.states[0][1]
        self.compare(expected, sorted(right, key=lambda line: expected.states[right.index(line)][1] == first))


class Samples(unittest.TestCase):
    def test_they_are_what_they_are_for(self):
        main = (HERE / "messages.jsonl").read_bytes()
        self.assertFalse(main.endswith(b"\n"), "a last line without an end")
        self.assertIn(b"\r\n", main)
        self.assertIn(b"\n\n", main)
        kinds = {line.kind for sample in SAMPLES for line in read_messages(sample)}
        self.assertGreaterEqual(kinds, {"RECORD", "STATE", "LOG", "TRACE", "CONTROL"})
        self.assertTrue(kinds - {"RECORD", "STATE", "LOG", "TRACE", "CONTROL"}, "a type that nobody knows")
        self.assertTrue(any(len(descriptor.name) > 128 for descriptor in read_catalog(CATALOG)))


if __name__ == "__main__":
    unittest.main()
