"""Whole partitions read as a careful consumer sees them: committed records only, beside every group."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from forecaster.errors import TransportError, TransportTimeout
from forecaster.records import RawRecord
from forecaster.transports.kafka_client import KafkaConnection, open_client, translate

_POLL_SECONDS = 0.5
_POLL_RECORDS = 5_000


class Extent(NamedTuple):
    """Offsets of a partition: the first to read, and the one after the last."""

    first: int
    end: int
    """Of all records, those of transactions that are still open too."""


class CommittedRecord(NamedTuple):
    """A record with its headers."""

    raw: RawRecord
    headers: tuple[tuple[str, bytes], ...]


class TopicAuditor:
    """Reads topics read-committed, joins no group and commits nothing. One thread.

    Args:
        connection: where and who.
        monotonic: for the patience with open transactions.

    Raises:
        TransportUnavailable: no broker answered.
    """

    def __init__(self, connection: KafkaConnection, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._monotonic = monotonic
        self._timeout_ms = round(1000 * connection.request_timeout_seconds)
        self._committed = self._open(isolation_level="read_committed", max_poll_records=_POLL_RECORDS)
        try:
            self._all = self._open(isolation_level="read_uncommitted")
        except TransportError:
            self._committed.close()
            raise

    def __enter__(self) -> TopicAuditor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the connections."""
        self._committed.close()
        self._all.close()

    def extents(self, topic: str, *, since: float | None = None) -> Mapping[int, Extent]:
        """What each partition of a topic holds now, of record time ``since`` and later.

        Raises:
            TransportError: the topic does not exist, or the broker refuses.
        """
        with self._translating(f"Looking up {topic}"):
            numbers = self._all.partitions_for_topic(topic)
            if not numbers:
                raise TransportError(
                    f"Topic {topic} does not exist at {self._connection.bootstrap_servers}.",
                    hint="Name it by a flag, or in the topics section of the settings.",
                )
            partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            # Of read-committed consumers it would be the last stable offset, which an open transaction holds back.
            end = self._all.end_offsets(partitions, timeout_ms=self._timeout_ms)
            first = self._all.beginning_offsets(partitions, timeout_ms=self._timeout_ms)
            if since is not None:
                times = dict.fromkeys(partitions, max(round(1000 * since), 0))
                found = self._all.offsets_for_times(times, timeout_ms=self._timeout_ms)
                first = {tp: end[tp] if found.get(tp) is None else found[tp].offset for tp in partitions}
        return {tp.partition: Extent(first[tp], end[tp]) for tp in partitions}

    def committed(self, group_id: str, topic: str) -> Mapping[int, int]:
        """Committed offsets of a group, of the partitions that have one.

        Raises:
            TransportError: the broker refuses or does not answer.
        """
        with self._translating(f"Looking up the offsets of group {group_id}"):
            consumer = self._open(group_id=group_id)
            try:
                numbers = consumer.partitions_for_topic(topic) or ()
                found = {number: consumer.committed(TopicPartition(topic, number)) for number in sorted(numbers)}
            finally:
                consumer.close()
        return {number: offset for number, offset in found.items() if offset is not None}

    def read(self, topic: str, partition: int, extent: Extent) -> Iterator[CommittedRecord]:
        """Records of one partition in offset order; those of aborted transactions are not among them.

        Raises:
            TransportTimeout: nothing came for a request timeout though there is more: a transaction is left open.
            TransportError: the broker refuses.
        """
        if extent.first >= extent.end:
            return
        tp = TopicPartition(topic, partition)
        with self._translating(f"Reading {topic}"):
            self._committed.assign([tp])
            self._committed.seek(tp, extent.first)
        last_progress, position = self._monotonic(), extent.first
        while position < extent.end:
            with self._translating(f"Reading {topic}"):
                batches = self._committed.poll(timeout_ms=round(1000 * _POLL_SECONDS))
                reached = self._committed.position(tp)
            for record in batches.get(tp, ()):
                if record.offset < extent.end:
                    yield CommittedRecord(_raw(record), tuple(record.headers))
            # Positions, not records: control records and aborted ones move the former only.
            if reached > position:
                position, last_progress = reached, self._monotonic()
            elif self._monotonic() - last_progress > self._connection.request_timeout_seconds:
                raise TransportTimeout(
                    f"Partition {partition} of {topic} stands still at offset {position}, though it goes to "
                    f"{extent.end}.",
                    hint="A transaction may be left open: the broker ends it after its time-out. Try again then.",
                )

    def _open(self, **arguments: Any) -> Any:
        consumer, _ = open_client(
            KafkaConsumer,
            self._connection,
            **{
                "group_id": None,
                "enable_auto_commit": False,
                "auto_offset_reset": "earliest",  # what retention takes while we look is simply gone
                "allow_auto_create_topics": False,
                **arguments,
            },
        )
        return consumer

    @contextlib.contextmanager
    def _translating(self, doing: str) -> Iterator[None]:
        try:
            yield
        except KafkaError as error:
            raise translate(error, doing) from error


def _raw(record: Any) -> RawRecord:
    return RawRecord(record.topic, record.partition, record.offset, record.timestamp / 1000, record.key, record.value)
