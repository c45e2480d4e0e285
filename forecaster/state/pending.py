"""Forecasts waiting for their targets: what each expert said, and what was published, until the value arrives.

Only anchor leads (1, 2, 4, … H) are kept. A forecast made at tick t for lead h waits in cell ``t mod h`` of that
lead's ring, so that exactly the one made h ticks ago is met when tick t + h comes; its tick stands beside it, so that
nothing is settled across a gap that was not counted. Of experts that answer with a point that point is kept, of the
others all quantiles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.compiled import compiled

_NEVER = -1_000_000  # so far back that no lead reaches it


def anchor_leads(horizon: int) -> tuple[int, ...]:
    """Leads at which forecasts are judged: powers of two, and the last.

    >>> anchor_leads(12), anchor_leads(1)
    ((1, 2, 4, 8, 12), (1,))
    """
    leads = []
    lead = 1
    while lead < horizon:
        leads.append(lead)
        lead *= 2
    return (*leads, horizon)


class Due(NamedTuple):
    """Forecasts whose target has come. ``A`` anchor leads; all numbers are relative to the stream's anchor."""

    settled: BoolArray
    """Which anchors have one, ``[B, A]``."""
    points: Float32Array
    """``[B, A, P]``; ``nan`` where an expert had no answer."""
    quantiles: Float32Array
    """``[B, A, answers, Q]``; ``nan`` likewise. The published forecast is the last one."""


class PendingForecasts:
    """Rings of forecasts per stream and anchor lead.

    Args:
        leads: anchor leads, ``A`` of them.
        points: names of the experts that answer with a point, ``P``.
        answers: forecasts kept with all their quantiles.
        levels: quantile levels Q.
    """

    def __init__(self, *, leads: tuple[int, ...], points: tuple[str, ...], answers: int, levels: int) -> None:
        self.leads = np.array(leads, np.int64)
        self._start = np.concatenate([[0], np.cumsum(self.leads)[:-1]])
        cells = int(self.leads.sum())
        self.columns = (
            Column("pending_made", "i4", (cells,), _NEVER),  # tick
            # own units, relative to the stream's anchor
            Column("pending_points", "f4", (cells, len(points)), np.nan, points, apart=True),
            Column("pending_quantiles", "f4", (cells, answers, levels), apart=True),
        )

    def add(self, c: Columns, slots: IntArray, tick: IntArray, points: FloatArray, quantiles: FloatArray) -> None:
        """Keep the forecasts made at ``tick`` [B]: ``[B, A, P]`` and ``[B, A, answers, Q]``, in own units."""
        _add(slots, tick, points, quantiles, self.leads, self._start, c["anchor"], *self._of(c))

    def due(self, c: Columns, slots: IntArray, tick: IntArray) -> Due:
        """The forecasts whose target is ``tick`` [B]."""
        rows, anchors = len(slots), len(self.leads)
        found = Due(
            np.zeros((rows, anchors), np.bool_),
            np.empty((rows, anchors, *c["pending_points"].shape[2:]), np.float32),
            np.empty((rows, anchors, *c["pending_quantiles"].shape[2:]), np.float32),
        )
        _due(slots, tick, self.leads, self._start, *self._of(c), *found)
        return found

    def expected(self, c: Columns, slots: IntArray, gap: IntArray) -> tuple[FloatArray, FloatArray]:
        """What was published for the readings now coming, in own units; ``nan`` where nothing was.

        Args:
            gap: steps without a reading before each, already counted by its stream, ``[B]``.

        Returns:
            by the reading before, at the anchor lead nearest to the steps passed, ``[B, Q]``; and at the longest lead,
            ``[B, Q]``.
        """
        levels = c["pending_quantiles"].shape[3]
        by_next, by_longest = np.full((len(slots), levels), np.nan), np.full((len(slots), levels), np.nan)
        _expect(slots, gap, self.leads, self._start, c["tick"], c["anchor"], *self._of(c), by_next, by_longest)
        return by_next, by_longest

    def follow_anchor(self, c: Columns, slots: IntArray, before: FloatArray) -> None:
        """Keep what waits relative to the streams' anchors when these are no longer ``before`` [B]."""
        _shift(slots, before, c["anchor"], c["pending_points"], c["pending_quantiles"])

    @staticmethod
    def _of(c: Columns) -> tuple[npt.NDArray[np.int32], Float32Array, Float32Array]:
        return c["pending_made"], c["pending_points"], c["pending_quantiles"]

    def made_at(self, c: Columns, slot: int, tick: int) -> tuple[Float32Array, Float32Array]:
        """The points ``[A, P]`` and quantiles ``[A, answers, Q]`` of one stream made at ``tick``, its last."""
        cells = self._start + tick % self.leads
        return c["pending_points"][slot, cells], c["pending_quantiles"][slot, cells]

    def waiting(self, c: Columns, slot: int) -> IntArray:
        """How many forecasts of one stream wait for their targets, by anchor lead, ``[A]``."""
        made = c["pending_made"][slot].astype(np.int64)
        due = made + np.repeat(self.leads, self.leads)
        return np.add.reduceat((made >= 0) & (due >= c["tick"][slot]), self._start, dtype=np.int64)


