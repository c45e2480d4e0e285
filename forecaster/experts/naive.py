"""The baselines: last value, value one season ago, return to the level. They answer before anything is trained."""

from __future__ import annotations

import numpy as np

from forecaster.experts.base import LARGEST, Origins
from forecaster.series.columns import BoolArray, Columns, Float32Array


class Persistence:
    """The last value at every lead."""

    name = "naive"

    def __init__(self, *, horizon: int) -> None:
        self._root = np.sqrt(np.arange(1, horizon + 1, dtype=np.float32))

    def forecast(self, c: Columns, at: Origins) -> tuple[Float32Array, BoolArray]:
        return np.zeros_like(at.ahead), np.ones(len(at.slots), np.bool_)

    def first_spread(self, c: Columns, at: Origins) -> Float32Array:
        """As a random walk's: growing with the root of the lead."""
        return (at.change / at.scale).astype(np.float32)[:, None] * self._root


class SeasonalNaive:
    """The value at the same phase of the last whole season.

    Args:
        place: of the season among those of a stream: 0 is the first, by which its scale is made.
    """

    def __init__(self, place: int = 0) -> None:
        self.name = f"seasonal_{place + 1}" if place else "seasonal"
        self._place = place

    def forecast(self, c: Columns, at: Origins) -> tuple[Float32Array, BoolArray]:
        return at.further[self._place - 1] if self._place else (at.ahead, at.seasonal)

    def first_spread(self, c: Columns, at: Origins) -> Float32Array:
        """The scale is the mean change from season to season."""
        return np.ones_like(at.ahead)


class DampedLevel:
    """From the last value back to the mean of about 48, by a twentieth of the way that is left a step.

    The flat form of exponential smoothing with a damped return: Gardner & McKenzie (1985), "Forecasting Trends in Time
    Series". Streams that wander about a level, as heart rates do, are a tenth nearer to it than to the last value.
    """

    name = "level"

    def __init__(self, *, horizon: int) -> None:
        lead = np.arange(1, horizon + 1)
        self._returned = (1.0 - 0.95**lead).astype(np.float32)  # [H]
        self._root = np.sqrt(lead).astype(np.float32)

    def forecast(self, c: Columns, at: Origins) -> tuple[Float32Array, BoolArray]:
        away = (at.level - at.value) / at.scale
        within = np.abs(away) < LARGEST
        return np.where(within, away, 0.0).astype(np.float32)[:, None] * self._returned, within

    def first_spread(self, c: Columns, at: Origins) -> Float32Array:
        return (at.change / at.scale).astype(np.float32)[:, None] * self._root
