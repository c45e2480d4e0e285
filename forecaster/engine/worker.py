"""A member of the group at work: poll, answer, publish, commit, one turn after the other."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from forecaster.clock import Clock
from forecaster.crash_points import reach
from forecaster.engine.delivery import Delivery
from forecaster.engine.pacing import PartSize
from forecaster.engine.pipeline import STATUSES
from forecaster.engine.report import Failure, LeadScores, LoopReport, Move, StepReport
from forecaster.engine.task import PartitionTask, TaskResult
from forecaster.engine.together import flush_together
from forecaster.errors import (
    DeliveryFailed,
    Fenced,
    Rebalancing,
    TransportError,
    TransportTimeout,
    TransportUnavailable,
)
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.decisions import LiveScore, Trial
from forecaster.ports import Source
from forecaster.records import OutRecord, RawRecord
from forecaster.series.groups import DEFAULT

log = logging.getLogger(__name__)

_TURN_SECONDS = 0.1
_LONGEST_SILENCE_SECONDS = 1.0
"""Between two polls, whatever the backlog: a rebalance of the whole group waits for the slowest member's poll."""
_MOST_FAILURES = 8
_MOST_FENCED = 1
"""Starting over takes this worker's name back from whoever holds it, and ends a transaction they may have open. Once,
the cause may be a pause of our own that was too long; twice in a row it is another process under the same name, or a
machine that cannot keep its session, and an end that the supervisor counts tells an operator so."""
_KINDS: dict[type[TransportError], Failure] = {
    Fenced: "fenced",
    Rebalancing: "rebalancing",
    TransportTimeout: "timeout",
    DeliveryFailed: "undelivered",
    TransportUnavailable: "unavailable",
}
_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 5.0


