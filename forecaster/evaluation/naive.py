"""What the rows of a series are to be forecast, and the forecasts that every other one is measured by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forecaster.evaluation.scores import Array


def targets(values: Array, horizon: int) -> Array:
    """What came true after each row, ``[n, H]``: lead h of row i is row i + h; ``nan`` past the end.

    >>> targets(np.array([1.0, 2.0, 3.0]), 2).tolist()
    [[2.0, 3.0], [3.0, nan], [nan, nan]]
    """
    padded = np.concatenate([values, np.full(horizon, np.nan)])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded[1:], horizon)[: len(values)])


def last_value(values: Array) -> Array:
    """The newest value known at each row, ``[n]``; ``nan`` before the first.

    >>> last_value(np.array([np.nan, 1.0, np.nan])).tolist()
    [nan, 1.0, 1.0]
    """
    return values[np.maximum(_newest_known(values), 0)]


def seasonal_value(values: Array, season: int, horizon: int) -> Array:
    """The newest value known a whole number of seasons before each target, ``[n, H]``.

    Where the series does not reach back a season yet, the last value.

    Args:
        season: m in rows, at least 1.

    >>> seasonal_value(np.array([1.0, 2.0, 3.0]), 2, 3).tolist()
    [[1.0, 1.0, 1.0], [1.0, 2.0, 1.0], [2.0, 3.0, 2.0]]
    """
    leads = np.arange(1, horizon + 1)
    source = np.arange(len(values))[:, None] + leads - season * -(-leads // season)
    known = last_value(values)
    return np.where(source >= 0, known[np.maximum(source, 0)], known[:, None])


def is_tied(values: Array, *, share: float = 0.5) -> bool:
    """Whether more than this share of the values are the commonest one, or repeat the value before them.

    Any interval that holds the median covers such a series more often than it says.
    """
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return True
    _, counts = np.unique(known, return_counts=True)
    return bool(counts.max() > share * len(known) or (np.diff(known) == 0).mean() > share)


def _newest_known(values: Array) -> npt.NDArray[np.int64]:
    rows = np.where(np.isnan(values), 0, np.arange(len(values)))
    return np.asarray(np.maximum.accumulate(rows))
