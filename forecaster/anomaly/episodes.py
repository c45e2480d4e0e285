"""From scores to anomalies: when one begins, when it is over, and when it is only the last one again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, FloatArray, IntArray


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
        rules = self._rules
        was_open = c["anomaly"][slots] >= 0
        age = c["score_peak_age"][slots] + 1
        peak = np.where(age > rules.repeat_after, 0.0, c["score_peak"][slots])
        # In the precision in which it is kept: else it would be higher than itself.
        score = score.astype(np.float32).astype(np.float64)
        higher = (score > peak) | (is_news & (score > 0))
        over = np.where(score >= rules.threshold, c["anomaly_over"][slots] + 1, 0)
        is_fresh = (over > 0) & (higher | ((over > 1) & (c["anomaly_is_fresh"][slots] > 0)))
        quiet = np.where(score < rules.clear_below * rules.threshold, c["anomaly_quiet"][slots] + 1, 0)
        raised = ~was_open & is_fresh & (over >= rules.min_readings)
        counted = counted | raised
        cleared = was_open & counted & (quiet >= rules.clear_after)

        top = np.where(was_open, np.maximum(c["anomaly_top"][slots], score), score)
        since = np.where(raised, times, c["anomaly_since"][slots])
        of = np.where(raised, code, c["anomaly"][slots])
        all_counted = counted.all()
        for name, value in (
            ("anomaly", np.where(cleared, -1, of)),
            ("anomaly_since", since),
            ("anomaly_top", top),
            ("anomaly_over", over),
            ("anomaly_is_fresh", is_fresh),
            ("anomaly_quiet", np.where(raised, 0, quiet)),
            ("score_peak", np.where(higher, np.maximum(score, peak), peak)),
            ("score_peak_age", np.where(higher, 0, np.minimum(age, rules.repeat_after + 1))),
        ):
            if not all_counted:
                old = c[name][slots]
                value = np.where(counted, value.astype(old.dtype), old)
            c[name][slots] = value
        return Turn(
            raised=raised,
            cleared=cleared,
            fresh=np.where(higher & ~was_open & counted, score, 0.0),
            score=np.where(cleared, top, score),
            since=since,
            code=of.astype(np.int64),
        )
