"""How good forecasts were: pure functions of targets and forecasts. Missing targets (``nan``) are left out everywhere.

A score of no observed target at all is ``nan``.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]


def mae(target: Array, forecast: Array) -> float:
    """Mean absolute error of two arrays of one shape.

    >>> mae(np.array([1.0, 2.0, np.nan]), np.array([2.0, 4.0, 9.0]))
    1.5
    """
    return _mean(np.abs(target - forecast))


def mse(target: Array, forecast: Array) -> float:
    """Mean squared error of two arrays of one shape.

    >>> mse(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    2.5
    """
    return _mean((target - forecast) ** 2)


def expected_value(quantiles: Array, levels: Array) -> Array:
    """Mean of a forecast from its quantiles ``[..., Q]``: what minimises squared error, as the median absolute error.

    The quantile function's integral by the trapezoid rule, flat beyond the outermost levels. Of 0.1, 0.5 and 0.9 that
    is 0.3, 0.4 and 0.3: Swanson's rule. Source: Keefer & Bodily (1983), "Three-Point Approximations for Continuous
    Random Variables".

    >>> expected_value(np.array([1.0, 2.0, 6.0]), np.array([0.1, 0.5, 0.9])).round(6).item()
    2.9
    """
    cuts = np.concatenate(([0.0], (levels[1:] + levels[:-1]) / 2, [1.0]))
    return np.asarray(quantiles @ np.diff(cuts))


def smape(target: Array, forecast: Array) -> float:
    """Symmetric mean absolute percentage error, 0 to 2; a pair of zeros counts as no error.

    >>> smape(np.array([1.0, 0.0]), np.array([3.0, 0.0]))
    0.5
    """
    size = np.abs(target) + np.abs(forecast)
    error = 2.0 * np.abs(target - forecast)
    return _mean(np.where(size == 0, 0.0, error / np.where(size == 0, 1.0, size)))


def mase(target: Array, forecast: Array, history: Array, *, season: int = 1) -> float:
    """Mean absolute scaled error: the error in units of what seasonal naive errs on ``history``, in sample.

    Args:
        target, forecast: one shape.
        history: values before the forecasts, oldest first, ``[T]``.
        season: m in steps; 1 scales by the last value's error.

    Returns:
        ``nan`` where the history never changes, or is no longer than a season.

    Source: Hyndman & Koehler (2006), "Another look at measures of forecast accuracy".

    >>> mase(np.array([5.0]), np.array([4.0]), np.array([1.0, 3.0, 1.0, 3.0]))
    0.5
    """
    scale = naive_scale(history, season=season)
    return mae(target, forecast) / scale if scale > 0 else float("nan")


def naive_scale(history: Array, *, season: int = 1) -> float:
    """What seasonal naive errs on a history, in sample: the unit of scaled scores.

    Args:
        history: oldest first, ``[T]``.
        season: m in steps; 1 is the last value's error.

    >>> naive_scale(np.array([1.0, 3.0, 2.0]))
    1.5
    """
    return _mean(np.abs(history[season:] - history[:-season])) if len(history) > season else float("nan")


def quantile_loss(target: Array, forecast: Array, levels: Array) -> Array:
    """Pinball loss of each quantile of each forecast.

    Args:
        target: ``[...]``.
        forecast: ``[..., Q]``.
        levels: ``[Q]``.

    Returns:
        ``[..., Q]``, ``nan`` where the target is missing.

    >>> quantile_loss(np.array(5.0), np.array([4.0, 7.0]), np.array([0.1, 0.5])).tolist()
    [0.1, 1.0]
    """
    error = target[..., None] - forecast
    return np.maximum(levels * error, (levels - 1.0) * error)


def mean_quantile_loss(target: Array, forecast: Array, levels: Array) -> float:
    """Mean pinball over targets and levels. Twice this approximates the CRPS.

    >>> mean_quantile_loss(np.array([5.0]), np.array([[4.0, 5.0, 7.0]]), np.array([0.1, 0.5, 0.9])).__round__(3)
    0.1
    """
    return _mean(quantile_loss(target, forecast, levels))


def weighted_quantile_loss(target: Array, forecast: Array, levels: Array) -> float:
    """Twice the summed pinball, as a share of the summed size of the targets, averaged over the levels.

    >>> weighted_quantile_loss(np.array([4.0]), np.array([[2.0]]), np.array([0.5]))
    0.5
    """
    loss, observed = quantile_loss(target, forecast, levels), ~np.isnan(target)
    size = float(np.abs(target[observed]).sum())
    return 2.0 * float(loss[observed].sum()) / len(levels) / size if size > 0 else float("nan")


def coverage(target: Array, lower: Array, upper: Array) -> float:
    """Share of targets inside the closed interval.

    >>> coverage(np.array([1.0, 2.0, 9.0, np.nan]), np.zeros(4), np.full(4, 2.0)).__round__(3)
    0.667
    """
    inside = ((target >= lower) & (target <= upper)).astype(np.float64)
    return _mean(np.where(np.isnan(target), np.nan, inside))


def interval_score(target: Array, lower: Array, upper: Array, *, miss_rate: float) -> float:
    """Mean interval (Winkler) score: the width, and for a miss 2/α times how far outside the target lies.

    Args:
        target, lower, upper: one shape.
        miss_rate: α, nominal share of targets outside, as 0.2 for an 80 % interval.

    Source: Gneiting & Raftery (2007), "Strictly Proper Scoring Rules, Prediction, and Estimation".

    >>> interval_score(np.array([5.0, 1.0]), np.zeros(2), np.full(2, 4.0), miss_rate=0.2)
    9.0
    """
    outside = np.maximum(lower - target, 0.0) + np.maximum(target - upper, 0.0)
    return _mean((upper - lower) + (2.0 / miss_rate) * outside)


def _mean(values: Array) -> float:
    observed = values[~np.isnan(values)]
    return float(observed.mean()) if observed.size else float("nan")
