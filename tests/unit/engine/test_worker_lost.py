"""A worker whose answers stand in one transaction, and who loses a partition while it is open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import pytest
from factories import make_pipeline, make_raw, make_task

from forecaster.clock import ManualClock
from forecaster.codecs.forecast_json import decode_forecast
from forecaster.engine.report import RecoveryReport
from forecaster.engine.switches import Networks
from forecaster.engine.task import PartitionTask
from forecaster.engine.worker import Worker
from forecaster.errors import Fenced, TransportError, TransportUnavailable
from forecaster.records import OutRecord, RawRecord
from forecaster.transports.memory import Lose, Mark, MemorySource, Pause, Revoke


class OneTransaction:
    """A delivery that shows what was committed together, and can be told to refuse a commit."""

    survives_failure = False
    restoring = 0
    has_failed_restore = False
    refuses_restores = False

    def __init__(self) -> None:
        self.open: list[OutRecord] = []
        self.committed: list[tuple[dict[int, int], list[OutRecord]]] = []
        self.started_over: list[list[int]] = []
        self.restorable: list[int] = []
        self.refuses: type[TransportError] | None = None

    def __len__(self) -> int:
        return len(self.open)

    def assigned(self, partitions: Sequence[int], networks: Networks) -> list[PartitionTask]:
        tasks = [make_task(make_pipeline()) for _ in partitions]
        for task, partition in zip(tasks, partitions, strict=True):
            task.partition = partition
        return tasks

    def restored(self, networks: Networks) -> list[PartitionTask]:
        if self.refuses_restores:
            raise TransportUnavailable("Not restored.")
        restorable, self.restorable = self.restorable, []
        return self.assigned(restorable, networks)

    def recovery(self) -> RecoveryReport:
        return RecoveryReport()

    def drop(self, partitions: Sequence[int]) -> None:
        pass

    def add(self, records: Iterable[OutRecord]) -> None:
        self.open += records

    def commit(self, offsets: Mapping[int, int], tasks: Mapping[int, PartitionTask]) -> None:
        if self.refuses:
            raise self.refuses("Not committed.")
        self.committed.append((dict(offsets), self.open))
        self.open = []

    def start_over(self, partitions: Sequence[int]) -> None:
        self.started_over.append(list(partitions))
        self.restorable = list(partitions)
        self.open = []


def make_worker(script: Iterable[RawRecord | Mark]) -> tuple[Worker, OneTransaction, ManualClock]:
    delivery, clock = OneTransaction(), ManualClock(1_000.0)
    worker = Worker(
        MemorySource(script, partitions=2),
        delivery,  # type: ignore[arg-type]
        leads=make_pipeline().leads,
        clock=clock,
        commit_interval_seconds=5.0,
        commit_max_records=100,
        max_poll_records=10,
        give_up_seconds=30.0,
    )
    worker.start()
    worker.run_once(0.0)  # the partitions come
    return worker, delivery, clock


def reading(partition: int, offset: int) -> RawRecord:
    return msgspec.structs.replace(make_raw(offset, stream=f"p{partition}"), partition=partition)


def partitions_of(records: Iterable[OutRecord]) -> set[int]:
    return {decode_forecast(record.value or b"").source.partition for record in records}


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "is stopped"])
def test_answers_of_a_lost_partition_are_never_committed_with_those_of_the_others(ends: bool) -> None:
    """Its next owner answers the same readings: they would stand there twice."""
    worker, delivery, clock = make_worker([reading(0, 0), reading(1, 0), Lose((1,)), Pause(10)])
    worker.run_once(0.0)
    assert partitions_of(delivery.open) == {0, 1}

    clock.advance(60.0)  # the commit is due in the very turn in which the partition is lost
    worker.run_once(0.0)
    if ends:
        worker.finish()
    else:
        worker.run_once(0.0)

    assert delivery.committed == []
    assert delivery.started_over == ([] if ends else [[0]])


def test_after_a_failed_farewell_commit_nothing_of_that_transaction_is_committed() -> None:
    worker, delivery, clock = make_worker([reading(0, 0), reading(1, 0), Revoke((1,)), Pause(10)])
    worker.run_once(0.0)

    delivery.refuses = TransportUnavailable
    clock.advance(60.0)
    worker.run_once(0.0)
    delivery.refuses = None
    worker.run_once(0.0)

    assert delivery.committed == []
    assert delivery.started_over == [[0]]


def test_a_revoked_partition_commits_what_it_answered_first() -> None:
    worker, delivery, _ = make_worker([reading(0, 0), reading(1, 0), Revoke((1,)), Pause(10)])
    worker.run_once(0.0)

    worker.run_once(0.0)

    [(offsets, records)] = delivery.committed
    assert offsets == {0: 1, 1: 1}
    assert partitions_of(records) == {0, 1}
    assert sorted(worker.tasks) == [0]


def test_one_fencing_is_started_over_from_and_the_next_is_forgotten_with_a_commit() -> None:
    worker, delivery, clock = make_worker([reading(0, offset) for offset in range(50)])
    for _ in range(2):
        delivery.refuses = Fenced
        clock.advance(60.0)
        worker.run_once(0.0)
        delivery.refuses = None
        clock.advance(60.0)
        worker.run_once(0.0)

    assert len(delivery.started_over) == 2
    assert len(delivery.committed) == 2


def test_a_second_fencing_in_a_row_ends_the_worker() -> None:
    """Starting over fences whoever goes by the same name: two that go on trying would never let each other work."""
    worker, delivery, clock = make_worker([reading(0, offset) for offset in range(50)])
    delivery.refuses = Fenced
    clock.advance(60.0)
    worker.run_once(0.0)
    clock.advance(60.0)

    with pytest.raises(Fenced):
        worker.run_once(0.0)


def test_a_fencing_and_the_transaction_it_costs_are_reported_once() -> None:
    worker, delivery, clock = make_worker([reading(0, offset) for offset in range(50)])
    delivery.refuses = Fenced
    clock.advance(60.0)
    fenced = worker.run_once(0.0)
    delivery.refuses = None
    clock.advance(60.0)
    mended = worker.run_once(0.0)
    clock.advance(60.0)
    after = worker.run_once(0.0)

    assert (dict(fenced.failures), fenced.starts_over) == ({"fenced": 1}, 0)
    assert (dict(mended.failures), mended.starts_over) == ({}, 1)
    assert (dict(after.failures), after.starts_over) == ({}, 0)


def test_partitions_that_come_go_and_are_lost_are_reported() -> None:
    script: list[RawRecord | Mark] = [reading(0, 0), Revoke((1,)), Pause(1), Lose((0,)), Pause(10)]
    delivery, clock = OneTransaction(), ManualClock(1_000.0)
    worker = Worker(
        MemorySource(script, partitions=2),
        delivery,  # type: ignore[arg-type]
        leads=make_pipeline().leads,
        clock=clock,
        commit_interval_seconds=5.0,
        commit_max_records=100,
        max_poll_records=10,
        give_up_seconds=30.0,
    )
    worker.start()

    moves = [dict(worker.run_once(0.0).moves) for _ in range(6)]

    assert {kind: sum(report.get(kind, 0) for report in moves) for kind in ("assigned", "revoked", "lost")} == {
        "assigned": 2,
        "revoked": 1,
        "lost": 1,
    }


def test_first_answers_of_a_restored_partition_do_not_wait_for_the_commit_interval() -> None:
    """Its readers have waited for a session and a restore; the answers after those keep to the interval again."""
    script = [reading(0, 0), Lose((1,)), Pause(1), *(reading(0, k) for k in range(3)), Pause(1), reading(0, 3)]
    worker, delivery, clock = make_worker(script)
    worker.run_once(0.0)
    while not delivery.started_over:
        worker.run_once(0.0)
    assert delivery.committed == []

    for _ in range(4):
        worker.run_once(0.0)

    assert [offsets for offsets, _ in delivery.committed] == [{0: 3}], "no time has passed"
    assert len(delivery.open) == 1
    clock.advance(5.0)
    worker.run_once(0.0)
    assert [offsets for offsets, _ in delivery.committed] == [{0: 3}, {0: 4}]


def test_a_worker_without_anything_to_commit_is_not_well_while_a_failed_restore_is_tried_again() -> None:
    """It would never give up: each turn between two failures would begin the count of seconds anew."""
    worker, delivery, clock = make_worker([Pause(100)])
    delivery.refuses_restores = True
    delivery.has_failed_restore = True
    worker.run_once(0.0)
    assert worker.is_failing

    delivery.refuses_restores = False
    clock.advance(20.0)
    worker.run_once(0.0)
    assert worker.is_failing, "it is being restored, and nothing was committed"

    delivery.refuses_restores = True
    clock.advance(20.0)
    with pytest.raises(TransportUnavailable):
        worker.run_once(0.0)


def test_a_worker_whose_restore_has_come_about_is_well_again() -> None:
    worker, delivery, _ = make_worker([Pause(100)])
    delivery.refuses_restores = delivery.has_failed_restore = True
    worker.run_once(0.0)

    delivery.refuses_restores = delivery.has_failed_restore = False
    worker.run_once(0.0)

    assert not worker.is_failing
    assert worker.backoff_seconds == 0.0
