"""Copies of state that follow a real topic, and restores that go on from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.structs import OffsetAndMetadata
from kafka_fixtures import MakeTopic

from forecaster.clock import SystemClock
from forecaster.engine.standby import Standby
from forecaster.errors import TransportError
from forecaster.records import StateRecord
from forecaster.state.copy import StateCopy
from forecaster.transports import kafka_state
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_left_open import LeftOpenTransactions
from forecaster.transports.kafka_state import KafkaStateStore

SECONDS = 60.0


class Owner:
    """Writes state in transactions, as another worker does."""

    def __init__(self, broker: str, topic: str) -> None:
        self._topic = topic
        self._producer = KafkaProducer(bootstrap_servers=broker, transactional_id=f"owner-{topic}")
        self._producer.init_transactions()

    def write(self, partition: int, *records: tuple[str, bytes | None], commits: bool = True) -> None:
        self._producer.begin_transaction()
        for key, value in records:
            self._producer.send(self._topic, key=key.encode(), value=value, partition=partition)
        self._producer.flush(timeout=10)
        if commits:
            self._producer.commit_transaction()
        else:
            self._producer.abort_transaction()

    def close(self) -> None:
        self._producer.close(timeout=5)


@pytest.fixture
def topic(make_topic: MakeTopic) -> str:
    return make_topic("state", partitions=3, configs={"cleanup.policy": "compact"})


@pytest.fixture
def owner(broker: str, topic: str) -> Iterator[Owner]:
    made = Owner(broker, topic)
    yield made
    made.close()


@pytest.fixture
def store(connection: KafkaConnection, topic: str) -> Iterator[KafkaStateStore]:
    made = KafkaStateStore(connection, readings=topic, state=topic, group_id="nobody", deadline_seconds=SECONDS)
    yield made
    made.close()


@pytest.fixture
def standby(store: KafkaStateStore) -> Iterator[Standby]:
    made = Standby(store.tail, keep_warm=store.keep_warm, clock=SystemClock(), max_bytes=10_000_000)
    made.start()
    yield made
    made.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def cold(store: KafkaStateStore, partition: int) -> list[StateRecord]:
    copy = StateCopy()
    assert store.state(partition, copy, lambda: False)
    return copy.records()


def test_a_copy_brought_to_the_end_equals_what_is_read_from_the_beginning(
    store: KafkaStateStore, standby: Standby, owner: Owner
) -> None:
    owner.write(0, ("page/0", b"old"), ("page/1", b"gone soon"), ("meta", b"1"))
    owner.write(1, ("page/0", b"of another"))
    wait_until(lambda: standby.report().nbytes == (6 + 3) + (6 + 9) + (4 + 1) + (6 + 10))
    owner.write(0, ("page/9", b"never committed"), commits=False)
    owner.write(0, ("page/0", b"new"), ("page/1", None), ("meta", b"2"))

    copy = standby.take(0)
    assert copy is not None
    went_on = store.state(0, copy, lambda: False)

    assert went_on
    assert copy.records() == cold(store, 0) == [StateRecord("meta", b"2"), StateRecord("page/0", b"new")]
    wait_until(lambda: standby.report().partitions == 2)


def test_a_client_that_stands_still_in_front_of_records_is_given_up_for_another(
    store: KafkaStateStore, owner: Owner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As seen once in hundreds of restores: the broker would give more, and the client does not ask for it."""
    for number in range(5):
        owner.write(0, (f"page/{number}", b"kept"))
    poll, first = KafkaConsumer.poll, []

    def stuck(consumer: KafkaConsumer, **how: int) -> dict[object, object]:
        first.append(consumer)
        if consumer is not first[0]:
            return poll(consumer, **how)
        return poll(consumer, timeout_ms=200, max_records=2) if len(first) == 1 else {}

    monkeypatch.setattr(KafkaConsumer, "poll", stuck)
    monkeypatch.setattr(kafka_state, "_STANDSTILL_SECONDS", 0.3)

    found = cold(store, 0)

    assert [record.key for record in found] == [f"page/{number}" for number in range(5)]
    (told,) = (record for record in caplog.records if "stood still" in record.message)
    assert told.offset < told.readable  # type: ignore[attr-defined] # of the line's extra


