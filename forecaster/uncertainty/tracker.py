"""Intervals that keep their promise: each stream's widths follow its own misses.

Quantile tracking in log space: the published interval at a lead is ``median ± q·(half widths)``; when the target
arrives, ``q ← q·exp(η·(missed − α))`` with α the nominal miss rate, so that in the long run the share of misses is α
whatever the stream does. Working on log q keeps widths positive and finite.

Source: Gibbs & Candès (2021), "Adaptive Conformal Inference Under Distribution Shift", arXiv:2106.00170, for the
update; Angelopoulos, Candès, Tibshirani (2023), "Conformal PID Control", arXiv:2307.16895, for tracking the quantile
itself instead of the level.
"""

from __future__ import annotations

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.compiled import compiled

_RATE = 0.01
_FIRST_RATE = 0.1  # while a stream is new its widths may be far off
_LIMIT = 4.0  # on |log q|: a constant stream must not drive it to nothing


class LogQuantileTracker:
    """Width factors per stream, anchor lead and pair of quantile levels.

    Args:
        anchors: number of anchor leads, ``A``.
        quantile_levels: ``Q``, symmetric around 0.5.
    """

    def __init__(self, *, anchors: int, quantile_levels: tuple[float, ...]) -> None:
        levels = np.array(quantile_levels)
        self.pairs = len(levels) // 2
        self._nominal_miss = 1 - (levels[::-1] - levels)[: self.pairs]  # α, [P], widest pair first
        self._median = self.pairs
        self.columns = (Column("log_width", "f4", (anchors, max(self.pairs, 1))),)

    def update(
        self,
        c: Columns,
        slots: IntArray,
        settled: BoolArray,
        target: Float32Array,
        published: Float32Array,
        seen: IntArray,
    ) -> None:
        """Learn from targets ``[B]`` that arrived for the quantiles published at their origins, ``[B, A, Q]``.

        ``settled`` says which anchors had one; ``seen`` is the number of values of each stream, ``[B]``.
        """
        if self.pairs:
            _learn(slots, settled, target, published, seen, self._nominal_miss, c["log_width"])

    def factors(self, c: Columns, slots: IntArray) -> Float32Array:
        """Width factor q at every anchor and pair, ``[B, A, P]``."""
        factors = np.empty((len(slots), *c["log_width"].shape[1:]), np.float32)
        _widths(slots, c["log_width"], factors)
        return factors

    def widen(self, quantiles: Float32Array, factors: Float32Array) -> Float32Array:
        """Quantiles ``[B, H, Q]`` with their distances to the median multiplied by ``factors`` ``[B, H, P]``.

        Nested pairs stay nested: an outer interval is never inside an inner one.
        """
        widened = np.empty_like(quantiles)
        _widen(quantiles, factors, self.pairs, widened)
        return widened


@compiled
def _learn(
    slots: IntArray,
    settled: BoolArray,
    target: Float32Array,
    published: Float32Array,
    seen: IntArray,
    nominal_miss: FloatArray,
    log_width: Float32Array,
) -> None:
    levels = published.shape[2]
    for row in range(len(slots)):
        y, of_stream = target[row], log_width[slots[row]]
        rate = max(_RATE, 1 / (1 / _FIRST_RATE + seen[row]))
        for anchor in range(log_width.shape[1]):
            if settled[row, anchor]:
                for pair in range(len(nominal_miss)):
                    lower, upper = published[row, anchor, pair], published[row, anchor, levels - 1 - pair]
                    missed = 1.0 if y < lower or y > upper else 0.0
                    moved = of_stream[anchor, pair] + rate * (missed - nominal_miss[pair])
                    of_stream[anchor, pair] = min(max(moved, -_LIMIT), _LIMIT)


@compiled
def _widths(slots: IntArray, log_width: Float32Array, factors: Float32Array) -> None:
    for row in range(len(slots)):
        for anchor in range(log_width.shape[1]):
            for pair in range(log_width.shape[2]):
                factors[row, anchor, pair] = np.exp(log_width[slots[row], anchor, pair])


@compiled
def _widen(quantiles: Float32Array, factors: Float32Array, pairs: int, widened: Float32Array) -> None:
    rows, leads, levels = quantiles.shape
    for row in range(rows):
        for lead in range(leads):
            median = quantiles[row, lead, pairs]
            widened[row, lead, pairs] = median
            below, above = np.inf, -np.inf  # reach of the pair inside
            for pair in range(pairs - 1, -1, -1):
                factor = factors[row, lead, pair]
                below = min(below, (quantiles[row, lead, pair] - median) * factor)
                above = max(above, (quantiles[row, lead, levels - 1 - pair] - median) * factor)
                widened[row, lead, pair] = median + below
                widened[row, lead, levels - 1 - pair] = median + above
