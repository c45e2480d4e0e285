"""Recent values and past seasons of a stream side by side: what the linear expert sees of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from forecaster.series.columns import BoolArray, Float32Array, FloatArray, IntArray
from forecaster.series.encoder import CLIP

LookBack = Callable[[IntArray], FloatArray]
"""Values so many ticks before the origin, ``[B, K]``, or ``[K]`` where they are the same for all, to ``[B, K]``, an
array that nobody else holds; a tick without a value shows the one before."""

_CYCLES = np.arange(1, 8)  # seasons back
_REPEATS = _CYCLES[1:]  # the first is the look-ahead


class LagInputs:
    """Lags, seasonal look-ahead, profile over past seasons and the network's own inputs, as one row a stream; behind
    them what is known ahead.

    Serving looks back into the ring, training into the history: both through this. All are differences to the last
    value in units of the scale, within ±8; what a stream does not have yet is 0.

    Args:
        lags: L, recent values.
        horizon: H.
        features: F, inputs of the network.
        ring_steps: R, how far back a stream is remembered.
        future: K·H, numbers known ahead.
    """

    def __init__(self, *, lags: int, horizon: int, features: int, ring_steps: int, future: int = 0) -> None:
        self.lags = min(lags, ring_steps - 1)
        self.horizon = horizon
        self.ring_steps = ring_steps
        self._level = self.lags + features + 2 * horizon  # place of the mean of past seasons at the origin's phase
        self.width = self._level + 1 + future
        self._back = np.arange(1, self.lags + 1)
        self._lead = np.arange(horizon)
        self._of_season: dict[int, IntArray] = {}  # ticks that streams of the last season met look back on

    def rows(
        self,
        look_back: LookBack,
        *,
        ticks: IntArray,
        season: IntArray,
        origin: FloatArray,
        scale: FloatArray,
        features: Float32Array,
        ahead: Float32Array,
        future: Float32Array | None = None,
    ) -> Float32Array:
        """``[B, width]``.

        Args:
            look_back: how to find earlier values.
            ticks: ticks of each stream that can be looked back on, that of the origin included, ``[B]``.
            season: in steps, 0 none, ``[B]``.
            origin, scale: x_t and v_t, ``[B]``.
            features: ``[B, F]``.
            ahead: ``[B, H]``.
            future: ``[B, K·H]``; ``None`` where nothing is known ahead.
        """
        held = np.minimum(ticks, self.ring_steps)
        cycle, shortest = int(season[0]), int(held.min())
        rows = np.zeros((len(ticks), self.width), np.float32)
        inputs, horizon = features.shape[1], self.horizon
        start = self.lags + inputs
        rows[:, self.lags : start] = features
        rows[:, start : start + horizon] = _clipped(ahead)
        level = self._level
        if future is not None:
            rows[:, level + 1 :] = future
        if (season == cycle).all():
            back = self._back_alike(cycle, shortest)
            if shortest == held.max() or shortest > back.max(initial=0):
                self._fill_alike(rows, start + horizon, look_back, back, shortest, origin, scale)
                return rows

        held = held[:, None]
        repeats = (season > 0)[:, None] & (2 * season[:, None] <= held)
        has_repeats = bool(repeats.any())
        back, known = np.broadcast_to(self._back, (len(ticks), self.lags)), self._back < held
        if has_repeats:
            past = self._seasons_back(season)
            # of a stream without a season, backwards would be forwards
            known = np.concatenate((known, (past >= 0) & (past < np.where(repeats, held, 0))), axis=1)
            back = np.concatenate((back, past), axis=1)
        values = look_back(np.where(known, back, 0))  # at once: to look is what costs
        relative = np.where(known, (values - origin[:, None]) / scale[:, None], 0.0)

        rows[:, : self.lags] = _clipped(relative[:, : self.lags])
        if has_repeats:
            repeated, here = self.lags, self.lags + len(_REPEATS) * horizon
            shape = (len(ticks), len(_REPEATS), horizon)
            rows[:, start + horizon : level] = _clipped(
                _mean(relative[:, repeated:here].reshape(shape), known[:, repeated:here].reshape(shape))
            )
            rows[:, level : level + 1] = _clipped(_mean(relative[:, here:, None], known[:, here:, None]))
        return rows

    def _back_alike(self, cycle: int, held: int) -> IntArray:
        """What streams that all have this season, and this many ticks, look back on, ``[K]``."""
        if cycle == 0 or 2 * cycle > held:
            return self._back
        if cycle not in self._of_season:
            self._of_season = {cycle: np.concatenate((self._back, self._seasons_back(np.array([cycle]))[0]))}
        return self._of_season[cycle]

    def _fill_alike(
        self,
        rows: Float32Array,
        start: int,
        look_back: LookBack,
        back: IntArray,
        held: int,
        origin: FloatArray,
        scale: FloatArray,
    ) -> None:
        """Lags and repeats of streams that all look back on the same ticks: the same calculation with one mask for all,
        in place."""
        known = back < held
        is_whole = bool(known.all())
        relative = look_back(back if is_whole else np.where(known, back, 0))
        relative -= origin[:, None]
        relative /= scale[:, None]
        if not is_whole:
            relative[:, ~known] = 0.0
        lags, horizon = self.lags, self.horizon
        rows[:, :lags] = np.clip(relative[:, :lags], -CLIP, CLIP, out=relative[:, :lags])
        if len(back) > lags:
            here = lags + len(_REPEATS) * horizon
            shape, level = (len(_REPEATS), horizon), self._level
            rows[:, start:level] = _clipped(
                _mean(relative[:, lags:here].reshape(-1, *shape), known[lags:here].reshape(1, *shape))
            )
            rows[:, level : level + 1] = _clipped(_mean(relative[:, here:, None], known[None, here:, None]))

    def _seasons_back(self, season: IntArray) -> IntArray:
        """Ticks back to the same phase as each lead, two to seven seasons ago, and as the origin, one to seven,
        ``[B, 6·H + 7]``."""
        cycle = season[:, None]
        phase = 1 + (self._lead if season.min() >= self.horizon else self._lead % np.maximum(cycle, 1))
        repeated = _REPEATS[:, None] * cycle[:, :, None] - np.broadcast_to(phase, (len(season), self.horizon))[:, None]
        return np.concatenate((repeated.reshape(len(season), -1), _CYCLES * cycle), axis=1)


def _mean(values: FloatArray, known: BoolArray) -> FloatArray:
    """Mean of ``[B, K, H]`` over the K that are known, in a fixed order of summation; 0 where none is."""
    total = values[:, 0] + values[:, 1]
    for k in range(2, values.shape[1]):
        total += values[:, k]
    total /= np.maximum(known.sum(axis=1), 1.0)
    return np.asarray(total)


def _clipped(values: FloatArray | Float32Array) -> Float32Array:
    return np.clip(values, -CLIP, CLIP).astype(np.float32)
