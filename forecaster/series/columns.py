"""How per-stream memory is declared: named columns of slot-major arrays, allocated, copied and gathered together.

A module that remembers something of each stream declares `Column`s; whoever owns the rows allocates them all. One
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

    ``shape`` is that of a single row; ``fill`` is what a new stream starts with.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    fill: float = 0.0

    @property
    def row_bytes(self) -> int:
        """Size of one row, in bytes."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


def allocate(columns: Iterable[Column], rows: int) -> dict[str, npt.NDArray[Any]]:
    """Fresh arrays ``[rows, *shape]``, every row as a new stream starts.

    >>> allocate([Column("step", "f8"), Column("ring", "f4", (3,), np.nan)], 2)["ring"].shape
    (2, 3)
    """
    made: dict[str, npt.NDArray[Any]] = {}
    for column in columns:
        if column.name in made:
            raise ValueError(f"Column {column.name!r} is declared twice.")
        made[column.name] = np.full((rows, *column.shape), column.fill, dtype=column.dtype)
    return made


def clear(columns: Iterable[Column], c: Columns, slots: IntArray) -> None:
    """Make these rows what a new stream starts with."""
    for column in columns:
        c[column.name][slots] = column.fill


def gathered(column: npt.NDArray[Any], slots: IntArray) -> npt.NDArray[Any]:
    """Rows of the streams of a wave, ``[B, *shape]``, laid out so that the streams lie side by side.

    A wave is many streams by a few leads, experts and levels. In this layout numpy's inner loops run over the streams
    and not over the few, which is three to five times as fast where shapes are broadcast; what is calculated from such
    arrays is laid out alike.

    >>> gathered(np.zeros((8, 5, 4)), np.array([1, 2])).strides
    (8, 16, 80)
    """
    assert column.flags.c_contiguous, "of a view, numpy copies the rows of all streams first"
    return column.take(slots, axis=0).copy(order="F")


def chosen(
    mask: BoolArray, value: npt.NDArray[Any], otherwise: npt.NDArray[Any] | np.generic | float
) -> npt.NDArray[Any]:
    """`np.where` that costs next to nothing where the mask holds everywhere, as it mostly does once streams are past
    their beginnings; ``value`` itself is the answer then.

    >>> value = np.ones(2)
    >>> chosen(np.array([True, True]), value, 0.0) is value, chosen(np.array([True, False]), value, 0.0).tolist()
    (True, [1.0, 0.0])
    """
    return value if mask.all() else np.where(mask, value, otherwise)


def row_bytes(columns: Iterable[Column]) -> int:
    """Bytes of one stream over all columns."""
    return sum(column.row_bytes for column in columns)
