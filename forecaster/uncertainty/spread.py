"""How far off an expert usually is: what makes a forecast of quantiles of one that answers with a point."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, IntArray
from forecaster.series.compiled import compiled

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
        points: names of the point experts, ``P``.
    """

    def __init__(self, *, anchors: int, points: tuple[str, ...]) -> None:
        self.columns = (Column("spread", "f4", (anchors, len(points)), labels=points),)

    def begins(self, c: Columns, slots: IntArray, available: BoolArray) -> bool:
        """Whether any expert ``available``, ``[B, P]``, has no spread yet: else nobody asks for its first one."""
        return _any_begins(slots, available, c["spread"])

    def known(self, c: Columns, slots: IntArray, available: BoolArray, first: Float32Array) -> Float32Array:
        """Spreads at the anchors, ``[B, A, P]``; an expert that has none yet begins with its ``first`` one.

        Args:
            available: experts that answer now, ``[B, P]``.
            first: ``[B, A, P]``.
        """
        known = np.empty_like(first)
        _begin(slots, available, first, c["spread"], known)
        return known

    def update(self, c: Columns, slots: IntArray, settled: BoolArray, away: Float32Array, seen: IntArray) -> None:
        """Learn from points whose target arrived.

        Args:
            settled: anchors with a forecast for this target, ``[B, A]``.
            away: points relative to the target, in units of the scale, ``[B, A, P]``; ``nan`` where an expert had no
                answer.
            seen: number of values of each stream, ``[B]``.
        """
        _learn(slots, settled, away, seen, c["spread"])


@compiled
def _any_begins(slots: IntArray, available: BoolArray, spread: Float32Array) -> bool:
    for row in range(len(slots)):
        for anchor in range(spread.shape[1]):
            for k in range(spread.shape[2]):
                if available[row, k] and spread[slots[row], anchor, k] == 0:
                    return True
    return False


@compiled
def _begin(
    slots: IntArray, available: BoolArray, first: Float32Array, spread: Float32Array, known: Float32Array
) -> None:
    for row in range(len(slots)):
        of_stream = spread[slots[row]]
        for anchor in range(spread.shape[1]):
            for k in range(spread.shape[2]):
                if available[row, k] and of_stream[anchor, k] == 0:
                    of_stream[anchor, k] = min(first[row, anchor, k], _LARGEST)
                known[row, anchor, k] = of_stream[anchor, k]


@compiled
def _learn(slots: IntArray, settled: BoolArray, away: Float32Array, seen: IntArray, spread: Float32Array) -> None:
    for row in range(len(slots)):
        if seen[row] <= _EARLY:
            continue
        of_stream = spread[slots[row]]
        weight = 1.0 / min(max(seen[row] - _EARLY, _FIRST_COUNTS), _MEMORY)
        for anchor in range(spread.shape[1]):
            for k in range(spread.shape[2]):
                error = abs(away[row, anchor, k])
                if settled[row, anchor] and not np.isnan(error):
                    before = of_stream[anchor, k]
                    cap = min(max(_CAP * before, _LEAST_CAP), _LARGEST)
                    of_stream[anchor, k] = before + weight * (min(error, cap) - before)
