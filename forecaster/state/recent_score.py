"""How good a stream's own published forecasts have been lately, beside the naive forecast at the same origins."""

from __future__ import annotations

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray, chosen

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
        count = settled.sum(axis=1)
        some = count > 0
        number = c["recent_settled"][slots] + some
        weight = np.where(some, 1 / np.clip(number, 1, _MEMORY), 0.0).astype(np.float32)
        for name, values in (
            ("recent_error", error),
            ("recent_naive_error", naive_error),
            ("recent_covered", covered.astype(np.float32)),
        ):
            mean = chosen(settled, values, np.float32(0.0)).sum(axis=1) / np.maximum(count, 1)
            c[name][slots] += weight * (mean.astype(np.float32) - c[name][slots])
        c["recent_settled"][slots] = number

    def coverage(self, c: Columns, slots: IntArray) -> FloatArray:
        """Coverage of each stream, ``nan`` before anything settled, ``[B]``."""
        return np.where(c["recent_settled"][slots] > 0, c["recent_covered"][slots].astype(np.float64), np.nan)

    def summary(self, c: Columns, slot: int) -> tuple[float | None, float | None]:
        """(error against naive, coverage) of one stream; ``None`` before anything settled or where naive is perfect."""
        if not c["recent_settled"][slot]:
            return None, None
        naive = float(c["recent_naive_error"][slot])
        return (float(c["recent_error"][slot]) / naive if naive > 0 else None), float(c["recent_covered"][slot])
