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
import numpy.typing as npt

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.compiled import compiled
from forecaster.series.standardising import standardise

CLIP = 8.0
"""Bound of scaled differences: beyond eight times the usual change more is not more informative."""

_SCALE_MEMORY = 168
_LONG_MEMORY = 1_344
_LEVEL_MEMORY = 48
_CHANGE_CAP = 5.0
_DAY = 86_400.0
_WEEK = 7 * _DAY
_ANCHOR_REACH = 8_192.0  # scales; single precision then shows a two-thousandth of the scale
_MOST_ELAPSED = 60_000.0  # steps; what the ring keeps in half precision
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


class Past(NamedTuple):
    """Where the values of streams are that can be looked back on: in rings, or in a history one behind the other.

    The value ``k`` ticks before the newest is ``values[start + (newest - k) % length] + anchor``.
    """

    values: Float32Array | FloatArray
    """``[N]``"""
    start: IntArray
    """``[B]``"""
    newest: IntArray
    """``[B]``"""
    length: int
    anchor: FloatArray
    """``[B]``"""


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
            Column("ring", "f4", (ring_steps,), apart=True),  # x − anchor, missing steps hold the value before
            Column("ring_elapsed", "f2", (ring_steps,), apart=True),  # steps since the tick before; negative: missing
        )
        if covariates:
            self.columns += (
                Column("covariate_mean", "f4", (covariates,)),
                Column("covariate_spread", "f4", (covariates,)),
                Column("covariate_seen", "i4", (covariates,)),
                Column("ring_covariates", "f2", (ring_steps, covariates), apart=True),  # as the network sees them
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
        times, values, elapsed = (np.ascontiguousarray(given, np.float64) for given in (times, values, elapsed))
        covariate_inputs = self._covariate_inputs(c, slots, covariates, standardised)
        features = np.empty((len(slots), len(self.feature_names)), np.float32)
        origin, scale, stored = (np.empty(len(slots)) for _ in range(3))
        position = c["tick"][slots] % self.ring_steps
        _tick(
            slots,
            position,
            times,
            values,
            elapsed,
            c["value"],
            c["anchor"],
            c["tick"],
            c["seen"],
            c["level"],
            c["scale"],
            c["scale_long"],
            c["change"],
            c["since_observed"],
            c["season"],
            c["ring"],
            features,
            origin,
            scale,
            stored,
        )
        c["ring_elapsed"][slots, position] = stored
        if covariate_inputs is not None:
            features[:, 11:] = covariate_inputs
            c["ring_covariates"][slots, position] = covariate_inputs
        return Inputs(features, origin, scale, self._future_inputs(c, slots, future))

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
        season = c["season"][slots].astype(np.int64) if season is None else np.ascontiguousarray(season)
        relative = np.zeros((len(slots), self.horizon), np.float32)
        known = np.zeros(len(slots), np.bool_)
        _look_ahead(slots, season, origin, scale, c["tick"], c["anchor"], c["ring"], relative, known)
        return relative, known

    def past(self, c: Columns, slots: IntArray) -> Past:
        """Where the values of these streams are."""
        newest = (c["tick"][slots] - 1) % self.ring_steps
        start = slots * self.ring_steps
        return Past(c["ring"].reshape(-1), start, newest, self.ring_steps, c["anchor"][slots])

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


@compiled
def _tick(
    slots: IntArray,
    position: IntArray,
    times: FloatArray,
    values: FloatArray,
    elapsed: FloatArray,
    value: FloatArray,
    anchor: FloatArray,
    tick: IntArray,
    seen: IntArray,
    level: FloatArray,
    scale: FloatArray,
    scale_long: FloatArray,
    change: FloatArray,
    since_observed: Float32Array,
    season: npt.NDArray[np.int32],
    ring: Float32Array,
    features: Float32Array,
    origin: FloatArray,
    scales: FloatArray,
    stored: FloatArray,
) -> None:
    """One tick of each stream: fill its inputs, learn, keep it at its ``position`` in the ring; ``stored`` goes there
    into ``ring_elapsed``."""
    for row in range(len(slots)):
        slot = slots[row]
        _move_anchor(slot, values[row], value, anchor, scale, ring)
        missing = np.isnan(values[row])
        is_first = seen[slot] == 0 and not missing
        x = value[slot] if missing else values[row]
        before, level_before = (x, x) if is_first else (value[slot], level[slot])
        if is_first:
            anchor[slot] = x

        at_season, has_season = _lagged(slot, season[slot], position[row], tick, anchor, ring)
        at_week, has_week = _lagged(slot, 7 * season[slot], position[row], tick, anchor, ring)
        two_back, has_two = _lagged(slot, 2, position[row], tick, anchor, ring)
        if not has_two:
            two_back = before
        reference = at_season if has_season else before
        floor = 1e-9 * _middle(abs(x), abs(before), abs(two_back)) + _SMALLEST
        if not missing:
            seen[slot] += 1
            middle = _middle(x, before, two_back)
            _learn(slot, x, before, reference, middle, floor, seen, level, scale, scale_long, change)
        now = max(scale[slot], floor)
        since = since_observed[slot] + elapsed[row]

        features[row, 0] = _clipped((x - before) / now)
        features[row, 1] = _clipped((x - level_before) / now)
        features[row, 2] = _clipped((x - at_season) / now) if has_season else 0.0
        features[row, 3] = _clipped((x - at_week) / now) if has_week else 0.0
        features[row, 4] = _clipped(np.log(now / max(scale_long[slot], _SMALLEST)))
        day, week = 2 * np.pi / _DAY * _remainder(times[row], _DAY), 2 * np.pi / _WEEK * _remainder(times[row], _WEEK)
        features[row, 5], features[row, 6] = np.sin(day), np.cos(day)
        features[row, 7], features[row, 8] = np.sin(week), np.cos(week)
        features[row, 9] = np.log1p(min(since, 1e6))
        features[row, 10] = 1.0 if missing else 0.0

        spent = min(elapsed[row], _MOST_ELAPSED)
        stored[row] = -spent if missing else spent
        ring[slot, position[row]] = x - anchor[slot]
        since_observed[slot] = since if missing else 0.0
        value[slot] = x
        tick[slot] += 1
        origin[row], scales[row] = x, now


@compiled
def _move_anchor(
    slot: int, x: float, value: FloatArray, anchor: FloatArray, scale: FloatArray, ring: Float32Array
) -> None:
    """Bring the anchor to a stream that has left it so far behind that single precision would blur it.

    Only where the present value is nearer to the last one than that is to the anchor: a single wild reading moves
    nothing, and if it was the first one, the anchor leaves it.
    """
    away = value[slot] - anchor[slot]
    if abs(away) > _ANCHOR_REACH * scale[slot] and abs(x - value[slot]) < abs(away) / 2:
        for place in range(ring.shape[1]):
            ring[slot, place] -= away
        anchor[slot] = value[slot]


@compiled
def _lagged(
    slot: int, lag: int, position: int, tick: IntArray, anchor: FloatArray, ring: Float32Array
) -> tuple[float, bool]:
    """The value ``lag`` ticks before the one being taken in at ``position``, and whether there is any."""
    steps = ring.shape[1]
    if not (0 < lag <= steps and lag <= tick[slot]):
        return 0.0, False
    return ring[slot, _wrapped(position - lag, steps)] + anchor[slot], True


@compiled
def _wrapped(place: int, length: int) -> int:
    """The remainder, of what is at most one length below 0: a division each time would be most of the work."""
    return place + length if place < 0 else place


@compiled
def _remainder(time: float, period: float) -> float:
    """``time % period``, to the bit, of whole periods up to 2**53 seconds: what is left is exact, and no loop."""
    whole = int(time / period)
    left = time - whole * period
    return time - (whole - 1) * period if left < 0 else left


@compiled
def _learn(
    slot: int,
    x: float,
    before: float,
    reference: float,
    middle: float,
    floor: float,
    seen: IntArray,
    level: FloatArray,
    scale: FloatArray,
    scale_long: FloatArray,
    change: FloatArray,
) -> None:
    """Update level, scale and mean change with a value; steps without one leave them alone.

    The ``middle`` of the last three is what a single wild reading leaves alone. A wild reading enters them capped. A
    level shift is one reading late: from its second one on it is the middle.
    """
    differences = max(seen[slot] - 1, 1)  # the first value has none
    old, is_young = scale[slot], differences <= 8
    distance = abs(x - reference)
    is_asleep = old <= 10 * floor
    capped = distance if is_asleep or is_young else min(distance, _CHANGE_CAP * old)
    learnt = _toward(old, capped, differences, _SCALE_MEMORY)
    long = _toward(scale_long[slot], capped, differences, _LONG_MEMORY)
    if is_asleep and distance > 10 * floor:  # a stream that was constant so far comes to life
        learnt = long = distance / min(differences, 8)
    scale[slot], scale_long[slot] = max(learnt, floor), max(long, floor)

    step = abs(x - before)
    if not is_young:
        step = min(step, max(_CHANGE_CAP * change[slot], capped))
    change[slot] = _toward(change[slot], step, differences, _SCALE_MEMORY)
    tame = x if is_asleep or is_young else min(max(x, middle - CLIP * old), middle + CLIP * old)
    level[slot] = x if seen[slot] <= 1 else _toward(level[slot], tame, differences + 1, _LEVEL_MEMORY)


@compiled
def _look_ahead(
    slots: IntArray,
    season: IntArray,
    origin: FloatArray,
    scale: FloatArray,
    tick: IntArray,
    anchor: FloatArray,
    ring: Float32Array,
    relative: Float32Array,
    known: BoolArray,
) -> None:
    steps, horizon = ring.shape[1], relative.shape[1]
    for row in range(len(slots)):
        slot, cycle = slots[row], season[row]
        last = tick[slot] - 1
        if not 0 < cycle <= min(last, steps):
            continue
        known[row] = True
        newest, back = last % steps, cycle
        for lead in range(horizon):
            back = back - 1 if back > 0 else cycle - 1  # from the value a season before the lead to the newest one
            at = ring[slot, _wrapped(newest - back, steps)] + anchor[slot]
            relative[row, lead] = (at - origin[row]) / scale[row]


@compiled
def _middle(a: float, b: float, c: float) -> float:
    """The middle one of three values."""
    return max(min(a, b), min(max(a, b), c))


@compiled
def _toward(mean: float, value: float, count: int, memory: int) -> float:
    """A plain mean over the first ``memory`` values, an exponentially forgetting one from then on."""
    return mean + (value - mean) / min(count, memory)


@compiled
def _clipped(difference: float) -> float:
    return min(max(difference, -CLIP), CLIP)
