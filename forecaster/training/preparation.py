"""From a history to what a network is trained on: sample, lay out as ticks, find the season, encode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forecaster.errors import TrainingFailed
from forecaster.series.columns import BoolArray, FloatArray, IntArray
from forecaster.series.encoder import SeriesEncoder
from forecaster.series.seasonality import common_season, find_longer_season, find_season
from forecaster.series.seasons import season_steps
from forecaster.training.encoding import EncodedHistory, encode, hide
from forecaster.training.history import History, Ticks, lay_out_ticks

_MIN_ORIGINS = 50
_SEASON_STREAMS = 50
_ENCODED_NUMBERS = 120_000_000  # bound on inputs and look-aheads held in memory, 4 bytes each
_SOME_ORIGINS = 20_000


class Prepared(NamedTuple):
    """A history ready for training."""

    sampled: History
    """What is left of it within the budget."""
    ticks: list[Ticks]
    steps_seconds: FloatArray
    """Usual step of each stream, ``[N]``."""
    season: int | float
    """In steps when ``int``, in seconds when ``float``, 0 for none."""
    data: EncodedHistory
    excluded: tuple[tuple[float, float], ...]
    further_season: float = 0.0
    """A longer one that was found beside it, in seconds; 0.0 for none."""

    def season_steps(self, encoder: SeriesEncoder, season: int | float | None = None) -> IntArray:
        """A season (``None``: the one found) as whole steps of each stream; 0 for none, or where it does not fit."""
        return _in_steps(self.season if season is None else season, self.steps_seconds, encoder.ring_steps)

    def phases(self, encoder: SeriesEncoder) -> IntArray:
        """Place of every row in its stream's season, by its time; -1 where there is none, ``[M]``."""
        lengths = np.diff(self.data.starts)
        season = np.repeat(self.season_steps(encoder), lengths)
        step = np.repeat(np.where(self.steps_seconds > 0, self.steps_seconds, 1.0), lengths)
        steps = np.round(self.data.times / step).astype(np.int64)
        return np.where(season > 0, steps % np.maximum(season, 1), -1)

    def encoded_with(self, encoder: SeriesEncoder, season: int | float) -> EncodedHistory:
        """The same history as it looks under another season."""
        steps = self.season_steps(encoder, season)
        if (steps == self.season_steps(encoder)).all():
            return self.data
        return hide(encode(encoder, self.ticks, steps), self.excluded)


def prepare(
    history: History,
    encoder: SeriesEncoder,
    *,
    season: int | float | None = None,
    find_seasons: int = 1,
    step_seconds: float = 0.0,
    max_gap_steps: int = 24,
    max_streams: int = 512,
    max_ticks: int = 30_000,
    copies: int = 0,
    exclude: Sequence[tuple[float, float]] = (),
    seed: int = 0,
) -> Prepared:
    """Sample and trim a history to a budget, lay it out as the ticks serving would step, encode it.

    Args:
        history: what to learn from.
        encoder: the serving one, by its arguments.
        season: in steps when ``int``, in seconds when ``float``, 0 for none, ``None`` to find it.
        find_seasons: 2 to find a longer one beside the one found.
        step_seconds, max_gap_steps: as serving's clock has them.
        max_streams, max_ticks: streams looked at, and newest ticks of each.
        copies: altered copies of each stream for which memory is to be left.
        exclude: event times, from and to, of which nothing is asked.
        seed: of the sample.

    Raises:
        TrainingFailed: there is no reading at all.
    """
    history.span()  # raises where there is nothing at all
    sampled = history.sample(max_streams, np.random.default_rng(seed))
    newest = {
        name: series.at(slice(max(len(series.times) - max_ticks, 0), None)) for name, series in sampled.streams.items()
    }
    numbers = len(encoder.feature_names) + encoder.horizon + encoder.future_inputs
    sampled = History(newest).trim(_ENCODED_NUMBERS // (numbers * (1 + copies)))
    ticks = lay_out_ticks(list(sampled.streams.values()), max_gap_steps=max_gap_steps, step_seconds=step_seconds)
    steps_seconds = np.array([step_seconds or _usual_step(t) for t in ticks])
    further = 0.0
    if season is None:
        season = _found_season(ticks, steps_seconds, encoder.ring_steps)
        if find_seasons > 1 and season > 0:
            further = _found_season(ticks, steps_seconds, encoder.ring_steps, beyond=season)
    data = encode(encoder, ticks, _in_steps(season, steps_seconds, encoder.ring_steps))
    periods = tuple((float(first), float(last)) for first, last in exclude)
    return Prepared(sampled, ticks, steps_seconds, season, hide(data, periods), periods, further)


def origins_among(data: EncodedHistory, rows: BoolArray) -> IntArray:
    """Some of the rows that have a scale and a next value, evenly spread, at most 20,000."""
    found = np.flatnonzero(rows & data.warm)
    found = found[data.targets(found, 1)[1][:, 0]] if len(found) else found
    return found if len(found) <= _SOME_ORIGINS else found[np.linspace(0, len(found) - 1, _SOME_ORIGINS).astype(int)]


def check_worth_training(data: EncodedHistory, train: BoolArray, *, drawable_rows: int, horizon: int) -> None:
    """Refuse a training part that teaches nothing.

    Args:
        data: encoded history.
        train: rows of the training part, ``[M]``.
        drawable_rows: rows that windows can be drawn from.
        horizon: H.

    Raises:
        TrainingFailed: too few values that are followed by another, or none that moves; the message has the numbers.
    """
    origins, streams = origins_among(data, train), len(data.starts) - 1
    if len(origins) < _MIN_ORIGINS or drawable_rows == 0:
        values = int((~np.isnan(data.values)).sum())
        raise TrainingFailed(
            f"The training window holds {values} values on {len(data.values)} steps of {streams} streams, of which "
            f"{len(origins)} are followed by another value in the part for fitting; {_MIN_ORIGINS} are needed.",
            hint="Wait for more readings, or widen training.window.",
        )
    target, observed = data.targets(origins, horizon)
    if not (np.abs(target) > 1e-6)[observed].any():
        raise TrainingFailed(
            f"None of the {streams} streams moves in the training window: there is nothing to learn.",
            hint="Check that the sensors are not stuck; the naive forecast goes on answering.",
        )


def _usual_step(ticks: Ticks) -> float:
    intervals = np.diff(ticks.times)
    return float(np.median(intervals)) if len(intervals) else 0.0


def _in_steps(season: int | float, steps_seconds: FloatArray, ring_steps: int) -> IntArray:
    if isinstance(season, int):
        return np.full(len(steps_seconds), season, np.int64)
    return season_steps(season, steps_seconds, ring_steps) if season > 0 else np.zeros(len(steps_seconds), np.int64)


def _found_season(ticks: Sequence[Ticks], steps_seconds: FloatArray, ring_steps: int, *, beyond: float = 0.0) -> float:
    """Season of the group, looked for in some of its streams, in seconds; 0.0 where there is none.

    ``beyond`` is one that is known: then a longer one.
    """
    chosen = np.unique(np.linspace(0, len(ticks) - 1, min(_SEASON_STREAMS, len(ticks))).astype(np.int64))
    found = []
    for k in chosen:
        values, step = ticks[k].values, float(steps_seconds[k])
        if beyond:
            at = np.arange(len(values)) + np.cumsum(ticks[k].skipped)
            found.append(find_longer_season(values, step, beyond, max_steps=ring_steps - 1, at=at))
        else:
            found.append(find_season(values, step, max_steps=ring_steps - 1))
    return common_season(found)
