"""How far a stream leaves the range it has ever been in, by single values and by the mean of its last ten or so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forecaster.series.columns import BoolArray, Column, Columns, FloatArray, IntArray
from forecaster.series.compiled import compiled

THRESHOLD = 0.05
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
        share, above = np.zeros((len(slots), 2)), np.zeros((len(slots), 2), np.bool_)
        _follow(slots, values, scale, counted, share, above, *(c[column.name] for column in self.columns))
        return share, above


@compiled
def _follow(
    slots: IntArray,
    values: FloatArray,
    scale: FloatArray,
    counted: BoolArray,
    share: FloatArray,
    above: BoolArray,
    readings: npt.NDArray[np.int32],
    mean: FloatArray,
    low: FloatArray,
    high: FloatArray,
) -> None:
    """Infinite differences of values near the largest double make what is not a number: it counts for nothing later."""
    for row in range(len(slots)):
        slot = slots[row]
        n = readings[slot]
        moved = mean[slot] + (values[row] - mean[slot]) * max(1 / _MEAN_READINGS, 1 / (n + 1))
        for which in range(2):
            now = moved if which else values[row]
            # Before the first readings are through there is no range: it begins at each of them.
            least, most = (low[slot, which], high[slot, which]) if n > _FIRST_READINGS else (now, now)
            above[row, which] = now > most
            if counted[row] and n > WARM_READINGS:
                beyond = np.maximum(np.maximum(now - most, least - now), 0.0)
                threshold = THRESHOLD * (1 + _GRACE / (n + 1))
                share[row, which] = np.minimum(beyond / np.maximum(most - least, scale[row]), _MOST) / threshold
            if counted[row]:
                least, most = np.minimum(least, now), np.maximum(most, now)
                shrunk = 0.5 * (most - least) / _MEMORY
                low[slot, which], high[slot, which] = least + shrunk, most - shrunk
        if counted[row]:
            mean[slot], readings[slot] = moved, n + 1
