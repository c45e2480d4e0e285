import itertools
import logging
from collections import Counter

import pytest
from factories import headers_of, make_pipeline, make_raw, make_recurrent, make_task

from forecaster.clock import ManualClock
from forecaster.codecs.forecast_json import decode_forecast
from forecaster.engine.checkpoint import Checkpoint
from forecaster.engine.delivery import AtLeastOnce
from forecaster.engine.worker import Worker
from forecaster.errors import Fenced, Rebalancing, TransportError, TransportUnavailable
from forecaster.records import RawRecord
from forecaster.transports.memory import Abort, Assign, EndOfInput, Lose, MemorySink, MemorySource, Pause, Revoke


class Bench:
    """A worker between a scripted source and a sink; time moves by a second with each turn."""

    def __init__(self, script, *, partitions=1, clock=None, **overrides):
        self.clock = clock or ManualClock(1_000.0)
        self.source = MemorySource(script, partitions=partitions)
        self.sink = MemorySink()
        self.pipeline = make_pipeline()
        self.made = []

        def make(partition, networks):
            self.made.append((partition, dict(networks)))
            task = make_task(self.pipeline, networks=networks, boundary_records=8)
            task.partition = partition
            return task

        self.worker = Worker(
            self.source,
            AtLeastOnce(Checkpoint(self.source, self.sink, flush_timeout_seconds=1.0), make_task=make),
            leads=self.pipeline.leads,
            clock=self.clock,
            **{
                "commit_interval_seconds": 5.0,
                "commit_max_records": 100,
                "max_poll_records": 4,
                "give_up_seconds": 30.0,
                **overrides,
            },
        )
        self.worker.start()

    def turn(self, count=1):
        """This many turns; the last one's report."""
        for _ in range(count):
            report = self.worker.run_once(0.0)
            self.clock.advance(1.0)
        return report

    def answered(self, records=None):
        """How often each (partition, offset) stands in the sink, acknowledged."""
        return Counter(place(record) for record in (self.sink.records if records is None else records))


def place(record):
    if record.topic == "forecasts":
        source = decode_forecast(record.value).source
        return source.partition, source.offset
    return int(headers_of(record)["source.partition"]), int(headers_of(record)["source.offset"])


def raws(count, *, partition=0, first=0):
    return [
        RawRecord("readings", partition, raw.offset, raw.timestamp, raw.key, raw.value)
        for raw in (make_raw(offset, f"p{partition}") for offset in range(first, first + count))
    ]


def test_readings_are_answered_and_committed_after_the_interval():
    bench = Bench(raws(10))

    bench.turn(3)
    assert bench.source.commits == []
    report = bench.turn(3)

    assert report.committed
    assert bench.source.committed == {0: 10}
    assert bench.answered() == Counter({(0, offset): 1 for offset in range(10)})
    assert bench.worker.accepted == 10
    assert not bench.worker.is_failing


@pytest.mark.parametrize(("takes", "period"), [(2.0, 5.0), (4.0, 7.0)])
def test_commits_are_counted_from_their_beginnings_and_leave_half_of_the_time_for_answers(takes, period):
    """One that takes 2 of 5 seconds holds no other up; one that takes 4 leaves 2.5, in turns of a second."""
    bench = Bench(raws(400), max_poll_records=2)
    commit, began = bench.source.commit, []

    def slow(offsets):
        began.append(bench.clock.monotonic())
        bench.clock.advance(takes)
        commit(offsets)

    bench.source.commit = slow
    bench.turn(60)

    assert {b - a for a, b in itertools.pairwise(began[1:])} == {period}


def test_many_answers_bring_the_commit_forward():
    bench = Bench(raws(10), commit_max_records=6)

    bench.turn(3)

    assert bench.source.commits == [{0: 8}]


def test_nothing_is_committed_where_nothing_was_read():
    bench = Bench([Pause(20)])

    bench.turn(12)

    assert bench.source.commits == []


def test_an_offset_is_not_committed_twice():
    bench = Bench(raws(4))

    bench.turn(30)

    assert bench.source.commits == [{0: 4}]


