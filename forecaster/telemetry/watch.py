"""Which few streams are shown one by one in metrics: those that match patterns, and never more than a given number."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import translate
from typing import Protocol

from forecaster.clock import Clock

_LOOK_SECONDS = 30.0
_WILD = re.compile(r"[*?\[]")


class Streams(Protocol):
    """Names of a partition's streams."""

    def __contains__(self, stream_id: str, /) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...

    def __len__(self) -> int: ...


class WatchList:
    """Chooses from the streams of a worker. Those once chosen stay while they are there, so that no curve ends early.

    Names without wildcards are looked up at every call. Patterns are held against all streams, which takes some
    30 ms for 100,000 of them, so at most every half minute, and only where streams have come or gone.

    Args:
        patterns: names, or patterns as of a shell: ``ward-3/*``; order is precedence.
        most: streams at the most.
    """

    def __init__(self, patterns: Sequence[str], *, most: int, clock: Clock) -> None:
        self._clock = clock
        self._chosen: list[tuple[int, str]] = []
        self._wanted: tuple[tuple[str, ...], int] | None = None
        self._take(patterns, most)

    def change(self, patterns: Sequence[str], *, most: int) -> None:
        """From the next choice on, these. Any thread may say so; streams that still match stay."""
        self._wanted = (tuple(patterns), most)

    def choose(self, tables: Mapping[int, Streams]) -> list[tuple[int, str]]:
        """(partition, stream) of those to show.

        Args:
            tables: streams known now, by partition.
        """
        if self._wanted is not None:
            (patterns, most), self._wanted = self._wanted, None
            self._take(patterns, most)
        kept = [(partition, name) for partition, name in self._chosen if name in tables.get(partition, ())]
        kept += [(partition, name) for name in self._names for partition in tables if name in tables[partition]]
        if self._patterns and len(kept) < self._most:
            kept += self._look(tables)
        self._chosen = list(dict.fromkeys(kept))[: self._most]
        return self._chosen

    def _take(self, patterns: Sequence[str], most: int) -> None:
        self._names = [pattern for pattern in patterns if not _WILD.search(pattern)]
        self._patterns = [re.compile(translate(pattern)) for pattern in patterns if _WILD.search(pattern)]
        self._most = most
        self._chosen = [(partition, name) for partition, name in self._chosen if self._matches(name)]
        self._looked_at = -math.inf
        self._looked: tuple[tuple[int, int], ...] = ()

    def _matches(self, name: str) -> bool:
        return name in self._names or any(pattern.match(name) for pattern in self._patterns)

    def _look(self, tables: Mapping[int, Streams]) -> list[tuple[int, str]]:
        """All streams that match, the first pattern's first, each pattern's by name; empty where it is too soon."""
        now = self._clock.monotonic()
        sizes = tuple((partition, len(tables[partition])) for partition in sorted(tables))
        if sizes == self._looked or now - self._looked_at < _LOOK_SECONDS:
            return []
        self._looked, self._looked_at = sizes, now
        return [
            (partition, name)
            for pattern in self._patterns
            for name, partition in sorted(
                (name, partition) for partition, names in tables.items() for name in names if pattern.match(name)
            )
        ]
