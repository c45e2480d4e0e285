"""State of formats 1 and 2, and of another number of seasons, as the present columns hold it.

Those programs kept all quantiles of every pending forecast and knew three experts: naive, seasonal and recurrent. What
they learnt of these is taken over; the experts that came since begin without a record, and spreads with their first.
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
_BEHIND = {"regret": 2, "inverse_rate": 2, "regret_bound": 2, "pending_points": 1, "spread": 1}
"""Columns with an expert in each place of their last axis, and how many stand behind those of further seasons: linear
forecast and network, or the linear forecast alone."""
_BEFORE = 3  # naive, seasonal, level


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
            column = column._replace(shape=(*column.shape[:-1], len(_KNOWN)))
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


def differs_in_seasons(column: Column, shape: tuple[int, ...]) -> bool:
    """Whether rows of this shape are those of the column under another number of seasons.

    >>> of_six = Column("regret", "f4", (5, 6))
    >>> differs_in_seasons(of_six, (5, 5)), differs_in_seasons(of_six, (4, 6))
    (True, False)
    """
    least = _BEFORE + _BEHIND.get(column.name, np.inf)
    return (
        len(shape) == 2 == len(column.shape) and shape[0] == column.shape[0] and least <= min(shape[1], column.shape[1])
    )


def with_seasons(rows: Mapping[str, npt.NDArray[Any]], columns: Iterable[Column]) -> dict[str, npt.NDArray[Any]]:
    """Rows written under another number of seasons as rows of ``columns``.

    What the experts that both know had learnt is kept; a further season that came since begins without a record, and
    has said nothing of what is pending.
    """
    ours = {column.name: column for column in columns}
    found = dict(rows)
    for name, behind in _BEHIND.items():
        if name not in rows or rows[name].shape[1:] == ours[name].shape:
            continue
        places = min(rows[name].shape[-1], ours[name].shape[-1]) - behind
        found[name] = np.full(
            (len(rows[name]), *ours[name].shape), np.nan if name == "pending_points" else 0.0, rows[name].dtype
        )
        for kept in (slice(places), slice(-behind, None)):
            found[name][..., kept] = rows[name][..., kept]
    return found
