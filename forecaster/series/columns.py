"""How per-stream memory is declared: named columns of slot-major arrays.

A module that remembers something of each stream declares `Column`s; whoever owns the `Rows` has them all. One
stream is one row (a *slot*) in every column. Functions of the core take the columns and the slots of a wave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
Float32Array: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]


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


def clear(columns: Iterable[Column], c: Columns, slots: IntArray) -> None:
    """Make these rows what a new stream starts with."""
    for column in columns:
        c[column.name][slots] = column.fill


def row_bytes(columns: Iterable[Column]) -> int:
    """Bytes of one stream over all columns."""
    return sum(column.row_bytes for column in columns)
