"""Which streams fit into a bounded memory: a choice drawn from a seed that does not depend on how readings fell."""

from __future__ import annotations

import hashlib
import heapq

STREAM_BYTES = 512
"""What a stream takes beside its readings: its name, an entry in a dictionary, the heads of its columns."""

_ABOVE_ALL = 2**64


class StreamBudget:
    """Keeps the streams that come first in a random order, as many as fit; whoever is refused once stays refused.

    The order is a hash of seed and name, so that it is the same in every process and whichever stream comes first. As
    memory of a stream never shrinks, those kept at the end are the longest beginning of the order whose readings fit,
    however the readings of several partitions were mixed; every stream that is kept is kept whole.

    Args:
        max_bytes: of all streams that are kept; the last one left is kept whatever it takes.
        reading_bytes: of one reading.
        max_streams: of them; ``None`` for as many as fit.
        seed: of the order.

    Source: Cohen & Kaplan (2007), "Summarizing Data Using Bottom-k Sketches".
    """

    def __init__(self, *, max_bytes: int, reading_bytes: int, max_streams: int | None = None, seed: int = 0) -> None:
        self._max_bytes, self._reading_bytes, self._max_streams = max_bytes, reading_bytes, max_streams
        self._salt = seed.to_bytes(8, "little", signed=True)
        self._bar = _ABOVE_ALL
        """Rank of the first stream in the order that was refused."""
        self._kept: dict[str, int] = {}
        self._last_first: list[tuple[int, str]] = []
        self.bytes = 0
        """Of all streams that are kept."""

    @property
    def has_refused(self) -> bool:
        """Whether not all streams did fit."""
        return self._bar < _ABOVE_ALL

    def rank(self, stream_id: str) -> int:
        """Place of a stream in the order, in [0, 2^64)."""
        return int.from_bytes(hashlib.blake2b(stream_id.encode(), digest_size=8, key=self._salt).digest(), "little")

    def admits(self, stream_id: str) -> bool:
        """Whether readings of a stream are kept, as far as is known by now."""
        return stream_id in self._kept or self.rank(stream_id) < self._bar

    def grow(self, stream_id: str, readings: int) -> list[str]:
        """Count more readings of a stream that is admitted; the streams that have to go for them, maybe itself."""
        if stream_id not in self._kept:
            self._kept[stream_id] = STREAM_BYTES
            self.bytes += STREAM_BYTES
            heapq.heappush(self._last_first, (-self.rank(stream_id), stream_id))
        self._kept[stream_id] += readings * self._reading_bytes
        self.bytes += readings * self._reading_bytes
        refused = []
        while len(self._kept) > 1 and (self.bytes > self._max_bytes or len(self._kept) > (self._max_streams or 2**63)):
            rank, last = heapq.heappop(self._last_first)
            if last in self._kept:
                self._bar = min(self._bar, -rank)
                self.bytes -= self._kept.pop(last)
                refused.append(last)
        return refused
