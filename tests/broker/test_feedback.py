"""Feedback on a real topic: followed by workers, read to its end by trainings."""

from __future__ import annotations

import contextlib
import json
import time

from kafka import KafkaProducer
from kafka_fixtures import MakeTopic

from forecaster.codecs.feedback_json import excluded_periods
from forecaster.engine.feedback import FollowedFeedback, read_all
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_standby import KafkaStateTail

START = 1_767_225_600.0


def test_feedback_written_to_any_partition_is_heard_and_read_in_whole(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = make_topic(partitions=3)
    said = [
        (0, {"stream_id": "a", "label": False, "timestamp": START}),
        (2, {"stream_id": "b", "label": True, "timestamp": START + 1}),
        (2, {"stream_id": "b", "from": START, "to": START + 60}),
    ]
    with contextlib.closing(KafkaProducer(bootstrap_servers=connection.bootstrap_servers)) as producer:
        for partition, record in said:
            producer.send(topic, json.dumps(record).encode(), partition=partition).get(30)
        producer.send(topic, b"no feedback", partition=1).get(30)

    with contextlib.closing(KafkaStateTail(connection, topic=topic)) as tail:
        everything = read_all(tail, give_up_seconds=60.0)
    followed = FollowedFeedback(lambda: KafkaStateTail(connection, topic=topic))
    with contextlib.closing(followed):
        deadline = time.monotonic() + 60.0
        while len(heard := followed.take({}, 0.0)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        again = followed.take({0: 1, 2: 1}, 0.0)

    assert sorted(feedback.stream_id for feedback in everything) == ["a", "b", "b"]
    assert excluded_periods(everything) == {"b": [(START, START + 60)]}
    places = [(record.partition, record.offset, record.feedback.label) for record in heard]
    assert places == [(0, 0, (False, START)), (2, 0, (True, START + 1)), (2, 1, None)]
    assert [(record.partition, record.offset) for record in again] == [(2, 1)]
