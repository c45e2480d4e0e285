"""The Kafka source on a real broker: rebalances, where it begins, and errors that must be loud."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.structs import MemberState, OffsetAndMetadata
from kafka_broker import Broker, free_port
from kafka_fixtures import MakeTopic, require_broker
from kafka_members import Member, close, follow

from forecaster.errors import ConfigurationError, DeliveryFailed, Fenced, TransportError, TransportUnavailable
from forecaster.records import OutRecord, RawRecord
from forecaster.transports.callbacks import Outcome
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_sink import KafkaSink
from forecaster.transports.kafka_source import KafkaSource

MakeMember = Callable[..., Member]
Produce = Callable[..., None]


@pytest.fixture
def make_member(connection: KafkaConnection, group_id: str) -> Iterator[MakeMember]:
    made: list[Member] = []

    def make(topic: str, *, kind: type[Member] = Member, commit_on_revoke: bool = True, **overrides: Any) -> Member:
        arguments: dict[str, Any] = {"topic": topic, "group_id": group_id, "session_timeout_seconds": 8.0}
        made.append(kind(KafkaSource(connection, **(arguments | overrides)), commit_on_revoke=commit_on_revoke))
        return made[-1]

    yield make
    close(*made)


@pytest.fixture
def produce(connection: KafkaConnection) -> Iterator[Produce]:
    sink = KafkaSink(connection)

    def send(topic: str, values: Sequence[bytes], *, partition: int = 0, timestamp: float | None = None) -> None:
        for value in values:
            sink.send(OutRecord(topic, partition, b"key", value, timestamp=timestamp))
        sink.flush(10.0)

    yield send
    sink.close()


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def committed(admin: KafkaAdminClient, group_id: str, topic: str) -> dict[int, int]:
    found = admin.list_group_offsets({group_id: None})[group_id]
    return {tp.partition: offset.offset for tp, offset in found.items() if tp.topic == topic}


BOTH_PATHS = pytest.mark.parametrize("batched", [False, True], ids=["record by record", "by batches"])


@BOTH_PATHS
def test_a_record_comes_as_the_bytes_it_was_sent_as(
    make_topic: MakeTopic, make_member: MakeMember, connection: KafkaConnection, batched: bool
) -> None:
    topic = make_topic()
    sink = KafkaSink(connection)
    sink.send(OutRecord(topic, 0, b"\xff\x00", b"\x80 not text", timestamp=1_767_225_605.25))
    sink.send(OutRecord(topic, 0, b"id", None))
    sink.flush(10.0)
    sink.close()

    member = make_member(topic, batched=batched)
    follow(member, until=lambda: len(member.records) == 2)

    first, tombstone = member.records
    assert (first.topic, first.partition, first.offset) == (topic, 0, 0)
    assert (first.key, first.value, first.timestamp) == (b"\xff\x00", b"\x80 not text", 1_767_225_605.25)
    assert (tombstone.key, tombstone.value, tombstone.offset) == (b"id", None, 1)


@BOTH_PATHS
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_what_was_aborted_never_comes_and_a_batch_is_gone_on_with_in_its_middle(
    make_topic: MakeTopic, make_member: MakeMember, broker: str, batched: bool, compression: str | None
) -> None:
    """Offsets behind transactions have holes; a restart asks for the middle of a batch and is sent the whole of it."""
    topic = make_topic()
    producer = KafkaProducer(
        bootstrap_servers=broker, transactional_id=topic, linger_ms=50, compression_type=compression
    )
    producer.init_transactions()
    for name, end in (("kept", "commit"), ("gone", "abort"), ("also kept", "commit")):
        producer.begin_transaction()
        for number in range(20):
            producer.send(topic, key=b"key", value=b"%s %d" % (name.encode(), number), partition=0)
        producer.flush(timeout=10)
        getattr(producer, f"{end}_transaction")()
    producer.close(timeout=5)
    expected = [b"%s %d" % (name, number) for name in (b"kept", b"also kept") for number in range(20)]

    first = make_member(topic, batched=batched)
    follow(first, until=lambda: len(first.records) == 40)
    first.source.commit({0: 7})
    first.next_offsets.clear()
    first.source.close()
    second = make_member(topic, batched=batched)
    follow(second, until=lambda: len(second.records) == 33)

    assert first.values == expected
    assert [record.offset for record in first.records] == [*range(20), *range(42, 62)]
    assert second.values == expected[7:]


def test_records_of_new_partitions_do_not_come_with_the_poll_that_assigns_them(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce
) -> None:
    """Neither in a group's first run, nor when the client knows a committed offset and could begin at once."""
    topic = make_topic()
    produce(topic, numbered(5))

    for _ in range(2):
        member = make_member(topic)
        while not member.events:
            in_that_poll = member.source.poll(500, 0.5)
        follow(member, until=lambda member=member: len(member.records) == 5)
        member.next_offsets = {0: 0}
        member.source.close()

        assert in_that_poll == []


