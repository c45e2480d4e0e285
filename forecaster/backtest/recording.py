"""All readings of some files in memory, in the order in which a backtest plays them."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence
from typing import Literal

import numpy as np

from forecaster.errors import ConfigurationError
from forecaster.series.columns import BoolArray, FloatArray, IntArray
from forecaster.transports.readings import as_cells, as_number
from forecaster.transports.tables import Row, Table

Alignment = Literal["auto", "time", "progress"]

_DAY = 86_400.0


class Recording:
    """Rows of tables in playing order. Each stream's own rows always keep their order.

    ``time`` plays by event time, as the rows would have come. ``progress`` plays unrelated series side by side, each
    from its first row to its last, so that a tenth of every one has come when a tenth of all has; without it a file of
    2013 would be over before one of 2015 begins, and nothing could be learnt on the beginnings of all. Their times are
    moved so that they begin together, by whole weeks where they last three weeks, by whole days where they last two
    days: what the calendar says to the network stays as it was. ``auto`` is ``progress`` where at the middle of all
    readings most streams are over or have not begun.

    Args:
        tables: files; several may hold rows of one stream.
        alignment: in which order to play.
        covariates: as many as the tables' layout names.

    Where the layout names columns that are known ahead, each row has what they say of the rows after it in its stream,
    as far as the stream's clock takes these.

    Raises:
        ConfigurationError: there is no row with a time, or JSON lines are to be played by progress.
    """

    def __init__(self, tables: Sequence[Table], *, alignment: Alignment = "auto", covariates: int = 0) -> None:
        stream, time, value, odd = array("q"), array("d"), array("d"), dict[int, Row]()
        beside, known = array("d"), array("d")
        ids: dict[str, int] = {}
        layout = tables[0].layout
        absent, unknown = [None] * covariates, [None] * len(layout.known_ahead)
        for table in tables:
            for row in table.rows():
                if row.line or row.time != row.time or any(isinstance(c, str) for c in (row.value, *row.covariates)):
                    odd[len(time)] = row
                stream.append(ids.setdefault(row.stream_id, len(ids)))
                time.append(row.time)
                value.append(as_number(row.value))
                beside.extend(map(as_number, row.covariates or absent))
                known.extend(map(as_number, row.known or unknown))
        self.streams = tuple(ids)
        """Names, in the order in which they were met."""
        owner = np.array(stream, np.int64)
        times = np.array(time)
        if not np.isfinite(times).any():
            raise ConfigurationError("The files hold no row with a readable time.", hint="Check the time column.")
        by_stream = np.argsort(owner, kind="stable")
        starts = np.searchsorted(owner[by_stream], np.arange(len(ids) + 1))
        clocked, nth = np.empty(len(times)), np.empty(len(times), np.int64)
        on_time = np.empty(len(times), np.bool_)
        for begin, end in itertools.pairwise(starts):
            rows = by_stream[begin:end]
            clocked[rows] = _rising(times[rows])
            nth[rows] = np.arange(end - begin)
            on_time[rows] = _is_on_time(times[rows])
        self.counts: IntArray = np.diff(starts)
        """Rows of each stream, ``[S]``."""
        begins, ends = clocked[by_stream[starts[:-1]]], clocked[by_stream[starts[1:] - 1]]
        self.alignment = _settled(alignment, begins, ends, clocked, has_lines=any(row.line for row in odd.values()))
        """``time`` or ``progress``."""
        self.shift: FloatArray = np.zeros(len(ids))
        """Seconds that each stream's times are moved by, ``[S]``."""
        key = clocked
        if self.alignment == "progress":
            self.shift = _shift(begins, ends)
            key = (nth + 1) / self.counts[owner]
        order = np.lexsort((owner, key))
        self._key = key[order]
        self._owner = owner[order]
        self._times = (times + self.shift[owner])[order]
        self._values = np.array(value)[order]
        self._covariates = np.array(beside).reshape(len(order), covariates)[order]
        self._horizon = layout.horizon
        numbers = np.array(known).reshape(len(order), len(layout.known_ahead))
        self._known = numbers[by_stream[on_time[by_stream]]]  # of rows on time, stream after stream
        passed = np.empty(len(order), np.int64)
        passed[by_stream] = np.cumsum(on_time[by_stream])  # of these, up to and with each row
        self._passed = passed[order]
        self._known_until = np.cumsum(on_time[by_stream])[starts[1:] - 1]
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        self._odd = {int(place[k]): row for k, row in odd.items()}
        steps = np.diff(clocked[by_stream])
        inside = np.ones(len(steps), np.bool_)
        inside[starts[1:-1] - 1] = False
        moved = steps[inside & (steps > 0)]
        self.step_seconds = float(np.median(moved)) if len(moved) else 0.0
        """Median time between rows of a stream."""

    def __len__(self) -> int:
        return len(self._owner)

    def row(self, offset: int) -> Row:
        """The row played at this place, its time moved."""
        found = self._odd.get(offset)
        owner = int(self._owner[offset])
        future = self._future(offset)
        if found is not None:
            return found._replace(
                time=found.time + float(self.shift[owner]), future=found.future if found.line else future
            )
        value, *beside = (
            number if number == number else None
            for number in (float(self._values[offset]), *self._covariates[offset].tolist())
        )
        return Row(self.streams[owner], float(self._times[offset]), "", value, b"", tuple(beside), future=future)

    def _future(self, offset: int) -> tuple[tuple[float | None, ...], ...]:
        """What the columns that are known ahead say of the rows after this one."""
        first = int(self._passed[offset])
        until = min(first + self._horizon, int(self._known_until[self._owner[offset]]))
        return tuple(as_cells(column) for column in self._known[first:until].T.tolist())

    def times_of(self, stream_id: str) -> FloatArray:
        """Times of all rows of a stream, as the files have them and in their order."""
        owner = self.streams.index(stream_id)
        return np.asarray(self._times[self._owner == owner] - self.shift[owner])

    def rows_within(self, share: float) -> int:
        """How many rows are played until this share of them, or of every stream, has come."""
        if self.alignment == "progress":
            return int(np.searchsorted(self._key, share * (1 + 1e-12), side="right"))
        return int(share * len(self) * (1 + 1e-12))

    def rows_of_steps(self, steps: float) -> int:
        """How many rows are ``steps`` of every stream, on average."""
        return max(1, round(steps * len(self.streams)))


