"""What is made of the broker's answers; the questions themselves are asked in tests/broker/test_admin.py."""

from __future__ import annotations

import math

import pytest

from forecaster.transports.kafka_admin import PartitionProgress, client_facts, describe, partition_of


def partition(index: int, *, leader: int = 1, replicas: tuple[int, ...] = (1, 2), in_sync: tuple[int, ...] = (1, 2)):
    return {"partition_index": index, "leader_id": leader, "replica_nodes": replicas, "isr_nodes": in_sync}


def test_description_counts_partitions_and_the_fewest_replicas():
    topic = describe("readings", [partition(0), partition(1, replicas=(1,), in_sync=(1,)), partition(2)], {})

    assert (topic.partitions, topic.replication) == (3, 1)
    assert (topic.leaderless, topic.lagging) == ((), ())


def test_description_names_partitions_without_a_leader_and_those_with_replicas_behind():
    topic = describe("readings", [partition(2, leader=-1), partition(0, in_sync=(1,)), partition(1)], {})

    assert topic.leaderless == (2,)
    assert topic.lagging == (0,)


@pytest.mark.parametrize(("text", "seconds"), [("604800000", 604800.0), ("-1", math.inf), ("1500", 1.5)])
def test_retention_is_in_seconds_and_minus_one_is_for_ever(text, seconds):
    assert describe("readings", [partition(0)], {"retention.ms": text}).retention_seconds == seconds


def test_settings_that_were_not_told_are_unknown_and_not_zero():
    topic = describe("readings", [partition(0)], {})

    assert (topic.max_message_bytes, topic.retention_seconds, topic.cleanup_policy) == (None, None, None)


@pytest.mark.parametrize(
    ("first", "end", "committed", "lag"),
    [
        (0, 10, 4, 6),
        (0, 10, 10, 0),
        (3, 10, None, 7),  # nothing committed: all the broker holds
        (6, 10, 4, 4),  # what retention took can no longer be read
    ],
)
def test_lag_is_what_can_still_be_read_after_the_committed_offset(first, end, committed, lag):
    assert PartitionProgress(first=first, end=end, committed=committed).lag == lag


@pytest.mark.parametrize(
    ("key", "hashed"),
    # of Kafka's own UtilsTest.testMurmur2
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_keys_go_where_the_java_client_puts_them(key, hashed):
    assert [partition_of(key, partitions) for partitions in (1, 7, 12)] == [
        (hashed & 0x7FFFFFFF) % partitions for partitions in (1, 7, 12)
    ]


def test_the_client_of_this_installation_is_quick_and_knows_all_codecs():
    facts = client_facts()

    assert facts.has_crc32c
    assert facts.codecs_absent == ()
