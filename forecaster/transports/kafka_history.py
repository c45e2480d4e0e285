"""The training window read from the readings topic, beside the group that serves and without touching its offsets.

A partition is read in blocks that begin at multiples of `BLOCK_RECORDS`, the newest first: when the time is over what
is missing is the oldest part of the window. A block that lies within the topic whole can be kept (`BlockCache`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from forecaster.errors import TransportError, TransportTimeout
from forecaster.records import DeadLetter, Observation, RawRecord, Tombstone
from forecaster.training.blocks import BlockBuilder, HistoryBlock, HistoryCollector
from forecaster.training.history import History
from forecaster.transports.kafka_client import KafkaConnection, forget_parked, open_client, translate

log = logging.getLogger(__name__)

BLOCK_RECORDS = 65_536
"""Offsets of a block: some megabytes to fetch, so that what a client fetches too much hardly counts."""

_TOGETHER = 8
"""Partitions of which a block is read at a time: what is being decoded takes memory beside the collector's."""
_POLL_SECONDS = 1.0
_POLL_RECORDS = 5_000


class Decoder(Protocol):
    """The codec of the topic."""

    def decode(self, raw: RawRecord) -> list[Observation | DeadLetter | Tombstone]:
        """What one record says."""


class BlockCache(Protocol):
    """Blocks that were read before."""

    def get(self, partition: int, first: int, end: int) -> HistoryBlock | None:
        """A block, ``None`` where it has to be read."""

    def put(self, partition: int, first: int, end: int, block: HistoryBlock) -> None:
        """Keep a block, if that is possible."""


class HistoryRead(NamedTuple):
    """The window as far as it was read, and how far that is."""

    history: History
    offsets: dict[int, tuple[int, int]]
    """By partition the first offset read and the one after the last."""
    streams_seen: int
    """Streams that have readings there, of which ``history`` may hold a choice."""
    cut_by: str
    """What kept parts of the window out: ``memory``, ``time``, both, or nothing."""


class _Stretch(NamedTuple):
    """What is read of one block."""

    partition: TopicPartition
    block_first: int
    block_end: int
    first: int
    end: int
    age: float
    """Share of the partition's window that is newer than it."""

    @property
    def is_whole(self) -> bool:
        """Whether all of the block is read, so that another window can use it."""
        return (self.first, self.end) == (self.block_first, self.block_end)


