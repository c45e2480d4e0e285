"""The daemon: what it serves, what it tells, and that it leaves nothing open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import msgspec
import pytest
from factories import START, make_pipeline, make_raw, make_task

from forecaster.clock import ManualClock
from forecaster.daemon import Daemon, Training
from forecaster.engine.checkpoint import Checkpoint
from forecaster.engine.delivery import AtLeastOnce
from forecaster.engine.inspection import Inspector
from forecaster.engine.pipeline import Pipeline
from forecaster.engine.report import RecoveryReport, Restoring
from forecaster.engine.turns import Pace
from forecaster.engine.worker import Worker
from forecaster.errors import ArtifactMismatch, DeliveryFailed, TrainingFailed, TransportError
from forecaster.experts.former import FormerChampion
from forecaster.experts.recurrent import RecurrentExpert, model_number, team
from forecaster.models.artifact import DataSpan, ModelArtifact
from forecaster.models.decisions import LiveScore, Trial
from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.network import RecurrentForecaster
from forecaster.records import RawRecord
from forecaster.series.groups import DEFAULT, GroupRule, GroupRules
from forecaster.stores.history_buffer import HistoryBuffer
from forecaster.telemetry.collectors import Collectors
from forecaster.telemetry.http import StreamQuery
from forecaster.telemetry.watch import WatchList
from forecaster.trainer_child import TrainingResult
from forecaster.training.drift import Adwin, DriftTrigger
from forecaster.training.history import History
from forecaster.training.schedule import GroupSchedules, TrainingSchedule
from forecaster.transports.memory import Abort, Mark, MemorySink, MemorySource, Pause

CHORES = 0.3  # a little more than the daemon lets pass between two looks at the registry


class WatchedSource(MemorySource):
    """Lets time pass and a test look on at every poll."""

    def __init__(self, script: Sequence[RawRecord | Mark], clock: ManualClock) -> None:
        super().__init__(script)
        self.on_poll: Callable[[], None] = lambda: None
        self.closes = 0
        self._clock = clock

    def poll(self, max_records: int, timeout_seconds: float) -> list[RawRecord]:
        self._clock.advance(CHORES)
        self.on_poll()
        return super().poll(max_records, timeout_seconds)

    def close(self) -> None:
        self.closes += 1
        super().close()


@dataclass
class FakeRegistry:
    """One model after the other becomes champion, one a look."""

    line: list[ModelArtifact | Exception | None] = field(default_factory=list)
    trial_at: Callable[[int], Trial | None] | None = None
    """The trial under way after so many looks."""
    looks: int = 0
    gets: list[str] = field(default_factory=list)
    closes: int = 0

    of_groups: dict[str, ModelArtifact] = field(default_factory=dict)
    """Champions of groups other than the default."""

    def champions(self, group: str = DEFAULT) -> tuple[str | None, str | None]:
        if group != DEFAULT:
            return (self.of_groups[group].version if group in self.of_groups else None), None
        place = min(self.looks, len(self.line) - 1)
        now = self.line[place] if self.line else None
        self.looks += 1
        if isinstance(now, Exception):
            raise now
        before = [a.version for a in self.line[:place] if isinstance(a, ModelArtifact) and a != now]
        return (now.version, before[-1] if before else None) if now else (None, None)

    def trial(self, group: str = DEFAULT) -> Trial | None:
        return self.trial_at(self.looks) if self.trial_at and group == DEFAULT else None

    def close(self) -> None:
        self.closes += 1

    def get(self, version: str) -> ModelArtifact:
        self.gets.append(version)
        known = [*self.line, *self.of_groups.values()]
        return next(a for a in known if isinstance(a, ModelArtifact) and a.version == version)


@dataclass
class FakeChild:
    """A trainer that ends at the poll after its start, with the results it was given."""

    results: list[TrainingResult] = field(default_factory=list)
    histories: list[History | None] = field(default_factory=list)
    cannot_start: TrainingFailed | None = None
    cpu_seconds: float = 10.0
    groups: list[str] = field(default_factory=list)
    after_drift: list[bool] = field(default_factory=list)
    is_running: bool = False
    stops: int = 0

    def start(self, history: History | None, *, group: str = DEFAULT, after_drift: bool = False) -> None:
        self.groups.append(group)
        self.after_drift.append(after_drift)
        self.histories.append(history)
        if self.cannot_start:
            raise self.cannot_start
        self.is_running = True

    def poll(self) -> TrainingResult | None:
        if not self.results:
            return None
        self.is_running = False
        return self.results.pop(0)

    def stop(self) -> None:
        self.stops += 1


@dataclass
class FakeDesk:
    """Remembers what was handed in."""

    scores: list[LiveScore] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    closes: int = 0

    def ask(self, reason: str, *, group: str = DEFAULT, after_drift: bool = False) -> None:
        self.asked.append(f"{reason}{' (drift)' if after_drift else ''}")

    def hand_in(self, scores: Sequence[LiveScore]) -> None:
        self.scores.extend(scores)

    def close(self) -> None:
        self.closes += 1


@dataclass
class FakeEndpoint:
    url: str = "http://somewhere/"
    closes: int = 0

    def close(self) -> None:
        self.closes += 1


@dataclass
class Harness:
    """A daemon and everything a test may look at."""

    daemon: Daemon
    source: WatchedSource
    sink: MemorySink
    worker: Worker
    collectors: Collectors
    clock: ManualClock
    pipeline: Pipeline
    endpoint: FakeEndpoint

    def run(self) -> None:
        self.daemon.run(Event())

    def metric(self, name: str, **labels: str) -> float | None:
        return self.collectors.registry.get_sample_value(name, labels)

    def answers(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(record.value) for record in self.sink.of_topic("forecasts") if record.value]


def make_harness(
    script: Sequence[RawRecord | Mark] = (),
    *,
    registry: FakeRegistry | None = None,
    child: FakeChild | None = None,
    history: HistoryBuffer | None = None,
    make_recurrent: Callable[[ModelArtifact, ModelArtifact | None], RecurrentExpert] | None = None,
    keeps_former: bool = False,
    serve: Callable[[Daemon], FakeEndpoint] | None = None,
    give_up_seconds: float = 60.0,
    train_every_seconds: float = 1e9,
    watch: Sequence[str] = (),
    desk: FakeDesk | None = None,
    drift: TrainingSchedule | None = None,
    trigger: DriftTrigger | None = None,
    pace: Pace | None = None,
    rules: GroupRules | None = None,
) -> Harness:
    groups = (rules or GroupRules()).names
    clock, sink, endpoint = ManualClock(START), MemorySink(), FakeEndpoint()
    pipeline = make_pipeline(keeps_former=keeps_former)
    source = WatchedSource(script, clock)
    worker = Worker(
        source,
        AtLeastOnce(
            Checkpoint(source, sink, flush_timeout_seconds=1.0),
            make_task=lambda partition, networks: make_task(
                pipeline, networks=networks, history=history, groups=rules, boundary_records=2
            ),
        ),
        leads=pipeline.leads,
        clock=clock,
        commit_interval_seconds=0.0,
        commit_max_records=1_000,
        max_poll_records=4,
        give_up_seconds=give_up_seconds,
    )
    collectors = Collectors(build={})
    training = None
    if child is not None:
        training = Training(
            child=child,  # type: ignore[arg-type]
            schedules=GroupSchedules(
                {
                    group: TrainingSchedule(
                        every_seconds=train_every_seconds,
                        min_wall_seconds=10.0,
                        min_readings=4,
                        drift=trigger,
                        drift_span_seconds=5.0,
                    )
                    for group in groups
                }
            ),
            history=history,
            takes=lambda group: lambda stream_id: (rules or GroupRules()).of(stream_id) == group,
            window_seconds=dict.fromkeys(groups, 1e6),
        )

    def recurrent_of(artifact: ModelArtifact, former: ModelArtifact | None) -> RecurrentExpert:
        return RecurrentExpert(
            artifact.network(),
            model=model_number(team(artifact.version, former and former.version)),
            version=artifact.version,
            season=0,
            encoder=pipeline.encoder,
            former=former and FormerChampion(former.network(), version=former.version),
        )

    daemon = Daemon(
        source=source,
        sink=sink,
        worker=worker,
        inspector=Inspector(),
        collectors=collectors,
        registry=registry or FakeRegistry(),
        make_recurrent=make_recurrent or recurrent_of,
        training=training,
        drift=drift and GroupSchedules({DEFAULT: drift}),
        groups=groups,
        keeps_former=keeps_former,
        desk=desk,  # type: ignore[arg-type]
        serve=serve or (lambda _: endpoint),
        clock=clock,
        watch=WatchList(watch, most=2, clock=clock),
        pace=pace,
    )
    return Harness(daemon, source, sink, worker, collectors, clock, pipeline, endpoint)


def make_artifact(seed: int = 1, **scores: float) -> ModelArtifact:
    pipeline = make_pipeline()
    hp = HyperParameters(
        hidden=pipeline.hidden_shape[1],
        layers=1,
        head_width=16,
        horizon=pipeline.horizon,
        quantile_levels=pipeline.quantile_levels,
        feature_names=pipeline.encoder.feature_names,
        used_features=pipeline.encoder.feature_names,
    )
    span = DataSpan(first=START, last=START + 1, streams=1, readings=2)
    return ModelArtifact.create(RecurrentForecaster.seeded(hp, seed), created=START, data=span, scores=scores)


def readings(count: int, first: int = 0) -> list[RawRecord]:
    return [make_raw(k, "ab"[k % 2], START + k // 2, float(k % 7)) for k in range(first, first + count)]


def answered(harness: Harness, after_readings: int, *questions: Callable[[], Any]) -> list[Future[Any]]:
    """Run the daemon; once it has answered so many readings, other threads ask; it stops when all are answered."""
    stop, futures = Event(), []

    def on_poll() -> None:
        if harness.worker.accepted == after_readings and not futures:
            futures.extend(threads.submit(question) for question in questions)
        if futures and all(future.done() for future in futures):
            stop.set()

    harness.source.extend([Pause(10**9)])
    harness.source.on_poll = on_poll
    with ThreadPoolExecutor(max_workers=len(questions)) as threads:
        harness.daemon.run(stop)
    return futures


def test_every_reading_is_answered_and_its_offset_committed_before_the_end():
    harness = make_harness(readings(10))

    harness.run()

    assert len(harness.answers()) == 10
    assert harness.source.committed == {0: 10}
    assert harness.metric("forecaster_readings_accepted_total") == 10


def test_it_stops_when_told_to_and_leaves_the_rest_for_later():
    harness = make_harness([*readings(4), Pause(3), *readings(4, first=4)])
    stop = Event()
    harness.source.on_poll = lambda: stop.set() if harness.worker.accepted else None

    harness.daemon.run(stop)

    assert harness.source.committed == {0: 4}
    assert len(harness.answers()) == 4


def test_questions_of_other_threads_are_answered_by_the_loop():
    harness = make_harness(readings(6))

    summaries, detail, unknown, failing = answered(
        harness,
        6,
        lambda: harness.daemon.streams(StreamQuery()),
        lambda: harness.daemon.stream("b"),
        lambda: harness.daemon.stream("nobody"),
        lambda: harness.daemon.ask(lambda: 1 // 0),
    )

    assert [summary["stream_id"] for summary in summaries.result()] == ["a", "b"]
    assert detail.result()["seq"] == 3
    assert unknown.result() is None
    with pytest.raises(ZeroDivisionError):
        failing.result()


def test_a_question_that_nobody_answers_in_time_is_given_up_and_never_asked():
    harness = make_harness(readings(2))
    asked_for: list[str] = []

    with pytest.raises(TimeoutError):
        harness.daemon.ask(lambda: asked_for.append("too late"), timeout_seconds=0.01)
    harness.run()

    assert asked_for == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (StreamQuery(), ["a", "b"]),
        (StreamQuery(limit=1), ["a"]),
        (StreamQuery(prefix="b"), ["b"]),
        (StreamQuery(sort="newest"), ["b", "a"]),
    ],
)
def test_streams_are_listed_as_the_query_asks(query, found):
    harness = make_harness([make_raw(0, "a", START, 1.0), make_raw(1, "b", START + 5, 1.0)])

    (summaries,) = answered(harness, 2, lambda: harness.daemon.streams(query))

    assert [summary["stream_id"] for summary in summaries.result()] == found


def test_it_is_ready_once_it_has_partitions_and_not_while_stopping():
    harness = make_harness([*readings(2), Pause(2)])
    told: list[str] = []
    harness.source.on_poll = lambda: told.append(harness.daemon.ready().reason)

    before = harness.daemon.ready()
    harness.run()
    after = harness.daemon.ready()

    assert (before.ok, before.reason) == (False, "no partition is assigned yet")
    assert told[-1] == ""
    assert (after.ok, after.reason) == (False, "stopping")


def test_while_partitions_are_restored_it_says_which_and_how_far(monkeypatch: pytest.MonkeyPatch):
    harness = make_harness([*readings(2), Pause(2)])
    at = (Restoring(0, "waiting"), Restoring(2, "reading", 1_200, 5_000), Restoring(5, "replaying", 0, 0))
    monkeypatch.setattr(AtLeastOnce, "recovery", lambda self: RecoveryReport(restoring=at))
    monkeypatch.setattr(AtLeastOnce, "restoring", 3)
    told: list[str] = []
    harness.source.on_poll = lambda: told.append(harness.daemon.ready().reason)

    harness.run()

    assert told[-1] == "3 partitions are being restored: 0 (waiting), 2 (reading 1,200 of 5,000), 5 (replaying)"


def test_it_is_not_ready_while_the_broker_does_not_confirm():
    harness = make_harness([*readings(4), Pause(1), *readings(4, first=4)])
    harness.sink.refuse(1)
    told: list[str] = []
    harness.source.on_poll = lambda: told.append(harness.daemon.ready().reason)

    harness.run()

    assert "the broker does not confirm answers" in told
    assert told[-1] == ""
    assert {answer["source"]["offset"] for answer in harness.answers()} == set(range(8))


class PatientStop(Event):
    """Notes how long it is waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return self.is_set()