def test_a_reader_behind_an_open_transaction_is_not_standing_still(
    store: KafkaStateStore, owner: Owner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner.write(0, ("page/0", b"committed"))
    owner._producer.begin_transaction()
    owner._producer.send(owner._topic, key=b"page/1", value=b"not yet", partition=0).get(timeout=10)
    monkeypatch.setattr(kafka_state, "_STANDSTILL_SECONDS", 0.2)

    with ThreadPoolExecutor(1) as beside:
        reading = beside.submit(cold, store, 0)
        time.sleep(1.5)  # for several looks at where committed records end
        assert not reading.done()
        owner._producer.commit_transaction()
        found = reading.result(timeout=SECONDS)

    assert found == [StateRecord("page/0", b"committed"), StateRecord("page/1", b"not yet")]
    assert not [record for record in caplog.records if "stood still" in record.message]


def test_a_copy_of_a_topic_that_was_made_anew_is_of_no_use(
    store: KafkaStateStore, standby: Standby, owner: Owner, admin: KafkaAdminClient, topic: str
) -> None:
    """Even where the new one has grown beyond the place the copy ends at."""
    owner.write(0, ("page/0", b"of the old"), ("meta", b"1"))
    wait_until(lambda: standby.report().nbytes == (6 + 10) + (4 + 1))
    copy = standby.take(0)
    assert copy is not None
    owner.close()
    admin.delete_topics([topic])
    wait_until(lambda: topic not in admin.list_topics())
    admin.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1)], wait_for_metadata=True)
    again = Owner(admin.config["bootstrap_servers"], topic)
    for number in range(3):
        again.write(0, ("page/0", b"of the new"), ("meta", b"%d" % number))
    again.close()

    assert not store.state(0, copy, lambda: False)
    assert cold(store, 0) == [StateRecord("meta", b"2"), StateRecord("page/0", b"of the new")]


def test_a_copy_whose_last_record_was_deleted_from_the_log_is_of_no_use(
    store: KafkaStateStore, standby: Standby, owner: Owner, admin: KafkaAdminClient, make_topic: MakeTopic
) -> None:
    topic = make_topic("state", partitions=1, configs={"cleanup.policy": "compact,delete"})
    other = KafkaStateStore(store._connection, readings=topic, state=topic, group_id="nobody", deadline_seconds=SECONDS)
    writer = Owner(admin.config["bootstrap_servers"], topic)
    writer.write(0, ("page/0", b"deleted"), ("meta", b"1"))
    copy = StateCopy()
    assert other.state(0, copy, lambda: False)
    writer.write(0, ("page/1", b"kept"), ("meta", b"2"))
    assert copy.last is not None
    admin.delete_records({TopicPartition(topic, 0): copy.last.offset + 1})

    assert not other.state(0, copy, lambda: False)
    assert cold(other, 0) == [StateRecord("meta", b"2"), StateRecord("page/1", b"kept")]
    writer.close()
    other.close()


def test_a_state_read_again_reads_only_what_is_new(store: KafkaStateStore, owner: Owner) -> None:
    owner.write(2, *((f"page/{number}", b"x") for number in range(50)), ("meta", b"1"))
    copy = StateCopy()
    assert store.state(2, copy, lambda: False)
    before = copy.taken
    owner.write(2, ("meta", b"2"))

    assert store.state(2, copy, lambda: False)

    assert before == 51
    assert copy.taken == 52
    assert copy.get("meta") == b"2"


