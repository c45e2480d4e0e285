"""How a trial ends, by the numbers of its partitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_logs import make_model

from forecaster.models.decisions import LiveScore, Trial
from forecaster.stores.registry_directory import DirectoryRegistry
from forecaster.training.trials import TrialRules, gather, settle_if_due, verdict

RULES = TrialRules(margin=0.02, level=0.002, patience_seconds=600.0, guard_steps=32)
SHADOW = Trial(number=2, kind="shadow", serving="old", beside="new", steps=100, began=1_000.0)
GUARD = Trial(number=3, kind="guard", serving="new", beside="old", steps=100, began=1_000.0)


def make_score(differences: Any, *, serving: float = 1.0, steps: int = 100, partition: int = 0) -> LiveScore:
    """One stream, one lead: block means of serving loss minus loss beside, whose mean is that of the whole."""
    array = np.asarray(differences, float)
    mean = float(array.mean()) if len(array) else 0.0
    return LiveScore(
        trial=2,
        partition=partition,
        streams=1,
        steps=steps,
        targets=steps,
        serving_loss=serving * steps,
        beside_loss=(serving - mean) * steps,
        blocks=len(array),
        difference=float(array.sum()),
        difference_squares=float((array**2).sum()),
    )


def end_of(trial: Trial, *scores: LiveScore, now: float = 1_100.0) -> str | None:
    found = verdict(trial, gather(scores), RULES, now=now)
    return found[0] if found else None


def test_partitions_add_up_to_what_one_would_have_seen():
    rng = np.random.default_rng(0)
    differences = 0.1 + 0.2 * rng.normal(size=12)

    whole = gather([make_score(differences, steps=120)])
    parts = gather([make_score(differences[k::3], steps=40, partition=k) for k in range(3)])

    assert (parts.streams, whole.streams) == (3, 1)
    assert parts.steps == 40
    assert (parts.targets, parts.blocks) == (whole.targets, whole.blocks)
    assert parts.gain == pytest.approx(whole.gain)
    assert parts.p_value == pytest.approx(whole.p_value)


def test_the_p_value_is_that_of_students_test():
    """Against a table: t = 1.812 with 10 degrees of freedom leaves 5 %."""
    values = np.array([1.0, -1.0] * 5 + [0.0])
    values = values / values.std(ddof=1)
    shifted = values - values.mean() + 1.812 / np.sqrt(len(values))

    assert gather([make_score(shifted)]).p_value == pytest.approx(0.05, abs=5e-4)


@pytest.mark.parametrize(
    ("differences", "steps", "end"),
    [
        ([0.01] * 6, 99, None),  # not over
        ([0.01] * 6, 100, "promoted"),
        ([0.0] * 6, 100, "promoted"),  # no worse is enough: held-out data has decided
        ([-0.001] * 6, 100, "refused"),
    ],
)
def test_a_challenger_is_promoted_after_its_steps_unless_it_was_worse(
    differences: list[float], steps: int, end: str | None
):
    assert end_of(SHADOW, make_score(differences, steps=steps)) == end


def test_a_challenger_nobody_could_try_out_is_refused_when_patience_ends():
    assert end_of(SHADOW, now=1_599.0) is None
    found = verdict(SHADOW, gather([make_score([0.3], steps=12)]), RULES, now=1_600.0)

    assert found is not None
    assert found[0] == "refused"
    assert "Only 12 of 100 live steps within 600 s" in found[1]


@pytest.mark.parametrize(
    ("differences", "steps", "now", "end"),
    [
        ([0.05, 0.06] * 4, 50, 1_100.0, "rolled_back"),  # as soon as it is plain
        ([0.05, 0.06], 50, 1_100.0, None),  # too few blocks to tell
        ([0.5, -0.4] * 4, 50, 1_100.0, None),  # may be chance
        ([0.5, -0.4] * 4, 100, 1_100.0, "confirmed"),
        ([0.01, 0.011] * 4, 100, 1_100.0, "confirmed"),  # within the margin
        ([-0.05] * 8, 100, 1_100.0, "confirmed"),
        ([-0.05] * 8, 50, 1_600.0, "confirmed"),  # late
    ],
)
def test_a_former_champion_comes_back_where_it_is_better_by_the_margin_and_not_by_chance(
    differences: list[float], steps: int, now: float, end: str | None
):
    assert end_of(GUARD, make_score(differences, steps=steps), now=now) == end


def test_equal_models_are_rolled_back_in_one_or_two_of_a_hundred_guards():
    """1,000 guards of 40 independent blocks, looked at after each: noise of 20 % of the loss, no difference."""
    rng = np.random.default_rng(1)
    rolled_back = 0
    for _ in range(1_000):
        differences = 0.2 * rng.normal(size=40)
        ends = (end_of(GUARD, make_score(differences[:n], steps=n)) for n in range(1, 41))
        rolled_back += "rolled_back" in ends

    assert rolled_back < 30


def make_registry(tmp_path: Path) -> tuple[DirectoryRegistry, str, str]:
    registry, models = DirectoryRegistry(tmp_path), [make_model(1), make_model(2)]
    for model in models:
        registry.put(model)
    registry.promote(models[0].version, {"reason": "first"}, now=900.0)
    registry.challenge(models[1].version, {"shadow_steps": 100}, now=1_000.0)
    return registry, models[0].version, models[1].version


def test_a_decision_is_a_record_with_its_numbers_and_a_promotion_begins_a_guard(tmp_path: Path):
    registry, old, new = make_registry(tmp_path)
    registry.report(make_score([0.02, 0.03] * 3, steps=60, partition=0))
    early = settle_if_due(registry, RULES, now=1_050.0)
    registry.report(make_score([0.02, 0.03] * 5, steps=100, partition=0))

    record = settle_if_due(registry, RULES, now=1_060.0)

    assert early is None
    assert record is not None
    assert (record.action, record.version) == ("promoted", new)
    assert record.decision["live"]["gain"] == pytest.approx(0.025)
    assert record.decision["live"]["blocks"] == 10
    assert (record.decision["trial"], record.decision["guard_steps"]) == (2, 32)
    guard = registry.trial()
    assert guard is not None
    assert (guard.kind, guard.beside, guard.steps) == ("guard", old, 32)
    assert settle_if_due(registry, RULES, now=1_061.0) is None, "scores of the trial before do not count"


def test_a_roll_back_puts_the_former_champion_in_service_and_ends_the_trial(tmp_path: Path):
    registry, old, new = make_registry(tmp_path)
    registry.promote(new, {"guard_steps": 100}, now=1_100.0)
    worse = make_score([0.05, 0.06] * 4, steps=50)
    registry.report(LiveScore(**{name: getattr(worse, name) for name in worse.__struct_fields__} | {"trial": 3}))

    record = settle_if_due(registry, RULES, now=1_200.0)

    assert record is not None
    assert (record.action, record.version, record.decision["from"]) == ("rolled_back", old, new)
    assert registry.champion() == old
    assert registry.trial() is None
    assert settle_if_due(registry, RULES, now=1_300.0) is None
