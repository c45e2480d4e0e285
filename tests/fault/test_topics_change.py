"""Topics that are not what they were: emptied, cut, compacted, made anew, widened, or another one's. Never silence.

Workers run in this process, so that one of them costs a rebalance and not a start of Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import kafka_broker
import msgspec
import pytest
from fault.harness import Crew, Ground, MakeGround, assert_as_if_nothing_had_happened, assert_exactly_once
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka_fixtures import require_broker

from forecaster.cli.run import open_daemon
from forecaster.daemon import Daemon
from forecaster.engine.journal import decode_meta, encode_meta
from forecaster.errors import ForecasterError, StateError, StateGap, TopicChanged, TransportError
from forecaster.settings import Settings, load_settings

PARTITIONS = 2
READINGS = 300
SECONDS = 120.0


@pytest.fixture(scope="module")
def restless() -> Iterator[str]:
    """A broker that looks after timed-out transactions and dirty logs many times a second."""
    require_broker()
    often = {
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
        "log.cleaner.backoff.ms": "200",
    }
    with kafka_broker.Broker(overrides=often) as node:
        yield node.bootstrap


@pytest.fixture
def admin(restless: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=restless)
    yield client
    client.close()


@pytest.fixture
def crew(restless: str, make_ground: MakeGround, tmp_path: Path, registry: Path) -> Crew:
    """Topics and settings of a group, with some readings; nobody is at work."""
    ground = make_ground(restless, partitions=PARTITIONS, streams=16)
    ground.feed(READINGS)
    settings = {
        "STATE__RESTORE_SECONDS": "5",
        "STATE__FLUSH_SECONDS": "0",
        "KAFKA__SESSION_TIMEOUT_SECONDS": "30",  # a busy machine is no fault of a topic
    }
    return Crew(ground, workers=1, directory=tmp_path / "crew", registry=registry, settings=settings)


def settings_of(crew: Crew, **changes: str) -> Settings:
    """What the crew's environment says, as settings."""
    sections: dict[str, object] = {}
    given = {name: text for name, text in crew.environment().items() if name.startswith("FORECASTER_")}
    for name, text in {**given, **{f"FORECASTER_{name}": text for name, text in changes.items()}}.items():
        section, _, field = name.removeprefix("FORECASTER_").lower().partition("__")
        if field:
            sections.setdefault(section, {})[field] = text  # type: ignore[index]
        else:
            sections[section] = text
    return load_settings(sections)


@contextmanager
def running(crew: Crew, **changes: str) -> Iterator[tuple[Daemon, Future[None]]]:
    """A worker on a thread, told to stop when the block ends; how it ended is in the future."""
    stop, daemon = Event(), open_daemon(settings_of(crew, **changes))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(daemon.run, stop)
        try:
            yield daemon, run
        finally:
            stop.set()


def answer_all(crew: Crew, **changes: str) -> None:
    """Run a worker until it has its partitions and every reading is answered, and stop it in good order.

    Raises:
        ForecasterError: what ended it before.
    """
    with running(crew, **changes) as (daemon, run):
        wait_for(lambda: run.done() or (daemon.ready().ok and crew.lag() == 0), "all answered")
    run.result()


def end_of(run: Future[None]) -> BaseException:
    """What a worker ends with by itself."""
    wait_for(run.done, "the worker ended by itself")
    error = run.exception()
    assert error is not None, "it ended as if all were well"
    return error


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s: {what}"
        time.sleep(0.05)


def make_anew(admin: KafkaAdminClient, ground: Ground, topic: str, configs: Mapping[str, str] | None = None) -> None:
    """Delete a topic and create it again at once."""
    admin.delete_topics([topic])
    wait_for(lambda: topic not in admin.list_topics(), "topic gone")
    ground.make_topics({topic: dict(configs or {})})


