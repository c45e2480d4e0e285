"""The thread that writes live scores: it never holds the loop up, and decides only where it is told to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
from model_logs import make_model

from forecaster.clock import ManualClock
from forecaster.errors import TransportUnavailable
from forecaster.models.decisions import LiveScore, RegistryRecord, TrainingRequest
from forecaster.stores.registry_directory import DirectoryRegistry
from forecaster.training.trials import TrialRules
from forecaster.trial_desk import TrialDesk

RULES = TrialRules(margin=0.02, level=0.002, patience_seconds=600.0, guard_steps=0)
PATIENCE_SECONDS = 30.0


def make_score(steps: int) -> LiveScore:
    return LiveScore(
        trial=2, partition=0, streams=1, steps=steps, targets=steps, serving_loss=2.0 * steps, beside_loss=1.0 * steps,
        blocks=0, difference=0.0, difference_squares=0.0,
    )  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    made, models = DirectoryRegistry(tmp_path), [make_model(1), make_model(2)]
    for model in models:
        made.put(model)
    made.promote(models[0].version, {}, now=0.0)
    made.challenge(models[1].version, {"shadow_steps": 10}, now=1.0)
    return made


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, Event()
    while not is_so():
        assert time.monotonic() < deadline
        pause.wait(0.01)


@pytest.mark.parametrize("rules", [RULES, None])
def test_scores_reach_the_registry_and_only_who_has_rules_decides(
    registry: DirectoryRegistry, tmp_path: Path, rules: TrialRules | None
):
    trial = registry.trial()
    assert trial is not None
    told: list[RegistryRecord] = []
    desk = TrialDesk(lambda: DirectoryRegistry(tmp_path), rules=rules, on_settled=told.append, clock=ManualClock(5.0))

    desk.hand_in([make_score(5)])
    wait_until(lambda: [score.steps for score in registry.live_scores(trial)] == [5])
    desk.hand_in([make_score(10)])
    wait_until(lambda: [score.steps for score in registry.live_scores(trial)] == [10])
    desk.close(PATIENCE_SECONDS)
    desk.close()

    assert [record.action for record in registry.history()[2:]] == (["promoted"] if rules else [])
    assert told == registry.history()[2:]


def test_a_registry_that_is_slow_holds_nobody_up_and_one_that_is_away_is_said_once(tmp_path: Path, caplog):
    gate, entered = Event(), Event()

    class Slow(DirectoryRegistry):
        def report(self, score: LiveScore) -> None:
            entered.set()
            gate.wait(PATIENCE_SECONDS)
            raise TransportUnavailable("No broker answered.")

    desk = TrialDesk(lambda: Slow(tmp_path), rules=RULES, on_settled=pytest.fail, clock=ManualClock())
    with caplog.at_level(logging.ERROR):
        desk.hand_in([make_score(1)])
        assert entered.wait(PATIENCE_SECONDS)
        for steps in range(100):
            desk.hand_in([make_score(steps)])
        desk.close()  # its queue is full: left behind, as with a broker that does not come back
        gate.set()
        assert desk._thread is not None
        wait_until(lambda: desk._batches.empty())
        desk.close(PATIENCE_SECONDS)

    assert not desk._thread.is_alive()
    assert [record.message for record in caplog.records] == ["registry cannot be told"]


def test_a_worker_that_never_sees_a_trial_opens_nothing():
    desk = TrialDesk(lambda: pytest.fail("opened"), rules=RULES, on_settled=pytest.fail, clock=ManualClock())

    desk.close()


def test_a_wish_for_a_training_reaches_the_registry(tmp_path: Path):
    desk = TrialDesk(lambda: DirectoryRegistry(tmp_path), rules=None, on_settled=pytest.fail, clock=ManualClock(5.0))

    desk.ask("drift", after_drift=True)
    wait_until(lambda: DirectoryRegistry(tmp_path).requested() is not None)
    desk.close(PATIENCE_SECONDS)

    assert DirectoryRegistry(tmp_path).requested() == TrainingRequest(time=5.0, reason="drift", drift=True)
