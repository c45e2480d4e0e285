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

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray, chosen, gathered

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
        self._nominal_miss = (1 - (levels[::-1] - levels)[: self.pairs]).astype(np.float32)  # α, [P], widest pair first
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
        if self.pairs == 0:
            return
        lower, upper = published[..., : self.pairs], published[..., : self.pairs : -1]
        y = target[:, None, None]
        missed = ((y < lower) | (y > upper)).astype(np.float32)
        rate = np.maximum(_RATE, 1 / (1 / _FIRST_RATE + seen.astype(np.float32)))[:, None, None]
        before = gathered(c["log_width"], slots)
        moved = before + rate * (missed - self._nominal_miss)
        c["log_width"][slots] = chosen(settled[:, :, None], np.clip(moved, -_LIMIT, _LIMIT), before)

    def factors(self, c: Columns, slots: IntArray) -> Float32Array:
        """Width factor q at every anchor and pair, ``[B, A, P]``."""
        return np.asarray(np.exp(gathered(c["log_width"], slots)))

    def widen(self, quantiles: Float32Array, factors: Float32Array) -> Float32Array:
        """Quantiles ``[B, H, Q]`` with their distances to the median multiplied by ``factors`` ``[B, H, P]``.

        Nested pairs stay nested: an outer interval is never inside an inner one.
        """
        if self.pairs == 0:
            return quantiles
        median = quantiles[..., self._median]
        result = quantiles.copy(order="K")
        reach: list[Float32Array] = []  # below and above, of the pair inside
        for pair in range(self.pairs - 1, -1, -1):
            below, above = ((quantiles[..., level] - median) * factors[..., pair] for level in (pair, -1 - pair))
            if reach:
                below, above = np.minimum(reach[0], below), np.maximum(reach[1], above)
            reach = [below, above]
            result[..., pair], result[..., -1 - pair] = median + below, median + above
        return result


def significant_decimals(scale: FloatArray) -> IntArray:
    """Decimals that show a thousandth of each stream's scale: what a published number needs, and no dust.

    >>> significant_decimals(np.array([1.0, 0.02, 1e6])).tolist()
    [3, 5, -3]
    """
    decimals: IntArray = np.clip(3 - np.floor(np.log10(np.maximum(scale, 1e-300))), -300, 300).astype(np.int64)
    return decimals