@compiled
def _add(
    slots: IntArray,
    tick: IntArray,
    points: FloatArray,
    quantiles: FloatArray,
    leads: IntArray,
    start: IntArray,
    anchor: FloatArray,
    pending_made: npt.NDArray[np.int32],
    pending_points: Float32Array,
    pending_quantiles: Float32Array,
) -> None:
    _, answers, levels = pending_quantiles.shape[1:]
    for row in range(len(slots)):
        slot = slots[row]
        for place in range(len(leads)):
            cell = start[place] + tick[row] % leads[place]
            pending_made[slot, cell] = tick[row]
            for k in range(points.shape[2]):
                pending_points[slot, cell, k] = points[row, place, k] - anchor[slot]
            for answer in range(answers):
                for level in range(levels):
                    own = quantiles[row, place, answer, level]
                    pending_quantiles[slot, cell, answer, level] = own - anchor[slot]


@compiled
def _due(
    slots: IntArray,
    tick: IntArray,
    leads: IntArray,
    start: IntArray,
    pending_made: npt.NDArray[np.int32],
    pending_points: Float32Array,
    pending_quantiles: Float32Array,
    settled: BoolArray,
    points: Float32Array,
    quantiles: Float32Array,
) -> None:
    for row in range(len(slots)):
        slot = slots[row]
        for place in range(len(leads)):
            cell = start[place] + tick[row] % leads[place]
            settled[row, place] = pending_made[slot, cell] == tick[row] - leads[place]
            for k in range(points.shape[2]):  # numba is slow at copying slices as small as these
                points[row, place, k] = pending_points[slot, cell, k]
            for answer in range(quantiles.shape[2]):
                for level in range(quantiles.shape[3]):
                    quantiles[row, place, answer, level] = pending_quantiles[slot, cell, answer, level]


@compiled
def _expect(
    slots: IntArray,
    gap: IntArray,
    leads: IntArray,
    start: IntArray,
    ticks: IntArray,
    anchor: FloatArray,
    pending_made: npt.NDArray[np.int32],
    pending_points: Float32Array,
    pending_quantiles: Float32Array,
    by_next: FloatArray,
    by_longest: FloatArray,
) -> None:
    longest = len(leads) - 1
    for row in range(len(slots)):
        slot, tick = slots[row], ticks[slots[row]]
        place = 0
        while place < longest and leads[place] < gap[row] + 1:
            place += 1
        made = tick - 1 - gap[row]
        cell = start[place] + made % leads[place]
        if pending_made[slot, cell] == made:
            for level in range(by_next.shape[1]):
                by_next[row, level] = pending_quantiles[slot, cell, -1, level] + anchor[slot]
        made = tick - leads[longest]
        cell = start[longest] + made % leads[longest]
        if pending_made[slot, cell] == made:
            for level in range(by_longest.shape[1]):
                by_longest[row, level] = pending_quantiles[slot, cell, -1, level] + anchor[slot]


@compiled
def _shift(
    slots: IntArray,
    before: FloatArray,
    anchor: FloatArray,
    pending_points: Float32Array,
    pending_quantiles: Float32Array,
) -> None:
    for row in range(len(slots)):
        slot = slots[row]
        by = before[row] - anchor[slot]
        if by != 0:
            pending_points[slot] += by
            pending_quantiles[slot] += by
