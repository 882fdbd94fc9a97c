"""Takes records as GetRecords gives them, and yields what was put: the parts of KPL aggregates, and all others as they are.

Needs aws-kinesis-agg. It works on records in the form of Lambda's events, so they are brought into it.
"""

import base64

from aws_kinesis_agg.deaggregator import iter_deaggregate_records


def user_records(records):
    """Yields the bytes of each record."""
    for record in iter_deaggregate_records(map(as_in_lambda, records)):
        yield base64.b64decode(record["kinesis"]["data"])


def as_in_lambda(record):
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
            "data": base64.b64encode(record["Data"]),
        }
    }
