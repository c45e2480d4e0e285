"""Score a network the way it serves: one tick after the other over a stretch, beside the naive forecasts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from forecaster.models.cells import WAVE_TILE
from forecaster.models.network import RecurrentForecaster
from forecaster.series.columns import BoolArray, Float32Array, FloatArray, IntArray
from forecaster.training.encoding import EncodedHistory

RUN_IN = 336
"""Ticks stepped before the first one scored, as serving replays a stream's ring after a switch."""


_LEAST_NAIVE_LOSS = 0.1
"""A stream at rest has a naive loss near zero; it must not count for more than ten ordinary ones."""


_MOST_OF_NAIVE = 2.0
"""A stream on which a network is hopeless counts as one on which it is twice as bad as the last value."""


class Stretch(NamedTuple):
    """Rows of each stream that are scored, ``first <= row < last``; a stream without any has ``first == last``."""

    first: IntArray
    """``[N]``"""
    last: IntArray
    """``[N]``"""

    def origins(self, data: EncodedHistory, stride: int) -> IntArray:
        """Rows at which forecasts are scored: every ``stride``-th of each stream, counted from its newest."""
        spans = [
            np.arange(last - 1, first - 1, -stride)[::-1] for first, last in zip(self.first, self.last, strict=True)
        ]
        rows = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        return np.asarray(rows[data.warm[rows]])


