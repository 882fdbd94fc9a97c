#!/usr/bin/env python3
"""What others say of the connector: their models of its messages and its metadata, and their tests of any destination.

    $(integration_tests/python.sh) integration_tests/suites.py

* each line of stdout of the sample runs, and of runs that fail, is an `AirbyteMessage` of airbyte-protocol-models-pdv2;
* metadata.yaml is what airbyte-connector-models takes for a connector's metadata;
* the specification is JSON schema draft-07 and keeps the rules of Airbyte's form;
* `pyab validate` and `pyab destination-smoke-test --scenarios=all`, of PyAirbyte, end well.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import yaml
from airbyte_connector_models.metadata.v0.connector_metadata_definition_v0 import ConnectorMetadataDefinitionV0
from airbyte_protocol.models import AirbyteMessage
from botocore.exceptions import BotoCoreError, ClientError
from jsonschema import Draft7Validator, SchemaError, ValidationError
from pydantic import ValidationError as ModelError

import sync
from run import newest_build
from servers import TARGET, config_for, ferrokinesis, free_ports, running
from sync import Connector, Failed

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
SMOKE_TEST_RECORDS = 1059
PYAB_TIMEOUT_S = 900


def check_metadata() -> str:
    metadata = yaml.safe_load((PROJECT / "metadata.yaml").read_text(encoding="utf-8"))
    data = ConnectorMetadataDefinitionV0.model_validate(metadata).data
    if not (PROJECT / data.icon).is_file():
        raise Failed(f"metadata.yaml: there is no {data.icon}")
    return f"{data.docker_repository}:{data.docker_image_tag}"


def check_specification(connector: Connector) -> str:
    run = connector.run("spec").require_success()
    spec = AirbyteMessage.model_validate_json(run.stdout).spec
    if spec is None:
        raise Failed("spec: no SPEC message")
    # Once more, to see a field that is named twice.
    schema = json.loads(run.stdout, object_pairs_hook=without_twins)["spec"]["connectionSpecification"]
    Draft7Validator.check_schema(schema)
    fields = list(form_fields("", schema))
    for path, rule in (broken for field in fields for broken in broken_rules(*field)):
        raise Failed(f"spec: {path}: {rule}")
    Draft7Validator(schema).validate(json.loads((HERE / "config.json").read_text(encoding="utf-8")))
    return f"{len(fields)} fields"


def without_twins(pairs: list) -> dict:
    if twins := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise Failed(f"spec: named twice: {', '.join(twins)}")
    return dict(pairs)


def form_fields(path: str, schema: dict, required=()):
    """Everything that the form has a place for: path, schema, whether it is required."""
    if path:
        yield path, schema, path.rpartition(".")[2] in required
    properties = schema.get("properties", {})
    orders = [field.get("order") for field in properties.values()]
    if sorted(orders, key=str) != sorted(set(orders), key=str):
        raise Failed(f"spec: {path or 'the form'}: two fields have the same order")
    for name, field in properties.items():
        yield from form_fields(f"{path}.{name}".lstrip("."), field, schema.get("required", ()))
    if isinstance(schema.get("items"), dict):
        yield from (field for field in form_fields(f"{path}[]", schema["items"]) if field[0] != f"{path}[]")
    for number, branch in enumerate(schema.get("oneOf", [])):
        yield from form_fields(f"{path}<{number}>", branch)


def broken_rules(path: str, field: dict, required: bool):
    """The rules of the platform's form that a field breaks."""
    for key, kind in (("title", str), ("description", str), ("order", int)):
        if not path.endswith(">") and (not isinstance(field.get(key), kind) or field[key] == ""):
            yield path, f"has no {key}"
    if not isinstance(field.get("type"), str):
        yield path, "has not exactly one type"
    name = path.rpartition(".")[2].lower()
    if any(word in name for word in ("accesskey", "privatekey", "secret", "password", "token")):
        if field.get("airbyte_secret") is not True:
            yield path, "is a secret that is not marked as one"
    if "default" in field:
        if required:
            yield path, "is required although it has a default"
        if field.get("airbyte_secret"):
            yield path, "is a secret with a default"
        if list(Draft7Validator(field).iter_errors(field["default"])):
            yield path, "has a default that it does not allow"
    if not isinstance(field.get("always_show", False), bool):
        yield path, "always_show is neither true nor false"
    if any(list(Draft7Validator(field).iter_errors(example)) for example in field.get("examples", [])):
        yield path, "has an example that it does not allow"
    if branches := field.get("oneOf"):
        constants = [{name for name, one in branch.get("properties", {}).items() if "const" in one} for branch in branches]
        if any(branch.get("type") != "object" for branch in branches) or not set.intersection(*constants):
            yield path, "has a oneOf whose branches are not objects that share a const property"


