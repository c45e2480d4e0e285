"""The compacted topic of models on kafka-python: read on from a kept position, written in transactions."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from forecaster.crash_points import reach
from forecaster.errors import Fenced, TransportError, TransportTimeout
from forecaster.ports import LogReading, LogRecord
from forecaster.records import OutRecord
from forecaster.transports.kafka_admin import ClusterAdmin
from forecaster.transports.kafka_client import KafkaConnection, open_client, translate
from forecaster.transports.kafka_sink import KafkaSink

_DEFAULT_MESSAGE_BYTES = 1_048_588  # of a broker that does not tell
_LARGEST_VALUE_BYTES = 524_288  # larger records gain nothing, and the client sends no request of more than 1 MiB
_POLL_MS = 200
_RETRY_SECONDS = 5.0


class KafkaModelLog:
    """A `ModelLog` in the only partition of a topic.

    Args:
        connection: where and who.
        topic: compacted, one partition.
        transactional_id: the same for all who write: who begins to write ends whatever another is at.
        transaction_timeout_seconds: after this the broker aborts a transaction by itself.
        deadline_seconds: longest that a read to the end, or any step of a write, may take.
        monotonic: clock of deadlines, and of the pause after a failure.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        topic: str,
        transactional_id: str,
        transaction_timeout_seconds: float = 30.0,
        deadline_seconds: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = topic
        self._connection = connection
        self._transactional_id = transactional_id
        self._transaction_timeout_seconds = transaction_timeout_seconds
        self._deadline = deadline_seconds
        self._monotonic = monotonic
        self._partition = TopicPartition(topic, 0)
        self._consumer: KafkaConsumer | None = None
        self._writer: _Writer | None = None
        self._notes: KafkaSink | None = None
        self._max_value_bytes = 0
        self._trouble: TransportError | None = None
        self._retry_at = 0.0

    @property
    def max_value_bytes(self) -> int:
        """Seven eighths of what the topic takes in one message, and no more than 512 KiB."""
        if not self._max_value_bytes:
            with ClusterAdmin(self._connection) as admin:
                topic = admin.describe_topics([self.name]).get(self.name)
            if topic is None:
                raise self._absent()
            limit = topic.max_message_bytes or _DEFAULT_MESSAGE_BYTES
            self._max_value_bytes = min(limit * 7 // 8, _LARGEST_VALUE_BYTES)
        return self._max_value_bytes

    def read(self, *, wait: bool) -> LogReading:
        """See `ModelLog.read`.

        After a failure calls without ``wait`` repeat its message for a few seconds and do not ask the broker: who
        serves asks often.
        """
        if not wait and self._trouble is not None and self._monotonic() < self._retry_at:
            raise type(self._trouble)(str(self._trouble), hint=self._trouble.hint)
        try:
            with self._translated(f"Reading {self.name}"):
                reading = self._read(wait)
        except TransportError as error:
            self._drop_consumer()
            self._trouble, self._retry_at = error, self._monotonic() + _RETRY_SECONDS
            raise
        self._trouble = None
        return reading

    def fetch(self, offsets: Sequence[int]) -> dict[int, bytes]:
        """See `ModelLog.fetch`."""
        if not offsets:
            return {}
        with self._translated(f"Reading records of {self.name}"):
            consumer = self._consumer or self._open_consumer()
            position = consumer.position(self._partition)
            wanted, found = set(offsets), {}
            try:
                consumer.seek(self._partition, min(wanted))
                for record in self._records_before(consumer, max(wanted) + 1):
                    if record.offset in wanted and record.value is not None:
                        found[record.offset] = record.value
            except OffsetOutOfRangeError:
                pass  # the topic was made anew; the next read finds out
            finally:
                consumer.seek(self._partition, position)
        return found

    def claim(self) -> None:
        """See `ModelLog.claim`."""
        self.release()
        self._writer = _Writer(
            self._connection,
            transactional_id=self._transactional_id,
            transaction_timeout_seconds=self._transaction_timeout_seconds,
            deadline_seconds=self._deadline,
            batch_bytes=self.max_value_bytes,
        )

    def append(self, entries: Sequence[tuple[str, bytes | None]]) -> None:
        """See `ModelLog.append`."""
        if self._writer is None:
            raise TransportError(f"Records for {self.name} need a claim first.")
        self._writer.write([OutRecord(self.name, 0, key.encode(), value) for key, value in entries])

    def publish(self, key: str, value: bytes) -> None:
        """See `ModelLog.publish`."""
        if self._notes is None:
            seconds = self._connection.request_timeout_seconds + 1.0
            self._notes = KafkaSink(self._connection, delivery_timeout_seconds=seconds, compression="none")
        try:
            self._notes.send(OutRecord(self.name, 0, key.encode(), value))
            self._notes.flush(self._deadline)
        except TransportError:
            self._drop_notes()
            raise

    def release(self) -> None:
        """See `ModelLog.release`."""
        if self._writer is not None:
            self._writer.discard()
        self._writer = None

    def close(self) -> None:
        """Release everything. Idempotent."""
        self.release()
        self._drop_notes()
        self._drop_consumer()

    def _read(self, wait: bool) -> LogReading:
        is_from_beginning = self._consumer is None
        consumer = self._consumer or self._open_consumer()
        end = self._log_end() if wait else None
        if is_from_beginning and end is None:
            end = consumer.end_offsets([self._partition])[self._partition]
        records: list[LogRecord] = []
        while True:
            try:
                if end is not None:
                    records += self._records_before(consumer, end)
                while batch := consumer.poll(timeout_ms=0):
                    records += map(_log_record, batch[self._partition])
                return LogReading(records, is_from_beginning)
            except OffsetOutOfRangeError:  # the topic was made anew, or its beginning was deleted
                consumer.seek_to_beginning(self._partition)
                records.clear()
                is_from_beginning, end = True, self._log_end()

    def _records_before(self, consumer: KafkaConsumer, end: int) -> Iterator[LogRecord]:
        """Committed records from the position up to ``end``, and those that came with them."""
        deadline = self._monotonic() + self._deadline
        while consumer.position(self._partition) < end:
            yield from map(_log_record, consumer.poll(timeout_ms=_POLL_MS).get(self._partition, ()))
            if self._monotonic() > deadline:
                raise TransportTimeout(
                    f"{self.name} was read to offset {consumer.position(self._partition)} of {end} within "
                    f"{self._deadline:g} s.",
                    hint="A transaction of a dead process holds readers back until it times out. Try again.",
                )

    def _open_consumer(self) -> KafkaConsumer:
        consumer, _ = open_client(
            KafkaConsumer,
            self._connection,
            group_id=None,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",  # a topic made anew must not look like one that goes on
            allow_auto_create_topics=False,
        )
        try:
            numbers = consumer.partitions_for_topic(self.name)
            if not numbers:
                raise self._absent()
            if len(numbers) != 1:
                raise TransportError(
                    f"Topic {self.name} has {len(numbers)} partitions, expected 1: decisions need one order.",
                    hint="Delete it, or set topics.models; then `forecaster topics create`.",
                )
            consumer.assign([self._partition])
            consumer.seek_to_beginning(self._partition)
        except BaseException:
            consumer.close(autocommit=False)
            raise
        self._consumer = consumer
        return consumer

    def _log_end(self) -> int:
        """Where the log ends, transactions under way counted in."""
        consumer, _ = open_client(
            KafkaConsumer, self._connection, group_id=None, isolation_level="read_uncommitted", enable_auto_commit=False
        )
        try:
            return int(consumer.end_offsets([self._partition])[self._partition])
        finally:
            consumer.close(autocommit=False)

    def _drop_notes(self) -> None:
        if self._notes is not None:
            self._notes.close()
        self._notes = None

    def _drop_consumer(self) -> None:
        if self._consumer is not None:
            self._consumer.close(autocommit=False)
        self._consumer = None

    def _absent(self) -> TransportError:
        return TransportError(
            f"Topic {self.name} does not exist at {self._connection.bootstrap_servers}.",
            hint="Create it with `forecaster topics create`, or set topics.models; registry.kind = directory does "
            "without.",
        )

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except KafkaError as error:
            raise translate(error, doing) from error


class _Writer(KafkaSink):
    """One transaction: a producer that is made for it and thrown away after it.

    What kafka-python's transactions do behind one's back is told in `kafka_transaction`; here the same is guarded, and
    whoever waits for a commit that does not come back gives up and looks at the topic.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        transactional_id: str,
        transaction_timeout_seconds: float,
        deadline_seconds: float,
        batch_bytes: int,
    ) -> None:
        self._transaction = {
            "transactional_id": transactional_id,
            "transaction_timeout_ms": round(transaction_timeout_seconds * 1000),
            "retry_backoff_ms": 10,
        }
        self._deadline = deadline_seconds
        super().__init__(
            connection,
            delivery_timeout_seconds=connection.request_timeout_seconds + 1.0,
            compression="none",  # weights do not get smaller
            batch_bytes=batch_bytes,
        )

    def write(self, records: Sequence[OutRecord]) -> None:
        """Send and commit.

        Raises:
            Fenced: another took the transactional id up since.
            TransportError: nothing is known to be committed.
        """
        producer = self._producer
        assert producer is not None, "made with the writer"
        try:
            producer.begin_transaction()
            identity = _identity(producer)
            for record in records:
                self.send(record)
            self.flush(self._deadline)
            reach("mid_upload")
            self._check(producer, identity)
            try:
                _within(self._deadline, "Committing to the models topic", producer.commit_transaction)
            except KafkaError as error:
                if type(error) is not KafkaError:
                    raise
                # No class of its own: the broker answered with an error it does not know itself, which it does where
                # another's claim ends the transaction at the very moment of its commit.
                raise Fenced("The broker did not say whether the transaction was committed.") from error
            self._check(producer, identity)
        except KafkaError as error:
            raise translate(error, "Writing to the models topic") from error

    def discard(self) -> None:
        """End the producer, and leave its transaction to whoever claims next."""
        self._in_flight.clear()
        self._discard_producer()
        self._is_closed = True

    def _open(self) -> KafkaProducer:
        self._arguments |= self._transaction
        producer = super()._open()
        try:
            _within(self._deadline, "Taking up the transactional id of the registry", producer.init_transactions)
        except BaseException as error:
            self._producer = producer
            self._discard_producer()
            if isinstance(error, KafkaError):
                raise translate(error, "Taking up the transactional id of the registry") from error
            raise
        return producer

    def _check(self, producer: KafkaProducer, identity: object) -> None:
        if _identity(producer) != identity:
            raise Fenced("The producer took up a new epoch within a transaction; whether it was committed is unknown.")


def _identity(producer: KafkaProducer) -> object:
    # Not public, but the client says nowhere else that it has changed its epoch.
    found = producer._transaction_manager.producer_id_and_epoch
    return found.producer_id, found.epoch


def _within(seconds: float, doing: str, call: Callable[[], object]) -> None:
    """``call``, given up after a while: the client waits for ever for a broker that does not come back."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="models-topic", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TransportTimeout(
            f"{doing} did not come back within {seconds:g} s.",
            hint="Is the broker reachable? Whether it took place is not known; `forecaster models list` tells.",
        )
    if errors:
        raise errors[0]


def _log_record(record: Any) -> LogRecord:
    return LogRecord(record.offset, (record.key or b"").decode(errors="replace"), record.value)
