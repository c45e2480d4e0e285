"""Seasons as settings and artifacts name them, and as steps of one stream."""

from __future__ import annotations

import numpy as np

from forecaster.series.columns import FloatArray, IntArray


def season_steps(season_seconds: float, steps_seconds: FloatArray, ring_steps: int) -> IntArray:
    """A season in seconds as whole steps of streams with these steps, 0 where it does not fit them.

    It fits when it is at least two steps, a whole number of steps within 2 %, and no longer than the ring.

    >>> season_steps(86400.0, np.array([3600.0, 300.0, 60.0, 0.0]), 336).tolist()
    [24, 288, 0, 0]
    """
    steps = np.divide(season_seconds, steps_seconds, out=np.zeros_like(steps_seconds), where=steps_seconds > 0)
    whole = np.rint(steps)
    fits = (whole >= 2) & (whole <= ring_steps) & (np.abs(steps - whole) <= 0.02 * steps)
    return np.where(fits, whole, 0).astype(np.int64)
