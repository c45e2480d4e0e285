"""Warm copies of what others own: what is held, what is given away, and what is never believed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from state_logs import StateLogs

from forecaster.clock import ManualClock
from forecaster.engine.report import Doubt
from forecaster.engine.standby import Standby
from forecaster.errors import TransportError
from forecaster.records import StateRecord


def pages(count: int, *, size: int = 10) -> list[StateRecord]:
    return [StateRecord(f"page/{number}", b"x" * size) for number in range(count)]


def make_standby(logs: StateLogs, *, max_bytes: int = 1_000_000) -> tuple[Standby, ManualClock]:
    clock = ManualClock(1_000.0)
    return Standby(logs.tail, keep_warm=logs.keep_warm, clock=clock, max_bytes=max_bytes, retry_seconds=0.0), clock


def make_logs(partitions: int = 3, *, size: int = 10) -> StateLogs:
    logs = StateLogs(partitions)
    for partition in range(partitions):
        logs.write(partition, pages(partition + 1, size=size))
    return logs


def wait_until(condition: Callable[[], bool]) -> None:
    """For what another thread does; generous, since the machine may be busy."""
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


def test_it_holds_what_is_not_ours_as_it_was_written_so_far() -> None:
    logs = make_logs()
    standby, _ = make_standby(logs)
    tail = logs.tail()
    standby.take(1)

    standby.turn(tail)
    logs.write(2, [StateRecord("page/0", b"newer"), StateRecord("page/1", None)])
    standby.turn(tail)

    assert standby.report().partitions == 2
    copy = standby.take(2)
    assert copy is not None
    assert copy.records() == [StateRecord("page/0", b"newer"), StateRecord("page/2", b"x" * 10)]


def test_a_copy_is_given_away_once_and_no_longer_followed() -> None:
    logs = make_logs()
    standby, _ = make_standby(logs)
    tail = logs.tail()
    standby.turn(tail)

    first, second = standby.take(0), standby.take(0)
    standby.turn(tail)

    assert first is not None
    assert second is None
    assert set(tail.positions) == {1, 2}


def test_a_partition_that_becomes_others_again_is_read_from_the_beginning() -> None:
    logs = make_logs()
    standby, _ = make_standby(logs)
    tail = logs.tail()
    standby.turn(tail)
    standby.take(0)
    logs.write(0, [StateRecord("meta", b"1")])

    standby.give_back([0])
    standby.turn(tail)

    copy = standby.take(0)
    assert copy is not None
    assert [record.key for record in copy.records()] == ["meta", "page/0"]


def test_a_partition_taken_and_given_back_within_a_poll_does_not_go_on_in_the_middle() -> None:
    logs = make_logs()
    standby, _ = make_standby(logs)
    tail = logs.tail()
    standby.turn(tail)
    logs.write(2, [StateRecord("meta", b"1")])

    def move() -> None:
        standby.take(2)
        standby.give_back([2])

    tail.on_poll = move
    standby.turn(tail)
    tail.on_poll = lambda: None
    assert standby.take(2) is None, "nothing of it is held until it was begun again"
    standby.give_back([2])
    standby.turn(tail)

    copy = standby.take(2)
    assert copy is not None
    assert len(copy) == 4


def test_beyond_its_room_the_largest_copy_goes_until_partitions_move() -> None:
    logs = make_logs(size=100)
    standby, _ = make_standby(logs, max_bytes=560)
    tail = logs.tail()

    standby.turn(tail)
    standby.turn(tail)
    report = standby.report()

    assert report.partitions == 2
    assert report.nbytes <= 560
    assert report.doubts == {Doubt.FULL: 1}
    assert standby.take(2) is None
    standby.take(1)
    standby.give_back([2])
    standby.turn(tail)
    assert standby.report().partitions == 2, "there is room for it now"


def test_bytes_are_given_back_with_the_copies() -> None:
    logs = make_logs()
    standby, _ = make_standby(logs)
    tail = logs.tail()
    standby.turn(tail)
    before = standby.report().nbytes

    copy = standby.take(2)

    assert copy is not None
    assert standby.report().nbytes == before - copy.nbytes
    standby.take(0)
    standby.take(1)
    assert standby.report().nbytes == 0


def test_a_copy_that_has_not_reached_the_end_for_long_is_not_believed() -> None:
    """A compacted topic keeps tombstones for a while only: one may have been missed."""
    logs = make_logs()
    standby, clock = make_standby(logs)
    tail = logs.tail()
    standby.turn(tail)
    clock.advance(599.0)
    logs.write(1, pages(5))
    tail.most = 1

    standby.turn(tail)  # partition 1 is behind now, the others are not
    clock.advance(599.0)

    assert standby.take(1) is None
    assert standby.take(0) is not None
    assert standby.report().doubts == {Doubt.STALE: 1}


def test_nothing_is_held_of_a_log_that_could_not_be_followed() -> None:
    """On its thread: the failed reader is closed, its copies are forgotten, and the thread ends when told to."""
    logs = make_logs()
    logs.refuses_to_open = 1
    standby, _ = make_standby(logs)
    standby.start()
    standby.start()
    wait_until(lambda: standby.report().partitions == 3)

    logs.opened[0].error = TransportError("Offset out of range.")
    wait_until(lambda: len(logs.opened) == 2)
    wait_until(lambda: standby.report().partitions == 3)
    standby.close()

    assert all(tail.is_closed for tail in logs.opened)
    assert standby.report().partitions == 0


def test_connections_for_restores_are_opened_before_the_first_turn_and_used_now_and_then() -> None:
    """Clients close those that nobody has used for minutes, and a fail-over comes after weeks."""
    logs = make_logs()
    standby, clock = make_standby(logs)
    tail = logs.tail()

    standby.turn(tail)
    standby.turn(tail)
    once = logs.warmed
    for _ in range(60):
        clock.advance(10.0)
        standby.turn(tail)

    assert once == 1
    assert logs.warmed == 3


def test_connections_that_cannot_be_opened_cost_no_copy() -> None:
    logs = make_logs()
    logs.refuses_to_warm = True
    standby, _ = make_standby(logs)

    standby.turn(logs.tail())

    assert logs.warmed == 1
    assert standby.report().partitions == 3
    assert not standby.report().doubts


def test_what_was_doubted_is_told_once() -> None:
    logs = make_logs(size=100)
    standby, _ = make_standby(logs, max_bytes=560)
    standby.turn(logs.tail())

    first, second = standby.report(), standby.report()

    assert first.doubts == {Doubt.FULL: 1}
    assert not second.doubts
