"""``forecaster trainer`` on a real broker: it trains, decides and ends well; killed anywhere, nothing is harmed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from kafka import KafkaProducer
from kafka_fixtures import MakeTopic

from forecaster.models.artifact import ModelArtifact
from forecaster.models.network import RecurrentForecaster
from forecaster.stores.registry_topic import TopicRegistry
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_registry import KafkaModelLog

START = 1_767_225_600
PATIENCE_SECONDS = 400.0
STOP_SECONDS = 15.0
"""Longest that SIGTERM may take on a busy machine; a second or two on a quiet one."""


def waves(streams: int, rows: range) -> list[tuple[str, int, float | None]]:
    """Stream, second and value of noisy sines with a season of 30 readings."""
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.05, (streams, rows.stop))
    return [
        (f"wave-{k}", START + 10 * t, float(np.sin(2 * np.pi * t / 30 + k) + noise[k, t]))
        for t in rows
        for k in range(streams)
    ]


@dataclass
class Ground:
    """Topics of one test, and a group that reads them."""

    broker: str
    connection: KafkaConnection
    readings: str
    models: str
    answers: tuple[str, str, str]
    """Of forecasts, dead letters and state."""
    group_id: str

    def environment(self, **settings: str) -> dict[str, str]:
        ours = {
            "KAFKA__BOOTSTRAP_SERVERS": self.broker,
            "KAFKA__GROUP_ID": self.group_id,
            "TOPICS__READINGS": self.readings,
            "TOPICS__MODELS": self.models,
            "ANOMALIES__ENABLED": "false",
            **dict(zip(("TOPICS__FORECASTS", "TOPICS__DEAD_LETTERS", "TOPICS__STATE"), self.answers, strict=True)),
            "TRAINING__MODE": "service",
            "TRAINING__STEPS": "20",
            "TRAINING__MIN_READINGS": "100",
            "TRAINING__EVERY": "20m",
            "TRAINING__MIN_WALL_SECONDS": "0",
            "MODEL__HIDDEN": "8",
            "FORECAST__HORIZON": "4",
            "TELEMETRY__PORT": "0",
            **settings,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
        return {**inherited, **{f"FORECASTER_{name}": value for name, value in ours.items()}}

    def send(self, readings: Sequence[tuple[str, int, float | None]]) -> None:
        producer = KafkaProducer(bootstrap_servers=self.broker, linger_ms=20)
        for stream, second, value in readings:
            body = json.dumps({"stream_id": stream, "timestamp": second, "value": value}).encode()
            producer.send(self.readings, key=stream.encode(), value=body)
        producer.flush(60)
        producer.close()

    def open_registry(self) -> TopicRegistry:
        return TopicRegistry(
            KafkaModelLog(self.connection, topic=self.models, transactional_id=f"{self.group_id}-models")
        )


@pytest.fixture
def ground(broker: str, connection: KafkaConnection, make_topic: MakeTopic, group_id: str) -> Ground:
    compacted = {"cleanup.policy": "compact"}
    forecasts, dead_letters = (make_topic(name, partitions=2) for name in ("forecasts", "dlq"))
    return Ground(
        broker,
        connection,
        readings=make_topic("readings", partitions=2),
        models=make_topic("models", configs=compacted),
        answers=(forecasts, dead_letters, make_topic("state", partitions=2, configs=compacted)),
        group_id=group_id,
    )


@pytest.fixture
def registry(ground: Ground) -> Iterator[TopicRegistry]:
    opened = ground.open_registry()
    yield opened
    opened.close()


@contextmanager
def running(
    environment: Mapping[str, str], log: Path, *words: str, command: str = "trainer"
) -> Iterator[subprocess.Popen[bytes]]:
    """A command until the block ends; killed where the test did not stop it."""
    with log.open("ab") as output:
        arguments = [sys.executable, "-m", "forecaster", command, *words]
        process = subprocess.Popen(arguments, env=dict(environment), stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_until(is_so: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert time.monotonic() - began < STOP_SECONDS


def logged(log: Path, message: str) -> list[dict]:
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [entry for entry in entries if entry["message"] == message]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def get(url: str) -> str:
    with urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_it_trains_by_event_time_tells_how_it_is_and_ends_when_told(
    ground: Ground, registry: TopicRegistry, tmp_path: Path
) -> None:
    ground.send(waves(4, range(400)))
    log = tmp_path / "log"

    with running(ground.environment(), log) as trainer:
        wait_until(lambda: registry.champion() is not None, trainer, log)
        ground.send(waves(4, range(400, 530)))  # 130 readings of 10 s are more than training.every
        wait_until(lambda: len(logged(log, "training ended")) == 2, trainer, log)
        url = logged(log, "started")[0]["url"]
        assert json.loads(get(f"{url}readyz"))["ok"]
        assert 'forecaster_training_runs_total{group="default",result="ok_promoted"} ' in get(f"{url}metrics")
        wait_until(lambda: str(registry.champion()) in get(f"{url}metrics"), trainer, log)
        stop(trainer)

    with pytest.raises(URLError):
        get(f"{url}healthz")
    with contextlib.closing(ground.open_registry()) as now:
        records = now.history()
    assert records[0].action == "promoted"
    assert [record.decision["until"] for record in records] == [START + 10 * 399, START + 10 * 529]


def test_once_trains_says_what_came_of_it_and_ends(ground: Ground, registry: TopicRegistry, tmp_path: Path) -> None:
    ground.send(waves(2, range(400)))
    log = tmp_path / "log"

    with running(ground.environment(), log, "--once") as trainer:
        code = trainer.wait(timeout=PATIENCE_SECONDS)

    assert code == 0, log.read_text()
    assert f"{registry.champion()} promoted: First model" in log.read_text()


def test_killed_in_mid_training_it_takes_its_child_along_and_the_next_one_trains(
    ground: Ground, registry: TopicRegistry, tmp_path: Path
) -> None:
    ground.send(waves(4, range(400)))
    log = tmp_path / "log"

    with running(ground.environment(TRAINING__STEPS="100000"), log) as trainer:
        wait_until(lambda: logged(log, "training started"), trainer, log)
        child = logged(log, "training started")[0]["pid"]
        trainer.kill()
        trainer.wait()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while is_running(child):
        assert time.monotonic() < deadline, "the child outlived the trainer"
        time.sleep(0.1)
    assert registry.history() == []
    with running(ground.environment(), log) as trainer:
        wait_until(lambda: registry.champion() is not None, trainer, log)
        stop(trainer)

    with contextlib.closing(ground.open_registry()) as now:
        assert [record.action for record in now.history()] == ["promoted"]


@pytest.mark.parametrize("place", ["mid_upload", "before_decision"])
def test_killed_in_mid_upload_it_leaves_the_champion_and_the_next_one_is_not_held_up(
    ground: Ground, registry: TopicRegistry, tmp_path: Path, place: str
) -> None:
    """Child and trainer die with some records of a model in an open transaction, or with the model and no decision."""
    ground.send(waves(4, range(400)))
    log = tmp_path / "log"

    with running({**ground.environment(), "CRASH_AT": f"{place}:1"}, log) as trainer:
        wait_until(lambda: logged(log, "training ended"), trainer, log)
        trainer.kill()
        trainer.wait()
    assert logged(log, "training ended")[0]["outcome"] == "failed"
    assert registry.champion() is None
    whole = [manifest.version for manifest in registry.manifests()]
    assert len(whole) == (place == "before_decision")
    with running(ground.environment(), log, "--once") as trainer:
        assert trainer.wait(timeout=PATIENCE_SECONDS) == 0, log.read_text()

    with contextlib.closing(ground.open_registry()) as now:  # a new reader begins with all there is
        champion = now.champion()
        assert champion is not None
        assert now.get(champion).manifest.version == champion
        assert {manifest.version for manifest in now.manifests()} == {champion, *whole}


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        ([], "has 0 readings"),
        ([(f"s{k % 3}", START + k // 3, 7.0) for k in range(1_500)], "moves"),
        ([("a", START + k, float(k % 9) if k % 20 == 0 else None) for k in range(400)], "values"),
    ],
    ids=["empty", "constant", "missing"],
)
def test_what_cannot_be_learnt_from_is_a_decision_and_no_promotion(
    ground: Ground, registry: TopicRegistry, tmp_path: Path, readings: list[tuple[str, int, float | None]], reason: str
) -> None:
    ground.send(readings)
    log = tmp_path / "log"

    with running(ground.environment(), log, "--once") as trainer:
        trainer.wait(timeout=PATIENCE_SECONDS)

    (record,) = registry.history()
    assert record.action in {"failed", "refused"}
    assert reason in record.decision["reason"], record.decision
    assert registry.champion() is None


def test_a_model_that_does_worse_live_is_rolled_back_by_itself_and_every_reading_is_answered_once(
    ground: Ground, registry: TopicRegistry, tmp_path: Path
) -> None:
    """A trained champion, and an untrained one put over it by hand with a guard: the trainer brings the first back."""
    environment = ground.environment(ENGINE__BOUNDARY_RECORDS="32", TRAINING__STEPS="60", TRAINING__EVERY="1000d")
    ground.send(waves(4, range(400)))
    logs = tmp_path / "trainer", tmp_path / "worker"

    with running(environment, logs[0]) as trainer, running(environment, logs[1], command="run") as worker:
        wait_until(lambda: registry.champion() is not None, trainer, logs[0])
        good = registry.get(registry.champion() or "")
        ground.send(waves(4, range(400, 440)))
        wait_until(lambda: logged(logs[1], "model takes over"), worker, logs[1])
        untrained = RecurrentForecaster.seeded(good.manifest.hyperparameters, 7)
        bad = ModelArtifact.create(untrained, created=good.manifest.created + 1, data=good.manifest.data)
        registry.put(bad)
        registry.promote(bad.version, {"reason": "test", "guard_steps": 60}, now=time.time())
        wait_until(lambda: logged(logs[1], "trial"), worker, logs[1])
        ground.send(waves(4, range(440, 700)))
        wait_until(lambda: logged(logs[0], "trial ended"), trainer, logs[0])
        wait_until(lambda: len(logged(logs[1], "model takes over")) == 3, worker, logs[1])
        ground.send(waves(4, range(700, 740)))
        stop(trainer)
        wait_until(lambda: verified(environment), worker, logs[1])
        stop(worker)

    with contextlib.closing(ground.open_registry()) as now:
        record = now.history()[-1]
        assert now.champion() == good.version
    assert (record.action, record.version, record.decision["from"]) == ("rolled_back", good.version, bad.version)
    assert record.decision["live"]["gain"] > 0.02
    assert record.decision["live"]["p_value"] < 0.002
    taken_over = [entry["version"] for entry in logged(logs[1], "model takes over")]
    assert taken_over == [good.version, bad.version, good.version]


def verified(environment: Mapping[str, str]) -> bool:
    """Whether each reading has its one answer."""
    command = [sys.executable, "-m", "forecaster", "verify", "--complete"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=240, check=False)
    return done.returncode == 0