def test_a_turn_that_brought_few_readings_is_drawn_out_so_that_more_come_in():
    stop = PatientStop()
    harness = make_harness(readings(6), pace=Pace(min_turn_seconds=CHORES + 0.02))

    harness.daemon.run(stop)

    assert stop.waits == [pytest.approx(0.02, abs=1e-6)] * 2, "two polls brought readings, four and two of them"
    assert len(harness.answers()) == 6


def test_it_is_alive_while_the_loop_turns():
    harness = make_harness(readings(2))

    alive = harness.daemon.health()
    harness.clock.advance(61)
    silent = harness.daemon.health()

    assert alive.ok
    assert (silent.ok, silent.reason) == (False, "the loop has not turned for 61 s")
    assert silent.details["summary"]["model"] == "none yet"


def test_the_champion_serves_from_the_start_and_its_successor_takes_over():
    first, second = make_artifact(1), make_artifact(2, pinball=0.4, pinball_naive=0.5, pinball_champion=0.44)
    registry = FakeRegistry([first] * 12 + [second])
    harness = make_harness(readings(80), registry=registry)

    harness.run()

    served = {answer["model"] for answer in harness.answers()}
    assert served == {None, first.version, second.version}  # None: streams too young for a network
    assert harness.answers()[-1]["model"] == second.version
    assert [event["text"] for event in harness.daemon.events] == [
        f"model {first.version} took over",
        f"model {second.version} took over from {first.version}: "
        "pinball 9.1 % better than the champion, 20.0 % better than naive",
    ]
    assert harness.metric("forecaster_model_switches_total") == 2
    assert harness.metric("forecaster_model_info", group="default", version=second.version) == 1
    assert harness.daemon.header()["model"] == second.version
    assert registry.gets == [first.version, second.version]


