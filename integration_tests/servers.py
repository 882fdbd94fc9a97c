#!/usr/bin/env python3
"""The same syncs against every Kinesis that can be had on one machine, read back with boto3 and compared byte for byte.

    $(integration_tests/python.sh) integration_tests/servers.py [NAME..]

Each server gets: `check`; the three sample files, with all types of states and unusual names; 3,000 records with a state after
each 250 of a stream, in on-demand streams where the server has them, and the same aggregated, with random keys and by primary
key; then the first file again and again, into the same streams: in CBOR where the server takes it, with a role where the server is
an STS as well, and with another number of shards where that can be changed. At the end a table says which server showed what.

Needs cargo, and npm (installed from Debian's packages where it is missing and that is possible).
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

import sync
from run import SAMPLES, newest_build
from sync import Connector, Expectation, Failed

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
START_S = 60
BULK_RECORDS = {"bulk a": 2000, "bulk b": 700, "bulk c": 200, "bulk d": 90, "bulk e": 10}
BULK_STATE_EVERY = 250
ROLE = "arn:aws:iam::123456789012:role/airbyte"
"""Of moto's own account: each account has streams of its own."""


@dataclass
class Server:
    name: str
    version: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path = HERE
    takes_cbor: bool = False
    """Whether it answers PutRecords in CBOR as AWS does."""
    has_roles: bool = False
    """Whether it is an STS as well."""


def servers(port: int, other_port: int) -> dict:
    """By name: what makes the server ready, and returns how to start it on `port`."""
    return {
        "ferrokinesis": lambda: ferrokinesis(port),
        "ferrokinesis with limits": lambda: ferrokinesis(port, "--enforce-limits"),
        "kinesis-local": lambda: kinesis_local(port, other_port),
        "kinesalite": lambda: kinesalite(port),
        "moto": lambda: moto(port),
    }


def ferrokinesis(port: int, *options: str) -> Server:
    subprocess.run(
        ["cargo", "build", "--quiet", "--locked", "--example", "kinesis_server"], cwd=PROJECT, check=True
    )
    lock = (PROJECT / "Cargo.lock").read_text(encoding="utf-8")
    version = re.search(r'name = "ferrokinesis"\nversion = "(.*)"', lock)[1]
    program = TARGET / "debug" / "examples" / "kinesis_server"
    return Server(" ".join(["ferrokinesis", *options]), version, [str(program), str(port), *options],
                  takes_cbor=True)


def kinesis_local(port: int, other_port: int) -> Server:
    package, version = npm_package("kinesis-local")
    environment = {
        "KINESIS_MOCK_PLAIN_PORT": str(port),
        "KINESIS_MOCK_TLS_PORT": str(other_port),
        "SHARD_LIMIT": "1000",
        "LOG_LEVEL": "ERROR",
    }
    return Server("kinesis-local", version, ["node", "main.js"], environment, package, takes_cbor=True)


def kinesalite(port: int) -> Server:
    package, version = npm_package("kinesalite")
    return Server("kinesalite", version, ["node", str(package / "cli.js"), "--port", str(port), "--shardLimit", "1000"])


def moto(port: int) -> Server:
    from importlib.metadata import version

    return Server("moto, one request at a time", version("moto"), [sys.executable, str(HERE / "moto_server.py"), str(port)],
                  has_roles=True)


