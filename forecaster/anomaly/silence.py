"""Sensors that are stuck, and sensors that say nothing, for longer than they ever were."""

from __future__ import annotations

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, FloatArray, IntArray

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
        ended = present & (run == 1)
        longest, before = c["flat_longest"][slots], c["flat_run"][slots]
        longest = np.where(ended, np.maximum(longest, before), longest)
        stuck = present & (run >= np.maximum(self._flat_readings, _LONGER * longest + 1))
        stuck &= (readings - run >= run) if self._flat_readings else False
        c["flat_longest"][slots] = longest
        c["flat_run"][slots] = np.where(present, run, before)

        longest = c["gap_longest"][slots]
        silent = (missed >= np.maximum(self._gap_steps, _LONGER * longest + 1)) & (readings > _WARM_READINGS)
        silent &= self._gap_steps > 0
        c["gap_longest"][slots] = np.where(present, np.maximum(longest, np.minimum(missed, 2**30)), longest)
        return np.stack((stuck, silent)).T.astype(np.float64)