def forecast_stretch(
    network: RecurrentForecaster, data: EncodedHistory, stretch: Stretch, *, stride: int = 1, run_in: int = RUN_IN
) -> tuple[IntArray, Float32Array]:
    """Step a network over a stretch of all streams side by side.

    Returns:
        Rows of the origins ``[K]``, rising, and normalised quantiles ``[K, H, Q]``.
    """
    rows = stretch.origins(data, stride)
    answers = np.empty((len(rows), network.hp.horizon, len(network.hp.quantile_levels)), np.float32)
    active = np.flatnonzero(stretch.last > stretch.first)
    begin = np.maximum(stretch.first[active] - run_in, data.starts[:-1][active])
    length = stretch.last[active] - begin
    order = np.argsort(-length, kind="stable")
    begin, length = begin[order], length[order]
    wave = -(-max(len(begin), 1) // WAVE_TILE) * WAVE_TILE
    place = np.full(len(data.values), -1, np.int64)
    place[rows] = np.arange(len(rows))

    network.eval()
    with torch.inference_mode():
        hidden = network.initial_hidden(wave)
        x = torch.zeros(wave, data.features.shape[1])
        ahead = torch.zeros(wave, network.hp.horizon)
        future = None if data.future is None else torch.zeros(wave, data.future.shape[1])
        for tick in range(int(length.max(initial=0))):
            n = int(np.searchsorted(-length, -tick))  # streams that reach this far
            at = begin[:n] + tick
            x[:n] = torch.from_numpy(data.features[at])
            top, hidden = network.step(x, hidden)
            scored = place[at] >= 0
            if scored.any():
                if data.ahead is not None:
                    ahead[:n] = torch.from_numpy(data.ahead[at])
                if future is not None and data.future is not None:
                    future[:n] = torch.from_numpy(data.future[at])
                quantiles = network.quantiles(top, x, ahead, future)[:n].numpy()
                answers[place[at[scored]]] = quantiles[scored]
    return rows, answers


def pinball_losses(
    data: EncodedHistory, rows: IntArray, quantiles: Float32Array, levels: tuple[float, ...]
) -> FloatArray:
    """Mean pinball over the levels, per origin and lead, in units of each stream's scale; ``nan`` where unobserved.

    Args:
        data: the encoded history.
        rows: origins, ``[K]``.
        quantiles: normalised, ``[K, H, Q]``.
        levels: ``[Q]``.

    Returns:
        ``[K, H]``
    """
    target, observed = data.targets(rows, quantiles.shape[1])
    error = target[..., None] - quantiles
    q = np.asarray(levels, np.float32)
    loss = np.maximum(q * error, (q - 1) * error).mean(-1, dtype=np.float64)
    return np.where(observed, loss, np.nan)


class Baselines(NamedTuple):
    """Naive forecasts with honest intervals: their residuals' quantiles on the rows training saw, per lead."""

    naive: Float32Array
    """Quantiles of ``(y_{t+h} - x_t) / v_t``, ``[H, Q]``."""
    seasonal: Float32Array
    """Quantiles of the same, less the value a season before, ``[H, Q]``."""

    @classmethod
    def learn(cls, data: EncodedHistory, rows: IntArray, horizon: int, levels: tuple[float, ...]) -> Baselines:
        """Residual quantiles over these origins; leads never observed take those of the lead before."""
        target, observed = data.targets(rows, horizon)
        ahead = np.zeros_like(target) if data.ahead is None else data.ahead[rows]
        return cls(_column_quantiles(target, observed, levels), _column_quantiles(target - ahead, observed, levels))

    def forecast_naive(self, rows: IntArray) -> Float32Array:
        """Last value, ``[K, H, Q]``."""
        return np.broadcast_to(self.naive, (len(rows), *self.naive.shape))

    def forecast_seasonal(self, data: EncodedHistory, rows: IntArray) -> Float32Array:
        """Value one season before each lead, ``[K, H, Q]``; the last value where a stream has no season."""
        if data.ahead is None:
            return self.forecast_naive(rows)
        ahead = data.ahead[rows]
        has_season = (ahead != 0).any(axis=1)[:, None, None]
        return np.where(has_season, ahead[..., None] + self.seasonal, self.naive)


def _column_quantiles(values: Float32Array, observed: BoolArray, levels: tuple[float, ...]) -> Float32Array:
    found = np.zeros((values.shape[1], len(levels)), np.float32)
    for lead in range(values.shape[1]):
        known = values[observed[:, lead], lead]
        found[lead] = np.quantile(known, levels) if len(known) else found[max(lead - 1, 0)]
    return found


def mean_loss(losses: FloatArray) -> float:
    """Mean over everything observed; ``inf`` where nothing was, so that such a model is never the best.

    >>> mean_loss(np.array([[1.0, np.nan], [3.0, 2.0]]))
    2.0
    """
    observed = ~np.isnan(losses)
    return float(losses[observed].mean()) if observed.any() else float("inf")


def stream_weights(data: EncodedHistory, rows: IntArray, naive_losses: FloatArray) -> FloatArray:
    """One over each origin's stream's mean naive loss, so that every stream counts alike however hard it is.

    Without it a few streams with rare jumps would decide alone. A stream that never moves gets 0.

    Args:
        data: the encoded history.
        rows: origins, ``[K]``.
        naive_losses: of the last value, ``[K, H]``, ``nan`` where unobserved.

    Returns:
        ``[K]``
    """
    stream = np.searchsorted(data.starts, rows, side="right") - 1
    observed = ~np.isnan(naive_losses)
    streams = len(data.starts) - 1
    sums = np.bincount(stream, np.where(observed, naive_losses, 0.0).sum(1), minlength=streams)
    counts = np.bincount(stream, observed.sum(1), minlength=streams)
    mean = np.divide(sums, counts, out=np.zeros(streams), where=counts > 0)
    weights = np.where(mean > 0, 1.0 / np.maximum(mean, _LEAST_NAIVE_LOSS), 0.0)
    return np.asarray(weights[stream])


def held_back(data: EncodedHistory, rows: IntArray, losses: FloatArray, naive_losses: FloatArray) -> FloatArray:
    """Losses of a forecast; those of a stream on which it is more than twice as bad as the last value scaled to that.

    In service such a stream is answered by other experts, so that it costs little more than naive does. Without this a
    single stream that has hardly ever moved decides for all: its errors are thousands of scales.

    Args:
        data: the encoded history.
        rows: origins, ``[K]``.
        losses: of the forecast, ``[K, H]``, ``nan`` where unobserved.
        naive_losses: of the last value, likewise, in the same units.

    Returns:
        ``[K, H]``
    """
    stream = np.searchsorted(data.starts, rows, side="right") - 1
    own, naive = (
        np.bincount(stream, np.nansum(values, axis=1), minlength=len(data.starts) - 1)
        for values in (losses, naive_losses)
    )
    most = _MOST_OF_NAIVE * naive
    share = np.divide(most, own, out=np.ones(len(own)), where=own > most)
    return np.asarray(losses * share[stream][:, None])
