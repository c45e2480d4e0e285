"""From scores to anomalies: when one begins, when it is over, and when it is only the last one again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.compiled import compiled


class EpisodeRules(NamedTuple):
    """When an anomaly is raised and cleared."""

    threshold: float = 1.0
    """Score from which it is raised; tests are scaled so that 1 is theirs."""
    clear_below: float = 0.5
    """Score, as a share of the threshold, below which a reading is quiet."""
    clear_after: int = 12
    """Quiet readings in a row after which it is over."""
    repeat_after: int = 250
    """Readings for which only a higher score than the last one raises again."""
    min_readings: int = 1
    """Readings in a row that have to reach the threshold."""


class Turn(NamedTuple):
    """What a reading changed, ``[B]`` each."""

    raised: BoolArray
    cleared: BoolArray
    fresh: FloatArray
    """The score where it would raise an anomaly, could it reach the threshold; else 0."""
    score: FloatArray
    """Of a raised anomaly the score now, of a cleared one the highest it had."""
    since: FloatArray
    """Event time at which the anomaly was raised."""
    code: IntArray
    """What the caller gave with the reading that raised it."""


class Episodes:
    """The anomaly that each stream is in, if any."""

    columns = (
        Column("anomaly", "i1", fill=-1),  # code of the open anomaly; -1 none is open
        Column("anomaly_since", "f8"),
        Column("anomaly_top", "f4"),  # highest score of the open anomaly
        Column("anomaly_over", "i4"),  # readings in a row at the threshold
        Column("anomaly_is_fresh", "i1"),  # one of them was higher than what came before
        Column("anomaly_quiet", "i4"),  # quiet readings in a row
        Column("score_peak", "f4"),  # last score that was higher than all of the recent past
        Column("score_peak_age", "i4"),  # readings since
    )

    def __init__(self, rules: EpisodeRules) -> None:
        self._rules = rules

    def update(
        self,
        c: Columns,
        slots: IntArray,
        times: FloatArray,
        score: FloatArray,
        code: IntArray,
        *,
        counted: BoolArray,
        is_news: BoolArray,
    ) -> Turn:
        """Take scores in, ``[B]`` where ``counted``: a reading without a value may raise, and leaves the rest alone.

        ``code``, from 0 on, is kept with an anomaly that is raised. What ``is_news`` is raised whatever came before.
        """
        rows = len(slots)
        turn = Turn(
            raised=np.zeros(rows, np.bool_),
            cleared=np.zeros(rows, np.bool_),
            fresh=np.zeros(rows),
            score=np.zeros(rows),
            since=np.zeros(rows),
            code=np.zeros(rows, np.int64),
        )
        _follow(
            slots,
            times,
            score,
            code,
            counted,
            is_news,
            *self._rules,
            turn.raised,
            turn.cleared,
            turn.fresh,
            turn.score,
            turn.since,
            turn.code,
            *(c[column.name] for column in self.columns),
        )
        return turn


@compiled
def _follow(
    slots: IntArray,
    times: FloatArray,
    scores: FloatArray,
    codes: IntArray,
    counted: BoolArray,
    is_news: BoolArray,
    threshold: float,
    clear_below: float,
    clear_after: int,
    repeat_after: int,
    min_readings: int,
    raised: BoolArray,
    cleared: BoolArray,
    fresh: FloatArray,
    told: FloatArray,
    since: FloatArray,
    of: IntArray,
    anomaly: npt.NDArray[np.int8],
    anomaly_since: FloatArray,
    anomaly_top: Float32Array,
    anomaly_over: npt.NDArray[np.int32],
    anomaly_is_fresh: npt.NDArray[np.int8],
    anomaly_quiet: npt.NDArray[np.int32],
    score_peak: Float32Array,
    score_peak_age: npt.NDArray[np.int32],
) -> None:
    """Fill the fields of a `Turn`, ``raised`` to ``of``."""
    for row in range(len(slots)):
        slot = slots[row]
        was_open = anomaly[slot] >= 0
        age = score_peak_age[slot] + 1
        peak = 0.0 if age > repeat_after else np.float64(score_peak[slot])
        # In the precision in which it is kept: else it would be higher than itself.
        score = np.float64(np.float32(scores[row]))
        higher = score > peak or (is_news[row] and score > 0)
        over = anomaly_over[slot] + 1 if score >= threshold else 0
        is_fresh = over > 0 and (higher or (over > 1 and anomaly_is_fresh[slot] > 0))
        quiet = anomaly_quiet[slot] + 1 if score < clear_below * threshold else 0
        raised[row] = not was_open and is_fresh and over >= min_readings
        counts = counted[row] or raised[row]
        cleared[row] = was_open and counts and quiet >= clear_after

        top = max(np.float64(anomaly_top[slot]), score) if was_open else score
        since[row] = times[row] if raised[row] else anomaly_since[slot]
        of[row] = codes[row] if raised[row] else anomaly[slot]
        told[row] = top if cleared[row] else score
        if higher and not was_open and counts:
            fresh[row] = score
        if counts:
            anomaly[slot] = -1 if cleared[row] else of[row]
            anomaly_since[slot], anomaly_top[slot] = since[row], top
            anomaly_over[slot], anomaly_is_fresh[slot] = over, 1 if is_fresh else 0
            anomaly_quiet[slot] = 0 if raised[row] else quiet
            score_peak[slot] = max(score, peak) if higher else peak
            score_peak_age[slot] = 0 if higher else min(age, repeat_after + 1)