def npm_package(name: str) -> tuple[Path, str]:
    """The folder and the version of a package of package-lock.json, installed in target/."""
    if not shutil.which("npm"):
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise Failed("npm is needed for kinesis-local and kinesalite")
        print("Installing npm.", flush=True)
        subprocess.run("apt-get update -qq && apt-get install -qq --no-install-recommends nodejs npm", shell=True,
                       check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    files = [HERE / "package.json", HERE / "package-lock.json"]
    state = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    folder = TARGET / "integration_tests" / f"npm-{state}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in files:
            shutil.copy(file, folder)
        subprocess.run(["npm", "ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                       cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (folder / "complete").touch()
    package = folder / "node_modules" / name
    return package, json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def running(server: Server, port: int, log: Path):
    """The server, from when it answers to the end of the block."""
    with open(log, "wb") as output:
        process = subprocess.Popen(server.command, cwd=server.folder, env={**os.environ, **server.environment},
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        kinesis = sync.client_of(config_for(port))
        deadline = time.monotonic() + START_S
        while True:
            try:
                kinesis.list_streams()
                break
            except (ClientError, BotoCoreError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    words = log.read_text(errors="replace")[-2000:]
                    raise Failed(f"{server.name} does not start: {error}\n{words}") from None
                time.sleep(sync.PAUSE_S)
        yield kinesis
    finally:
        process.kill()
        process.wait()


def config_for(port: int) -> dict:
    return json.loads((HERE / "config.json").read_text(encoding="utf-8")) | {"endpoint": f"http://127.0.0.1:{port}"}


def write_bulk(folder: Path) -> tuple[Path, Path]:
    """A catalog and a file of messages: more than fits into one request."""
    catalog, messages = folder / "bulk_catalog.json", folder / "bulk.jsonl"
    streams = [{"stream": {"name": name, "json_schema": {}, "supported_sync_modes": ["full_refresh"]},
                "sync_mode": "full_refresh", "destination_sync_mode": "append", "primary_key": [["n"]]} for name in BULK_RECORDS]
    catalog.write_text(json.dumps({"streams": streams}), encoding="utf-8")
    with open(messages, "w", encoding="utf-8") as file:
        left = dict(BULK_RECORDS)
        while left:
            for name in list(left):
                n = BULK_RECORDS[name] - left[name]
                data = json.dumps({"n": n, "text": f"{name} {n} " * (n % 40)})
                file.write(f'{{"type":"RECORD","record":{{"stream":"{name}","data":{data},"emitted_at":1}}}}\n')
                left[name] -= 1
                if (n + 1) % BULK_STATE_EVERY == 0 or not left[name]:
                    file.write('{"type":"STATE","state":{"type":"STREAM","stream":{"stream_descriptor":{"name":'
                               f'"{name}"}},"stream_state":{{"n":{n}}}}}}}}}\n')
                if not left[name]:
                    del left[name]
    return catalog, messages


def stream_mode(kinesis, name: str) -> str | None:
    return summary_when_active(kinesis, name).get("StreamModeDetails", {}).get("StreamMode")


def has_on_demand(kinesis) -> bool:
    """Whether a stream can be in on-demand mode."""
    try:
        kinesis.create_stream(StreamName="on_demand", StreamModeDetails={"StreamMode": "ON_DEMAND"})
        return stream_mode(kinesis, "on_demand") == "ON_DEMAND"
    except ClientError:
        return False


def has_shard_limits(kinesis) -> bool:
    """Whether a shard refuses what is beyond 1,000 records a second."""
    kinesis.create_stream(StreamName="limits", ShardCount=1)
    summary_when_active(kinesis, "limits")
    records = [{"Data": b"x", "PartitionKey": str(n)} for n in range(500)]
    answers = [kinesis.put_records(StreamName="limits", Records=records) for _ in range(4)]
    return any(record.get("ErrorCode") for answer in answers for record in answer["Records"])


def reshard(kinesis, name: str) -> bool:
    """Gives a stream one shard more, where the server can."""
    shards = summary_when_active(kinesis, name)["OpenShardCount"]
    try:
        kinesis.update_shard_count(StreamName=name, TargetShardCount=shards + 1, ScalingType="UNIFORM_SCALING")
    except ClientError:
        return False
    return summary_when_active(kinesis, name)["OpenShardCount"] == shards + 1


def summary_when_active(kinesis, name: str) -> dict:
    deadline = time.monotonic() + START_S
    while True:
        summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        if summary["StreamStatus"] == "ACTIVE":
            return summary
        if time.monotonic() > deadline:
            raise Failed(f"the stream {name} stays {summary['StreamStatus']}")
        time.sleep(sync.PAUSE_S)


def try_server(connector: Connector, server: Server, kinesis, port: int, folder: Path) -> dict[str, str]:
    """What the server showed, by column of the table."""
    config = folder / "config.json"
    records = states = 0

    def deliver(catalog, messages, note="", key_of=None, **settings):
        nonlocal records, states
        config.write_text(json.dumps(config_for(port) | settings), encoding="utf-8")
        run, _ = sync.write_and_compare(connector, kinesis, config, catalog, messages, key_of)
        expected = Expectation.of(catalog, messages)
        records, states = records + expected.records(), states + len(expected.states)
        print(f"  {messages.name}{note}: {expected.records()} records, {len(expected.states)} states, {run.seconds:.1f} s",
              flush=True)
        return run

    config.write_text(json.dumps(config_for(port)), encoding="utf-8")
    verdict = connector.run("check", config=config).require_success().of_type("CONNECTION_STATUS")[0]
    if verdict["connectionStatus"]["status"] != "SUCCEEDED":
        raise Failed(f"check: {verdict['connectionStatus']['message']}")
    sync.wait_until_gone(
        kinesis, [name for name in kinesis.list_streams()["StreamNames"] if name.startswith("airbyte_check_")]
    )

    catalog = HERE / "configured_catalog.json"
    for name in SAMPLES:
        deliver(catalog, HERE / name, requestFormat="json")
    on_demand = has_on_demand(kinesis)
    mode = "ON_DEMAND" if on_demand else "PROVISIONED"
    deliver(*write_bulk(folder), f", {mode}", requestFormat="json", streamMode=mode)
    run = deliver(*write_bulk(folder), ", aggregated", aggregation="kpl")
    if "records in each" not in run.stdout.decode():
        raise Failed("the connector does not say how many records it has aggregated")
    deliver(*write_bulk(folder), ", aggregated by primary key", key_of=lambda data: str(data["n"]), aggregation="kpl",
            partitionKey="primary_key")
    if on_demand and stream_mode(kinesis, "_bulk_a") != mode:
        raise Failed("the connector's streams are not in on-demand mode")
    if server.takes_cbor:
        deliver(catalog, HERE / SAMPLES[0], " in CBOR", requestFormat="cbor")
    if server.has_roles:
        # For the connector and for boto3.
        os.environ["AWS_ENDPOINT_URL_STS"] = config_for(port)["endpoint"]
        deliver(catalog, HERE / SAMPLES[0], " as a role", roleArn=ROLE, externalId="airbyte")
    resharded = reshard(kinesis, "public_customers")
    if resharded:
        deliver(catalog, HERE / SAMPLES[0], " after a reshard")
    yes = {True: "yes", False: "not offered"}
    return {
        "check": "SUCCEEDED",
        "records equal": f"{records:,}",
        "states equal": str(states),
        "on-demand streams": yes[on_demand],
        "CBOR": yes[server.takes_cbor],
        "as a role": yes[server.has_roles],
        "after a reshard": yes[resharded],
        "limits of a shard": yes[has_shard_limits(kinesis)],
    }


def main() -> int:
    chosen = sys.argv[1:]
    port, other_port = free_ports(2)
    available = servers(port, other_port)
    if unknown := set(chosen) - set(available):
        sys.exit(f"There is no {', '.join(unknown)}; there are: {', '.join(available)}")
    connector = Connector(os.environ.get("CONNECTOR") or newest_build())
    print(f"Connector: {connector.command}", flush=True)
    rows, failures = [], 0
    for name in chosen or available:
        with tempfile.TemporaryDirectory(prefix="destination-kinesis-") as folder:
            row = {"server": name}
            try:
                server = available[name]()
                row |= {"server": server.name, "version": server.version}
                print(f"{server.name} {server.version}", flush=True)
                with running(server, port, Path(folder) / "log") as kinesis:
                    row |= try_server(connector, server, kinesis, port, Path(folder))
            except (Failed, ClientError, BotoCoreError, subprocess.CalledProcessError) as error:
                failures += 1
                row["check"] = "FAILED"
                print(f"  FAILED: {error}", flush=True)
            rows.append(row)
    print_table(rows)
    return 1 if failures else 0


def print_table(rows: list[dict[str, str]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["-" * 3] * len(columns), *([row.get(column, "") for column in columns] for row in rows)]
    print()
    for line in lines:
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    sys.exit(main())