@pytest.mark.parametrize("trouble", ["refuse", "delay"])
def test_while_deliveries_fail_nothing_beyond_the_confirmed_is_committed_and_all_is_answered_in_the_end(trouble):
    bench = Bench(raws(60), commit_max_records=12, give_up_seconds=1e9)
    bench.turn(3)
    if trouble == "refuse":
        bench.sink.refuse(50)
    else:
        bench.sink.delay_flushes(7)

    most_waiting, failed = 0, False
    for _ in range(60):
        bench.turn()
        confirmed = bench.answered()
        assert all(confirmed[0, offset] for offset in range(bench.source.committed.get(0, 0)))
        most_waiting = max(most_waiting, len(bench.sink.unflushed))
        failed |= bench.worker.is_failing

    assert failed
    assert not bench.worker.is_failing
    assert bench.source.committed == {0: 60}
    assert set(bench.answered()) == {(0, offset) for offset in range(60)}
    assert most_waiting <= 12 + 4
    if trouble == "delay":
        assert max(bench.answered().values()) == 1


def test_while_too_many_answers_wait_no_readings_are_taken():
    bench = Bench(raws(100), commit_max_records=8, give_up_seconds=1e9)
    bench.sink.delay_flushes(1_000)

    bench.turn(3)
    reports = [bench.turn() for _ in range(10)]

    assert [report.records for report in reports] == [0] * 10
    assert bench.worker.accepted == 8


def test_the_wait_between_tries_doubles_up_to_five_seconds_and_ends_with_success():
    bench = Bench(raws(4), give_up_seconds=1e9)
    bench.turn(5)
    bench.sink.delay_flushes(9)

    waits = []
    for _ in range(12):
        bench.turn()
        waits.append(bench.worker.backoff_seconds)

    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 0.0, 0.0, 0.0]


def test_a_rebalance_is_polled_to_its_end_without_a_wait():
    """A pause between two polls would keep the whole group from settling."""
    bench = Bench([*raws(2), *(Abort(Rebalancing("Members are joining.")) for _ in range(3)), *raws(2, first=2)])

    waits = []
    for _ in range(4):
        bench.turn()
        waits.append(bench.worker.backoff_seconds)
    bench.turn(8)

    assert waits == [0.0] * 4
    assert bench.source.committed == {0: 4}


def test_the_worker_gives_up_with_the_broker_s_error_when_it_is_away_for_too_long():
    bench = Bench(raws(4), give_up_seconds=10.0)
    bench.sink.delay_flushes(1_000)

    with pytest.raises(TransportError, match="not acknowledged"):
        bench.turn(40)

    assert bench.clock.now() == pytest.approx(1_000 + 5 + 11, abs=1)
    assert bench.source.commits == []


def test_an_error_that_trying_again_cannot_mend_ends_the_worker_at_once():
    bench = Bench([*raws(4), Abort(Fenced("Another instance has taken over."))])
    bench.turn(2)

    with pytest.raises(Fenced):
        bench.turn()


def test_a_poll_that_fails_is_tried_again_and_nothing_is_lost():
    bench = Bench([*raws(3), Abort(TransportUnavailable("nobody there")), *raws(3, first=3)])
    bench.turn(2)

    bench.turn()
    assert bench.worker.is_failing
    bench.turn(8)

    assert bench.answered() == Counter({(0, offset): 1 for offset in range(6)})
    assert bench.source.committed == {0: 6}


def test_revoked_partitions_are_committed_before_they_go():
    script = [Assign((0, 1)), *raws(3), *raws(2, partition=1), Revoke((1,)), *raws(2, first=3), EndOfInput()]
    bench = Bench(script, partitions=2)

    bench.turn(4)

    assert bench.source.committed == {0: 3, 1: 2}
    assert sorted(bench.worker.tasks) == [0]


def test_a_revoked_partition_that_comes_back_is_read_on_with_fresh_state():
    script = [Assign((0,)), *raws(3), Revoke((0,)), Assign((0,)), *raws(2, first=3)]
    bench = Bench(script)

    bench.turn(12)

    assert bench.answered() == Counter({(0, offset): 1 for offset in range(5)})
    assert bench.source.committed == {0: 5}
    assert [decode_forecast(record.value).seq for record in bench.sink.records] == [1, 2, 3, 1, 2]