def test_a_champion_that_does_not_fit_is_refused_once_and_loudly(caplog):
    misfit = make_artifact(1)

    def refuse(artifact: ModelArtifact, former: ModelArtifact | None) -> RecurrentExpert:
        raise ArtifactMismatch(f"Model {artifact.version} does not fit.", hint="Train again.")

    registry = FakeRegistry([misfit])
    harness = make_harness(readings(30), registry=registry, make_recurrent=refuse)
    with caplog.at_level(logging.ERROR):
        harness.run()

    assert registry.looks > 3
    assert registry.gets == [misfit.version]
    assert [(r.message, r.hint) for r in caplog.records] == [("champion cannot serve", "Train again.")]  # type: ignore[attr-defined]
    assert {answer["model"] for answer in harness.answers()} == {None}
    assert len(harness.answers()) == 30


def test_the_model_after_one_that_does_not_fit_serves():
    misfit, good = make_artifact(1), make_artifact(2)
    harness = make_harness(readings(80), registry=FakeRegistry([misfit] * 4 + [good]))
    fitting = harness.daemon._make_recurrent

    def choose(artifact: ModelArtifact, former: ModelArtifact | None) -> RecurrentExpert:
        if artifact.version == misfit.version:
            raise ArtifactMismatch("It does not fit.")
        return fitting(artifact, former)

    harness.daemon._make_recurrent = choose
    harness.run()

    assert harness.answers()[-1]["model"] == good.version


