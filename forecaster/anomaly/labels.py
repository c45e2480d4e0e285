"""What people say of a stream's anomalies moves its thresholds: up after a false alarm, down after a true one.

All tests of a stream are held against their thresholds times one factor, its tolerance, which begins at 1. A false
alarm lifts it above the highest score that the anomaly reached, so that a like one is not raised again; where the
label speaks of an anomaly before the last one, whose score is not known any more, by a fixed share. A true alarm
lowers it by that share. It never leaves 0.5 to 4, however many labels there are: neither can they silence a stream for
good nor make it raise on everything.
"""

from __future__ import annotations

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.compiled import compiled

LEAST_TOLERANCE, MOST_TOLERANCE = 0.5, 4.0
STEP = 1.25
_MARGIN = 1.1  # over the score of what was no anomaly


class Tolerance:
    """Factor on the thresholds of each stream, and the anomaly that a label most likely speaks of.

    Args:
        threshold: score from which an anomaly is raised at a tolerance of 1.
    """

    columns = (
        Column("tolerance", "f4", fill=1.0),
        Column("alarm_time", "f8", fill=np.inf),  # event time at which the last anomaly was raised; inf before any
        Column("alarm_score", "f4"),  # the highest it had, at a tolerance of 1
    )

    def __init__(self, *, threshold: float) -> None:
        self._threshold = threshold

    def of(self, c: Columns, slots: IntArray) -> FloatArray:
        """``[B]``; 1 where no label was given."""
        return c["tolerance"][slots].astype(np.float64)

    def follow(
        self, c: Columns, slots: IntArray, times: FloatArray, score: FloatArray, raised: BoolArray, is_open: BoolArray
    ) -> None:
        """Remember the score of the anomaly that was ``raised`` or ``is_open``, ``[B]`` each."""
        _follow(slots, times, score, raised, is_open, c["alarm_time"], c["alarm_score"])

    def label(self, c: Columns, slot: int, time: float, *, is_true: bool) -> None:
        """Take a label of an anomaly about ``time`` in."""
        tolerance = float(c["tolerance"][slot])
        if is_true:
            tolerance /= STEP
        else:
            tolerance *= STEP
            if time >= c["alarm_time"][slot]:
                tolerance = max(tolerance, _MARGIN * float(c["alarm_score"][slot]) / self._threshold)
        c["tolerance"][slot] = min(max(tolerance, LEAST_TOLERANCE), MOST_TOLERANCE)


@compiled
def _follow(
    slots: IntArray,
    times: FloatArray,
    score: FloatArray,
    raised: BoolArray,
    is_open: BoolArray,
    alarm_time: FloatArray,
    alarm_score: Float32Array,
) -> None:
    for row in range(len(slots)):
        slot = slots[row]
        if raised[row]:
            alarm_time[slot], alarm_score[slot] = times[row], score[row]
        elif is_open[row]:
            alarm_score[slot] = max(np.float64(alarm_score[slot]), score[row])
