"""What every `Sink` promises: a flush that returns means delivered, and one that does not says so."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka_fixtures import MakeTopic

from forecaster.errors import DeliveryFailed, TransportError
from forecaster.ports import Sink
from forecaster.records import OutRecord
from forecaster.transports.file import FileSink
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_sink import KafkaSink
from forecaster.transports.librdkafka_sink import LibrdkafkaSink
from forecaster.transports.memory import MemorySink


class Implementation(ABC):
    """Makes one sink for records of ``topic``, and looks at what arrived."""

    topic = "forecasts"
    recovers = True
    """After a failed delivery, without help."""
    sink: Sink

    def send(self, *values: bytes) -> None:
        """Hand over a record with each of these, one by one."""
        for value in values:
            self.sink.send(OutRecord(self.topic, 0, b"key", value))

    @abstractmethod
    def delivered(self) -> list[bytes | None]:
        """Values that arrived, in order."""

    @abstractmethod
    def send_undeliverable(self) -> None:
        """Send one record that will be refused."""


class Memory(Implementation):
    def __init__(self) -> None:
        self.sink = self._memory = MemorySink()

    def delivered(self) -> list[bytes | None]:
        return [record.value for record in self._memory.of_topic(self.topic)]

    def send_undeliverable(self) -> None:
        self._memory.refuse(1)
        self.sink.send(OutRecord(self.topic, 0, b"key", b"lost"))


class File(Implementation):
    recovers = False

    def __init__(self, directory: Path) -> None:
        self._path = directory / "forecasts.jsonl"
        self.sink = FileSink({self.topic: self._path, "full": Path("/dev/full")})

    def delivered(self) -> list[bytes | None]:
        return list(self._path.read_bytes().splitlines())

    def send_undeliverable(self) -> None:
        self.sink.send(OutRecord("full", 0, b"key", b"lost"))


class Kafka(Implementation):
    kind: type[KafkaSink] | type[LibrdkafkaSink] = KafkaSink
    arguments: ClassVar[dict[str, Any]] = {}

    def __init__(self, connection: KafkaConnection, make_topic: MakeTopic) -> None:
        self.topic = make_topic("forecasts", configs={"max.message.bytes": "2000"})
        self.sink = self.kind(connection, compression="none", **self.arguments)
        self._bootstrap = connection.bootstrap_servers

    def delivered(self) -> list[bytes | None]:
        consumer = KafkaConsumer(bootstrap_servers=self._bootstrap, auto_offset_reset="earliest")
        tp = TopicPartition(self.topic, 0)
        consumer.assign([tp])
        end = consumer.end_offsets([tp])[tp]
        values: list[bytes | None] = []
        while consumer.position(tp) < end:
            values += [record.value for record in consumer.poll(1000).get(tp, [])]
        consumer.close()
        return values

    def send_undeliverable(self) -> None:
        self.send(b"x" * 10_000)


class Batched(Kafka):
    arguments: ClassVar = {"batched": True}

    def send(self, *values: bytes) -> None:
        self.sink.send_all(deque(OutRecord(self.topic, 0, b"key", value) for value in values))


class Librdkafka(Kafka):
    kind = LibrdkafkaSink


BROKERS = {"kafka": Kafka, "batched": Batched, "librdkafka": Librdkafka}


@pytest.fixture(params=["memory", "file", *(pytest.param(name, marks=pytest.mark.kafka) for name in BROKERS)])
def implementation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Implementation]:
    made: Implementation
    if request.param == "memory":
        made = Memory()
    elif request.param == "file":
        made = File(tmp_path)
    else:
        made = BROKERS[request.param](*(request.getfixturevalue(name) for name in ("connection", "make_topic")))
    yield made
    made.sink.close()


def test_after_a_flush_every_record_is_there_in_the_order_sent(implementation: Implementation) -> None:
    implementation.send(*(b"%d" % number for number in range(50)))
    implementation.sink.flush(10.0)
    first = implementation.delivered()
    implementation.send(b"50")
    implementation.sink.flush(10.0)

    assert first == [b"%d" % number for number in range(50)]
    assert implementation.delivered() == [b"%d" % number for number in range(51)]


def test_all_that_is_handed_over_at_once_is_taken_and_arrives_in_order(implementation: Implementation) -> None:
    records = deque(OutRecord(implementation.topic, 0, b"key", b"%d" % number) for number in range(100))

    implementation.sink.send_all(records)
    implementation.sink.flush(10.0)

    assert not records
    assert implementation.delivered() == [b"%d" % number for number in range(100)]


def test_a_flush_of_nothing_returns(implementation: Implementation) -> None:
    implementation.sink.flush(1.0)
    implementation.sink.flush(1.0)

    assert implementation.delivered() == []


def test_a_record_that_was_not_delivered_fails_the_flush(implementation: Implementation) -> None:
    implementation.send_undeliverable()

    with pytest.raises(DeliveryFailed) as caught:
        implementation.sink.flush(10.0)

    assert caught.value.retriable
    assert implementation.delivered() == []


def test_what_is_sent_again_after_a_failed_flush_arrives(implementation: Implementation) -> None:
    """A failure is told once; it does not stick to what comes after."""
    if not implementation.recovers:
        pytest.skip("a full disk stays full")
    implementation.send_undeliverable()
    with pytest.raises(DeliveryFailed):
        implementation.sink.flush(10.0)

    implementation.send(b"again")
    implementation.sink.flush(10.0)

    assert implementation.delivered() == [b"again"]


def test_close_is_idempotent_and_ends_sending(implementation: Implementation) -> None:
    implementation.send(b"1")
    implementation.sink.flush(10.0)

    implementation.sink.close()
    implementation.sink.close()

    with pytest.raises(TransportError, match="closed"):
        implementation.send(b"2")
    assert implementation.delivered() == [b"1"]