def test_the_former_champion_answers_beside_its_successor_where_there_is_room_for_it():
    first, second = make_artifact(1), make_artifact(2)
    registry = FakeRegistry([first] * 6 + [second])
    harness = make_harness(readings(160), registry=registry, keeps_former=True)

    harness.run()

    last = harness.answers()[-1]
    assert last["model"] == second.version, "consumers are told who serves"
    assert harness.worker.networks[DEFAULT].team == team(second.version, first.version)
    assert last["experts"].keys() & {"former", "recurrent"}
    assert harness.metric("forecaster_model_switches_total") == 2
    assert registry.gets == [first.version, second.version, first.version]


def test_a_former_champion_that_does_not_fit_is_left_out_with_one_warning(caplog):
    misfit, good = make_artifact(1), make_artifact(2)
    registry = FakeRegistry([misfit] * 6 + [good])
    harness = make_harness(readings(160), registry=registry, keeps_former=True)
    fitting = harness.daemon._make_recurrent

    def choose(artifact: ModelArtifact, former: ModelArtifact | None) -> RecurrentExpert:
        if former is not None:
            raise ArtifactMismatch("It does not fit.", hint="Nothing to do.")
        return fitting(artifact, former)

    harness.daemon._make_recurrent = choose
    with caplog.at_level(logging.WARNING):
        harness.run()

    assert harness.answers()[-1]["model"] == good.version
    assert harness.worker.networks[DEFAULT].team == good.version
    assert [record.message for record in caplog.records] == ["former champion cannot answer beside its successor"]


