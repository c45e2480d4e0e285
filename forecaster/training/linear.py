"""The linear forecast of a model, solved for: ridge regressions over all streams of a history, and towards each one.

Streams differ: on ETTh1 a regression of its own for every stream has a mean squared error a tenth below a shared one,
on heart rates of a few thousand readings it is worse. So a stream's own weights are drawn towards the shared ones, as
if it had so many readings more that follow them; how many is decided on the newest quarter of what it is fitted on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from forecaster.models.linear import MOST_OWN, LinearForecast
from forecaster.series.columns import Float32Array, FloatArray, IntArray
from forecaster.series.encoder import Past
from forecaster.series.identity import stream_identity
from forecaster.series.lags import LagInputs
from forecaster.training.encoding import EncodedHistory

_MOST_ROWS = 60_000
_BLOCK = 4_096
_RIDGE = 1e-3  # a row; columns are in scales, so that all are about as large
_CLIP = 24.0  # scales: a target farther away says no more than that, or sums would not hold it
_USUAL = 12.0  # scales; beyond it a target does not make its stream a restless one
_LEAST_VARIANCE = 0.01
"""A stream at rest must not count for more than a hundred ordinary ones."""
_LEEWAY = 2.0  # usual errors; a row that is farther off counts for less, in proportion
_ROUNDS = 2  # of weighing rows by the errors they were left with
_TRUSTS = (10_000.0, 3_000.0, 1_000.0, 300.0)
"""Rows that the shared weights may count for beside a stream's own; and there is always the choice of the shared ones
alone."""
_HELD_SHARE = 0.25  # newest rows of each stream, to decide by
_LEAST_HELD = 20


class LinearFit(NamedTuple):
    """What was found."""

    linear: LinearForecast
    rows: int
    """It was fitted on."""


class _Moments(NamedTuple):
    """Sums over weighted rows from which a regression is solved."""

    gram: FloatArray
    """``[K, K]``"""
    moment: FloatArray
    """``[K, H]``"""
    weight: float
    rows: int

    @classmethod
    def of(cls, x: FloatArray, y: FloatArray, weight: FloatArray) -> _Moments:
        weighted = (x * weight[:, None]).T
        return cls(weighted @ x, weighted @ y, float(weight.sum()), len(x))

    def plus(self, other: _Moments, share: float = 1.0) -> _Moments:
        return _Moments(
            self.gram + share * other.gram,
            self.moment + share * other.moment,
            self.weight + share * other.weight,
            self.rows + other.rows,
        )

    def towards(self, shared: _Moments, trust: float) -> FloatArray:
        """Weights of a stream that is given ``trust`` rows more as all streams have them, ``[K, H]``."""
        return self.plus(shared, trust * self.weight / (max(self.rows, 1) * shared.weight)).solved()

    def solved(self) -> FloatArray:
        gram = self.gram.copy()
        gram[np.diag_indices_from(gram)] += _RIDGE * self.weight
        return np.asarray(np.linalg.solve(gram, self.moment))


class _Rows(NamedTuple):
    """Rows of one stream."""

    x: Float32Array
    """``[n, K]``"""
    y: FloatArray
    """``[n, H]``"""
    weight: FloatArray
    """``[n]``"""

    def moments(self, until: int | None = None) -> _Moments:
        return _Moments.of(self.x[:until].astype(np.float64), self.y[:until], self.weight[:until])


def fit_linear(
    data: EncodedHistory,
    inputs: LagInputs,
    season_steps: IntArray,
    names: Sequence[str],
    *,
    left_out: Sequence[int] = (),
) -> LinearFit | None:
    """Fit a linear forecast to what a history holds, every stream alike however restless it is.

    1. All streams together, twice more with rows of large errors weighing less.
    2. Towards each stream: by the newest quarter of its rows and of all streams', how far.
    3. Own weights of the streams that gained most, at most `MOST_OWN`.

    Args:
        data: encoded history.
        inputs: what serving will show it.
        season_steps: of each stream, 0 none, ``[N]``.
        names: of the streams.
        left_out: of the network's inputs, by place, those that get no weight: what hardly varies, and the time of day
            in a history of hours, fits any trend and is wrong after it.

    Returns:
        ``None`` where fewer rows than it has inputs can be used.

    Source: Hoerl & Kennard (1970), "Ridge Regression: Biased Estimation for Nonorthogonal Problems"; Huber (1964),
    "Robust Estimation of a Location Parameter" (weights of rows).
    """
    rows = _usable_rows(data, inputs)
    if len(rows) <= inputs.width:
        return None
    streams = _by_stream(data, inputs, rows, season_steps)
    for part in streams.values():
        part.x[:, inputs.lags + np.array(left_out, np.int64)] = 0.0  # which leaves exactly no weight
    # 1. together
    parts = {number: part.moments() for number, part in streams.items()}
    for _ in range(_ROUNDS):
        shared = _sum(parts.values())
        for number, part in streams.items():
            error = np.abs(part.y - part.x @ parts[number].towards(shared, _TRUSTS[2])).mean(axis=1)
            usual = max(_LEEWAY * float(np.median(error)), 1e-9)
            streams[number] = part._replace(weight=part.weight.max() * usual / np.maximum(error, usual))
            parts[number] = streams[number].moments()
    shared = _sum(parts.values())
    weights = shared.solved()
    # 2. towards each
    trusts = _choose_trusts(streams, inputs.horizon)
    # 3. the streams that gain most
    kept = sorted(trusts, key=lambda number: trusts[number][1])[:MOST_OWN]
    own = {stream_identity(names[number]): parts[number].towards(shared, trusts[number][0]) for number in kept}
    identities = sorted(own)

    chosen = {number: own[stream_identity(names[number])] for number in kept}
    error = sum(
        (np.abs(part.y - part.x @ chosen.get(number, weights)).sum(axis=0) for number, part in streams.items()),
        np.zeros(inputs.horizon),
    )
    linear = LinearForecast(inputs.width, inputs.horizon, len(own))
    linear.set(
        _tensor(weights),
        _tensor(error / len(rows)),
        _tensor(np.stack([own[identity] for identity in identities])) if own else None,
        torch.tensor(identities, dtype=torch.int64) if own else None,
    )
    return LinearFit(linear, len(rows))


def linear_points(
    linear: LinearForecast,
    data: EncodedHistory,
    inputs: LagInputs,
    rows: IntArray,
    season_steps: IntArray,
    names: Sequence[str],
) -> Float32Array:
    """What a linear forecast says at some rows, ``[B, H]``; 0 where not all lags are there."""
    stream = _stream_of(data, rows)
    places = linear.rows_of(np.array([stream_identity(name) for name in names], np.int64))
    made = np.zeros((len(rows), inputs.horizon), np.float32)
    known = rows - data.starts[stream] >= inputs.lags
    for block in _blocks(len(rows)):
        x = _lag_rows(data, inputs, rows[block], season_steps[stream[block]])
        made[block] = linear.points(x, places[stream[block]])
    return np.where(known[:, None], made, np.float32(0.0))


def _choose_trusts(streams: dict[int, _Rows], horizon: int) -> dict[int, tuple[float, float]]:
    """How much the shared weights count beside a stream's own, and the loss that leaves of theirs; for the streams
    that shall have their own.

    Decided half by the stream's newest rows, half by the mean of all streams: those of one alone say little.
    """
    older = {number: part.moments(_held_from(part)) for number, part in streams.items()}
    shared = _sum(older.values())
    weights = shared.solved()
    losses: dict[int, FloatArray] = {}
    for number, part in streams.items():
        held = slice(_held_from(part) + horizon, None)  # whose targets no older row has
        x, y = part.x[held], part.y[held]
        if len(x) < _LEAST_HELD or older[number].weight <= 0:
            continue
        found = np.array(
            [np.abs(y - x @ w).mean() for w in (weights, *(older[number].towards(shared, t) for t in _TRUSTS))]
        )
        if found[0] > 0:
            losses[number] = found / found[0]
    if not losses:
        return {}
    mean = np.mean(list(losses.values()), axis=0)
    chosen = {}
    for number, own in losses.items():
        expected = (own + mean) / 2
        best = int(np.argmin(expected))
        if best:
            chosen[number] = _TRUSTS[best - 1], float(expected[best])
    return chosen


def _held_from(part: _Rows) -> int:
    return len(part.x) - int(_HELD_SHARE * len(part.x))


def _by_stream(data: EncodedHistory, inputs: LagInputs, rows: IntArray, season_steps: IntArray) -> dict[int, _Rows]:
    """The rows of every stream that has any, weighed by one over the mean square of its usual targets."""
    stream = _stream_of(data, rows)
    found = {}
    for number in np.unique(stream).tolist():
        own = rows[stream == number]
        x = np.concatenate(
            [_lag_rows(data, inputs, own[b], np.full(len(own[b]), season_steps[number])) for b in _blocks(len(own))]
        )
        target = data.targets(own, inputs.horizon)[0].astype(np.float64)
        variance = float((np.clip(target, -_USUAL, _USUAL) ** 2).mean())
        found[number] = _Rows(
            x,
            np.clip(target, -_CLIP, _CLIP),
            np.full(len(own), 1.0 / max(variance, _LEAST_VARIANCE)),
        )
    return found


def _sum(parts: Iterable[_Moments]) -> _Moments:
    total = None
    for part in parts:
        total = part if total is None else total.plus(part)
    assert total is not None, "there is a stream"
    return total


def _stream_of(data: EncodedHistory, rows: IntArray) -> IntArray:
    return np.searchsorted(data.starts, rows, side="right") - 1


def _usable_rows(data: EncodedHistory, inputs: LagInputs) -> IntArray:
    """Rows with all lags behind them and all targets ahead, evenly spread, at most 60,000."""
    begins = np.concatenate(([True], data.segment_end[1:] != data.segment_end[:-1]))
    since = np.arange(len(data.values)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
    found = np.flatnonzero(data.warm & (since >= inputs.lags))
    if len(found) > 4 * _MOST_ROWS:
        found = found[np.linspace(0, len(found) - 1, 4 * _MOST_ROWS).astype(np.int64)]
    whole = np.zeros(len(found), np.bool_)
    for block in _blocks(len(found)):
        whole[block] = data.targets(found[block], inputs.horizon)[1].all(axis=1)
    found = found[whole]
    if len(found) > _MOST_ROWS:
        found = found[np.linspace(0, len(found) - 1, _MOST_ROWS).astype(np.int64)]
    return found


def _lag_rows(data: EncodedHistory, inputs: LagInputs, rows: IntArray, season: IntArray) -> Float32Array:
    """What serving would have seen at these rows, ``[B, K]``."""
    first = data.starts[_stream_of(data, rows)]
    ahead = np.zeros((len(rows), inputs.horizon), np.float32) if data.ahead is None else data.ahead[rows]
    return inputs.rows(
        Past(data.origin, np.zeros_like(rows), rows, len(data.origin), np.zeros(len(rows))),
        ticks=rows - first + 1,
        season=season,
        origin=data.origin[rows],
        scale=data.scale[rows],
        features=data.features[rows],
        ahead=ahead,
        future=None if data.future is None else data.future[rows],
    )


def _tensor(values: FloatArray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _blocks(rows: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, rows)) for start in range(0, rows, _BLOCK)]
