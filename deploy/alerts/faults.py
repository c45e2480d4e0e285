"""One fault for every alert of deploy/prometheus/rules: what is done to a stack that was well until then."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGUSR1

from scene import Feed, Scene, SceneError

Injection = Callable[[Scene, Feed], Iterator[None]]
"""Does its harm up to the first ``yield``; what comes after goes on while the alert is awaited, a step a look."""

SMALL = {"FORECAST__HORIZON": "4", "MODEL__HIDDEN": "8", "STREAMS__RING_STEPS": "48"}
"""Shape of the networks that `fault.harness.make_model` makes."""


@dataclass(frozen=True)
class Fault:
    """What is done, and the alert that has to notice."""

    alert: str
    what: str
    """For the table: one sentence without its end."""
    inject: Injection
    factor: float = 30.0
    """Durations of the rules are divided by this."""
    settings: Mapping[str, str] = field(default_factory=dict)
    rate: float = 100.0
    has_trainer: bool = False


def calm(stream: int, count: int) -> float:
    """A daily round of 24 steps with some noise."""
    rng = random.Random(f"{stream} {count}")
    return round(20.0 + 5.0 * math.sin(2 * math.pi * (count + 5 * stream) / 24) + rng.gauss(0.0, 0.5), 3)


def worker_killed(scene: Scene, feed: Feed) -> Iterator[None]:
    scene.kill("worker-0")
    yield


def worker_gone(scene: Scene, feed: Feed) -> Iterator[None]:
    scene.kill("worker-0")
    scene.forget("worker-0")
    yield


def trainer_gone(scene: Scene, feed: Feed) -> Iterator[None]:
    """Its container dies, and the network's names with it."""
    scene.kill("trainer")
    scene.forget("trainer")
    yield


def worker_killed_again_and_again(scene: Scene, feed: Feed) -> Iterator[None]:
    for _ in range(6):
        before = scene.ask('process_start_time_seconds{job="forecaster"}')
        scene.kill("worker-0")
        scene.worker()
        while scene.ask('process_start_time_seconds{job="forecaster"}') in ([], before):
            yield


def readings_come_faster(scene: Scene, feed: Feed) -> Iterator[None]:
    feed.rate = 3_000.0
    yield


def broker_killed_while_readings_wait(scene: Scene, feed: Feed) -> Iterator[None]:
    feed.streams = 1
    feed.send(6_000)
    scene.until(lambda: scene.above("sum(forecaster_consumer_lag_records)", 500), what="readings wait")
    scene.broker.kill()
    yield


def broker_killed(scene: Scene, feed: Feed) -> Iterator[None]:
    scene.until(lambda: scene.ask("sum(forecaster_consumer_lag_records)") == [0.0], what="nothing waits")
    scene.broker.kill()
    yield


def producers_silent(scene: Scene, feed: Feed) -> Iterator[None]:
    feed.rate = 0.0
    yield


def poison_flood(scene: Scene, feed: Feed) -> Iterator[None]:
    feed.make = lambda stream, count: b'{"stream_id": ' if count % 3 == 0 else calm(stream, count)
    yield


def state_held_by_a_transaction(scene: Scene, feed: Feed) -> Iterator[None]:
    from kafka import KafkaProducer

    with closing(
        KafkaProducer(
            bootstrap_servers=scene.broker.bootstrap, transactional_id="somebody", transaction_timeout_ms=120_000
        )
    ) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        for partition in (0, 1):
            producer.send("forecaster.state", key=b"somebody", value=b"", partition=partition).get(10)
        scene.kill("worker-0")
        scene.worker()
        while True:
            yield


def many_new_streams(scene: Scene, feed: Feed) -> Iterator[None]:
    """In a container that is full with a third more than the worker takes when it is well."""
    (resident,) = scene.ask('process_resident_memory_bytes{job="forecaster"}')
    scene.kill("worker-0")
    scene.worker(prefix=_limited(scene, round(resident / 0.75)))
    scene.until(lambda: scene.above("sum(rate(forecaster_records_total[5s]))", 0), what="it answers again")
    feed.streams, feed.rate = 1_000_000, 1_000.0
    while True:
        yield


def name_taken(scene: Scene, feed: Feed) -> Iterator[None]:
    _take_name(scene)
    yield