def read_history(
    connection: KafkaConnection,
    *,
    topic: str,
    decoder: Decoder,
    since: float,
    max_readings: int,
    collector: HistoryCollector,
    covariates: int = 0,
    future: int = 0,
    max_seconds: float = float("inf"),
    open_cache: Callable[[str], BlockCache] | None = None,
    block_records: int = BLOCK_RECORDS,
    on_progress: Callable[[int, int], None] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> HistoryRead:
    """Readings whose record time is ``since`` or later, up to where the topic ended when the call began.

    Joins no group and commits nothing.

    Args:
        connection: where and who.
        topic: readings.
        decoder: the codec that serves.
        since: record time, seconds since the epoch.
        max_readings: of more records the newest of each partition are read.
        collector: takes what is read, within its budget of memory.
        covariates: C, of each reading.
        future: K·H, numbers known ahead at each reading.
        max_seconds: after this no older block is begun, and one under way is given up.
        open_cache: makes the cache for a topic's identity, which is another one when the topic is made anew; ``None``
            keeps nothing.
        block_records: offsets of a block.
        on_progress: called with (records read, records to read).

    Raises:
        TransportError: the topic does not exist, or the broker refuses.
        TransportTimeout: nothing came for a request timeout though there is more to read, or not even the newest
            block within ``max_seconds``.
        TransportUnavailable: no broker answered.
    """
    consumer, network = open_client(
        KafkaConsumer,
        connection,
        group_id=None,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # a record that retention took while we looked is simply gone
        allow_auto_create_topics=False,
        max_poll_records=_POLL_RECORDS,
    )
    began = monotonic()
    try:
        begin, end = _bounds(consumer, connection, topic, since, max_readings)
        cache = None if open_cache is None else _cache_of(network.cluster.topic_id(topic), topic, open_cache)
        reader = _BlockReader(
            consumer,
            connection,
            decoder,
            builder=lambda: BlockBuilder(covariates, future),
            deadline=began + max_seconds,
            monotonic=monotonic,
        )
        total, done, from_cache = sum(end[tp] - begin[tp] for tp in end), 0, 0
        read: dict[int, tuple[int, int]] = {}
        for stretches in _rounds(begin, end, block_records):
            if monotonic() - began > max_seconds:
                break
            known = {
                s: block
                for s in stretches
                if cache and (block := cache.get(s.partition.partition, s.block_first, s.block_end)) is not None
            }
            from_cache += len(known)
            found = reader.read([s for s in stretches if s not in known])
            if found is None:
                break
            for stretch in stretches:
                number = stretch.partition.partition
                if cache is not None and stretch in found and stretch.is_whole:
                    cache.put(number, stretch.block_first, stretch.block_end, found[stretch])
                block = known.get(stretch) or found[stretch]
                collector.add(block, partition=number, since_offset=stretch.first)
                read[number] = (stretch.first, end[stretch.partition])
                done += stretch.end - stretch.first
            if on_progress is not None:
                on_progress(done, total)
    except KafkaError as error:
        raise translate(error, f"Reading the history of {topic}") from error
    finally:
        consumer.close()
    if total and not read:
        raise TransportTimeout(
            f"Not even the newest {block_records:,} records of {topic} could be read in {max_seconds:g} s.",
            hint="Look at the broker's log; or lengthen training.history_seconds.",
        )
    cuts = {"memory": collector.has_refused, "time": done < total}
    cut_by, kept_bytes = " and ".join(name for name, cut in cuts.items() if cut), collector.bytes
    history = collector.history()
    log.info(
        "history read",
        extra={
            "records": done,
            "of_records": total,
            "cached_blocks": from_cache,
            "readings": history.readings,
            "streams": len(history.streams),
            "of_streams": collector.streams_seen,
            "bytes": kept_bytes,
            "cut_by": cut_by or "nothing",
            "seconds": round(monotonic() - began, 3),
        },
    )
    return HistoryRead(history, read, collector.streams_seen, cut_by)


class _BlockReader:
    """Reads stretches of several partitions at once and decodes them."""

    def __init__(
        self,
        consumer: Any,
        connection: KafkaConnection,
        decoder: Decoder,
        *,
        builder: Callable[[], BlockBuilder],
        deadline: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._consumer, self._decoder, self._builder = consumer, decoder, builder
        self._patience = connection.request_timeout_seconds
        self._deadline, self._monotonic = deadline, monotonic

    def read(self, stretches: Sequence[_Stretch]) -> dict[_Stretch, HistoryBlock] | None:
        """Their blocks, of each partition one; ``None`` where the time was over before."""
        if not stretches:
            return {}
        consumer, monotonic = self._consumer, self._monotonic
        by_partition = {stretch.partition: stretch for stretch in stretches}
        builders = {partition: self._builder() for partition in by_partition}
        consumer.assign(list(by_partition))
        consumer.resume(*by_partition)  # what stays assigned stays paused from the round before
        for partition, stretch in by_partition.items():
            consumer.seek(partition, stretch.first)
            forget_parked(consumer, partition)  # of the round before: more was fetched than that one needed
        reading, last_progress = set(by_partition), monotonic()
        while reading:
            batches = consumer.poll(timeout_ms=round(1000 * _POLL_SECONDS))
            for partition, records in batches.items():
                for record in records:
                    if record.offset < by_partition[partition].end:
                        builders[partition].take(record.offset, self._decoder.decode(_raw(record)))
            # Positions, not records: control records and aborted ones move the former only.
            finished = {tp for tp in reading if consumer.position(tp) >= by_partition[tp].end}
            now = monotonic()
            if batches or finished:
                last_progress = now
            elif now - last_progress > self._patience:
                raise TransportTimeout(
                    f"Nothing more came of {next(iter(reading)).topic} for {self._patience:g} s, though partitions "
                    f"{sorted(tp.partition for tp in reading)} have more.",
                    hint="Look at the broker's log; or lengthen kafka.request_timeout_seconds.",
                )
            if finished:
                reading -= finished
                consumer.pause(*finished)
            if reading and now > self._deadline:
                return None
        return {stretch: builders[partition].block() for partition, stretch in by_partition.items()}


def _cache_of(topic_id: object | None, topic: str, open_cache: Callable[[str], BlockCache]) -> BlockCache | None:
    if topic_id is None:
        log.warning(
            "history is not cached: this broker does not say whether a topic was made anew", extra={"topic": topic}
        )
        return None
    return open_cache(str(topic_id))


def _rounds(
    begin: Mapping[TopicPartition, int], end: Mapping[TopicPartition, int], block_records: int
) -> Iterator[list[_Stretch]]:
    """All blocks, those of about the same age together, the newest first; of each partition one at a time."""
    stretches = []
    for partition, last in end.items():
        first = begin[partition]
        for block_first in range(first - first % block_records, last, block_records):
            block_end = block_first + block_records
            till = min(block_end, last)
            age = (last - till) / (last - first)
            stretches.append(_Stretch(partition, block_first, block_end, max(block_first, first), till, age))
    together: list[_Stretch] = []
    for stretch in sorted(stretches, key=lambda s: (s.age, s.partition.partition)):
        if len(together) == _TOGETHER or any(stretch.partition == other.partition for other in together):
            yield together
            together = []
        together.append(stretch)
    if together:
        yield together


def _bounds(
    consumer: Any, connection: KafkaConnection, topic: str, since: float, max_readings: int
) -> tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
    """First offset to read and the one after the last, of each partition that has any."""
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise TransportError(
            f"Topic {topic} does not exist at {connection.bootstrap_servers}.",
            hint="Create it with `forecaster topics create`, or set topics.readings.",
        )
    partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
    timeout_ms = round(1000 * connection.request_timeout_seconds)
    end = consumer.end_offsets(partitions, timeout_ms=timeout_ms)
    found = consumer.offsets_for_times(dict.fromkeys(partitions, max(round(1000 * since), 0)), timeout_ms=timeout_ms)
    begin = {tp: end[tp] if found.get(tp) is None else found[tp].offset for tp in partitions}
    waiting = sum(end[tp] - begin[tp] for tp in partitions)
    if waiting > max_readings:
        share = max_readings / waiting
        begin = {tp: max(begin[tp], end[tp] - int(share * (end[tp] - begin[tp]))) for tp in partitions}
    some = [tp for tp in partitions if end[tp] > begin[tp]]
    return {tp: begin[tp] for tp in some}, {tp: end[tp] for tp in some}


def _raw(record: Any) -> RawRecord:
    return RawRecord(record.topic, record.partition, record.offset, record.timestamp / 1000, record.key, record.value)
