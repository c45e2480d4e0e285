"""Inputs of any unit brought to about one: each by its own running mean and spread in its stream."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from forecaster.series.columns import Float32Array, FloatArray, IntArray

_MEMORY = 1_344
_LARGEST = 1e30  # beyond it the running mean, in single precision, would be lost
_SMALLEST = 1e-30


class Standardised(NamedTuple):
    """Inputs as a network is shown them, and what is remembered of them. ``B`` streams, ``N`` inputs, ``V`` values."""

    values: Float32Array
    """Within the bound, 0 where absent, ``[B, N, V]``."""
    mean: Float32Array
    """``[B, N]``"""
    spread: Float32Array
    """Mean distance from the mean, ``[B, N]``."""
    seen: IntArray
    """Ticks with at least one value, ``[B, N]``."""


def standardise(
    values: FloatArray | Float32Array, mean: Float32Array, spread: Float32Array, seen: IntArray, *, bound: float
) -> Standardised:
    """One tick of some inputs: first they are learnt from, then measured by what was learnt.

    An input has V values a tick: a covariate one, an input that is known ahead one a lead. Together they count as one
    tick of the mean, which forgets over about 1,344 ticks; a tick without any leaves what is remembered alone.

    Args:
        values: ``[B, N, V]``; ``nan``, infinite or beyond 1e30 is absent.
        mean, spread, seen: as they were after the tick before, ``[B, N]``.
        bound: of what is shown.
    """
    absent = ~(np.abs(values) <= _LARGEST)
    known = values.shape[2] - np.count_nonzero(absent, axis=2)
    seen = seen + (known > 0)
    weight = np.where(known > 0, 1.0 / np.clip(seen, 1, _MEMORY), 0.0)
    # In the precision of the mean: else the dust of rounding would be all that a constant input shows.
    single = np.where(absent, mean[..., None], values).astype(np.float32)
    mean = (mean + _mean(single - mean[..., None], known) * weight).astype(np.float32)
    away = np.where(absent, np.float32(0.0), single - mean[..., None])
    spread = (spread + (_mean(np.abs(away), known) - spread) * weight).astype(np.float32)
    usual = np.maximum(1.2533 * spread, 1e-9 * np.abs(mean) + _SMALLEST)
    return Standardised(np.clip(away / usual[..., None], -bound, bound).astype(np.float32), mean, spread, seen)


def _mean(values: Float32Array, known: IntArray) -> Float32Array:
    """Mean over the V values of which so many are known and the others 0, ``[B, N]``.

    Summed from first to last, so that a row's bits do not depend on how many rows there are, and in double precision,
    so that the mean of equal numbers is that number.
    """
    total = np.cumsum(values, axis=2, dtype=np.float64)[:, :, -1]
    return np.asarray((total / np.maximum(known, 1)).astype(np.float32))
