"""The trainer of its own: when it trains, what it notes, and that it leaves nothing open."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from factories import START
from model_logs import make_model

from forecaster.clock import ManualClock
from forecaster.errors import TrainingFailed, TransportError, TransportUnavailable
from forecaster.models.decisions import LiveScore, TrainingRequest
from forecaster.series.groups import DEFAULT
from forecaster.stores.registry_directory import DirectoryRegistry
from forecaster.telemetry.collectors import Collectors
from forecaster.trainer_child import TrainingResult
from forecaster.trainer_service import TrainerService
from forecaster.training.schedule import GroupSchedules, TrainingSchedule
from forecaster.training.trials import TrialRules
from forecaster.transports.kafka_progress import Progress, ProgressWatch

EVERY, WALL, LEAST = 3_600.0, 20.0, 500


@dataclass
class FakeChild:
    """Ends at the first poll after its start, with the results it was given."""

    results: list[TrainingResult] = field(default_factory=list)
    cannot_start: TrainingFailed | None = None
    cpu_seconds: float = 10.0
    groups: list[str] = field(default_factory=list)
    after_drift: list[bool] = field(default_factory=list)
    starts: int = 0
    stops: int = 0
    is_running: bool = False

    def start(self, history: None, *, group: str = DEFAULT, after_drift: bool = False) -> None:
        self.groups.append(group)
        self.after_drift.append(after_drift)
        self.starts += 1
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
        self.is_running = False


@dataclass
class FakeWatch:
    latest: Progress | None = None
    trouble: TransportError | None = None
    starts: int = 0
    closes: int = 0

    def start(self) -> None:
        self.starts += 1

    def close(self) -> None:
        self.closes += 1


class Script:
    """The stop signal of a test: each turn of the service it does the next thing; after the last it says stop."""

    def __init__(self, clock: ManualClock, actions: Sequence[Callable[[], object]]) -> None:
        self._clock, self._actions = clock, list(actions)

    def wait(self, seconds: float) -> bool:
        self._clock.advance(seconds)
        if not self._actions:
            return True
        self._actions.pop(0)()
        return False


@dataclass
class Harness:
    service: TrainerService
    child: FakeChild
    watch: FakeWatch
    registry: DirectoryRegistry
    collectors: Collectors
    clock: ManualClock

    def run(self, *actions: Callable[[], object]) -> None:
        self.service.run(Script(self.clock, actions))  # type: ignore[arg-type]

    def seen(self, readings: int, watermark: float) -> Callable[[], None]:
        """The readings have come so far."""

        def see() -> None:
            self.watch.latest = Progress(readings, watermark)

        return see

    def later(self, seconds: float) -> Callable[[], None]:
        return lambda: self.clock.advance(seconds)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.collectors.registry.get_sample_value(name, labels)


def make_harness(
    tmp_path: Path,
    *results: TrainingResult,
    registry: DirectoryRegistry | None = None,
    groups: Sequence[str] = (DEFAULT,),
) -> Harness:
    clock, child, watch, collectors = ManualClock(START), FakeChild(list(results)), FakeWatch(), Collectors(build={})
    registry = registry or DirectoryRegistry(tmp_path / "models")
    service = TrainerService(
        child=child,  # type: ignore[arg-type]
        schedules=GroupSchedules(
            {
                group: TrainingSchedule(every_seconds=EVERY, min_wall_seconds=WALL, min_readings=LEAST)
                for group in groups
            }
        ),
        watch=watch,  # type: ignore[arg-type]
        registry=registry,
        rules=TrialRules(margin=0.02, level=0.002, patience_seconds=600.0, guard_steps=32),
        collectors=collectors,
        serve=None,
        clock=clock,
    )
    return Harness(service, child, watch, registry, collectors, clock)


def refused() -> TrainingResult:
    return TrainingResult(outcome="refused", reason="No better.", version="gru-20260101T000000-ab12cd", seconds=3.0)


def nothing() -> None:
    pass


def test_it_trains_once_there_are_enough_readings_and_again_by_event_time(tmp_path: Path):
    h = make_harness(tmp_path, refused(), refused())

    h.run(
        h.seen(LEAST - 1, START), nothing, h.seen(LEAST, START), nothing, nothing, h.later(WALL),
        h.seen(LEAST, START + EVERY - 1), nothing, h.seen(LEAST, START + EVERY), nothing, nothing,
    )  # fmt: skip

    assert h.child.starts == 2
    assert h.metric("forecaster_training_runs_total", group="default", result="ok_rejected") == 2


def test_the_wall_clock_keeps_trainings_apart_and_a_request_does_not_wait_for_event_time(tmp_path: Path):
    h = make_harness(tmp_path, refused(), refused())

    h.run(h.seen(LEAST, START), nothing, h.service.ask, nothing, nothing)
    before = h.child.starts
    h.run(h.later(WALL), nothing, nothing)

    assert (before, h.child.starts) == (1, 2)


def test_after_a_restart_it_goes_on_with_the_schedule_of_the_decisions(tmp_path: Path):
    registry = DirectoryRegistry(tmp_path / "models")
    registry.fail({"reason": "constant", "until": START - 60.0}, now=START)
    h = make_harness(tmp_path, refused())

    h.run(h.seen(LEAST, START), nothing, h.seen(LEAST, START - 61.0 + EVERY), nothing)
    before = h.child.starts
    h.run(h.seen(LEAST, START - 60.0 + EVERY), nothing)

    assert (before, h.child.starts) == (0, 1)


def test_a_failed_training_is_a_decision_in_the_registry_and_the_service_goes_on(tmp_path: Path):
    h = make_harness(tmp_path, TrainingResult(outcome="failed", reason="The fit diverged."), refused())

    h.run(
        h.seen(LEAST, START), nothing, nothing, h.later(WALL), h.seen(LEAST, START + EVERY), nothing, nothing, nothing
    )

    (record,) = h.registry.history()
    assert (record.action, record.decision) == ("failed", {"reason": "The fit diverged.", "until": START})
    assert h.registry.champion() is None
    assert h.child.starts == 2
    assert h.metric("forecaster_training_runs_total", group="default", result="failed") == 1


def test_a_training_that_cannot_begin_counts_as_failed(tmp_path: Path):
    h = make_harness(tmp_path)
    h.child.cannot_start = TrainingFailed("The trainer cannot be started: no space.")

    h.run(h.seen(LEAST, START), nothing, nothing)

    assert [record.decision["reason"] for record in h.registry.history()] == [str(h.child.cannot_start)]
    assert h.metric("forecaster_training_runs_total", group="default", result="failed") == 1


def test_a_registry_that_is_away_is_said_once_and_no_training_begins_without_its_past(tmp_path: Path, caplog):
    class Away(DirectoryRegistry):
        def history(self) -> list[Any]:
            raise TransportUnavailable("No broker answered.", hint="Is it up?")

    h = make_harness(tmp_path, refused(), registry=Away(tmp_path))
    told: list[str] = []

    with caplog.at_level(logging.ERROR):
        h.run(h.seen(LEAST, START), nothing, nothing, lambda: told.append(h.service.ready().reason))

    assert h.child.starts == 0
    assert [record.message for record in caplog.records] == ["registry cannot be used"]
    assert told == ["No broker answered."]


def test_a_promotion_shows_in_metrics_and_events(tmp_path: Path):
    h = make_harness(tmp_path)
    model = make_model(1)

    def promote() -> None:
        h.registry.put(model)
        h.registry.promote(model.version, {"reason": "test"}, now=START)

    h.run(nothing, promote, nothing)

    assert h.metric("forecaster_model_info", group="default", version=model.version) == 1
    assert h.service.header()["model"] == model.version
    assert [event["text"] for event in h.service.events] == [f"model {model.version} serves"]


def test_it_is_ready_once_the_readings_were_looked_at_and_alive_while_it_turns(tmp_path: Path):
    h = make_harness(tmp_path)
    told: list[str] = []

    def ask() -> None:
        told.append(h.service.ready().reason)

    h.run(ask, h.seen(0, START), ask)
    alive = h.service.health().ok
    h.clock.advance(121)

    assert told == ["the readings have not been looked at yet", ""]
    assert h.service.ready().reason == "stopping"
    assert (alive, h.service.health().ok) == (True, False)


def test_once_trains_at_once_and_ends_with_the_result(tmp_path: Path):
    h = make_harness(tmp_path, refused())

    result = h.service.run_once(Script(h.clock, [nothing] * 5))  # type: ignore[arg-type]

    assert result == refused()
    assert (h.child.starts, h.watch.closes) == (1, 1)


@pytest.mark.parametrize("once", [True, False])
def test_stopped_in_the_middle_it_ends_the_training_and_closes_everything(tmp_path: Path, once: bool):
    h = make_harness(tmp_path)
    script: Any = Script(h.clock, [h.seen(LEAST, START), nothing])

    result = h.service.run_once(script) if once else h.service.run(script)

    assert result is None
    assert (h.child.starts, h.child.stops, h.watch.closes) == (1, 1, 1)
    assert h.registry.history() == []


def test_the_watch_looks_until_it_is_closed_and_outlives_a_broker_that_is_away():
    looks: list[int] = []
    released: list[bool] = []

    def look() -> Progress:
        looks.append(1)
        if len(looks) == 1:
            raise TransportUnavailable("No broker answered.")
        return Progress(7, START)

    watch = ProgressWatch(look, release=lambda: released.append(True), every_seconds=0.001)
    watch.start()
    while watch.latest is None:
        assert watch._thread.is_alive()
    trouble = watch.trouble
    watch.close(timeout_seconds=30.0)
    watch.close()

    assert (watch.latest, trouble, released) == (Progress(7, START), None, [True])


def test_it_decides_trials_and_trains_nothing_while_one_is_under_way(tmp_path: Path):
    h = make_harness(tmp_path, refused())
    old, new = make_model(1), make_model(2)
    for model in (old, new):
        h.registry.put(model)
    h.registry.promote(old.version, {}, now=START)
    h.registry.challenge(new.version, {"shadow_steps": 10}, now=START)
    told: list[str] = []
    began: list[float | None] = []

    def report() -> None:
        began.append(h.metric("forecaster_trial_began_timestamp_seconds", group="default"))
        numbers = {"trial": 2, "partition": 0, "streams": 2, "steps": 20, "targets": 40, "blocks": 0}
        losses = {"serving_loss": 2.0, "beside_loss": 1.5, "difference": 0.0, "difference_squares": 0.0}
        h.registry.report(LiveScore(**numbers, **losses))

    h.run(
        h.seen(LEAST, START), nothing, lambda: told.append(h.service.header()["training"]), report, nothing,
        lambda: told.append(h.service.header()["training"]), h.later(600.0), nothing, nothing,
    )  # fmt: skip

    assert [record.action for record in h.registry.history()] == ["promoted", "challenged", "promoted", "confirmed"]
    assert told == ["on trial", "on trial"], "a shadow, and then the guard that follows the promotion"
    assert h.metric("forecaster_trials_total", result="promoted") == 1
    assert h.metric("forecaster_trials_total", result="confirmed") == 1
    assert began == [START], "of the shadow"
    assert math.isnan(h.metric("forecaster_trial_began_timestamp_seconds", group="default") or 0.0)
    assert h.child.starts == 1, "only when both are over"


def test_a_worker_that_notices_drift_gets_its_training_and_a_wish_of_before_does_not(tmp_path: Path):
    h = make_harness(tmp_path, refused(), refused())
    h.registry.fail({"reason": "test", "until": START}, now=START)  # trained on all there is
    h.registry.request(TrainingRequest(time=START - 1.0, reason="old"))
    starts: list[int] = []

    def wish() -> None:
        starts.append(h.child.starts)
        h.registry.request(TrainingRequest(time=START + 1.0, reason="live loss has risen for good", drift=True))

    h.run(h.seen(LEAST, START), nothing, nothing, wish, nothing, nothing, nothing, nothing)

    assert starts == [0]
    assert h.child.starts == 1
    assert h.child.after_drift == [True]
    assert h.service.events[0]["text"] == "training asked for: live loss has risen for good"


def test_groups_are_trained_one_at_a_time_and_none_is_kept_from_it(tmp_path: Path) -> None:
    results = [TrainingResult(outcome="refused", reason="no better")] * 3
    h = make_harness(tmp_path, *results, groups=("pumps", "hr", DEFAULT))

    h.run(h.seen(LEAST, START), *[nothing, nothing, h.later(WALL)] * 4)

    assert sorted(h.child.groups) == ["", "hr", "pumps"]
    assert h.metric("forecaster_training_runs_total", group="pumps", result="ok_rejected") == 1
    assert h.metric("forecaster_training_runs_total", group="default", result="ok_rejected") == 1


def test_a_failed_training_is_noted_for_its_group_and_a_restart_goes_by_what_each_was_trained_on(
    tmp_path: Path,
) -> None:
    first = make_harness(tmp_path, TrainingResult(outcome="failed", reason="empty"), groups=("pumps",))
    first.run(first.seen(LEAST, START), nothing, nothing)
    again = make_harness(tmp_path, groups=("pumps", DEFAULT))

    again.run(again.seen(LEAST, START + 1.0), nothing, nothing)

    assert [(r.group, r.action) for r in first.registry.history()] == [("pumps", "failed")]
    assert again.child.groups == [DEFAULT], "the readings of pumps have been looked at an instant ago"


def test_a_wish_makes_only_its_group_due(tmp_path: Path) -> None:
    h = make_harness(tmp_path, groups=("pumps", "hr"))
    for group in ("pumps", "hr"):
        h.registry.fail({"reason": "earlier", "until": START}, now=START, group=group)

    h.run(
        h.seen(LEAST, START + 1.0),
        nothing,
        lambda: h.registry.request(TrainingRequest(time=START, reason="drift", group="hr")),
        nothing,
        nothing,
    )

    assert h.child.groups == ["hr"]
    assert h.child.after_drift == [False], "somebody has asked, no drift was noticed"


class Half:
    """The share of one of two trainers."""

    def __init__(self, *groups: str) -> None:
        self._groups = groups

    def owns(self, group: str) -> bool:
        return group in self._groups


def test_a_trainer_trains_only_the_groups_of_its_share_and_gives_up_what_it_loses(tmp_path: Path) -> None:
    h = make_harness(tmp_path, groups=("pumps", "hr"))

    def share(*groups: str) -> Callable[[], None]:
        def see() -> None:
            h.watch.latest = Progress(LEAST, START, Half(*groups))  # type: ignore[arg-type]

        return see

    h.run(share("pumps"), nothing, nothing, share("hr"), nothing, h.later(WALL), nothing)

    assert h.child.groups == ["pumps", "hr"]
    assert h.service.events[0]["text"].startswith("group pumps: training: given up")
    assert h.registry.history() == [], "whoever has pumps now says what became of it"


def test_a_group_that_comes_from_another_trainer_is_not_trained_before_its_time(tmp_path: Path) -> None:
    h = make_harness(tmp_path, groups=("pumps", "hr"))

    def another_trains() -> None:
        h.registry.fail({"reason": "by another trainer", "until": START}, now=START, group="hr")

    def share(*groups: str) -> Callable[[], None]:
        def see() -> None:
            h.watch.latest = Progress(LEAST, START + 1.0, Half(*groups))  # type: ignore[arg-type]

        return see

    h.run(share(), nothing, another_trains, nothing, share("hr"), nothing, nothing)

    assert h.child.groups == []
