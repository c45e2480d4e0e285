"""Whether `kafka_batched` reads and writes what the client itself does, found out in memory before it is used.

Read: batches in every codec, with headers, nulls, offsets that were compacted away, times of the broker, transactions
that were aborted and their markers, taken in portions of several sizes by the client's class and by ours. Written: the
same records appended by the client and by us, closed as the client closes them, compared byte by byte.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import kafka
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import KafkaError
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import calc_crc32c

from forecaster.records import OutRecord, RawRecord
from forecaster.transports.kafka_batched import MADE_FOR, BatchedRecords, append
from forecaster.transports.kafka_client import raw_record

_PLACE = TopicPartition("readings", 3)
_CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_HEADERS = [("reason", b"late"), ("detail", b"")]
_START_MS = 1_767_225_600_000
_ATTRIBUTES_AT, _CRC_AT, _BASE_OFFSET_AT = 21, 17, 0
_BROKERS_TIME, _CONTROL = 0x08, 0x20
_FEW, _MANY = 5, 150

Row = tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes]]]
"""Offset, time in ms since some day, key, value and headers of a record."""


class Aborted(NamedTuple):
    """What a broker tells of a transaction that was aborted."""

    producer_id: int
    first_offset: int


class Outcome(NamedTuple):
    """What a class of fetched records handed over, call by call."""

    records: list[list[RawRecord]]
    next_offsets: list[int]
    """Of the next fetch, after each call."""
    epoch: int
    read: tuple[int, int]
    """Records and bytes, as counted for the client's metrics."""
    failure: str


@functools.cache
def why_not_batched() -> str:
    """Why the public calls of kafka-python have to do the work; empty where `kafka_batched` may. Asked once a process.

    It takes about a tenth of a second.
    """
    if kafka.__version__ != MADE_FOR:
        return f"kafka-python {kafka.__version__} is installed, and it is made for {MADE_FOR}"
    try:
        return _read_otherwise() or _written_otherwise()
    except Exception as error:  # noqa: BLE001 - a client with other parts may fail in any way; the public calls are there
        return f"its self-test failed with {error!r}"


def fetched(kind: Any, data: bytes, *, portion: int | None, start: int, committed: bool) -> Outcome:
    """What ``kind``, the client's class or ours, makes of bytes that a broker has sent.

    Args:
        portion: most records a call.
        start: offset that was asked for.
        committed: whether aborted transactions are to be left out.
    """
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    aborted = [Aborted(7, 40)] if committed else None
    part = kind(start, _PLACE, MemoryRecords(data), isolation_level=level, aborted_transactions=aborted)
    records, offsets, failure = [], [], ""
    while part:
        try:
            taken = part.take(portion)
        except KafkaError as error:
            failure = type(error).__name__
            break
        records.append([found if isinstance(found, RawRecord) else raw_record(found) for found in taken])
        offsets.append(part.next_fetch_offset)
        if not taken:
            break
    return Outcome(records, offsets, part.leader_epoch, (part.records_read, part.bytes_read), failure)


def sample(codec: int) -> bytes:
    """What a broker may send of a partition: batches of every kind, one behind the other."""
    small: list[Row] = [
        (offset, offset - 20, b"key" if offset % 2 else None, b"value %d" % offset, []) for offset in range(20, 25)
    ]
    holes: list[Row] = [
        (300, 0, b"", b"", _HEADERS),
        (301, -5, b"k" * 200, None, []),
        (340, 70_000, b"key", b"v" * 300, _HEADERS),
        (900, 3_000_000_000, None, b"v" * 20_000, []),
    ]
    many: list[Row] = [(1_000 + at, at, b"sensor-%d" % at, b"%d" % at * (1 + at % 40), []) for at in range(_MANY)]
    return b"".join(
        [
            batch(codec, small),
            batch(codec, [(40, 0, b"aborted", b"1", []), (41, 0, b"aborted", b"2", [])], producer_id=7),
            batch(codec, [(42, 0, b"kept", b"1", [])], producer_id=8),
            batch(0, [(43, 0, struct.pack(">hh", 0, 0), b"\0" * 6, [])], producer_id=7, attributes=_CONTROL),
            batch(codec, [(44, 0, b"kept", b"2", [])], producer_id=7),
            batch(0, [(45, 0, struct.pack(">hh", 0, 1), b"\0" * 6, [])], producer_id=7, attributes=_CONTROL),
            batch(codec, holes, last=950),
            batch(codec, [(960, 5, b"key", b"broker's time", [])], attributes=_BROKERS_TIME),
            batch(codec, many, last=1_000 + _MANY + 10),
        ]
    )


