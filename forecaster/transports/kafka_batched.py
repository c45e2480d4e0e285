"""kafka-python by the batch: a fetched batch becomes `RawRecord` in one loop, answers become a batch in one piece.

The client's public calls cost 11 µs for a record read and 39 µs for one sent, nearly all of it objects and locks made
for each record. Here are the three places where that is spent, done once a batch instead. All of it leans on parts of
the client that are not public, so it is used with just the version it was made for, and after `kafka_self_test` has
found that it reads and writes what the client does; else the public calls do the work.

==================================  ================================================================================
the client's part                   what takes its place
==================================  ================================================================================
``Fetcher.PartitionRecords``        `BatchedRecords`: the same decisions batch by batch, records without generators
``KafkaTCPTransport``, ``…SSL…``    the same with reads of a mebibyte instead of 4 KiB
``RecordAccumulator.append``        `append_all`: the same bytes in the same batches, one future for many records
==================================  ================================================================================
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.fetcher import Fetcher
from kafka.future import Future
from kafka.net import manager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.producer.future import FutureRecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.protocol.consumer import IsolationLevel
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import decode_varint, encode_varint

from forecaster.records import OutRecord, RawRecord

MADE_FOR = "3.0.12"
"""The version of kafka-python whose inner parts these are."""
_READ_BYTES = 1 << 20
_TLS_READ_BYTES = 1 << 16
_OVERHEAD_BYTES = 128
"""More than a batch's header, a record's own numbers and the lengths of key and value take."""


def speed_up_sockets() -> None:
    """Let every connection that is opened from now on read in large pieces. Idempotent."""
    manager.KafkaTCPTransport = _TCPTransport
    manager.KafkaSSLTransport = _SSLTransport


def speed_up_consumer(consumer: KafkaConsumer) -> None:
    """Let the polls of a consumer without deserializers return lists of `RawRecord`."""
    consumer._fetcher.PartitionRecords = BatchedRecords


class BatchedRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no types
    """What was fetched of a partition, as `RawRecord`; in all else as the client's class, whose steps these are."""

    def __init__(self, fetch_offset: int, tp: TopicPartition, records: Any, **arguments: Any) -> None:
        super().__init__(fetch_offset, tp, records, **arguments)
        self.record_iterator = self._pieces(records)
        self._piece: list[RawRecord] = []
        self._taken = 0  # of the piece

    def take(self, n: int | None = None) -> list[RawRecord]:
        """The next records, at most ``n``.

        An error that comes after some is raised by the next call. The client would never come back from the call after
        that; here what is left is given up, so that it is fetched, and the error told, once more.
        """
        records: list[RawRecord] = []
        try:
            self._maybe_raise_next_inline_exception()
            while n is None or len(records) < n:
                if self._taken == len(self._piece):
                    piece = next(self.record_iterator, None)
                    if piece is None:
                        break
                    self._piece, self._taken = piece, 0
                part = self._piece[self._taken : None if n is None else self._taken + n - len(records)]
                records += part
                self._taken += len(part)
                self.next_fetch_offset = part[-1].offset + 1
        except Exception as error:
            if not records:
                self.drain()
                raise
            self._next_inline_exception = error
        return records

    def _pieces(self, records: Any) -> Iterator[list[RawRecord]]:
        """The records of each batch that are to be handed over, never none."""
        batch = last = records.next_batch()
        while batch is not None:
            last = batch
            if self.check_crcs and not batch.validate_crc():
                raise kafka_errors.CorruptRecordError(
                    f"Record batch for partition {self.topic_partition} at offset {batch.base_offset} failed crc check"
                )
            if batch.magic == 2 and not self._is_for_us(batch):
                self.next_fetch_offset = batch.next_offset
            else:
                yield from self._decode(batch)
            batch = records.next_batch()
        if last is not None and last.magic == 2:
            # Records at the end of the batch may have been compacted away: the next fetch begins behind it all the same
            self.next_fetch_offset = last.next_offset
        self.drain()

    def _is_for_us(self, batch: Any) -> bool:
        """Whether it holds records, and of no aborted transaction where those are not to be seen."""
        self.leader_epoch = batch.leader_epoch
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return False
        return not batch.is_control_batch

    def _decode(self, batch: Any) -> Iterator[list[RawRecord]]:
        found: list[RawRecord] = []
        failure: Exception | None = None
        try:
            if batch.magic == 2:
                self._decode_into(found, batch)
            else:
                self._decode_old_into(found, batch)
        except (ValueError, IndexError) as error:
            failure = kafka_errors.CorruptRecordError(f"Found invalid record structure: {error!r}")
        except kafka_errors.KafkaError as error:
            failure = error
        if due := self._due(found):
            yield due
        if failure is not None:
            raise failure

    def _due(self, found: list[RawRecord]) -> list[RawRecord]:
        """Without those before the offset asked for: brokers hand over whole batches."""
        if found and found[0].offset < self.fetch_offset:
            return [record for record in found if record.offset >= self.fetch_offset]
        return found

    def _decode_into(self, found: list[RawRecord], batch: Any) -> None:
        """Append the records of a batch.

        A record: length, attributes, time since the first, offset since the base, key, value, headers; numbers are
        zigzag varints, and a length of -1 is null. Headers are not looked at: a reading's are of no use to us.

        Raises:
            ValueError, IndexError, CorruptRecordError: the bytes are no batch.
        """
        batch._maybe_uncompress()
        data, at = bytes(batch._buffer), batch._pos
        topic, partition, base = self.topic_partition.topic, self.topic_partition.partition, batch.base_offset
        appended_at = batch.max_timestamp / 1000 if batch.timestamp_type else None
        first, size, total, add = batch.first_timestamp, len(data), 0, found.append
        for _ in range(batch.records_count):
            # Numbers of one and two bytes are read here, as a call would cost more than all the rest.
            number = data[at]
            if number < 0x80:
                length, at = (number >> 1) ^ -(number & 1), at + 1
            elif (high := data[at + 1]) < 0x80:
                number = number & 0x7F | high << 7
                length, at = (number >> 1) ^ -(number & 1), at + 2
            else:
                length, at = decode_varint(data, at)
            end = at + length
            if end > size:
                raise kafka_errors.CorruptRecordError(f"Record of {length} bytes ends {end - size} after its batch")
            if data[at] < 0x80:  # attributes, of no meaning yet
                at += 1
            else:
                _, at = decode_varint(data, at)
            number = data[at]
            if number < 0x80:
                since, at = (number >> 1) ^ -(number & 1), at + 1
            else:
                since, at = decode_varint(data, at)
            number = data[at]
            if number < 0x80:
                offset, at = (number >> 1) ^ -(number & 1), at + 1
            elif (high := data[at + 1]) < 0x80:
                number = number & 0x7F | high << 7
                offset, at = (number >> 1) ^ -(number & 1), at + 2
            else:
                offset, at = decode_varint(data, at)
            number = data[at]
            if number < 0x80:
                length_of, at = (number >> 1) ^ -(number & 1), at + 1
            else:
                length_of, at = decode_varint(data, at)
            if length_of >= 0:
                key: bytes | None = data[at : at + length_of]
                at += length_of
            else:
                key = None
            number = data[at]
            if number < 0x80:
                length_of, at = (number >> 1) ^ -(number & 1), at + 1
            elif (high := data[at + 1]) < 0x80:
                number = number & 0x7F | high << 7
                length_of, at = (number >> 1) ^ -(number & 1), at + 2
            else:
                length_of, at = decode_varint(data, at)
            if length_of >= 0:
                value: bytes | None = data[at : at + length_of]
                at += length_of
            else:
                value = None
            headers, at = (0, at + 1) if data[at] == 0 else decode_varint(data, at)
            if headers < 0 or at > end or (headers == 0 and at != end):
                raise kafka_errors.CorruptRecordError(
                    f"Invalid record size: expected {length} bytes, read {length + at - end}, headers {headers}"
                )
            at = end
            total += length
            moment = (first + since) / 1000 if appended_at is None else appended_at
            add(RawRecord(topic, partition, base + offset, moment, key, value))
        if at != size:
            raise kafka_errors.CorruptRecordError(f"{size - at} unconsumed bytes after all records consumed")
        self.records_read += len(found)
        self.bytes_read += total

    def _decode_old_into(self, found: list[RawRecord], batch: Any) -> None:
        """Append the records of a batch in the format of brokers before 0.11, which a topic may still hold."""
        topic, partition = self.topic_partition
        for record in batch:
            if self.check_crcs and not record.validate_crc():
                raise kafka_errors.CorruptRecordError(
                    f"Record for partition {self.topic_partition} at offset {record.offset} failed crc check"
                )
            found.append(RawRecord(topic, partition, record.offset, record.timestamp / 1000, record.key, record.value))
            self.records_read += 1
            self.bytes_read += record.size_in_bytes


