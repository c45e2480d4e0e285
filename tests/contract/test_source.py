"""What every `Source` promises, so that tests on the one in memory say something about the one on Kafka."""

from __future__ import annotations

import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from kafka_fixtures import MakeTopic

from forecaster.errors import TransportError
from forecaster.ports import Source
from forecaster.records import OutRecord, RawRecord
from forecaster.transports.file import FileSource
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_sink import KafkaSink
from forecaster.transports.kafka_source import KafkaSource
from forecaster.transports.librdkafka_source import LibrdkafkaSource
from forecaster.transports.memory import MemorySource

DEADLINE_SECONDS = 30.0


class Implementation(ABC):
    """Makes sources of one kind."""

    remembers_commits = True
    """Over a restart."""

    @abstractmethod
    def make(self, counts: Sequence[int]) -> Source:
        """A source with so many records in its partitions 0, 1, …"""

    def restart(self, source: Source) -> Source:
        """A new source over the same records, after the old one was closed."""
        raise NotImplementedError


class Memory(Implementation):
    def make(self, counts: Sequence[int]) -> Source:
        records = [
            RawRecord("readings", partition, offset, 0.0, b"key", b"%d/%d" % (partition, offset))
            for partition, count in enumerate(counts)
            for offset in range(count)
        ]
        return MemorySource(records, partitions=len(counts))

    def restart(self, source: Source) -> Source:
        assert isinstance(source, MemorySource)
        return source.restarted()


class File(Implementation):
    remembers_commits = False

    def __init__(self, directory: Path) -> None:
        self._path = directory / "readings.csv"

    def make(self, counts: Sequence[int]) -> Source:
        rows = ["timestamp,stream_id,value"]
        for partition, count in enumerate(counts):
            names = (f"stream-{number}" for number in range(1000))
            name = next(name for name in names if zlib.crc32(name.encode()) % len(counts) == partition)
            rows += [f"2026-01-01T00:00:{second:02}Z,{name},{second}" for second in range(count)]
        self._path.write_text("\n".join(rows) + "\n")
        return FileSource([self._path], partitions=len(counts))


class Kafka(Implementation):
    kind: type[KafkaSource] | type[LibrdkafkaSource] = KafkaSource
    arguments: ClassVar[dict[str, Any]] = {}

    def __init__(self, connection: KafkaConnection, make_topic: MakeTopic, group_id: str) -> None:
        self._connection = connection
        self._make_topic = make_topic
        self._group_id = group_id

    def make(self, counts: Sequence[int]) -> Source:
        topic = self._make_topic(partitions=len(counts))
        sink = KafkaSink(self._connection)
        for partition, count in enumerate(counts):
            for offset in range(count):
                sink.send(OutRecord(topic, partition, b"key", b"%d/%d" % (partition, offset)))
        sink.flush(10.0)
        sink.close()
        return self._open(topic)

    def restart(self, source: Source) -> Source:
        return self._open(source.topic)

    def _open(self, topic: str) -> Source:
        return self.kind(
            self._connection, topic=topic, group_id=self._group_id, session_timeout_seconds=8.0, **self.arguments
        )


class Batched(Kafka):
    arguments: ClassVar = {"batched": True}


class Librdkafka(Kafka):
    kind = LibrdkafkaSource


class Listener:
    """Keeps what it is told; ``on_revoked`` stands for what an engine does then."""

    def __init__(self, on_revoked: Callable[[Sequence[int]], None] = lambda partitions: None) -> None:
        self.events: list[tuple[str, list[int]]] = []
        self._on_revoked = on_revoked

    def assigned(self, partitions: Sequence[int]) -> None:
        self.events.append(("assigned", sorted(partitions)))

    def revoked(self, partitions: Sequence[int]) -> None:
        self.events.append(("revoked", sorted(partitions)))
        self._on_revoked(partitions)

    def lost(self, partitions: Sequence[int]) -> None:
        self.events.append(("lost", sorted(partitions)))


BROKERS = {"kafka": Kafka, "batched": Batched, "librdkafka": Librdkafka}


@pytest.fixture(params=["memory", "file", *(pytest.param(name, marks=pytest.mark.kafka) for name in BROKERS)])
def implementation(request: pytest.FixtureRequest, tmp_path: Path) -> Implementation:
    if request.param == "memory":
        return Memory()
    if request.param == "file":
        return File(tmp_path)
    return BROKERS[request.param](*(request.getfixturevalue(name) for name in ("connection", "make_topic", "group_id")))


@pytest.fixture
def make_source(implementation: Implementation) -> Iterator[Callable[..., Source]]:
    made: list[Source] = []

    def make(*counts: int) -> Source:
        made.append(implementation.make(counts))
        return made[-1]

    yield make
    for source in made:
        source.close()