def check_messages(connector: Connector, kinesis, config: dict, folder: Path) -> str:
    """Runs that end well and runs that do not; each line that they print is a message."""
    files = {name: folder / f"{name}.json" for name in ("config", "wrong", "nowhere", "catalog")}
    files["config"].write_text(json.dumps(config), encoding="utf-8")
    files["wrong"].write_text(json.dumps(config | {"bufferSize": 501}), encoding="utf-8")
    files["nowhere"].write_text(json.dumps(config | {"endpoint": f"http://127.0.0.1:{free_ports(1)[0]}"}), encoding="utf-8")
    files["catalog"].write_text("{}", encoding="utf-8")
    unknown = folder / "unknown.jsonl"
    unknown.write_text('{"type":"RECORD","record":{"stream":"nobody","data":{},"emitted_at":1}}\n', encoding="utf-8")
    catalog = HERE / "configured_catalog.json"

    connector.keep_output_in = folder
    for messages in sorted(HERE.glob("messages*.jsonl")):
        sync.write_and_compare(connector, kinesis, files["config"], catalog, messages)
    failures = [
        connector.run("write", config=files["config"], catalog=catalog, messages=unknown),
        connector.run("write", config=files["wrong"], catalog=catalog),
        connector.run("write", config=files["config"], catalog=files["catalog"]),
        connector.run("write", config=folder / "absent.json", catalog=catalog),
        connector.run("write"),
    ]
    verdicts = [connector.run("check", config=files[name]) for name in ("config", "wrong", "nowhere")]
    for run in failures:
        traces = [AirbyteMessage.model_validate(trace).trace for trace in run.of_type("TRACE")]
        if run.exit_code == 0 or run.stderr or [trace.type.value for trace in traces] != ["ERROR"]:
            raise Failed(f"a {run.verb} that must fail: exit code {run.exit_code}, traces {len(traces)}")
    told = [run.of_type("CONNECTION_STATUS")[0]["connectionStatus"]["status"] for run in verdicts]
    if told != ["SUCCEEDED", "FAILED", "FAILED"] or any(run.exit_code or run.stderr for run in verdicts):
        raise Failed(f"check said {told}")

    kinds = Counter()
    for file in sorted(folder.glob("*-*.jsonl")):
        for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
            if line:
                try:
                    kinds[AirbyteMessage.model_validate_json(line).type.value] += 1
                except ModelError as error:
                    raise Failed(f"{file.name}, line {number}: {error}") from None
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def pyab(*arguments: str) -> subprocess.CompletedProcess:
    """Runs PyAirbyte's command; nothing is told to anybody, and no registry is asked."""
    folder = TARGET / "integration_tests" / "pyab"
    folder.mkdir(parents=True, exist_ok=True)
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "DO_NOT_TRACK": "1",
        "AIRBYTE_OFFLINE_MODE": "1",
        "AIRBYTE_LOGGING_ROOT": str(folder),
        # Its source is looked for there.
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    done = subprocess.run([programs / "pyab", *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=PYAB_TIMEOUT_S, check=False)
    if done.returncode:
        raise Failed(f"pyab {arguments[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def check_with_pyab_validate(connector: Connector, config: dict) -> str:
    said = pyab("validate", f"--connector={connector.command}", f"--config={json.dumps(config)}")
    if "check succeeded" not in said.stdout + said.stderr:
        raise Failed("pyab validate says nothing of a check")
    return "spec and check"


def smoke_test(connector: Connector, kinesis, config: dict) -> str:
    said = pyab("destination-smoke-test", f"--destination={connector.command}",
                f"--config={json.dumps(config | {'shardCount': 1})}", "--scenarios=all").stdout
    result = json.loads(said[said.index("{") :])
    if not result["success"] or result["records_delivered"] != SMOKE_TEST_RECORDS:
        raise Failed(f"pyab destination-smoke-test: {result}")
    names = kinesis.list_streams(Limit=100)["StreamNames"]
    names = [name for name in names if name.startswith(result["namespace"]) and "_preflight_" not in name]
    stored = sum(len(sync.read_stream(kinesis, name)) for name in names)
    if stored != SMOKE_TEST_RECORDS:
        raise Failed(f"pyab destination-smoke-test delivered {SMOKE_TEST_RECORDS} records, and {stored} are stored")
    return f"{stored:,} records in {len(names)} streams"


def main() -> int:
    connector = Connector(os.environ.get("CONNECTOR") or newest_build())
    port, = free_ports(1)
    config = config_for(port)
    failures = 0
    folder = Path(tempfile.mkdtemp(prefix="destination-kinesis-"))
    try:
        with running(ferrokinesis(port), port, folder / "log") as kinesis:
            for name, check in (
                ("metadata.yaml", check_metadata),
                ("specification", lambda: check_specification(connector)),
                ("messages", lambda: check_messages(Connector(connector.command), kinesis, config, folder)),
                ("pyab validate", lambda: check_with_pyab_validate(connector, config)),
                ("pyab destination-smoke-test", lambda: smoke_test(connector, kinesis, config)),
            ):
                try:
                    print(f"{name}: ok, {check()}", flush=True)
                except (Failed, ModelError, SchemaError, ValidationError, ClientError, BotoCoreError,
                        subprocess.TimeoutExpired) as error:
                    failures += 1
                    print(f"{name}: FAILED: {error}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