class JointFuture(FutureRecordMetadata):  # type: ignore[misc]  # kafka-python has no types
    """What became of several records of one batch: done when all are, failed when one is.

    A batch that a broker finds too large is split in two, and each of its records is handed to the future of its half,
    one call of `rebind` a record. So records are counted, and one half's success does not hide the other's failure.
    A batch that was split is never told of again.
    """

    __slots__ = ("_cause", "_done", "_left")

    def __init__(self, produce_future: Any, first: int, count: int) -> None:
        Future.__init__(self)
        self._left = count
        self._done = threading.Event()
        self._cause: BaseException | None = None
        self._watch(produce_future, first, count)

    def rebind(self, new_produce_future: Any, new_batch_index: int) -> None:
        """One of the records stands in this batch now, at this place."""
        self._watch(new_produce_future, new_batch_index, 1)

    def get(self, timeout: float | None = None) -> None:
        """Wait until all records are settled.

        Raises:
            KafkaTimeoutError: not within this many seconds.
            KafkaError: a record was not delivered.
        """
        if not self._done.wait(timeout):
            raise kafka_errors.KafkaTimeoutError(f"Timeout after waiting for {timeout} secs.")
        if self.exception is not None:
            raise self.exception

    def _watch(self, produce_future: Any, index: int, count: int) -> None:
        def acknowledged(result: tuple[Any, Any, Any]) -> None:
            # A batch's future succeeds whatever became of it; the third part says how its records failed, if they did.
            self._settle(count, None if result[2] is None else result[2](index))

        produce_future._add_cb_eb(acknowledged, lambda error: self._settle(count, error))

    def _settle(self, count: int, cause: BaseException | None) -> None:
        """On the client's I/O thread, or on that which closes the client."""
        with self._lock:
            self._cause = self._cause or cause
            self._left -= count
            is_over = self._left == 0
        if is_over:
            if self._cause is None:
                self.success(None)
            else:
                self.failure(self._cause)
            self._done.set()


