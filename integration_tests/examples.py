#!/usr/bin/env python3
"""Runs what the documents show: no page may say what does not work.

    $(integration_tests/python.sh) integration_tests/examples.py

* the policies of docs/examples/policies are JSON, and name operations that AWS has;
* the configurations of docs/examples/config are taken, and keep to the specification;
* the commands in the ``sh`` blocks of README.md and docs/*.md end well. One shell for each page, in the project's folder, with
  the connector of the tests in place of a release build. ``sh no-run`` blocks are left out;
* the consumers of docs/examples read what the connector has stored, duplicates and aggregates too.
"""

import base64
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from decimal import Decimal
from pathlib import Path

import boto3
from aws_kinesis_agg.aggregator import RecordAggregator
from jsonschema import Draft7Validator

import sync
from run import newest_build
from servers import PROJECT, TARGET, config_for, ferrokinesis, free_ports, running
from sync import Connector, Failed

DOCS = PROJECT / "docs"
EXAMPLES = DOCS / "examples"
STREAM = "shop_customers"
COMMANDS_TIMEOUT_S = 900
ENVELOPE_BYTES = 155
"""What docs/sizing.md says that the connector adds, at most."""


def require(fact: bool, message: str) -> None:
    if not fact:
        raise Failed(message)


def example(name: str):
    """A Python file of docs/examples, as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_policies() -> str:
    """Against the operations that the AWS SDK for Python knows."""
    operations = {}
    for service in ("kinesis", "sts", "kms"):
        client = boto3.client(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        operations[service] = set(client.meta.service_model.operation_names)
    files = sorted((EXAMPLES / "policies").glob("*.json"))
    for file in files:
        policy = json.loads(file.read_text(encoding="utf-8"))
        require(policy["Version"] == "2012-10-17" and policy["Statement"], f"{file.name}: no policy")
        for statement in policy["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            for action in actions:
                service, _, operation = action.partition(":")
                require(operation in operations[service], f"{file.name}: AWS has no {action}")
            require("Resource" in statement or "Principal" in statement, f"{file.name}: for nothing")
    return f"{len(files)} files"


def check_configurations(connector: Connector, folder: Path) -> str:
    spec = connector.run("spec").require_success().of_type("SPEC")[0]["spec"]["connectionSpecification"]
    catalog = folder / "no_streams.json"
    catalog.write_text('{"streams": []}', encoding="utf-8")
    files = sorted((EXAMPLES / "config").glob("*.json"))
    for file in files:
        config = json.loads(file.read_text(encoding="utf-8"))
        Draft7Validator(spec).validate(config)
        require(set(config) <= set(spec["properties"]), f"{file.name} has settings that there are not")
        # Without a stream, nothing but the configuration is looked at.
        connector.run("write", config=file, catalog=catalog).require_success()
    return f"{len(files)} files"


def run_commands(folder: Path) -> str:
    """The fenced commands, page by page, against the Kinesis that they start themselves."""
    already = {line.split(maxsplit=2)[2] for line in (PROJECT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
               if re.match(r'step "\S+" cargo ', line)}
    count = 0
    for page in [PROJECT / "README.md", *sorted(DOCS.glob("*.md"))]:
        commands = "".join(re.findall(r"^ *```sh\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
        if not commands:
            continue
        lines = [line for line in commands.splitlines() if line.strip() not in already]
        if not any(lines):
            continue
        script = "\n".join(lines).replace("cargo build --release", "cargo build --locked")
        script = script.replace("target/release/", f"{TARGET}/debug/").replace("http://127.0.0.1:4567", "$KINESIS")
        run_page(page, script, folder)
        count += sum(1 for line in lines if line.strip())
    return f"{count} lines"


# A shell that stops at the first error. What a page has started is stopped at its end; a server is waited for.
PRELUDE = r"""
set -euo pipefail
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
cargo() {
  if [[ "$*" == "run --example kinesis_server"* ]]; then
    exec "$SERVER" "$PORT"
  fi
  command cargo "$@"
}
wait_for_server() {
  for _ in $(seq 300); do
    if (: < "/dev/tcp/127.0.0.1/$PORT") 2> /dev/null; then return; fi
    sleep 0.1
  done
  echo "no server on $PORT"; exit 1
}
"""


def run_page(page: Path, script: str, folder: Path) -> None:
    port, = free_ports(1)
    # Reading needs something that was written: by the page before, whose server is gone.
    starts_server = "kinesis_server" in script
    if starts_server:
        script = re.sub(r"^(.*kinesis_server.*&.*)$", r"\1\nwait_for_server", script, flags=re.MULTILINE)
    config = json.loads((EXAMPLES / "config" / "local.json").read_text(encoding="utf-8")) | {"endpoint": f"http://127.0.0.1:{port}"}
    own = folder / f"{page.stem}.json"
    own.write_text(json.dumps(config), encoding="utf-8")
    script = script.replace("docs/examples/config/local.json", str(own))
    environment = os.environ | {
        "SERVER": str(TARGET / "debug" / "examples" / "kinesis_server"),
        "PORT": str(port),
        "KINESIS": f"http://127.0.0.1:{port}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    server = None
    try:
        if not starts_server:
            server = deliver_example(port, own, folder)
        done = subprocess.run(["bash", "-c", PRELUDE + script], cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=COMMANDS_TIMEOUT_S, check=False)
    finally:
        if server:
            server.__exit__(None, None, None)
    if done.returncode or '"FAILED"' in done.stdout:
        raise Failed(f"{page.name}: a command ended with {done.returncode}:\n{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def deliver_example(port: int, config: Path, folder: Path):
    """A Kinesis that has the example's records."""
    server = running(ferrokinesis(port), port, folder / "log")
    server.__enter__()
    connector = Connector(os.environ.get("CONNECTOR") or newest_build())
    connector.run("write", config=config, catalog=EXAMPLES / "catalog.json", messages=EXAMPLES / "messages.jsonl").require_success()
    return server


