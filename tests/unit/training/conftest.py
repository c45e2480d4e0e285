import numpy as np
import pytest

from forecaster.series.encoder import SeriesEncoder
from forecaster.training.history import History, Series

STEP = 3_600.0


@pytest.fixture
def make_history():
    """Streams with a day of 24 steps that drifts slowly: something a network can learn and naive cannot."""

    def make(streams=3, ticks=500, *, missing=0.0, noise=0.3, seed=0, start=0.0, kind="daily"):
        rng = np.random.default_rng(seed)
        made = {}
        for k in range(streams):
            t = np.arange(ticks)
            if kind == "daily":
                values = 3.0 * np.sin(2 * np.pi * (t + k) / 24) + noise * rng.normal(size=ticks)
            elif kind == "walk":
                values = np.cumsum(rng.normal(size=ticks))
            else:
                values = np.full(ticks, 7.0)
            values = values * (k + 1) + 100.0 * k
            values[rng.random(ticks) < missing] = np.nan
            made[f"s{k}"] = Series(start + STEP * t, values)
        return History(made)

    return make


@pytest.fixture
def encoder():
    return SeriesEncoder(ring_steps=64, horizon=4)