def append_all(producer: KafkaProducer, groups: dict[TopicPartition, list[OutRecord]]) -> Iterator[tuple[Any, int]]:
    """Hand records over, and yield the future of each run of them that stands in one batch, and their number.

    Args:
        groups: by place, each place's in order; all have passed `check`.

    Raises:
        KafkaError: the producer takes no more; records of groups that were not yielded are not with it.
    """
    transactions = producer._transaction_manager
    try:
        for tp, records in groups.items():
            if producer._closed:
                raise kafka_errors.IllegalStateError("KafkaProducer already closed!")
            if transactions is not None and transactions.is_transactional():
                transactions.maybe_add_partition_to_transaction(tp)
            yield from append(producer._accumulator, tp, records)
    finally:
        producer._sender.wakeup()  # once, so that all places of a broker go out in one request


def check(
    producer: KafkaProducer, tp: TopicPartition, records: Sequence[OutRecord]
) -> kafka_errors.BrokerResponseError | None:
    """Refuse what `KafkaProducer.send` would refuse, before any of it is handed over.

    Returns:
        What the broker said where it refuses to tell of the topic: `KafkaProducer.send` gives that to the futures.

    Raises:
        ValueError: no such partition, or a record has neither key nor value.
        KafkaError: the topic cannot be looked up in time, or a record is too large.
    """
    if producer._metadata.partitions_for_topic(tp.topic) is None:
        try:
            producer._wait_on_metadata(tp.topic, producer.config["max_block_ms"])
        except kafka_errors.BrokerResponseError as error:
            return error
    if producer._partition(tp.topic, tp.partition, None, None, None, None) is None:
        raise ValueError(f"Unrecognized topic {tp.topic}")
    most = producer.config["max_request_size"] - _OVERHEAD_BYTES
    for record in records:
        key, value = record.key, record.value
        if key is None and value is None:
            raise ValueError("Need at least one: key or value")
        if record.headers or len(key or b"") + len(value or b"") > most:
            size = producer._estimate_size_in_bytes(key, value, list(record.headers))
            producer._ensure_valid_record_size(size)
    return None


def append(accumulator: Any, tp: TopicPartition, records: Sequence[OutRecord]) -> Iterator[tuple[JointFuture, int]]:
    """Put records into the batches that wait for one place: into the last while there is room, then into new ones.

    Raises:
        IllegalStateError: the accumulator was closed.
    """
    found: list[tuple[JointFuture, int]] = []
    accumulator._appends_in_progress.increment()  # so that a forced close does not miss a batch that is being made
    try:
        with accumulator._tp_lock(tp):
            if accumulator._closed:
                raise kafka_errors.IllegalStateError("RecordAccumulator is closed")
            waiting = accumulator._batches[tp]
            at = 0
            if waiting:
                at = _put(waiting[-1], records, at, found)
            while at < len(records):
                config = accumulator.config
                builder = MemoryRecordsBuilder(2, config["compression_attrs"], config["batch_size"])
                batch = ProducerBatch(tp, builder)
                at = _put(batch, records, at, found)
                waiting.append(batch)
                accumulator._incomplete.add(batch)
    finally:
        accumulator._appends_in_progress.decrement()
    return iter(found)