def machine_stalls(scene: Scene, feed: Feed) -> Iterator[None]:
    while True:
        scene.kill("worker-0", SIGSTOP)
        yield from _pause(2.5)
        scene.kill("worker-0", SIGCONT)
        yield from _pause(3.0)


def readings_against_the_forecast(scene: Scene, feed: Feed) -> Iterator[None]:
    walks: dict[int, float] = {}

    def walk(stream: int, count: int) -> float:
        walks[stream] = walks.get(stream, 20.0) + random.Random(f"{stream} {count}").gauss(0.0, 1.0)
        return round(walks[stream], 3)

    feed.make = walk
    yield


def gateway_repeats(scene: Scene, feed: Feed) -> Iterator[None]:
    feed.make = lambda stream, count: 20.0
    yield


def trainings_killed(scene: Scene, feed: Feed) -> Iterator[None]:
    trainer = scene.processes["trainer"]
    children = Path(f"/proc/{trainer.pid}/task/{trainer.pid}/children")
    for _ in range(3):
        scene.kill("trainer", SIGUSR1)
        while not (found := children.read_text().split()):
            yield
        os.kill(int(found[0]), SIGKILL)
        while children.read_text().split():
            yield


def model_of_last_month(scene: Scene, feed: Feed) -> Iterator[None]:
    _put_models(scene, age_days=20)
    yield


def worse_model_promoted(scene: Scene, feed: Feed) -> Iterator[None]:
    _put_models(scene, guard_steps=2_000)  # the mixture answers for most of the harm: that much is seen late
    yield


def trial_without_trainer(scene: Scene, feed: Feed) -> Iterator[None]:
    _put_models(scene, trial_began_hours_ago=3)
    yield


def worker_with_a_registry_of_its_own(scene: Scene, feed: Feed) -> Iterator[None]:
    from fault.harness import make_registry

    make_registry(scene.directory / "models")
    _put_models(scene)
    scene.worker(
        "worker-1", REGISTRY__KIND="directory", REGISTRY__DIRECTORY=str(scene.directory / "models"),
        KAFKA__INSTANCE_ID="worker-1",
    )  # fmt: skip
    yield


def _pause(seconds: float) -> Iterator[None]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield


def _take_name(scene: Scene) -> None:
    from kafka import KafkaProducer

    with closing(
        KafkaProducer(bootstrap_servers=scene.broker.bootstrap, transactional_id="forecaster-worker-0")
    ) as producer:
        producer.init_transactions()


def _limited(scene: Scene, limit_bytes: int) -> tuple[str, ...]:
    """A command that runs another one in a control group of its own, with this much memory, as a container does.

    Raises:
        SceneError: not root, or control groups cannot be written.
    """
    mounted = Path("/sys/fs/cgroup")
    is_second = (mounted / "cgroup.controllers").exists()
    home = mounted if is_second else mounted / "memory"
    group = home / f"forecaster-alerts-{os.getpid()}"
    try:
        group.mkdir(exist_ok=True)
        (group / ("memory.max" if is_second else "memory.limit_in_bytes")).write_text(str(limit_bytes))
    except OSError as error:
        raise SceneError(f"No memory can be limited here: {error}") from error
    scene.at_the_end(group.rmdir)
    enter = f'echo $$ > {group}/cgroup.procs && mount --bind {group} {home} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", enter, "sh")


def _put_models(
    scene: Scene, *, age_days: float = 0.0, guard_steps: int = 0, trial_began_hours_ago: float | None = None
) -> None:
    """A network as champion and, where asked for, one with wild weights under guard or on trial."""
    from fault.harness import make_model

    from forecaster.models.artifact import ModelArtifact
    from forecaster.models.network import RecurrentForecaster
    from forecaster.stores.registry_topic import TopicRegistry
    from forecaster.transports.kafka_client import KafkaConnection
    from forecaster.transports.kafka_registry import KafkaModelLog

    created = time.time() - age_days * 86_400
    usual = make_model(1).manifest
    network = RecurrentForecaster.seeded(usual.hyperparameters, 1)
    champion = ModelArtifact.create(network, created=created, data=usual.data)
    for weight in network.parameters():
        weight.data *= 8.0
    wild = ModelArtifact.create(network, created=created, data=usual.data)
    connection = KafkaConnection(bootstrap_servers=scene.broker.bootstrap, request_timeout_seconds=10.0)
    log = KafkaModelLog(connection, topic="forecaster.models", transactional_id="forecaster-models")
    with closing(TopicRegistry(log)) as registry:
        for model in (champion, wild):
            registry.put(model)
        registry.promote(champion.version, {"reason": "injected"}, now=created)
        if guard_steps:
            scene.until(lambda: scene.above(_serves(champion.version), 0), what="the first model serves")
            registry.promote(wild.version, {"reason": "injected", "guard_steps": guard_steps}, now=time.time())
        if trial_began_hours_ago is not None:
            began = time.time() - 3_600 * trial_began_hours_ago
            registry.challenge(wild.version, {"shadow_steps": 1_000_000}, now=began)


