"""How far off an expert usually is: what makes a forecast of quantiles of one that answers with a point."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray, chosen, gathered

_MEMORY = 168
_EARLY = 8  # values; in units of a scale made of fewer, an error may be anything, and would be remembered for a day
_FIRST_COUNTS = 4  # errors that the first spread counts for
_CAP = 8.0  # usual errors: one wild reading must not widen a day of intervals
_LEAST_CAP = 1.0  # in scales: a stream that was constant so far has no usual error
_LARGEST = 20.0  # in scales


def normal_quantiles(levels: tuple[float, ...]) -> Float32Array:
    """Quantiles of a normal distribution whose mean absolute value is 1, ``[Q]``: a shape for a mean |error|.

    >>> normal_quantiles((0.1, 0.5, 0.9)).round(3).tolist()
    [-1.6059999465942383, 0.0, 1.6059999465942383]
    """
    sigma = np.sqrt(np.pi / 2)
    return np.array([sigma * NormalDist().inv_cdf(level) for level in levels], np.float32)


class PointSpread:
    """Mean |error| of every point expert per stream and anchor lead, in units of the stream's scale.

    A law for the spread (as the root of the lead) is wrong for most streams: measured on heart rates, a random walk's
    intervals hold 96 % instead of 80 at lead 30, and what corrects them is wrong for whoever answers next.

    Args:
        anchors: number of anchor leads, ``A``.
        points: number of point experts, ``P``.
    """

    def __init__(self, *, anchors: int, points: int) -> None:
        self.columns = (Column("spread", "f4", (anchors, points)),)

    def begins(self, c: Columns, slots: IntArray, available: BoolArray) -> bool:
        """Whether any expert ``available``, ``[B, P]``, has no spread yet: else nobody asks for its first one."""
        return bool(((c["spread"].take(slots, axis=0) == 0) & available[:, None, :]).any())

    def known(self, c: Columns, slots: IntArray, available: BoolArray, first: Float32Array) -> Float32Array:
        """Spreads at the anchors, ``[B, A, P]``; an expert that has none yet begins with its ``first`` one.

        Args:
            available: experts that answer now, ``[B, P]``.
            first: ``[B, A, P]``.
        """
        kept: Float32Array = gathered(c["spread"], slots)
        begins = (kept == 0) & available[:, None, :]
        if not begins.any():
            return kept
        spread = np.where(begins, np.minimum(first, np.float32(_LARGEST)), kept)
        c["spread"][slots] = spread
        return spread

    def update(self, c: Columns, slots: IntArray, settled: BoolArray, error: FloatArray, seen: IntArray) -> None:
        """Learn from errors of points whose target arrived.

        Args:
            settled: points that were settled, ``[B, A, P]``.
            error: their |error| in units of the scale, ``[B, A, P]``; anything elsewhere.
            seen: number of values of each stream, ``[B]``.
        """
        spread = gathered(c["spread"], slots)
        learns = settled & (seen > _EARLY)[:, None, None]
        cap = np.minimum(np.maximum(_CAP * spread, _LEAST_CAP), _LARGEST)
        found = np.minimum(chosen(learns, error, 0.0), cap)
        weight = 1.0 / np.clip(seen - _EARLY, _FIRST_COUNTS, _MEMORY)[:, None, None]
        c["spread"][slots] = chosen(learns, spread + weight * (found - spread), spread)