@pytest.mark.parametrize("batched", [False, True])
def test_a_partition_held_in_the_middle_of_what_was_fetched_comes_when_it_is_released(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce, batched: bool
) -> None:
    """Also where others were read to their end meanwhile, which the client leaves where it looks for what is parked."""
    topic = make_topic(partitions=2)
    produce(topic, numbered(40), partition=0)
    member = make_member(topic, batched=batched)
    part = []
    while not part:
        part = member.source.poll(10, 0.5)
    produce(topic, numbered(5), partition=1)
    assert [record.offset for record in part] == [*range(10)]

    member.source.hold()
    assert member.source.poll(10, 0.5) == []
    member.source.release(1, 0)
    follow(member, until=lambda: len(member.records) == 5)
    member.source.release(0, 10)
    follow(member, until=lambda: len(member.records) == 35)

    assert [record.offset for record in member.records[5:]] == [*range(10, 40)]


def test_the_listener_is_called_on_the_polling_thread(make_topic: MakeTopic, make_member: MakeMember) -> None:
    member = make_member(make_topic())

    while not member.events:
        member.poll()
    member.source.close()

    assert member.threads == {"MainThread"}
    assert [event for event, _ in member.events] == ["assigned", "revoked"]


def test_a_second_member_takes_over_where_the_first_commits_in_its_revoke(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce, admin: KafkaAdminClient, group_id: str
) -> None:
    """Nothing is committed before the rebalance: that no record comes twice shows that the commit in it counted."""
    topic = make_topic(partitions=4)
    for partition in range(4):
        produce(topic, numbered(50, 100 * partition), partition=partition)
    first = make_member(topic)
    follow(first, until=lambda: len(first.records) == 200)

    second = make_member(topic)
    follow(first, second, until=lambda: len(first.assigned_now) == len(second.assigned_now) == 2)
    moved = sorted(second.assigned_now)

    assert ("revoked", moved) in first.events
    assert {p: committed(admin, group_id, topic)[p] for p in moved} == dict.fromkeys(moved, 50)
    for partition in range(4):
        produce(topic, numbered(10, 100 * partition + 50), partition=partition)
    follow(first, second, until=lambda: len(first.records) + len(second.records) >= 240)
    assert len(second.records) == 20
    assert {record.partition for record in second.records} == set(moved)
    assert sorted(int(v or b"") for v in first.values + second.values) == [
        100 * p + number for p in range(4) for number in range(60)
    ]


def test_partitions_that_stay_are_neither_revoked_nor_assigned_again(
    make_topic: MakeTopic, make_member: MakeMember
) -> None:
    topic = make_topic(partitions=4)
    first = make_member(topic)
    follow(first, until=lambda: len(first.assigned_now) == 4)

    second = make_member(topic)
    follow(first, second, until=lambda: len(first.assigned_now) == len(second.assigned_now) == 2)

    told = [(event, partitions) for event, partitions in first.events[1:] if partitions]
    assert told == [("revoked", sorted(second.assigned_now))]


