"""A training's report: how the fit went, how the model did on the judged stretch, and some of its forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from forecaster.codecs.timestamps import format_time
from forecaster.models.artifact import write_atomically
from forecaster.reports.html import image, number, page, table
from forecaster.training.loop import Progress
from forecaster.training.pictures import example_picture, loss_by_lead, loss_curves, reliability
from forecaster.training.train import TrainingOutcome


def write_training_report(outcome: TrainingOutcome, progress: Sequence[Progress], path: Path) -> None:
    """Write the report as one HTML file; pictures are inside it.

    Args:
        outcome: what the training came to.
        progress: every step that was told of, in order; of a resumed fit those since it was resumed.
    """
    write_atomically(path, render(outcome, progress).encode())


def render(outcome: TrainingOutcome, progress: Sequence[Progress]) -> str:
    """The report as HTML."""
    manifest, evidence = outcome.artifact.manifest, outcome.evidence
    levels = tuple(manifest.hyperparameters.quantile_levels)
    parts = [
        f"<p><b>{escape(outcome.decision.outcome)}</b>: {escape(outcome.decision.reason)}</p>",
        f"<p class=note>{escape(_headline(outcome))}</p>",
        "<h2>On the newest stretch, which nobody had seen</h2>",
        _scores_table(outcome),
        image(loss_by_lead(outcome.leads)),
        "<h2>The fit</h2>",
        image(loss_curves(progress)),
        "<p class=note>The early-stopping score is the mean pinball on the second newest stretch, every stream alike. "
        "Where a teacher was asked for, the fits of its members and of the plain model come first.</p>",
        _fit_table(outcome),
        "<h2>Calibration of the network alone</h2>",
        "<p class=note>Serving corrects intervals stream by stream; this is before that.</p>",
        image(reliability(evidence, levels)),
        _calibration_table(evidence.below, levels),
        "<h2>Forecasts</h2>",
        "<p class=note>The newest forecasts of some streams, from the best to the worst against the last value.</p>",
        *(image(example_picture(one, levels, outcome.stream_ids[one.stream])) for one in evidence.examples),
        "<h2>Settings</h2>",
        table(("setting", ""), [(name, str(value)) for name, value in sorted(_flat(manifest.settings).items())]),
    ]
    return page(f"Training of {manifest.version}", parts)


def _headline(outcome: TrainingOutcome) -> str:
    manifest = outcome.artifact.manifest
    data, hp = manifest.data, manifest.hyperparameters
    season = f"{outcome.season_seconds:g} s" if outcome.season_seconds else f"{manifest.season_steps or 'no'} steps"
    return (
        f"{data.readings:,} readings of {data.streams:,} streams, from {format_time(data.first)}; seen until "
        f"{format_time(data.last)}. {hp.cell.upper()}, {hp.layers} × {hp.hidden}; horizon {hp.horizon}; season "
        f"{season}; seed {manifest.seed}; {f'from {manifest.parent}' if manifest.parent else 'from new weights'}; "
        f"{outcome.seconds:.0f} s."
    )


def _scores_table(outcome: TrainingOutcome) -> str:
    leads, decision = outcome.leads, outcome.decision
    naive = float(np.mean(leads.naive))
    everybody = {
        "challenger": leads.challenger,
        "champion": leads.champion,
        "last value": leads.naive,
        "seasonal naive": leads.seasonal,
        **leads.companions,
    }
    rows = [
        (name, number(float(np.mean(losses))), number(float(np.mean(losses)) / naive), number(losses[0]))
        for name, losses in everybody.items()
        if losses is not None
    ]
    p_value = (
        "" if decision.p_value is None else f"<p>Diebold-Mariano against the champion: p = {decision.p_value:.3f}, "
    )
    tested = f"{p_value}{decision.timestamps:,} moments.</p>" if p_value else ""
    return table(("", "mean pinball", "of the last value's", "at lead 1"), rows) + tested


def _fit_table(outcome: TrainingOutcome) -> str:
    fit, training = outcome.fit, outcome.artifact.manifest.training
    rows = [
        ("steps, best after", f"{fit.steps}, {fit.best_step}"),
        ("stopped by", fit.stopped_by),
        ("early-stopping score at the start, best", f"{fit.start_validation:.4f}, {fit.best_validation:.4f}"),
        ("highest learning rate", f"{training['learning_rate']:g}"),
        ("seconds", f"{fit.seconds:.1f}"),
    ]
    return table(("of the challenger", ""), rows)


def _calibration_table(below: tuple[tuple[float, ...], ...], levels: tuple[float, ...]) -> str:
    mean = np.nanmean(np.array(below), axis=0) if np.isfinite(below).any() else np.full(len(levels), np.nan)
    return table(
        ("level", "share of values at or below, all leads"),
        [(f"{level:g}", number(float(share))) for level, share in zip(levels, mean, strict=True)],
    )


def _flat(settings: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
