"""Promotion, roll-back and trials on the models topic, under load and among kills: who follows, and what it changes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest
from fault.harness import (
    Crew,
    MakeGround,
    assert_as_if_nothing_had_happened,
    assert_exactly_once,
    finish,
    make_model,
)
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from forecaster.engine.switches import read_switches
from forecaster.experts.recurrent import team
from forecaster.models.decisions import RegistryRecord
from forecaster.stores.registry_topic import TopicRegistry
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_registry import KafkaModelLog

PARTITIONS = 2
RATE = 60
_NEWEST = 60  # of streams too young for a network some forecasts name none
PATIENCE_SECONDS = 240.0


def make_models_topic(bootstrap: str) -> str:
    name = f"models-{uuid.uuid4().hex[:8]}"
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        options = {"num_partitions": 1, "replication_factor": 1, "configs": {"cleanup.policy": "compact"}}
        admin.create_topics({name: options}, wait_for_metadata=True)
    return name


def open_registry(crew: Crew, models: str) -> TopicRegistry:
    connection = KafkaConnection(bootstrap_servers=crew.ground.bootstrap, request_timeout_seconds=10.0)
    return TopicRegistry(KafkaModelLog(connection, topic=models, transactional_id=f"{crew.group_id}-models"))


def newest_models(crew: Crew) -> set[str | None]:
    """Who answered last, in each partition: the newest forecast that names a model, of the last few."""
    consumer = KafkaConsumer(bootstrap_servers=crew.ground.bootstrap, isolation_level="read_committed")
    newest: dict[TopicPartition, str | None] = {
        TopicPartition(crew.forecasts, number): None for number in range(crew.ground.partitions)
    }
    with contextlib.closing(consumer):
        consumer.assign(list(newest))
        ends = consumer.end_offsets(list(newest))
        for tp, end in ends.items():
            consumer.seek(tp, max(end - _NEWEST, 0))
        while any(consumer.position(tp) < end for tp, end in ends.items()):
            for tp, records in consumer.poll(timeout_ms=200).items():
                models = [json.loads(record.value)["model"] for record in records]
                newest[tp] = next((model for model in reversed(models) if model), newest[tp])
    return set(newest.values())


def wait_for(crew: Crew, condition: Callable[[], bool], what: str) -> None:
    crew.wait_until(condition, seconds=PATIENCE_SECONDS, what=what)


def done(process: subprocess.CompletedProcess[str]) -> None:
    assert process.returncode == 0, process.stderr


@contextlib.contextmanager
def trainer(environment: Mapping[str, str], log: Path):
    with log.open("ab") as output:
        command = [sys.executable, "-m", "forecaster", "trainer"]
        process = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("keeps_former", [False, True])
def test_workers_follow_the_models_topic_and_no_answer_depends_on_a_trial(
    make_ground: MakeGround, tmp_path: Path, keeps_former: bool
) -> None:
    """By hand to the second model and back; then a trial of it, decided by a trainer, while a worker is killed.

    In the end every reading has one answer, and a run that follows the recorded switches, with no trial and nobody
    killed, gives the same bytes.
    """
    ground = make_ground(partitions=PARTITIONS, streams=20)
    ground.feed(400)
    models = make_models_topic(ground.bootstrap)
    first, second = make_model(1), make_model(2)
    settings = {
        "REGISTRY__KIND": "topic",
        "TOPICS__MODELS": models,
        "TRAINING__MODE": "service",
        "TRAINING__MIN_READINGS": "1000000000",
        "PROMOTION__GUARD_STEPS": "6",
        "PROMOTION__PATIENCE": str(PATIENCE_SECONDS),
        "PROMOTION__KEEP_FORMER": str(keeps_former),
    }
    with (
        Crew(ground, workers=2, directory=tmp_path / "crew", registry=tmp_path / "none", settings=settings) as crew,
        contextlib.closing(open_registry(crew, models)) as registry,
    ):
        for model in (first, second):
            registry.put(model)
        registry.promote(first.version, {"reason": "test"}, now=time.time())
        ground.start_feeding(RATE)
        wait_for(crew, lambda: sum(crew.committed()) > 0, "first answers")
        wait_for(crew, lambda: newest_models(crew) == {first.version}, "the first model answers")

        done(crew.run("models", "promote", second.version, "--reason", "test"))
        wait_for(crew, lambda: newest_models(crew) == {second.version}, "the second model answers")
        done(crew.run("models", "rollback", "--reason", "test"))
        wait_for(crew, lambda: newest_models(crew) == {first.version}, "the first model answers again")

        registry.challenge(second.version, {"shadow_steps": 12}, now=time.time())
        trial = registry.trial()
        assert trial is not None
        wait_for(crew, lambda: bool(registry.live_scores(trial)), "a worker tells of the trial")
        crew.signal(0, SIGKILL)
        with trainer(crew.environment(9), tmp_path / "trainer.log") as process:
            wait_for(crew, lambda: _ending(registry.history(), trial.number) is not None, "the trial is decided")
            wait_for(crew, lambda: registry.trial() is None, "and what follows from it")
            process.send_signal(SIGTERM)
            assert process.wait(60) == 0, (tmp_path / "trainer.log").read_text()
        champion = registry.champion()
        wait_for(crew, lambda: newest_models(crew) == {champion}, "whoever won answers")
        finish(crew)

        ending = _ending(registry.history(), trial.number)
        assert ending is not None
        assert ending.action in {"promoted", "refused"}
        assert ending.decision["live"]["steps"] >= 12
        is_no_worse = ending.decision["live"]["gain"] >= 0
        assert (ending.action == "promoted") == is_no_worse, ending.decision
        assert_exactly_once(crew)
        recorded = tmp_path / "recorded.jsonl"
        recorded.write_text(crew.run("state", "switches").stdout)
        served = [switch.version for switch in read_switches(recorded) if switch.partition == 0]
        beside = first.version if keeps_former else None
        assert served[:3] == [first.version, team(second.version, beside), first.version]
        follow = {**settings, "ENGINE__SWITCHES": str(recorded), "TRAINING__MODE": "off"}
        assert_as_if_nothing_had_happened(crew, tmp_path, tmp_path / "none", follow)


def _ending(history: list[RegistryRecord], trial: int) -> RegistryRecord | None:
    """The decision that ended a trial."""
    return next((record for record in history if record.decision.get("trial") == trial), None)