def check_consumers(connector: Connector, folder: Path) -> str:
    port, = free_ports(1)
    config = folder / "config.json"
    # One shard, and two later: of three records, two at least share one.
    one_shard = config_for(port) | {"shardCount": 1}
    config.write_text(json.dumps(one_shard), encoding="utf-8")
    expected = [json.loads(line, parse_float=Decimal)["record"]["data"]
                for line in (EXAMPLES / "messages.jsonl").read_text(encoding="utf-8").splitlines() if '"RECORD"' in line]
    with running(ferrokinesis(port), port, folder / "log") as kinesis:
        write = connector.run("write", config=config, catalog=EXAMPLES / "catalog.json", messages=EXAMPLES / "messages.jsonl")
        require(len(write.require_success().of_type("STATE")) == 1, "not one state came out of the example")
        records = list(example("read_stream").read_stream(kinesis, STREAM))
        require(same(data_of(records), expected), "read_stream.py does not read what was sent")
        for record in records:
            escaped = len(json.dumps(json.loads(record["Data"])["_airbyte_data"], ensure_ascii=False).encode()) - 2
            added = len(record["Data"]) + len(record["PartitionKey"]) - escaped
            require(ENVELOPE_BYTES - 9 <= added <= ENVELOPE_BYTES, f"{added} bytes are added to a record")

        # The first once more, as after an answer that was lost, and all in an aggregate, to a shard that was split.
        kinesis.put_record(StreamName=STREAM, Data=records[0]["Data"], PartitionKey=records[0]["PartitionKey"])
        aggregator = RecordAggregator()
        for record in records:
            aggregator.add_user_record(record["PartitionKey"], record["Data"])
        key, _, packed = aggregator.clear_and_get().get_contents()
        shards = kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]["OpenShardCount"]
        kinesis.update_shard_count(StreamName=STREAM, TargetShardCount=shards + 1, ScalingType="UNIFORM_SCALING")
        kinesis.get_waiter("stream_exists").wait(StreamName=STREAM)
        kinesis.put_record(StreamName=STREAM, Data=packed, PartitionKey=key)

        again = list(example("read_stream").read_stream(kinesis, STREAM))
        require(len(again) == len(records) + 2, "read_stream.py does not read all shards of a reshard")
        unpacked = list(example("decode_aggregates").user_records(again))
        require(len(unpacked) == 2 * len(records) + 1, "decode_aggregates.py does not unpack")

        config.write_text(json.dumps(one_shard | {"aggregation": "kpl"}), encoding="utf-8")
        connector.run("write", config=config, catalog=EXAMPLES / "catalog.json", messages=EXAMPLES / "messages.jsonl").require_success()
        stored = list(example("read_stream").read_stream(kinesis, STREAM))
        everything = list(example("decode_aggregates").user_records(stored))
        require(len(everything) == len(unpacked) + len(records), "decode_aggregates.py does not unpack what the connector has packed")
        require(len(stored) < len(again) + len(records), "the connector has not packed its records")

    lines = b"\n".join(unpacked) + b"\n"
    seen = folder / "seen.sqlite"
    command = [sys.executable, EXAMPLES / "deduplicate.py", seen]
    for left in (len(records), 0):
        printed = subprocess.run(command, input=lines, capture_output=True, check=True).stdout.splitlines()
        require(len(printed) == left, f"deduplicate.py leaves {len(printed)} of {left}")
    check_lambda(unpacked, expected)
    return f"{len(records)} records, {len(unpacked)} with their copies"


def check_lambda(records: list[bytes], expected: list[dict]) -> None:
    module = example("lambda_handler")
    event = {"Records": [
        {"eventSource": "aws:kinesis", "kinesis": {
            "sequenceNumber": str(number), "partitionKey": str(uuid.uuid4()), "data": base64.b64encode(record).decode()}}
        for number, record in enumerate(records)
    ]}
    stored = {}
    module.store = stored.__setitem__
    require(module.handler(event, None) == {"batchItemFailures": []}, "lambda_handler.py fails")
    require(same(list(stored.values()), expected), "lambda_handler.py stores something else")
    event["Records"][2]["kinesis"]["data"] = "e30="
    output, sys.stdout = sys.stdout, io.StringIO()
    try:
        verdict = module.handler(event, None)
    finally:
        sys.stdout = output
    require(verdict == {"batchItemFailures": [{"itemIdentifier": "2"}]}, "lambda_handler.py does not name what failed")


def data_of(records: list[dict]) -> list[dict]:
    return [json.loads(json.loads(record["Data"])["_airbyte_data"], parse_float=Decimal) for record in records]


def same(one: list[dict], other: list[dict]) -> bool:
    return sorted(one, key=lambda data: data["id"]) == sorted(other, key=lambda data: data["id"])


def main() -> int:
    connector = Connector(os.environ.get("CONNECTOR") or newest_build())
    failures = 0
    with tempfile.TemporaryDirectory(prefix="destination-kinesis-") as name:
        folder = Path(name)
        for what, check in (
            ("policies", check_policies),
            ("configurations", lambda: check_configurations(connector, folder)),
            ("consumers", lambda: check_consumers(connector, folder)),
            ("commands", lambda: run_commands(folder)),
        ):
            try:
                print(f"{what}: ok, {check()}", flush=True)
            # Whatever an example does wrong.
            except Exception as error:  # noqa: BLE001
                failures += 1
                print(f"{what}: FAILED: {type(error).__name__}: {error}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
