"""Each stream's own clock: what is on time, late or repeated, how long its step is, how many steps were skipped."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from forecaster.series.columns import Column, Columns, FloatArray, IntArray

_INTERVALS = 9


class Arrival(IntEnum):
    """How a reading stands to its stream's clock."""

    ON_TIME = 0
    LATE = 1
    DUPLICATE = 2
    CONFLICT = 3


class EventClock:
    """Classifies readings by event time and learns each stream's step.

    The step is declared, or the median of the last nine intervals, so that it follows a sensor that changes its rate
    and shrugs off single gaps.

    Args:
        step_seconds: declared step of all streams; 0 learns it.
    """

    columns = (
        Column("clock", "f8", fill=-np.inf),  # event time of the last accepted reading
        Column("last", "f8", fill=np.nan),  # its value; nan when it was missing
        Column("step", "f8"),  # seconds; 0 until two readings have been seen
        Column("intervals", "f8", (_INTERVALS,), np.inf),  # the last ones, ring
        Column("readings", "i8"),  # accepted so far
        Column("repeats", "i4"),  # equal values in a row before the last
    )

    def __init__(self, *, step_seconds: float = 0.0) -> None:
        self.step_seconds = step_seconds

    def classify(self, c: Columns, slots: IntArray, times: FloatArray, values: FloatArray) -> IntArray:
        """`Arrival` of each reading, ``[B]``: at the clock is a duplicate or a conflict, before it is late."""
        clock, last = c["clock"][slots], c["last"][slots]
        if (times > clock).all():  # as nearly always
            return np.full(len(slots), Arrival.ON_TIME, np.int64)
        same = (values == last) | (np.isnan(values) & np.isnan(last))
        at_clock = np.where(same, Arrival.DUPLICATE, Arrival.CONFLICT)
        return np.where(times > clock, Arrival.ON_TIME, np.where(times == clock, at_clock, Arrival.LATE)).astype(
            np.int64
        )

    def advance(
        self, c: Columns, slots: IntArray, times: FloatArray, values: FloatArray
    ) -> tuple[IntArray, FloatArray]:
        """Move the clocks to these readings, which must be on time.

        Returns:
            steps since the reading before (1 where none was skipped), ``[B]``; and the part of the time that this
            reading's own tick spans, in steps, ``[B]`` (1 for a regular stream).
        """
        readings = c["readings"][slots]
        # Event times are exact to the microsecond; the dust of their difference would show in the published step.
        interval = np.round(np.where(readings > 0, times - c["clock"][slots], 0.0), 6)
        step = c["step"][slots]
        if self.step_seconds > 0:
            step = np.full(len(slots), self.step_seconds)
        step = np.where(step > 0, step, np.where(interval > 0, interval, 1.0))
        ratio = np.where(readings > 0, interval / step, 1.0)
        steps = np.clip(np.rint(ratio), 1, 2**31).astype(np.int64)

        started = readings > 0
        rows = slots[started]
        c["intervals"][rows, (readings[started] - 1) % _INTERVALS] = interval[started]
        if self.step_seconds > 0:
            c["step"][slots] = step
        else:
            known = np.minimum(readings[started], _INTERVALS)
            ordered = np.sort(c["intervals"][rows], axis=1)
            c["step"][rows] = ordered[np.arange(len(rows)), (known - 1) // 2]
        c["repeats"][slots] = np.where(values == c["last"][slots], c["repeats"][slots] + 1, 0)
        c["clock"][slots], c["last"][slots], c["readings"][slots] = times, values, readings + 1
        return steps, np.where(steps > 1, ratio - (steps - 1), ratio)