def test_a_registry_that_cannot_be_read_is_told_of_once_until_it_can(caplog):
    away = TransportError("The registry cannot be used: Permission denied.", hint="Check its permissions.")
    registry = FakeRegistry([away] * 4 + [None] + [away] * 3)
    harness = make_harness(readings(40), registry=registry)

    with caplog.at_level(logging.ERROR):
        harness.run()

    assert registry.looks > 8
    assert [record.message for record in caplog.records] == ["registry cannot be read"] * 2
    assert len(harness.answers()) == 40


def test_a_training_starts_with_the_history_and_its_result_is_counted():
    history = HistoryBuffer(max_readings_per_stream=100)
    child = FakeChild(
        [
            TrainingResult(
                outcome="refused",
                reason="Gain over the champion is 0.10 %, 0.5 % is asked.",
                seconds=7.0,
                challenger_loss=0.45,
                champion_loss=0.5,
                naive_loss=0.9,
            )
        ]
    )
    harness = make_harness(readings(20), child=child, history=history)

    harness.run()

    assert len(child.histories) == 1
    assert child.histories[0] is not None
    assert child.histories[0].readings >= 4
    assert harness.metric("forecaster_training_runs_total", group="default", result="ok_rejected") == 1
    assert harness.metric("forecaster_training_last_loss_scaled") == 0.45
    assert harness.metric("forecaster_training_last_gain_ratio", against="champion") == pytest.approx(0.1)
    assert harness.metric("forecaster_training_last_gain_ratio", against="naive") == pytest.approx(0.5)
    assert [event["text"] for event in harness.daemon.events] == [
        "training: Gain over the champion is 0.10 %, 0.5 % is asked."
    ]


