"""Whether intervals hold what they promise: where targets fall among the quantiles, overall and as time goes by."""

from __future__ import annotations

import numpy as np

from forecaster.evaluation.scores import Array


def pit_histogram(target: Array, quantiles: Array) -> Array:
    """How many targets fall between each two neighbouring quantiles, ``[Q + 1]``; the outer two bins are open.

    A calibrated forecast fills every bin by the difference of its levels. A target that ties with quantiles is spread
    evenly over the bins it touches, so that streams with few different values do not look miscalibrated.

    Args:
        target: ``[n]``, ``nan`` where missing.
        quantiles: ``[n, Q]``, rising.

    >>> pit_histogram(np.array([0.0, 1.5, 2.0]), np.array([[1.0, 2.0]] * 3)).tolist()
    [1.0, 1.5, 0.5]
    """
    known = ~np.isnan(target) & ~np.isnan(quantiles[:, 0])
    y, q = target[known, None], quantiles[known]
    first, last = (q < y).sum(axis=1), (q <= y).sum(axis=1)  # bins first..last
    share, size = 1.0 / (last - first + 1), quantiles.shape[1] + 2
    rises = np.bincount(first, share, minlength=size) - np.bincount(last + 1, share, minlength=size)
    return np.asarray(np.cumsum(rises)[:-1])


def rolling_coverage(inside: Array, window: int) -> Array:
    """Coverage of every ``window`` successive targets, ``[n - window + 1]``; empty where there are fewer.

    Args:
        inside: 1 where a target lay inside its interval, else 0; without missing ones.

    >>> rolling_coverage(np.array([1.0, 1.0, 0.0, 1.0]), 2).tolist()
    [1.0, 0.5, 0.5]
    """
    if len(inside) < window:
        return np.zeros(0)
    total = np.concatenate([[0.0], np.cumsum(inside)])
    return np.asarray((total[window:] - total[:-window]) / window)


def local_deviation(inside: Array, nominal: float, window: int) -> float:
    """Mean distance of the rolling coverage from what was promised; ``nan`` where there are fewer targets.

    >>> local_deviation(np.array([1.0, 1.0, 0.0, 1.0]), 0.5, 2).__round__(3)
    0.167
    """
    rolling = rolling_coverage(inside, window)
    return float(np.abs(rolling - nominal).mean()) if len(rolling) else float("nan")
