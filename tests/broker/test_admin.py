"""Questions about topics, groups and newest records, to a real broker."""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata
from kafka_broker import Broker
from kafka_fixtures import MakeTopic

from forecaster.errors import TransportError, TransportTimeout, TransportUnavailable
from forecaster.transports.kafka_admin import ClusterAdmin, PartitionProgress, TopicPlan, newest_records
from forecaster.transports.kafka_client import KafkaConnection


@pytest.fixture
def cluster(connection: KafkaConnection) -> Iterator[ClusterAdmin]:
    with ClusterAdmin(connection) as admin:
        yield admin


@pytest.fixture
def unused() -> str:
    return f"topic-{uuid.uuid4().hex[:8]}"


def produce(broker: str, topic: str, values: dict[int, int]) -> None:
    """As many records as ``values`` says into each partition; the value is the offset."""
    with contextlib.closing(KafkaProducer(bootstrap_servers=broker)) as producer:
        for partition, count in values.items():
            for number in range(count):
                producer.send(topic, partition=partition, key=b"k", value=b"%d" % number, timestamp_ms=1_000 + number)
        producer.flush(timeout=10)


def plan(name: str, *, partitions: int = 3, replication: int = 1, **configs: str) -> TopicPlan:
    settings = {setting.replace("_", "."): value for setting, value in configs.items()}
    return TopicPlan(name=name, partitions=partitions, replication=replication, configs=settings)


def test_a_topic_is_made_as_planned_and_described_as_it_is(cluster: ClusterAdmin, unused: str) -> None:
    made = cluster.ensure_topics([plan(unused, retention_ms="3600000", max_message_bytes="2000000")])

    assert made == [unused]
    topic = cluster.describe_topics([unused])[unused]
    assert (topic.partitions, topic.replication, topic.leaderless, topic.lagging) == (3, 1, (), ())
    assert (topic.retention_seconds, topic.max_message_bytes, topic.cleanup_policy) == (3600.0, 2_000_000, "delete")


def test_retention_without_end_is_infinite(cluster: ClusterAdmin, unused: str) -> None:
    cluster.ensure_topics([plan(unused, retention_ms="-1")])

    assert cluster.describe_topics([unused])[unused].retention_seconds == math.inf


def test_a_topic_that_exists_is_left_as_it_is(cluster: ClusterAdmin, unused: str) -> None:
    cluster.ensure_topics([plan(unused, partitions=2)])
    other = f"{unused}-b"

    assert cluster.ensure_topics([plan(unused, partitions=5), plan(other, partitions=5)]) == [other]

    described = cluster.describe_topics([unused, other])
    assert {name: topic.partitions for name, topic in described.items()} == {unused: 2, other: 5}