def test_members_that_pause_between_polls_settle_all_the_same(make_topic: MakeTopic, make_member: MakeMember) -> None:
    """As a worker that backs off. A poll that gave up at its time-out would lose the answer to the request to join, ask
    again, and begin the rebalance anew: without an end, the more members and the longer the pause."""
    topic = make_topic(partitions=4)

    class Pausing(Member):
        def poll(self) -> list[RawRecord]:
            time.sleep(0.5)
            return self.source.poll(500, 0.01)

    members: list[Member] = []
    for shares in ([4], [2, 2], [1, 1, 2]):
        members.append(make_member(topic, kind=Pausing))
        follow(*members, until=lambda shares=shares: sorted(len(m.assigned_now) for m in members) == shares)


def test_close_commits_in_the_revoke_and_gives_the_partitions_away_at_once(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce
) -> None:
    """What a worker does on SIGTERM. With the session at 30 s, a quick take-over shows the farewell was said."""
    topic = make_topic(partitions=2)
    produce(topic, numbered(30))
    leaving = make_member(topic, session_timeout_seconds=30.0)
    follow(leaving, until=lambda: len(leaving.records) == 30)

    leaving.source.close()
    began = time.monotonic()
    staying = make_member(topic, session_timeout_seconds=30.0)
    follow(staying, until=lambda: len(staying.assigned_now) == 2)
    produce(topic, numbered(1, 30))
    follow(staying, until=lambda: bool(staying.records))

    assert time.monotonic() - began < 10.0
    assert staying.values == [b"30"]


def test_close_during_a_rebalance_still_commits(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce, admin: KafkaAdminClient, group_id: str
) -> None:
    """The client refuses commits while it joins; a rolling restart closes members in just that state."""
    topic = make_topic(partitions=2)
    members = [make_member(topic), make_member(topic)]
    follow(*members, until=lambda: [len(member.assigned_now) for member in members] == [1, 1])
    leaving, staying = sorted(members, key=lambda member: 0 not in member.assigned_now)
    produce(topic, numbered(30))
    follow(leaving, staying, until=lambda: len(leaving.records) == 30)

    # The group now waits for `staying`, which does not poll.
    newcomer = make_member(topic)
    newcomer.poll()
    follow(leaving, until=lambda: is_rebalancing(leaving))
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(leaving.source.close)
        follow(staying, newcomer, until=ending.done)
        ending.result()

    assert committed(admin, group_id, topic)[0] == 30


def test_close_is_idempotent_and_ends_polling(make_topic: MakeTopic, make_member: MakeMember) -> None:
    member = make_member(make_topic())
    follow(member, until=lambda: bool(member.assigned_now))

    member.source.close()
    member.source.close()

    assert [event for event, _ in member.events] == ["assigned", "revoked"]
    with pytest.raises(TransportError, match="closed"):
        member.source.poll(1, 0.0)


def test_latest_is_where_the_topic_ended_at_the_first_start_also_after_a_restart(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce
) -> None:
    """The first run reads nothing and commits nothing; what comes while nobody runs must not be skipped."""
    topic = make_topic(partitions=2)
    produce(topic, numbered(10))
    first = make_member(topic, start="latest")
    follow(first, until=lambda: first.assigned_now == {0, 1})
    first.poll()
    first.source.close()

    produce(topic, numbered(3, 10))
    second = make_member(topic, start="latest")
    follow(second, until=lambda: len(second.records) == 3)

    assert first.values == []
    assert second.values == [b"10", b"11", b"12"]


def test_the_start_is_committed_before_the_first_record_is_handed_over(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce, admin: KafkaAdminClient, group_id: str
) -> None:
    topic = make_topic()
    produce(topic, numbered(10))
    member = make_member(topic, commit_on_revoke=False)

    follow(member, until=lambda: bool(member.records))

    assert committed(admin, group_id, topic) == {0: 0}


def test_a_start_time_begins_at_the_first_record_of_that_time_or_later(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce
) -> None:
    """Partition 0 has records on both sides of the time, partition 1 only before it."""
    topic = make_topic(partitions=2)
    noon = 1_767_268_800.0
    for seconds, value in [(-60, b"before"), (0, b"at"), (60, b"after")]:
        produce(topic, [value], timestamp=noon + seconds)
    produce(topic, [b"too early"], partition=1, timestamp=noon - 60)

    member = make_member(topic, start="2026-01-01T12:00:00Z")
    follow(member, until=lambda: len(member.records) == 2)
    produce(topic, [b"new"], partition=1, timestamp=noon + 120)
    follow(member, until=lambda: len(member.records) == 3)

    assert member.values == [b"at", b"after", b"new"]


