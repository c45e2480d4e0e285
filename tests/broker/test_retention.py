"""Retention counts a record's age from the record's own time: what we write of readings of long ago has to stay."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import make_raw
from kafka import KafkaConsumer, TopicPartition
from kafka_fixtures import MakeTopic

from forecaster.cli.replay import replayed
from forecaster.engine.publisher import Publisher
from forecaster.records import DeadLetter, OutRecord, Reason
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_sink import KafkaSink
from forecaster.transports.tables import COMMON_FORMS, open_tables

YEAR_2001 = 978_307_200.0
AN_HOUR = {"retention.ms": "3600000"}
SECONDS = 60.0


@pytest.fixture
def sink(connection: KafkaConnection) -> Iterator[KafkaSink]:
    opened = KafkaSink(connection)
    yield opened
    opened.close()


def test_answers_and_replayed_readings_of_long_ago_outlive_a_short_retention(
    broker: str, sink: KafkaSink, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """A record that bears the time of its reading shows that the broker does look."""
    kept, taken = make_topic("kept", configs=AN_HOUR), make_topic("taken", configs=AN_HOUR)
    publisher = Publisher(forecasts=kept, dead_letters=kept, quantile_levels=(0.5,), experts=("naive",))
    letter = DeadLetter(make_raw(0, time=YEAR_2001), Reason.LATE, "too late")
    (tmp_path / "pump.csv").write_text("timestamp,value\n2001-01-01T00:00:00Z,1.0\n")
    [(_, reading)] = replayed(open_tables([tmp_path / "pump.csv"], COMMON_FORMS), COMMON_FORMS, kept)

    sink.send(publisher.dead_letter(letter))
    sink.send(reading)
    sink.send(OutRecord(taken, 0, b"pump", b"{}", timestamp=YEAR_2001))
    sink.flush(30.0)

    deadline = time.monotonic() + SECONDS
    while first_offset(broker, taken) == 0:
        assert time.monotonic() < deadline, "the broker did not look"
        time.sleep(0.2)
    assert first_offset(broker, kept) == 0


def first_offset(broker: str, topic: str) -> int:
    consumer = KafkaConsumer(bootstrap_servers=broker)
    try:
        tp = TopicPartition(topic, 0)
        return consumer.beginning_offsets([tp])[tp]
    finally:
        consumer.close()
