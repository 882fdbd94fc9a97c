"""Prints the records of a stream, shard by shard, each as the JSON that the connector stored, one a line.

    python read_stream.py shop_customers [--endpoint URL]

Reads from the oldest record that is still there to the newest, and ends. Region and credentials come from the environment.
"""

import argparse
import time

import boto3


def read_stream(kinesis, name):
    """Yields all records of a stream, as GetRecords gives them."""
    for shard in list_shards(kinesis, name):
        iterator = kinesis.get_shard_iterator(
            StreamName=name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        # A closed shard, as a reshard leaves it, has no next iterator at its end.
        while iterator:
            page = kinesis.get_records(ShardIterator=iterator)
            yield from page["Records"]
            # An empty page says little: there may be more behind it, unless nothing is behind.
            if not page["Records"] and page["MillisBehindLatest"] == 0:
                break
            iterator = page.get("NextShardIterator")
            time.sleep(0.2)  # GetRecords: five calls a second for each shard


def list_shards(kinesis, name):
    page = kinesis.list_shards(StreamName=name)
    shards = page["Shards"]
    while page.get("NextToken"):
        page = kinesis.list_shards(NextToken=page["NextToken"])
        shards += page["Shards"]
    return shards


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("stream")
    parser.add_argument("--endpoint", help="URL of another Kinesis than AWS's own")
    arguments = parser.parse_args()
    client = boto3.client("kinesis", endpoint_url=arguments.endpoint)
    for record in read_stream(client, arguments.stream):
        print(record["Data"].decode())
