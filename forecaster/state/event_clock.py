"""Each stream's own clock: what is on time, late or repeated, how long its step is, how many steps were skipped."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from forecaster.series.columns import Column, Columns, FloatArray, IntArray
from forecaster.series.compiled import compiled

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
        arrivals = np.zeros(len(slots), np.int64)
        _classify(slots, times, values, c["clock"], c["last"], arrivals)
        return arrivals

    def advance(
        self, c: Columns, slots: IntArray, times: FloatArray, values: FloatArray
    ) -> tuple[IntArray, FloatArray]:
        """Move the clocks to these readings, which must be on time.

        Returns:
            steps since the reading before (1 where none was skipped), ``[B]``; and the part of the time that this
            reading's own tick spans, in steps, ``[B]`` (1 for a regular stream).
        """
        steps, elapsed = np.empty(len(slots), np.int64), np.empty(len(slots))
        _advance(
            slots,
            times,
            values,
            self.step_seconds,
            c["clock"],
            c["last"],
            c["step"],
            c["intervals"],
            c["readings"],
            c["repeats"],
            steps,
            elapsed,
        )
        return steps, elapsed


@compiled
def _classify(
    slots: IntArray, times: FloatArray, values: FloatArray, clock: FloatArray, last: FloatArray, arrivals: IntArray
) -> None:
    for row in range(len(slots)):
        slot = slots[row]
        if times[row] > clock[slot]:
            arrivals[row] = Arrival.ON_TIME
        elif times[row] == clock[slot]:
            is_same = values[row] == last[slot] or (np.isnan(values[row]) and np.isnan(last[slot]))
            arrivals[row] = Arrival.DUPLICATE if is_same else Arrival.CONFLICT
        else:
            arrivals[row] = Arrival.LATE


@compiled
def _advance(
    slots: IntArray,
    times: FloatArray,
    values: FloatArray,
    declared: float,
    clock: FloatArray,
    last: FloatArray,
    step: FloatArray,
    intervals: FloatArray,
    readings: IntArray,
    repeats: npt.NDArray[np.int32],
    steps: IntArray,
    elapsed: FloatArray,
) -> None:
    kept = intervals.shape[1]
    ordered = np.empty(kept)
    for row in range(len(slots)):
        slot, before = slots[row], readings[slots[row]]
        # Event times are exact to the microsecond; the dust of their difference would show in the published step.
        interval = np.round((times[row] - clock[slot]) * 1e6) / 1e6 if before > 0 else 0.0
        usual = declared if declared > 0 else step[slot]
        if usual <= 0:
            usual = interval if interval > 0 else 1.0
        ratio = interval / usual if before > 0 else 1.0
        steps[row] = int(min(max(np.round(ratio), 1.0), 2.0**31))
        elapsed[row] = ratio - (steps[row] - 1) if steps[row] > 1 else ratio

        if before > 0:
            intervals[slot, (before - 1) % kept] = interval
        if declared > 0:
            step[slot] = declared
        elif before > 0:
            _sort(intervals[slot], ordered)
            step[slot] = ordered[(min(before, kept) - 1) // 2]
        repeats[slot] = repeats[slot] + 1 if values[row] == last[slot] else 0
        clock[slot], last[slot], readings[slot] = times[row], values[row], before + 1


@compiled
def _sort(numbers: FloatArray, ordered: FloatArray) -> None:
    """By insertion: of nine numbers the quickest, and `np.sort` would make a new array for each stream."""
    for taken in range(len(numbers)):
        number, place = numbers[taken], taken
        while place > 0 and ordered[place - 1] > number:
            ordered[place] = ordered[place - 1]
            place -= 1
        ordered[place] = number
