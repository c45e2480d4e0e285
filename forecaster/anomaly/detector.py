"""What is anomalous about a reading: six tests, the highest of which counts, and the episodes they make.

| test | asks | by |
|---|---|---|
| surprise | is the value unlikely under the forecast of its step? | `SurprisePeaks`, channel 0 |
| drift | have values been unlikely under the forecasts of the longest lead for some readings? | channel 1 |
| extreme | is it outside its forecast, and beyond all the stream has ever been? | `Extremes` |
| shift | is the same true of the last ten readings together? | 〃 |
| flat | has the stream been stuck for longer than ever? | `Silence` |
| gap | has it said nothing for longer than ever? | 〃 |

Every score is a multiple of its test's threshold, which people's labels move for the stream (`Tolerance`), so that
scores compare between tests and between streams. Nothing depends on units: multiplying a stream by a constant, or
shifting it, gives the same anomalies. What is beyond a threshold enters the statistics capped, so that one anomaly does
not hide the next.

The thresholds were chosen on the 38 files of the Numenta benchmark that docs/accuracy.md reports.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np

from forecaster.anomaly.episodes import EpisodeRules, Episodes
from forecaster.anomaly.extremes import Extremes
from forecaster.anomaly.labels import Tolerance
from forecaster.anomaly.peaks import SurprisePeaks
from forecaster.anomaly.silence import Silence
from forecaster.anomaly.surprise import MOST_SURPRISING, Surprise
from forecaster.series.columns import BoolArray, Column, Columns, FloatArray, IntArray


class Cause(IntEnum):
    """Test that raised an anomaly; a place in the row of scores."""

    SURPRISE = 0
    DRIFT = 1
    EXTREME = 2
    SHIFT = 3
    FLAT = 4
    GAP = 5


class Direction(StrEnum):
    """Where the value of an anomaly lies."""

    UP = "up"
    """Above its forecast."""
    DOWN = "down"
    """Below it."""
    FLAT = "flat"
    """Where it has been for too long."""
    GAP = "gap"
    """Nowhere: it was missing."""


class AnomalyRules(NamedTuple):
    """What counts as an anomaly."""

    episodes: EpisodeRules = EpisodeRules()
    risk: float = 1e-3
    """Share of readings allowed beyond the threshold of a stream's own peaks, where that is above the fixed one."""
    min_deviation: float = 0.0
    """From the forecast median, in the stream's own units: what is nearer is never an anomaly."""
    min_relative_deviation: float = 0.0
    """The same as a share of the median."""
    flat_readings: int = 0
    """Equal values in a row that may be an anomaly; 0 for never."""
    gap_steps: int = 0
    """Steps without a value that may be one; 0 for never."""


class Expectation(NamedTuple):
    """What was forecast for a wave of readings. ``B`` streams, ``Q`` levels; ``nan`` where nothing was."""

    next: FloatArray
    """By the reading before, ``[B, Q]``, in the stream's own units."""
    longest: FloatArray
    """At the longest lead, ``[B, Q]``."""
    scale: FloatArray
    """Of each stream before this reading, ``[B]``, positive."""


class OpenAnomaly(NamedTuple):
    """An anomaly that was raised and not cleared yet."""

    cause: Cause
    direction: Direction
    score: float
    """The highest so far."""
    since: float
    """Event time at which it was raised."""


class Verdicts(NamedTuple):
    """What was found in a wave, ``[B]`` each."""

    raised: BoolArray
    cleared: BoolArray
    fresh: FloatArray
    """Score of the reading where it would be a new anomaly, could it reach the threshold; else 0."""
    score: FloatArray
    """Of a raised anomaly, its score; of a cleared one, the highest it had."""
    cause: IntArray
    """`Cause` of the anomaly."""
    above: BoolArray
    """Whether the value that raised it was above its forecast."""
    since: FloatArray
    """Event time at which the anomaly was raised."""
    expected: FloatArray
    """Forecast median, and the outermost quantiles; ``nan`` where there was no forecast."""
    lower: FloatArray
    upper: FloatArray

    def part(self, rows: slice) -> Verdicts:
        """What was found in these rows of the wave."""
        return Verdicts(*(found[rows] for found in self))  # type: ignore[arg-type] # each array keeps its type


def direction(cause: int, *, is_above: bool) -> Direction:
    """Where the value of an anomaly lies, from what `Verdicts` say of it."""
    if cause == Cause.FLAT:
        return Direction.FLAT
    if cause == Cause.GAP:
        return Direction.GAP
    return Direction.UP if is_above else Direction.DOWN


