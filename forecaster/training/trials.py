"""How a trial ends: what partitions have seen of two models on live readings, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from forecaster.models.decisions import LiveScore, RegistryRecord, Settled, Trial
from forecaster.ports import ModelRegistry
from forecaster.series.groups import DEFAULT
from forecaster.training.promotion import student_t_upper_tail

MIN_BLOCKS = 4
"""Fewer independent runs of readings than this say nothing about chance."""


class TrialRules(NamedTuple):
    """What is asked of live scores."""

    margin: float
    """Share of the new champion's live loss that the former one must save to come back."""
    level: float
    """p-value below which that is no chance. Looked at again and again, so stricter than a single test's."""
    patience_seconds: float
    """Wall-clock time after which a trial ends with what there is."""
    guard_steps: int
    """Of the guard that follows a promotion; 0 for none."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a trial by all partitions together; losses as `LiveScore` has them, per settled forecast."""

    streams: int
    steps: float
    """Readings scored of each stream, on average."""
    targets: int
    serving_loss: float | None
    """``None`` before the first settled forecast."""
    beside_loss: float | None
    gain: float | None
    """Share of the serving model's loss that the other one saves; below 0 it loses more."""
    p_value: float
    """One-sided, of the other one being no better; 1 before `MIN_BLOCKS`."""
    blocks: int


def gather(scores: Sequence[LiveScore]) -> Evidence:
    """All partitions' scores of one trial as one."""
    streams, targets = sum(score.streams for score in scores), sum(score.targets for score in scores)
    serving, beside = sum(score.serving_loss for score in scores), sum(score.beside_loss for score in scores)
    blocks = sum(score.blocks for score in scores)
    return Evidence(
        streams=streams,
        steps=sum(score.steps for score in scores) / streams if streams else 0.0,
        targets=targets,
        serving_loss=serving / targets if targets else None,
        beside_loss=beside / targets if targets else None,
        gain=None if not targets else 1.0 - beside / serving if serving > 0 else -math.inf if beside > 0 else 0.0,
        p_value=_p_value(
            blocks, sum(score.difference for score in scores), sum(score.difference_squares for score in scores)
        ),
        blocks=blocks,
    )


def verdict(trial: Trial, evidence: Evidence, rules: TrialRules, *, now: float) -> tuple[Settled, str] | None:
    """How the trial ends, and why, in one sentence; ``None`` while it goes on.

    A challenger has earned its place on data neither model had seen before the trial began; live it only must not be
    worse. A former champion comes back as soon as it is better by the margin, and not by chance.
    """
    is_over, is_late = evidence.steps >= trial.steps, now - trial.began >= rules.patience_seconds
    seen = f"{evidence.steps:.0f} of {trial.steps} live steps"
    if trial.kind == "guard":
        gain = evidence.gain or 0.0
        if evidence.gain is not None and evidence.gain > rules.margin and evidence.p_value < rules.level:
            return "rolled_back", (
                f"Live, {trial.serving} lost {_loss(evidence.serving_loss)} and {trial.beside} {gain:.1%} less "
                f"(p = {evidence.p_value:.4f}) over {evidence.steps:.0f} steps of {evidence.streams} streams."
            )
        if is_over or is_late:
            return "confirmed", f"Live, the former champion would have saved {gain:.1%}; {seen}."
        return None
    if is_over and evidence.gain is not None:
        compared = f"Live, it loses {_loss(evidence.beside_loss)}, the champion {_loss(evidence.serving_loss)}; {seen}."
        return ("promoted" if evidence.gain >= 0 else "refused"), compared
    if is_late:
        return "refused", (
            f"Only {seen} within {rules.patience_seconds:g} s: workers that serve {trial.serving} and fit both models "
            "have to run, and promotion.patience has to be as long as so many readings take."
        )
    return None


def settle_if_due(
    registry: ModelRegistry, rules: TrialRules, *, now: float, group: str = DEFAULT
) -> RegistryRecord | None:
    """Look at a group's trial under way and end it where its time has come; the decision, where this call made one.

    Raises:
        ArtifactMismatch: the model that is to serve is gone or damaged.
        TransportError: the registry cannot be read or written.
    """
    trial = registry.trial(group)
    if trial is None:
        return None
    evidence = gather(registry.live_scores(trial))
    found = verdict(trial, evidence, rules, now=now)
    if found is None:
        return None
    action, reason = found
    decision: dict[str, Any] = {
        "reason": reason,
        "trial": trial.number,
        "from" if action == "rolled_back" else "beside": trial.serving,
        "live": {name: value for name, value in msgspec.to_builtins(evidence).items() if _is_number(value)},
    }
    if action == "promoted" and rules.guard_steps:
        decision["guard_steps"] = rules.guard_steps
    return registry.settle(trial, action, decision, now=now)


def _p_value(blocks: int, total: float, squares: float) -> float:
    """One-sided p-value that the mean of block means is not above zero, by Student's t."""
    if blocks < MIN_BLOCKS:
        return 1.0
    mean = total / blocks
    variance = max(squares / blocks - mean * mean, 0.0) * blocks / (blocks - 1)
    if variance <= 0.0:
        return 0.0 if mean > 0 else 1.0
    return student_t_upper_tail(mean / math.sqrt(variance / blocks), blocks - 1)


def _loss(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4f}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
