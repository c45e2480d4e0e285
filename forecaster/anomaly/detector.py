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
from forecaster.series.compiled import compiled


class Cause(IntEnum):
    """Test that raised an anomaly; a place in the row of scores."""

    SURPRISE = 0
    DRIFT = 1
    EXTREME = 2
    SHIFT = 3
    FLAT = 4
    GAP = 5


_TESTS = len(Cause)


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
        present = np.logical_not(np.isnan(values))
        rows, rules = len(slots), self.rules
        surprise = np.zeros((rows, 2))
        if self._surprise is not None:
            for channel, forecast in enumerate((expectation.next, expectation.longest)):
                surprise[:, channel] = self._surprise(values, forecast, expectation.scale)
            unknown = np.empty((rows, 2), np.bool_)
            # Not by `out=`: numpy 2.4.6 was seen to write wrong bytes where an output of `isnan` is not contiguous.
            for channel, forecast in enumerate((expectation.next, expectation.longest)):
                unknown[:, channel] = np.isnan(forecast[:, 0])
            surprise = self._peaks.update(c, slots, surprise, ~unknown & present[:, None])
        beyond, beyond_above = self._extremes.update(c, slots, values, expectation.scale, present)
        silence = self._silence.update(c, slots, run=run, missed=missed, readings=readings, present=present)

        plain, score, code = np.zeros(rows), np.zeros(rows), np.zeros(rows, np.int64)
        _weigh(
            values,
            expectation.next,
            expectation.longest,
            surprise,
            beyond,
            beyond_above,
            silence,
            self._tolerance.of(c, slots),
            self._median,
            rules.min_deviation,
            rules.min_relative_deviation,
            rules.episodes.threshold,
            MOST_SURPRISING,
            plain,
            score,
            code,
        )
        is_news = code >= 2 * Cause.FLAT
        turn = self._episodes.update(c, slots, times, score, code, counted=present, is_news=is_news)
        self._tolerance.follow(c, slots, times, plain, turn.raised, c["anomaly"][slots] >= 0)
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


@compiled
def _weigh(
    values: FloatArray,
    by_next: FloatArray,
    by_longest: FloatArray,
    surprise: FloatArray,
    beyond: FloatArray,
    beyond_above: BoolArray,
    silence: FloatArray,
    tolerance: FloatArray,
    median: int,
    min_deviation: float,
    min_relative_deviation: float,
    threshold: float,
    most: float,
    plain: FloatArray,
    score: FloatArray,
    code: IntArray,
) -> None:
    """Of each reading the highest score, at a tolerance of 1 and at the stream's own; which test gave it, and on which
    side of the forecast.

    Values near the largest double: their differences may be infinite, and count for as much as may be.
    """
    scores, above = np.empty(_TESTS), np.zeros(_TESTS, np.bool_)
    for row in range(len(values)):
        value = values[row]
        for channel in range(2):
            forecast = by_longest[row] if channel else by_next[row]
            middle = forecast[median]
            least = np.maximum(min_deviation, min_relative_deviation * abs(middle))
            allowed = abs(value - middle) >= least
            outside = value > forecast[-1] if beyond_above[row, channel] else value < forecast[0]
            scores[Cause.SURPRISE + channel] = surprise[row, channel] if allowed else 0.0
            scores[Cause.EXTREME + channel] = beyond[row, channel] if allowed and outside else 0.0
            scores[Cause.FLAT + channel] = threshold * silence[row, channel]
            above[Cause.SURPRISE + channel], above[Cause.EXTREME + channel] = value > middle, beyond_above[row, channel]
        test, highest = 0, 0.0
        for k in range(_TESTS):
            found = 0.0 if np.isnan(scores[k]) else min(scores[k], most)
            if found > highest:
                test, highest = k, found
        plain[row], score[row] = highest, highest / tolerance[row]
        code[row] = 2 * test + above[test]
