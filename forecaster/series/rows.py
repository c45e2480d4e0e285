"""Where per-stream memory lies: rows of all columns, so that what a reading needs of its stream is in one place."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from forecaster.series.columns import Column, IntArray
from forecaster.series.compiled import compiled

_LINE = 64  # bytes that memory is read by


class Rows(dict[str, npt.NDArray[Any]]):
    """Arrays ``[rows, *shape]`` by column, every row as a new stream starts.

    What a reading needs of its stream stands in one place: all columns but those ``apart`` are views of one array, in
    which a row is whole cache lines. In arrays of their own forty columns are forty places in memory, and to wait for
    them is what most of a reading costs where streams are many.

    Args:
        rows: at least two are made. Of one alone numpy says that it is contiguous, as no other is, and every kernel
            would be compiled once more for it.

    Raises:
        ValueError: two columns have one name.

    >>> Rows([Column("step", "f8"), Column("ring", "f4", (3,), np.nan)], 2)["ring"].shape
    (2, 3)
    """

    def __init__(self, columns: Iterable[Column], rows: int) -> None:
        super().__init__()
        self._columns = tuple(columns)
        layout = _lay_out(self._columns)
        rows = max(rows, 2)
        # A line more than there are, for the first row to begin with one.
        memory = np.empty(rows * layout.width + _LINE, np.uint8)
        begin = -memory.ctypes.data % _LINE
        self._packed = memory[begin : begin + rows * layout.width].view(np.uint64).reshape(rows, layout.width // 8)
        self._packed[:] = layout.fresh
        for column, place in zip(self._columns, layout.places, strict=True):
            shape = (rows, *column.shape)
            if place is None:
                self[column.name] = np.full(shape, column.fill, column.dtype)
            else:
                strides = (layout.width, *place.strides)
                self[column.name] = np.ndarray(shape, column.dtype, memory, begin + place.begin, strides)
        self._apart = [column.name for column in self._columns if column.apart]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._packed.nbytes + sum(self[name].nbytes for name in self._apart)

    def bring(self, slots: IntArray) -> None:
        """Have these rows in the cache: one after the other they are waited for, all at once they are not."""
        _bring(self._packed, slots)

    def fresh(self, rows: int) -> Rows:
        """New rows of the same columns."""
        return Rows(self._columns, rows)

    def taken(self, slots: IntArray) -> Rows:
        """Copies of these rows."""
        copies = self.fresh(len(slots))
        copies.fill(0, self, slots)
        return copies

    def grown(self, rows: int) -> Rows:
        """These rows and new ones behind them, ``rows`` in all."""
        grown = self.fresh(rows)
        grown.fill(0, self, slice(None))
        return grown

    def fill(self, begin: int, source: Rows, slots: IntArray | slice) -> None:
        """Copy rows of another of the same columns to the rows from ``begin`` on."""
        for mine, theirs in zip(self._whole(), source._whole(), strict=True):
            copied = theirs[slots]
            mine[begin : begin + len(copied)] = copied

    def put(self, slots: IntArray, source: Rows, begin: int) -> None:
        """Copy as many rows of another of the same columns, from ``begin`` on, to ``slots``."""
        for mine, theirs in zip(self._whole(), source._whole(), strict=True):
            mine[slots] = theirs[begin : begin + len(slots)]

    def _whole(self) -> list[npt.NDArray[Any]]:
        return [self._packed, *(self[name] for name in self._apart)]


class _Place(NamedTuple):
    """Where a column lies within a row."""

    begin: int
    """In bytes."""
    strides: tuple[int, ...]
    """Of its own axes."""


class _Layout(NamedTuple):
    """How a row is laid out."""

    width: int
    """In bytes, whole cache lines."""
    places: tuple[_Place | None, ...]
    """Of each column; ``None`` of those apart."""
    fresh: npt.NDArray[np.uint64]
    """A row as a new stream starts, ``[width / 8]``."""


@lru_cache(maxsize=256)
def _lay_out(columns: tuple[Column, ...]) -> _Layout:
    """The widest types first, so that each is aligned. Kept: waves of several tables are laid out each time."""
    names = [column.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Column {name!r} is declared twice.")
    places: dict[str, _Place] = {}
    row = b""
    for column in sorted(columns, key=lambda c: -np.dtype(c.dtype).itemsize):
        if not column.apart:
            fresh = np.full(column.shape, column.fill, column.dtype)
            places[column.name] = _Place(len(row), fresh.strides)
            row += fresh.tobytes()
    row += bytes(-len(row) % _LINE)
    return _Layout(len(row), tuple(places.get(name) for name in names), np.frombuffer(row, np.uint64))


@compiled
def _bring(packed: npt.NDArray[np.uint64], slots: IntArray) -> np.uint64:
    total = np.uint64(0)  # what nobody asks for would not be read
    for row in range(len(slots)):
        for word in range(0, packed.shape[1], 8):
            total += packed[slots[row], word]
    return total
