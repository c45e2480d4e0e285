"""A recording as a source of readings that can be played up to a given reading."""

from __future__ import annotations

from collections.abc import Mapping

from forecaster.backtest.recording import Recording
from forecaster.errors import TransportError
from forecaster.ports import AssignmentListener
from forecaster.records import RawRecord
from forecaster.transports.readings import RowEncoder
from forecaster.transports.tables import COMMON_FORMS, TableLayout

PARTITION = 0


class RecordingSource:
    """A `Source` of one partition; the offset of a record is its place in the recording. Never waits.

    Args:
        recording: what to play.
        layout: names of the JSON fields to write.
        topic: name of the source.
    """

    def __init__(self, recording: Recording, *, layout: TableLayout = COMMON_FORMS, topic: str = "readings") -> None:
        self.topic = topic
        self.position = 0
        """Offset of the next record."""
        self.until = len(recording)
        """Offset at which to hand over nothing more, for now."""
        self.committed: dict[int, int] = {}
        self._recording = recording
        self._encoder = RowEncoder(layout)
        self._listener: AssignmentListener | None = None
        self._has_begun = False

    def subscribe(self, listener: AssignmentListener) -> None:
        if self._listener is not None:
            raise TransportError(f"Source {self.topic} has a subscriber already.", hint="Subscribe once.")
        self._listener = listener

    def poll(self, max_records: int, timeout_seconds: float) -> list[RawRecord]:
        if self._listener is None:
            raise TransportError(f"Source {self.topic} has no subscriber.", hint="Call subscribe before poll.")
        if not self._has_begun:
            self._has_begun = True
            self._listener.assigned((PARTITION,))
            return []
        end = min(self.position + max_records, self.until)
        records = [
            RawRecord(self.topic, PARTITION, offset, -1.0, *self._encoder.encode(self._recording.row(offset)))
            for offset in range(self.position, end)
        ]
        self.position = end
        return records

    def commit(self, offsets: Mapping[int, int]) -> None:
        self.committed.update(offsets)

    def lag(self) -> Mapping[int, int]:
        return {PARTITION: len(self._recording) - self.position} if self._has_begun else {}

    def is_exhausted(self) -> bool:
        return self.position == len(self._recording)

    def close(self) -> None:
        if self._has_begun and self._listener is not None:
            self._listener.revoked((PARTITION,))
        self._has_begun = False
