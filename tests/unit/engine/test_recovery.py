"""Partitions become live as they were left, whatever they are restored from, and whatever befell the log meanwhile."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from factories import forecasts_of, make_messy_records, make_pipeline, make_recurrent, make_task, process
from state_logs import StateLogs

from forecaster.clock import ManualClock
from forecaster.engine.keeper import META_KEY, RESET_HINT, StateKeeper
from forecaster.engine.pipeline import Pipeline
from forecaster.engine.recovery import Recovery
from forecaster.engine.report import Doubt, Restored
from forecaster.engine.standby import Standby
from forecaster.engine.switches import Networks
from forecaster.engine.task import PartitionTask
from forecaster.errors import PageCorrupt, StateGap, TransportTimeout
from forecaster.ports import FRESH, KEPT
from forecaster.records import RawRecord, StateRecord
from forecaster.series.groups import DEFAULT

COMMITS = 6
PER_COMMIT = 60


class Source:
    """Partitions that wait for their state."""

    topic = "readings"

    def __init__(self, partitions: int) -> None:
        self.held = set(range(partitions))
        self.released: dict[int, int] = {}

    def waiting(self) -> frozenset[int]:
        return frozenset(self.held)

    def release(self, partition: int, offset: int) -> None:
        self.held.discard(partition)
        self.released[partition] = offset


class Stage:
    """One partition that a worker left after some commits, another worker that gets it, and readings to go on with."""

    def __init__(self, *, with_standby: bool, deadline_seconds: float = 30.0, keeps_former: bool = False) -> None:
        self.pipeline: Pipeline = make_pipeline(keeps_former=keeps_former)
        self.network = make_recurrent(self.pipeline)
        self.records = make_messy_records(np.random.default_rng(3), readings=20)
        self.logs, self.source, self.clock = StateLogs(), Source(1), ManualClock(1_000.0)
        self.logs.source = self.records
        self.owner = self.new_task(0, {DEFAULT: self.network})
        self.at = 0
        self.standby = Standby(self.logs.tail, keep_warm=self.logs.keep_warm, clock=self.clock, max_bytes=10_000_000)
        self.tail = self.logs.tail()
        self.recovery = Recovery(
            self.source,  # type: ignore[arg-type]  # the part of it that recovery uses
            self.logs,
            make_task=self.new_task,
            network=lambda version: self.network,
            clock=self.clock,
            deadline_seconds=deadline_seconds,
            standby=_Resting(self.standby) if with_standby else None,  # type: ignore[arg-type]
        )

    def new_task(self, partition: int, networks: Networks) -> PartitionTask:
        return make_task(
            self.pipeline,
            networks=networks,
            keep_state=lambda table: StateKeeper(table, flush_seconds=3.0, max_pages=1),
        )

    def work(self, commits: int) -> None:
        """The owner answers and commits; whoever stands by follows."""
        for _ in range(commits):
            process(self.owner, self.records[self.at : self.at + PER_COMMIT])
            self.at += PER_COMMIT
            self.clock.advance(1.0)
            self.logs.commit(0, self.at, self.owner.export_state(self.clock.monotonic()))

    def follow(self) -> None:
        self.standby.turn(self.tail)

    def restore(self) -> tuple[PartitionTask, Restored, Counter[Doubt]]:
        """The partition comes to the other worker and becomes live."""
        self.recovery.begin([0])
        return self.go_on()

    def go_on(self) -> tuple[PartitionTask, Restored, Counter[Doubt]]:
        """The other worker's loop turns until the partition is live."""
        doubts: Counter[Doubt] = Counter()
        deadline = time.monotonic() + 30.0
        live: Sequence[PartitionTask] = ()
        while not live:
            assert time.monotonic() < deadline
            live = self.recovery.advance({DEFAULT: self.network})
            threading.Event().wait(0.002)  # for its thread
            report = self.recovery.report()
            doubts.update(report.standby.doubts)
        return live[0], report.restored[0], doubts

    def answers(self, task: PartitionTask) -> list[bytes]:
        """Of the readings that come next."""
        return forecasts_of(process(task, self.records[self.at : self.at + 200]).records)


