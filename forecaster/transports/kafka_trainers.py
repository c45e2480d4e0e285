"""Which groups of streams this trainer is to train: trainers share them by the partitions that each of them holds."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from forecaster.errors import TransportError
from forecaster.transports.kafka_client import KafkaConnection, open_client, translate

_POLL_SECONDS = 0.2
_TOPIC_AGE_SECONDS = 5.0
"""After which the client looks again which partitions there are. By default it would after five minutes, and a leader
of the group that has not seen the topic when it first divides it leaves everybody without a share for so long."""


class Share(NamedTuple):
    """The part of a topic's partitions that one trainer holds."""

    held: frozenset[int]
    partitions: int
    """All there are."""

    def owns(self, group: str) -> bool:
        """Whether this trainer is the one that trains a group of streams.

        >>> everything, nothing = Share(frozenset(range(4)), 4), Share(frozenset(), 4)
        >>> everything.owns("pumps"), nothing.owns("pumps")
        (True, False)
        """
        return self.partitions > 0 and zlib.crc32(group.encode()) % self.partitions in self.held


class KafkaTrainers:
    """A member of the consumer group of trainers. It reads nothing and commits nothing: to hold a partition is all.

    For one thread, which has to ask for its share more often than the group's patience lasts.

    Args:
        topic: the readings.
        group_id: of the trainers; not the workers' own.
        session_timeout_seconds: silence after which a member's share is given to others.
    """

    def __init__(
        self, connection: KafkaConnection, *, topic: str, group_id: str, session_timeout_seconds: float
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._group_id = group_id
        self._session_timeout_ms = round(1000 * session_timeout_seconds)
        self._consumer: KafkaConsumer | None = None

    def share(self) -> Share:
        """What is held now; the first call joins, and some later ones may still see nothing.

        Raises:
            TransportError: nobody answers, or the group refuses.
        """
        try:
            if self._consumer is None:
                self._consumer = self._join()
            self._consumer.poll(timeout_ms=round(1000 * _POLL_SECONDS))  # takes part in the group
            held = self._consumer.assignment()
            self._consumer.pause(*held)
            partitions = self._consumer.partitions_for_topic(self._topic) or set()
            return Share(frozenset(tp.partition for tp in held), len(partitions))
        except KafkaError as error:
            self.close()
            raise translate(error, f"Sharing groups of streams with other trainers in {self._group_id}") from error
        except TransportError:
            self.close()
            raise

    def close(self) -> None:
        """Leave the group. Idempotent."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close(autocommit=False)

    def _join(self) -> KafkaConsumer:
        consumer, _ = open_client(
            KafkaConsumer,
            self._connection,
            group_id=self._group_id,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            allow_auto_create_topics=False,
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=min(1_000, self._session_timeout_ms // 6),
            max_poll_records=1,
            metadata_max_age_ms=round(_TOPIC_AGE_SECONDS * 1000),
        )
        consumer.partitions_for_topic(self._topic)  # asks the brokers: known before this member may have to divide them
        consumer.subscribe([self._topic])
        return consumer
