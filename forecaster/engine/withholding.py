"""Which forecasts are published: all, or those a declared policy lets through; the others are withheld.

Every reading is learnt from and every forecast is made, judged and looked at for anomalies; only the record is left
out. The decision depends on the stream's readings and on the columns here alone, so that a replay withholds the same
ones. A record that is published says how many were withheld since the one before, which is how an audit tells a
withheld answer from a lost one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, FloatArray, IntArray

When = Literal["every_nth", "interval", "change"]

_BOUNDS = 3  # of a forecast that are compared: lowest level, median, highest level


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishingRules:
    """What is published of a stream. Its first forecast always is; after that one is when:

    - ``every_nth``: it is the ``nth`` reading since the last one published;
    - ``interval``: ``interval_seconds`` of event time have passed since then;
    - ``change``: the status is another one; or the median or an outermost quantile differs, at any time that both
      forecasts speak of, from what was published for that time by more than ``tolerance`` times the width of the
      outermost interval published for it; or `longest_hold` steps have passed, so that half of the horizon still lies
      ahead of what consumers have.
    """

    when: When
    nth: int = 10
    interval_seconds: float = 60.0
    tolerance: float = 0.25
    horizon: int

    @property
    def longest_hold(self) -> int:
        """Steps after which a forecast is published though nothing has changed."""
        return max(self.horizon // 2, 1)

    def allows(self, readings: int, published_at: float, time: float) -> bool:
        """Whether the reading at ``time``, so many after the one published, may go without a record.

        Exact, but for ``change``: there it says no only once the longest hold is over.
        """
        if self.when == "interval":
            return time < published_at + self.interval_seconds
        return readings < (self.nth if self.when == "every_nth" else self.longest_hold)


class Withholding:
    """Decides row by row, and remembers what each stream's consumers know.

    Args:
        rules: the policy.
        median: place of the level 0.5 among the quantile levels.
    """

    def __init__(self, rules: PublishingRules, *, median: int) -> None:
        self.rules = rules
        self._median = median
        # Names begin with "told_": pages that hold such columns are read by programs without them.
        columns = [Column("told_reading", "i8")]  # which reading was published last, from 1; 0 before the first
        if rules.when != "every_nth":
            columns.append(Column("told_time", "f8", fill=-np.inf))  # its event time
        if rules.when == "change":
            columns += [
                Column("told_status", "i1", fill=-1),
                Column("told_center", "f8"),  # its median at the first lead
                Column("told_forecast", "f4", (rules.horizon, _BOUNDS), np.nan),  # relative to that
            ]
        self.columns = tuple(columns)

    def decide(
        self, c: Columns, slots: IntArray, times: FloatArray, quantiles: FloatArray, statuses: IntArray
    ) -> IntArray:
        """Take in the forecasts of a wave, each stream at most once.

        Args:
            slots: rows of the streams, ``[B]``, whose clocks stand at these readings.
            times: origins, ``[B]``.
            quantiles: in own units, ``[B, H, Q]``.
            statuses: codes, ``[B]``.

        Returns:
            how many were withheld since the one published before, for those that are to be published; -1 for those
            that are not, ``[B]``.
        """
        reading, told = c["readings"][slots], c["told_reading"][slots]
        # Under a policy that has only now come into force, the reading before was published like any other.
        before = np.where(told == 0, reading - 1, told)
        publishes = told == 0
        if self.rules.when == "every_nth":
            publishes |= reading - told >= self.rules.nth
        elif self.rules.when == "interval":
            publishes |= times >= c["told_time"][slots] + self.rules.interval_seconds
        else:
            bounds = quantiles[:, :, [0, self._median, -1]]  # [B, H, 3]
            publishes |= self._is_news(c, slots, times, bounds, statuses)
            rows, chosen = slots[publishes], bounds[publishes]
            center = chosen[:, 0, 1]
            c["told_center"][rows] = center
            c["told_forecast"][rows] = chosen - center[:, None, None]
            c["told_status"][rows] = statuses[publishes]
        rows = slots[publishes]
        c["told_reading"][rows] = reading[publishes]
        if self.rules.when != "every_nth":
            c["told_time"][rows] = times[publishes]
        return np.where(publishes, reading - before - 1, -1).astype(np.int64)

    def _is_news(
        self, c: Columns, slots: IntArray, times: FloatArray, bounds: FloatArray, statuses: IntArray
    ) -> BoolArray:
        """Whose forecast says what the one published does not, ``[B]``."""
        horizon, step = self.rules.horizon, c["step"][slots]
        passed = np.full(len(slots), float(horizon))
        np.divide(times - c["told_time"][slots], step, out=passed, where=step > 0)
        steps = np.rint(np.clip(passed, 1, horizon)).astype(np.int64)
        steps = np.maximum(steps, c["readings"][slots] - c["told_reading"][slots])

        then = steps[:, None] + np.arange(horizon)  # where the old forecast speaks of each new lead, [B, H]
        speaks = then < horizon
        told = c["told_forecast"][slots] + c["told_center"][slots][:, None, None]  # [B, H, 3]
        told = np.take_along_axis(told, np.minimum(then, horizon - 1)[:, :, None], axis=1)
        allowed = self.rules.tolerance * (told[:, :, 2] - told[:, :, 0])
        agrees = (np.abs(bounds - told) <= allowed[:, :, None]).all(axis=2)  # [B, H]; nan agrees with nothing
        is_news: BoolArray = np.logical_not(agrees | ~speaks).any(axis=1)
        is_news |= steps >= self.rules.longest_hold
        is_news |= statuses != c["told_status"][slots]
        return is_news
