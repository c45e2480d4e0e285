"""A topic that is made anew, widened or deleted under a running worker is noticed, and nothing else is."""

from __future__ import annotations

import pytest

from forecaster.clock import ManualClock
from forecaster.errors import TopicChanged
from forecaster.transports.kafka_topic_watch import TopicWatch

PATIENCE = 20.0


class Cluster:
    """What a client knows; tests change it."""

    def __init__(self) -> None:
        self.id: object | None = "first"
        self.partitions: set[int] | None = {0, 1}

    def topic_id(self, topic_name: str) -> object | None:
        return self.id

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.partitions


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def watch(cluster: Cluster, clock: ManualClock) -> TopicWatch:
    watch = TopicWatch(cluster, "readings", patience_seconds=PATIENCE, monotonic=clock.monotonic)
    watch.look()
    return watch


def test_a_topic_that_stays_as_it_is_passes_every_look(watch: TopicWatch) -> None:
    watch.look()
    watch.look()


def test_a_topic_of_another_identity_was_made_anew(watch: TopicWatch, cluster: Cluster) -> None:
    cluster.id = "second"

    with pytest.raises(TopicChanged, match="readings was deleted and made anew") as told:
        watch.look()

    assert "begin anew" in told.value.hint


@pytest.mark.parametrize("partitions", [{0, 1, 2}, {0}])
def test_another_number_of_partitions_is_told_with_both_numbers(
    watch: TopicWatch, cluster: Cluster, partitions: set[int]
) -> None:
    cluster.partitions = partitions

    with pytest.raises(TopicChanged, match=f"has {len(partitions)} partitions now; it had 2"):
        watch.look()


def test_a_topic_that_is_unknown_for_a_moment_was_not_deleted(
    watch: TopicWatch, cluster: Cluster, clock: ManualClock
) -> None:
    """A broker that has just started knows few topics."""
    for _ in range(3):
        cluster.partitions = None
        watch.look()
        clock.advance(PATIENCE)
        watch.look()
        cluster.partitions = {0, 1}
        watch.look()


def test_a_topic_that_stays_unknown_was_deleted(watch: TopicWatch, cluster: Cluster, clock: ManualClock) -> None:
    cluster.partitions = None
    watch.look()
    clock.advance(PATIENCE + 1)

    with pytest.raises(TopicChanged, match="has not existed for 21 s"):
        watch.look()


def test_without_identities_only_partitions_are_compared(watch: TopicWatch, cluster: Cluster) -> None:
    """As old brokers answer, or one that is being updated."""
    cluster.id = None
    watch.look()

    cluster.partitions = {0, 1, 2}
    with pytest.raises(TopicChanged):
        watch.look()


def test_the_first_look_at_a_topic_not_known_yet_compares_nothing(cluster: Cluster, clock: ManualClock) -> None:
    cluster.partitions = None
    watch = TopicWatch(cluster, "readings", patience_seconds=PATIENCE, monotonic=clock.monotonic)
    watch.look()
    cluster.partitions = {0, 1, 2}
    watch.look()

    cluster.partitions = {0, 1}
    with pytest.raises(TopicChanged, match="has 2 partitions now; it had 3"):
        watch.look()
