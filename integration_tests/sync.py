"""One run of the connector, and the comparison of what it was given with what arrived in Kinesis."""

import base64
import hashlib
import json
import re
import shlex
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field

import boto3
from aws_kinesis_agg.deaggregator import iter_deaggregate_records
from botocore.config import Config

from messages import Descriptor, Line, read_catalog, read_messages, without_statistics

UUID_V4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
SECONDS = re.compile(r"\d+(\.\d{0,8}[1-9])?")
STATISTICS = re.compile(r'\{"recordCount":(\d+)\.0\}')
PAUSE_S = 0.2
"""Between two looks: GetRecords may be called five times a second for a shard."""


class Failed(Exception):
    """What is not as it should be, in words. Shows no record."""


@dataclass
class Run:
    """One run of the connector, over."""

    verb: str
    exit_code: int
    stdout: bytes
    stderr: bytes
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def messages(self) -> list[dict]:
        """What it said, each line read as JSON."""
        try:
            return [json.loads(line) for line in self.stdout.decode().split("\n") if line]
        except ValueError as error:
            raise Failed(f"{self.verb}: stdout has a line that is not JSON: {error}") from None

    def of_type(self, kind: str) -> list[dict]:
        return [message for message in self.messages() if message["type"] == kind]

    def errors(self) -> list[str]:
        return [trace["trace"].get("error", {}).get("message", "?") for trace in self.of_type("TRACE")]

    def require_success(self) -> "Run":
        """Exit code 0, an empty stderr, and only types of messages that a destination may send."""
        if self.exit_code != 0:
            raise Failed(f"{self.verb} ended with exit code {self.exit_code}: {' '.join(self.errors())}")
        if self.stderr:
            raise Failed(f"{self.verb} wrote {len(self.stderr)} bytes to stderr")
        kinds = {message["type"] for message in self.messages()}
        allowed = {"spec": {"SPEC"}, "check": {"CONNECTION_STATUS", "LOG"}, "write": {"STATE", "LOG"}}
        if not kinds <= allowed[self.verb]:
            raise Failed(f"{self.verb} sent messages of the types {sorted(kinds)}")
        return self


@dataclass
class Connector:
    """The command of a connector: the program itself, or whatever runs it."""

    command: str
    timeout_s: float = 600
    keep_output_in: object = None
    runs: int = 0

    def run(self, verb: str, *, config=None, catalog=None, messages=None) -> Run:
        arguments = [*shlex.split(self.command), verb]
        for name, path in (("--config", config), ("--catalog", catalog)):
            arguments += [name, str(path)] if path else []
        began = time.time()
        with open(messages or "/dev/null", "rb") as stdin:
            try:
                done = subprocess.run(arguments, stdin=stdin, capture_output=True, timeout=self.timeout_s, check=False)
            except subprocess.TimeoutExpired:
                raise Failed(f"{verb} was not done after {self.timeout_s:.0f} s") from None
        run = Run(verb, done.returncode, done.stdout, done.stderr, began, time.time())
        self.runs += 1
        if self.keep_output_in:
            (self.keep_output_in / f"{self.runs:02}-{verb}.jsonl").write_bytes(run.stdout)
        return run


def client_of(config: dict):
    """A client with the connection of a configuration. What that leaves out comes from the environment."""
    given = {
        "endpoint_url": config.get("endpoint"),
        "region_name": config.get("region"),
        "aws_access_key_id": config.get("accessKey"),
        "aws_secret_access_key": config.get("privateKey"),
        "aws_session_token": config.get("sessionToken"),
    }
    if config.get("roleArn"):
        role = {"RoleArn": config["roleArn"], "RoleSessionName": "integration-tests"}
        role |= {"ExternalId": config["externalId"]} if config.get("externalId") else {}
        own = {key: value for key, value in given.items() if value and key != "endpoint_url"}
        assumed = boto3.client("sts", **own).assume_role(**role)["Credentials"]
        given["aws_access_key_id"] = assumed["AccessKeyId"]
        given["aws_secret_access_key"] = assumed["SecretAccessKey"]
        given["aws_session_token"] = assumed["SessionToken"]
    retries = Config(retries={"mode": "standard", "max_attempts": 8}, connect_timeout=5, read_timeout=20)
    return boto3.client("kinesis", config=retries, **{key: value for key, value in given.items() if value})


def stream_exists(kinesis, name: str) -> bool:
    try:
        kinesis.describe_stream_summary(StreamName=name)
        return True
    except kinesis.exceptions.ResourceNotFoundException:
        return False


