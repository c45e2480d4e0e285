"""Sensors that are stuck, and sensors that say nothing, for longer than they ever were."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forecaster.series.columns import BoolArray, Column, Columns, FloatArray, IntArray
from forecaster.series.compiled import compiled

_LONGER = 2  # times the longest run that has ended
_WARM_READINGS = 20


class Silence:
    """Runs of equal values and of missing steps per stream, against the longest of each that has ended.

    A run is an anomaly when it is as long as the setting and more than twice as long as any before it. A stream that
    never moved is not stuck: it has to have lived as long as the run before it began.

    Args:
        flat_readings: equal values in a row that may be an anomaly; 0 for never.
        gap_steps: steps without a value that may be one; 0 for never.
    """

    columns = (
        Column("flat_run", "i4"),  # equal values so far
        Column("flat_longest", "i4"),
        Column("gap_longest", "i4"),
    )

    def __init__(self, *, flat_readings: int, gap_steps: int) -> None:
        self._flat_readings = flat_readings
        self._gap_steps = gap_steps

    def update(
        self,
        c: Columns,
        slots: IntArray,
        *,
        run: IntArray,
        missed: IntArray,
        readings: IntArray,
        present: BoolArray,
    ) -> FloatArray:
        """Take a reading in.

        Args:
            run: equal values in a row, this one included, ``[B]``.
            missed: steps without a value, up to this reading, ``[B]``.
            readings: of the stream so far, ``[B]``.
            present: whether it has a value, ``[B]``.

        Returns:
            1 where a stream is stuck, or silent, ``[B, 2]``, else 0.
        """
        found = np.zeros((len(slots), 2))
        columns = (c[column.name] for column in self.columns)
        _follow(slots, run, missed, readings, present, self._flat_readings, self._gap_steps, found, *columns)
        return found


@compiled
def _follow(
    slots: IntArray,
    run: IntArray,
    missed: IntArray,
    readings: IntArray,
    present: BoolArray,
    flat_readings: int,
    gap_steps: int,
    found: FloatArray,
    flat_run: npt.NDArray[np.int32],
    flat_longest: npt.NDArray[np.int32],
    gap_longest: npt.NDArray[np.int32],
) -> None:
    for row in range(len(slots)):
        slot = slots[row]
        if present[row]:
            if run[row] == 1:
                flat_longest[slot] = max(flat_longest[slot], flat_run[slot])
            lived = readings[row] - run[row]
            if flat_readings and run[row] >= max(flat_readings, _LONGER * flat_longest[slot] + 1) and lived >= run[row]:
                found[row, 0] = 1.0
            flat_run[slot] = run[row]
        is_long = missed[row] >= max(gap_steps, _LONGER * gap_longest[slot] + 1)
        if gap_steps > 0 and readings[row] > _WARM_READINGS and is_long:
            found[row, 1] = 1.0
        if present[row]:
            gap_longest[slot] = max(gap_longest[slot], min(missed[row], 2**30))