def test_a_promotion_is_counted_and_told_by_the_takeover_alone():
    child = FakeChild([TrainingResult(outcome="promoted", reason="First model.", version="gru-x", seconds=7.0)])
    harness = make_harness(readings(20), child=child)

    harness.run()

    assert harness.metric("forecaster_training_runs_total", group="default", result="ok_promoted") == 1
    assert list(harness.daemon.events) == []


def test_a_training_that_fails_is_counted_and_told_and_readings_are_answered(caplog):
    child = FakeChild([TrainingResult(outcome="failed", reason="the trainer ended with exit code -9: it said nothing")])
    harness = make_harness(readings(20), child=child)

    with caplog.at_level(logging.WARNING):
        harness.run()

    assert harness.metric("forecaster_training_runs_total", group="default", result="failed") == 1
    assert [record.message for record in caplog.records] == ["training ended"]
    assert harness.daemon.events[-1]["text"] == "training: the trainer ended with exit code -9: it said nothing"
    assert len(harness.answers()) == 20


def test_a_trainer_that_cannot_start_does_not_end_the_loop_and_is_tried_again_later():
    child = FakeChild(cannot_start=TrainingFailed("The trainer cannot be started: No space left on device"))
    harness = make_harness(readings(200), child=child, train_every_seconds=0.0)

    harness.run()

    seconds = harness.clock.monotonic() - START
    assert len(harness.answers()) == 200
    assert len(child.histories) == pytest.approx(seconds / 10.0, abs=1)  # as the wall-clock floor allows
    assert harness.metric("forecaster_training_runs_total", group="default", result="failed") == len(child.histories)


def test_a_training_that_runs_is_stopped_at_the_end():
    child = FakeChild()
    harness = make_harness(readings(20), child=child)
    states: list[str] = []
    harness.source.on_poll = lambda: states.append(harness.daemon.header()["training"])

    harness.run()

    assert (states[0], states[-1]) == ("waiting", "running")
    assert child.stops == 1


def test_an_error_of_the_loop_is_raised_after_everything_was_closed():
    child = FakeChild()
    script = [*readings(4), Abort(TransportError("The group gave our place away."))]
    harness = make_harness(script, child=child)

    with pytest.raises(TransportError, match="our place"):
        harness.run()

    assert (harness.source.closes, harness.sink.is_closed, harness.endpoint.closes, child.stops) == (1, True, 1, 1)
    assert harness.source.committed == {0: 4}  # what was answered before


def test_everything_is_closed_even_if_closing_one_thing_fails():
    harness = make_harness(readings(4), child=FakeChild())

    def fail() -> None:
        raise TransportError("The coordinator is gone.")

    harness.source.close = fail  # type: ignore[method-assign]
    with pytest.raises(TransportError, match="coordinator"):
        harness.run()

    assert (harness.sink.is_closed, harness.endpoint.closes) == (True, 1)


