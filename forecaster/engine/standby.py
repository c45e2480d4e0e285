"""Keeps copies of the state of partitions that other workers own, so that one that comes is restored from memory.

    others' ─▶ followed from the beginning of its log ─▶ current ─▶ taken by a restore
                  │ no room: the largest goes            │ no longer others'
                  └──▶ not held until partitions move     └──▶ forgotten

A copy can only save reading: whoever takes one checks it against the log, and reads the log where there is any doubt.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing

from forecaster.clock import Clock
from forecaster.engine.report import Doubt, StandbyReport
from forecaster.errors import ForecasterError
from forecaster.ports import StateTail
from forecaster.records import RawRecord
from forecaster.state.copy import StateCopy

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_PAUSE_SECONDS = 0.1
_BUSY_RECORDS = 100
_CLOSE_SECONDS = 5.0
_WARM_SECONDS = 240.0
"""Half the time after which clients close connections that nobody uses."""
_STALE_SECONDS = 600.0
"""Far below the day for which a compacted topic keeps tombstones: a copy never misses one."""


class Standby:
    """Copies on a thread of their own, made once and started by the first `start`.

    Args:
        open_tail: a new reader of the state topic; called on the thread, again after each failure.
        keep_warm: opens what a restore uses, or keeps it open; called on the thread, every few minutes.
        max_bytes: of keys and values held; where they outgrow it, the largest copy goes.
        retry_seconds: pause after a failure.
    """

    def __init__(
        self,
        open_tail: Callable[[], StateTail],
        *,
        keep_warm: Callable[[], None],
        clock: Clock,
        max_bytes: int,
        retry_seconds: float = 5.0,
    ) -> None:
        self._open_tail = open_tail
        self._keep_warm = keep_warm
        self._warm_until = clock.monotonic()
        self._clock = clock
        self._max_bytes = max_bytes
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._copies: dict[int, StateCopy] = {}
        self._current_at: dict[int, float] = {}
        """When a copy was last known to reach the end of the log, or was begun."""
        self._ours: set[int] = set()
        self._too_large: set[int] = set()
        self._nbytes = 0
        self._doubts: Counter[Doubt] = Counter()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow every partition that is not ours. Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="standby", daemon=True)
            self._thread.start()

    def take(self, partition: int) -> StateCopy | None:
        """The copy of a partition that is ours now, for good; ``None`` where nothing useful is held."""
        with self._lock:
            self._ours.add(partition)
            self._too_large.clear()  # there is room again
            copy = self._forget(partition)
            began = self._current_at.pop(partition, 0.0)
            if copy is None or copy.last is None:
                return None
            behind = self._clock.monotonic() - began
            if behind > _STALE_SECONDS:
                self._doubts[Doubt.STALE] += 1
                log.warning(
                    "standby fell behind", extra={"partition": partition, "seconds": round(behind, 1), "hint": _HINT}
                )
                return None
            return copy

    def give_back(self, partitions: Iterable[int]) -> None:
        """These partitions are others' again."""
        with self._lock:
            self._ours.difference_update(partitions)
            self._too_large.clear()

    def report(self) -> StandbyReport:
        """What is held now, and what was doubted since the last report."""
        with self._lock:
            doubts, self._doubts = self._doubts, Counter()
            return StandbyReport(partitions=len(self._copies), nbytes=self._nbytes, doubts=doubts)

    def turn(self, tail: StateTail) -> int:
        """Follow what is to be held now and take in what has come; how many records that were. On the thread.

        Raises:
            ForecasterError: a partition cannot be followed.
        """
        self._warm_up()
        wanted, anew = self._choose(tail.partitions())
        tail.follow(wanted, anew=anew)
        records = tail.poll(_POLL_SECONDS)
        self._take_in(records, tail.current())
        return len(records)

    def close(self) -> None:
        """End the thread and forget all copies. Idempotent."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)  # a daemon: where no broker answers, the process does not wait for it

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with closing(self._open_tail()) as tail:
                    while not self._over.is_set():
                        if self.turn(tail) < _BUSY_RECORDS:
                            self._over.wait(_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - the top of a thread without which the worker goes on as well
                self._fail(error)
                self._over.wait(self._retry_seconds)
        with self._lock:
            self._forget_all()

    def _warm_up(self) -> None:
        """See that restores find their connections open: the first one, and one after a quiet week."""
        now = self._clock.monotonic()
        if now < self._warm_until:
            return
        self._warm_until = now + _WARM_SECONDS
        try:
            self._keep_warm()
        except ForecasterError as error:
            log.warning(
                "connections for restores cannot be kept open",
                extra={"error": str(error), "hint": error.hint or "Nothing is lost: a restore opens them itself."},
            )

    def _choose(self, there: frozenset[int]) -> tuple[frozenset[int], frozenset[int]]:
        """Partitions to hold, and those among them whose copy begins now."""
        with self._lock:
            wanted = there - self._ours - self._too_large
            for partition in set(self._copies) - wanted:
                self._forget(partition)
            anew = wanted - set(self._copies)
            for partition in anew:
                self._copies[partition] = StateCopy()
                self._current_at[partition] = self._clock.monotonic()
            return wanted, anew

    def _take_in(self, records: Iterable[RawRecord], current: frozenset[int]) -> None:
        with self._lock:
            for record in records:
                copy = self._copies.get(record.partition)
                if copy is None:  # ours since this poll began, or too large
                    continue
                before = copy.nbytes
                copy.take(record)
                self._nbytes += copy.nbytes - before
                if self._nbytes > self._max_bytes:
                    self._make_room()
            for partition in current & set(self._copies):
                self._current_at[partition] = self._clock.monotonic()

    def _make_room(self) -> None:
        largest = max(self._copies, key=lambda partition: self._copies[partition].nbytes)
        held = self._copies[largest].nbytes
        self._too_large.add(largest)
        self._forget(largest)
        self._doubts[Doubt.FULL] += 1
        log.warning(
            "standby holds a partition no longer",
            extra={
                "partition": largest,
                "bytes": held,
                "limit": self._max_bytes,
                "hint": "Raise recovery.standby_bytes; without its copy the partition is restored from the topic.",
            },
        )

    def _forget(self, partition: int) -> StateCopy | None:
        copy = self._copies.pop(partition, None)
        if copy is not None:
            self._nbytes -= copy.nbytes
        return copy

    def _forget_all(self) -> None:
        self._copies.clear()
        self._nbytes = 0

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._forget_all()
            self._doubts[Doubt.FAILED] += 1
        hint = error.hint if isinstance(error, ForecasterError) else "This is a mistake of the program: report it."
        log.warning("standby failed; it begins again", extra={"error": str(error), "hint": hint or _HINT})


_HINT = "Nothing is lost: the partition is restored from the topic."
