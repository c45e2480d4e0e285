"""Rows of tables as readings: merged by event time, written as bytes, or gathered into series."""

from __future__ import annotations

import heapq
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from forecaster.codecs.timestamps import format_time
from forecaster.transports.tables import COMMON_FORMS, Row, Table, TableLayout


class RowEncoder:
    """Writes rows as the key and the JSON bytes of a reading."""

    def __init__(self, layout: TableLayout = COMMON_FORMS) -> None:
        self._id_field = json.dumps(layout.id_field)
        self._time_field = json.dumps(layout.time_field)
        self._value_field = json.dumps(layout.value_field)
        self._covariates = [json.dumps(name) for name in layout.covariates]
        self._known_ahead = [json.dumps(name) for name in layout.known_ahead]
        self._beginnings: dict[str, tuple[bytes, str]] = {}

    def encode(self, row: Row) -> tuple[bytes, bytes]:
        """Key and value. A time or value that could not be read is written as the text it was, for the codec to refuse.

        >>> RowEncoder().encode(Row("a", 0.0, "", None))
        (b'a', b'{"stream_id":"a","timestamp":"1970-01-01T00:00:00Z","value":null}')
        """
        beginning = self._beginnings.get(row.stream_id)
        if beginning is None:
            text = f"{{{self._id_field}:{json.dumps(row.stream_id)},{self._time_field}:"
            beginning = self._beginnings[row.stream_id] = (row.stream_id.encode(), text)
        key, text = beginning
        if row.line:
            return key, row.line
        time = json.dumps(row.time_text) if math.isnan(row.time) else f'"{format_time(row.time)}"'
        beside = "".join(
            f",{name}:{_written(value)}" for name, value in zip(self._covariates, row.covariates, strict=False)
        )
        beside += "".join(
            f",{name}:[{','.join(map(_written, told))}]"
            for name, told in zip(self._known_ahead, row.future, strict=False)
        )
        return key, f"{text}{time},{self._value_field}:{_written(row.value)}{beside}}}".encode()


def _written(value: float | str | None) -> str:
    return repr(float(value)) if isinstance(value, float) else json.dumps(value)


def merge_rows(tables: Sequence[Table]) -> Iterator[Row]:
    """Rows of all tables by event time; each table's own rows keep their order, whatever their times.

    A row that goes back in its table, or has no readable time, follows the row before it. Memory: one row a table.
    Where columns are known ahead, each row has what they say of the rows that follow it in its stream; the tables are
    then read twice, and the numbers of these columns are held.
    """
    return _looking_ahead(tables) if tables and tables[0].layout.known_ahead else _merged(tables)


def _merged(tables: Sequence[Table]) -> Iterator[Row]:
    if len(tables) == 1:
        return tables[0].rows()
    return map(itemgetter(1), heapq.merge(*map(_clocked, tables), key=itemgetter(0)))


def _looking_ahead(tables: Sequence[Table]) -> Iterator[Row]:
    """Rows with what is known of those after them, as far as a stream's clock takes these: one that is late counts for
    nothing."""
    layout = tables[0].layout
    names, horizon = len(layout.known_ahead), layout.horizon
    known: dict[str, array[float]] = {}
    latest: dict[str, float] = {}
    for row in _merged(tables):
        if row.time > latest.get(row.stream_id, -math.inf):
            latest[row.stream_id] = row.time
            known.setdefault(row.stream_id, array("d")).extend(map(as_number, row.known or [None] * names))
    passed = dict.fromkeys(known, 0)
    latest.clear()
    for row in _merged(tables):
        if row.time > latest.get(row.stream_id, -math.inf):
            latest[row.stream_id] = row.time
            passed[row.stream_id] += names
        if row.known:
            first = passed.get(row.stream_id, 0)
            told = known.get(row.stream_id, array("d"))[first : first + names * horizon]
            row = row._replace(future=tuple(as_cells(told[k::names]) for k in range(names)))
        yield row


class Columns(NamedTuple):
    """The readings of one stream, oldest first."""

    times: npt.NDArray[np.float64]
    """``[N]``"""
    values: npt.NDArray[np.float64]
    """``nan`` is a missing reading, ``[N]``."""
    covariates: npt.NDArray[np.float64] | None
    """``[N, C]``, ``nan`` where absent; ``None`` where none were asked for."""
    future: npt.NDArray[np.float64] | None = None
    """What was known of each lead, ``[N, K·H]``, likewise."""


def read_series(tables: Sequence[Table], *, covariates: int = 0, future: int = 0) -> dict[str, Columns]:
    """Readings of every stream.

    Only rows that the engine would accept: a readable time later than all before it in the stream, and a number or
    nothing as value, covariates and what is known ahead.

    Args:
        covariates: C, as many as the tables' layout names.
        future: K·H, as many as it names columns that are known ahead, times its horizon.
    """
    columns: dict[str, tuple[array[float], array[float], array[float]]] = {}
    absent, unknown = [math.nan] * covariates, [math.nan] * future
    for row in merge_rows(tables):
        cells = (row.value, *row.covariates, *row.future)
        if math.isnan(row.time) or any(isinstance(cell, str) for cell in cells):
            continue
        column = columns.get(row.stream_id)
        if column is None:
            column = columns[row.stream_id] = (array("d"), array("d"), array("d"))
        if not column[0] or row.time > column[0][-1]:
            column[0].append(row.time)
            column[1].append(as_number(row.value))
            column[2].extend([as_number(value) for value in row.covariates] or absent)
            column[2].extend(_numbers(row.future, tables[0].layout.horizon) or unknown)
    found = {}
    for stream_id, (times, values, beside) in columns.items():
        numbers = np.array(beside).reshape(len(times), covariates + future)
        found[stream_id] = Columns(
            np.array(times),
            np.array(values),
            numbers[:, :covariates] if covariates else None,
            numbers[:, covariates:] if future else None,
        )
    return found


def _numbers(future: Iterable[tuple[float | None, ...] | str], horizon: int) -> list[float]:
    """What is known of each lead, column by column, ``nan`` where it is not."""
    numbers: list[float] = []
    for told in future:
        given = [as_number(value) for value in told[:horizon]]
        numbers += given + [math.nan] * (horizon - len(given))
    return numbers


def as_cells(numbers: Iterable[float]) -> tuple[float | None, ...]:
    """Numbers as a table has them: nothing for ``nan``."""
    return tuple(None if math.isnan(number) else number for number in numbers)


def as_number(value: float | str | None) -> float:
    """A cell as an array holds it: ``nan`` for a missing one, and for text."""
    return value if isinstance(value, float) else math.nan


def _clocked(table: Table) -> Iterator[tuple[float, Row]]:
    latest = -math.inf
    for row in table.rows():
        if row.time > latest:
            latest = row.time
        yield latest, row
