"""A Lambda function for a Kinesis event source with `ReportBatchItemFailures`.

Lambda gives a batch again when the function fails, so this one has to bear duplicates anyway: `store` is called with the id of the
record, and has to replace what it stored under the same id before.
"""

import base64
import json
from decimal import Decimal


def store(record_id, data):
    """Yours: an insert that does nothing, or an update, when the id is there."""


def handler(event, context):
    seen = set()
    for record in event["Records"]:
        try:
            envelope = json.loads(base64.b64decode(record["kinesis"]["data"]))
            record_id = envelope["_airbyte_ab_id"]
            if record_id not in seen:
                # Decimal keeps numbers as the source wrote them; float would round them.
                store(record_id, json.loads(envelope["_airbyte_data"], parse_float=Decimal))
                seen.add(record_id)
        except Exception as error:
            print(f"Record {record['kinesis']['sequenceNumber']}: {type(error).__name__}")
            # Lambda gives the batch again from this record on.
            return {"batchItemFailures": [{"itemIdentifier": record["kinesis"]["sequenceNumber"]}]}
    return {"batchItemFailures": []}
