"""The pictures of a training's report, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from forecaster.reports.drawing import ACTUAL, NAIVE, OTHER, OURS, SEASONAL, fan_picture, plain
from forecaster.training.evidence import Evidence, Example
from forecaster.training.judging import LeadTable
from forecaster.training.loop import Progress

_SMOOTHED = 25  # batches over which the training loss is averaged, as many as lie between two looks


def loss_curves(progress: Sequence[Progress]) -> Figure | None:
    """Training loss by step, and the early-stopping score at each look; ``None`` of a fit that made no step here."""
    if not progress:
        return None
    steps = np.array([made.step for made in progress])
    losses = np.array([made.loss for made in progress])
    scores = np.array([made.validation for made in progress])
    is_look = np.concatenate(([False], scores[1:] != scores[:-1])) & ~np.isnan(scores)
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, losses, color=OURS, alpha=0.25, linewidth=0.7)
    if len(losses) >= _SMOOTHED:
        mean = np.convolve(losses, np.full(_SMOOTHED, 1 / _SMOOTHED), mode="valid")
        left.plot(steps[_SMOOTHED - 1 :], mean, color=OURS, linewidth=1.6)
    left.set(xlabel="step", ylabel="loss of the batch")
    right.plot(steps[is_look], scores[is_look], "o-", color=OURS, markersize=3, linewidth=1.2)
    right.set(xlabel="step", ylabel="early-stopping score")
    return plain(figure)


def loss_by_lead(leads: LeadTable) -> Figure:
    """Mean pinball of every lead, of everybody who was judged."""
    x = np.arange(1, len(leads.challenger) + 1)
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, leads.naive, color=NAIVE, label="last value")
    if leads.seasonal is not None:
        axes.plot(x, leads.seasonal, color=SEASONAL, label="seasonal naive")
    if leads.champion is not None:
        axes.plot(x, leads.champion, color=ACTUAL, linestyle="--", label="champion")
    for (name, losses), style in zip(leads.companions.items(), ("-", ":", "-.", "--"), strict=False):
        axes.plot(x, losses, color=OTHER, linestyle=style, label=name)
    axes.plot(x, leads.challenger, color=OURS, linewidth=2, label="challenger")
    axes.set(xlabel="lead", ylabel="mean pinball", ylim=(0, None))
    axes.legend(fontsize=8, frameon=False)
    return plain(figure)


def reliability(evidence: Evidence, levels: tuple[float, ...]) -> Figure:
    """Share of values at or below each quantile beside the level it stands for, at the first, middle and last lead."""
    below = np.array(evidence.below)  # [H, Q]
    figure = Figure(figsize=(4.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=ACTUAL, linewidth=0.7, linestyle=":")
    for lead, alpha in zip(sorted({1, -(-len(below) // 2), len(below)}), (1.0, 0.65, 0.35), strict=False):
        axes.plot(levels, below[lead - 1], "o-", color=OURS, alpha=alpha, markersize=4, label=f"lead {lead}")
    axes.set(xlabel="level", ylabel="share of values at or below", xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize=8, frameon=False)
    return plain(figure)


def example_picture(example: Example, levels: tuple[float, ...], stream_id: str) -> Figure:
    """Newest forecasts of one stream over what came."""
    return fan_picture(example.fans, levels, f"{stream_id}: pinball {example.relative_naive:.2f} of naive")
