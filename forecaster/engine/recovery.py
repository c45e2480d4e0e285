"""Brings new partitions to where their committed offset stands: pages, then the replay of the gap, then live.

    assigned ─▶ waiting for its place ─▶ reading (a thread beside the loop) ─▶ replaying (in parts) ─▶ released
                                            │ state and offset do not agree yet
                                            └──▶ reading on, until the deadline

Nothing here publishes. The loop goes on with its other partitions meanwhile.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

from forecaster.clock import Clock
from forecaster.crash_points import reach
from forecaster.engine.pacing import PartSize
from forecaster.engine.report import Doubt, RecoveryReport, Restored, Restoring, StandbyReport
from forecaster.engine.restore import Restore, log_doubt
from forecaster.engine.standby import Standby
from forecaster.engine.switches import Networks
from forecaster.engine.task import PartitionTask
from forecaster.errors import StateError
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.ports import HoldingSource, RecoveryStore
from forecaster.state.copy import StateCopy

log = logging.getLogger(__name__)

_MOST_READING = 4
"""Threads at once; more would only share one interpreter, and open more connections."""
_TURN_SECONDS = 0.1
_PROGRESS_SECONDS = 5.0


class Recovery:
    """Restores partitions one beside the other.

    Args:
        make_task: an empty task for a partition, without networks.
        network: the serving expert of a `team`.
        deadline_seconds: longest wait for state and committed offset to agree.
        standby: warm copies of what others own, if any are kept.
    """

    def __init__(
        self,
        source: HoldingSource,
        store: RecoveryStore,
        *,
        make_task: Callable[[int, Networks], PartitionTask],
        network: Callable[[str], RecurrentExpert],
        clock: Clock,
        deadline_seconds: float,
        standby: Standby | None = None,
    ) -> None:
        self._source = source
        self._store = store
        self._make_task = make_task
        self._network = network
        self._clock = clock
        self._deadline = deadline_seconds
        self._standby = standby
        self._pending: dict[int, Restore | None] = {}
        self._tasks: dict[int, PartitionTask] = {}
        """Being replayed."""
        self._failed: set[int] = set()
        """Whose last restore has failed; it is begun anew as long as the loop goes on."""
        self._restored: list[Restored] = []
        self._doubts: Counter[Doubt] = Counter()
        self._part = PartSize(_TURN_SECONDS / 2)
        self._told_at = clock.monotonic()

    def __len__(self) -> int:
        """Partitions that are not live yet."""
        return len(self._pending)

    @property
    def has_failed(self) -> bool:
        """A partition could not be restored, and is not live since."""
        return bool(self._failed)

    def begin(self, partitions: Sequence[int]) -> None:
        """These partitions are ours and have to be restored."""
        for partition in partitions:
            self._abandon(partition)
            self._pending[partition] = None

    def drop(self, partitions: Sequence[int]) -> None:
        """These partitions are no longer ours."""
        for partition in partitions:
            self._abandon(partition)
        if self._standby is not None:
            self._standby.give_back(partitions)

    def advance(self, networks: Networks) -> list[PartitionTask]:
        """Go on with every partition, for a tenth of a second at most; returns the tasks that are live now.

        Args:
            networks: those that should serve: at once where nothing was kept, else from the next boundary on.

        Raises:
            ForecasterError: a partition cannot be restored.
        """
        if self._standby is not None:
            self._standby.start()
        began = self._clock.monotonic()
        live = []
        for partition in sorted(self._source.waiting() & set(self._pending)):
            restore = self._pending[partition]
            if restore is None:
                self._read(partition)
            elif restore.is_read:
                task = self._advance(restore, networks, until=began + _TURN_SECONDS)
                if task is not None:
                    live.append(task)
        self._tell()
        return live

    def report(self) -> RecoveryReport:
        """What is being restored now, and what became live or was doubted since the last report."""
        kept = self._standby.report() if self._standby is not None else StandbyReport()
        kept.doubts.update(self._doubts)
        self._doubts.clear()
        restored, self._restored = tuple(self._restored), []
        return RecoveryReport(self._progress(), restored, kept)

    def close(self) -> None:
        """Give up what is under way, and release every connection. Idempotent."""
        for partition in list(self._pending):
            self._abandon(partition)
        if self._standby is not None:
            self._standby.close()
        self._store.close()

    def _abandon(self, partition: int) -> None:
        self._failed.discard(partition)
        self._tasks.pop(partition, None)
        restore = self._pending.pop(partition, None)
        if restore is not None:
            restore.give_up()

    def _read(self, partition: int) -> None:
        """Begin to read, unless enough others do."""
        reading = sum(restore is not None and not restore.is_read for restore in self._pending.values())
        if reading < _MOST_READING:
            self._start(partition, self._standby.take(partition) if self._standby is not None else None)

    def _start(self, partition: int, copy: StateCopy | None) -> None:
        restore = Restore(partition, self._store, copy=copy, clock=self._clock, deadline_seconds=self._deadline)
        self._pending[partition] = restore
        restore.start()

    def _advance(self, restore: Restore, networks: Networks, *, until: float) -> PartitionTask | None:
        """Restore and replay what was read; the task when it is live.

        Raises:
            ForecasterError: the partition could not be read, or what was read is no state of it.
        """
        self._doubts.update(restore.doubts)
        restore.doubts.clear()
        if restore.error is not None:
            # Read anew at the next turn: what went wrong once would come up at every turn, though all is well again.
            self._pending[restore.partition] = None
            self._failed.add(restore.partition)
            raise restore.error
        task = self._tasks.get(restore.partition)
        if task is None:
            try:
                task = self._tasks[restore.partition] = self._make(restore, networks)
            except StateError as error:
                if restore.kind != "standby":
                    raise
                self._doubts[Doubt.REFUSED] += 1
                log_doubt(restore.partition, Doubt.REFUSED, str(error))
                self._start(restore.partition, None)
                return None
        while self._replay(restore, task):
            if self._clock.monotonic() >= until:
                return None
        self._release(restore, task, networks)
        return task

    def _make(self, restore: Restore, networks: Networks) -> PartitionTask:
        task = self._make_task(restore.partition, {})
        if restore.state:
            task.restore_state(restore.state, committed=restore.committed, network=self._network)
        else:
            task.begin_fresh(restore.committed, networks, stale_keys=restore.stale_keys)
        return task

    def _replay(self, restore: Restore, task: PartitionTask) -> bool:
        """Take one part of the readings in again; true while some are left."""
        part = restore.readings[restore.replayed : restore.replayed + self._part.records]
        if part:
            started = self._clock.monotonic()
            task.replay(part, self._clock)
            self._part.took(len(part), self._clock.monotonic() - started)
            restore.replayed += len(part)
            reach("in_replay")
        return restore.replayed < len(restore.readings)

    def _release(self, restore: Restore, task: PartitionTask, networks: Networks) -> None:
        partition = restore.partition
        if restore.state:
            task.finish_replay(restore.committed)
            for group, network in networks.items():
                served = task.networks.get(group)
                if served is None or served.team != network.team:
                    task.schedule(network, group=group)
        del self._pending[partition], self._tasks[partition]
        self._failed.discard(partition)
        self._source.release(partition, restore.committed)
        done = Restored(
            partition,
            restore.kind,
            self._clock.monotonic() - restore.began,
            state_records=len(restore.state),
            state_bytes=restore.state_bytes,
            replayed=restore.replayed,
        )
        self._restored.append(done)
        log.info(
            "partition restored",
            extra={
                "partition": partition,
                "kind": done.kind,
                "offset": restore.committed,
                "streams": len(task.table),
                "state_records": done.state_records,
                "state_bytes": done.state_bytes,
                "replayed": done.replayed,
                "seconds": round(done.seconds, 3),
                "read_seconds": round(restore.read_seconds, 3),
            },
        )

    def _progress(self) -> tuple[Restoring, ...]:
        return tuple(
            Restoring(partition, "waiting") if restore is None else restore.progress
            for partition, restore in sorted(self._pending.items())
        )

    def _tell(self) -> None:
        """Every few seconds of a long restore: how far it has come."""
        now = self._clock.monotonic()
        if not self._pending:
            self._told_at = now
        elif now - self._told_at >= _PROGRESS_SECONDS:
            self._told_at = now
            for at in self._progress():
                log.info(
                    "restoring partition",
                    extra={"partition": at.partition, "stage": at.stage, "done": at.done, "total": at.total},
                )
