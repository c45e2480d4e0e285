"""The champion before the present one as an expert: it keeps a hidden state of its own and answers with its medians.

A champion that lost its place lost it by little, over all streams: it is still the better one for some of them, and
where both err apart their mean is better than either. It is shown the inputs of its successor.
"""

from __future__ import annotations

import numpy as np

from forecaster.experts.base import Origins
from forecaster.experts.carried import CarriedNetwork
from forecaster.models.network import RecurrentForecaster
from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, IntArray
from forecaster.uncertainty.spread import normal_quantiles

_COLUMN = "former_hidden"
_LEAST_SPREAD = 1e-3  # in scales; none at all would say that it has none yet


class FormerChampion:
    """A network that served before, beside the one that serves.

    Args:
        network: never changed here.
        version: its name in the registry.
    """

    name = "former"

    def __init__(self, network: RecurrentForecaster, *, version: str) -> None:
        levels = network.hp.quantile_levels
        self.version = version
        self._carried = CarriedNetwork(network, _COLUMN)
        self._median = levels.index(0.5)
        self._width = float(np.ptp(normal_quantiles(levels)))

    @staticmethod
    def columns(hidden_shape: tuple[int, int]) -> tuple[Column, ...]:
        """Hidden state ``[L, W]``; the model of its successor's says whose it is."""
        return (Column(_COLUMN, "f4", hidden_shape),)

    def step(self, c: Columns, slots: IntArray, features: Float32Array) -> None:
        """Carry hidden states over one tick. B is a multiple of `WAVE_TILE`."""
        self._carried.step(c, slots, features)

    def forecast(self, c: Columns, at: Origins) -> tuple[Float32Array, BoolArray]:
        """Its medians."""
        made, sane = self._carried.answer(self._carried.top(c, at.slots), at)
        return made[:, :, self._median], sane

    def first_spread(self, c: Columns, at: Origins) -> Float32Array:
        """As its own outermost quantiles have it."""
        if not self._width:
            return np.ones_like(at.ahead)
        made, _ = self._carried.answer(self._carried.top(c, at.slots), at)
        spread: Float32Array = np.maximum(np.ptp(made, axis=2) / np.float32(self._width), np.float32(_LEAST_SPREAD))
        return spread
