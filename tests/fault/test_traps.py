"""The client's traps, one by one, each sprung on a real broker: without its guard a test here is red."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import kafka_broker
import pytest
from fault.socks_proxy import Api, Fault, Mode, SocksProxy
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource
from kafka.structs import ConsumerGroupMetadata, MemberState
from kafka_fixtures import require_broker

from forecaster.errors import DeliveryFailed, Fenced, TransportError
from forecaster.records import OutRecord, StateRecord
from forecaster.state.copy import StateCopy
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_source import KafkaSource
from forecaster.transports.kafka_state import KafkaStateStore
from forecaster.transports.kafka_transaction import KafkaTransactionalSink

PARTITIONS = 2
GROUP = "group"


class Listener:
    """A member that only notes what it owns."""

    def __init__(self, source: KafkaSource | None = None) -> None:
        self.source = source
        self.owned: set[int] = set()
        self.lost_partitions: list[set[int]] = []

    def assigned(self, partitions: Sequence[int]) -> None:
        self.owned |= set(partitions)

    def revoked(self, partitions: Sequence[int]) -> None:
        self.owned -= set(partitions)

    def lost(self, partitions: Sequence[int]) -> None:
        self.owned -= set(partitions)
        self.lost_partitions.append(set(partitions))


class StaleOnce:
    """A source that names a generation of the past the first time it is asked."""

    def __init__(self, source: KafkaSource) -> None:
        self.topic = source.topic
        self._source = source
        self._is_stale = True

    def group_metadata(self, partitions: Sequence[int]) -> ConsumerGroupMetadata:
        metadata = self._source.group_metadata(partitions)
        if self._is_stale:
            self._is_stale = False
            return metadata._replace(generation_id=metadata.generation_id - 1)
        return metadata


class Stage:
    """A broker of its own, a readings and an answer topic, and what a careful consumer sees of them."""

    def __init__(self, node: kafka_broker.Broker) -> None:
        self.node = node
        self.connection = KafkaConnection(bootstrap_servers=node.bootstrap, request_timeout_seconds=3.0)
        self.readings, self.answers = "readings", "answers"
        self._sources: list[KafkaSource] = []
        self._sinks: list[KafkaTransactionalSink] = []
        self._admin = KafkaAdminClient(bootstrap_servers=node.bootstrap)
        for topic in (self.readings, self.answers):
            self.make_topic(topic)

    def make_topic(self, name: str) -> None:
        shape = {"num_partitions": PARTITIONS, "replication_factor": 1}
        self._admin.create_topics({name: shape}, wait_for_metadata=True)

    def set(self, topic: str, setting: str, value: str) -> None:
        self._admin.alter_configs([ConfigResource("TOPIC", topic, {setting: value})])

    def source(self, **overrides: float) -> KafkaSource:
        """A member that owns both partitions."""
        source = KafkaSource(
            self.connection,
            topic=self.readings,
            group_id=GROUP,
            **{"session_timeout_seconds": 30.0, **overrides},  # type: ignore[arg-type]
        )
        self._sources.append(source)
        listener = Listener()
        source.subscribe(listener)
        deadline = time.monotonic() + 30
        while len(listener.owned) < PARTITIONS or self.committed(1) is None:
            assert time.monotonic() < deadline
            source.poll(10, 0.1)
        return source

    def member(self, name: str, *, proxy_url: str = "") -> Listener:
        """A member with a short session that owns nothing yet."""
        connection = KafkaConnection(
            bootstrap_servers=self.node.bootstrap, client_id=name, request_timeout_seconds=3.0, proxy_url=proxy_url
        )
        source = KafkaSource(connection, topic=self.readings, group_id=GROUP, session_timeout_seconds=1.5)
        self._sources.append(source)
        listener = Listener(source)
        source.subscribe(listener)
        return listener

    def poll_until(self, members: Sequence[Listener], condition: Callable[[], bool]) -> None:
        """Poll them, each on a thread of its own, until the condition holds."""
        over = threading.Event()

        def poll(source: KafkaSource) -> None:
            while not over.is_set():
                with suppress(TransportError):  # of a network that is down on purpose
                    source.poll(10, 0.1)

        with ThreadPoolExecutor() as threads:
            polling = [threads.submit(poll, member.source) for member in members if member.source is not None]
            deadline = time.monotonic() + 40
            while not condition() and time.monotonic() < deadline:
                time.sleep(0.05)
            over.set()
        for ended in polling:
            ended.result()
        assert condition()

    def sink(
        self, source: KafkaSource | StaleOnce, *, connection: KafkaConnection | None = None, **overrides: Any
    ) -> KafkaTransactionalSink:
        sink = KafkaTransactionalSink(
            connection or self.connection,
            source,  # type: ignore[arg-type]
            transactional_id="worker",
            **{"transaction_timeout_seconds": 30.0, "delivery_timeout_seconds": 4.0, **overrides},
        )
        self._sinks.append(sink)
        return sink

    def answer(self, text: bytes) -> OutRecord:
        return OutRecord(self.answers, 0, b"key", text)

    def committed(self, partition: int) -> int | None:
        consumer = KafkaConsumer(bootstrap_servers=self.node.bootstrap, group_id=GROUP)
        try:
            return consumer.committed(TopicPartition(self.readings, partition))
        finally:
            consumer.close(autocommit=False)

    def seen(self) -> list[bytes]:
        """Committed answers, once no transaction is open."""
        tp = TopicPartition(self.answers, 0)
        everything = KafkaConsumer(bootstrap_servers=self.node.bootstrap)
        end = everything.end_offsets([tp])[tp]
        everything.close()
        consumer = KafkaConsumer(bootstrap_servers=self.node.bootstrap, isolation_level="read_committed")
        consumer.assign([tp])
        consumer.seek_to_beginning(tp)
        values: list[bytes] = []
        deadline = time.monotonic() + 60
        while consumer.position(tp) < end:
            assert time.monotonic() < deadline, "a transaction is left open"
            values += [record.value for batch in consumer.poll(timeout_ms=200).values() for record in batch]
        consumer.close()
        return values

    def is_settled(self) -> bool:
        """No transaction is open that has written an answer."""
        tp, ends = TopicPartition(self.answers, 0), set()
        for level in ("read_committed", "read_uncommitted"):
            consumer = KafkaConsumer(bootstrap_servers=self.node.bootstrap, isolation_level=level)
            ends.add(consumer.end_offsets([tp])[tp])
            consumer.close()
        return len(ends) == 1

    def close(self) -> None:
        for closed in (*self._sinks, *self._sources, self._admin):
            closed.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    require_broker()
    # Transactions that time out are looked for often, instead of every ten seconds.
    often = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "200"}
    with kafka_broker.Broker(overrides=often) as node:
        made = Stage(node)
        yield made
        made.close()


BOTH_PATHS = pytest.mark.parametrize("batched", [False, True], ids=["record by record", "by batches"])


@BOTH_PATHS
def test_a_record_given_up_by_the_client_is_not_left_out_of_a_commit(stage: Stage, batched: bool) -> None:
    """A delivery timeout does not abort the client's transaction: its commit would say that all is well."""
    sink = stage.sink(stage.source(), batched=batched)
    sink.send_all(deque([stage.answer(b"first")]))
    sink.commit({0: 1}, flush_timeout_seconds=10)

    stage.node.pause()
    threading.Timer(8.0, stage.node.resume).start()
    sink.send_all(deque([stage.answer(b"second")]))
    with pytest.raises(DeliveryFailed):
        sink.commit({0: 2}, flush_timeout_seconds=20)
    time.sleep(4.0)
    sink.start_over()
    sink.send_all(deque([stage.answer(b"second")]))
    sink.commit({0: 2}, flush_timeout_seconds=20)

    assert stage.seen() == [b"first", b"second"]
    assert stage.committed(0) == 2