def test_a_topic_somebody_made_in_the_meantime_is_no_error(
    cluster: ClusterAdmin, unused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.ensure_topics([plan(unused)])
    monkeypatch.setattr(cluster, "describe_topics", lambda names: {})

    assert cluster.ensure_topics([plan(unused)]) == []


def test_topics_that_do_not_exist_are_not_described_and_not_made_by_asking(cluster: ClusterAdmin, unused: str) -> None:
    assert cluster.describe_topics([unused]) == {}
    assert cluster.describe_topics([unused]) == {}


def test_more_replicas_than_brokers_are_refused_with_the_brokers_own_words(cluster: ClusterAdmin, unused: str) -> None:
    with pytest.raises(
        TransportError, match=rf"Creating topic {unused}, 3 partitions × 9 replicas failed.*replication"
    ):
        cluster.ensure_topics([plan(unused, replication=9)])

    assert cluster.describe_topics([unused]) == {}


def test_the_cluster_tells_its_brokers_and_a_version(cluster: ClusterAdmin) -> None:
    described = cluster.describe_cluster()

    assert described.brokers >= 1
    assert described.version >= (2, 5)


def test_a_group_nobody_used_is_dead_and_has_committed_nothing(
    cluster: ClusterAdmin, broker: str, make_topic: MakeTopic, group_id: str
) -> None:
    topic = make_topic(partitions=2)
    produce(broker, topic, {1: 5})

    group = cluster.describe_group(group_id, topic, 2)

    assert (group.state, group.members) == ("Dead", 0)
    assert group.progress == {
        0: PartitionProgress(first=0, end=0, committed=None),
        1: PartitionProgress(first=0, end=5, committed=None),
    }


def test_a_group_is_told_with_its_members_and_where_it_stands(
    cluster: ClusterAdmin, broker: str, make_topic: MakeTopic, group_id: str
) -> None:
    topic = make_topic(partitions=2)
    produce(broker, topic, {0: 4, 1: 5})
    with contextlib.closing(
        KafkaConsumer(topic, bootstrap_servers=broker, group_id=group_id, enable_auto_commit=False)
    ) as member:
        deadline = time.monotonic() + 60
        # A member has its partitions before the group calls itself stable.
        while not member.assignment() or cluster.describe_group(group_id, topic, 2).state != "Stable":
            assert time.monotonic() < deadline
            member.poll(timeout_ms=200)
        member.commit({TopicPartition(topic, 1): OffsetAndMetadata(3, "", -1)})

        group = cluster.describe_group(group_id, topic, 2)

    assert (group.state, group.members) == ("Stable", 1)
    assert {number: (known.committed, known.lag) for number, known in group.progress.items()} == {
        0: (None, 4),
        1: (3, 2),
    }


def test_records_that_were_deleted_are_not_counted(
    cluster: ClusterAdmin, broker: str, admin: KafkaAdminClient, make_topic: MakeTopic, group_id: str
) -> None:
    topic = make_topic()
    produce(broker, topic, {0: 10})
    admin.delete_records({TopicPartition(topic, 0): 6})

    known = cluster.describe_group(group_id, topic, 1).progress[0]

    assert (known.first, known.end, known.lag) == (6, 10, 4)


def test_newest_records_are_the_last_of_each_partition_in_order(
    connection: KafkaConnection, broker: str, make_topic: MakeTopic
) -> None:
    topic = make_topic(partitions=3)
    produce(broker, topic, {0: 20, 2: 2})

    records = newest_records(connection, topic, 12)

    found: dict[int, list[int]] = {}
    for record in records:
        found.setdefault(record.partition, []).append(record.offset)
    assert found == {0: [16, 17, 18, 19], 2: [0, 1]}
    last = [record for record in records if record.partition == 0][-1]
    assert (last.topic, last.key, last.value, last.timestamp) == (topic, b"k", b"19", pytest.approx(1.019))


def test_newest_records_of_an_empty_topic_are_none_at_once(connection: KafkaConnection, make_topic: MakeTopic) -> None:
    assert newest_records(connection, make_topic(partitions=2), 100) == []


def test_newest_records_end_at_a_transaction_that_was_aborted(
    connection: KafkaConnection, broker: str, make_topic: MakeTopic
) -> None:
    """Control records and aborted ones are never handed over, yet the end is reached."""
    topic = make_topic()
    produce(broker, topic, {0: 3})
    with contextlib.closing(KafkaProducer(bootstrap_servers=broker, transactional_id=topic)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, partition=0, value=b"aborted").get(timeout=10)
        producer.abort_transaction()

    assert [record.value for record in newest_records(connection, topic, 10)] == [b"0", b"1", b"2"]


def test_newest_records_of_a_topic_that_does_not_exist_name_the_command_that_makes_it(
    connection: KafkaConnection, unused: str
) -> None:
    with pytest.raises(TransportError, match=f"Topic {unused} does not exist") as raised:
        newest_records(connection, unused, 10)

    assert "forecaster topics create" in raised.value.hint


def test_nobody_there_is_told_within_the_request_timeout() -> None:
    began = time.monotonic()

    with pytest.raises(TransportUnavailable, match=r"No broker answered at 127\.0\.0\.1:1"):
        ClusterAdmin(KafkaConnection(bootstrap_servers="127.0.0.1:1", request_timeout_seconds=1.0))

    assert time.monotonic() - began < 5


def test_a_broker_that_stands_still_is_one_of_our_errors_in_bounded_time() -> None:
    """The admin client takes no setting for the 10 s it gives a new connection."""
    with Broker() as broker:
        connection = KafkaConnection(bootstrap_servers=broker.bootstrap, request_timeout_seconds=2.0)
        with ClusterAdmin(connection) as admin:
            broker.pause()
            began = time.monotonic()

            with pytest.raises((TransportTimeout, TransportUnavailable)):
                admin.describe_topics(["readings"])

            assert time.monotonic() - began < 20
            broker.resume()