def _serves(version: str) -> str:
    return f'count(forecaster_model_info{{job="forecaster", version="{version}"}})'


FAULTS = (
    Fault("ForecasterDown", "the only worker is killed (SIGKILL)", worker_killed),
    Fault("ForecasterAbsent", "the only worker is killed and taken out of service discovery", worker_gone),
    Fault(
        "ForecasterRestarts",
        "a worker is killed and started again, six times",
        worker_killed_again_and_again,
        factor=12,
    ),
    Fault(
        "ForecasterLagGrows",
        "a worker that takes twenty readings at a time, and commits after them, gets 3,000 a second, where it had 5",
        readings_come_faster,
        rate=5.0,
        settings={"COMMIT__INTERVAL_MS": "0", "ENGINE__MAX_POLL_RECORDS": "20"},
    ),
    Fault(
        "ForecasterNoForecasts",
        "the broker is killed while some thousand readings wait",
        broker_killed_while_readings_wait,
    ),
    Fault("ForecasterNoReadings", "producers fall silent", producers_silent),
    Fault("ForecasterDeadLetters", "every third record is no JSON", poison_flood),
    Fault(
        "ForecasterRestoreTooLong",
        "another producer leaves a transaction open on the state topic, and the worker is killed and started again",
        state_held_by_a_transaction,
    ),
    Fault(
        "ForecasterNearMemoryLimit",
        "a worker in a control group with room for a third more than it needs; 1,000 new streams a second",
        many_new_streams,
    ),
    Fault("ForecasterFenced", "another producer takes the worker's transactional id", name_taken),
    Fault(
        "ForecasterTransactionsAborted",
        "the worker is stopped (SIGSTOP) for 2.5 s again and again, with a session of 1 s",
        machine_stalls,
        settings={"KAFKA__SESSION_TIMEOUT_SECONDS": "1"},
        factor=15,
    ),
    Fault("ForecasterWorseThanNaive", "readings become random walks", readings_against_the_forecast),
    Fault("ForecasterCoverageOff", "all sensors repeat one value", gateway_repeats),
    Fault(
        "ForecasterManyAnomalies",
        "all sensors repeat one value",
        gateway_repeats,
        settings={"ANOMALIES__FLAT_READINGS": "20"},
    ),
    Fault(
        "ForecasterTrainerDown",
        "the trainer is killed and taken out of service discovery",
        trainer_gone,
        has_trainer=True,
    ),
    Fault(
        "ForecasterTrainingFails",
        "the child that trains is killed, three times",
        trainings_killed,
        has_trainer=True,
        settings={"TRAINING__MIN_WALL_SECONDS": "0", "TRAINING__EVERY": "52w"},
    ),
    Fault("ForecasterModelStale", "a model made 20 days ago is promoted", model_of_last_month),
    Fault(
        "ForecasterRolledBack",
        "a network with weights eight times too large is promoted, under a guard of 2,000 readings",
        worse_model_promoted,
        rate=400.0,
        has_trainer=True,
        settings={"TRAINING__EVERY": "52w", "TRAINING__MIN_READINGS": "1000000000"},
    ),
    Fault("ForecasterTrialStuck", "a trial begun three hours ago, and no trainer to decide it", trial_without_trainer),
    Fault(
        "ForecasterVersionsDiffer",
        "a second worker has a registry of its own, with another model",
        worker_with_a_registry_of_its_own,
    ),
)