def test_consumers_are_kept_open_between_reads_and_closed_at_the_end(
    store: KafkaStateStore, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.write(0, ("meta", b"1"))
    opened = 0
    real = KafkaStateStore._open

    def count(self: KafkaStateStore, isolation_level: str, group_id: str | None) -> object:
        nonlocal opened
        opened += 1
        return real(self, isolation_level, group_id)

    monkeypatch.setattr(KafkaStateStore, "_open", count)
    first = cold(store, 0)
    after_one = opened
    for partition in (0, 1, 2, 0):
        cold(store, partition)

    assert first == [StateRecord("meta", b"1")]
    assert opened == after_one


def test_restores_at_once_find_every_client_open_that_was_kept_warm(
    connection: KafkaConnection, topic: str, owner: Owner, group_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as restore at the same time; the first fail-over would open them one by one."""
    ours = LeftOpenTransactions(connection, prefix="-", ours="-us", topics=[topic], timeout_ms=10_000)
    store = KafkaStateStore(
        connection, readings=topic, state=topic, group_id=group_id, deadline_seconds=SECONDS, left_open=ours
    )
    owner.write(0, ("meta", b"1"))
    consumer = KafkaConsumer(bootstrap_servers=connection.bootstrap_servers, group_id=group_id)
    consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(1, "", -1)})
    consumer.close(autocommit=False)
    store.keep_warm()
    opened: list[str] = []

    def none_more(self: KafkaStateStore, *kind: str | None) -> KafkaConsumer:
        opened.append(f"{kind}")
        raise AssertionError(f"another consumer was opened: {kind}")

    monkeypatch.setattr(KafkaStateStore, "_open", none_more)
    monkeypatch.setattr("forecaster.transports.kafka_left_open.open_client", none_more)

    def restore(_: int) -> list[StateRecord]:
        store.take_over(0)
        assert store.committed(0)[0] == 1
        assert len(store.readings(0, 0, 1, lambda: False)) == 1
        return cold(store, 0)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(restore, range(8)))

    assert found == [[StateRecord("meta", b"1")]] * 8
    assert opened == []
    store.close()


def test_a_read_waits_for_no_long_fetch_of_the_one_before(store: KafkaStateStore, owner: Owner) -> None:
    """Where one answer holds more than one poll gives out, the client asks for more before it is at the end.

    By default the broker answers that half a second later, and what comes on the same connection after that.
    """
    for partition in (0, 1):
        owner.write(partition, *((f"page/{number}", b"x") for number in range(800)))
    took = []
    for turn in range(9):
        began = time.monotonic()
        cold(store, turn % 2)
        took.append(time.monotonic() - began)

    assert sorted(took)[len(took) // 2] < 0.35, took


def test_a_topic_that_is_not_there_is_an_error_and_not_an_empty_state(connection: KafkaConnection) -> None:
    store = KafkaStateStore(connection, readings="none", state="not-there", group_id="nobody", deadline_seconds=5.0)
    tail = store.tail()

    with pytest.raises(TransportError, match="not-there"):
        tail.partitions()
    tail.close()
    store.close()


def test_readings_that_retention_took_are_named_with_what_is_left(
    admin: KafkaAdminClient, connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    readings = make_topic("readings", partitions=1)
    writer = Owner(connection.bootstrap_servers, readings)
    writer.write(0, *((f"s{k}", b"1") for k in range(10)))
    admin.delete_records({TopicPartition(readings, 0): 6})
    other = KafkaStateStore(connection, readings=readings, state=readings, group_id="nobody", deadline_seconds=SECONDS)

    assert [record.offset for record in other.readings(0, 6, 9, lambda: False)] == [6, 7, 8]
    with pytest.raises(
        TransportError, match=r"needs readings from offset 2 on; readings\S* holds them from 6 on"
    ) as told:
        other.readings(0, 2, 9, lambda: False)

    assert "state.flush_seconds" in told.value.hint
    writer.close()
    other.close()
