"""Transactions that a worker which is gone has left open, on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka_fixtures import MakeTopic

from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_left_open import LeftOpenTransactions

MakeProducer = Callable[[str], KafkaProducer]


@pytest.fixture
def topic(make_topic: MakeTopic) -> str:
    return make_topic("forecasts", partitions=2)


@pytest.fixture
def make_producer(broker: str) -> Iterator[MakeProducer]:
    """A producer within a transaction; a time-out of minutes, so that only `end` can be what ended it."""
    made: list[KafkaProducer] = []

    def make(transactional_id: str) -> KafkaProducer:
        producer = KafkaProducer(
            bootstrap_servers=broker, transactional_id=transactional_id, transaction_timeout_ms=600_000
        )
        made.append(producer)
        producer.init_transactions()
        producer.begin_transaction()
        return producer

    yield make
    for producer in made:
        producer.close(timeout=0)


@pytest.fixture
def left_open(connection: KafkaConnection, topic: str, group_id: str) -> Iterator[LeftOpenTransactions]:
    made = LeftOpenTransactions(
        connection, prefix=f"{group_id}-", ours=f"{group_id}-us", topics=[topic], timeout_ms=10_000
    )
    yield made
    made.close()


def send(producer: KafkaProducer, topic: str, partition: int, value: bytes) -> None:
    producer.send(topic, value=value, partition=partition).get(timeout=10)


def is_held_back(broker: str, topic: str, partition: int) -> bool:
    """Whether read-committed readers stand before an open transaction."""
    tp = TopicPartition(topic, partition)
    ends = []
    for level in ("read_committed", "read_uncommitted"):
        consumer = KafkaConsumer(bootstrap_servers=broker, isolation_level=level)
        ends.append(consumer.end_offsets([tp])[tp])
        consumer.close()
    return bool(ends[0] < ends[1])


def test_what_a_worker_left_open_on_our_partition_is_ended_and_the_worker_fenced(
    broker: str, topic: str, group_id: str, left_open: LeftOpenTransactions, make_producer: MakeProducer
) -> None:
    gone = make_producer(f"{group_id}-gone")
    send(gone, topic, 1, b"never seen")
    assert is_held_back(broker, topic, 1)

    assert left_open.end(1) == [f"{group_id}-gone"]

    assert not is_held_back(broker, topic, 1)
    with pytest.raises(KafkaError):
        send(gone, topic, 1, b"from a zombie")
    assert left_open.end(1) == []


def test_other_partitions_other_groups_and_our_own_transaction_are_left_alone(
    broker: str, topic: str, group_id: str, left_open: LeftOpenTransactions, make_producer: MakeProducer
) -> None:
    producers = {name: make_producer(name) for name in (f"{group_id}-elsewhere", f"other-{group_id}", f"{group_id}-us")}
    send(producers[f"{group_id}-elsewhere"], topic, 0, b"partition 0")
    send(producers[f"other-{group_id}"], topic, 1, b"another group")
    send(producers[f"{group_id}-us"], topic, 1, b"ours")

    assert left_open.end(1) == []

    for producer in producers.values():
        producer.commit_transaction()


def test_partitions_that_come_together_are_looked_at_together(
    topic: str, group_id: str, left_open: LeftOpenTransactions, make_producer: MakeProducer, monkeypatch: Any
) -> None:
    """Each look asks every broker for all transactions; one behind the other they would hold a take-over up."""
    looks, whole = [], left_open._ongoing

    def slow() -> Any:
        looks.append(True)
        time.sleep(0.3)  # the others ask meanwhile
        return whole()

    monkeypatch.setattr(left_open, "_ongoing", slow)
    partitions = range(2)
    for partition in partitions:
        send(make_producer(f"{group_id}-gone-{partition}"), topic, partition, b"never seen")

    with ThreadPoolExecutor(8) as threads:
        ended = list(threads.map(left_open.end, [*partitions] * 4))

    assert sorted(chain.from_iterable(ended)) == [f"{group_id}-gone-{partition}" for partition in partitions]
    assert len(looks) <= 2
