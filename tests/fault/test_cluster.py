"""Three brokers, killed one after the other in whatever part they play: time is lost, and nothing else."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import kafka_broker
import pytest
from fault.harness import (
    IS_LONG,
    LOOK_SECONDS,
    Crew,
    MakeGround,
    Reader,
    assert_as_if_nothing_had_happened,
    assert_exactly_once,
    finish,
)
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from kafka_fixtures import require_broker

from forecaster.transports.kafka_admin import ClusterAdmin, TopicPlan
from forecaster.transports.kafka_client import KafkaConnection

NODES = 3
WORKERS = 2
PARTITIONS = 4
RATE = 100
"""Readings a second."""
KILLS = 15 if IS_LONG else 2
SETTLE_SECONDS = 120.0
"""From a broker's start until all replicas are in sync again."""
STEADY_SECONDS = 4.0
"""They have to be in sync for so long: a broker that is back within its session counts as in sync until it registers
anew, and were the last one that is in truth killed then, nobody could lead its partitions."""
UP_SECONDS = 120.0
PROGRESS_SECONDS = 120.0
"""From a broker's death to commits of everything that was there then, with two brokers left."""

SAFE = {"min.insync.replicas": "2", "transaction.state.log.min.isr": "2"}
SETTINGS = {
    "KAFKA__REQUEST_TIMEOUT_SECONDS": "5",
    "KAFKA__DELIVERY_TIMEOUT_SECONDS": "10",
    "KAFKA__WATCHDOG_SECONDS": "15",
}
"""Shorter than their defaults: where the client waits for a coordinator for ever, the watchdog is the way out."""


class Cluster:
    """Brokers and who of them leads what."""

    def __init__(self, nodes: list[kafka_broker.Broker]) -> None:
        self.nodes = {node.node_id: node for node in nodes}
        self.bootstrap = ",".join(node.bootstrap for node in nodes)

    def leader(self, topic: str, partition: int = 0) -> int:
        """Node id of a partition's leader."""
        return int(self._partitions([topic])[topic, partition]["leader_id"])

    def wait_until_in_sync(self) -> None:
        """Return when every replica of every topic is in sync, so that another broker may die."""
        began = since = time.monotonic()
        while (now := time.monotonic()) - since < STEADY_SECONDS:
            if not self._is_in_sync():
                since = now
                assert now - began < SETTLE_SECONDS, f"replicas are not in sync after {SETTLE_SECONDS:g} s"
            time.sleep(LOOK_SECONDS)

    def _is_in_sync(self) -> bool:
        try:
            return all(len(found["isr_nodes"]) == NODES for found in self._partitions(None).values())
        except KafkaError:
            return False

    def _partitions(self, topics: list[str] | None) -> dict[tuple[str, int], dict[str, object]]:
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            return {
                (topic["name"], found["partition_index"]): found
                for topic in admin.describe_topics(topics)
                for found in topic["partitions"]
            }
        finally:
            admin.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    require_broker()
    with ExitStack() as closing:
        nodes = kafka_broker.make_cluster(NODES, overrides=SAFE)
        for node in nodes:
            closing.callback(node.close)
        yield Cluster(nodes)


def test_leaders_and_coordinators_killed_in_turn_leave_no_trace(
    cluster: Cluster, make_ground: MakeGround, tmp_path: Path, registry: Path
) -> None:
    ground = make_ground(cluster.bootstrap, partitions=PARTITIONS, replication=NODES)
    ground.feed(300)

    with Crew(ground, workers=WORKERS, directory=tmp_path / "crew", registry=registry, settings=SETTINGS) as crew:
        reader = Reader(crew)
        ground.start_feeding(RATE)
        crew.wait_until(lambda: all(map(crew.is_up, range(WORKERS))), seconds=UP_SECONDS, what="all up")
        crew.wait_until(lambda: min(crew.committed()) > 0, seconds=UP_SECONDS, what="first commits")
        parts = ["__transaction_state", "__consumer_offsets", crew.forecasts, crew.state, ground.readings]
        for topic in itertools.islice(itertools.cycle(parts), KILLS):
            kill_leader(cluster, crew, topic)
        finish(crew, seconds=180)

        assert_exactly_once(crew)
        reader.finish(crew.answers())
        assert reader.seen == crew.answers(), "a committed answer was never changed or taken back"
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)
    ground.close()


@pytest.mark.parametrize("dead", range(NODES))
def test_a_worker_that_starts_looks_at_its_topics_though_a_broker_has_just_died(cluster: Cluster, dead: int) -> None:
    """Whichever it is: the one asked, the controller, or one that the others still count."""
    connection = KafkaConnection(bootstrap_servers=cluster.bootstrap, request_timeout_seconds=15.0)
    with ClusterAdmin(connection) as before:
        before.ensure_topics([TopicPlan(name="readings", partitions=2, replication=NODES, configs={})])
        cluster.wait_until_in_sync()  # a topic just made is not known to every broker yet
        list(cluster.nodes.values())[dead].kill()
        with ClusterAdmin(connection) as after:
            for admin in (before, after):
                assert admin.describe_topics(["readings"])["readings"].partitions == 2
                assert admin.count_brokers() >= NODES - 1
                assert admin.describe_cluster().version >= (4, 0)


def kill_leader(cluster: Cluster, crew: Crew, topic: str) -> None:
    """Kill -9 of whoever leads the topic's first partition; the others take over; it comes back."""
    cluster.wait_until_in_sync()
    ends = crew.ends()
    node = cluster.nodes[cluster.leader(topic)]
    began = time.monotonic()
    node.kill()
    crew.wait_until(
        lambda: all(offset >= end for offset, end in zip(crew.committed(), ends, strict=True)),
        seconds=PROGRESS_SECONDS,
        what=f"readings up to {ends} committed after broker {node.node_id}, leader of {topic}, died",
    )
    print(f"leader of {topic}: {time.monotonic() - began:.1f} s, endings {dict(crew.endings)}")
    node.start()