def _put(batch: Any, records: Sequence[OutRecord], at: int, found: list[tuple[JointFuture, int]]) -> int:
    """Write records from ``at`` on into a batch while there is room; returns where it ended."""
    first = batch.records.next_offset()
    count = _fill(batch, records, at)
    if count:
        future = JointFuture(batch.produce_future, first, count)
        batch._record_futures += [future] * count
        batch.last_append = time.monotonic()
        found.append((future, count))
    return at + count


def _fill(batch: Any, records: Sequence[OutRecord], begin: int) -> int:
    """Write records from ``begin`` on into a batch while there is room, at least one into an empty one; how many."""
    wrapper = batch.records
    if wrapper._closed:  # on its way, or to be sent again as it is
        return 0
    builder = wrapper._builder
    is_empty = builder._first_timestamp is None
    offset, size, most = wrapper._next_offset, len(builder._buffer), builder._batch_size
    now, first, latest = int(time.time() * 1000), builder._first_timestamp, builder._max_timestamp
    parts: list[bytes] = []
    largest = batch.max_record_size
    numbers, known = _VARINTS, len(_VARINTS)
    count = 0
    for record in records if begin == 0 else records[begin:]:
        key, value, headers, moment = record.key, record.value, record.headers, record.timestamp
        time_ms = now if moment is None else round(moment * 1000)
        since = 0 if first is None else time_ms - first
        head = b"\x00" + (numbers[since] if 0 <= since < known else _varint(since))
        head += numbers[offset] if offset < known else _varint(offset)
        if key is None:
            head, key = head + b"\x01", b""
        else:
            length = len(key)
            head += numbers[length] if length < known else _varint(length)
        if value is None:
            middle, value = b"\x01", b""
        else:
            length = len(value)
            middle = numbers[length] if length < known else _varint(length)
        tail = _headers(headers) if headers else b"\x00"
        length = len(head) + len(key) + len(middle) + len(value) + len(tail)
        prefix = numbers[length] if length < known else _varint(length)
        required = len(prefix) + length
        if size + required > most and not (is_empty and count == 0):
            break
        if first is None:
            first = latest = time_ms
        elif time_ms > latest:
            latest = time_ms
        parts += (prefix, head, key, middle, value, tail)
        largest = max(largest, required)
        size += required
        offset += 1
        count += 1
    if count:
        builder._buffer += b"".join(parts)
        builder._first_timestamp, builder._max_timestamp = first, latest
        builder._num_records += count
        builder._last_offset = offset - 1
        wrapper._next_offset = offset
        batch.max_record_size = largest
    return count


def _headers(headers: Sequence[tuple[str, bytes]]) -> bytes:
    written = [_varint(len(headers))]
    for name, value in headers:
        text = name.encode()
        written += (_varint(len(text)), text, _varint(len(value)), value)
    return b"".join(written)


def _varint(number: int) -> bytes:
    """A number as Kafka writes it.

    >>> _varint(-1), _varint(300)
    (b'\\x01', b'\\xd8\\x04')
    """
    written = bytearray()
    encode_varint(number, written.append)
    return bytes(written)


_VARINTS = tuple(_varint(number) for number in range(4_096))


class _TCPTransport(KafkaTCPTransport):  # type: ignore[misc]  # kafka-python has no types
    def _sock_recv(self) -> tuple[bytes, BaseException | None]:
        return _receive(self._sock, _READ_BYTES, until_short=True)


class _SSLTransport(KafkaSSLTransport):  # type: ignore[misc]  # kafka-python has no types
    def _sock_recv(self) -> tuple[bytes, BaseException | None]:
        # It hands over at most a record of 16 KiB a call; what it still holds no selector would tell of.
        return _receive(self._sock, _TLS_READ_BYTES, until_short=False)


def _receive(socket: Any, size: int, *, until_short: bool) -> tuple[bytes, BaseException | None]:
    """What has come, and what ended the connection, if anything did."""
    received: list[bytes] = []
    try:
        while data := socket.recv(size):
            received.append(data)
            if until_short and len(data) < size:
                return b"".join(received), None
    except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return b"".join(received), None
    except Exception as error:  # noqa: BLE001 - handed to the connection, which ends with it
        return b"".join(received), kafka_errors.KafkaConnectionError(error)
    return b"".join(received), kafka_errors.KafkaConnectionError("socket disconnected")