def _rising(times: FloatArray) -> FloatArray:
    """The latest time so far; rows before the first readable one stand at it."""
    latest: FloatArray = np.fmax.accumulate(times)
    known = np.isfinite(latest)
    if not known.all():
        latest[~known] = latest[known][0] if known.any() else -np.inf
    return latest


def _is_on_time(times: FloatArray) -> BoolArray:
    """Rows that the clock of their stream takes: later than all before them."""
    latest = np.maximum.accumulate(np.where(np.isnan(times), -np.inf, times))
    return np.asarray(times > np.concatenate(([-np.inf], latest[:-1])))


def _settled(
    wanted: Alignment, begins: FloatArray, ends: FloatArray, times: FloatArray, *, has_lines: bool
) -> Literal["time", "progress"]:
    """What ``auto`` comes to."""
    if has_lines and wanted == "progress":
        raise ConfigurationError(
            "JSON lines are played as they stand, so their times cannot be moved.", hint="Play them by time."
        )
    if wanted == "time" or has_lines:
        return "time"
    middle = np.median(times)
    across = (begins <= middle) & (middle <= ends)
    return "progress" if wanted == "progress" or 2 * across.sum() < len(begins) else "time"


def _shift(begins: FloatArray, ends: FloatArray) -> FloatArray:
    """What to add to each stream's times so that they begin together, as far as their calendar allows."""
    usual = float(np.median(ends - begins))
    late = begins.max() - begins
    if usual < 2 * _DAY:
        return np.asarray(late)
    period = 7 * _DAY if usual >= 21 * _DAY else _DAY
    return np.asarray(np.floor(late / period) * period)
