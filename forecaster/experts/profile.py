"""The mean shape of the last seasons, about where the stream is now."""

from __future__ import annotations

import numpy as np

from forecaster.experts.base import LARGEST, Origins
from forecaster.series.columns import BoolArray, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.compiled import compiled
from forecaster.series.encoder import SeriesEncoder

_CYCLES = 7  # seasons; by twice as many the development series are forecast 0.7 % better, for twice the work
_LEVEL_STEPS = 24  # of the newest season that say how far the stream is from its shape
_KEPT = 0.9  # of what the origin itself is off, a step


class SeasonalProfile:
    """Mean of each phase over up to seven seasons; to it is added how far the newest 24 values are from it on average,
    and what the last one is off beyond that, by a tenth less each step.

    One wild value shifts the answer by a seventh of itself, where the value a season ago repeats it. No state of its
    own: it looks back into the ring, and needs two seasons there.

    Args:
        encoder: keeper of the rings.
    """

    name = "profile"

    def __init__(self, encoder: SeriesEncoder) -> None:
        self._encoder = encoder
        self._kept: FloatArray = np.power(_KEPT, np.arange(1, encoder.horizon + 1))  # [H]

    def forecast(self, c: Columns, at: Origins) -> tuple[Float32Array, BoolArray]:
        points, known = np.zeros_like(at.ahead), np.zeros(len(at.slots), np.bool_)
        _continue_shape(
            *self._encoder.past(c, at.slots),
            np.minimum(c["tick"][at.slots], self._encoder.ring_steps),
            c["season"][at.slots].astype(np.int64),
            at.value,
            at.scale,
            self._kept,
            LARGEST,
            points,
            known,
        )
        return points, known

    def first_spread(self, c: Columns, at: Origins) -> Float32Array:
        """The scale is the mean change from season to season."""
        return np.ones_like(at.ahead)


@compiled
def _continue_shape(
    values: Float32Array | FloatArray,
    start: IntArray,
    newest: IntArray,
    length: int,
    anchor: FloatArray,
    held: IntArray,
    season: IntArray,
    origin: FloatArray,
    scale: FloatArray,
    kept: FloatArray,
    largest: float,
    points: Float32Array,
    known: BoolArray,
) -> None:
    """The first five say where values are (`Past`); ``held`` of them can be looked back on."""
    horizon = points.shape[1]
    for row in range(len(held)):
        cycle = season[row]
        if cycle <= 0:
            continue
        steps = min(cycle, _LEVEL_STEPS)
        cycles = min((held[row] - steps) // cycle, _CYCLES)
        if cycles < 2:
            continue
        level = nearest = 0.0
        for back in range(steps):
            place = _wrapped(newest[row] - back, length)
            shape = _mean_at(values, start[row], _wrapped(place - cycle, length), length, cycle, cycles)
            off = values[start[row] + place] - shape
            level += off / steps
            if back == 0:
                nearest = off
        is_sane = True
        phase = 0
        for lead in range(horizon):
            phase = phase + 1 if phase < cycle else 1
            place = _wrapped(newest[row] - cycle + phase, length)
            shape = _mean_at(values, start[row], place, length, cycle, cycles)
            own = shape + level + kept[lead] * (nearest - level)
            points[row, lead] = (own + anchor[row] - origin[row]) / scale[row]
            is_sane = is_sane and abs(points[row, lead]) < largest
        if not is_sane:
            points[row] = 0.0
        known[row] = is_sane


@compiled
def _mean_at(values: Float32Array | FloatArray, start: int, place: int, length: int, cycle: int, cycles: int) -> float:
    """Mean of values a season apart, from ``place`` backwards."""
    total = 0.0
    for _ in range(cycles):
        total += values[start + place]
        place = _wrapped(place - cycle, length)
    return total / cycles


@compiled
def _wrapped(place: int, length: int) -> int:
    """The remainder, cheaper than by a division: no season is longer than what is remembered."""
    return place + length if place < 0 else place
