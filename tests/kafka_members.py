"""A group member for tests: keeps what it is told and handed, commits what it has when a partition leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from forecaster.errors import TransportError
from forecaster.ports import Source
from forecaster.records import RawRecord

DEADLINE_SECONDS = 30.0


class Member:
    """Listener and loop of one source. ``events`` holds what the listener was told, in order."""

    def __init__(self, source: Source, *, commit_on_revoke: bool = True) -> None:
        self.source = source
        self.records: list[RawRecord] = []
        self.events: list[tuple[str, list[int]]] = []
        self.threads: set[str] = set()
        self.assigned_now: set[int] = set()
        self.next_offsets: dict[int, int] = {}
        self._commit_on_revoke = commit_on_revoke
        source.subscribe(self)

    def assigned(self, partitions: Sequence[int]) -> None:
        self._note("assigned", partitions)
        self.assigned_now |= set(partitions)

    def revoked(self, partitions: Sequence[int]) -> None:
        self._note("revoked", partitions)
        if self._commit_on_revoke:
            self.source.commit({p: self.next_offsets[p] for p in partitions if p in self.next_offsets})
        self._drop(partitions)

    def lost(self, partitions: Sequence[int]) -> None:
        self._note("lost", partitions)
        self._drop(partitions)

    def poll(self) -> list[RawRecord]:
        """One poll, whose records count as answered."""
        records = self.source.poll(500, 0.1)
        for record in records:
            self.next_offsets[record.partition] = record.offset + 1
        self.records += records
        return records

    def commit(self) -> None:
        """All that was read; once more as long as the group rebalances."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                return self.source.commit(self.next_offsets)
            except TransportError as error:
                if not error.retriable or time.monotonic() > deadline:
                    raise
                self.poll()

    @property
    def values(self) -> list[bytes | None]:
        """Values handed over so far."""
        return [record.value for record in self.records]

    def _note(self, event: str, partitions: Sequence[int]) -> None:
        self.events.append((event, sorted(partitions)))
        self.threads.add(threading.current_thread().name)

    def _drop(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.assigned_now.discard(partition)
            self.next_offsets.pop(partition, None)


def follow(*members: Member, until: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
    """Let all members poll, each on a thread of its own, until the condition holds.

    Raises:
        AssertionError: it does not hold in time.
    """
    deadline = time.monotonic() + seconds
    over = threading.Event()

    def poll(member: Member) -> None:
        try:
            while not over.is_set() and time.monotonic() < deadline:
                member.poll()
                if until():
                    over.set()
        finally:
            over.set()

    with ThreadPoolExecutor(len(members)) as pool:
        for ended in [pool.submit(poll, member) for member in members]:
            ended.result()
    told = [(member.events, len(member.records)) for member in members]
    assert until(), f"not within {seconds:g} s; members were told and handed: {told}"


def close(*members: Member) -> None:
    """Leave, whatever state the test left them in; at once, since one's farewell may wait for another's poll."""

    def leave(member: Member) -> None:
        with suppress(TransportError):
            member.source.close()

    if members:
        with ThreadPoolExecutor(len(members)) as pool:
            list(pool.map(leave, members))
