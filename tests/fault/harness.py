"""Workers under a supervisor, messy readings for them, a reader beside them, and what they wrote, byte by byte.

A `Ground` is one readings topic. A `Crew` is a consumer group of workers with answer and state topics of its own, so
that several crews answer the same readings: one is tortured, one is left alone, and their answers have to be equal.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from factories import START
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from forecaster.models.artifact import DataSpan, ModelArtifact
from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.network import RecurrentForecaster
from forecaster.series.encoder import SeriesEncoder
from forecaster.stores.registry_directory import DirectoryRegistry

HORIZON, RING_STEPS, HIDDEN = 4, 48, 8
LEVELS = (0.1, 0.5, 0.9)
LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 60.0
"""For answers to a test's own questions while brokers die."""
IS_LONG = bool(os.environ.get("LONG_TESTS"))
CLIENT = os.environ.get("FAULT_CLIENT", "kafka-python")
"""`kafka.client` of every worker that a test does not give another."""
"""The long form of the suite: many more accidents, more streams."""
PARTITIONS = 8
BOUNDARY_RECORDS = 64
STREAMS = 240 if IS_LONG else 60

MakeGround = Callable[..., "Ground"]

Answer = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]
"""Key, value and headers of an answer, without where it stands: control records make offsets differ."""


class MessyStreams:
    """Readings of many streams without end: gaps, nulls, repeats, conflicts, late ones, no JSON, tombstones.

    Args:
        streams: how many; every fifth has a step of its own.
    """

    def __init__(self, streams: int, *, seed: int) -> None:
        self._rng = random.Random(seed)
        self._streams = [
            _Stream(f"site-{k % 7}/sensor-{k}", self._rng.choice([0.5, 1.0, 60.0])) for k in range(streams)
        ]

    def take(self, count: int) -> list[tuple[bytes, bytes | None]]:
        """Key and value of about this many further records, each stream's in the order they were sent."""
        sent: list[tuple[bytes, bytes | None]] = []
        while len(sent) < count:
            stream = self._rng.choice(self._streams)
            for _ in range(1 + self._rng.randrange(6) * (self._rng.random() < 0.2)):
                sent += stream.next_records(self._rng)
        return sent


class _Stream:
    def __init__(self, name: str, step: float) -> None:
        self._key, self._step = name.encode(), step
        self._time, self._walk, self._count = START, 0.0, 0
        self._name = name

    def next_records(self, rng: random.Random) -> list[tuple[bytes, bytes | None]]:
        skipped = rng.choices([0, 1, 3, 9, 60], weights=[90, 4, 3, 2, 1])[0]
        self._time = round(self._time + self._step * (1 + skipped + 0.1 * rng.random()), 6)
        self._walk += rng.gauss(0.0, 1.0)
        self._count += 1
        value = None if rng.random() < 0.05 else 20.0 + 5.0 * float(np.sin(self._count / 6)) + self._walk
        body: dict[str, Any] = {"stream_id": self._name, "timestamp": self._time, "value": value}
        records: list[tuple[bytes, bytes | None]] = [(self._key, json.dumps(body).encode())]
        accident = rng.random()
        if accident < 0.02:
            records.append(records[-1])
        elif accident < 0.04:
            records.append((self._key, json.dumps({**body, "value": 77.5}).encode()))
        elif accident < 0.06:
            records.append((self._key, json.dumps({**body, "timestamp": self._time - 2.3 * self._step}).encode()))
        elif accident < 0.07:
            records.append((self._key, b'{"stream_id": '))
        elif accident < 0.072:
            records.append((self._key, None))
        return records


