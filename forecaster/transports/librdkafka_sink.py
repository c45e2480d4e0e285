"""Answers to Kafka on librdkafka: acknowledged one and all, or in transactions with the offsets they answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from forecaster.crash_points import reach
from forecaster.errors import DeliveryFailed, TransportError, TransportTimeout
from forecaster.ports import KEPT, Sink
from forecaster.records import OutRecord
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.librdkafka_client import open_producer, translate_librdkafka
from forecaster.transports.librdkafka_source import LibrdkafkaSource

log = logging.getLogger(__name__)

_MAX_REQUEST_BYTES = 1_048_576  # of a broker's default message.max.bytes
_WAIT_SLICE_SECONDS = 0.1
_CLOSE_SECONDS = 5.0


class LibrdkafkaSink(Sink):
    """What `KafkaSink` is, on librdkafka: the same promises and errors.

    The client tells of failures alone; what it does not tell of within a flush has arrived.

    Args:
        connection: where and who.
        max_in_flight: records handed over and not yet acknowledged.
        delivery_timeout_seconds: after this a record is given up; also about the longest wait in ``send``.
        compression: none, gzip, snappy, lz4 or zstd.
        linger_seconds: how long a batch waits for company, unless a flush comes.
        batch_bytes: a batch goes out when it is this full.

    Raises:
        ConfigurationError: the client refuses a setting.
        TransportUnavailable: no broker answered within the request timeout.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        max_in_flight: int = 20_000,
        delivery_timeout_seconds: float = 30.0,
        compression: str = "lz4",
        linger_seconds: float = 0.02,
        batch_bytes: int = 262_144,
    ) -> None:
        self._connection = connection
        self._delivery_timeout = delivery_timeout_seconds
        self._settings: dict[str, Any] = {
            "enable_idempotence": True,
            "acks": "all",
            "delivery_timeout_ms": round(delivery_timeout_seconds * 1000),
            "linger_ms": round(linger_seconds * 1000),
            "batch_size": batch_bytes,
            "message_max_bytes": _MAX_REQUEST_BYTES,
            "queue_buffering_max_messages": max_in_flight,
            "compression_type": compression,
            "delivery_report_only_error": True,
            "on_delivery": self._on_failure,
        }
        self._sent = self._failed = 0
        self._first_failure: KafkaError | None = None
        self._is_closed = False
        self._producer: Producer | None = self._open()

    def send(self, record: OutRecord) -> None:
        """Hand a record over; waits while too many are under way. Errors as of `KafkaSink.send`."""
        if self._is_closed:
            raise TransportError(f"Record for {record.topic} was sent to a closed sink.")
        if self._failed:
            self._sent += 1
            self._failed += 1
            return
        if self._producer is None:
            self._producer = self._open()
        options: dict[str, Any] = {}
        if record.partition is not None:
            options["partition"] = record.partition
        if record.headers:
            options["headers"] = list(record.headers)
        if record.timestamp is not None:
            options["timestamp"] = round(record.timestamp * 1000)
        deadline = 0.0
        while True:
            try:
                self._producer.produce(record.topic, record.value, record.key, **options)
                break
            except BufferError:
                deadline = deadline or time.monotonic() + self._delivery_timeout
                if time.monotonic() > deadline:
                    raise TransportTimeout(
                        f"No room for a further record within {self._delivery_timeout:g} s.",
                        hint="Is the broker up and reachable?",
                    ) from None
                self._producer.poll(_WAIT_SLICE_SECONDS)
            except KafkaException as error:
                raise translate_librdkafka(error, f"Sending a record to {record.topic}") from error
        self._sent += 1

    def flush(self, timeout_seconds: float) -> None:
        """Return when every record sent so far is acknowledged; errors as of `KafkaSink.flush`."""
        if self._is_closed:
            raise TransportError("A closed sink was flushed.")
        if self._producer is not None:
            deadline = time.monotonic() + timeout_seconds
            left = self._producer.flush(0)
            while left and not self._failed and (remaining := deadline - time.monotonic()) > 0:
                left = self._producer.flush(min(remaining, _WAIT_SLICE_SECONDS))
            if left and not self._failed:
                raise TransportTimeout(
                    f"{left} of {self._sent} records were not acknowledged within {timeout_seconds:g} s.",
                    hint="Is the broker reachable and are enough replicas in sync?",
                )
        if self._failed:
            raise self._delivery_failed()
        self._sent = 0

    def close(self) -> None:
        """Release everything, after a short wait for what is under way. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._producer is not None:
            left = self._producer.flush(_CLOSE_SECONDS)
            if lost := left + self._failed:
                log.warning("sink closed with records not delivered", extra={"records": lost})
            self._discard_producer()

    def _open(self) -> Producer:
        return open_producer(self._connection, **self._settings)

    def _on_failure(self, error: KafkaError | None, message: Message) -> None:
        self._failed += 1
        self._first_failure = self._first_failure or error

    def _delivery_failed(self) -> DeliveryFailed:
        """The error for all that was sent since the last flush, which begins anew with another producer."""
        assert self._first_failure is not None, "a failure has a cause"
        cause = translate_librdkafka(self._first_failure, "The first of them")
        left = 0 if self._producer is None else len(self._producer)
        under_way = f", {left} more are of unknown outcome" if left else ""
        error = DeliveryFailed(
            f"{self._failed} of {self._sent} records were not delivered{under_way}. {cause}", hint=cause.hint
        )
        self._discard_producer()
        self._forget()
        return error

    def _discard_producer(self) -> None:
        """End the producer at once: nothing it still holds is waited for."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    def _forget(self) -> None:
        self._sent = self._failed = 0
        self._first_failure = None


