"""How far a stream leaves the range it has ever been in, by single values and by the mean of its last ten or so."""

from __future__ import annotations

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, FloatArray, IntArray, chosen, gathered

THRESHOLD = 0.055
"""Beyond the range so far, as a share of it."""
WARM_READINGS = 100

_MEAN_READINGS = 10.0
_FIRST_READINGS = 20  # whose range says nothing
_MEMORY = 100_000.0  # readings in which a range shrinks to a third
_GRACE = 300.0  # readings: a young range is left often, so it has to be left further
_MOST = 1e3


class Extremes:
    """Range of values and of short means per stream; old extremes are slowly forgotten."""

    columns = (
        Column("range_readings", "i4"),
        Column("range_mean", "f8"),  # of about ten values
        Column("range_low", "f8", (2,)),
        Column("range_high", "f8", (2,)),
    )

    def update(
        self, c: Columns, slots: IntArray, values: FloatArray, scale: FloatArray, counted: BoolArray
    ) -> tuple[FloatArray, BoolArray]:
        """Take values in, ``[B]`` where ``counted``.

        Returns:
            how far value and mean are beyond their ranges, as multiples of the threshold, ``[B, 2]``; and whether above
            rather than below, ``[B, 2]``.
        """
        n = c["range_readings"][slots].astype(np.int64)
        before = c["range_mean"][slots]
        mean = before + (values - before) * np.maximum(1 / _MEAN_READINGS, 1 / (n + 1))
        now = np.stack((values, mean)).T  # [B, 2]
        begun = (n > _FIRST_READINGS)[:, None]
        old_low, old_high = gathered(c["range_low"], slots), gathered(c["range_high"], slots)
        low, high = np.where(begun, old_low, now), np.where(begun, old_high, now)
        beyond = np.maximum(np.maximum(now - high, low - now), 0.0)
        share = np.minimum(beyond / np.maximum(high - low, scale[:, None]), _MOST)
        above = now > high

        low, high = np.minimum(low, now), np.maximum(high, now)
        shrunk = 0.5 * (high - low) / _MEMORY
        rows = counted[:, None]
        c["range_low"][slots] = chosen(rows, low + shrunk, old_low)
        c["range_high"][slots] = chosen(rows, high - shrunk, old_high)
        c["range_mean"][slots] = chosen(counted, mean, before)
        c["range_readings"][slots] = n + counted
        known = rows & (n > WARM_READINGS)[:, None]
        threshold = THRESHOLD * (1 + _GRACE / (n + 1))[:, None]
        return np.where(known, share / threshold, 0.0), above
