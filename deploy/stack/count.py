"""Counts answers by a plain read-committed consumer that shares no code with the program: missing, doubled.

Runs in a container of the image, which has the client: ``podman exec -i CONTAINER python - < deploy/stack/count.py``.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator

from kafka import KafkaConsumer, TopicPartition

BOOTSTRAP = os.environ["FORECASTER_KAFKA__BOOTSTRAP_SERVERS"]
READINGS, ANSWERS, REFUSED = "readings", "forecasts", "readings.dlq"


def read(topic: str) -> Iterator:
    """All records of a topic that are committed now."""
    consumer = KafkaConsumer(
        bootstrap_servers=BOOTSTRAP,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    consumer.seek_to_beginning()
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for records in consumer.poll(timeout_ms=1_000).values():
            yield from records
    consumer.close()


readings = {(record.partition, record.offset) for record in read(READINGS)}
answers: Counter[tuple[int, int]] = Counter()
for record in read(ANSWERS):
    source = json.loads(record.value)["source"]
    answers[source["partition"], source["offset"]] += 1
for record in read(REFUSED):
    found = dict(record.headers)
    answers[int(found["source.partition"]), int(found["source.offset"])] += 1

result = {
    "readings": len(readings),
    "answered": len(readings & answers.keys()),
    "missing": len(readings - answers.keys()),
    "doubled": sum(times - 1 for times in answers.values()),
    "answers_to_nothing": len(answers.keys() - readings),
}
print(json.dumps(result))
sys.exit(bool(result["missing"] or result["doubled"] or result["answers_to_nothing"]))
