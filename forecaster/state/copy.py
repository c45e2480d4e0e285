"""The newest record of every key of a partition's state, as far as its log has been read."""

from __future__ import annotations

from forecaster.errors import StateGap
from forecaster.records import RawRecord, StateRecord


class StateCopy:
    """Takes committed records in log order; a later record of a key replaces the earlier one, a tombstone removes it.

    What it holds depends only on how far the log was read, not on who read it, when, or in how many goes.
    """

    def __init__(self) -> None:
        self.last: RawRecord | None = None
        """The newest record taken: the log goes on behind it, if it is still the same log."""
        self.taken = 0
        """Records taken so far, superseded ones and tombstones too."""
        self.nbytes = 0
        """Of the keys and values held."""
        self.target = 0
        """Offset to which the log is being read, for whoever watches; 0 before that is known."""
        self._newest: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """Keys held."""
        return len(self._newest)

    @property
    def next_offset(self) -> int:
        """Of the log, behind the newest record taken; 0 before the first."""
        return 0 if self.last is None else self.last.offset + 1

    def take(self, record: RawRecord) -> None:
        """Take the next record of the log.

        Raises:
            StateGap: it does not stand behind the last one.
        """
        if record.offset < self.next_offset:
            raise StateGap(
                f"Record {record.offset} of {record.topic} partition {record.partition} came after "
                f"{self.next_offset - 1}: the log was read in a wrong order."
            )
        key = record.key or b""
        replaced = self._newest.pop(key, None)
        if replaced is not None:
            self.nbytes -= len(key) + len(replaced)
        if record.value is not None:
            self._newest[key] = record.value
            self.nbytes += len(key) + len(record.value)
        self.last = record
        self.taken += 1

    def ends_with(self, record: RawRecord) -> bool:
        """Whether this is the record taken last: then the log that holds it is the one that was copied, up to there."""
        return record == self.last

    def get(self, key: str) -> bytes | None:
        """The newest value of a key, ``None`` where it has none."""
        return self._newest.get(key.encode())

    def records(self) -> list[StateRecord]:
        """Newest record of every key, in the order of the keys."""
        return [StateRecord(key.decode(), value) for key, value in sorted(self._newest.items())]