class Worker:
    """Owns the tasks of the partitions assigned to it. One thread; the source calls back on it.

    Args:
        delivery: makes tasks live and their answers durable.
        commit_interval_seconds: from the beginning of a commit to that of the next; at least half of it is between
            them.
        commit_max_records: answers after which a commit comes early.
        max_poll_records: records taken at once.
        give_up_seconds: the broker may be away for this long before the worker stops with the broker's error.
    """

    def __init__(
        self,
        source: Source,
        delivery: Delivery,
        *,
        leads: tuple[int, ...],
        clock: Clock,
        commit_interval_seconds: float,
        commit_max_records: int,
        max_poll_records: int,
        give_up_seconds: float,
    ) -> None:
        self.tasks: dict[int, PartitionTask] = {}
        self.networks: dict[str, RecurrentExpert] = {}
        """By group, the network that new tasks start with and present ones switch to at their next boundary."""
        self.accepted = 0
        """Readings answered by a forecast since the start."""
        self.accepted_of: Counter[str] = Counter()
        """The same by group."""
        self.refused = 0
        """Readings answered by a dead letter since the start."""
        self._trials: dict[str, tuple[Trial, RecurrentExpert]] = {}
        self._source = source
        self._delivery = delivery
        self._leads = leads
        self._clock = clock
        self._interval = commit_interval_seconds
        self._max_uncommitted = commit_max_records
        self._max_poll_records = max_poll_records
        self._give_up_seconds = give_up_seconds
        self._committed_at = clock.monotonic()
        self._committed: dict[int, int] = {}
        self._unheard: set[int] = set()
        """Partitions that were restored and have answered nothing since."""
        self._is_waited_for = False
        """The first answers of such a partition are there: they are not kept for the rest of a commit interval."""
        self._backlog: dict[int, deque[RawRecord]] = {}
        """Polled and not looked at yet, by partition; never committed, so it may be dropped."""
        self._part = PartSize(_TURN_SECONDS / 2)
        self._polled_at = clock.monotonic()
        self._failing_since: float | None = None
        self._failures = self._fenced = 0  # since the last commit
        self._failed: Counter[Failure] = Counter()  # since the last report, as what follows
        self._moves: Counter[Move] = Counter()
        self._must_start_over = False
        self._is_torn = False
        """Within a part of the work that is done as a whole or not at all; an exception that leaves it so (a second
        signal, a bug) ends the worker, and what it has in hand must not be committed on the way out."""
        self._backoff = 0.0

    @property
    def is_failing(self) -> bool:
        """The broker did not take or confirm answers; they are kept and sent again."""
        return self._failing_since is not None

    @property
    def restoring(self) -> int:
        """Partitions that are ours and not live yet."""
        return self._delivery.restoring

    @property
    def unconfirmed(self) -> int:
        """Answers that wait for the next commit."""
        return len(self._delivery)

    @property
    def has_backlog(self) -> bool:
        """Records were polled that have not been looked at yet."""
        return bool(self._backlog)

    @property
    def backoff_seconds(self) -> float:
        """How long to wait before the next turn; 0 while all is well, or where only the next poll can help."""
        return self._backoff if self.is_failing else 0.0

    @property
    def watermark(self) -> float:
        """Latest event time accepted in any partition; minus infinity before the first."""
        return max((task.watermark for task in self.tasks.values()), default=-np.inf)

    def start(self) -> None:
        """Begin to take part."""
        self._source.subscribe(self)

    def adopt(self, recurrent: RecurrentExpert, *, group: str = DEFAULT) -> None:
        """Let every task switch a group to this network at its next boundary."""
        self.networks[group] = recurrent
        for task in self.tasks.values():
            task.schedule(recurrent, group=group)

    def try_out(self, trial: tuple[Trial, RecurrentExpert] | None, *, group: str = DEFAULT) -> None:
        """Let every task score a trial's second model beside the one that serves; ``None`` ends that."""
        self._trials.pop(group, None)
        if trial is not None:
            self._trials[group] = trial
        for task in self.tasks.values():
            task.try_out(trial, group=group)

    def live_scores(self) -> list[LiveScore]:
        """What the tasks have seen of the trials under way so far."""
        return [score for task in self.tasks.values() for score in task.live_scores()]

    def run_once(self, timeout_seconds: float) -> LoopReport:
        """One turn of the loop: a poll, or a part of what the last one brought, so that no turn is long.

        While the broker does not confirm, readings are taken only until as many answers are waiting as one commit may
        hold; then the turn only tries again.

        Raises:
            TransportError: it cannot be mended by trying again, or trying has gone on for too long.
        """
        report = LoopReport(StepReport(LeadScores.zero(self._leads)))
        try:
            if self._must_start_over:
                report.starts_over += 1
                self._start_over()
            restored = self._delivery.restored(self.networks)
            self._unheard.update(task.partition for task in restored)
            self._welcome(restored)
            report.recovery = self._delivery.recovery()
            if len(self._delivery) < self._max_uncommitted:
                self._answer(timeout_seconds, report)
            if self.is_failing or self._is_commit_due():
                self._commit(report)
        except TransportError as error:
            self._endure(error)
        report.failures, self._failed = self._failed, Counter()
        report.moves, self._moves = self._moves, Counter()
        return report

    def finish(self) -> None:
        """Commit what was answered. To be called before the source is closed.

        Raises:
            TransportError: the answers since the last commit are not confirmed; the next owner repeats them.
        """
        self._commit(LoopReport(StepReport(LeadScores.zero(self._leads))))

    def close(self) -> None:
        """Release what the delivery holds open beside source and sink. Idempotent."""
        self._delivery.close()

    def assigned(self, partitions: Sequence[int]) -> None:
        """New partitions: each gets a task, at once or when its state is restored."""
        self._moves["assigned"] += len(partitions)
        self._welcome(self._delivery.assigned(partitions, self.networks))
        log.info("partitions assigned", extra={"partitions": list(partitions), "owned": sorted(self.tasks)})

    def revoked(self, partitions: Sequence[int]) -> None:
        """Partitions that leave: confirm what they answered, then drop them."""
        self._moves["revoked"] += len(partitions)
        try:
            self.finish()
        except TransportError as error:
            self._must_start_over = not self._delivery.survives_failure
            log.warning(
                "commit before giving partitions away failed; their next owner answers again from the last commit",
                extra={"partitions": list(partitions), "error": str(error), "hint": error.hint},
            )
        self._drop(partitions)
        log.info("partitions revoked", extra={"partitions": list(partitions), "owned": sorted(self.tasks)})

    def lost(self, partitions: Sequence[int]) -> None:
        """Partitions that are gone already: drop them, and a transaction that may hold answers of theirs."""
        self._moves["lost"] += len(partitions)
        self._drop(partitions)
        self._must_start_over = not self._delivery.survives_failure
        log.warning("partitions lost", extra={"partitions": list(partitions), "owned": sorted(self.tasks)})

    def stream_counts(self) -> dict[str, int]:
        """Streams by the status of their last answer."""
        counts: Counter[str] = Counter()
        for task in self.tasks.values():
            codes = np.bincount(task.table.arrays["status"][task.table.occupied()], minlength=len(STATUSES))
            counts.update({status.value: int(count) for status, count in zip(STATUSES, codes, strict=True)})
        return dict(counts)

    def open_anomalies(self) -> int:
        """Streams that are in an anomaly now."""
        tables = [task.table for task in self.tasks.values()]
        return sum(int((table.arrays["anomaly"][table.occupied()] >= 0).sum()) for table in tables)

    def state_bytes(self) -> int:
        """Memory of all streams' state."""
        return sum(task.table.nbytes for task in self.tasks.values())

    def find(self, stream_id: str) -> Iterator[PartitionTask]:
        """Tasks that know a stream: one, unless producers disagree about its partition."""
        return (task for task in self.tasks.values() if stream_id in task.table)

    def _take(self, max_records: int, timeout_seconds: float, report: LoopReport) -> None:
        """Poll, and put what came into the backlog, unless a partition was lost meanwhile."""
        started = self._clock.monotonic()
        records = self._source.poll(max_records, timeout_seconds)
        self._polled_at = self._clock.monotonic()
        if records:
            reach("after_poll")
        if self._must_start_over:
            return
        for record in records:
            self._backlog.setdefault(record.partition, deque()).append(record)
        report.records = len(records)
        report.seconds["poll"] = self._polled_at - started

    def _answer(self, timeout_seconds: float, report: LoopReport) -> None:
        """Take records, from the backlog or the source, and answer them."""
        if not self._backlog:
            self._take(self._max_poll_records, timeout_seconds, report)
        elif self._clock.monotonic() - self._polled_at >= _LONGEST_SILENCE_SECONDS:
            # Not for the one record, but for the group: members that join or leave wait for every poll of the others.
            self._take(1, 0.0, report)
        if self._must_start_over:  # a partition was lost meanwhile
            return
        with self._as_a_whole():
            self._answer_backlog(report)

    def _answer_backlog(self, report: LoopReport) -> None:
        began = self._clock.monotonic()
        answers: list[OutRecord] = []
        received: dict[int, tuple[PartitionTask, TaskResult]] = {}
        count, started = 0, began
        while self._backlog:
            partition, waiting = next(iter(self._backlog.items()))
            task = self.tasks[partition]
            part = task.take(waiting, self._part.records)
            del self._backlog[partition]
            if waiting:
                self._backlog[partition] = waiting  # behind the other partitions
            received[partition] = task, task.receive(part, self._clock)
            count += len(part)
            if count < self._part.records and self._backlog and next(iter(self._backlog)) not in received:
                continue  # few came of it: it is answered together with the next
            flush_together(list(received.values()), self._clock)
            now = self._clock.monotonic()
            if not any(result.report.rebuilt for _, result in received.values()):
                self._part.took(count, now - started)
            for answered, (_, result) in received.items():
                self._note(answered, result, report)
                answers.extend(result.records)
            received.clear()
            count, started = 0, now
            if now - began > _TURN_SECONDS:
                break
        if not answers:
            return
        # Only now: if the sink refuses, every record polled has its answer waiting in the checkpoint.
        started = self._clock.monotonic()
        self._delivery.add(answers)
        report.seconds["publish"] = self._clock.monotonic() - started

    def _note(self, partition: int, result: TaskResult, report: LoopReport) -> None:
        """Count what became of some records."""
        if partition in self._unheard:
            self._unheard.discard(partition)
            self._is_waited_for = True
        report.step.add(result.report)
        report.waves.extend(result.waves)
        report.forecasts += result.forecasts
        report.dead_letters += result.dead_letters
        for stage, seconds in result.seconds.items():
            report.seconds[stage] = report.seconds.get(stage, 0.0) + seconds
        self.accepted += result.report.accepted
        for group, told in result.report.groups.items():
            self.accepted_of[group] += told.accepted
        self.refused += result.dead_letters

    @contextmanager
    def _as_a_whole(self) -> Iterator[None]:
        """For what must not be left half done; a transport's error leaves nothing half done."""
        self._is_torn = True
        try:
            yield
        except TransportError:
            self._is_torn = False
            raise
        self._is_torn = False

    def _is_commit_due(self) -> bool:
        waited = self._clock.monotonic() - self._committed_at
        return self._is_waited_for or len(self._delivery) >= self._max_uncommitted or waited >= self._interval

    def _commit(self, report: LoopReport) -> None:
        if self._must_start_over or self._is_torn:
            # The transaction holds answers of partitions that were lost meanwhile, or not all answers to what was
            # read; the next owner answers from the last commit on.
            return
        started = self._clock.monotonic()
        offsets = {}
        for partition, task in self.tasks.items():
            offset = task.committable()
            if offset is not None and offset != self._committed.get(partition):
                offsets[partition] = offset
        if offsets or len(self._delivery):
            with self._as_a_whole():
                self._delivery.commit(offsets, self.tasks)
            self._failures = self._fenced = 0
            self._committed.update(offsets)
            report.committed = True
            report.seconds["commit"] = self._clock.monotonic() - started
        # From beginning to beginning, or every answer would wait for what the commit before took as well; but at least
        # half of the time is for answering.
        self._committed_at = max(started, self._clock.monotonic() - self._interval / 2)
        self._is_waited_for = False
        if report.committed or not self._delivery.has_failed_restore:
            # Having nothing to commit is no sign of health while what could not be restored is tried again.
            self._failing_since = None
            self._backoff = 0.0

    def _endure(self, error: TransportError) -> None:
        """Keep what is unconfirmed, or go back to the last commit, and try again later, unless that is hopeless."""
        now = self._clock.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        self._failures += 1
        self._failed[_KINDS.get(type(error), "other")] += 1
        self._fenced += isinstance(error, Fenced)
        self._must_start_over = not self._delivery.survives_failure
        is_cured_by_starting_over = self._failures <= _MOST_FAILURES and self._fenced <= _MOST_FENCED
        may_mend = error.retriable or (self._must_start_over and is_cured_by_starting_over)
        if not may_mend or now - self._failing_since > self._give_up_seconds:
            raise error
        if isinstance(error, Rebalancing):
            self._backoff = 0.0  # only polls bring a rebalance to its end; a pause would hold the whole group up
        else:
            self._backoff = min(max(2 * self._backoff, _FIRST_BACKOFF_SECONDS), _LONGEST_BACKOFF_SECONDS)
        log.warning(
            "broker does not confirm; trying again",
            extra={
                "error": str(error),
                "hint": error.hint,
                "unconfirmed": len(self._delivery),
                "backoff_seconds": self._backoff,
            },
        )

    def _start_over(self) -> None:
        """Go back to the last commit with everything that is ours."""
        partitions = sorted(self.tasks)
        self.tasks.clear()
        self._committed.clear()
        self._unheard.clear()
        self._is_waited_for = False
        self._backlog.clear()
        log.warning("starting over from the last commit", extra={"partitions": partitions})
        self._delivery.start_over(partitions)
        self._must_start_over = False

    def _welcome(self, tasks: list[PartitionTask]) -> None:
        for task in tasks:
            self.tasks[task.partition] = task
            for group, trial in self._trials.items():
                task.try_out(trial, group=group)

    def _drop(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self.tasks.pop(partition, None)
            self._committed.pop(partition, None)
            self._unheard.discard(partition)
            self._backlog.pop(partition, None)
        self._delivery.drop(partitions)
