"""Series that might as well have happened: block bootstrap, magnitude warp and jitter of one stream's past.

All are pure functions of values and a generator; ``nan`` stays where it was. The copies are encoded like any other
stream, so that what the network sees is always what the serving encoder makes of a series.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from forecaster.series.columns import FloatArray, IntArray
from forecaster.training.history import Ticks


class Augmentation(msgspec.Struct, frozen=True, kw_only=True):
    """What is added to the training part; the default is nothing."""

    copies: int = 0
    """Altered copies of each stream beside the stream itself."""
    bootstrap: bool = True
    """Whether a copy's remainder, after level and season, is drawn anew in blocks."""
    warp: float = 0.1
    """Standard deviation of the smooth factor on a copy's swings; 0 leaves them."""
    jitter: float = 0.03
    """Noise, in standard deviations of the stream; 0 adds none."""
    mix_up: float = 0.0
    """Part of the windows that lie between two."""


def altered_copies(
    ticks: Sequence[Ticks], season_steps: IntArray, plan: Augmentation, rng: np.random.Generator
) -> list[Ticks]:
    """``plan.copies`` of each of these streams, stream after stream.

    What was known ahead stays where it was, and so do the values that follow it: a stream that has any is not drawn
    anew in blocks, which would teach that plans mean nothing.

    Args:
        ticks: training part of each stream.
        season_steps: season of each in steps, 0 none, ``[N]``.
        plan: what to alter.
        rng: of everything random.
    """
    made = []
    for stream, season in zip(ticks, season_steps, strict=True):
        for _ in range(plan.copies):
            values = stream.values
            if plan.bootstrap and stream.future is None:
                values = bootstrap_series(values, int(season), rng)
            if plan.warp:
                values = magnitude_warp(values, plan.warp, rng)
            if plan.jitter:
                values = jitter(values, plan.jitter, rng)
            made.append(stream._replace(values=values))
    return made


def moving_blocks(values: FloatArray, block: int, rng: np.random.Generator) -> FloatArray:
    """Values drawn anew in overlapping blocks of ``block`` neighbours, as many as there were.

    Source: Künsch (1989), "The Jackknife and the Bootstrap for General Stationary Observations".

    >>> moving_blocks(np.arange(6.0), 6, np.random.default_rng(0))
    array([0., 1., 2., 3., 4., 5.])
    """
    block = max(1, min(block, len(values)))
    count = -(-len(values) // block)
    starts = rng.integers(0, len(values) - block + 1, count)
    return np.asarray(values[(starts[:, None] + np.arange(block)).ravel()[: len(values)]])


def bootstrap_series(values: FloatArray, season: int, rng: np.random.Generator) -> FloatArray:
    """The same level and season with another remainder, drawn in blocks of two seasons (or of the square root of T).

    The level is a centred mean over one block, the season a mean by phase. Needs two blocks of values, else the values
    are given back.

    Args:
        values: ``[T]``, ``nan`` where missing.
        season: in steps, 0 none.
        rng: of the draw.

    Source: Bergmeir, Hyndman & Benítez (2016), "Bagging Exponential Smoothing Methods Using STL Decomposition and
    Box-Cox Transformation"; level and season are simpler here, for series of tens of thousands of steps.
    """
    known = ~np.isnan(values)
    block = 2 * season if season > 1 else max(2, int(np.sqrt(len(values))))
    if known.sum() < 2 * block:
        return values
    row = np.arange(len(values))
    filled = np.interp(row, row[known], values[known])
    level = _centred_mean(filled, season if season > 1 else block)
    above = filled - level
    if season > 1:
        phase = row % season
        pattern = np.bincount(phase, above, season) / np.bincount(phase, minlength=season)
        level, above = level + pattern[phase], above - pattern[phase]
    return np.where(known, level + moving_blocks(above, block, rng), np.nan)


def magnitude_warp(values: FloatArray, sigma: float, rng: np.random.Generator, *, knots: int = 6) -> FloatArray:
    """Swings around the median, times a smooth positive curve around 1.

    Args:
        values: ``[T]``.
        sigma: standard deviation of the logarithm of the curve at its knots, between which it is interpolated by
            half a cosine wave.
        rng: of the knots.
        knots: how many.

    Source: Um et al. (2017), "Data Augmentation of Wearable Sensor Data", arXiv:1706.00527; the logarithm keeps the
    factor positive.
    """
    if np.isnan(values).all():
        return values
    heights = rng.normal(0.0, sigma, knots)
    at = np.linspace(0.0, knots - 1.0, len(values))
    below = np.minimum(at.astype(np.int64), knots - 2)
    share = 0.5 - 0.5 * np.cos(np.pi * (at - below))
    curve = np.exp(heights[below] + (heights[below + 1] - heights[below]) * share)
    middle = np.nanmedian(values)
    return np.asarray(middle + (values - middle) * curve)


def jitter(values: FloatArray, sigma: float, rng: np.random.Generator) -> FloatArray:
    """Values with independent normal noise of ``sigma`` of their own standard deviations."""
    known = values[~np.isnan(values)]
    spread = float(known.std()) if len(known) else 0.0
    return values + rng.normal(0.0, 1.0, len(values)) * (sigma * spread)


def _centred_mean(values: FloatArray, width: int) -> FloatArray:
    """Mean over ``width`` neighbours, fewer at the ends."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    row = np.arange(len(values))
    low, high = np.maximum(row - width // 2, 0), np.minimum(row - width // 2 + width, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))