class _Resting(Standby):
    """A standby whose turns the test takes itself, on its own thread."""

    def __init__(self, standby: Standby) -> None:
        self.__dict__ = standby.__dict__

    def start(self) -> None:
        pass


def accidents() -> dict[str, Callable[[Stage], None]]:
    """What may befall a log between the last look of the standby and the restore, by name."""

    def nothing(stage: Stage) -> None:
        pass

    def it_went_on(stage: Stage) -> None:
        stage.work(2)

    def it_was_compacted(stage: Stage) -> None:
        stage.work(1)
        stage.logs.compact(0)

    def it_was_copied_to_a_new_topic(stage: Stage) -> None:
        written = list(stage.logs.logs[0])
        stage.logs.make_anew(0)
        for record in written:
            assert record.key is not None
            stage.logs.write(0, [StateRecord(record.key.decode(), record.value)])

    def its_end_was_cut_and_written_again(stage: Stage) -> None:
        written = list(stage.logs.logs[0])
        stage.logs.cut(0, 3)
        for record in written[-3:]:
            assert record.key is not None
            stage.logs.write(0, [StateRecord(record.key.decode(), record.value)])

    return {
        made.__name__: made
        for made in (
            nothing,
            it_went_on,
            it_was_compacted,
            it_was_copied_to_a_new_topic,
            its_end_was_cut_and_written_again,
        )
    }


@pytest.mark.parametrize("accident", accidents().values(), ids=accidents().keys())
@pytest.mark.parametrize("with_standby", [False, True], ids=["cold", "standby"])
def test_a_restored_partition_answers_as_its_owner_would_have(
    with_standby: bool, accident: Callable[[Stage], None]
) -> None:
    stage = Stage(with_standby=with_standby)
    stage.work(COMMITS)
    stage.follow()
    accident(stage)

    task, _, _ = stage.restore()

    assert stage.source.released == {0: stage.at}
    expected = stage.answers(stage.owner)
    assert len(expected) > 100
    assert stage.answers(task) == expected


def test_what_the_last_owner_left_open_is_ended_before_its_offset_is_read() -> None:
    """Its transaction may yet be committed: what is read before the end of it may change."""
    stage = Stage(with_standby=False)
    stage.work(COMMITS)
    told: list[str] = []
    stage.logs.take_over = lambda partition: told.append(f"take over {partition}")  # type: ignore[method-assign]
    stage.logs.before_state = lambda: told.append("state")

    stage.restore()

    assert told[:2] == ["take over 0", "state"]


def test_a_warm_copy_leaves_only_what_came_since_to_be_read() -> None:
    stage = Stage(with_standby=True)
    stage.work(COMMITS)
    stage.follow()
    stage.work(1)
    newest = len(stage.logs.logs[0])

    _, done, doubts = stage.restore()

    assert done.kind == "standby"
    assert 0 < stage.logs.read[0] < newest / 2
    assert not doubts
    assert done.replayed > 0
    assert done.state_bytes > 10_000


@pytest.mark.parametrize("name", ["it_was_copied_to_a_new_topic", "its_end_was_cut_and_written_again"])
def test_a_copy_of_another_log_is_doubted_and_the_log_read_from_the_beginning(name: str) -> None:
    stage = Stage(with_standby=True)
    stage.work(COMMITS)
    stage.follow()
    accidents()[name](stage)

    _, done, doubts = stage.restore()

    assert done.kind == "cold"
    assert doubts == {Doubt.CHANGED: 1}
    assert stage.logs.read[0] == len(stage.logs.logs[0])


def test_a_copy_with_a_damaged_page_is_refused_and_the_log_believed() -> None:
    stage = Stage(with_standby=True)
    stage.work(COMMITS)
    stage.follow()
    held = stage.standby._copies[0]._newest
    page = next(key for key in held if key.startswith(b"page/"))
    held[page] = held[page][:-1] + b"?"

    task, done, doubts = stage.restore()

    assert done.kind == "cold"
    assert doubts == {Doubt.REFUSED: 1}
    assert stage.answers(task) == stage.answers(stage.owner)


