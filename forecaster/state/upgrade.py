"""State of earlier formats, and of other experts, as the present columns hold it.

Programs of formats 1 and 2 kept all quantiles of every pending forecast and knew three experts: naive, seasonal and
recurrent. What they learnt of these is taken over; the experts that came since begin without a record, and spreads with
their first. Those of format 3 knew the experts below and did not name them in their pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from forecaster.series.columns import Column

_RECORDS = ("regret", "inverse_rate", "regret_bound")
_POINTS = (0, 1)  # naive and seasonal stood first then, and do now
_KNOWN = (*_POINTS, -1)  # and the network last
_ADDED = ("pending_points", "spread")
_FORMAT_3 = ("naive", "seasonal", "level")
"""Experts that came first, whatever the settings; behind them those of further seasons, the linear forecast, and of
columns that know of it the network."""


def former_columns(columns: Iterable[Column]) -> list[Column]:
    """What a program of format 1 or 2 kept under the settings that shape these columns.

    >>> [(column.name, column.shape) for column in former_columns([Column("regret", "f4", (5, 7))])]
    [('regret', (5, 3))]
    """
    former = []
    for column in columns:
        if column.name == "pending_made":
            column = column._replace(name="pending_tick", dtype="i8")
        elif column.name == "pending_quantiles":
            cells, _, levels = column.shape
            column = column._replace(name="pending", shape=(cells, len(_KNOWN) + 1, levels))
        elif column.name in _RECORDS:
            column = column._replace(shape=(*column.shape[:-1], len(_KNOWN)), labels=())
        elif column.name in _ADDED:
            continue
        former.append(column)
    return former


def upgraded(rows: Mapping[str, npt.NDArray[Any]], columns: Iterable[Column]) -> dict[str, npt.NDArray[Any]]:
    """Rows of `former_columns` as rows of ``columns``; columns that the page did not have stay absent."""
    ours = {column.name: column for column in columns}
    found = {name: array for name, array in rows.items() if name in ours and name not in _RECORDS}
    for name in _RECORDS:
        if name in rows:
            found[name] = np.zeros((len(rows[name]), *ours[name].shape), np.float32)
            found[name][:, :, _KNOWN] = rows[name]
    if "pending" in rows:
        waiting = rows["pending"]
        points = ours["pending_points"]
        found["pending_points"] = np.full((len(waiting), *points.shape), np.nan, points.dtype)
        found["pending_points"][:, :, _POINTS] = waiting[:, :, _POINTS, waiting.shape[-1] // 2]
        found["pending_quantiles"] = waiting[:, :, len(_POINTS) :].copy()
        found["pending_made"] = rows["pending_tick"].astype(ours["pending_made"].dtype)
    return found


def format_3_labels(column: Column, width: int) -> tuple[str, ...]:
    """Whose the places of a column with labels are in a page of format 3, by how many there are.

    >>> format_3_labels(Column("spread", "f4", (5, 5), labels=("naive", "profile", "linear")), 5)
    ('naive', 'seasonal', 'level', 'seasonal_2', 'linear')
    """
    if not column.labels:
        return ()
    last = ("linear", "recurrent") if column.name in _RECORDS else ("linear",)
    further = width - len(_FORMAT_3) - len(last)
    return (*_FORMAT_3, *(f"seasonal_{place + 2}" for place in range(further)), *last)


def placed_by_label(
    rows: Mapping[str, npt.NDArray[Any]], written: Iterable[Column], columns: Iterable[Column]
) -> dict[str, npt.NDArray[Any]]:
    """Rows as ``written`` columns have them as rows of ``columns``: what both have a label for is kept; whoever came
    since begins as a new stream has it, and of whoever is gone nothing is left."""
    ours = {column.name: column for column in columns}
    found = dict(rows)
    for column in written:
        labels = ours[column.name].labels if column.name in ours else column.labels
        if labels == column.labels:
            continue
        theirs, mine = rows[column.name], ours[column.name]
        placed = np.full((len(theirs), *mine.shape), mine.fill, theirs.dtype)
        for place, label in enumerate(labels):
            if label in column.labels:
                placed[..., place] = theirs[..., column.labels.index(label)]
        found[column.name] = placed
    return found
