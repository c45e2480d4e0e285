"""Notices when a topic is no longer the one a process began with: made anew, widened, or gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Protocol

from forecaster.errors import TopicChanged


class ClusterView(Protocol):
    """What a client knows of the topics at this moment, without asking anybody."""

    def topic_id(self, topic_name: str) -> object | None:
        """Identity of the topic, another one after it was made anew; ``None`` from brokers before 2.8."""

    def partitions_for_topic(self, topic: str) -> Collection[int] | None:
        """Numbers of its partitions; ``None`` where there is no such topic."""


class TopicWatch:
    """Compares what the client knows of a topic now with what it knew at the first look.

    kafka-python fetches by name: of a topic that was deleted and made again it reads on at the old position, in the
    middle of other records. And it assigns partitions that were added, for which there are no answer and no state
    partitions.

    Args:
        cluster: the client's own view, as old as its metadata.
        topic: to watch.
        patience_seconds: a topic may be unknown for this long; a broker that has just started knows few.
    """

    def __init__(
        self,
        cluster: ClusterView,
        topic: str,
        *,
        patience_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._topic = topic
        self._patience = patience_seconds
        self._monotonic = monotonic
        self._id: object | None = None
        self._partitions = 0
        self._missing_since: float | None = None

    def look(self) -> None:
        """Compare. Costs two dictionary look-ups.

        Raises:
            TopicChanged: the topic is another one, has other partitions, or has been gone for too long.
        """
        numbers = self._cluster.partitions_for_topic(self._topic)
        if not numbers:
            self._miss()
            return
        self._missing_since = None
        found = self._cluster.topic_id(self._topic)
        if not self._partitions:
            self._id, self._partitions = found, len(numbers)
            return
        if found is not None and self._id is not None and found != self._id:
            raise TopicChanged(
                f"Topic {self._topic} was deleted and made anew while this worker read it: its id was {self._id}, "
                f"now it is {found}.",
                hint="What was committed and learnt belongs to readings that are gone. Stop all workers and begin "
                "anew; the runbook says how, under `A topic has changed`.",
            )
        if len(numbers) != self._partitions:
            raise TopicChanged(
                f"Topic {self._topic} has {len(numbers)} partitions now; it had {self._partitions} when this worker "
                "began.",
                hint="Give the topics of answers and state as many partitions and start again; `forecaster topics "
                "check` compares them. Streams whose keys moved to another partition begin anew there.",
            )

    def _miss(self) -> None:
        now = self._monotonic()
        self._missing_since = now if self._missing_since is None else self._missing_since
        if now - self._missing_since > self._patience:
            raise TopicChanged(
                f"Topic {self._topic} has not existed for {now - self._missing_since:.0f} s.",
                hint="Was it deleted? `forecaster topics describe` shows what is there. Made anew it holds other "
                "readings: the runbook says how to begin anew, under `A topic has changed`.",
            )
