"""Who owns which row: stream ids to slots, a free list, and the arrays that every module's columns live in."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from forecaster.errors import UnknownSlot
from forecaster.series.columns import Column, IntArray, clear, row_bytes
from forecaster.series.identity import stream_identity
from forecaster.series.rows import Rows

SCRATCH = 0
"""Slot that no stream owns: padding rows of a wave read and write it."""

IDENTITY = "identity"
"""Name of the array of `stream_identity` numbers, by slot. It follows from streams' names: no column, in no page."""

_IDENTITIES = Column(IDENTITY, "i8")
_ID_BYTES = 200  # one dictionary entry and a short string, as CPython spends them


def schema_of(columns: Iterable[Column]) -> str:
    """Hash of what columns keep of a stream: two tables of one schema remember the same things."""
    text = ";".join(
        f"{c.name}:{np.dtype(c.dtype).str}:{c.shape}:{c.fill!r}{':' if c.labels else ''}{','.join(c.labels)}"
        for c in columns
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class StreamTable:
    """Rows of slot-major arrays, one per stream, handed out and taken back here alone.

    Arrays double when they are full. A freed slot is used again, lowest first, so that the same sequence of streams
    always gets the same slots.

    Args:
        columns: everything that is remembered of a stream, from all modules.
        max_streams: most streams at once.
    """

    def __init__(self, columns: Sequence[Column], *, max_streams: int, rows: int = 64) -> None:
        self.columns = tuple(columns)
        self.max_streams = max_streams
        self.row_bytes = row_bytes(self.columns)
        self.schema = schema_of(self.columns)
        self.arrays = Rows((*self.columns, _IDENTITIES), rows)
        self._capacity = rows
        self._slots: dict[str, int] = {}
        self._ids: list[str | None] = [None]  # by slot; the scratch slot has none
        self._is_owned = np.zeros(rows, np.bool_)  # by slot
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __contains__(self, stream_id: str) -> bool:
        return stream_id in self._slots

    @property
    def nbytes(self) -> int:
        """Bytes held, arrays and names."""
        return self.arrays.nbytes + _ID_BYTES * len(self._slots)

    def find(self, stream_id: str) -> int | None:
        """Slot of a stream, ``None`` when it has none."""
        return self._slots.get(stream_id)

    def slot(self, stream_id: str, *, beyond_limit: bool = False) -> int | None:
        """Slot of a stream; a new stream gets a cleared row, or ``None`` when the table is full.

        ``beyond_limit`` never refuses: for a replay, whose table may hold streams of a later time already.
        """
        slot = self._slots.get(stream_id)
        if slot is not None:
            return slot
        if len(self._slots) >= self.max_streams and not beyond_limit:
            return None
        if self._free:
            slot = heapq.heappop(self._free)
            clear(self.columns, self.arrays, np.array([slot]))
            self._ids[slot] = stream_id
        else:
            slot = len(self._ids)
            if slot >= self._capacity:
                self._grow(min(2 * self._capacity, max(self.max_streams, slot) + 1))
            self._ids.append(stream_id)
        self._own(slot, stream_id)
        return slot

    @property
    def capacity(self) -> int:
        """Rows allocated, the scratch row among them."""
        return self._capacity

    def owner(self, slot: int) -> str | None:
        """Stream of a slot, ``None`` when nobody owns it."""
        return self._ids[slot] if slot < len(self._ids) else None

    def adopt(self, slot: int, stream_id: str) -> None:
        """Give a slot that nobody owns to a stream whose state is restored; the rows are the caller's to fill.

        `free_unowned` must be called when all are adopted.
        """
        while slot >= self._capacity:
            self._grow(2 * self._capacity)
        self._ids.extend([None] * (slot + 1 - len(self._ids)))
        assert slot != SCRATCH, "the scratch row is nobody's"
        assert self._ids[slot] is None, "the slot is free"
        self._ids[slot] = stream_id
        self._own(slot, stream_id)

    def free_unowned(self) -> None:
        """Make every slot below the highest one in use that nobody owns available again."""
        self._free = [slot for slot, owner in enumerate(self._ids) if owner is None and slot != SCRATCH]

    def name(self, slot: int) -> str:
        """Stream of a slot.

        Raises:
            UnknownSlot: nobody owns it.
        """
        stream_id = self._ids[slot] if 0 <= slot < len(self._ids) else None
        if stream_id is None:
            raise UnknownSlot(f"Slot {slot} belongs to no stream; {len(self)} slots are in use.")
        return stream_id

    def release(self, stream_ids: Iterable[str]) -> int:
        """Forget these streams; returns how many of them were known."""
        released = 0
        for stream_id in stream_ids:
            slot = self._slots.pop(stream_id, None)
            if slot is not None:
                self._ids[slot] = None
                self._is_owned[slot] = False
                heapq.heappush(self._free, slot)
                released += 1
        return released

    def occupied(self) -> IntArray:
        """Slots in use, ascending."""
        return np.flatnonzero(self._is_owned)

    def _own(self, slot: int, stream_id: str) -> None:
        self._slots[stream_id] = slot
        self._is_owned[slot] = True
        self.arrays[IDENTITY][slot] = stream_identity(stream_id)

    def _grow(self, rows: int) -> None:
        rows = max(rows, self._capacity + 1)
        self.arrays = self.arrays.grown(rows)
        self._is_owned = np.pad(self._is_owned, (0, rows - self._capacity))
        self._capacity = rows
