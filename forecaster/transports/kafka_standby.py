"""Follows the committed records of many partitions of the state topic, for copies that are kept warm."""

from __future__ import annotations

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from forecaster.errors import TransportError
from forecaster.records import RawRecord
from forecaster.transports.kafka_client import KafkaConnection, open_client, raw_record, translate


class KafkaStateTail:
    """One read-committed consumer outside of any group. Not thread-safe.

    A place that cannot be read on from is an error, never a jump: there is no reset of offsets.

    Args:
        connection: where and who.
        topic: of the state records.

    Raises:
        TransportUnavailable: no broker answered within the request timeout.
    """

    def __init__(self, connection: KafkaConnection, *, topic: str) -> None:
        self._topic = topic
        self._consumer, _ = open_client(
            KafkaConsumer,
            connection,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
        )

    def partitions(self) -> frozenset[int]:
        """Those the topic has.

        Raises:
            TransportError: the topic does not exist, or nobody answers.
        """
        try:
            found = self._consumer.partitions_for_topic(self._topic)
        except KafkaError as error:
            raise translate(error, f"Looking up {self._topic}") from error
        if not found:
            raise TransportError(f"Topic {self._topic} does not exist.", hint="`forecaster topics create` makes it.")
        return frozenset(found)

    def follow(self, partitions: frozenset[int], *, anew: frozenset[int]) -> None:
        """Read these partitions and no others: those in ``anew`` from the beginning, the rest where they stand."""
        if partitions != self._followed():
            self._consumer.assign(self._of_topic(partitions))
        if anew:
            self._consumer.seek_to_beginning(*self._of_topic(anew))

    def poll(self, timeout_seconds: float) -> list[RawRecord]:
        """Further records, each partition's in offset order.

        Raises:
            TransportError: a partition cannot be read on without a gap, or the broker refuses.
        """
        try:
            found = self._consumer.poll(timeout_ms=round(timeout_seconds * 1000))
        except KafkaError as error:
            raise translate(error, f"Following {self._topic}") from error
        return [raw_record(record) for records in found.values() for record in records]

    def current(self) -> frozenset[int]:
        """Partitions that were read to the end of the log, as of the last fetch."""
        return frozenset(number for number in self._followed() if self._is_current(number))

    def close(self) -> None:
        """Leave. Idempotent."""
        self._consumer.close(autocommit=False)

    def _is_current(self, partition: int) -> bool:
        tp = TopicPartition(self._topic, partition)
        end = self._consumer.highwater(tp)
        position = self._consumer.position(tp, timeout_ms=0)
        return end is not None and position is not None and position >= end

    def _followed(self) -> frozenset[int]:
        return frozenset(tp.partition for tp in self._consumer.assignment())

    def _of_topic(self, partitions: frozenset[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in sorted(partitions)]
