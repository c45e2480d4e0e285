"""How surprising a value is to a forecast: minus the logarithm of its two-sided p-value."""

from __future__ import annotations

import numpy as np

from forecaster.series.columns import FloatArray

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
        median = quantiles[:, self._median]
        above = values > median
        distance = np.abs(values - median)
        below_reach = median[:, None] - quantiles[:, : self._median]  # [B, P], outermost first
        above_reach = quantiles[:, : self._median : -1] - median[:, None]
        least = _NARROWEST * scale[:, None] * self._at_levels
        reach = np.maximum(np.where(above[:, None], above_reach, below_reach), least)
        surprise = distance * (self._at_levels[0] / reach[:, 0])
        # From the outermost pair inwards: within a pair's reach the pair inside it says more.
        for pair in range(1, self._median):
            inner, outer = reach[:, pair], reach[:, pair - 1]
            slope = (self._at_levels[pair - 1] - self._at_levels[pair]) / np.maximum(outer - inner, 1e-12 * outer)
            between = self._at_levels[pair] + (distance - inner) * slope
            within = distance * (self._at_levels[pair] / inner)
            surprise = np.where(distance < outer, np.where(distance < inner, within, between), surprise)
        return np.where(np.isnan(surprise), 0.0, np.minimum(surprise, MOST_SURPRISING))