def test_a_port_that_is_taken_closes_source_and_sink():
    def taken(daemon: Daemon) -> FakeEndpoint:
        raise TransportError("Telemetry cannot listen at 127.0.0.1:8000: Address already in use.")

    harness = make_harness(readings(4), serve=taken)
    with pytest.raises(TransportError, match="already in use"):
        harness.run()

    assert (harness.source.closes, harness.sink.is_closed) == (1, True)
    assert harness.answers() == []


def test_a_broker_that_never_confirms_ends_the_daemon_with_its_error():
    harness = make_harness([*readings(4), Pause(1_000)], give_up_seconds=1.0)
    harness.sink.refuse(1_000)

    with pytest.raises(DeliveryFailed):
        harness.run()

    assert harness.source.committed == {}
    assert harness.sink.is_closed


def test_answers_that_are_not_confirmed_at_the_end_of_a_source_are_an_error():
    harness = make_harness(readings(4))
    harness.sink.refuse(1_000)

    with pytest.raises(DeliveryFailed):
        harness.run()

    assert harness.source.committed == {}


def test_gauges_are_set_when_asked_for():
    harness = make_harness(readings(6))

    answered(harness, 6, harness.daemon.before_scrape)

    assert harness.metric("forecaster_known_streams", status="warming") == 2
    assert harness.metric("forecaster_consumer_lag_records", topic="readings", partition="0") == 0
    assert (harness.metric("forecaster_state_bytes") or 0) > 0


def test_the_rate_of_readings_is_that_of_the_last_seconds():
    harness = make_harness(readings(40))
    rates: list[float] = []
    harness.source.on_poll = lambda: rates.append(harness.daemon.header()["readings_per_second"])

    harness.run()

    assert rates[0] == 0.0
    assert rates[-1] == pytest.approx(4 / CHORES, rel=0.3)  # four records a poll


def test_a_scrape_shows_the_streams_that_are_watched_and_no_others():
    harness = make_harness(readings(6), watch=["a"])

    answered(harness, 6, harness.daemon.before_scrape)

    assert harness.metric("forecaster_watched_reading_value", stream="a") is not None
    assert harness.metric("forecaster_watched_reading_value", stream="b") is None
    assert harness.metric("forecaster_owned_partitions") == 1


def make_trial(serving: ModelArtifact, beside: ModelArtifact) -> Trial:
    return Trial(number=2, kind="shadow", serving=serving.version, beside=beside.version, steps=10, began=START)


def test_a_trial_is_scored_and_handed_in_while_it_lasts_and_no_training_begins():
    first, second = make_artifact(1), make_artifact(2)
    registry = FakeRegistry([first], trial_at=lambda look: make_trial(first, second) if 4 <= look < 40 else None)
    registry.line.append(second)  # known to `get`; never reached as champion
    registry.line[1:1] = [first] * 500
    desk, child = FakeDesk(), FakeChild()
    harness = make_harness(readings(400), registry=registry, desk=desk, child=child, train_every_seconds=1.0)
    starts: list[tuple[int, int]] = []
    harness.source.on_poll = lambda: starts.append((registry.looks, len(child.histories)))
    child.cannot_start = TrainingFailed("No space.")

    harness.run()

    assert {score.trial for score in desk.scores} == {2}
    assert desk.scores[-1].targets > desk.scores[0].targets
    assert desk.closes == 1
    assert {answer["model"] for answer in harness.answers()} == {None, first.version}
    during = {count for look, count in starts if 5 <= look < 40}
    assert len(during) == 1, "none begins meanwhile"
    assert len(child.histories) > during.pop(), "they begin again after it"


