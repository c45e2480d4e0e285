"""Recent values and past seasons of a stream side by side: what the linear expert sees of it."""

from __future__ import annotations

import numpy as np

from forecaster.series.columns import Float32Array, FloatArray, IntArray
from forecaster.series.compiled import compiled
from forecaster.series.encoder import CLIP, Past

_CYCLES = 7  # seasons back; the first is the look-ahead


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

    def rows(
        self,
        past: Past,
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
            past: where earlier values are; a tick without a value shows the one before.
            ticks: ticks of each stream that can be looked back on, that of the origin included, ``[B]``.
            season: in steps, 0 none, ``[B]``.
            origin, scale: x_t and v_t, ``[B]``.
            features: ``[B, F]``.
            ahead: ``[B, H]``.
            future: ``[B, K·H]``; ``None`` where nothing is known ahead.
        """
        rows = np.zeros((len(ticks), self.width), np.float32)
        held = np.minimum(ticks, self.ring_steps)
        _fill(*past, held, season, origin, scale, features, ahead, self.lags, CLIP, rows)
        if future is not None:
            rows[:, self._level + 1 :] = future
        return rows


@compiled
def _fill(
    values: Float32Array | FloatArray,
    start: IntArray,
    newest: IntArray,
    length: int,
    anchor: FloatArray,
    held: IntArray,
    season: IntArray,
    origin: FloatArray,
    scale: FloatArray,
    features: Float32Array,
    ahead: Float32Array,
    lags: int,
    bound: float,
    rows: Float32Array,
) -> None:
    """Lags, inputs, look-ahead, mean of two to seven seasons back at the phase of each lead, and of one to seven back
    at the origin's."""
    inputs, horizon = features.shape[1], ahead.shape[1]
    repeats = lags + inputs + horizon
    for row in range(len(held)):
        first, last, off = start[row], newest[row], anchor[row] - origin[row]
        place = last
        for k in range(1, min(lags + 1, held[row])):
            place = _wrapped(place - 1, length)
            rows[row, k - 1] = _clipped((values[first + place] + off) / scale[row], bound)
        for k in range(inputs):
            rows[row, lags + k] = features[row, k]
        for lead in range(horizon):
            rows[row, lags + inputs + lead] = _clipped(ahead[row, lead], bound)
        cycle = season[row]
        if cycle <= 0 or 2 * cycle > held[row]:
            continue
        phase = 0
        for lead in range(horizon + 1):
            phase, nearest = phase + 1 if phase < cycle else 1, 2
            if lead == horizon:  # the origin's own phase
                phase, nearest = 0, 1
            total, count = 0.0, 0
            for repeat in range(nearest, _CYCLES + 1):
                back = repeat * cycle - phase
                if back >= held[row]:
                    break
                total += (values[first + _wrapped(last - back, length)] + off) / scale[row]
                count += 1
            rows[row, repeats + lead] = _clipped(total / max(count, 1), bound)


@compiled
def _wrapped(place: int, length: int) -> int:
    """The remainder, of what is at most one length below 0: a division each time would be most of the work."""
    return place + length if place < 0 else place


@compiled
def _clipped(relative: float, bound: float) -> float:
    return min(max(relative, -bound), bound)