def assign(source: Source, listener: Listener) -> None:
    """Poll until the listener has been told of partitions; nothing may come before or with that."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not listener.events and time.monotonic() < deadline:
        assert source.poll(100, 0.2) == []
    assert listener.events


def drain(source: Source, count: int, *, max_records: int = 100) -> list[RawRecord]:
    """The next ``count`` records, in as many polls as that takes."""
    records: list[RawRecord] = []
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(records) < count and time.monotonic() < deadline:
        batch = source.poll(max_records, 0.2)
        assert len(batch) <= max_records
        records += batch
    assert len(records) == count
    return records


def test_the_first_polls_assign_the_partitions_and_bring_no_record_of_them(make_source: Callable[..., Source]) -> None:
    source, listener = make_source(3, 3), Listener()
    source.subscribe(listener)

    assign(source, listener)

    assert listener.events == [("assigned", [0, 1])]


def test_every_record_comes_once_in_the_order_of_its_partition(make_source: Callable[..., Source]) -> None:
    source, listener = make_source(7, 4), Listener()
    source.subscribe(listener)
    assign(source, listener)

    records = drain(source, 11, max_records=3)

    assert [r.offset for r in records if r.partition == 0] == list(range(7))
    assert [r.offset for r in records if r.partition == 1] == list(range(4))
    assert {record.topic for record in records} == {source.topic}
    assert len({(record.partition, record.value) for record in records}) == 11
    assert source.poll(100, 0.0) == []


def test_polling_without_a_subscriber_is_an_error(make_source: Callable[..., Source]) -> None:
    with pytest.raises(TransportError, match="no subscriber"):
        make_source(1).poll(1, 0.0)


def test_subscribing_twice_is_an_error(make_source: Callable[..., Source]) -> None:
    source = make_source(1)
    source.subscribe(Listener())

    with pytest.raises(TransportError, match="subscriber already"):
        source.subscribe(Listener())


def test_a_commit_of_a_partition_that_is_not_assigned_is_an_error(make_source: Callable[..., Source]) -> None:
    source, listener = make_source(2), Listener()
    source.subscribe(listener)
    with pytest.raises(TransportError, match="not assigned"):
        source.commit({0: 1})
    assign(source, listener)

    source.commit({0: 1})
    with pytest.raises(TransportError, match="not assigned"):
        source.commit({0: 1, 5: 1})


def test_lag_is_known_for_just_the_assigned_partitions(make_source: Callable[..., Source]) -> None:
    source, listener = make_source(3, 2), Listener()
    source.subscribe(listener)
    before = dict(source.lag())
    assign(source, listener)
    drain(source, 5)
    after = dict(source.lag())
    source.close()

    assert before in ({}, {0: 0, 1: 0})
    assert after == {0: 0, 1: 0}


def test_close_revokes_what_is_assigned_once_and_lets_it_be_committed(make_source: Callable[..., Source]) -> None:
    source = make_source(2, 2)
    listener = Listener(on_revoked=lambda partitions: source.commit(dict.fromkeys(partitions, 2)))
    source.subscribe(listener)
    assign(source, listener)
    drain(source, 4)

    source.close()
    source.close()

    assert listener.events == [("assigned", [0, 1]), ("revoked", [0, 1])]


def test_nothing_works_after_close(make_source: Callable[..., Source]) -> None:
    source, listener = make_source(2), Listener()
    source.subscribe(listener)
    assign(source, listener)
    source.close()

    with pytest.raises(TransportError):
        source.poll(1, 0.0)
    with pytest.raises(TransportError):
        source.commit({0: 1})


def test_closing_before_anything_was_assigned_tells_nobody(make_source: Callable[..., Source]) -> None:
    source, listener = make_source(1), Listener()
    source.subscribe(listener)

    source.close()

    assert listener.events == []


def test_an_exhausted_source_has_handed_everything_over(make_source: Callable[..., Source]) -> None:
    """A broker never is: more may always come."""
    source, listener = make_source(3), Listener()
    source.subscribe(listener)
    assert not source.is_exhausted()
    assign(source, listener)
    assert not source.is_exhausted()
    drain(source, 3)

    assert source.is_exhausted() is not isinstance(source, KafkaSource | LibrdkafkaSource)


def test_a_restarted_source_goes_on_at_the_committed_offsets(
    make_source: Callable[..., Source], implementation: Implementation
) -> None:
    """Partition 1 was read and not committed: its records come again."""
    if not implementation.remembers_commits:
        pytest.skip("this source keeps no offsets over a restart, by its own word")
    source, listener = make_source(5, 3), Listener()
    source.subscribe(listener)
    assign(source, listener)
    drain(source, 8)
    source.commit({0: 4})
    source.close()

    again, second = implementation.restart(source), Listener()
    again.subscribe(second)
    assign(again, second)
    records = drain(again, 4)
    again.close()

    assert sorted((record.partition, record.offset) for record in records) == [(0, 4), (1, 0), (1, 1), (1, 2)]