def test_a_committed_offset_whose_record_is_deleted_is_a_loud_error(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce, admin: KafkaAdminClient
) -> None:
    topic = make_topic()
    produce(topic, numbered(10))
    first = make_member(topic)
    follow(first, until=lambda: len(first.records) == 10)
    first.source.commit({0: 4})
    first.next_offsets.clear()
    first.source.close()
    admin.delete_records({TopicPartition(topic, 0): 7})

    second = make_member(topic)
    with pytest.raises(TransportError, match=r"offsets \{0: 4\}.*out of range: partition 0 holds 7 to 10") as caught:
        follow(second, until=lambda: bool(second.records))

    assert not caught.value.retriable
    assert "--reset-offsets" in caught.value.hint
    assert second.records == []
    with pytest.raises(TransportError, match="out of range"):
        follow(second, until=lambda: bool(second.records))


def test_a_committed_offset_beyond_the_end_is_a_loud_error(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce, admin: KafkaAdminClient, group_id: str
) -> None:
    """As after the topic was made anew and the offsets were kept, by a mirror or a restored backup."""
    topic = make_topic()
    produce(topic, numbered(3))
    admin.alter_group_offsets(group_id, {TopicPartition(topic, 0): OffsetAndMetadata(50, "", -1)})

    member = make_member(topic)
    with pytest.raises(TransportError, match=r"offsets \{0: 50\}.*holds 0 to 3"):
        follow(member, until=lambda: bool(member.records))


def test_lag_counts_what_waits(make_topic: MakeTopic, make_member: MakeMember, produce: Produce) -> None:
    topic = make_topic(partitions=2)
    produce(topic, numbered(10))
    member = make_member(topic)
    assert member.source.lag() == {}

    records = []
    while not records:
        records = member.source.poll(4, 0.1)

    assert len(records) == 4
    assert member.source.lag() == {0: 6, 1: 0}


def test_an_exception_of_the_listener_comes_out_of_poll(make_topic: MakeTopic, make_member: MakeMember) -> None:
    class Stumbling(Member):
        def assigned(self, partitions: Sequence[int]) -> None:
            super().assigned(partitions)
            raise ZeroDivisionError("in the listener")

    member = make_member(make_topic(partitions=2), kind=Stumbling)

    with pytest.raises(ZeroDivisionError, match="in the listener"):
        follow(member, until=lambda: False)

    assert member.assigned_now == {0, 1}


def test_records_that_come_with_an_exception_of_the_listener_come_with_the_next_poll(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce
) -> None:
    """They were read past already: dropped here, they would be committed past and never answered."""
    topic = make_topic()
    produce(topic, numbered(10))
    member = make_member(topic)
    follow(member, until=lambda: bool(member.assigned_now))
    (source,) = sources([member])
    bridge = source._bridge

    class Stumbling:
        """Of all the polls, the first that brings records also ends a callback badly."""

        def run(self, call: Callable[[], Any], *, timeout_seconds: float) -> Outcome[Any]:
            outcome = bridge.run(call, timeout_seconds=timeout_seconds)
            if not outcome.value:
                return outcome
            source._bridge = bridge
            return Outcome(outcome.value, ZeroDivisionError("in the listener"))

    source._bridge = Stumbling()  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        follow(member, until=lambda: False)

    assert [record.value for record in source.poll(4, 0.0)] == numbered(4)
    assert [record.value for record in source.poll(500, 0.0)] == numbered(6, 4)


def test_a_silent_member_loses_its_partitions_and_may_not_commit_them(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce, admin: KafkaAdminClient, group_id: str
) -> None:
    """The client leaves by itself after max_poll_interval; the offsets then are its successor's."""
    topic = make_topic()
    produce(topic, numbered(5))
    silent = make_member(topic, max_poll_interval_seconds=1.0)
    follow(silent, until=lambda: len(silent.records) == 5)
    kept = dict(silent.next_offsets)

    successor = make_member(topic)
    follow(successor, until=lambda: len(successor.records) == 5)
    with pytest.raises(Fenced) as caught:
        silent.source.commit({0: 2})
    successor.commit()
    follow(silent, successor, until=lambda: ("lost", [0]) in silent.events)

    assert kept == {0: 5}
    assert not caught.value.retriable
    assert committed(admin, group_id, topic) == {0: 5}


