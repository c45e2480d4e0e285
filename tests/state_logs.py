"""A state topic and its readings in memory, with the accidents that befall logs: for tests of restoring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from forecaster.errors import TransportError
from forecaster.ports import KEPT
from forecaster.records import RawRecord, StateRecord
from forecaster.state.copy import StateCopy


class StateLogs:
    """Logs of state by partition, committed offsets, readings; a `RecoveryStore`, and the `StateTail` it opens."""

    def __init__(self, partitions: int = 1) -> None:
        self.logs: dict[int, list[RawRecord]] = {partition: [] for partition in range(partitions)}
        self.offsets: dict[int, tuple[int, str]] = {}
        self.source: list[RawRecord] = []
        self.read: Counter[int] = Counter()
        """Records that restores have read, by partition."""
        self.opened: list[StateTail] = []
        self.refuses_to_open = 0
        self.warmed = 0
        """How often connections were opened, or kept open."""
        self.refuses_to_warm = False
        self.is_closed = False
        self.before_state: Callable[[], None] = lambda: None
        """Called between the look at the committed offset and that at the state."""
        self._written = 0

    def write(self, partition: int, records: Iterable[StateRecord]) -> None:
        """Append records, and the marker that ends their transaction."""
        log = self.logs[partition]
        offset = log[-1].offset + 2 if log else 0
        for record in records:
            self._written += 1
            log.append(RawRecord("state", partition, offset, self._written, record.key.encode(), record.value))
            offset += 1

    def commit(self, partition: int, offset: int, records: Iterable[StateRecord], note: str = KEPT) -> None:
        """State and the offset it belongs to."""
        self.write(partition, records)
        self.offsets[partition] = (offset, note)

    def make_anew(self, partition: int) -> None:
        """The topic was deleted and made again: empty, offsets from 0."""
        self.logs[partition] = []

    def cut(self, partition: int, records: int) -> None:
        """The newest records are gone, as after an unclean election."""
        del self.logs[partition][-records:]

    def compact(self, partition: int) -> None:
        """Only the newest record of each key is left; tombstones go too."""
        newest = {record.key: record for record in self.logs[partition]}
        self.logs[partition] = [record for record in newest.values() if record.value is not None]

    def take_over(self, partition: int) -> None:
        """Nothing is left open here."""

    def committed(self, partition: int) -> tuple[int, str]:
        return self.offsets[partition]

    def state(self, partition: int, copy: StateCopy, give_up: Callable[[], bool]) -> bool:
        self.before_state()
        log = self.logs[partition]
        copy.target = log[-1].offset + 2 if log else 0
        rest = log
        if copy.last is not None:
            place = next((at for at, record in enumerate(log) if record.offset >= copy.last.offset), None)
            if place is None or not copy.ends_with(log[place]):
                return False
            rest = log[place + 1 :]
        for record in rest:
            copy.take(record)
        self.read[partition] += len(rest)
        return True

    def readings(self, partition: int, begin: int, end: int, give_up: Callable[[], bool]) -> list[RawRecord]:
        return [record for record in self.source if begin <= record.offset < end]

    def keep_warm(self) -> None:
        self.warmed += 1
        if self.refuses_to_warm:
            raise TransportError("Nobody answers.", hint="Wait.")

    def tail(self) -> StateTail:
        if self.refuses_to_open:
            self.refuses_to_open -= 1
            raise TransportError("Nobody answers.", hint="Wait.")
        self.opened.append(StateTail(self))
        return self.opened[-1]

    def close(self) -> None:
        self.is_closed = True


class StateTail:
    """Reads the logs from where it stands; ``most`` records a poll."""

    def __init__(self, logs: StateLogs, *, most: int = 1_000) -> None:
        self.most = most
        self.positions: dict[int, int] = {}
        self.error: Exception | None = None
        self.is_closed = False
        self.on_poll: Callable[[], None] = lambda: None
        self._logs = logs

    def partitions(self) -> frozenset[int]:
        return frozenset(self._logs.logs)

    def follow(self, partitions: frozenset[int], *, anew: frozenset[int]) -> None:
        kept = {partition: at for partition, at in self.positions.items() if partition in partitions - anew}
        assert set(kept) | anew == partitions, "a partition that was not read before is read from the beginning"
        self.positions = kept | dict.fromkeys(anew, 0)

    def poll(self, timeout_seconds: float) -> list[RawRecord]:
        if self.error is not None:
            raise self.error
        found: list[RawRecord] = []
        for partition, at in sorted(self.positions.items()):
            part = [record for record in self._logs.logs[partition] if record.offset >= at][: self.most - len(found)]
            if part:
                self.positions[partition] = part[-1].offset + 1
            found += part
        self.on_poll()
        return found

    def current(self) -> frozenset[int]:
        return frozenset(
            partition
            for partition, at in self.positions.items()
            if not self._logs.logs[partition] or at > self._logs.logs[partition][-1].offset
        )

    def close(self) -> None:
        self.is_closed = True