def records_of(bootstrap: str, topic: str) -> list[tuple[int, int]]:
    """Partition and offset of every record that is there, open transactions included."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        ends = {tp: end for tp, end in consumer.end_offsets(partitions).items() if end}
        consumer.assign(list(ends))
        found = []
        while any(consumer.position(tp) < end for tp, end in ends.items()):
            for batch in consumer.poll(timeout_ms=200).values():
                found += [(record.partition, record.offset) for record in batch]
        return found
    finally:
        consumer.close()


def emptied(crew: Crew, admin: KafkaAdminClient) -> None:
    make_anew(admin, crew.ground, crew.state, {"cleanup.policy": "compact"})


def with_a_page_gone(crew: Crew, admin: KafkaAdminClient) -> None:
    put_state(crew, b"page/0", None)


def of_another_cluster(crew: Crew, admin: KafkaAdminClient) -> None:
    """The meta record of a group that has come less far."""
    reader = KafkaConsumer(bootstrap_servers=crew.ground.bootstrap, isolation_level="read_committed")
    tp = TopicPartition(crew.state, 0)
    reader.assign([tp])
    reader.seek_to_beginning(tp)
    metas: list[bytes] = []

    def look() -> bool:
        for batch in reader.poll(timeout_ms=200).values():
            metas.extend(record.value for record in batch if record.key == b"meta")
        return bool(metas)

    try:
        wait_for(look, "a meta record")
    finally:
        reader.close()
    theirs = msgspec.structs.replace(decode_meta(metas[0]), next_offset=7, replay_from=7)
    put_state(crew, b"meta", encode_meta(theirs))


def put_state(crew: Crew, key: bytes, value: bytes | None) -> None:
    producer = KafkaProducer(bootstrap_servers=crew.ground.bootstrap)
    producer.send(crew.state, key=key, value=value, partition=0).get(30)
    producer.close()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (emptied, "the state topic holds no meta record"),
        (with_a_page_gone, "pages"),
        (of_another_cluster, "the state topic stands at offset"),
    ],
)
def test_state_that_does_not_belong_to_the_committed_offsets_is_refused(
    crew: Crew, admin: KafkaAdminClient, damage: Callable[[Crew, KafkaAdminClient], None], told: str
) -> None:
    answer_all(crew)
    damage(crew, admin)
    before = crew.committed()

    with pytest.raises(StateGap, match=told) as refused:
        answer_all(crew)

    assert "forecaster reset" in refused.value.hint
    assert crew.committed() == before


def test_state_of_other_settings_is_refused_with_the_settings_named(crew: Crew) -> None:
    answer_all(crew)

    with pytest.raises(StateError) as refused:
        answer_all(crew, FORECAST__HORIZON="5")

    assert "forecast.horizon" in f"{refused.value} {refused.value.hint}"


def test_readings_that_retention_took_before_they_were_answered_are_never_passed_over(
    crew: Crew, admin: KafkaAdminClient
) -> None:
    answer_all(crew)
    before = crew.committed()
    crew.ground.feed(READINGS)
    ends = crew.ends()
    admin.delete_records({TopicPartition(crew.ground.readings, p): ends[p] for p in range(PARTITIONS)})

    with pytest.raises(ForecasterError, match=r"out of range|holds them from") as refused:
        answer_all(crew)

    assert crew.ground.readings in str(refused.value)
    assert "retention" in refused.value.hint.lower()
    assert crew.committed() == before


def test_readings_made_anew_while_nobody_ran_are_refused(crew: Crew, admin: KafkaAdminClient) -> None:
    """The broker forgets the group's offsets with the topic: it looks as if there had never been any."""
    answer_all(crew)
    make_anew(admin, crew.ground, crew.ground.readings)
    crew.ground.feed(READINGS)
    before = crew.answers()

    with pytest.raises(StateGap, match="had no offset for partition") as refused:
        answer_all(crew)

    assert "made anew" in refused.value.hint
    assert crew.answers() == before, "nothing was answered a second time"


