"""Between a stream's own units, in which it is answered, and those that experts speak in: scales from its last value.

What waits for its target is kept in own units, so that it means the same whatever becomes of the scale in between.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from forecaster.engine.report import LeadScores
from forecaster.series.columns import BoolArray, Float32Array, FloatArray, IntArray
from forecaster.series.compiled import compiled
from forecaster.state.pending import Due

_WORST_ERROR = 1e3
"""In scaled units. A stream that was constant so far has next to no scale; its first move must not swamp all sums."""
_POWERS = 10.0 ** np.arange(301)


class Outcome(NamedTuple):
    """Forecasts beside the value that came, in units of the stream's scale. ``B`` streams, ``A`` anchor leads."""

    settled: BoolArray
    """Anchors with a published forecast for this value, ``[B, A]``; all other numbers mean something there alone."""
    points: Float32Array
    """Relative to the value, ``[B, A, P]``; ``nan`` where an expert had no answer."""
    network: Float32Array
    """Quantiles of the network likewise, ``[B, A, Q]``."""
    error: Float32Array
    """|error| of the published median, at most 1,000, ``[B, A]``."""
    naive_error: Float32Array
    """The same of the first expert."""
    width: Float32Array
    """Of the outermost published interval, at most 1,000, ``[B, A]``."""
    covered: BoolArray
    """Whether the value is inside it, ``[B, A]``."""

    def add_to(self, scores: LeadScores, counted: BoolArray) -> None:
        """Count the rows that are ``counted``, ``[B]``."""
        _add(
            self.settled,
            counted,
            self.error,
            self.naive_error,
            self.covered,
            self.width,
            scores.settled,
            scores.abs_error,
            scores.naive_abs_error,
            scores.covered,
            scores.width,
        )


def outcome(due: Due, target: Float32Array, scale: FloatArray, median: int) -> Outcome:
    """What has become of forecasts that were due.

    Args:
        due: they, the last of their answers the published one.
        target: the values that came, relative to the anchor as the forecasts are, and in the precision in which these
            were kept: what equals a quantile is not beyond it. ``nan`` where the value is missing, ``[B]``.
        scale: of each stream, positive, ``[B]``.
        median: its place among the levels.
    """
    rows, anchors, points = due.points.shape
    levels = due.quantiles.shape[3]
    found = Outcome(
        settled=np.zeros((rows, anchors), np.bool_),
        points=np.empty((rows, anchors, points), np.float32),
        network=np.empty((rows, anchors, levels), np.float32),
        error=np.zeros((rows, anchors), np.float32),
        naive_error=np.zeros((rows, anchors), np.float32),
        width=np.zeros((rows, anchors), np.float32),
        covered=np.zeros((rows, anchors), np.bool_),
    )
    _compare(due.settled, due.points, due.quantiles, target, scale, median, *found)
    return found


class Kept(NamedTuple):
    """What was answered, in own units, ``nan`` where nothing was."""

    published: FloatArray
    """Rounded, ``[B, H, Q]``."""
    points: FloatArray
    """At the anchor leads, ``[B, A, P]``."""
    quantiles: FloatArray
    """The network's and the published ones at the anchor leads, ``[B, A, 2, Q]``."""


def in_own_units(
    relative: Float32Array,
    points: Float32Array,
    answered: BoolArray,
    made: Float32Array,
    usable: BoolArray,
    value: FloatArray,
    scale: FloatArray,
    seen: IntArray,
    anchors: IntArray,
) -> Kept:
    """From scales from the last value to what is published and what waits for its target.

    Args:
        relative: to be published, ``[B, H, Q]``.
        points: of the experts, ``[B, H, P]``.
        answered: whose they are to be taken, ``[B, P]``.
        made: quantiles of the network, ``[B, H, Q]``.
        usable: whose they are to be taken, ``[B]``.
        value, scale: of each stream, ``[B]``.
        seen: values of each stream so far, ``[B]``: before the first one nothing is told.
        anchors: places of the anchor leads among all, ``[A]``.
    """
    rows, _, levels = relative.shape
    kept = Kept(
        np.empty(relative.shape),
        np.empty((rows, len(anchors), points.shape[2])),
        np.empty((rows, len(anchors), 2, levels)),
    )
    _restore(relative, points, answered, made, usable, value, scale, seen, anchors, *kept)
    return kept