@pytest.mark.parametrize("damage", ["of another offset", "damaged"])
def test_a_copy_whose_meta_record_does_not_fit_is_refused_when_the_time_is_up(damage: str) -> None:
    stage = Stage(with_standby=True, deadline_seconds=0.0)
    stage.work(COMMITS - 1)
    older = stage.logs.logs[0][-1].value
    stage.work(1)
    stage.follow()
    held = stage.standby._copies[0]._newest
    assert older is not None
    held[META_KEY.encode()] = older if damage == "of another offset" else older[:-1]
    stage.logs.before_state = lambda: stage.clock.advance(1.0)

    task, done, doubts = stage.restore()

    assert done.kind == "cold"
    assert doubts == {Doubt.REFUSED: 1}
    assert stage.answers(task) == stage.answers(stage.owner)


def test_a_commit_that_ends_between_offset_and_state_is_waited_for_without_reading_all_again() -> None:
    stage = Stage(with_standby=False)
    stage.work(COMMITS)

    def commit_once() -> None:
        stage.logs.before_state = lambda: None
        stage.work(1)

    stage.logs.before_state = commit_once
    task, _, _ = stage.restore()

    assert stage.logs.read[0] == len(stage.logs.logs[0]), "every record once"
    assert stage.source.released == {0: stage.at}
    assert stage.answers(task) == stage.answers(stage.owner)


def test_state_that_never_agrees_with_the_offset_is_an_error_with_a_way_out() -> None:
    stage = Stage(with_standby=False, deadline_seconds=0.0)
    stage.work(COMMITS)
    wrong = stage.at + 7
    stage.logs.offsets[0] = (wrong, KEPT)
    stage.logs.before_state = lambda: stage.clock.advance(1.0)

    with pytest.raises(StateGap, match=f"offset {wrong}; the state topic stands at offset {stage.at}") as raised:
        stage.restore()

    assert raised.value.hint == RESET_HINT


def test_a_restore_that_failed_is_begun_anew_when_the_loop_goes_on() -> None:
    """What once went wrong, as a broker that was away, came up again at every turn though all was well since."""
    stage = Stage(with_standby=False)
    stage.work(COMMITS)
    troubles = [TransportTimeout("no broker"), TransportTimeout("no broker yet")]

    def fail_at_first() -> None:
        if troubles:
            raise troubles.pop(0)

    stage.logs.before_state = fail_at_first
    with pytest.raises(TransportTimeout, match=r"no broker$"):
        stage.restore()
    assert stage.recovery.has_failed
    with pytest.raises(TransportTimeout, match="no broker yet"):
        stage.go_on()
    task, restored, _ = stage.go_on()

    assert restored.kind == "cold"
    assert stage.answers(task) == forecasts_of(process(stage.owner, stage.records[stage.at : stage.at + 200]).records)
    assert not stage.recovery.has_failed


def test_a_partition_that_failed_and_goes_counts_as_failed_no_longer() -> None:
    stage = Stage(with_standby=False)
    stage.work(1)

    def fail() -> None:
        raise TransportTimeout("no broker")

    stage.logs.before_state = fail
    with pytest.raises(TransportTimeout):
        stage.restore()

    stage.recovery.drop([0])

    assert not stage.recovery.has_failed
    assert len(stage.recovery) == 0


def test_damage_in_the_log_itself_is_an_error() -> None:
    stage = Stage(with_standby=False)
    stage.work(COMMITS)
    stage.logs.write(0, [StateRecord("page/0", b"no page")])

    with pytest.raises(PageCorrupt):
        stage.restore()


def test_an_offset_without_state_begins_fresh_and_removes_what_an_earlier_life_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage(with_standby=True)
    stage.work(COMMITS)
    stage.follow()
    stage.logs.offsets[0] = (5, "")  # set by hand

    task, done, _ = stage.restore()
    process(task, stage.records[5:10])

    assert done.kind == "fresh"
    assert len(task.table) <= 5
    assert "begins without what was learnt" in caplog.text
    written = task.export_state(0.0)  # no page is due yet
    earlier = {record.key.decode() for record in stage.logs.logs[0] if record.key}
    assert earlier <= {record.key for record in written}, "each is removed or replaced"
    assert any(record.value is None for record in written)


