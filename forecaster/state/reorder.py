"""Readings held back for a while of event time, so that those out of order can be sorted."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence

from forecaster.records import Observation, RawRecord


class ReorderBuffer:
    """Releases readings in order of event time once the partition's watermark is ``max_lateness_seconds`` past them.

    The watermark is the latest event time seen in the partition. It moves with the records alone, never with the wall
    clock, so the same records always come out in the same order. A reading later than the hold is released at once,
    for the stream's own clock to refuse it.

    Args:
        max_lateness_seconds: the hold; 0 releases everything at once.
    """

    def __init__(self, max_lateness_seconds: float) -> None:
        self._hold = max_lateness_seconds
        self.watermark = -math.inf
        """Latest event time seen."""
        self._arrivals = 0
        self._heap: list[tuple[float, int, RawRecord, Observation]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, raw: RawRecord, observation: Observation) -> Sequence[tuple[RawRecord, Observation]]:
        """Take a reading in; returns those whose turn has come, oldest event time first, arrival order among equals."""
        if observation.time > self.watermark:
            self.watermark = observation.time
        if self._hold == 0:
            return ((raw, observation),)
        heapq.heappush(self._heap, (observation.time, self._arrivals, raw, observation))
        self._arrivals += 1
        released = []
        while self._heap and self._heap[0][0] <= self.watermark - self._hold:
            released.append(heapq.heappop(self._heap)[2:])
        return released

    def release(self, concerns: Callable[[str], bool]) -> list[tuple[RawRecord, Observation]]:
        """Let go of the readings of these streams now, in order: their streams are about to be forgotten."""
        due = sorted(entry for entry in self._heap if concerns(entry[3].stream_id))
        if due:
            self._heap = [entry for entry in self._heap if not concerns(entry[3].stream_id)]
            heapq.heapify(self._heap)
        return [(raw, observation) for _, _, raw, observation in due]

    def oldest_offset(self) -> int | None:
        """Lowest source offset held back: offsets from here on are not answered yet."""
        return min((entry[2].offset for entry in self._heap), default=None)