def make_model(seed: int) -> ModelArtifact:
    """An untrained network that fits the crews' settings; its answers are arbitrary and always the same."""
    names = SeriesEncoder(ring_steps=RING_STEPS, horizon=HORIZON, covariates=0).feature_names
    hp = HyperParameters(
        cell="gru",
        hidden=HIDDEN,
        head_width=16,
        horizon=HORIZON,
        quantile_levels=LEVELS,
        feature_names=names,
        used_features=names,
    )
    return ModelArtifact.create(
        RecurrentForecaster.seeded(hp, seed),
        created=START + seed,
        data=DataSpan(first=START, last=START + 1, streams=1, readings=2),
        seed=seed,
    )


def make_registry(directory: Path, *, models: int = 1) -> tuple[DirectoryRegistry, list[str]]:
    """A registry with this many models, the first of them promoted, and their versions."""
    registry, artifacts = DirectoryRegistry(directory), [make_model(seed) for seed in range(1, models + 1)]
    for artifact in artifacts:
        registry.put(artifact)
    registry.promote(artifacts[0].version, {"reason": "test"}, now=START)
    return registry, [artifact.version for artifact in artifacts]


class Ground:
    """A readings topic and a producer that fills it."""

    def __init__(self, bootstrap: str, *, partitions: int, streams: int, seed: int, replication: int = 1) -> None:
        self.bootstrap, self.partitions, self.replication = bootstrap, partitions, replication
        self.readings = f"readings-{uuid.uuid4().hex[:8]}"
        self.sent = 0
        self._input = MessyStreams(streams, seed=seed)
        self._lock = threading.Lock()
        self.make_topics({self.readings: {}})
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap, acks="all", linger_ms=5, delivery_timeout_ms=120_000, request_timeout_ms=10_000
        )
        self._feeding: threading.Thread | None = None
        self._over = threading.Event()

    def make_topics(self, topics: Mapping[str, dict[str, str]]) -> None:
        """Topics with the ground's number of partitions; values are their settings."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        shape = {"num_partitions": self.partitions, "replication_factor": self.replication}
        try:
            admin.create_topics(
                {name: {**shape, "configs": configs} for name, configs in topics.items()}, wait_for_metadata=True
            )
        finally:
            admin.close()

    def feed(self, count: int) -> None:
        """Write about this many further records and wait until the broker has them."""
        records = self._input.take(count)
        futures = [self._producer.send(self.readings, key=key, value=value) for key, value in records]
        self._producer.flush(timeout=120)
        for future in futures:
            future.get(timeout=1)
        self.sent += len(records)

    def start_feeding(self, records_per_second: int) -> None:
        """Write on a thread until `stop_feeding`."""

        def feed() -> None:
            while not self._over.wait(0.25):
                self.feed(max(records_per_second // 4, 1))

        self._over.clear()
        self._feeding = threading.Thread(target=feed, name="feed", daemon=True)
        self._feeding.start()

    def stop_feeding(self) -> None:
        """End the thread. Idempotent."""
        self._over.set()
        if self._feeding is not None:
            self._feeding.join(150)
            assert not self._feeding.is_alive(), "the broker took no readings"
            self._feeding = None

    def close(self) -> None:
        """Release the producer."""
        self.stop_feeding()
        self._producer.close(timeout=5)


@dataclass
class Slot:
    """One worker's place: the process of the moment, and how those before it ended."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    place: str = ""
    """Crash point armed in the process of the moment."""
    is_held: bool = False
    """Not to be started again when it ends."""
    was_shot: bool = False
    """A test sent SIGKILL to the process of the moment."""
    log_begins: int = 0
    """Where the log of the process of the moment begins."""
    endings: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    """What those said that ended by themselves in an error."""


