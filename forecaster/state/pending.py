"""Forecasts waiting for their targets: what each expert said, and what was published, until the value arrives.

Only anchor leads (1, 2, 4, … H) are kept. A forecast made at tick t for lead h waits in cell ``t mod h`` of that
lead's ring, so that exactly the one made h ticks ago is met when tick t + h comes; its tick stands beside it, so that
nothing is settled across a gap that was not counted. Of experts that answer with a point that point is kept, of the
others all quantiles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray, gathered

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
        points: experts that answer with a point, ``P``.
        answers: forecasts kept with all their quantiles.
        levels: quantile levels Q.
    """

    def __init__(self, *, leads: tuple[int, ...], points: int, answers: int, levels: int) -> None:
        self.leads = np.array(leads, np.int64)
        self._start = np.concatenate([[0], np.cumsum(self.leads)[:-1]])
        self._cells = cells = int(self.leads.sum())
        self.columns = (
            Column("pending_made", "i4", (cells,), _NEVER),  # tick
            # own units, relative to the stream's anchor
            Column("pending_points", "f4", (cells, points)),
            Column("pending_quantiles", "f4", (cells, answers, levels)),
        )

    def add(self, c: Columns, slots: IntArray, tick: IntArray, points: FloatArray, quantiles: FloatArray) -> None:
        """Keep the forecasts made at ``tick`` [B]: ``[B, A, P]`` and ``[B, A, answers, Q]``, in own units."""
        rows, cells, anchor = slots[:, None], self._start + tick[:, None] % self.leads, c["anchor"][slots]
        c["pending_made"][rows, cells] = tick[:, None]
        # A layout of whole rows first: they are written one by one.
        c["pending_points"][rows, cells] = (points - anchor[:, None, None]).astype(np.float32, order="C")
        c["pending_quantiles"][rows, cells] = (quantiles - anchor[:, None, None, None]).astype(np.float32, order="C")

    def due(self, c: Columns, slots: IntArray, tick: IntArray) -> Due:
        """The forecasts whose target is ``tick`` [B]."""
        cells = self._start + tick[:, None] % self.leads
        cells += (slots * self._cells)[:, None]  # one index for all streams' cells: cheaper than two
        points, quantiles = c["pending_points"], c["pending_quantiles"]
        return Due(
            np.asfortranarray(c["pending_made"].take(cells) == tick[:, None] - self.leads),
            gathered(points.reshape(-1, *points.shape[2:]), cells),
            gathered(quantiles.reshape(-1, *quantiles.shape[2:]), cells),
        )

    def expected(self, c: Columns, slots: IntArray, gap: IntArray) -> tuple[Float32Array, Float32Array]:
        """What was published for the readings now coming, relative to the anchor; ``nan`` where nothing was.

        Args:
            gap: steps without a reading before each, already counted by its stream, ``[B]``.

        Returns:
            by the reading before, at the anchor lead nearest to the steps passed, ``[B, Q]``; and at the longest lead,
            ``[B, Q]``.
        """
        tick, rows = c["tick"][slots], slots * self._cells
        made, cell = tick - 1, rows  # of lead 1 there is one cell
        if gap.any():
            lead = np.minimum(np.searchsorted(self.leads, gap + 1), len(self.leads) - 1)
            made = made - gap
            cell = rows + self._start[lead] + made % self.leads[lead]
        longest = tick - self.leads[-1]
        return (
            self._published(c, cell, made),
            self._published(c, rows + self._start[-1] + longest % self.leads[-1], longest),
        )

    def _published(self, c: Columns, cells: IntArray, made: IntArray) -> Float32Array:
        """What was published at ticks ``made`` [B] and waits in these cells of all streams' [B], ``[B, Q]``."""
        quantiles = c["pending_quantiles"]
        _, _, answers, levels = quantiles.shape
        published: Float32Array = gathered(quantiles.reshape(-1, levels), cells * answers + answers - 1)
        other = c["pending_made"].take(cells) != made
        if np.count_nonzero(other):
            published[other] = np.nan
        return published

    def follow_anchor(self, c: Columns, slots: IntArray, before: FloatArray) -> None:
        """Keep what waits relative to the streams' anchors when these are no longer ``before`` [B]."""
        shift = before - c["anchor"][slots]
        moved = shift != 0
        if moved.any():
            rows, by = slots[moved], shift[moved]
            c["pending_points"][rows] = c["pending_points"][rows] + by[:, None, None]
            c["pending_quantiles"][rows] = c["pending_quantiles"][rows] + by[:, None, None, None]

    def made_at(self, c: Columns, slot: int, tick: int) -> tuple[Float32Array, Float32Array]:
        """The points ``[A, P]`` and quantiles ``[A, answers, Q]`` of one stream made at ``tick``, its last."""
        cells = self._start + tick % self.leads
        return c["pending_points"][slot, cells], c["pending_quantiles"][slot, cells]

    def waiting(self, c: Columns, slot: int) -> IntArray:
        """How many forecasts of one stream wait for their targets, by anchor lead, ``[A]``."""
        made = c["pending_made"][slot].astype(np.int64)
        due = made + np.repeat(self.leads, self.leads)
        return np.add.reduceat((made >= 0) & (due >= c["tick"][slot]), self._start, dtype=np.int64)
