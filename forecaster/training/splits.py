"""Where training ends, early stopping looks, folds are scored, champion and challenger compared: rows by event time."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from forecaster.series.columns import BoolArray, IntArray
from forecaster.training.encoding import EncodedHistory
from forecaster.training.evaluate import Stretch


class Split(NamedTuple):
    """Three stretches of an encoded history, older to newer, with H rows between them that nothing is scored on."""

    train: BoolArray
    """Rows that may be drawn from, ``[M]``."""
    stopping: Stretch
    """Origins for early stopping; their targets end before the judged stretch begins."""
    judged: Stretch
    """Newest origins, for champion against challenger."""
    stopping_end: IntArray
    """Per stream, the row before which every target of early stopping lies, ``[N]``."""
    seen_until: float
    """Newest event time that training or early stopping has seen."""


def cut_rows(data: EncodedHistory, share: float) -> IntArray:
    """First row of the newest ``share`` of the readings, per stream, ``[N]``.

    Streams that run side by side are cut at one moment, so that none tells the future of another. Where most
    streams do not even reach across that moment, as in a collection of unrelated files, each is cut by itself.
    """
    starts, streams = data.starts, len(data.starts) - 1
    moment = float(np.quantile(data.times, 1.0 - share))
    common = np.array(
        [starts[k] + np.searchsorted(data.times[starts[k] : starts[k + 1]], moment) for k in range(streams)]
    )
    across = (common > starts[:-1]) & (common < starts[1:])
    if 2 * across.sum() >= streams:
        return common.astype(np.int64)
    return (starts[1:] - np.round(share * np.diff(starts))).astype(np.int64)


def split(data: EncodedHistory, *, horizon: int, judged_share: float = 0.15, stopping_share: float = 0.15) -> Split:
    """Cut a history in three.

    Args:
        data: encoded history.
        horizon: H; as many rows are left out before early stopping and before judging, so that no target of the
            older part lies in the newer one.
        judged_share: newest part of all rows.
        stopping_share: part of what is left, again the newest.
    """
    ends = data.starts[1:]
    judged_first = cut_rows(data, judged_share)
    stopping_first = np.minimum(cut_rows(data, judged_share + stopping_share * (1.0 - judged_share)), judged_first)

    row = np.arange(len(data.values))
    stream = np.searchsorted(data.starts, row, side="right") - 1
    train = row < stopping_first[stream]
    gap_after_train = np.minimum(stopping_first + horizon, judged_first)
    gap_after_stopping = np.maximum(judged_first - horizon, gap_after_train)
    seen = row < judged_first[stream]
    return Split(
        train=train,
        stopping=Stretch(gap_after_train, gap_after_stopping),
        judged=Stretch(np.minimum(judged_first, ends), ends),
        stopping_end=judged_first,
        seen_until=float(data.times[seen].max()) if seen.any() else -np.inf,
    )


def unseen_since(data: EncodedHistory, stretch: Stretch, time: float) -> Stretch:
    """The part of a stretch whose origins lie after ``time``."""
    first = [
        start + int(np.searchsorted(data.times[start:end], time, side="right"))
        for start, end in zip(data.starts[:-1], data.starts[1:], strict=True)
    ]
    return Stretch(np.minimum(np.maximum(stretch.first, first), stretch.last), stretch.last)


def before(data: EncodedHistory, last_row: IntArray) -> EncodedHistory:
    """The same history in which no target at or after these rows can be reached, ``last_row`` ``[N]``."""
    limit = np.repeat(last_row, np.diff(data.starts))
    return data._replace(segment_end=np.minimum(data.segment_end, limit))


class Fold(NamedTuple):
    """One step of a rolling origin: learn from the rows, then score the stretch that follows after a gap."""

    train: BoolArray
    """``[M]``"""
    scored: Stretch
    ends: IntArray
    """Per stream, the row before which every target of the scored stretch lies, ``[N]``."""


def rolling_origin(data: EncodedHistory, *, folds: int, horizon: int, scored_share: float = 0.5) -> list[Fold]:
    """Folds in order of time: each learns from all rows before its origin and is scored on those after it.

    Args:
        data: encoded history.
        folds: K; the origins part the newest ``scored_share`` of the history evenly.
        horizon: H rows are left out between training and scoring, so that no target of the one lies in the other.
        scored_share: part of the rows that is scored in one fold or another.

    Source: Tashman (2000), "Out-of-sample tests of forecasting accuracy: an analysis and review".
    """
    row = np.arange(len(data.values))
    stream = np.searchsorted(data.starts, row, side="right") - 1
    cuts = [cut_rows(data, scored_share * (folds - k) / folds) for k in range(folds)] + [data.starts[1:]]
    made = []
    for origin, end in pairwise(cuts):
        end = np.maximum(end, origin)
        first = np.minimum(origin + horizon, end)
        made.append(Fold(row < origin[stream], Stretch(first, np.maximum(end - horizon, first)), end))
    return made
