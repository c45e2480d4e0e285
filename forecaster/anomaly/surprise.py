"""How surprising a value is to a forecast: minus the logarithm of its two-sided p-value."""

from __future__ import annotations

import numpy as np

from forecaster.series.columns import FloatArray
from forecaster.series.compiled import compiled

MOST_SURPRISING = 1e6
_NARROWEST = 1e-3
"""Distance, in scales, over which surprise rises by one where the forecast has no width: a constant stream."""


class Surprise:
    """p-values of values under quantile forecasts.

    ``P(Y < y)`` is interpolated on a logarithmic scale between the published levels. Beyond the outermost one it goes
    on as a Laplace distribution's would through median and outermost quantile, so that the interval whose width is
    corrected by the stream's own misses also says how fast the tail falls.

    Args:
        quantile_levels: ``Q``, symmetric around 0.5, at least one beside it.
    """

    def __init__(self, quantile_levels: tuple[float, ...]) -> None:
        self._median = quantile_levels.index(0.5)
        # -log of the two-sided p-value at the quantiles below the median, outermost first
        self._at_levels = -np.log(2 * np.array(quantile_levels[: self._median]))

    def __call__(self, values: FloatArray, quantiles: FloatArray, scale: FloatArray) -> FloatArray:
        """-log p of each value, ``[B]``; 0 where value or forecast is ``nan``.

        Args:
            values: ``[B]``.
            quantiles: forecast of each, ``[B, Q]``, in the same units.
            scale: of each stream, ``[B]``.
        """
        surprise = np.empty(len(values))
        _surprise(values, quantiles, scale, self._median, self._at_levels, surprise)
        return surprise


@compiled
def _surprise(
    values: FloatArray,
    quantiles: FloatArray,
    scale: FloatArray,
    middle: int,
    at_levels: FloatArray,
    surprise: FloatArray,
) -> None:
    levels = quantiles.shape[1]
    for row in range(len(values)):
        median = quantiles[row, middle]
        above, distance = values[row] > median, abs(values[row] - median)
        found = outer = 0.0
        for pair in range(middle):
            # From the outermost pair inwards: within a pair's reach the pair inside it says more.
            reach = quantiles[row, levels - 1 - pair] - median if above else median - quantiles[row, pair]
            reach = np.maximum(reach, _NARROWEST * scale[row] * at_levels[pair])
            if pair == 0 or distance < reach:
                found = distance * (at_levels[pair] / reach)
            elif distance < outer:
                slope = (at_levels[pair - 1] - at_levels[pair]) / max(outer - reach, 1e-12 * outer)
                found = at_levels[pair] + (distance - reach) * slope
            outer = reach
        surprise[row] = 0.0 if np.isnan(found) else min(found, MOST_SURPRISING)