def test_a_commit_that_fails_while_partitions_leave_is_logged_and_they_leave_all_the_same(caplog):
    bench = Bench([Assign((0,)), *raws(3), Revoke((0,)), Assign((0,)), *raws(1, first=3)])
    bench.turn(2)
    bench.sink.delay_flushes(1)

    with caplog.at_level(logging.WARNING):
        bench.turn()
    assert bench.worker.tasks == {}
    assert bench.source.commits == []
    assert "commit before giving partitions away failed" in caplog.text
    bench.turn(12)

    assert set(bench.answered()) == {(0, offset) for offset in range(4)}
    assert bench.source.committed == {0: 4}


def test_lost_partitions_are_not_committed():
    script = [Assign((0, 1)), *raws(3), *raws(2, partition=1), Lose((1,)), *raws(2, first=3), EndOfInput()]
    bench = Bench(script, partitions=2)

    bench.turn(12)

    assert bench.source.committed == {0: 5}
    assert sorted(bench.worker.tasks) == [0]


def test_a_partition_that_comes_back_from_an_earlier_offset_is_committed_again():
    """Somebody set the group's offset back while the partition was elsewhere."""
    bench = Bench([Assign((0,)), *raws(4), Pause(8), Lose((0,)), Assign((0,)), EndOfInput()])
    bench.turn(9)
    assert bench.source.committed == {0: 4}
    bench.source.committed.clear()

    bench.turn(12)

    assert bench.source.committed == {0: 4}


def test_closing_the_source_commits_what_was_answered():
    bench = Bench(raws(3))
    bench.turn(2)

    bench.source.close()

    assert bench.source.committed == {0: 3}
    assert sum(bench.answered().values()) == 3


@pytest.mark.parametrize("step", ["receive", "settle", "send", "flush"])
def test_what_an_interrupt_left_half_done_is_not_committed_on_the_way_out(step, monkeypatch):
    """A second signal, or a bug, may come between a reading and its answer: then its offset is not to be stored."""
    bench = Bench(raws(8))
    bench.turn(2)
    owner = bench.worker.tasks[0] if step in ("receive", "settle") else bench.sink

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            bench.turn(9)
    bench.source.close()

    assert bench.source.committed == {}


def test_finishing_while_the_sink_refuses_is_an_error():
    bench = Bench(raws(3))
    bench.turn(2)
    bench.sink.refuse(1)

    with pytest.raises(TransportError, match="not delivered"):
        bench.worker.finish()


def test_records_polled_and_not_looked_at_are_not_committed_and_go_with_their_partition():
    class SlowClock(ManualClock):
        def monotonic(self):
            self.advance(0.06)  # a part takes longer than a turn may
            return super().monotonic()

    script = [Assign((0, 1)), *raws(64), *raws(8, partition=1), EndOfInput()]
    bench = Bench(script, partitions=2, clock=SlowClock(), commit_interval_seconds=1e9, max_poll_records=72)

    bench.worker.run_once(0.0)
    bench.worker.run_once(0.0)
    assert bench.worker.has_backlog
    bench.worker.finish()
    assert bench.source.committed == {0: 64}
    bench.worker.run_once(0.0)
    assert not bench.worker.has_backlog
    bench.worker.finish()

    assert bench.source.committed == {0: 64, 1: 8}
    assert sum(bench.answered().values()) == 72


def test_a_member_with_much_to_look_at_polls_all_the_same():
    """The others wait for it when members join or leave, as long as it takes for its backlog otherwise."""

    class SlowClock(ManualClock):
        def monotonic(self):
            self.advance(0.2)
            return super().monotonic()

    partitions = tuple(range(8))
    first = [raw for partition in partitions for raw in raws(64, partition=partition)]
    script = [Assign(partitions), *first, Revoke((7,)), Pause(100)]
    bench = Bench(script, partitions=8, clock=SlowClock(), commit_interval_seconds=1e9, max_poll_records=512)

    turns = 0
    while 7 in bench.worker.tasks or not turns:
        bench.worker.run_once(0.0)
        turns += 1
        assert turns < 20
    was_waiting = bench.worker.has_backlog

    assert was_waiting, "partition 7 left while readings of others waited"
    assert (7, 0) not in bench.answered(), "its readings are left to its next owner"


