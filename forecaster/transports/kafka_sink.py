"""Answers to Kafka: one idempotent producer, every delivery looked at, on kafka-python."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections import deque
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.errors import KafkaError
from kafka.future import Future

from forecaster.errors import (
    DeliveryFailed,
    TransportError,
    TransportTimeout,
)
from forecaster.ports import Sink
from forecaster.records import OutRecord
from forecaster.transports import kafka_batched
from forecaster.transports.kafka_client import KafkaConnection, open_client, translate

log = logging.getLogger(__name__)

_MAX_REQUEST_BYTES = 1_048_576  # of a broker's default message.max.bytes
_LINGER_SECONDS = 0.02
_WAIT_SLICE_SECONDS = 0.1
_GRACE_SECONDS = 1.0
_CLOSE_SECONDS = 5.0


class KafkaSink(Sink):
    """A `Sink` on an idempotent producer: ``acks=all``, in order per partition, nothing doubled by the client's retry.

    The client itself takes records without end while the broker is away, and its flush does not raise. So the sink
    keeps the future of every record: ``send`` waits while ``max_in_flight`` are under way, ``flush`` looks at each.

    After `DeliveryFailed` it is not known which of the records since the last flush arrived. A caller that must lose
    none commits nothing and takes the source's records again from their last committed offset; those that did arrive
    are then sent twice. The sink stays usable: the next record opens a new producer, because the client's does not
    send again once it has given a retried batch up.

    Not thread-safe.

    Args:
        connection: where and who.
        max_in_flight: records handed over and not yet acknowledged.
        delivery_timeout_seconds: after this a record is given up; also about the longest wait in ``send``.
        compression: none, gzip, snappy, lz4 or zstd.
        linger_seconds: how long a batch waits for company, unless a flush comes; ``None``: 20 ms, and not at all where
            batches are handed over ready made.
        batch_bytes: a batch goes out when it is this full.
        batched: `send_all` writes whole batches itself (`kafka_batched`); only where `kafka_self_test` approves.

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
        linger_seconds: float | None = None,
        batch_bytes: int = 262_144,
        batched: bool = False,
    ) -> None:
        self._is_batched = batched
        if linger_seconds is None:
            linger_seconds = 0.0 if batched else _LINGER_SECONDS
        linger_ms = round(linger_seconds * 1000)
        delivery_timeout_ms = round(delivery_timeout_seconds * 1000)
        self._connection = connection
        self._max_in_flight = max_in_flight
        # The client gives a batch up somewhat after its time; and never when it is stuck, which nobody should wait for.
        self._given_up_seconds = delivery_timeout_seconds + _GRACE_SECONDS
        self._arguments: dict[str, Any] = {
            # The client refuses to run unless one request and the lingering fit into the delivery timeout.
            "request_timeout_ms": min(
                round(connection.request_timeout_seconds * 1000), delivery_timeout_ms - linger_ms - 1
            ),
            "delivery_timeout_ms": delivery_timeout_ms,
            "max_block_ms": delivery_timeout_ms,
            "linger_ms": linger_ms,
            "batch_size": batch_bytes,
            "max_request_size": _MAX_REQUEST_BYTES,
            "compression_type": None if compression == "none" else compression,
            "enable_idempotence": True,
            "acks": "all",
            "allow_auto_create_topics": False,
        }
        self._in_flight: deque[tuple[Any, float, int]] = deque()
        """Future of the client, when we give it up, and of how many records it tells; oldest first."""
        self._under_way = 0
        """Records in there."""
        self._sent = 0
        self._failed = 0
        self._first_failure: KafkaError | None = None
        self._is_closed = False
        self._producer: KafkaProducer | None = self._open()

    def send(self, record: OutRecord) -> None:
        """Hand a record over. Waits while too many are under way.

        Once one was found refused, records are counted and dropped: the next flush reports them with the others.

        Raises:
            TransportUnavailable: no broker answered; the record was not taken.
            TransportTimeout: the topic's partitions could not be looked up in time; the record was not taken.
            TransportError: the record cannot be sent: too large, no such partition or topic.
        """
        self._require_open(record.topic)
        self._make_room(1)
        if self._failed:
            self._drop(1)
            return
        if self._producer is None:
            self._producer = self._open()
        try:
            future = self._producer.send(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                partition=record.partition,
                timestamp_ms=None if record.timestamp is None else round(record.timestamp * 1000),
            )
        except KafkaError as error:
            raise translate(error, f"Sending a record to {record.topic}") from error
        except ValueError as error:
            raise _cannot_be_sent(record.topic, record.partition, error) from error
        self._handed_over(future, 1)

    def send_all(self, records: deque[OutRecord]) -> None:
        """Hand all over; errors as of `send`, and what was not taken is left in ``records``.

        Nothing of a few thousand is taken unless all of them may be sent.
        """
        if not self._is_batched:
            super().send_all(records)
            return
        while records:
            self._require_open(records[0].topic)
            part = list(itertools.islice(records, max(self._max_in_flight // 4, 1)))
            groups: dict[TopicPartition, list[OutRecord]] = {}
            for record in part:
                place = record.topic, record.partition
                try:
                    groups[place].append(record)  # equal to the named one, and made sooner
                except KeyError:
                    groups[TopicPartition(*place)] = [record]
            if any(tp.partition is None for tp in groups):  # the client's own choice, record by record
                super().send_all(records)
                return
            self._make_room(len(part))
            if self._failed:
                self._drop(len(part))
            else:
                self._hand_over(groups, len(part))
            for _ in part:
                records.popleft()

    def _hand_over(self, groups: dict[TopicPartition, list[OutRecord]], count: int) -> None:
        if self._producer is None:
            self._producer = self._open()
        for tp, group in groups.items():
            try:
                refusal = kafka_batched.check(self._producer, tp, group)
            except KafkaError as error:
                raise translate(error, f"Sending {len(group)} records to {tp.topic}") from error
            except ValueError as error:
                raise _cannot_be_sent(tp.topic, tp.partition, error) from error
            if refusal is not None:
                self._handed_over(Future().failure(refusal), count)
                return
        try:
            for future, taken in kafka_batched.append_all(self._producer, groups):
                self._handed_over(future, taken)
        except KafkaError as error:
            raise translate(error, f"Sending {count} records") from error

    def _handed_over(self, future: Any, count: int) -> None:
        """So many records are with the client now."""
        self._in_flight.append((future, time.monotonic() + self._given_up_seconds, count))
        self._under_way += count
        self._sent += count

    def _drop(self, count: int) -> None:
        """What comes after a failure: the next flush tells of it with the rest."""
        self._sent += count
        self._failed += count

    def _require_open(self, topic: str) -> None:
        if self._is_closed:
            raise TransportError(f"Record for {topic} was sent to a closed sink.")

    def flush(self, timeout_seconds: float) -> None:
        """Return when every record sent so far is acknowledged.

        Raises:
            DeliveryFailed: at least one record since the last flush was refused or given up, which ends the wait.
            TransportTimeout: not all are settled within ``timeout_seconds``; they stay under way for the next flush.
        """
        if self._is_closed:
            raise TransportError("A closed sink was flushed.")
        deadline = time.monotonic() + timeout_seconds
        self._settle(behind=True)
        while self._in_flight and not self._failed and (remaining := deadline - time.monotonic()) > 0:
            assert self._producer is not None, "what is under way has a producer"
            # The client's own timeout is for each batch in turn: in slices, the sum keeps to ours. It also raises, with
            # an error of no meaning, when a batch that it waits for is split; what became of records, futures tell.
            with contextlib.suppress(KafkaError):
                self._producer.flush(timeout=min(remaining, _WAIT_SLICE_SECONDS))
            self._settle(behind=True)
        if self._failed:
            raise self._delivery_failed()
        if self._in_flight:
            raise TransportTimeout(
                f"{self._under_way} of {self._sent} records were not acknowledged within {timeout_seconds:g} s.",
                hint="Is the broker reachable and are enough replicas in sync?",
            )
        self._sent = 0

    def close(self) -> None:
        """Release everything, after a short wait for what is under way. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._producer is not None:
            # The client's close waits for a flush of its own, and gives up before it has closed.
            with contextlib.suppress(KafkaError):
                self._producer.flush(timeout=_CLOSE_SECONDS)
            self._settle(behind=True)
            self._discard_producer()
        if lost := self._under_way + self._failed:
            log.warning("sink closed with records not delivered", extra={"records": lost})

    def _open(self) -> KafkaProducer:
        if self._is_batched:
            kafka_batched.speed_up_sockets()
        return open_client(KafkaProducer, self._connection, **self._arguments)[0]

    def _make_room(self, count: int) -> None:
        while self._in_flight and self._under_way + count > self._max_in_flight and not self._failed:
            future, given_up_at, _ = self._in_flight[0]
            wait = min(max(0.0, given_up_at - time.monotonic()), _WAIT_SLICE_SECONDS)
            if not future.is_done:
                with contextlib.suppress(KafkaError):  # _settle counts it, as it does any other
                    future.get(timeout=wait)
            self._settle()

    def _settle(self, *, behind: bool = False) -> None:
        """Drop the futures that are done or overdue, up to the first that is neither, and count the failures.

        Args:
            behind: those behind one that is under way too, which places of their own may settle sooner.
        """
        now = time.monotonic()
        kept: list[tuple[Any, float, int]] = []
        while self._in_flight:
            future, given_up_at, count = self._in_flight.popleft()
            if future.is_done:
                failure = future.exception
            elif now >= given_up_at:
                failure = kafka_errors.KafkaTimeoutError("neither acknowledged nor refused in time")
            else:
                kept.append((future, given_up_at, count))
                if behind:
                    continue
                break
            self._under_way -= count
            if failure is not None:
                self._failed += count
                self._first_failure = self._first_failure or failure
        self._in_flight.extendleft(reversed(kept))

    def _forget(self) -> None:
        """All that was sent since the last flush."""
        self._in_flight.clear()
        self._under_way = self._sent = self._failed = 0
        self._first_failure = None

    def _delivery_failed(self) -> DeliveryFailed:
        """The error for all that was sent since the last flush, which begins anew with another producer."""
        assert self._first_failure is not None, "a failure has a cause"
        cause = translate(self._first_failure, "The first of them")
        under_way = f", {self._under_way} more are of unknown outcome" if self._under_way else ""
        error = DeliveryFailed(
            f"{self._failed} of {self._sent} records were not delivered{under_way}. {cause}", hint=cause.hint
        )
        error.__cause__ = self._first_failure
        self._discard_producer()
        self._forget()
        return error

    def _discard_producer(self) -> None:
        """End the producer at once: nothing it still holds is waited for."""
        if self._producer is not None:
            self._producer._sender.force_close()  # no public call ends a producer with records under way
            with contextlib.suppress(kafka_errors.KafkaTimeoutError):
                self._producer.close(timeout=_CLOSE_SECONDS)
            self._producer = None


def _cannot_be_sent(topic: str, partition: int | None, error: ValueError) -> TransportError:
    return TransportError(
        f"Record for {topic}, partition {partition}, cannot be sent: {error}.",
        hint="Are there as many partitions as in the readings topic? `forecaster topics check` compares.",
    )
