"""The registry on a real broker: what only Kafka can do to it, and the command and the worker that use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka_fixtures import MakeTopic
from model_logs import make_model

from forecaster.errors import ArtifactMismatch, Fenced, TransportError
from forecaster.models.artifact import ModelArtifact
from forecaster.stores.bundle import write_bundle
from forecaster.stores.model_chunks import chunk_key, decision_key, encode_model
from forecaster.stores.registry_topic import TopicRegistry
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_registry import KafkaModelLog

DEADLINE_SECONDS = 60.0
MakeLog = Callable[[], KafkaModelLog]


@pytest.fixture
def topic(make_topic: MakeTopic) -> str:
    return make_topic("models", configs={"cleanup.policy": "compact", "max.message.bytes": "2400"})


@pytest.fixture
def make_log(connection: KafkaConnection, topic: str) -> Iterator[MakeLog]:
    made: list[KafkaModelLog] = []

    def make() -> KafkaModelLog:
        made.append(KafkaModelLog(connection, topic=topic, transactional_id=f"{topic}-writers"))
        return made[-1]

    yield make
    for log in made:
        log.close()


def promoted(registry: TopicRegistry, *models: ModelArtifact) -> list[str]:
    for model in models:
        registry.put(model)
        registry.promote(model.version, {"reason": "test"}, now=0.0)
    return [model.version for model in models]


def test_who_claims_ends_the_one_before_and_its_records_are_never_seen(make_log: MakeLog) -> None:
    slow, quick, reader = make_log(), make_log(), make_log()
    slow.claim()
    quick.claim()
    quick.append([(decision_key(1), b"quick")])

    with pytest.raises(TransportError) as refusal:
        slow.append([(decision_key(1), b"slow")])

    assert isinstance(refusal.value, Fenced) or refusal.value.retriable
    assert [(r.key, r.value) for r in reader.read(wait=True).records] == [(decision_key(1), b"quick")]


def test_a_writer_that_died_in_the_middle_is_swept_away_by_the_next(make_log: MakeLog, broker: str, topic: str) -> None:
    """Its chunk stands in the log, its transaction is open: nobody sees it, and nobody waits for its time-out."""
    model = make_model(1)
    dying = (
        "import os, sys, signal\n"
        "from kafka import KafkaProducer\n"
        "producer = KafkaProducer(bootstrap_servers=sys.argv[1], transactional_id=sys.argv[3],"
        " transaction_timeout_ms=600000)\n"
        "producer.init_transactions(); producer.begin_transaction()\n"
        "producer.send(sys.argv[2], key=sys.argv[4].encode(), value=b'half a model', partition=0).get(30)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    key = chunk_key(model.version, 0)
    command = [sys.executable, "-c", dying, broker, topic, f"{topic}-writers", key]
    died = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    reader = TopicRegistry(make_log())
    assert reader.manifests() == []

    registry = TopicRegistry(make_log())
    registry.put(model)

    assert registry.get(model.version) == model
    assert TopicRegistry(make_log()).get(model.version) == model


def test_a_writer_killed_at_any_moment_leaves_whole_models_and_decisions_without_gaps(
    make_log: MakeLog, broker: str, topic: str
) -> None:
    endless = (
        "import sys\n"
        "from model_logs import make_model\n"
        "from forecaster.stores.registry_topic import TopicRegistry\n"
        "from forecaster.transports.kafka_client import KafkaConnection\n"
        "from forecaster.transports.kafka_registry import KafkaModelLog\n"
        "registry = TopicRegistry(KafkaModelLog(KafkaConnection(bootstrap_servers=sys.argv[1]), topic=sys.argv[2],"
        " transactional_id=sys.argv[2] + '-writers'))\n"
        "seed = int(sys.argv[3])\n"
        "while True:\n"
        "    seed += 1\n"
        "    model = make_model(seed)\n"
        "    registry.put(model)\n"
        "    registry.promote(model.version, {}, now=0.0)\n"
        "    print('promoted', flush=True)\n"
    )
    here = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    for killed in range(2):
        command = [sys.executable, "-c", endless, broker, topic, str(100 * killed)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
        assert child.stdout is not None
        assert child.stdout.readline() == b"promoted\n"
        time.sleep(0.15 * (killed + 1))  # anywhere within the next write; what holds, holds wherever it is
        child.kill()
        child.wait()
        child.stdout.close()

        registry = TopicRegistry(make_log())
        numbers = [record.number for record in registry.history()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > killed
        for manifest in registry.manifests():
            assert registry.get(manifest.version).manifest == manifest
        registry.refuse(registry.history()[0].version, {}, now=0.0)
        assert registry.champion() is not None


def test_a_look_at_the_champion_asks_nothing_of_the_broker_while_nothing_changes(
    make_log: MakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = make_log()
    registry = TopicRegistry(log)
    version = promoted(registry, make_model(1))[0]
    registry.champion()

    monkeypatch.setattr(log, "_open_consumer", lambda: pytest.fail("a consumer was opened"))
    monkeypatch.setattr(log, "_log_end", lambda: pytest.fail("the end was asked for"))

    assert [registry.champion() for _ in range(50)] == [version] * 50


def test_the_topic_made_anew_is_noticed_by_a_reader_that_goes_on(
    make_log: MakeLog, admin: KafkaAdminClient, topic: str
) -> None:
    reader = TopicRegistry(make_log())
    first, _ = promoted(TopicRegistry(make_log()), make_model(1), make_model(2))
    _wait_until(lambda: reader.champion() is not None)

    admin.delete_topics([topic])
    _wait_until(lambda: _created(admin, topic))
    promoted(TopicRegistry(make_log()), make_model(1))

    _wait_until(lambda: _champion_or_none(reader) == first)
    assert len(reader.history()) == 1


def test_a_topic_that_is_absent_or_has_many_partitions_is_refused_with_what_to_do(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    for name, message in (
        (make_topic("wide", partitions=3), "has 3 partitions, expected 1"),
        ("none", "does not exist"),
    ):
        log = KafkaModelLog(connection, topic=name, transactional_id=name)
        registry = TopicRegistry(log)
        for _ in range(2):  # the second time without asking the broker
            with pytest.raises(TransportError, match=message) as refusal:
                registry.champion()
            assert "topics create" in refusal.value.hint
        log.close()


def test_a_model_larger_than_a_message_of_the_brokers_default_is_kept_and_got(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    name = make_topic("models", configs={"cleanup.policy": "compact"})
    log = KafkaModelLog(connection, topic=name, transactional_id=name)
    registry = TopicRegistry(log)
    small = make_model(1)
    bytes_each = log.max_value_bytes
    large = ModelArtifact(small.manifest, os.urandom(2_500_000))
    entries = encode_model(large, max_value_bytes=bytes_each)
    assert len(entries) == 6

    log.claim()
    log.append(entries)
    log.release()
    registry.manifests()
    found = log.fetch(list(registry._chunks[small.version].values()))
    log.close()

    assert [zlib.crc32(value) for _, value in sorted(found.items())] == [zlib.crc32(value) for _, value in entries[:-1]]


def test_foreign_records_and_a_damaged_champion_leave_the_others_usable(
    make_log: MakeLog, broker: str, topic: str
) -> None:
    registry = TopicRegistry(make_log())
    first, second = promoted(registry, make_model(1), make_model(2))
    producer = KafkaProducer(bootstrap_servers=broker)
    for key, value in ((b"hello", b"world"), (None, b"x"), (chunk_key(second, 1).encode(), b"\x80\x04pickle")):
        if key is not None:  # a compacted topic takes none without
            producer.send(topic, key=key, value=value, partition=0).get(30)
    producer.close()
    reader = TopicRegistry(make_log())

    with pytest.raises(ArtifactMismatch, match="is not a chunk of a model"):
        reader.get(second)

    assert reader.champion() == second
    assert reader.get(first) == make_model(1)
    assert reader.rollback(now=1.0) == first


def test_the_command_works_on_a_topic(broker: str, topic: str, tmp_path: Path) -> None:
    one, other = make_model(1), make_model(2, created=1_800_000_000.0)
    for model in (one, other):
        write_bundle(model, tmp_path / f"{model.version}.zip")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
    environment |= {"FORECASTER_KAFKA__BOOTSTRAP_SERVERS": broker, "FORECASTER_TOPICS__MODELS": topic, "COLUMNS": "200"}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "forecaster", "models", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for model in (one, other):
        run("import", str(tmp_path / f"{model.version}.zip"))
        run("promote", model.version, "--reason", "test")
    rolled_back = json.loads(run("rollback", "--json"))
    rows = json.loads(run("list", "--json"))

    assert rolled_back == {"version": one.version, "from": other.version}
    assert [(row["version"], row["state"]) for row in rows] == [(one.version, "champion"), (other.version, "served")]


def test_the_command_without_a_broker_says_how_to_reach_a_directory() -> None:
    command = [sys.executable, "-m", "forecaster", "models", "list", "--bootstrap-servers", "127.0.0.1:1"]
    environment = {**os.environ, "FORECASTER_KAFKA__REQUEST_TIMEOUT_SECONDS": "1"}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "No broker answered" in done.stderr
    assert "--directory" in done.stderr
    assert "Traceback" not in done.stderr


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _champion_or_none(registry: TopicRegistry) -> str | None:
    try:
        return registry.champion()
    except TransportError:  # in between there is no topic
        return None


def _created(admin: KafkaAdminClient, topic: str) -> bool:
    options = {"num_partitions": 1, "replication_factor": 1, "configs": {"max.message.bytes": "2400"}}
    answer = admin.create_topics({topic: options}, wait_for_metadata=True, raise_errors=False)
    return answer["topics"][0]["error_code"] == 0
