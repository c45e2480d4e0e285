"""How good a stream's own published forecasts have been lately, beside the naive forecast at the same origins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.compiled import compiled

_MEMORY = 100


class RecentScore:
    """Exponentially forgetting means per stream, over all anchor leads together."""

    columns = (
        Column("recent_error", "f4"),  # |error| of the published median, in units of the scale
        Column("recent_naive_error", "f4"),  # the same of the last value
        Column("recent_covered", "f4"),  # share of targets inside the widest published interval
        Column("recent_settled", "i4"),  # readings that settled a forecast
    )

    def update(
        self,
        c: Columns,
        slots: IntArray,
        settled: BoolArray,
        error: Float32Array,
        naive_error: Float32Array,
        covered: BoolArray,
    ) -> None:
        """Take in what a reading settled; all arrays ``[B, A]``."""
        _learn(
            slots,
            settled,
            error,
            naive_error,
            covered,
            c["recent_error"],
            c["recent_naive_error"],
            c["recent_covered"],
            c["recent_settled"],
        )

    def coverage(self, c: Columns, slots: IntArray) -> FloatArray:
        """Coverage of each stream, ``nan`` before anything settled, ``[B]``."""
        return np.where(c["recent_settled"][slots] > 0, c["recent_covered"][slots].astype(np.float64), np.nan)

    def summary(self, c: Columns, slot: int) -> tuple[float | None, float | None]:
        """(error against naive, coverage) of one stream; ``None`` before anything settled or where naive is perfect."""
        if not c["recent_settled"][slot]:
            return None, None
        naive = float(c["recent_naive_error"][slot])
        return (float(c["recent_error"][slot]) / naive if naive > 0 else None), float(c["recent_covered"][slot])


@compiled
def _learn(
    slots: IntArray,
    settled: BoolArray,
    error: Float32Array,
    naive_error: Float32Array,
    covered: BoolArray,
    recent_error: Float32Array,
    recent_naive_error: Float32Array,
    recent_covered: Float32Array,
    recent_settled: npt.NDArray[np.int32],
) -> None:
    for row in range(len(slots)):
        count = 0
        errors = naive_errors = hits = 0.0
        for anchor in range(settled.shape[1]):
            if settled[row, anchor]:
                count += 1
                errors += error[row, anchor]
                naive_errors += naive_error[row, anchor]
                hits += covered[row, anchor]
        if count:
            slot = slots[row]
            recent_settled[slot] += 1
            weight = 1.0 / min(recent_settled[slot], _MEMORY)
            recent_error[slot] += weight * (errors / count - recent_error[slot])
            recent_naive_error[slot] += weight * (naive_errors / count - recent_naive_error[slot])
            recent_covered[slot] += weight * (hits / count - recent_covered[slot])
