#!/usr/bin/env python3
"""Runs the connector's three verbs against a Kinesis and compares what arrived, byte for byte.

With no arguments: the sample files of this folder, against the endpoint of config.json, for which

    cargo run --example kinesis_server

will do. Against AWS, with the credentials of the environment, and against anything else:

    integration_tests/run.py --region eu-central-1
    integration_tests/run.py --endpoint http://localhost:4566
    integration_tests/run.py --config my_config.json --catalog my_catalog.json my_messages.jsonl

Every stream gets a name of its own: `airbyte_it_<random>_` is put before each namespace, or before the name of a stream
that has none. So no other stream is touched, and at the end exactly those are deleted. On AWS this costs a few cents.

Needs boto3, aws-kinesis-agg and six (integration_tests/requirements.txt).
"""

import argparse
import json
import os
import secrets
import sys
import tempfile
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

import sync
from messages import copy_catalog, copy_messages, read_catalog
from sync import Connector, Expectation, Failed

HERE = Path(__file__).resolve().parent
SAMPLES = ["messages.jsonl", "messages_global_state.jsonl", "messages_legacy_state.jsonl"]


def main() -> int:
    arguments = parse_arguments()
    prefix = "" if arguments.exact_names else f"airbyte_it_{secrets.token_hex(4)}_"
    try:
        config = read_config(arguments)
        kinesis = sync.client_of(config)
        print(f"Kinesis: {kinesis.meta.endpoint_url}   streams: {prefix or '(exact names)'}…", flush=True)
        with tempfile.TemporaryDirectory(prefix="destination-kinesis-") as folder:
            run_all(arguments, config, kinesis, prefix, Path(folder))
    except Failed as failed:
        print(f"FAILED: {failed}", file=sys.stderr)
        return 1
    except (ClientError, BotoCoreError, OSError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    print("All as it should be.")
    return 0


def run_all(arguments, config: dict, kinesis, prefix: str, folder: Path) -> None:
    connector = Connector(arguments.connector, arguments.timeout, arguments.save_output)
    config_file = folder / "config.json"
    config_file.touch(mode=0o600)
    config_file.write_text(json.dumps(config), encoding="utf-8")
    catalog = folder / "configured_catalog.json"
    copy_catalog(arguments.catalog, catalog, prefix)

    spec = connector.run("spec").require_success().of_type("SPEC")
    if len(spec) != 1:
        raise Failed("spec: not exactly one SPEC message")
    keys = spec[0]["spec"]["connectionSpecification"]["properties"]
    print(f"spec    {len(keys)} settings: {', '.join(keys)}", flush=True)

    check = connector.run("check", config=config_file).require_success()
    verdict = check.of_type("CONNECTION_STATUS")
    if len(verdict) != 1 or verdict[0]["connectionStatus"]["status"] != "SUCCEEDED":
        raise Failed(f"check: {verdict[0]['connectionStatus'].get('message') if verdict else 'no verdict'}")
    print(f"check   SUCCEEDED in {check.seconds:.1f} s", flush=True)

    names = sorted({descriptor.stream_name() for descriptor in read_catalog(catalog)})
    if there := [name for name in names if sync.stream_exists(kinesis, name)]:
        raise Failed(f"these streams exist, and are left alone: {', '.join(there)}. Leave --exact-names out.")
    try:
        for source in arguments.messages:
            messages = folder / source.name
            copy_messages(source, messages, prefix)
            run, stored = sync.write_and_compare(connector, kinesis, config_file, catalog, messages)
            expected = Expectation.of(catalog, messages)
            print(
                f"write   {source.name}: {expected.records()} records in {len(stored)} streams and "
                f"{len(expected.states)} states, all equal to the byte, in {run.seconds:.1f} s",
                flush=True,
            )
        for name in names:
            print(f"        {name}", flush=True)
    finally:
        if arguments.keep:
            print("The streams are kept.", flush=True)
        else:
            sync.delete_streams(kinesis, names)
            print(f"Deleted {len(names)} streams.", flush=True)


def read_config(arguments) -> dict:
    path = arguments.config
    if path is None and arguments.region and not arguments.endpoint:
        config = {"shardCount": 1}
    else:
        with open(path or HERE / "config.json", encoding="utf-8") as file:
            config = json.load(file)
    for key in ("region", "endpoint"):
        if value := getattr(arguments, key):
            config[key] = value
    return config


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("messages", nargs="*", type=Path, help="files of Airbyte messages (default: the samples)")
    parser.add_argument("--connector", help="command of the connector (default: the newest of target/{release,debug})")
    parser.add_argument("--config", type=Path, help="a configuration of the connector (default: config.json)")
    parser.add_argument("--catalog", type=Path, default=HERE / "configured_catalog.json", help="a configured catalog")
    parser.add_argument("--endpoint", help="URL of the Kinesis, in place of the configuration's")
    parser.add_argument("--region", help="AWS region; without --endpoint and --config: AWS itself")
    parser.add_argument("--keep", action="store_true", help="do not delete the streams at the end")
    parser.add_argument("--exact-names", action="store_true", help="no prefix; refused where such a stream exists")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for each verb (default: 600)")
    parser.add_argument("--save-output", type=Path, metavar="FOLDER", help="keep what the connector says on stdout")
    arguments = parser.parse_args()
    arguments.messages = arguments.messages or [HERE / name for name in SAMPLES]
    arguments.connector = arguments.connector or newest_build()
    if arguments.save_output:
        arguments.save_output.mkdir(parents=True, exist_ok=True)
    return arguments


def newest_build() -> str:
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
    builds = [target / profile / "destination-kinesis" for profile in ("release", "debug")]
    builds = [build for build in builds if build.exists()]
    if not builds:
        sys.exit("There is no connector yet: cargo build --release")
    return str(max(builds, key=lambda build: build.stat().st_mtime))


if __name__ == "__main__":
    sys.exit(main())