@compiled
def significant_decimals(scale: float) -> int:
    """Decimals that show a thousandth of a stream's scale: what a published number needs, and no dust.

    >>> significant_decimals(1.0), significant_decimals(0.02), significant_decimals(1e6)
    (3, 5, -3)
    """
    return int(min(max(3 - np.floor(np.log10(max(scale, 1e-300))), -300), 300))


@compiled
def rounded(number: float, decimals: int) -> float:
    """Without the digits behind these decimals; negative ones are places before the point.

    >>> rounded(12.3456, 2), rounded(1234.5, -2)
    (12.35, 1200.0)
    """
    shown: float
    if decimals >= 0:
        shown = np.rint(number * _POWERS[decimals]) / _POWERS[decimals]
    else:
        shown = np.rint(number / _POWERS[-decimals]) * _POWERS[-decimals]
    return shown


@compiled
def _compare(
    due: BoolArray,
    points: Float32Array,
    quantiles: Float32Array,
    target: Float32Array,
    scale: FloatArray,
    median: int,
    settled: BoolArray,
    points_away: Float32Array,
    network_away: Float32Array,
    error: Float32Array,
    naive_error: Float32Array,
    width: Float32Array,
    covered: BoolArray,
) -> None:
    """Fill the last seven, the fields of an `Outcome`."""
    rows, anchors, experts = points.shape
    levels = quantiles.shape[3]
    for row in range(rows):
        y = target[row]
        if np.isnan(y):
            continue
        for place in range(anchors):
            published = quantiles[row, place, -1]
            # A stream that had had no value yet was told nothing: its published quantiles are nan.
            if not due[row, place] or np.isnan(published[0]):
                continue
            settled[row, place] = True
            for k in range(experts):
                points_away[row, place, k] = (points[row, place, k] - y) / scale[row]
            for level in range(levels):
                network_away[row, place, level] = (quantiles[row, place, 0, level] - y) / scale[row]
            error[row, place] = min(abs(y - published[median]) / scale[row], _WORST_ERROR)
            naive_error[row, place] = min(abs(y - points[row, place, 0]) / scale[row], _WORST_ERROR)
            width[row, place] = min((published[levels - 1] - published[0]) / scale[row], _WORST_ERROR)
            covered[row, place] = published[0] <= y <= published[levels - 1]


@compiled
def _add(
    settled: BoolArray,
    counted: BoolArray,
    error: Float32Array,
    naive_error: Float32Array,
    covered: BoolArray,
    width: Float32Array,
    targets: FloatArray,
    errors: FloatArray,
    naive_errors: FloatArray,
    hits: FloatArray,
    widths: FloatArray,
) -> None:
    """Add rows to the last five, sums by anchor lead ``[A]``."""
    for row in range(len(counted)):
        for place in range(len(targets)):
            if counted[row] and settled[row, place]:
                targets[place] += 1
                errors[place] += error[row, place]
                naive_errors[place] += naive_error[row, place]
                hits[place] += covered[row, place]
                widths[place] += width[row, place]


@compiled
def _restore(
    relative: Float32Array,
    points: Float32Array,
    answered: BoolArray,
    made: Float32Array,
    usable: BoolArray,
    value: FloatArray,
    scale: FloatArray,
    seen: IntArray,
    anchors: IntArray,
    published: FloatArray,
    own_points: FloatArray,
    own_quantiles: FloatArray,
) -> None:
    """Fill the last three, the fields of a `Kept`."""
    rows, leads, levels = relative.shape
    for row in range(rows):
        decimals = significant_decimals(scale[row])
        for lead in range(leads):
            for level in range(levels):
                own = value[row] + scale[row] * relative[row, lead, level]
                published[row, lead, level] = rounded(own, decimals) if seen[row] else np.nan
        for place in range(len(anchors)):
            lead = anchors[place]
            for k in range(points.shape[2]):
                own_points[row, place, k] = (
                    value[row] + scale[row] * points[row, lead, k] if answered[row, k] else np.nan
                )
            for level in range(levels):
                own = value[row] + scale[row] * made[row, lead, level]
                own_quantiles[row, place, 0, level] = own if usable[row] else np.nan
                own_quantiles[row, place, 1, level] = published[row, lead, level]
