"""All scores of a set of forecasts at once, and the same over several streams."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from forecaster.evaluation.scores import (
    Array,
    coverage,
    expected_value,
    interval_score,
    mae,
    mean_quantile_loss,
    mse,
    weighted_quantile_loss,
)


class IntervalScores(msgspec.Struct, frozen=True, kw_only=True):
    """How one central interval did."""

    nominal: float
    """Share of targets it promises to hold."""
    coverage: float
    interval_score: float
    """In the stream's own units; a mean over streams where several are pooled."""
    scaled_interval_score: float


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of forecasts of one stream, or means over streams; ``nan`` where there is nothing to score."""

    targets: int
    """Targets that had a value."""
    mae: float
    """Of the median."""
    mse: float
    """Of the median too."""
    mse_mean: float
    """Mean squared error of the mean, as the quantiles tell it."""
    mase: float
    """MAE in units of the last value's error on the warm-up."""
    wql: float
    """Weighted quantile loss, mean over the levels."""
    sql: float
    """Scaled quantile loss: twice the mean pinball in units of the last value's error on the warm-up."""
    sql_seasonal: float
    """The same of seasonal naive, whose quantiles are one value: over symmetric levels, its MAE in that unit."""
    relative_naive: float
    """MAE over that of the last value; a geometric mean over streams where several are pooled."""
    relative_seasonal: float
    """MAE over that of seasonal naive; the same."""
    intervals: tuple[IntervalScores, ...]
    """Of each central interval, widest first."""


def central_intervals(levels: Sequence[float]) -> list[tuple[int, int, float]]:
    """Places of the lower and the upper level of each central interval, and what it promises; widest first.

    >>> central_intervals((0.1, 0.25, 0.5, 0.75, 0.9))
    [(0, 4, 0.8), (1, 3, 0.5)]
    """
    last = len(levels) - 1
    return [(k, last - k, round(levels[last - k] - levels[k], 9)) for k in range(len(levels) // 2)]


def summarise(
    target: Array, quantiles: Array, *, levels: Array, naive: Array, seasonal: Array | None, scale: float
) -> Scores:
    """Every score of some forecasts.

    Args:
        target: ``[...]``, ``nan`` where missing.
        quantiles: ``[..., Q]``, rising.
        levels: ``[Q]``, symmetric around 0.5.
        naive, seasonal: point forecasts of the same targets, ``[...]``.
        scale: unit of the scaled scores; 0 or ``nan`` has none.
    """
    unit = scale if scale > 0 else np.nan
    median = quantiles[..., int(np.searchsorted(levels, 0.5))]
    error = mae(target, median)
    intervals = []
    for low, high, nominal in central_intervals(levels.tolist()):
        lower, upper = quantiles[..., low], quantiles[..., high]
        score = interval_score(target, lower, upper, miss_rate=1.0 - nominal)
        covered = coverage(target, lower, upper)
        intervals.append(
            IntervalScores(
                nominal=nominal, coverage=covered, interval_score=score, scaled_interval_score=float(score / unit)
            )
        )
    return Scores(
        targets=int((~np.isnan(target)).sum()),
        mae=error,
        mse=mse(target, median),
        mse_mean=mse(target, expected_value(quantiles, levels)),
        mase=float(error / unit),
        wql=weighted_quantile_loss(target, quantiles, levels),
        sql=float(2.0 * mean_quantile_loss(target, quantiles, levels) / unit),
        sql_seasonal=float("nan") if seasonal is None else float(mae(target, seasonal) / unit),
        relative_naive=ratio(error, mae(target, naive)),
        relative_seasonal=float("nan") if seasonal is None else ratio(error, mae(target, seasonal)),
        intervals=tuple(intervals),
    )


def pool(streams: Sequence[Scores]) -> Scores:
    """Over streams: means of scores, geometric means of ratios, and coverage of all targets together."""

    def mean(name: str) -> float:
        return _mean([getattr(scores, name) for scores in streams])

    weights = np.array([scores.targets for scores in streams], np.float64)
    intervals = []
    for k, first in enumerate(streams[0].intervals if streams else ()):
        parts = [scores.intervals[k] for scores in streams]
        covered = np.array([part.coverage for part in parts])
        known = ~np.isnan(covered) & (weights > 0)
        intervals.append(
            IntervalScores(
                nominal=first.nominal,
                coverage=float(np.average(covered[known], weights=weights[known])) if known.any() else float("nan"),
                interval_score=_mean([part.interval_score for part in parts]),
                scaled_interval_score=_mean([part.scaled_interval_score for part in parts]),
            )
        )
    return Scores(
        targets=int(weights.sum()),
        mae=mean("mae"),
        mse=mean("mse"),
        mse_mean=mean("mse_mean"),
        mase=mean("mase"),
        wql=mean("wql"),
        sql=mean("sql"),
        sql_seasonal=mean("sql_seasonal"),
        relative_naive=geometric_mean([scores.relative_naive for scores in streams]),
        relative_seasonal=geometric_mean([scores.relative_seasonal for scores in streams]),
        intervals=tuple(intervals),
    )


def ratio(error: float, reference: float) -> float:
    """``error / reference``; 1 where both are none, ``nan`` where only the reference is.

    >>> ratio(1.0, 2.0), ratio(0.0, 0.0)
    (0.5, 1.0)
    """
    if reference > 0:
        return error / reference
    return 1.0 if error == reference == 0 else float("nan")


def geometric_mean(ratios: Sequence[float]) -> float:
    """Of the positive ones; ``nan`` of none.

    >>> geometric_mean([0.5, 2.0, float("nan")])
    1.0
    """
    positive = [value for value in ratios if value > 0]
    return float(np.exp(np.mean(np.log(positive)))) if positive else float("nan")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