class Crew:
    """Workers of one consumer group, each started again when it ends, and the topics they write to.

    Args:
        workers: how many.
        directory: for logs.
        registry: directory of models.
        places: crash points to arm, one a start, as ``after_flush:3``; one at which the process did not come to die
            is armed again later.
        settings: further environment, without ``FORECASTER_``.
    """

    def __init__(
        self,
        ground: Ground,
        *,
        workers: int,
        directory: Path,
        registry: Path,
        places: Sequence[str] = (),
        delivery: str = "exactly_once",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.ground = ground
        name = uuid.uuid4().hex[:8]
        self.group_id = f"crew-{name}"
        self.forecasts, self.dead_letters, self.state = f"forecasts-{name}", f"dlq-{name}", f"state-{name}"
        self.anomalies = f"anomalies-{name}"
        self.slots = [Slot(number) for number in range(workers)]
        self.died_at: Counter[str] = Counter()
        """Crash points at which processes died."""
        self.killed = 0
        """Processes killed at random."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._places = deque(places)
        self._registry = registry
        self._delivery = delivery
        self._settings = dict(settings or {})
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        ground.make_topics(
            {self.forecasts: {}, self.anomalies: {}, self.dead_letters: {}, self.state: {"cleanup.policy": "compact"}}
        )

    def __enter__(self) -> Crew:
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(10)
        for slot in self.slots:
            if slot.process is not None and slot.process.poll() is None:
                slot.process.kill()
                slot.process.wait()

    @property
    def places_left(self) -> list[str]:
        """Crash points at which no process has died yet."""
        with self._lock:
            return [*self._places, *(slot.place for slot in self.slots if slot.place)]

    @property
    def endings(self) -> Counter[str]:
        """How processes ended: ``-9`` killed, ``0`` told to, ``1`` by themselves."""
        with self._lock:
            return Counter(ending for slot in self.slots for ending in slot.endings)

    @property
    def reasons(self) -> list[str]:
        """What processes said that ended by themselves in an error, in no order."""
        with self._lock:
            return [reason for slot in self.slots for reason in slot.reasons]

    def environment(self, number: int = 0) -> dict[str, str]:
        """Of a worker, and of any other command about this crew."""
        ours = {
            "DELIVERY": self._delivery,
            "KAFKA__BOOTSTRAP_SERVERS": self.ground.bootstrap,
            "KAFKA__CLIENT": CLIENT,
            "KAFKA__GROUP_ID": self.group_id,
            "KAFKA__INSTANCE_ID": f"worker-{number}",
            "KAFKA__SESSION_TIMEOUT_SECONDS": "3",
            "KAFKA__REQUEST_TIMEOUT_SECONDS": "10",
            "TOPICS__READINGS": self.ground.readings,
            "TOPICS__FORECASTS": self.forecasts,
            "TOPICS__DEAD_LETTERS": self.dead_letters,
            "TOPICS__ANOMALIES": self.anomalies,
            "COMMIT__INTERVAL_MS": "100",
            "ENGINE__BOUNDARY_RECORDS": str(BOUNDARY_RECORDS),
            "FORECAST__HORIZON": str(HORIZON),
            "MODEL__HIDDEN": str(HIDDEN),
            "STREAMS__RING_STEPS": str(RING_STEPS),
            "TRAINING__MODE": "off",
            "ANOMALIES__GAP_STEPS": "3",  # so that streams as young as these have anomalies
            "TELEMETRY__PORT": "0",
            "REGISTRY__DIRECTORY": str(self._registry),
        }
        if self._delivery == "exactly_once":
            ours |= {"TOPICS__STATE": self.state, "STATE__FLUSH_SECONDS": "2"}
        ours |= self._settings
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
        return {**inherited, **{f"FORECASTER_{name}": value for name, value in ours.items()}}

    def signal(self, number: int, how: signal.Signals) -> bool:
        """Send a signal to the worker in this slot; False when none runs there now."""
        with self._lock:
            process = self.slots[number].process
            if process is None or process.poll() is not None:
                return False
            process.send_signal(how)
            if how is signal.SIGKILL:
                self.killed += 1
                self.slots[number].was_shot = True
            return True

    def stop(self, number: int, *, seconds: float = 60.0) -> int:
        """SIGTERM once the worker is up, and leave the slot empty; the exit code."""
        slot = self.slots[number]
        self.wait_until(lambda: self.is_up(number), seconds=seconds, what=f"worker {number} up")
        with self._lock:
            slot.is_held = True
        self.signal(number, signal.SIGTERM)
        self.wait_until(lambda: slot.process is None, seconds=seconds, what=f"worker {number} ended")
        return int(slot.endings[-1])

    def end_of(self, number: int, *, seconds: float = 60.0) -> tuple[int, str]:
        """Wait until the process in this slot has ended by itself, and leave the slot empty; exit code and its log."""
        slot = self.slots[number]
        self.wait_until(lambda: slot.process is not None, seconds=seconds, what=f"worker {number} begun")
        with self._lock:
            slot.is_held = True
        self.wait_until(lambda: slot.process is None, seconds=seconds, what=f"worker {number} ended by itself")
        return int(slot.endings[-1]), self.log(number)

    def is_stopped(self, number: int) -> bool:
        """The worker in this slot has met SIGSTOP and nothing else since."""
        with self._lock:
            process = self.slots[number].process
            if process is None or process.poll() is not None:
                return False
            return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def log(self, number: int) -> str:
        """What the process of the moment in this slot, or else the last one, has logged."""
        slot = self.slots[number]
        path = self._log(slot)
        return path.read_bytes()[slot.log_begins :].decode(errors="replace") if path.exists() else ""

    def is_up(self, number: int) -> bool:
        """The worker in this slot has said that it started."""
        with self._lock:
            slot = self.slots[number]
            if slot.process is None or slot.process.poll() is not None:
                return False
            return b'"message":"started"' in self._log(slot).read_bytes()[slot.log_begins :].replace(b'": "', b'":"')

    def hold(self, number: int) -> None:
        """Do not start a worker again when it ends."""
        with self._lock:
            self.slots[number].is_held = True

    def release(self, number: int) -> None:
        """Start a stopped worker again."""
        with self._lock:
            self.slots[number].is_held = False

    def disarm(self) -> None:
        """Arm no crash points from now on; those armed stay."""
        with self._lock:
            self._places.clear()

    def wait_until(self, condition: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Return when the condition holds.

        Raises:
            AssertionError: it does not in time; the message holds the end of the workers' logs.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            hopeless = [slot.number for slot in self.slots if slot.endings[-8:].count("1") == 8]
            assert not hopeless, f"workers {hopeless} end again and again\n{self.explain()}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{self.explain()}"
            time.sleep(LOOK_SECONDS)

    def wait_until_done(self, *, seconds: float) -> None:
        """Return when the group has committed the end of every partition of readings."""
        self.wait_until(lambda: self.lag() == 0, seconds=seconds, what="all readings committed")

    def lag(self) -> int:
        """Readings the group has not committed."""
        return sum(self.ends()) - sum(self.committed())

    def ends(self) -> list[int]:
        """Where readings end now, by partition."""
        return self._ask(lambda consumer, partitions: [consumer.end_offsets([tp])[tp] for tp in partitions])

    def committed(self) -> list[int]:
        """The group's offsets, by partition; 0 where there is none."""
        return self._ask(lambda consumer, partitions: [consumer.committed(tp) or 0 for tp in partitions])

    def _ask(self, question: Callable[[KafkaConsumer, list[TopicPartition]], list[int]]) -> list[int]:
        partitions = [TopicPartition(self.ground.readings, number) for number in range(self.ground.partitions)]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            consumer = KafkaConsumer(bootstrap_servers=self.ground.bootstrap, group_id=self.group_id)
            try:
                return question(consumer, partitions)
            except KafkaError:
                if time.monotonic() > deadline:  # the broker asked may be one that a test has killed
                    raise
            finally:
                consumer.close(autocommit=False)
            time.sleep(LOOK_SECONDS)

    def verify(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """``forecaster verify`` of what this crew has done; ``--complete`` where it should be done with all."""
        return self.run("verify", *flags)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command of the program about this crew."""
        whole = [sys.executable, "-m", "forecaster", *command]
        return subprocess.run(whole, env=self.environment(), capture_output=True, text=True, timeout=600, check=False)

    def answers(self) -> dict[tuple[str, int], list[Answer]]:
        """All committed answers by kind and partition, in order."""
        topics = {self.forecasts: "forecasts", self.dead_letters: "dead letters", self.anomalies: "anomalies"}
        found: dict[tuple[str, int], list[Answer]] = {}
        consumer = KafkaConsumer(bootstrap_servers=self.ground.bootstrap, isolation_level="read_committed")
        try:
            partitions = [TopicPartition(t, n) for t in topics for n in range(self.ground.partitions)]
            left = {tp: end for tp, end in consumer.end_offsets(partitions).items() if end}
            consumer.assign(list(left))
            consumer.seek_to_beginning()
            while any(consumer.position(tp) < end for tp, end in left.items()):
                for tp, records in consumer.poll(timeout_ms=500).items():
                    found.setdefault((topics[tp.topic], tp.partition), []).extend(map(_answer, records))
        finally:
            consumer.close()
        return found

    def explain(self) -> str:
        """Ends of the workers' logs."""
        parts = [f"died at {dict(self.died_at)}, left {self.places_left}, endings {dict(self.endings)}"]
        for slot in self.slots:
            log = self._log(slot)
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            parts.append(f"--- worker {slot.number}: {slot.endings[-8:]}\n" + "\n".join(lines[-12:]))
        return "\n".join(parts)

    def _log(self, slot: Slot) -> Path:
        return self.directory / f"worker-{slot.number}.log"

    def _supervise(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            with self._lock:
                for slot in self.slots:
                    self._look_after(slot)

    def _look_after(self, slot: Slot) -> None:
        if slot.process is not None and slot.process.poll() is not None:
            slot.endings.append(str(slot.process.returncode))
            if slot.process.returncode > 0:
                slot.reasons.append(f"{slot.process.returncode}: {_reason(self.log(slot.number))}")
            if slot.place:
                if slot.process.returncode == -signal.SIGKILL and not slot.was_shot:
                    self.died_at[slot.place.partition(":")[0]] += 1
                else:
                    self._places.append(slot.place)
            slot.process, slot.place, slot.was_shot = None, "", False
        if slot.process is None and not slot.is_held and not self._over.is_set():
            slot.place = self._places.popleft() if self._places else ""
            environment = self.environment(slot.number)
            if slot.place:
                environment["CRASH_AT"] = slot.place
            with self._log(slot).open("ab") as output:
                slot.log_begins = output.tell()
                slot.process = subprocess.Popen(
                    [sys.executable, "-m", "forecaster", "run"],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )


def _reason(log: str) -> str:
    """The line in which a command says why it ends; of a bug the last of its traceback, else the last there is."""
    lines = [line for line in log.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("forecaster run: ")]
    return (told or lines or ["nothing"])[-1]


class Reader:
    """A consumer beside the crew from the start: what it has seen can never be taken back.

    Its answers must in the end be exactly those of a reader that comes when all is over.
    """

    def __init__(self, crew: Crew) -> None:
        self.seen: dict[tuple[str, int], list[Answer]] = {}
        self._topics = {
            crew.forecasts: "forecasts",
            crew.dead_letters: "dead letters",
            crew.anomalies: "anomalies",
        }
        self._partitions = [TopicPartition(t, n) for t in self._topics for n in range(crew.ground.partitions)]
        self._bootstrap = crew.ground.bootstrap
        self._over = threading.Event()
        self._failure: KafkaError | None = None
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)
        self._thread.start()

    def finish(self, expected: Mapping[tuple[str, int], Sequence[Answer]], *, seconds: float = 30.0) -> None:
        """Return when as much as expected was seen; then compare it with `seen`.

        Raises:
            AssertionError: less was seen in time, or the client failed.
        """
        deadline = time.monotonic() + seconds
        count = sum(map(len, expected.values()))
        while (found := sum(map(len, self.seen.values()))) < count and self._thread.is_alive():
            assert time.monotonic() < deadline, f"the reader beside saw {found} of {count} answers"
            time.sleep(LOOK_SECONDS)
        self._over.set()
        self._thread.join(30)
        assert self._failure is None, self._failure

    def _read(self) -> None:
        consumer = KafkaConsumer(
            bootstrap_servers=self._bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        try:
            consumer.assign(self._partitions)
            consumer.seek_to_beginning()
            while not self._over.is_set():
                for tp, records in consumer.poll(timeout_ms=200).items():
                    self.seen.setdefault((self._topics[tp.topic], tp.partition), []).extend(map(_answer, records))
        except KafkaError as error:
            self._failure = error
        finally:
            consumer.close()


def differences(
    found: Mapping[tuple[str, int], Sequence[Answer]], right: Mapping[tuple[str, int], Sequence[Answer]]
) -> list[str]:
    """Where the answers of two crews differ: a few lines for people, none where they are equal byte by byte."""
    lines = []
    for place in sorted({*found, *right}):
        ours, theirs = found.get(place, ()), right.get(place, ())
        if len(ours) != len(theirs):
            lines.append(f"{place}: {len(ours)} answers, expected {len(theirs)}")
        wrong = [at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other]
        if wrong:
            at = wrong[0]
            lines.append(f"{place}: {len(wrong)} differ, the first is number {at}:\n  {ours[at]!r}\n  {theirs[at]!r}")
    return lines


def _answer(record: Any) -> Answer:
    return record.key, record.value, tuple(record.headers)


def finish(crew: Crew, *, seconds: float = 120.0) -> None:
    """No more accidents: all readings are answered, then all workers end well."""
    crew.ground.stop_feeding()
    crew.disarm()
    crew.wait_until_done(seconds=seconds)
    codes = {slot.number: crew.stop(slot.number) for slot in crew.slots}
    assert set(codes.values()) <= {0, -signal.SIGKILL}, f"exit codes {codes}\n{crew.explain()}"


def assert_exactly_once(crew: Crew) -> None:
    done = crew.verify("--complete")
    assert done.returncode == 0, done.stdout + done.stderr + crew.explain()
    _report(crew, "audited")


def assert_as_if_nothing_had_happened(
    crew: Crew, directory: Path, registry: Path, settings: Mapping[str, str] | None = None
) -> None:
    """A single worker that nobody disturbs answers the same readings with the same bytes in the same order."""
    answers = crew.answers()
    patient = {"KAFKA__SESSION_TIMEOUT_SECONDS": "30", **(settings or {})}  # a busy machine is no disturbance
    alone = Crew(crew.ground, workers=1, directory=directory / "undisturbed", registry=registry, settings=patient)
    with alone as undisturbed:
        finish(undisturbed, seconds=600)
        assert undisturbed.endings == {"0": 1}
        expected = undisturbed.answers()
    assert not (found := differences(answers, expected)), "\n".join([*found, crew.explain()])
    assert sum(map(len, answers.values())) > 0
    _report(crew, "byte-equal")


def _report(crew: Crew, what: str) -> None:
    """Add to what the test under way has seen, for the line that it leaves when it has passed."""
    facts = reported.setdefault(os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0], {"found": []})
    facts["found"].append(what)
    facts |= {
        "readings": crew.ground.sent,
        "answers": sum(map(len, crew.answers().values())),
        "killed_at_places": dict(crew.died_at),
        "killed_at_random": crew.killed,
        "endings": dict(crew.endings),
        "reasons": crew.reasons,
        "workers": len(crew.slots),
    }


reported: dict[str, dict[str, Any]] = {}
"""What tests have seen, by their ids."""