class AnomalyDetector:
    """Judges readings by what was forecast for them, O(1) a reading and without memory beside its columns.

    Args:
        quantile_levels: Q, symmetric around 0.5.
    """

    def __init__(self, rules: AnomalyRules, *, quantile_levels: tuple[float, ...]) -> None:
        self.rules = rules
        self._median = quantile_levels.index(0.5)
        self._has_width = len(quantile_levels) > 1
        self._surprise = Surprise(quantile_levels) if self._has_width else None
        self._peaks = SurprisePeaks(risk=rules.risk)
        self._extremes = Extremes()
        self._silence = Silence(flat_readings=rules.flat_readings, gap_steps=rules.gap_steps)
        self._episodes = Episodes(rules.episodes)
        self._tolerance = Tolerance(threshold=rules.episodes.threshold)

    def open(self, c: Columns, slot: int) -> OpenAnomaly | None:
        """The anomaly a stream is in, ``None`` when it is in none."""
        code = int(c["anomaly"][slot])
        if code < 0:
            return None
        cause, is_above = Cause(code // 2), code % 2 == 1
        top, since = float(c["anomaly_top"][slot]), float(c["anomaly_since"][slot])
        return OpenAnomaly(cause, direction(cause, is_above=is_above), top, since)

    @property
    def columns(self) -> tuple[Column, ...]:
        """All that is remembered of one stream."""
        return (
            *self._peaks.columns,
            *self._extremes.columns,
            *self._silence.columns,
            *self._episodes.columns,
            *self._tolerance.columns,
        )

    def label(self, c: Columns, slot: int, time: float, *, is_true: bool) -> None:
        """Take in what people say of an anomaly of one stream about ``time``."""
        self._tolerance.label(c, slot, time, is_true=is_true)

    def update(
        self,
        c: Columns,
        slots: IntArray,
        times: FloatArray,
        values: FloatArray,
        expectation: Expectation,
        *,
        run: IntArray,
        missed: IntArray,
        readings: IntArray,
    ) -> Verdicts:
        """Judge one wave of readings, then learn from it.

        Args:
            times, values: ``[B]``; ``nan`` is a reading without a value.
            run: equal values in a row, this one included, ``[B]``.
            missed: steps without a value, up to this reading, ``[B]``.
            readings: of the stream so far, ``[B]``.
        """
        # Values near the largest double: their differences may be infinite, and count for as much as may be.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._update(c, slots, times, values, expectation, run, missed, readings)

    def _update(
        self,
        c: Columns,
        slots: IntArray,
        times: FloatArray,
        values: FloatArray,
        expectation: Expectation,
        run: IntArray,
        missed: IntArray,
        readings: IntArray,
    ) -> Verdicts:
        present = ~np.isnan(values)
        value = np.where(present, values, 0.0)
        forecasts = np.concatenate((expectation.next, expectation.longest))  # [2·B, Q]
        lower, medians, upper = (forecasts[:, level].reshape(2, -1).T for level in (0, self._median, -1))  # [B, 2]
        value_twice = values[:, None]
        score = np.zeros((len(slots), len(Cause)), order="F")
        allowed = self._is_far_enough(value_twice, medians)
        if self._surprise is not None:
            surprise = self._surprise(np.tile(values, 2), forecasts, np.tile(expectation.scale, 2)).reshape(2, -1).T
            known = present[:, None] & ~np.isnan(lower)
            score[:, Cause.SURPRISE : Cause.EXTREME] = allowed * self._peaks.update(c, slots, surprise, known)
        beyond, beyond_above = self._extremes.update(c, slots, value, expectation.scale, present)
        outside = np.where(beyond_above, value_twice > upper, value_twice < lower)
        score[:, Cause.EXTREME : Cause.FLAT] = np.where(allowed & outside, beyond, 0.0)
        score[:, Cause.FLAT :] = self.rules.episodes.threshold * self._silence.update(
            c, slots, run=run, missed=missed, readings=readings, present=present
        )
        plain = score if np.isfinite(score).all() else np.nan_to_num(score, posinf=MOST_SURPRISING)
        score = plain / self._tolerance.of(c, slots)[:, None]
        above = np.concatenate((value_twice > medians, beyond_above, np.zeros_like(beyond_above)), axis=1)
        test = score.argmax(axis=1)
        code = 2 * test + above[np.arange(len(test)), test]
        turn = self._episodes.update(
            c, slots, times, score.max(axis=1), code, counted=present, is_news=test >= Cause.FLAT
        )
        is_open = c["anomaly"][slots] >= 0
        self._tolerance.follow(c, slots, times, plain.max(axis=1), turn.raised, is_open)
        return Verdicts(
            raised=turn.raised,
            cleared=turn.cleared,
            fresh=turn.fresh,
            score=turn.score,
            cause=turn.code // 2,
            above=turn.code % 2 == 1,
            since=turn.since,
            expected=expectation.next[:, self._median],
            lower=expectation.next[:, 0],
            upper=expectation.next[:, -1],
        )

    def _is_far_enough(self, values: FloatArray, medians: FloatArray) -> BoolArray:
        """Whether values deviate from forecast medians by what the rules ask at least, ``[B, 2]``."""
        least = np.maximum(self.rules.min_deviation, self.rules.min_relative_deviation * np.abs(medians))
        return np.asarray(np.abs(values - medians) >= least)