@pytest.mark.parametrize("with_standby", [False, True], ids=["cold", "standby"])
def test_state_beside_an_offset_of_a_group_that_never_answered_is_an_error(with_standby: bool) -> None:
    stage = Stage(with_standby=with_standby)
    stage.work(COMMITS)
    stage.follow()
    stage.logs.offsets[0] = (5, FRESH)

    with pytest.raises(StateGap, match="no offset"):
        stage.restore()

    assert stage.logs.read[0] == len(stage.logs.logs[0]), "the log itself was read"


def test_what_is_restored_is_told_by_partition_and_stage() -> None:
    stage = Stage(with_standby=False)
    stage.work(COMMITS)
    stage.recovery.begin([0])

    waiting = stage.recovery.report().restoring
    stage.recovery.drop([0])
    gone = stage.recovery.report().restoring
    stage.restore()
    after = stage.recovery.report().restoring

    assert [str(at) for at in waiting] == ["0 (waiting)"]
    assert gone == ()
    assert after == ()


def test_a_partition_that_goes_while_it_is_read_is_not_released() -> None:
    stage = Stage(with_standby=True)
    stage.work(COMMITS)
    stage.recovery.begin([0])
    stage.recovery.advance({})

    stage.recovery.drop([0])

    assert stage.recovery.advance({}) == []
    assert len(stage.recovery) == 0
    assert stage.source.released == {}


def test_closing_gives_up_what_is_under_way_and_releases_the_store() -> None:
    stage = Stage(with_standby=True)
    stage.work(COMMITS)
    stage.recovery.begin([0])
    stage.recovery.advance({})

    stage.recovery.close()
    stage.recovery.close()

    assert stage.logs.is_closed
    assert len(stage.recovery) == 0


def test_a_long_restore_says_every_few_seconds_how_far_it_has_come(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    stage = Stage(with_standby=False)
    stage.work(COMMITS)
    stage.recovery.advance({})
    stage.recovery.begin([0])
    stage.source.held.clear()  # nothing goes on

    for _ in range(11):
        stage.recovery.advance({})
        stage.clock.advance(1.0)

    told = [record for record in caplog.records if record.message == "restoring partition"]
    assert [(record.partition, record.stage) for record in told] == [(0, "waiting")] * 2  # type: ignore[attr-defined]


def test_replaying_leaves_the_loop_its_turn() -> None:
    """In parts that take what a part may, whatever a reading costs, and no more than a tenth of a second of them."""
    stage = Stage(with_standby=False)
    stage.work(COMMITS)
    taken: list[int] = []

    def slow(records: Sequence[RawRecord], clock: object) -> None:
        taken.append(len(records))
        stage.clock.advance(0.002 * len(records))

    stage.recovery.begin([0])
    make = stage.recovery._make_task

    def make_slow(partition: int, networks: Networks) -> PartitionTask:
        task = make(partition, networks)
        task.replay = slow  # type: ignore[method-assign]
        return task

    stage.recovery._make_task = make_slow
    stage.logs.readings = lambda *_: [stage.records[0]] * 1_100  # type: ignore[method-assign]
    deadline, turns = time.monotonic() + 30.0, list[float]()
    while not taken and time.monotonic() < deadline:
        stage.recovery.advance({})
        threading.Event().wait(0.002)
    while len(stage.recovery):
        began = stage.clock.monotonic()
        stage.recovery.advance({})
        turns.append(stage.clock.monotonic() - began)

    assert sum(taken) == 1_100
    assert max(turns) <= 0.2


def test_a_former_champion_that_joined_meanwhile_answers_from_the_next_boundary_on() -> None:
    """As where the setting is turned on between two starts: the replay is by the network that served alone."""
    stage = Stage(with_standby=False, keeps_former=True)
    alone = stage.network
    stage.work(5)
    stage.recovery._network = lambda name: alone
    stage.network = make_recurrent(stage.pipeline, model=3, former=make_recurrent(stage.pipeline, seed=2, model=2))

    task, _, _ = stage.restore()

    assert task.networks[DEFAULT] is alone
    stage.answers(task)
    assert task.networks[DEFAULT] is stage.network