def test_an_evicted_member_commits_nothing(stage: Stage) -> None:
    """Without a generation the broker takes offsets from anybody."""
    source = stage.source(max_poll_interval_seconds=1.0)
    sink = stage.sink(source)
    before = stage.committed(0)
    sink.send(stage.answer(b"of a zombie"))
    deadline = time.monotonic() + 20
    while source._consumer.group_metadata().generation_id >= 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    with pytest.raises(Fenced, match="generation -1"):
        sink.commit({0: 7}, flush_timeout_seconds=10)
    sink.start_over()

    assert stage.committed(0) == before
    assert stage.seen() == []


def test_a_member_dropped_while_it_asks_to_join_again_is_told_that_its_partitions_are_lost(stage: Stage) -> None:
    """It would go on where it was, and roll back what the member that came has answered and committed meanwhile."""
    with SocksProxy() as proxy:
        slow = stage.member("slow", proxy_url=proxy.url)
        stage.poll_until([slow], lambda: len(slow.owned) == PARTITIONS)
        proxy.arm(Fault(Mode.FREEZE, Api.JOIN_GROUP, seconds=6.0))
        other = stage.member("other")
        stage.poll_until([slow, other], lambda: len(other.owned) == PARTITIONS)
        assert len(slow.owned) == PARTITIONS, "it cannot know yet"
        proxy.wait_until_healed()

        stage.poll_until([slow, other], lambda: bool(slow.owned) and not slow.owned & other.owned)

        assert slow.lost_partitions == [{0, 1}]


def test_a_join_answered_between_two_polls_is_finished_by_the_next(stage: Stage) -> None:
    """Forgotten, it would leave the member without heartbeats, and without a place at the end of the session."""
    member = stage.member("hasty")
    stage.poll_until([member], lambda: len(member.owned) == PARTITIONS)
    coordinator = member.source._consumer._coordinator
    coordinator._assignment_snapshot = {}  # as if the topic's metadata had come after the assignment
    member.source._consumer.poll(timeout_ms=0)
    deadline = time.monotonic() + 20
    while not coordinator._join_task.is_done:
        assert time.monotonic() < deadline
        time.sleep(0.02)

    stage.poll_until([member], lambda: coordinator.state is MemberState.STABLE)

    assert coordinator._heartbeat_enabled
    assert len(member.owned) == PARTITIONS
    assert member.lost_partitions == []


