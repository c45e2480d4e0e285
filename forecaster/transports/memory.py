"""Source and sink in memory, with the accidents of a broker as marks between the records, for tests."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from forecaster.errors import DeliveryFailed, TransportError, TransportTimeout
from forecaster.ports import AssignmentListener, Sink
from forecaster.records import OutRecord, RawRecord


@dataclass(frozen=True)
class Pause:
    """The next ``polls`` polls that come to this mark find nothing."""

    polls: int = 1


@dataclass(frozen=True)
class Abort:
    """The poll that comes to this mark raises ``error``; the one after goes on behind it."""

    error: Exception = field(default_factory=lambda: TransportError("The source was aborted by its script."))


@dataclass(frozen=True)
class EndOfInput:
    """The source is exhausted here. Only a source made by `MemorySource.restarted` goes past the mark."""


@dataclass(frozen=True)
class Assign:
    """These partitions come to this member; they are read from their committed offset."""

    partitions: tuple[int, ...]


@dataclass(frozen=True)
class Revoke:
    """These partitions leave, in good order: the listener may commit."""

    partitions: tuple[int, ...]


@dataclass(frozen=True)
class Lose:
    """These partitions are gone already: a commit of them raises."""

    partitions: tuple[int, ...]


Mark = Pause | Abort | EndOfInput | Assign | Revoke | Lose


class MemorySource:
    """A `Source` over a script of records and marks. Never waits.

    The first poll assigns every partition, unless the script begins with an `Assign`. Records of partitions that are
    not assigned are kept and follow when the partition comes back, from its committed offset on. A poll ends at a
    mark, so what stands before a mark is delivered before it happens.

    Args:
        script: records, each partition's with rising offsets, and marks between them.
        topic: name of the source.
        partitions: how many it has, assigned or not.
    """

    def __init__(
        self, script: Iterable[RawRecord | Mark] = (), *, topic: str = "readings", partitions: int = 1
    ) -> None:
        self.topic = topic
        self.committed: dict[int, int] = {}
        """Partition -> next offset, as last committed; tests read it."""
        self.commits: list[dict[int, int]] = []
        """Every commit in order."""
        self._partitions = tuple(range(partitions))
        self._script: deque[RawRecord | Mark] = deque()
        self._arrived: list[RawRecord] = []
        self._pending: deque[RawRecord] = deque()
        self._positions: dict[int, int] = {}
        self._listener: AssignmentListener | None = None
        self._assigned: set[int] = set()
        self._has_begun = False
        self._is_closed = False
        self.extend(script)

    def extend(self, script: Iterable[RawRecord | Mark]) -> None:
        """Records and marks that come after all there are."""
        for item in script:
            if isinstance(item, RawRecord) and item.partition not in self._partitions:
                raise ValueError(
                    f"Record at offset {item.offset} is of partition {item.partition}; "
                    f"the source has {len(self._partitions)} partitions."
                )
            self._script.append(item)

    def restarted(self) -> MemorySource:
        """A new source over the same script, as a restarted member finds it: from the committed offsets on.

        Marks this source has come past are left out; the `EndOfInput` it stands at is passed.
        """
        rest = list(self._script)
        if rest and isinstance(rest[0], EndOfInput):
            del rest[0]
        again = MemorySource([*self._arrived, *rest], topic=self.topic, partitions=len(self._partitions))
        again.committed = dict(self.committed)
        return again

    def subscribe(self, listener: AssignmentListener) -> None:
        if self._listener is not None:
            raise TransportError(f"Source {self.topic} has a subscriber already.", hint="Subscribe once.")
        self._listener = listener

    def poll(self, max_records: int, timeout_seconds: float) -> list[RawRecord]:
        listener = self._require_open()
        if not self._has_begun:
            self._has_begun = True
            if not (self._script and isinstance(self._script[0], Assign)):
                self._assign(listener, self._partitions)
                return []
        while len(self._pending) < max_records and self._script and isinstance(self._script[0], RawRecord):
            record = self._script.popleft()
            assert isinstance(record, RawRecord)
            self._arrived.append(record)
            if self._is_due(record):
                self._pending.append(record)
        if not self._pending and self._script and not isinstance(self._script[0], RawRecord):
            self._obey(listener, self._script[0])
            return []
        batch = [self._pending.popleft() for _ in range(min(max_records, len(self._pending)))]
        for record in batch:
            self._positions[record.partition] = record.offset + 1
        return batch

    def commit(self, offsets: Mapping[int, int]) -> None:
        foreign = sorted(set(offsets) - self._assigned)
        if foreign or self._is_closed:
            raise TransportError(
                f"Commit of partitions {foreign or sorted(offsets)} of {self.topic}, "
                f"which are not assigned; assigned are {sorted(self._assigned)}."
            )
        self.committed.update(offsets)
        self.commits.append(dict(offsets))

    def lag(self) -> Mapping[int, int]:
        waiting = Counter(record.partition for record in self._pending)
        waiting.update(item.partition for item in self._script if isinstance(item, RawRecord))
        return {partition: waiting[partition] for partition in sorted(self._assigned)}

    def is_exhausted(self) -> bool:
        return self._has_begun and not self._pending and (not self._script or isinstance(self._script[0], EndOfInput))

    def close(self) -> None:
        if self._is_closed:
            return
        if self._listener is not None and self._assigned:
            self._listener.revoked(sorted(self._assigned))
        self._assigned.clear()
        self._is_closed = True

    def _require_open(self) -> AssignmentListener:
        if self._is_closed:
            raise TransportError(f"Source {self.topic} is closed.")
        if self._listener is None:
            raise TransportError(f"Source {self.topic} has no subscriber.", hint="Call subscribe before poll.")
        return self._listener

    def _obey(self, listener: AssignmentListener, mark: RawRecord | Mark) -> None:
        match mark:
            case EndOfInput():
                return
            case Pause(polls) if polls > 1:
                self._script[0] = Pause(polls - 1)
                return
        self._script.popleft()
        match mark:
            case Abort(error):
                raise error
            case Assign(partitions):
                self._assign(listener, [partition for partition in partitions if partition not in self._assigned])
            case Revoke(partitions):
                listener.revoked([partition for partition in partitions if partition in self._assigned])
                self._drop(partitions)
            case Lose(partitions):
                gone = [partition for partition in partitions if partition in self._assigned]
                self._drop(partitions)
                listener.lost(gone)

    def _assign(self, listener: AssignmentListener, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._positions[partition] = self.committed.get(partition, 0)
        self._assigned.update(partitions)
        self._pending = deque(record for record in self._arrived if self._is_due(record))
        listener.assigned(list(partitions))

    def _drop(self, partitions: Sequence[int]) -> None:
        self._assigned.difference_update(partitions)
        self._pending = deque(record for record in self._pending if record.partition in self._assigned)

    def _is_due(self, record: RawRecord) -> bool:
        return record.partition in self._assigned and record.offset >= self._positions[record.partition]


class MemorySink(Sink):
    """A `Sink` that keeps what it is given; `records` are those acknowledged by a flush.

    `refuse` and `delay_flushes` make it fail the way a broker does: records are taken, and the flush says that some
    were not delivered.
    """

    def __init__(self) -> None:
        self.records: list[OutRecord] = []
        """Acknowledged, in the order sent."""
        self.unflushed: list[OutRecord] = []
        """Sent and not yet acknowledged."""
        self.is_closed = False
        self._refusals = 0
        self._delays = 0

    def refuse(self, count: int) -> None:
        """The next ``count`` records that reach a flush are not delivered, and that flush raises."""
        self._refusals += count

    def delay_flushes(self, count: int) -> None:
        """The next ``count`` flushes raise `TransportTimeout`, their records stay under way."""
        self._delays += count

    def of_topic(self, topic: str) -> list[OutRecord]:
        """Acknowledged records of one topic."""
        return [record for record in self.records if record.topic == topic]

    def send(self, record: OutRecord) -> None:
        if self.is_closed:
            raise TransportError(f"Record for {record.topic} was sent to a closed sink.")
        self.unflushed.append(record)

    def flush(self, timeout_seconds: float) -> None:
        if self.is_closed:
            raise TransportError("A closed sink was flushed.")
        if self._delays:
            self._delays -= 1
            raise TransportTimeout(f"{len(self.unflushed)} records were not acknowledged within {timeout_seconds:g} s.")
        refused = min(self._refusals, len(self.unflushed))
        sent = len(self.unflushed)
        self._refusals -= refused
        self.records.extend(self.unflushed[refused:])
        self.unflushed.clear()
        if refused:
            raise DeliveryFailed(f"{refused} of {sent} records were not delivered.")

    def close(self) -> None:
        self.is_closed = True