def test_readings_made_anew_under_a_running_worker_end_it(crew: Crew, admin: KafkaAdminClient) -> None:
    with running(crew) as (_, run):
        wait_for(lambda: run.done() or crew.lag() == 0, "all answered")
        assert not run.done(), run.exception()
        before = crew.answers()
        make_anew(admin, crew.ground, crew.ground.readings)
        crew.ground.feed(2 * READINGS)
        error = end_of(run)

    assert isinstance(error, TopicChanged), error
    assert f"Topic {crew.ground.readings} was deleted and made anew" in str(error)
    assert crew.answers() == before, "no record of the new topic was taken for one of the old"


def test_partitions_added_under_a_running_worker_end_it_and_the_next_one_does_not_start(
    crew: Crew, admin: KafkaAdminClient
) -> None:
    with running(crew) as (_, run):
        wait_for(lambda: run.done() or crew.lag() == 0, "all answered")
        assert not run.done(), run.exception()
        admin.create_partitions({crew.ground.readings: PARTITIONS + 1})
        error = end_of(run)

    assert isinstance(error, TopicChanged), error
    assert "has 3 partitions now; it had 2" in str(error)
    assert "forecaster topics check" in error.hint
    with pytest.raises(TransportError, match=f"{crew.state}: It has 2 partitions, {crew.ground.readings} has 3"):
        answer_all(crew)


@pytest.mark.parametrize("topic", ["forecasts", "state"])
def test_a_topic_with_fewer_partitions_than_readings_is_refused_before_anything_is_read(
    crew: Crew, admin: KafkaAdminClient, topic: str
) -> None:
    narrow = f"narrow-{getattr(crew, topic)}"
    admin.create_topics(
        {narrow: {"num_partitions": 1, "replication_factor": 1, "configs": {"cleanup.policy": "compact"}}}
    )

    with pytest.raises(TransportError, match=f"topic {narrow}: It has 1 partitions") as refused:
        open_daemon(settings_of(crew, **{f"TOPICS__{topic.upper()}": narrow}))

    assert "kafka-topics.sh --alter" in refused.value.hint


def test_state_behind_the_open_and_then_the_aborted_transaction_of_a_stranger_is_restored(
    crew: Crew, tmp_path: Path, registry: Path
) -> None:
    """First a dead producer's transaction holds the log back until it times out; then its marker is the last record."""
    answer_all(crew)
    for number in range(PARTITIONS):
        stranger = KafkaProducer(
            bootstrap_servers=crew.ground.bootstrap,
            transactional_id=f"stranger-{number}",
            transaction_timeout_ms=1_000,
        )
        stranger.init_transactions()
        stranger.begin_transaction()
        stranger.send(crew.state, key=b"meta", value=b"none of ours", partition=number).get(30)
        stranger.close(timeout=0.1)
    crew.ground.feed(READINGS)

    answer_all(crew)
    answer_all(crew)

    assert_exactly_once(crew)
    assert_as_if_nothing_had_happened(crew, tmp_path, registry)


def test_a_state_topic_that_was_compacted_restores_the_same(
    crew: Crew, admin: KafkaAdminClient, tmp_path: Path, registry: Path
) -> None:
    eager = {"segment.ms": "200", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "500"}
    make_anew(admin, crew.ground, crew.state, {"cleanup.policy": "compact", **eager})
    crew.ground.feed(READINGS)
    answer_all(crew)
    first = set(records_of(crew.ground.bootstrap, crew.state))
    # A segment is closed, and then cleaned, when something comes after it.
    for _ in range(2):
        time.sleep(0.3)
        crew.ground.feed(READINGS)
        answer_all(crew)

    def is_cleaned() -> bool:
        """Every partition has written its meta record anew since; of the first records some pages may be left."""
        return len(first & set(records_of(crew.ground.bootstrap, crew.state))) < len(first) / 2

    wait_for(is_cleaned, "the cleaner has been there")
    crew.ground.feed(READINGS)

    answer_all(crew)

    assert_exactly_once(crew)
    assert_as_if_nothing_had_happened(crew, tmp_path, registry)