def test_a_trials_second_model_has_the_former_champion_beside_it_that_it_would_have_in_service():
    first, second = make_artifact(1), make_artifact(2)
    trial = msgspec.structs.replace(make_trial(first, second), former=first.version)
    registry = FakeRegistry([first] * 500 + [second], trial_at=lambda look: trial)
    harness = make_harness(readings(40), registry=registry, desk=FakeDesk(), keeps_former=True)

    harness.run()

    assert harness.worker._trials[DEFAULT][1].team == team(second.version, first.version)


def test_a_model_that_cannot_be_tried_out_here_is_said_once_and_harms_nothing(caplog):
    first, second = make_artifact(1), make_artifact(2)
    registry = FakeRegistry([first] * 500 + [second], trial_at=lambda look: make_trial(first, second))
    desk = FakeDesk()
    harness = make_harness(readings(100), registry=registry, desk=desk)
    fitting = harness.daemon._make_recurrent

    def choose(artifact: ModelArtifact, former: ModelArtifact | None) -> RecurrentExpert:
        if artifact.version == second.version:
            raise ArtifactMismatch("It does not fit.")
        return fitting(artifact, former)

    harness.daemon._make_recurrent = choose
    with caplog.at_level(logging.ERROR):
        harness.run()

    assert [record.message for record in caplog.records] == ["model cannot be tried out"]
    assert desk.scores == []
    assert len(harness.answers()) == 100


class Alarm(Adwin):
    """At the third value."""

    seen = 0

    def update(self, value: float) -> bool:
        self.seen += 1
        return self.seen == 3


def test_the_training_that_drift_has_asked_for_is_told_of_it_and_no_other():
    refused = TrainingResult(outcome="refused", reason="no better")
    child = FakeChild([refused] * 50)
    trigger = DriftTrigger([Alarm()], pause_seconds=1e9)
    harness = make_harness(
        readings(200), child=child, history=HistoryBuffer(max_readings_per_stream=100), trigger=trigger
    )

    answered(harness, 200, lambda: None)

    assert child.after_drift == [False, True]


def test_where_a_service_trains_drift_is_noticed_here_and_the_service_asked():
    trigger = DriftTrigger([Alarm()], pause_seconds=1e9)
    drift = TrainingSchedule(
        every_seconds=1.0, min_wall_seconds=0.0, min_readings=1, drift=trigger, drift_span_seconds=5.0
    )
    desk = FakeDesk()
    harness = make_harness(readings(200), desk=desk, drift=drift)
    alarms: list[float | None] = []

    def look() -> None:
        harness.daemon.before_scrape()
        alarms.append(harness.metric("forecaster_drift_alarms_total", group="default", detector="adwin"))

    answered(harness, 200, look)

    assert desk.asked == ["live loss has risen for good (drift)"]
    assert alarms == [1.0], "a scrape tells of it"
    assert harness.metric("forecaster_drift_alarm_timestamp_seconds", group="default") is not None
    assert len(harness.answers()) == 200


def test_each_group_is_served_by_its_own_champion_and_trained_on_its_own_streams() -> None:
    rules = GroupRules([GroupRule("even", ("*[02468]",))])
    common, own = make_artifact(1), make_artifact(2)
    registry = FakeRegistry([common], of_groups={"even": own})
    child, history = (
        FakeChild([TrainingResult(outcome="refused", reason="no better")] * 2),
        HistoryBuffer(max_readings_per_stream=100),
    )
    script = [make_raw(offset, f"s{offset % 4}", START + offset) for offset in range(160)]
    harness = make_harness(script, registry=registry, child=child, history=history, rules=rules)

    harness.run()

    served = {(rules.of(told["stream_id"]), told["model"]) for told in harness.answers()[-20:]}
    assert served == {("even", own.version), (DEFAULT, common.version)}
    assert harness.metric("forecaster_model_info", group="even", version=own.version) == 1
    assert harness.metric("forecaster_model_info", group="default", version=common.version) == 1
    trained = {
        group: set(past.streams) for group, past in zip(child.groups, child.histories, strict=True) if past is not None
    }
    assert all(rules.of(stream) == group for group, streams in trained.items() for stream in streams)
    assert trained
    assert all(trained.values())