def test_of_two_static_members_of_the_same_name_the_first_is_told_to_end(
    make_topic: MakeTopic, make_member: MakeMember, produce: Produce
) -> None:
    topic = make_topic()
    produce(topic, numbered(5))
    first = make_member(topic, instance_id="worker-0", commit_on_revoke=False)
    follow(first, until=lambda: len(first.records) == 5)

    second = make_member(topic, instance_id="worker-0", commit_on_revoke=False)
    follow(second, until=lambda: bool(second.assigned_now))

    with pytest.raises(ConfigurationError, match="as instance worker-0, the name of this one"):
        first.source.commit({0: 5})


def test_a_topic_that_does_not_exist_is_an_error_at_subscribe(connection: KafkaConnection, group_id: str) -> None:
    source = KafkaSource(connection, topic="nowhere", group_id=group_id)

    with pytest.raises(TransportError, match="Topic nowhere does not exist") as caught:
        Member(source)
    source.close()

    assert "forecaster topics create" in caught.value.hint


def test_partitions_are_counted_whether_assigned_or_not(
    make_topic: MakeTopic, connection: KafkaConnection, group_id: str
) -> None:
    source = KafkaSource(connection, topic=make_topic(partitions=3), group_id=group_id)

    assert source.partitions() == 3

    source.close()


@pytest.mark.parametrize(
    "client", [lambda c: KafkaSource(c, topic="t", group_id="g"), KafkaSink], ids=["source", "sink"]
)
def test_an_unreachable_broker_is_unavailable_within_the_request_timeout(
    client: Callable[[KafkaConnection], object],
) -> None:
    address = f"127.0.0.1:{free_port()}"
    began = time.monotonic()

    with pytest.raises(TransportUnavailable, match=f"No broker answered at {address} within 1 s") as caught:
        client(KafkaConnection(bootstrap_servers=address, request_timeout_seconds=1.0))

    assert time.monotonic() - began < 3.0
    assert "kafka.bootstrap_servers" in caught.value.hint
    assert caught.value.retriable


def test_polls_go_on_after_the_broker_was_away(group_id: str) -> None:
    require_broker()
    with Broker() as broker:
        connection = KafkaConnection(bootstrap_servers=broker.bootstrap, request_timeout_seconds=3.0)
        with_topic = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        with_topic.create_topics({"readings": {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
        with_topic.close()
        sink = KafkaSink(connection, delivery_timeout_seconds=20.0)
        member = Member(KafkaSource(connection, topic="readings", group_id=group_id, session_timeout_seconds=10.0))
        sink.send(OutRecord("readings", 0, b"key", b"before"))
        sink.flush(10.0)
        follow(member, until=lambda: member.values == [b"before"])

        broker.kill()
        sink.send(OutRecord("readings", 0, b"key", b"meanwhile"))
        with pytest.raises((TransportError, DeliveryFailed)):
            sink.flush(0.5)
        for _ in range(5):
            poll_tolerantly(member)
        broker.start()

        sink.flush(15.0)
        deadline = time.monotonic() + 20.0
        while len(member.records) < 2 and time.monotonic() < deadline:
            poll_tolerantly(member)
        member.source.close()
        sink.close()

    assert member.values == [b"before", b"meanwhile"]


def sources(members: Sequence[Member]) -> list[KafkaSource]:
    return [member.source for member in members if isinstance(member.source, KafkaSource)]


def is_rebalancing(member: Member) -> bool:
    (source,) = sources([member])
    return bool(source._consumer.group_metadata().state == MemberState.REBALANCING)


def poll_tolerantly(member: Member) -> None:
    """Poll as a worker does: retriable errors are for the next turn."""
    try:
        member.poll()
    except TransportError as error:
        if not error.retriable:
            raise
