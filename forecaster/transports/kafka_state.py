"""What is needed to restore a partition: its committed offset, its state records, and the readings to take in again."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from forecaster.errors import TransportError, TransportTimeout
from forecaster.records import RawRecord
from forecaster.state.copy import StateCopy
from forecaster.transports.kafka_client import KafkaConnection, open_client, raw_record, translate
from forecaster.transports.kafka_left_open import LeftOpenTransactions, end_or_wait
from forecaster.transports.kafka_standby import KafkaStateTail

log = logging.getLogger(__name__)

_POLL_MS = 200
_STANDSTILL_SECONDS = 5.0
"""Without a record, before the broker is asked whether there is any."""
_MOST_IDLE = 4


class _StandsStill(Exception):
    """A consumer at ``position`` brings nothing, though records up to ``readable`` are committed.

    kafka-python 3.0.12 has done so for two minutes, once in 300 restores under load; we do not know why.
    """

    def __init__(self, position: int, readable: int) -> None:
        super().__init__(position, readable)
        self.position, self.readable = position, readable


class KafkaStateStore:
    """Reads state and readings of partitions, each call on a consumer of its own: made for threads beside the loop.

    Consumers are kept open between calls, a few of each kind: most of a short restore is otherwise spent on finding
    brokers and leaders. One that met an error is closed.

    Args:
        connection: where and who.
        readings: topic of the readings.
        state: compacted topic with the state records, as many partitions.
        group_id: whose committed offsets count.
        deadline_seconds: longest that one read may take.
        left_open: transactions of workers that are gone; ``None`` leaves them to the broker's time-out.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        readings: str,
        state: str,
        group_id: str,
        deadline_seconds: float,
        left_open: LeftOpenTransactions | None = None,
    ) -> None:
        self._connection = connection
        self._readings = readings
        self._state = state
        self._group_id = group_id
        self._deadline = deadline_seconds
        self._left_open = left_open
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str, str | None], list[KafkaConsumer]] = {}
        self._is_closed = False

    def take_over(self, partition: int) -> None:
        """End the transactions that the partition's last owner has left open."""
        if self._left_open is not None:
            end_or_wait(self._left_open, partition)

    def committed(self, partition: int) -> tuple[int, str]:
        """The group's offset, and the note that was committed with it (`FRESH`, `KEPT`, or another program's).

        Waits for a transaction that is still being ended, as the broker asks of whoever reads offsets.
        """
        with self._consumer(group_id=self._group_id) as consumer:
            found = consumer.committed(
                TopicPartition(self._readings, partition), metadata=True, timeout_ms=round(self._deadline * 1000)
            )
        if found is None:
            raise TransportError(f"Partition {partition} of {self._readings} has no committed offset to restore from.")
        # librdkafka's binding for Python writes the zero byte that ends a string in C along with it.
        return found.offset, (found.metadata or "").removesuffix("\0")

    def state(self, partition: int, copy: StateCopy, give_up: Callable[[], bool]) -> bool:
        """Bring a copy up to the end of the log; false where the log does not go on behind the copy.

        Reads to where the log ended at the start, transactions under way included: one that is being committed at this
        moment may hold what the committed offset speaks of. A transaction left behind is waited for.

        A copy that holds something is read on from its last record, which has to be there as it was taken: a topic made
        anew, or cut and written on, holds another record at that offset or none.
        """
        tp = TopicPartition(self._state, partition)
        with self._consumer(isolation_level="read_uncommitted") as consumer:
            end = consumer.end_offsets([tp])[tp]
        copy.target = end
        if copy.last is None:
            for record in self._read(tp, None, end, give_up):
                copy.take(record)
            return True
        if end < copy.next_offset:
            return False
        records = self._read(tp, copy.last.offset, end, give_up)
        try:
            with contextlib.closing(records):
                first = next(records, None)
                if first is None or not copy.ends_with(first):
                    return first is None and give_up()
                for record in records:
                    copy.take(record)
        except TransportError as error:
            if isinstance(error.__cause__, OffsetOutOfRangeError):
                return False
            raise
        return True

    def readings(self, partition: int, begin: int, end: int, give_up: Callable[[], bool]) -> list[RawRecord]:
        """Readings with ``begin <= offset < end``.

        Raises:
            TransportError: some of them are no longer retained.
        """
        if begin == end:
            return []
        tp = TopicPartition(self._readings, partition)
        try:
            return [record for record in self._read(tp, begin, end, give_up) if record.offset < end]
        except TransportError as error:
            if not isinstance(error.__cause__, OffsetOutOfRangeError):
                raise
            with self._consumer(self._readings) as consumer:
                first = consumer.beginning_offsets([tp])[tp]
            raise TransportError(
                f"State of partition {partition} needs readings from offset {begin} on; "
                f"{self._readings} holds them from {first} on.",
                hint="Retention deleted readings that no page holds yet: lengthen it, or lower state.flush_seconds. "
                "The runbook says how to begin without what was learnt.",
            ) from error

    def keep_warm(self) -> None:
        """Open the clients that restores at the same time need, or have those that are open use their connections.

        Raises:
            TransportError: no broker answers, or one refuses.
        """
        if self._left_open is not None:
            self._left_open.keep_warm()
        state, readings = self._partitions(self._state), self._partitions(self._readings)
        with contextlib.ExitStack() as held:  # until the end, so that each turn finds or opens another one

            def consumer(*kind: str, **how: str) -> KafkaConsumer:
                return held.enter_context(self._consumer(*kind, **how))

            for _ in range(_MOST_IDLE):
                consumer(group_id=self._group_id).committed(readings[0], timeout_ms=round(self._deadline * 1000))
                consumer(isolation_level="read_uncommitted").end_offsets(state)
                for partitions in (state, readings):
                    reader = consumer(partitions[0].topic)
                    reader.assign(partitions)
                    reader.end_offsets(partitions)

    def tail(self) -> KafkaStateTail:
        """A reader that follows the state of many partitions, on a connection of its own.

        Raises:
            TransportError: no broker answers.
        """
        return KafkaStateTail(self._connection, topic=self._state)

    def close(self) -> None:
        """Close the consumers kept open; those in use are closed when their read ends. Idempotent."""
        with self._lock:
            self._is_closed = True
            idle = [consumer for consumers in self._idle.values() for consumer in consumers]
            self._idle.clear()
        for consumer in idle:
            consumer.close(autocommit=False)
        if self._left_open is not None:
            self._left_open.close()

    def _partitions(self, topic: str) -> list[TopicPartition]:
        with self._consumer(isolation_level="read_uncommitted") as consumer:
            found = consumer.partitions_for_topic(topic)
        if not found:
            raise TransportError(f"Topic {topic} does not exist.", hint="`forecaster topics create` makes it.")
        return [TopicPartition(topic, number) for number in sorted(found)]

    def _read(
        self, tp: TopicPartition, begin: int | None, end: int, give_up: Callable[[], bool]
    ) -> Generator[RawRecord, None, None]:
        deadline = time.monotonic() + self._deadline
        while True:
            try:
                yield from self._read_on(tp, begin, end, deadline, give_up)
                return
            except _StandsStill as found:
                begin = found.position
                log.warning(
                    "a client stood still in front of records; reading on with another one",
                    extra={
                        "topic": tp.topic,
                        "partition": tp.partition,
                        "offset": begin,
                        "readable": found.readable,
                        "hint": "Nothing is lost; the restore took longer. Where it comes often, tell us with the log.",
                    },
                )

    def _read_on(
        self, tp: TopicPartition, begin: int | None, end: int, deadline: float, give_up: Callable[[], bool]
    ) -> Generator[RawRecord, None, None]:
        """From ``begin`` to ``end`` with one consumer.

        Raises:
            _StandsStill: the consumer brings nothing, and the broker has more to bring.
        """
        with self._consumer(tp.topic) as consumer:
            consumer.assign([tp])
            if begin is None:
                consumer.seek_to_beginning(tp)
            else:
                consumer.seek(tp, begin)
            reached, since = consumer.position(tp), time.monotonic()
            while reached < end:
                if give_up():
                    break
                for records in consumer.poll(timeout_ms=_POLL_MS).values():
                    yield from map(raw_record, records)
                now, before, reached = time.monotonic(), reached, consumer.position(tp)
                if reached > before:
                    since = now
                if now > deadline:
                    raise TransportTimeout(
                        f"{tp.topic} partition {tp.partition} was read to {reached} of {end} within "
                        f"{self._deadline:g} s.",
                        hint="A transaction of a dead worker holds readers back until it times out. Raise "
                        "state.restore_seconds where a partition's state is large.",
                    )
                if now - since > _STANDSTILL_SECONDS:
                    with self._consumer(tp.topic) as other:  # who reads what is committed is told where that ends
                        readable = other.end_offsets([tp])[tp]
                    if readable > reached:
                        raise _StandsStill(reached, readable)
                    since = now

    @contextlib.contextmanager
    def _consumer(
        self, reads: str = "", *, isolation_level: str = "read_committed", group_id: str | None = None
    ) -> Iterator[KafkaConsumer]:
        """A consumer for as long as this read lasts: one that is idle, or a new one.

        Args:
            reads: the topic it reads records of, if any: one that has read another would look up brokers again.
        """
        kind = (reads, isolation_level, group_id)
        with self._lock:
            idle = self._idle.get(kind)
            consumer = idle.pop() if idle else None
        if consumer is None:
            consumer = self._open(isolation_level, group_id)
        is_usable = False
        try:
            yield consumer
            is_usable = True
        except KafkaError as error:
            raise translate(error, f"Restoring from {self._state}") from error
        finally:
            if not (is_usable and self._keep(kind, consumer)):
                consumer.close(autocommit=False)

    def _keep(self, kind: tuple[str, str, str | None], consumer: KafkaConsumer) -> bool:
        with self._lock:
            idle = self._idle.setdefault(kind, [])
            if self._is_closed or len(idle) >= _MOST_IDLE:
                return False
            idle.append(consumer)
            return True

    def _open(self, isolation_level: str, group_id: str | None) -> KafkaConsumer:
        consumer, _ = open_client(
            KafkaConsumer,
            self._connection,
            group_id=group_id,
            isolation_level=isolation_level,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            # The next read waits for the answer to the last fetch of this one, which at the end of a log is a long one.
            fetch_max_wait_ms=10,
        )
        return consumer
