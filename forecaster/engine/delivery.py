"""What a crash may do to answers: repeat some (at least once), or nothing at all (exactly once).

The worker does the same either way; these two differ in how a partition becomes live, what a commit holds, and what
is left of the tasks when a commit fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from forecaster.clock import Clock
from forecaster.engine.checkpoint import Checkpoint, TransactionalCheckpoint
from forecaster.engine.recovery import Recovery
from forecaster.engine.report import RecoveryReport
from forecaster.engine.switches import Networks
from forecaster.engine.task import PartitionTask
from forecaster.ports import HoldingSource
from forecaster.records import OutRecord

MakeTask = Callable[[int, Networks], PartitionTask]


class AtLeastOnce:
    """Answers are kept until they are confirmed, tasks begin empty and outlive a failed commit."""

    survives_failure = True

    def __init__(self, checkpoint: Checkpoint, *, make_task: MakeTask) -> None:
        self._checkpoint = checkpoint
        self._make_task = make_task

    def __len__(self) -> int:
        """Answers that are not confirmed yet."""
        return len(self._checkpoint)

    @property
    def restoring(self) -> int:
        """Partitions that are not live yet."""
        return 0

    def assigned(self, partitions: Sequence[int], networks: Networks) -> list[PartitionTask]:
        """Partitions that are ours now; returns the tasks that are live at once."""
        return [self._make_task(partition, networks) for partition in partitions]

    def restored(self, networks: Networks) -> list[PartitionTask]:
        """Tasks that have become live since."""
        return []

    @property
    def has_failed_restore(self) -> bool:
        """Nothing is ever restored."""
        return False

    def recovery(self) -> RecoveryReport:
        """Nothing is ever restored."""
        return RecoveryReport()

    def close(self) -> None:
        """Nothing to release."""

    def drop(self, partitions: Sequence[int]) -> None:
        """Partitions that are ours no longer."""

    def add(self, records: Iterable[OutRecord]) -> None:
        """Hand answers over.

        Raises:
            TransportError: the sink takes no more now.
        """
        self._checkpoint.add(records)

    def commit(self, offsets: Mapping[int, int], tasks: Mapping[int, PartitionTask]) -> None:
        """Confirm all answers so far and the offsets they answer.

        Raises:
            TransportError: not confirmed.
        """
        self._checkpoint.commit(offsets)

    def start_over(self, partitions: Sequence[int]) -> None:
        """Nothing to do: nothing was lost."""


class ExactlyOnce:
    """Answers, state and offsets are one transaction; a task that was in a failed one is restored from the last."""

    survives_failure = False

    def __init__(
        self, source: HoldingSource, checkpoint: TransactionalCheckpoint, recovery: Recovery, *, clock: Clock
    ) -> None:
        self._source = source
        self._checkpoint = checkpoint
        self._recovery = recovery
        self._clock = clock

    def __len__(self) -> int:
        """Answers that are not confirmed yet."""
        return len(self._checkpoint)

    @property
    def restoring(self) -> int:
        """Partitions that are not live yet."""
        return len(self._recovery)

    def assigned(self, partitions: Sequence[int], networks: Networks) -> list[PartitionTask]:
        """Partitions that are ours now; none is live before its state is restored."""
        self._recovery.begin(partitions)
        return []

    def restored(self, networks: Networks) -> list[PartitionTask]:
        """Tasks that have become live since.

        Raises:
            ForecasterError: a partition cannot be restored.
        """
        return self._recovery.advance(networks)

    @property
    def has_failed_restore(self) -> bool:
        """A partition could not be restored, and is not live since."""
        return self._recovery.has_failed

    def recovery(self) -> RecoveryReport:
        """What is being restored, and what became live since the last report."""
        return self._recovery.report()

    def close(self) -> None:
        """Release what restoring holds open. Idempotent."""
        self._recovery.close()

    def drop(self, partitions: Sequence[int]) -> None:
        """Partitions that are ours no longer."""
        self._recovery.drop(partitions)

    def add(self, records: Iterable[OutRecord]) -> None:
        """Hand answers over, in the transaction under way.

        Raises:
            TransportError: the transaction is lost.
        """
        self._checkpoint.add(records)

    def commit(self, offsets: Mapping[int, int], tasks: Mapping[int, PartitionTask]) -> None:
        """Confirm all answers so far, the state that goes with them, and the offsets they answer.

        Raises:
            TransportError: the transaction is lost, or its outcome is not known.
        """
        now = self._clock.monotonic()
        state = {partition: tasks[partition].export_state(now) for partition in offsets}
        self._checkpoint.commit(offsets, state)

    def start_over(self, partitions: Sequence[int]) -> None:
        """Throw the transaction away and restore these partitions from the last one that was committed.

        Raises:
            TransportError: no new transaction can be had yet; calling again tries again.
        """
        self._source.hold()
        self._recovery.begin(partitions)
        self._checkpoint.start_over()


Delivery = AtLeastOnce | ExactlyOnce
