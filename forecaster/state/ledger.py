"""Which pages have changed since they were written, and from which source offset their changes can be made again."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from forecaster.series.columns import IntArray
from forecaster.state.pages import PAGE_SLOTS


class PageLedger:
    """Dirty pages of one table, oldest first.

    A dirty page can be made again by taking the records from its offset here on through the table once more.
    """

    def __init__(self) -> None:
        self._dirty: dict[int, tuple[int, float]] = {}  # page -> (offset to begin from, when it became dirty)

    def __len__(self) -> int:
        return len(self._dirty)

    def mark(self, slots: IntArray | Iterable[int], offset: int, now: float) -> None:
        """Rows changed through records at or after ``offset``."""
        for page in dict.fromkeys((np.asarray(slots, np.int64) // PAGE_SLOTS).tolist()):
            before = self._dirty.get(page)
            if before is None:
                self._dirty[page] = (offset, now)
            elif offset < before[0]:
                self._dirty[page] = (offset, before[1])

    def due(self, now: float, flush_seconds: float, most: int) -> list[int]:
        """Pages dirty for ``flush_seconds`` or longer, oldest first, at most ``most``."""
        aged = [(since, page) for page, (_, since) in self._dirty.items() if now - since >= flush_seconds]
        return [page for _, page in sorted(aged)[:most]]

    def clean(self, pages: Iterable[int]) -> None:
        """These pages have been written."""
        for page in pages:
            del self._dirty[page]

    def replay_from(self, next_offset: int) -> int:
        """Where records must be read again from to make all that is not written: at most ``next_offset``."""
        return min((offset for offset, _ in self._dirty.values()), default=next_offset)