def test_offsets_of_a_lost_transaction_do_not_come_back_with_the_next_one(stage: Stage) -> None:
    """They stay in the client that has aborted, and would roll another owner's offset back."""
    sink = stage.sink(StaleOnce(stage.source()))
    before = stage.committed(0)
    sink.send(stage.answer(b"lost"))
    with pytest.raises(TransportError):
        sink.commit({0: 3}, flush_timeout_seconds=10)

    sink.start_over()
    sink.send(stage.answer(b"kept"))
    sink.commit({1: 5}, flush_timeout_seconds=10)

    assert (stage.committed(0), stage.committed(1)) == (before, 5)
    assert stage.seen() == [b"kept"]


@BOTH_PATHS
def test_where_one_place_takes_nothing_nothing_of_the_transaction_is_committed(stage: Stage, batched: bool) -> None:
    """What the other partitions have acknowledged must not appear without it."""
    stage.make_topic("elsewhere")
    stage.set("elsewhere", "max.message.bytes", "1000")
    sink = stage.sink(stage.source(), batched=batched)
    before = stage.committed(0)
    both = stage.answer(b"deliverable"), OutRecord("elsewhere", 0, b"key", random.Random(1).randbytes(2_000))
    sink.send_all(deque(both))
    with pytest.raises(DeliveryFailed, match="1 of 2 records"):
        sink.commit({0: 2}, flush_timeout_seconds=20)
    assert stage.committed(0) == before

    stage.set("elsewhere", "max.message.bytes", "100000")
    sink.start_over()
    sink.send_all(deque(both))
    sink.commit({0: 2}, flush_timeout_seconds=20)

    assert (stage.committed(0), stage.seen()) == (2, [b"deliverable"])


def test_a_transaction_the_broker_gave_up_is_not_called_committed(stage: Stage) -> None:
    """The client takes up a new epoch by itself, and its commit of nothing succeeds."""
    sink = stage.sink(stage.source(), transaction_timeout_seconds=1.0)
    sink.send(stage.answer(b"before the pause"))
    sink.flush(10)
    deadline = time.monotonic() + 40
    while not stage.is_settled():
        assert time.monotonic() < deadline, "the broker did not abort the transaction"
        time.sleep(0.2)

    sink.send(stage.answer(b"after the pause"))
    with pytest.raises(TransportError):
        sink.commit({0: 2}, flush_timeout_seconds=10)
    sink.start_over()
    for text in (b"before the pause", b"after the pause"):
        sink.send(stage.answer(text))
    sink.commit({0: 2}, flush_timeout_seconds=10)

    assert stage.seen() == [b"before the pause", b"after the pause"]
    assert stage.committed(0) == 2


def test_a_commit_whose_answer_is_lost_ends_the_process_though_the_network_is_well_again(stage: Stage) -> None:
    """The client has no time-out for it: without one of ours the worker stands still for as long as a request may."""
    source = stage.source()
    ended = threading.Event()
    with SocksProxy() as proxy, ThreadPoolExecutor() as threads:
        slow = KafkaConnection(
            bootstrap_servers=stage.node.bootstrap,
            client_id="slow",
            request_timeout_seconds=15.0,
            proxy_url=proxy.url,
        )
        sink = stage.sink(
            source, connection=slow, delivery_timeout_seconds=60.0, watchdog_seconds=5.0, end_process=ended.set
        )
        sink.send(stage.answer(b"1"))
        sink.commit({0: 1}, flush_timeout_seconds=30)
        assert not ended.is_set(), "it came back"
        proxy.arm(Fault(Mode.EAT_REPLIES, Api.END_TXN, seconds=0.5))
        sink.send(stage.answer(b"2"))

        commit = threads.submit(sink.commit, {0: 2}, flush_timeout_seconds=30)
        proxy.wait_until_struck(seconds=30)
        proxy.wait_until_healed()

        assert ended.wait(20), "nobody ended the process"
        assert not commit.done(), "the client still waits"
        with pytest.raises(TransportError):  # when the request may take no longer
            commit.result(60)

    assert stage.seen() == [b"1", b"2"], "it was committed all the same"


def test_state_behind_a_transaction_that_a_dead_worker_left_open_is_read(stage: Stage) -> None:
    """Its record holds back what a read-committed reader calls the end; a committed one stands behind it."""
    dead, alive = (
        KafkaProducer(bootstrap_servers=stage.node.bootstrap, transactional_id=name, transaction_timeout_ms=5_000)
        for name in ("dead", "alive")
    )
    for producer, value in ((dead, b"of the dead"), (alive, b"committed")):
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(stage.answers, key=b"meta", value=value, partition=0).get(10)
    alive.commit_transaction()
    store = KafkaStateStore(
        stage.connection, readings=stage.readings, state=stage.answers, group_id=GROUP, deadline_seconds=60.0
    )

    found = StateCopy()
    assert store.state(0, found, lambda: False)

    assert found.records() == [StateRecord("meta", b"committed")]
    store.close()
    for producer in (dead, alive):
        producer.close(timeout=1)