def delete_streams(kinesis, names, timeout_s: float = 120) -> None:
    """Deletes these streams, as far as they are there, and waits until they are gone."""
    deadline = time.monotonic() + timeout_s
    for name in names:
        while True:
            try:
                kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
                break
            except kinesis.exceptions.ResourceNotFoundException:
                break
            except (kinesis.exceptions.ResourceInUseException, kinesis.exceptions.LimitExceededException):
                if time.monotonic() > deadline:
                    raise Failed(f"the stream {name} cannot be deleted") from None
                time.sleep(PAUSE_S)
    wait_until_gone(kinesis, names, deadline - time.monotonic())


def wait_until_gone(kinesis, names, timeout_s: float = 120) -> None:
    """Waits until none of these streams is there."""
    deadline = time.monotonic() + timeout_s
    left = list(names)
    while left := [name for name in left if stream_exists(kinesis, name)]:
        if time.monotonic() > deadline:
            raise Failed(f"streams that should be gone are still there: {', '.join(left)}")
        time.sleep(PAUSE_S)


def read_stream(kinesis, name: str, timeout_s: float = 300) -> list[dict]:
    """All records of a stream: of every shard, closed ones too, every page. Each with its `Place`, which no other has.

    Aggregates come apart, by a decoder that is not the connector's own.
    """
    deadline = time.monotonic() + timeout_s
    shards = []
    page = kinesis.list_shards(StreamName=name)
    while True:
        shards += page["Shards"]
        if not page.get("NextToken"):
            break
        page = kinesis.list_shards(NextToken=page["NextToken"])
    records = []
    for shard in shards:
        iterator = kinesis.get_shard_iterator(
            StreamName=name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            page = kinesis.get_records(ShardIterator=iterator)
            for record in page["Records"]:
                records += user_records(name, shard, record)
            iterator = page.get("NextShardIterator")
            if not page["Records"]:
                # moto never says of a closed shard that it is at its end, only that nothing is behind.
                if page.get("MillisBehindLatest") == 0:
                    break
                time.sleep(PAUSE_S)
            if time.monotonic() > deadline:
                raise Failed(f"the stream {name} could not be read to its end in {timeout_s:.0f} s")
    return records


def user_records(name: str, shard: dict, record: dict) -> list[dict]:
    """The records in a Kinesis record: one, or those of an aggregate."""
    place = (shard["ShardId"], record["SequenceNumber"])
    hash_range = shard["HashKeyRange"]
    records = []
    for number, found in enumerate(iter_deaggregate_records([record], data_format="Boto3")):
        user_record = found["kinesis"]
        aggregated = "subSequenceNumber" in user_record
        key = user_record["partitionKey"]
        key_hash = int.from_bytes(hashlib.md5(key.encode()).digest(), "big")
        if not int(hash_range["StartingHashKey"]) <= key_hash <= int(hash_range["EndingHashKey"]):
            raise Failed(f"the stream {name}, {', '.join(place)}: consumers drop a record whose key belongs to another shard")
        data = base64.b64decode(user_record["data"]) if aggregated else user_record["data"]
        records.append({"Data": data, "PartitionKey": key, "Place": (*place, str(number)), "Aggregated": aggregated})
    return records


@dataclass
class Expectation:
    """What a `write` of these files has to do."""

    streams: dict[str, list[Line]] = field(default_factory=dict)
    """By Kinesis stream, its records."""
    states: list[tuple[Line, Descriptor | None, int]] = field(default_factory=list)
    """Each with the stream that it covers (None: all), and the number of records since the one before."""

    @classmethod
    def of(cls, catalog, messages) -> "Expectation":
        descriptors = read_catalog(catalog)
        expected = cls({descriptor.stream_name(): [] for descriptor in descriptors})
        uncounted = Counter()
        for line in read_messages(messages):
            if line.kind == "RECORD":
                expected.streams[line.descriptor.stream_name()].append(line)
                uncounted[line.descriptor] += 1
            elif line.kind == "STATE":
                covered = [line.descriptor] if line.descriptor else list(uncounted)
                count = sum(uncounted.pop(descriptor, 0) for descriptor in covered)
                expected.states.append((line, line.descriptor, count))
        return expected

    def records(self) -> int:
        return sum(map(len, self.streams.values()))


def compare_records(
    name: str, expected: list[Line], stored: list[dict], began: float, ended: float, key_of=None
) -> int:
    """Holds what is in a stream against what was sent: byte for byte. Returns how many records are there twice."""
    by_id, data = {}, Counter()
    for record in stored:
        place = f"the stream {name}, {', '.join(record['Place'])}"
        try:
            envelope = json.loads(record["Data"].decode(), parse_float=str, parse_int=str)
        except ValueError:
            raise Failed(f"{place}: not JSON") from None
        if sorted(envelope) != ["_airbyte_ab_id", "_airbyte_data", "_airbyte_emitted_at"]:
            raise Failed(f"{place}: other fields than the three of the envelope")
        record_id, emitted_at = envelope["_airbyte_ab_id"], envelope["_airbyte_emitted_at"]
        if not UUID_V4.fullmatch(record_id):
            raise Failed(f"{place}: the id is no UUID v4")
        if key_of is None and not record["Aggregated"] and record_id != record["PartitionKey"]:
            raise Failed(f"{place}: the id is not the partition key")
        if key_of is not None and key_of(json.loads(envelope["_airbyte_data"])) != record["PartitionKey"]:
            raise Failed(f"{place}: the partition key is not that of the record")
        if not SECONDS.fullmatch(emitted_at) or not began - 1 <= float(emitted_at) <= ended + 1:
            raise Failed(f"{place}: _airbyte_emitted_at is not the time of the run")
        if by_id.setdefault(record_id, record["Data"]) != record["Data"]:
            raise Failed(f"{place}: another record with the same id")
    for stored_data in by_id.values():
        data[json.loads(stored_data)["_airbyte_data"]] += 1
    missing = []
    for line in expected:
        data[line.data] -= 1
        if data[line.data] < 0:
            missing.append(line.number)
    if missing:
        raise Failed(f"the stream {name}: {len(missing)} records are missing, the first is that of line {missing[0]}")
    if extra := sum((+data).values()):
        raise Failed(f"the stream {name}: {extra} records that nobody sent")
    return len(stored) - len(by_id)


def compare_states(expected: Expectation, run: Run) -> None:
    """Every state came back: byte for byte, once, with its count, and in the order of its scope."""
    waiting = [
        (number, without_statistics(line.text)[0], descriptor, count)
        for number, (line, descriptor, count) in enumerate(expected.states)
    ]
    for text in run.stdout.decode().split("\n"):
        if not text or json.loads(text)["type"] != "STATE":
            continue
        bare, statistics = without_statistics(text)
        match = next((state for state in waiting if state[1] == bare), None)
        if match is None:
            raise Failed("a state came back that is no state of the input, or it was changed, or came twice")
        number, _, descriptor, count = match
        line = expected.states[number][0].number
        if not (found := STATISTICS.fullmatch(statistics or "")):
            raise Failed(f"the state of line {line} came back without destinationStats")
        if int(found[1]) != count:
            raise Failed(f"the state of line {line} counts {found[1]} records, and it covers {count}")
        for other, _, other_descriptor, _ in waiting:
            if other < number and (descriptor is None or other_descriptor in (None, descriptor)):
                raise Failed(f"the state of line {line} came before that of line {expected.states[other][0].number}")
        waiting.remove(match)
    if waiting:
        line = expected.states[waiting[0][0]][0].number
        raise Failed(f"{len(waiting)} states did not come back, the first is that of line {line}")


def write_and_compare(connector: Connector, kinesis, config, catalog, messages, key_of=None) -> tuple[Run, dict[str, list[dict]]]:
    """Delivers the messages, reads every stream back and compares. What was in a stream before stays out of it.

    `key_of` tells the partition key of a record's data, where that is not the record's id. Returns the run, and what it stored, by
    stream.
    """
    expected = Expectation.of(catalog, messages)
    before = {
        name: {record["Place"] for record in read_stream(kinesis, name)}
        for name in expected.streams
        if stream_exists(kinesis, name)
    }
    run = connector.run("write", config=config, catalog=catalog, messages=messages).require_success()
    compare_states(expected, run)
    stored = {}
    for name, lines in expected.streams.items():
        everything = read_stream(kinesis, name)
        old = before.get(name, set())
        stored[name] = [record for record in everything if record["Place"] not in old]
        if len(everything) - len(stored[name]) != len(old):
            raise Failed(f"the stream {name} has lost records that were there before")
        twice = compare_records(name, lines, stored[name], run.began, run.ended, key_of)
        if twice:
            print(f"  note: {twice} records are in {name} twice, with the same id: Kinesis is at-least-once", flush=True)
    return run, stored