def test_a_network_is_given_to_present_tasks_and_to_new_ones():
    script = [Assign((0,)), *raws(4), Assign((1,)), *raws(12, first=4), *raws(2, partition=1), EndOfInput()]
    bench = Bench(script, partitions=2)
    recurrent = make_recurrent(bench.pipeline)

    bench.turn(2)
    bench.worker.adopt(recurrent)
    assert bench.worker.tasks[0].networks == {}
    bench.turn(8)

    assert bench.made == [(0, {}), (1, {"": recurrent})]
    assert bench.worker.tasks[0].networks == {"": recurrent}
    assert bench.worker.tasks[0].switched_at == 8


def test_reports_add_up_over_partitions():
    bench = Bench([Assign((0, 1)), *raws(2), *raws(2, partition=1)], partitions=2)
    bench.turn()

    report = bench.turn()

    assert (report.records, report.forecasts, report.dead_letters, report.step.accepted) == (4, 4, 0, 4)
    assert report.step.new_streams == 2
    assert bench.worker.stream_counts()["warming"] == 2
    assert bench.worker.state_bytes() == sum(task.table.nbytes for task in bench.worker.tasks.values())
    assert [task.partition for task in bench.worker.find("p1")] == [1]
    assert list(bench.worker.find("nobody")) == []
    assert bench.worker.watermark == max(task.watermark for task in bench.worker.tasks.values())


class Ticking(ManualClock):
    """A clock that moves by 10 ms each time the monotonic time is asked for: as if every wave took that long."""

    def monotonic(self):
        self.advance(0.01)
        return super().monotonic()


def test_a_turn_stays_short_when_one_stream_holds_the_whole_backlog_and_each_reading_is_a_wave():
    clock = Ticking(1_000.0)
    bench = Bench(raws(600), clock=clock, max_poll_records=600, commit_max_records=10_000)

    seconds = []
    while bench.worker.accepted < 600:
        began = clock.now()
        bench.worker.run_once(0.0)
        seconds.append(clock.now() - began)

    assert max(seconds) < 5.0  # with the first part, when nobody knows yet what a reading costs
    assert max(seconds[2:]) < 1.0  # a turn for the assignment, one for the first part: boundaries do not cut it


def test_partitions_of_which_few_readings_come_are_answered_in_one_wave():
    partitions = tuple(range(6))
    script = [Assign(partitions), *(raw for partition in partitions for raw in raws(2, partition=partition))]
    bench = Bench([*script, EndOfInput()], partitions=6, max_poll_records=12)

    bench.turn()
    report = bench.turn()
    bench.worker.finish()

    assert [streams for streams, _ in report.waves] == [6, 6], "the second reading of a stream is in the second wave"
    assert report.step.accepted == report.forecasts == 12
    assert bench.source.committed == dict.fromkeys(partitions, 2)
    assert set(bench.answered().values()) == {1}


def test_a_partition_comes_again_only_when_what_it_brought_is_answered():
    """Two parts of one partition in one turn, and another partition between them: in its order, each once."""
    script = [Assign((0, 1)), *raws(70), *raws(3, partition=1), EndOfInput()]
    bench = Bench(script, partitions=2, max_poll_records=73)

    bench.turn(3)
    bench.worker.finish()

    assert bench.source.committed == {0: 70, 1: 3}
    assert [offset for partition, offset in map(place, bench.sink.records) if partition == 0] == list(range(70))
    assert sum(bench.answered().values()) == 73


def test_a_part_that_brings_streams_to_a_new_model_does_not_make_the_next_ones_smaller():
    """To rebuild the state of eight streams takes as long as that of hundreds: by eights it would go on for minutes."""

    class Clock(ManualClock):
        is_slow = False

        def monotonic(self):
            self.advance(0.2 * self.is_slow)
            return super().monotonic()

    clock = Clock(1_000.0)
    script = [Assign((0,)), *raws(16), Pause(1), *raws(8, first=16), Pause(1), *raws(8, first=24), EndOfInput()]
    bench = Bench(script, clock=clock, commit_interval_seconds=1e9, max_poll_records=16)
    sizes, rebuilt = [], []

    bench.turn(2)
    bench.worker.adopt(make_recurrent(bench.pipeline))
    clock.is_slow = True
    for _ in range(6):
        rebuilt.append(bench.turn().step.rebuilt)
        sizes.append(bench.worker._part.records)

    assert sum(rebuilt) == 1
    assert sizes[rebuilt.index(1)] == 64
    assert sizes[-1] == 8, "a slow part that rebuilds nothing does"