def batch(
    codec: int,
    records: Sequence[Row],
    *,
    producer_id: int = -1,
    attributes: int = 0,
    last: int | None = None,
) -> bytes:
    """One batch as a broker sends it.

    Args:
        records: at least one.
        producer_id: of a transaction, from 0.
        attributes: bits that only a broker sets.
        last: offset that the batch had before compaction took its last records.
    """
    is_transactional = producer_id >= 0
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=is_transactional,
        producer_id=producer_id,
        producer_epoch=0 if is_transactional else -1,
        base_sequence=0 if is_transactional else -1,
        batch_size=1 << 20,
    )
    base = records[0][0]
    for offset, since_ms, key, value, headers in records:
        builder.append(offset - base, _START_MS + since_ms, key, value, headers)
    if last is not None:
        builder._last_offset = last - base
    made = builder.build()
    found = struct.unpack_from(">h", made, _ATTRIBUTES_AT)[0]
    struct.pack_into(">h", made, _ATTRIBUTES_AT, found | attributes)
    struct.pack_into(">I", made, _CRC_AT, calc_crc32c(memoryview(made)[_ATTRIBUTES_AT:]))
    struct.pack_into(">q", made, _BASE_OFFSET_AT, base)
    return bytes(made)


def _read_otherwise() -> str:
    """Where the two classes differ, empty where nowhere."""
    for codec, number in _CODECS.items():
        data = sample(number)
        damaged = data[:-1] + bytes([data[-1] ^ 1])
        cases = [
            (data, None, 22, True),
            (data, _FEW, 301, False),
            (damaged, 2 * _FEW, 0, True),
        ]
        for number_, (sent, portion, start, committed) in enumerate(cases):
            theirs, ours = (
                fetched(kind, sent, portion=portion, start=start, committed=committed)
                for kind in (Fetcher.PartitionRecords, BatchedRecords)
            )
            if theirs != ours:
                return f"it reads a batch in {codec} otherwise than the client (case {number_})"
    return ""


def written(records: Sequence[OutRecord], *, codec: int, by_client: bool) -> list[bytes]:
    """The batches that a transactional producer would send for these, in two calls."""
    accumulator = RecordAccumulator(batch_size=4_000, compression_attrs=codec)
    if by_client:
        for record in records:
            time_ms = None if record.timestamp is None else round(record.timestamp * 1000)
            accumulator.append(_PLACE, time_ms, record.key, record.value, list(record.headers))
    else:
        half = len(records) // 3
        for part in (records[:half], records[half:]):
            list(append(accumulator, _PLACE, part))
    made = []
    for waiting in accumulator._batches[_PLACE]:
        waiting.records.set_producer_state(9, 2, 17, True)
        waiting.records.close()
        told = (waiting.record_count, waiting.max_record_size, len(waiting._record_futures))
        made.append(repr(told).encode() + bytes(waiting.records.buffer()))
    return made


def _written_otherwise() -> str:
    records = [
        OutRecord(
            _PLACE.topic,
            _PLACE.partition,
            None if number % 7 == 0 else b"key %d" % number,
            None if number % 11 == 5 else b"value " * (number * 37 % 150),
            tuple(_HEADERS) if number % 5 == 0 else (),
            _START_MS / 1000 + (number * 7919 % 100 if number % 3 else 0.25 * number),
        )
        for number in range(1, _MANY)
    ]
    for codec, number in _CODECS.items():
        if codec == "gzip":  # names the second in which it was written
            continue
        if written(records, codec=number, by_client=True) != written(records, codec=number, by_client=False):
            return f"it writes a batch in {codec} otherwise than the client"
    return ""
