"""Prints the records of standard input that were not seen before, and remembers their ids in a file.

    python read_stream.py shop_customers | python deduplicate.py seen.sqlite > new_records.jsonl
"""

import json
import sqlite3
import sys


class Seen:
    """The ids of the records that were seen: in a file, because a duplicate may come after a restart."""

    def __init__(self, path):
        self.database = sqlite3.connect(path)
        self.database.execute("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY) WITHOUT ROWID")

    def is_new(self, record_id):
        inserted = self.database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (record_id,)).rowcount
        return inserted == 1

    def save(self):
        self.database.commit()


if __name__ == "__main__":
    seen = Seen(sys.argv[1])
    for line in sys.stdin:
        if seen.is_new(json.loads(line)["_airbyte_ab_id"]):
            sys.stdout.write(line)
    # First what was printed, then that it was: a crash in between means twice, not never.
    sys.stdout.flush()
    seen.save()
