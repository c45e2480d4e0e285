"""Stretches of a topic's partition as columns, and the history that is gathered of them, the newest first."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from forecaster.records import DeadLetter, Observation, Tombstone
from forecaster.series.columns import FloatArray, IntArray
from forecaster.training.budget import StreamBudget
from forecaster.training.history import History, Series

_NUMBER_BYTES = 8


class HistoryBlock(NamedTuple):
    """What the records of one stretch of a partition say, in the order of their offsets. ``n`` readings."""

    names: tuple[str, ...]
    """Streams, each once."""
    stream: IntArray
    """Of each reading, its place in ``names``, ``[n]``."""
    offsets: IntArray
    """Of its record, ``[n]``."""
    times: FloatArray
    """``[n]``"""
    values: FloatArray
    """``nan`` is missing, ``[n]``."""
    covariates: FloatArray
    """``[n, C]``"""
    future: FloatArray
    """What was known ahead at each reading, ``[n, K·H]``."""
    forgotten: tuple[tuple[int, str], ...]
    """Tombstones: offset and record id."""


class BlockBuilder:
    """Makes a block of decoded records; dead letters are nothing to learn from.

    Args:
        covariates: C, of each reading.
        future: K·H, numbers known ahead at each reading.
    """

    def __init__(self, covariates: int = 0, future: int = 0) -> None:
        self._covariates, self._future = covariates, future
        self._places: dict[str, int] = {}
        self._stream, self._offsets = array("q"), array("q")
        self._times, self._values, self._beside, self._known = array("d"), array("d"), array("d"), array("d")
        self._forgotten: list[tuple[int, str]] = []

    def take(self, offset: int, items: Iterable[Observation | DeadLetter | Tombstone]) -> None:
        """What the record at an offset says."""
        for item in items:
            if isinstance(item, Observation):
                self._stream.append(self._places.setdefault(item.stream_id, len(self._places)))
                self._offsets.append(offset)
                self._times.append(item.time)
                self._values.append(item.value)
                self._beside.extend(item.covariates)
                self._known.extend(item.future)
            elif isinstance(item, Tombstone):
                self._forgotten.append((offset, item.record_id))

    def block(self) -> HistoryBlock:
        """All that was taken."""
        return HistoryBlock(
            names=tuple(self._places),
            stream=np.array(self._stream, np.int64),
            offsets=np.array(self._offsets, np.int64),
            times=np.array(self._times),
            values=np.array(self._values),
            covariates=np.array(self._beside).reshape(len(self._times), self._covariates),
            future=np.array(self._known).reshape(len(self._times), self._future),
            forgotten=tuple(self._forgotten),
        )


class HistoryCollector:
    """Gathers blocks into a history within a budget of memory, the newest block of each partition first.

    Streams are chosen by `StreamBudget`: those that are kept have all of their readings, up to
    ``max_readings_per_stream`` of the newest, and which they are does not depend on the order of partitions.

    Args:
        covariates: C, of each reading.
        future: K·H, numbers known ahead at each reading.
        takes: says of a stream whether it is gathered.
        max_bytes: of readings kept.
        max_streams: streams kept.
        max_readings_per_stream: the newest of each.
        seed: of the choice.
    """

    def __init__(
        self,
        covariates: int = 0,
        *,
        future: int = 0,
        takes: Callable[[str], bool] = lambda stream_id: True,
        max_bytes: int = 2**40,
        max_streams: int | None = None,
        max_readings_per_stream: int = 2**40,
        seed: int = 0,
    ) -> None:
        self._covariates, self._beside = covariates, covariates + future
        self._takes, self._limit = takes, max_readings_per_stream
        self._budget = StreamBudget(
            max_bytes=max_bytes, reading_bytes=_NUMBER_BYTES * (2 + self._beside), max_streams=max_streams, seed=seed
        )
        self._seen: set[int] = set()
        """Ranks of all streams that are taken: of those refused no name is kept."""
        self._columns: dict[str, tuple[array[float], array[float], array[float]]] = {}
        """Newest reading first; of a reading its covariates in their order, then what was known ahead."""
        self._forgotten: dict[int, set[str]] = {}
        """Record ids by partition of which an older block says nothing that counts."""

    @property
    def streams_seen(self) -> int:
        """Streams that were taken, those that did not fit among them."""
        return len(self._seen)

    @property
    def has_refused(self) -> bool:
        """Whether not all of them did fit."""
        return self._budget.has_refused

    @property
    def bytes(self) -> int:
        """That are kept."""
        return self._budget.bytes

    def add(self, block: HistoryBlock, *, partition: int = 0, since_offset: int = 0) -> None:
        """Take a block in that is older than all blocks of its partition before it.

        Args:
            partition: that it is of; a tombstone forgets what stands before it in its partition.
            since_offset: readings before it do not count.
        """
        gone_before = self._forgotten.setdefault(partition, set())
        last_tombstone = {record_id: offset for offset, record_id in block.forgotten}  # of several the newest
        by_stream = np.argsort(block.stream, kind="stable")
        bounds = np.searchsorted(block.stream[by_stream], np.arange(len(block.names) + 1))
        for place, stream_id in enumerate(block.names):
            if any(above in gone_before for above in _with_parents(stream_id)) or not self._takes(stream_id):
                continue
            rows = by_stream[bounds[place] : bounds[place + 1]]
            after = max((last_tombstone.get(above, -1) for above in _with_parents(stream_id)), default=-1)
            rows = rows[block.offsets[rows] >= max(since_offset, after + 1)]
            if len(rows):
                self._take(stream_id, block, rows)
        gone_before.update(last_tombstone)

    def history(self) -> History:
        """All that is kept, late and repeated readings passed over as serving does. Empties the collector."""
        streams = {}
        while self._columns:
            stream_id, (times, values, beside) = self._columns.popitem()
            streams[stream_id] = Series.with_beside(
                np.array(times)[::-1].copy(),
                np.array(values)[::-1].copy(),
                np.array(beside).reshape(len(times), self._beside)[::-1].copy(),
                covariates=self._covariates,
            )
        return History(dict(sorted(streams.items())))

    def _take(self, stream_id: str, block: HistoryBlock, rows: IntArray) -> None:
        self._seen.add(self._budget.rank(stream_id))
        if not self._budget.admits(stream_id):
            return
        columns = self._columns.setdefault(stream_id, (array("d"), array("d"), array("d")))
        newest_first = rows[::-1][: self._limit - len(columns[0])]
        beside = np.concatenate((block.covariates[newest_first], block.future[newest_first]), axis=1)
        for column, source in zip(
            columns, (block.times[newest_first], block.values[newest_first], beside), strict=True
        ):
            column.frombytes(np.ascontiguousarray(source, np.float64).tobytes())
        for refused in self._budget.grow(stream_id, len(newest_first)):
            del self._columns[refused]


def _with_parents(stream_id: str) -> Iterator[str]:
    """A stream's name and all ids that it lies below.

    >>> list(_with_parents("plant/pump/temp"))
    ['plant/pump/temp', 'plant/pump', 'plant']
    """
    yield stream_id
    while "/" in stream_id:
        stream_id = stream_id.rpartition("/")[0]
        yield stream_id
