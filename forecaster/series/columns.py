"""How per-stream memory is declared: named columns of slot-major arrays, and rows of all of them.

A module that remembers something of each stream declares `Column`s; whoever owns the rows allocates them all. One
stream is one row (a *slot*) in every column. Functions of the core take the columns and the slots of a wave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from forecaster.series.compiled import compiled

FloatArray: TypeAlias = npt.NDArray[np.float64]
Float32Array: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]

_LINE = 64  # bytes that memory is read by


class Column(NamedTuple):
    """One thing remembered of every stream.

    ``shape`` is that of a single row; ``fill`` is what a new stream starts with. ``labels`` names the places of the
    last axis, where each belongs to somebody: rows that were written before one came or went are read by them. What is
    ``apart`` is large, and a reading looks into it here and there: it lies in an array of its own.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    fill: float = 0.0
    labels: tuple[str, ...] = ()
    apart: bool = False

    @property
    def row_bytes(self) -> int:
        """Size of one row, in bytes."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


class Rows(dict[str, npt.NDArray[Any]]):
    """Arrays ``[rows, *shape]`` by column, every row as a new stream starts.

    What a reading needs of its stream stands in one place: all columns but those ``apart`` are views of one array, in
    which a row is whole cache lines. In arrays of their own forty columns are forty places in memory, and to wait for
    them is what most of a reading costs where streams are many.

    Raises:
        ValueError: two columns have one name.

    >>> Rows([Column("step", "f8"), Column("ring", "f4", (3,), np.nan)], 2)["ring"].shape
    (2, 3)
    """

    def __init__(self, columns: Iterable[Column], rows: int) -> None:
        super().__init__()
        self._columns = tuple(columns)
        for column in self._columns:
            if column.name in self:
                raise ValueError(f"Column {column.name!r} is declared twice.")
            self[column.name] = np.empty(0)  # in the order they were declared
        # The widest types first, so that each is aligned.
        packed = sorted((c for c in self._columns if not c.apart), key=lambda c: -np.dtype(c.dtype).itemsize)
        self._packed = _lines(rows, row_bytes(packed))
        begin = 0
        for column in packed:
            self[column.name] = _view(self._packed, begin, column)
            begin += column.row_bytes
        self._apart = [column.name for column in self._columns if column.apart]
        for column in self._columns:
            if column.apart:
                self[column.name] = np.full((rows, *column.shape), column.fill, column.dtype)
            else:
                self[column.name][:1] = column.fill
        self._packed[1:] = self._packed[:1]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._packed.nbytes + sum(self[name].nbytes for name in self._apart)

    def bring(self, slots: IntArray) -> None:
        """Have these rows in the cache: one after the other they are waited for, all at once they are not."""
        _bring(self._packed, slots)

    def taken(self, slots: IntArray) -> Rows:
        """Copies of these rows."""
        copies = Rows(self._columns, len(slots))
        copies.fill(0, self, slots)
        return copies

    def grown(self, rows: int) -> Rows:
        """These rows and new ones behind them, ``rows`` in all."""
        grown = Rows(self._columns, rows)
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


def _lines(rows: int, width: int) -> npt.NDArray[np.uint64]:
    """Rows of whole cache lines that begin with one, ``[rows, ⌈width / 64⌉ · 8]``."""
    words = -(-width // _LINE) * (_LINE // 8)
    memory = np.zeros(rows * words + _LINE // 8, np.uint64)
    begin = -memory.ctypes.data % _LINE // 8
    return memory[begin : begin + rows * words].reshape(rows, words)


def _view(packed: npt.NDArray[np.uint64], begin: int, column: Column) -> npt.NDArray[Any]:
    """What lies in the rows of a packed array from byte ``begin`` on, as the array of a column."""
    row = np.ndarray(column.shape, column.dtype)  # for its strides
    memory = packed.view(np.uint8)[:, begin : begin + column.row_bytes].view(column.dtype)
    return np.lib.stride_tricks.as_strided(memory, (len(packed), *column.shape), (packed.strides[0], *row.strides))


@compiled
def _bring(packed: npt.NDArray[np.uint64], slots: IntArray) -> int:
    total = 0  # what nobody asks for would not be read
    for row in range(len(slots)):
        for word in range(0, packed.shape[1], 8):
            total += packed[slots[row], word]
    return total


def clear(columns: Iterable[Column], c: Columns, slots: IntArray) -> None:
    """Make these rows what a new stream starts with."""
    for column in columns:
        c[column.name][slots] = column.fill


def row_bytes(columns: Iterable[Column]) -> int:
    """Bytes of one stream over all columns."""
    return sum(column.row_bytes for column in columns)