class LibrdkafkaTransactionalSink(LibrdkafkaSink):
    """What `KafkaTransactionalSink` is, on librdkafka: the same promises and errors.

    This client gives its transactional calls a time to end in, refuses to commit after a record was given up, and says
    so when it was fenced. What is left to look at is that an evicted member commits nothing (`group_metadata`); and
    after any error the producer is thrown away, so that there is one way back for both clients.

    Args:
        connection: where and who.
        source: whose offsets are committed.
        transactional_id: stable name of this worker: a restart under it ends the transaction that a crash left behind.
        transaction_timeout_seconds: after this the broker aborts a transaction by itself.
        watchdog_seconds: longest a transactional call may take.
        sink_arguments: of `LibrdkafkaSink`.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        source: LibrdkafkaSource,
        *,
        transactional_id: str,
        transaction_timeout_seconds: float = 10.0,
        watchdog_seconds: float = 60.0,
        **sink_arguments: Any,
    ) -> None:
        self._source = source
        self._transaction: dict[str, Any] = {
            "transactional_id": transactional_id,
            "transaction_timeout_ms": round(transaction_timeout_seconds * 1000),
            # A new transaction waits this long, each time, while the broker still ends the last one.
            "retry_backoff_ms": 10,
        }
        self._patience = watchdog_seconds
        self._is_open = False
        super().__init__(connection, **sink_arguments)

    def send(self, record: OutRecord) -> None:
        """Hand a record over, in the transaction under way or a new one.

        Raises:
            TransportError: the transaction is lost; `start_over`.
        """
        if not self._is_open:
            self._begin()
        super().send(record)
        reach("mid_send")

    def commit(self, offsets: Mapping[int, int], *, flush_timeout_seconds: float) -> None:
        """End the transaction with these next offsets of the source; errors as of `KafkaTransactionalSink.commit`."""
        if not self._is_open:
            self._begin()
        self.flush(flush_timeout_seconds)
        reach("after_flush")
        metadata = self._source.group_metadata(offsets)
        positions = [TopicPartition(self._source.topic, number, offset, KEPT) for number, offset in offsets.items()]
        producer = self._current()
        try:
            if positions:
                producer.send_offsets_to_transaction(positions, metadata, self._patience)
            reach("after_offsets")
            producer.commit_transaction(self._patience)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.FENCED_INSTANCE_ID:
                self._source.refuse_namesake()
            raise translate_librdkafka(error, "Committing a transaction") from error
        self._is_open = False
        reach("after_commit")

    def start_over(self) -> None:
        """Throw away the transaction under way, and the producer with all it may still remember of it.

        Raises:
            TransportError: no new producer can be had now; calling again tries again.
        """
        self._discard_producer()
        self._forget()
        self._is_open = False
        self._producer = self._open()

    def _open(self) -> Producer:
        self._settings |= self._transaction
        # The client refuses records and requests that may live longer than their transaction.
        most = self._transaction["transaction_timeout_ms"]
        self._settings["delivery_timeout_ms"] = min(self._settings["delivery_timeout_ms"], most)
        self._settings["socket_timeout_ms"] = min(round(self._connection.request_timeout_seconds * 1000), most)
        producer = super()._open()
        try:
            producer.init_transactions(self._patience)
        except KafkaException as error:
            raise translate_librdkafka(error, "Taking up the transactional id") from error
        return producer

    def _begin(self) -> None:
        try:
            self._current().begin_transaction()
        except KafkaException as error:
            raise translate_librdkafka(error, "Beginning a transaction") from error
        self._is_open = True

    def _current(self) -> Producer:
        if self._producer is None:
            raise TransportError(
                "The producer of a lost transaction is gone.", hint="The worker starts over by itself."
            )
        return self._producer
