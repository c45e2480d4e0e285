"""From raw values to what a network sees: causal per-stream scale, level, ring of recent steps, input features.

This is the only implementation of scaling and inputs. Serving calls `SeriesEncoder.tick` for a wave of streams;
training calls it for histories side by side; a switch of models calls it over the ring. A *tick* is one step of a
stream's own clock, with a value or without.

Everything is a difference divided by the stream's scale, so that multiplying a stream by a constant or shifting it
leaves the inputs alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.standardising import standardise

CLIP = 8.0
"""Bound of scaled differences: beyond eight times the usual change more is not more informative."""

_SCALE_MEMORY = 168
_LONG_MEMORY = 1_344
_LEVEL_MEMORY = 48
_CHANGE_CAP = 5.0
_DAY = 86_400.0
_ANCHOR_REACH = 8_192.0  # scales; single precision then shows a two-thousandth of the scale
_SMALLEST = 1e-30  # scale of a stream that has shown nothing yet


class Inputs(NamedTuple):
    """What one tick gives a network. ``B`` streams, ``F`` features."""

    features: Float32Array
    """``[B, F]``"""
    origin: FloatArray
    """Last observed value x_t, ``[B]``; 0 for a stream that has not had one."""
    scale: FloatArray
    """Scale v_t, ``[B]``, always positive."""
    future: Float32Array | None = None
    """What is known of each lead, input after input, ``[B, K·H]``; ``None`` where nothing is known ahead."""


class SeriesEncoder:
    """Turns ticks into network inputs and keeps what that needs, O(1) per tick.

    Args:
        ring_steps: R, recent ticks kept per stream.
        horizon: H, leads for which `ahead` looks a season back.
        covariates: C, past covariates per reading.
        known_ahead: K, inputs whose values at the H leads are known when the reading is made.

    Scale: ``v ← (1−a)·v + a·min(|x−x₋ₘ|, 5v)`` with ``a = 1/168`` (a plain mean before that many values), m the
    season or 1. While v is at its floor, as after a constant start, the cap is lifted, so that a stream that comes to
    life is scaled at once.
    """

    def __init__(self, *, ring_steps: int, horizon: int, covariates: int = 0, known_ahead: int = 0) -> None:
        self.ring_steps = ring_steps
        self.horizon = horizon
        self.covariates = covariates
        self.known_ahead = known_ahead
        self.columns: tuple[Column, ...] = (
            Column("value", "f8"),  # last observed value
            Column("anchor", "f8"),  # a value the stream has had; the ring is kept relative to it, in single precision
            Column("tick", "i8"),  # ticks so far
            Column("seen", "i8"),  # values so far
            Column("level", "f8"),  # mean of about 48 values
            Column("scale", "f8"),  # v
            Column("scale_long", "f8"),  # the same over about 1,344 values
            Column("change", "f8"),  # mean |x − x₋₁|
            Column("since_observed", "f4"),  # steps since the last value
            Column("season", "i4"),  # m in steps; 0 none
            Column("ring", "f4", (ring_steps,)),  # x − anchor, missing steps hold the value before
            Column("ring_elapsed", "f2", (ring_steps,)),  # steps since the tick before; negative: missing
        )
        if covariates:
            self.columns += (
                Column("covariate_mean", "f4", (covariates,)),
                Column("covariate_spread", "f4", (covariates,)),
                Column("covariate_seen", "i4", (covariates,)),
                Column("ring_covariates", "f2", (ring_steps, covariates)),  # as the network sees them
            )
        if known_ahead:  # no ring of them: they enter at the head, which sees the present reading's alone
            self.columns += (
                Column("known_ahead_mean", "f4", (known_ahead,)),
                Column("known_ahead_spread", "f4", (known_ahead,)),
                Column("known_ahead_seen", "i4", (known_ahead,)),
            )
        self.feature_names = (
            "change",
            "from_level",
            "from_season",
            "from_week",
            "scale_ratio",
            "day_sin",
            "day_cos",
            "week_sin",
            "week_cos",
            "elapsed",
            "missing",
            *(f"covariate_{k}" for k in range(covariates)),
        )

    @property
    def future_inputs(self) -> int:
        """K·H, numbers known ahead at every reading."""
        return self.known_ahead * self.horizon

    def tick(
        self,
        c: Columns,
        slots: IntArray,
        times: FloatArray,
        values: FloatArray,
        elapsed: FloatArray,
        covariates: FloatArray | Float32Array | None = None,
        *,
        standardised: bool = False,
        future: FloatArray | None = None,
    ) -> Inputs:
        """Take one step of each of these streams in and give the network's inputs for it.

        Args:
            c: columns of this encoder.
            slots: rows of the streams, each at most once, ``[B]``.
            times: event times, ``[B]``.
            values: ``[B]``; ``nan`` is a step without a value.
            elapsed: time since the tick before, in steps, ``[B]``.
            covariates: ``[B, C]``, ``nan`` where absent.
            standardised: the covariates come from the ring, as the network saw them once.
            future: what is known of each lead, input after input, ``[B, K·H]``, ``nan`` where it is not; ``None`` for
                ticks that nothing is known at, which leave what is remembered of these inputs alone.
        """
        self._move_anchor(c, slots, values)
        tick, missing = c["tick"][slots], np.isnan(values)
        before = c["value"][slots]
        first = (c["seen"][slots] == 0) & ~missing
        x = np.where(missing, before, values)
        before = np.where(first, x, before)
        anchor = np.where(first, x, c["anchor"][slots])
        level = np.where(first, x, c["level"][slots])

        season = c["season"][slots].astype(np.int64)
        lags = np.stack((season, 7 * season, np.full(len(slots), 2)))
        (at_season, at_week, two_back), (has_season, has_week, has_two) = self._lagged(c, slots, tick, lags, anchor)
        recent = (x, before, np.where(has_two, two_back, before))
        seen, scale = self._learn_scale(c, slots, x, before, np.where(has_season, at_season, before), recent, missing)
        covariate_inputs = self._covariate_inputs(c, slots, covariates, standardised)

        since = c["since_observed"][slots] + elapsed.astype(np.float32)
        features = np.empty((len(slots), len(self.feature_names)), np.float32)
        features[:, 0] = (x - before) / scale
        features[:, 1] = (x - level) / scale
        features[:, 2] = np.where(has_season, (x - at_season) / scale, 0.0)
        features[:, 3] = np.where(has_week, (x - at_week) / scale, 0.0)
        np.clip(features[:, :4], -CLIP, CLIP, out=features[:, :4])
        features[:, 4] = np.clip(np.log(scale / np.maximum(c["scale_long"][slots], _SMALLEST)), -CLIP, CLIP)
        day, week = (2 * np.pi / _DAY) * np.mod(times, _DAY), (2 * np.pi / (7 * _DAY)) * np.mod(times, 7 * _DAY)
        features[:, 5], features[:, 6] = np.sin(day), np.cos(day)
        features[:, 7], features[:, 8] = np.sin(week), np.cos(week)
        features[:, 9] = np.log1p(np.minimum(since, 1e6))
        features[:, 10] = missing
        if covariate_inputs is not None:
            features[:, 11:] = covariate_inputs

        position = tick % self.ring_steps
        c["ring"][slots, position] = x - anchor
        stored = np.minimum(elapsed, 60_000.0).astype(np.float16)
        c["ring_elapsed"][slots, position] = np.where(missing, -stored, stored)
        if covariate_inputs is not None:
            c["ring_covariates"][slots, position] = covariate_inputs
        c["value"][slots], c["anchor"][slots], c["tick"][slots], c["seen"][slots] = x, anchor, tick + 1, seen
        c["since_observed"][slots] = np.where(missing, since, 0.0)
        return Inputs(features, x, scale, self._future_inputs(c, slots, future))

    def skip(self, c: Columns, slot: int, steps: int) -> None:
        """Let a stream's clock pass ``steps`` empty ticks without making inputs: the ring repeats the last value.

        What a long gap leaves behind; seasons stay in phase.
        """
        tick = int(c["tick"][slot])
        kept = min(steps, self.ring_steps)
        positions = np.arange(tick + steps - kept, tick + steps) % self.ring_steps
        c["ring"][slot, positions] = c["value"][slot] - c["anchor"][slot]
        c["ring_elapsed"][slot, positions] = -1.0
        if self.covariates:
            c["ring_covariates"][slot, positions] = 0.0
        c["tick"][slot] += steps
        c["since_observed"][slot] += steps

    def ahead(
        self, c: Columns, slots: IntArray, origin: FloatArray, scale: FloatArray, season: IntArray | None = None
    ) -> tuple[Float32Array, BoolArray]:
        """The value one season before each lead, relative to the origin.

        Args:
            c: columns of this encoder.
            slots: rows of the streams, ``[B]``.
            origin, scale: x_t and v_t, ``[B]``.
            season: m in steps, 0 none, ``[B]``; ``None`` is each stream's own.

        Returns:
            ``(x_{t+h−m⌈h/m⌉} − x_t) / v_t`` for leads h = 1..H, unclipped, ``[B, H]``, 0 where the stream has no season
            or not yet a whole one behind it; and which streams have one, ``[B]``.
        """
        season = c["season"][slots].astype(np.int64) if season is None else season
        last = c["tick"][slots] - 1
        known = (season > 0) & (last >= season) & (season <= self.ring_steps)
        if not known.any():
            return np.zeros((len(slots), self.horizon), np.float32), known
        lead, cycle = np.arange(1, self.horizon + 1), int(season[known.argmax()])
        alike = known & (season == cycle)
        if alike.all():
            back = cycle * ((lead + cycle - 1) // cycle) - lead
        else:
            cycles = np.where(known, season, 1)[:, None]
            back = cycles * ((lead + cycles - 1) // cycles) - lead
        relative = self.look_back(c, slots, back)
        relative -= origin[:, None]
        relative /= scale[:, None]
        if not alike.all():
            relative[~known] = 0.0
        return relative.astype(np.float32), known

    def look_back(self, c: Columns, slots: IntArray, back: IntArray) -> FloatArray:
        """Values ``back`` ticks before the newest of each stream, ``[B, K]``; below R and the ticks there were.

        ``back`` is ``[B, K]``, or ``[K]`` where it is the same for all.
        """
        newest = (c["tick"][slots] - 1) % self.ring_steps
        positions = newest[:, None] - back  # from here on: cheaper than a remainder for each, or two indices
        around = positions >> 63  # all bits where it is negative
        around &= self.ring_steps
        around += (slots * self.ring_steps)[:, None]
        positions += around
        return np.add(c["ring"].take(positions), c["anchor"][slots][:, None])

    def recent(self, c: Columns, slot: int, steps: int) -> tuple[FloatArray, FloatArray]:
        """The last ticks of one stream, oldest first.

        Returns:
            values (``nan`` where missing) and steps elapsed before each, both ``[min(steps, ticks, R)]``.
        """
        tick = int(c["tick"][slot])
        positions = np.arange(max(tick - min(steps, self.ring_steps), 0), tick) % self.ring_steps
        elapsed = c["ring_elapsed"][slot, positions].astype(np.float64)
        values = c["ring"][slot, positions].astype(np.float64) + float(c["anchor"][slot])
        return np.where(np.signbit(elapsed), np.nan, values), np.abs(elapsed)

    def _move_anchor(self, c: Columns, slots: IntArray, values: FloatArray) -> None:
        """Bring the anchor to streams that have left it so far behind that single precision would blur them.

        Only where the present value is nearer to the last one than that is to the anchor: a single wild reading moves
        nothing, and if it was the first one, the anchor leaves it.
        """
        anchor, value = c["anchor"][slots], c["value"][slots]
        away = value - anchor
        moved = (np.abs(away) > _ANCHOR_REACH * c["scale"][slots]) & (np.abs(values - value) < np.abs(away) / 2)
        if moved.any():
            rows = slots[moved]
            c["ring"][rows] = c["ring"][rows] - away[moved][:, None]
            c["anchor"][rows] = value[moved]

    def _lagged(
        self, c: Columns, slots: IntArray, tick: IntArray, lag: IntArray, anchor: FloatArray
    ) -> tuple[FloatArray, BoolArray]:
        """The values ``lag`` ticks before the one being taken in, and where there are any; all ``[K, B]``."""
        known = (lag > 0) & (tick >= lag) & (lag <= self.ring_steps)
        index = np.where(known, tick - lag, 0) % self.ring_steps
        return c["ring"].take(slots * self.ring_steps + index) + anchor, known

    def _learn_scale(
        self,
        c: Columns,
        slots: IntArray,
        x: FloatArray,
        before: FloatArray,
        reference: FloatArray,
        recent: tuple[FloatArray, FloatArray, FloatArray],
        missing: BoolArray,
    ) -> tuple[IntArray, FloatArray]:
        """Update level, scale and mean change with the values; steps without one leave them alone.

        The middle of the ``recent`` three, ``[B]`` each, is what a single wild reading leaves alone.
        A wild reading enters them capped. A level shift is one reading late: from its second one on it is the middle.
        """
        seen = c["seen"][slots] + ~missing
        differences = np.maximum(seen - 1, 1)  # the first value has none
        old, old_long, level = c["scale"][slots], c["scale_long"][slots], c["level"][slots]
        distance = np.abs(x - reference)
        floor = 1e-9 * _middle(*(np.abs(value) for value in recent)) + _SMALLEST
        asleep = old <= 10 * floor
        capped = np.where(asleep | (differences <= 8), distance, np.minimum(distance, _CHANGE_CAP * old))

        scale = _mean_toward(old, capped, differences, _SCALE_MEMORY)
        long = _mean_toward(old_long, capped, differences, _LONG_MEMORY)
        awakened = asleep & (distance > 10 * floor)  # a stream that was constant so far comes to life
        scale = np.where(awakened, distance / np.minimum(differences, 8), scale)
        scale, long = np.maximum(scale, floor), np.maximum(np.where(awakened, scale, long), floor)

        step, change = np.abs(x - before), c["change"][slots]
        step = np.where(differences <= 8, step, np.minimum(step, np.maximum(_CHANGE_CAP * change, capped)))
        middle = _middle(*recent)
        tame = np.where(asleep | (differences <= 8), x, np.clip(x, middle - CLIP * old, middle + CLIP * old))
        learned = {
            "scale": (old, scale),
            "scale_long": (old_long, long),
            "change": (change, _mean_toward(change, step, differences, _SCALE_MEMORY)),
            "level": (level, np.where(seen <= 1, x, _mean_toward(level, tame, differences + 1, _LEVEL_MEMORY))),
        }
        any_missing = missing.any()
        for name, (kept, value) in learned.items():
            c[name][slots] = np.where(missing, kept, value) if any_missing else value
        return seen, np.maximum(c["scale"][slots], floor)

    def _covariate_inputs(
        self, c: Columns, slots: IntArray, covariates: FloatArray | Float32Array | None, standardised: bool
    ) -> Float32Array | None:
        """Each covariate standardised by its own running mean and spread, ``[B, C]``; absent ones are 0."""
        if not self.covariates:
            return None
        if covariates is None:
            return np.zeros((len(slots), self.covariates), np.float32)
        if standardised:
            return covariates.astype(np.float32)
        return self._standardised(c, "covariate", slots, covariates[:, :, None])[:, :, 0]

    def _future_inputs(self, c: Columns, slots: IntArray, future: FloatArray | None) -> Float32Array | None:
        """What is known ahead, each input by its own running mean and spread over all leads; 0 where it is not."""
        if not self.known_ahead:
            return None
        if future is None:
            return np.zeros((len(slots), self.future_inputs), np.float32)
        leads = future.reshape(len(slots), self.known_ahead, self.horizon)
        return self._standardised(c, "known_ahead", slots, leads).reshape(future.shape)

    @staticmethod
    def _standardised(c: Columns, kind: str, slots: IntArray, values: FloatArray | Float32Array) -> Float32Array:
        """Learn from values of one kind and measure them by what was learnt, both ``[B, N, V]``."""
        names = [f"{kind}_{part}" for part in ("mean", "spread", "seen")]
        shown, *learnt = standardise(values, *(c[name][slots] for name in names), bound=CLIP)
        for name, column in zip(names, learnt, strict=True):
            c[name][slots] = column
        return shown


def _middle(a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """The middle one of three values, ``[B]``."""
    return np.asarray(np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c)))


def _mean_toward(mean: FloatArray, value: FloatArray, count: IntArray, memory: int) -> FloatArray:
    """A plain mean over the first ``memory`` values, an exponentially forgetting one from then on."""
    return np.asarray(mean + (value - mean) / np.minimum(count, memory))
