"""Brings what one partition needs to become live: committed offset, state that belongs to it, readings since."""

from __future__ import annotations

import logging
import threading

from forecaster.clock import Clock
from forecaster.crash_points import reach
from forecaster.engine.journal import TaskMeta, decode_meta
from forecaster.engine.keeper import META_KEY, RESET_HINT
from forecaster.engine.report import Doubt, RestoreKind, Restoring
from forecaster.errors import PageCorrupt, StateGap
from forecaster.ports import FRESH, KEPT, RecoveryStore
from forecaster.records import RawRecord, StateRecord
from forecaster.state.copy import StateCopy

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.05


class Restore:
    """The reading of one partition, on a thread of its own.

    The thread writes, the loop reads; what `state` and the others hold counts once `is_read`.

    Args:
        copy: a warm copy of the state to begin with. It is read on to the end of the log like any other; where the log
            does not go on behind it, or it does not fit the committed offset in time, the log is read from the
            beginning.
        deadline_seconds: longest wait for state and committed offset to agree.
    """

    def __init__(
        self,
        partition: int,
        store: RecoveryStore,
        *,
        copy: StateCopy | None,
        clock: Clock,
        deadline_seconds: float,
    ) -> None:
        self.partition = partition
        self.kind: RestoreKind = "cold" if copy is None else "standby"
        self.committed = 0
        self.state: list[StateRecord] = []
        """Newest record of every key; none where the partition begins without."""
        self.stale_keys: list[str] = []
        """Of an earlier life, where the partition begins without state."""
        self.readings: list[RawRecord] = []
        """To be taken in again."""
        self.error: Exception | None = None
        """What ended the reading."""
        self.doubts: list[Doubt] = []
        """Why the warm copy was not used."""
        self.replayed = 0
        """How many of `readings` the loop has taken in again."""
        self.began = clock.monotonic()
        self.read_seconds = 0.0
        """How long the thread took."""
        self._store = store
        self._copy = StateCopy() if copy is None else copy
        self._clock = clock
        self._deadline_seconds = deadline_seconds
        self._is_given_up = False
        self._thread = threading.Thread(target=self._run, name=f"restore-{partition}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def give_up(self) -> None:
        """The partition is not ours any more: the thread ends by itself, and what it brings counts for nothing."""
        self._is_given_up = True

    @property
    def is_read(self) -> bool:
        """The thread has ended: with all that is needed, or with `error`."""
        return not self._thread.is_alive()

    @property
    def state_bytes(self) -> int:
        """Of the state records."""
        return self._copy.nbytes

    @property
    def progress(self) -> Restoring:
        """How far it has come."""
        if self.is_read:
            return Restoring(self.partition, "replaying", self.replayed, len(self.readings))
        return Restoring(self.partition, "reading", self._copy.next_offset, self._copy.target)

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - raised again on the loop's thread
            self.error = error
        self.read_seconds = self._clock.monotonic() - self.began

    def _read(self) -> None:
        """Read until state and committed offset speak of the same moment."""
        pause, deadline = threading.Event(), self.began + self._deadline_seconds
        self._store.take_over(self.partition)
        while not self._is_given_up:
            # In this order: a commit that ends in between is then seen in the state, and the next turn sees both.
            self.committed, note = self._store.committed(self.partition)
            if not self._store.state(self.partition, self._copy, self._gives_up):
                self._begin_cold(Doubt.CHANGED, "the log does not go on behind it")
                continue
            reach("in_restore")
            if note == FRESH and self._copy.get(META_KEY) is not None:
                if self._store.committed(self.partition) != (self.committed, note):
                    continue  # the first commit ended in between
                if self.kind == "standby":
                    self._begin_cold(Doubt.REFUSED, "it holds state, and the offset was committed without")
                    continue
                raise StateGap(
                    f"The group had no offset for partition {self.partition}, but its state topic holds what was "
                    "learnt from readings that were answered.",
                    hint="Were the readings made anew, or the group's offsets deleted or expired? Is kafka.group_id "
                    f"another one, or topics.state another group's? {RESET_HINT}",
                )
            if note != KEPT:
                return self._begin_without_state(note)
            meta = self._meta()
            if meta is not None and meta.next_offset == self.committed:
                self.readings = self._store.readings(self.partition, meta.replay_from, self.committed, self._gives_up)
                self.state = self._copy.records()
                return None
            if self._clock.monotonic() > deadline:
                found = "holds no meta record" if meta is None else f"stands at offset {meta.next_offset}"
                if self.kind != "standby":
                    told = f"State of partition {self.partition} was committed with offset {self.committed}"
                    raise StateGap(f"{told}; the state topic {found}.", hint=RESET_HINT)
                self._begin_cold(Doubt.REFUSED, f"it {found}, committed is {self.committed}")
                deadline = self._clock.monotonic() + self._deadline_seconds
            pause.wait(_PAUSE_SECONDS)
        return None

    def _meta(self) -> TaskMeta | None:
        content = self._copy.get(META_KEY)
        try:
            return decode_meta(content) if content is not None else None
        except PageCorrupt:
            if self.kind != "standby":
                raise
            return None  # not a word of a copy is believed before the log itself has said it

    def _gives_up(self) -> bool:
        return self._is_given_up

    def _begin_cold(self, doubt: Doubt, detail: str) -> None:
        """Forget what was read so far: the state is read from the beginning of its log."""
        if self.kind == "standby":
            self.doubts.append(doubt)
            log_doubt(self.partition, doubt, detail)
        self.kind = "cold"
        self._copy = StateCopy()

    def _begin_without_state(self, note: str) -> None:
        self.kind = "fresh"
        self.stale_keys = [record.key for record in self._copy.records()]
        if note != FRESH or self.stale_keys:
            log.warning(
                "partition begins without what was learnt before",
                extra={
                    "partition": self.partition,
                    "offset": self.committed,
                    "hint": "Its offset was committed without state: by delivery at_least_once, or set by hand.",
                },
            )


def log_doubt(partition: int, doubt: Doubt, detail: str) -> None:
    """Say that a warm copy is not used."""
    log.warning(
        "standby not used; reading the state from the beginning",
        extra={
            "partition": partition,
            "doubt": doubt.value,
            "detail": detail,
            "hint": "Nothing is lost. Where it comes often, the runbook says what to look at.",
        },
    )
