"""The pace at which records of another source are delivered."""

from __future__ import annotations

import math

import pytest
from factories import START, make_raw

from forecaster.clock import ManualClock
from forecaster.codecs.json_codec import JsonCodec
from forecaster.errors import ConfigurationError
from forecaster.records import Observation, RawRecord
from forecaster.transports.memory import MemorySource
from forecaster.transports.paced import PacedSource


class Listener:
    """Knows what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[int]]] = []

    def assigned(self, partitions) -> None:
        self.told.append(("assigned", list(partitions)))

    def revoked(self, partitions) -> None:
        self.told.append(("revoked", list(partitions)))

    def lost(self, partitions) -> None:
        self.told.append(("lost", list(partitions)))


CODEC = JsonCodec()


def time_of(raw: RawRecord) -> float:
    return next((found.time for found in CODEC.decode(raw) if isinstance(found, Observation)), math.nan)


def paced(records: list[RawRecord], *, speed: float = 1.0, clock: ManualClock | None = None) -> PacedSource:
    """A source with its first poll, which assigns, behind it; sleeping moves the clock."""
    clock = clock or ManualClock()
    source = PacedSource(MemorySource(records), time_of=time_of, clock=clock, speed=speed, sleep=clock.advance)
    source.subscribe(Listener())
    assert source.poll(10, 0.1) == []
    return source


def arrivals(source: PacedSource, clock: ManualClock, *, timeout_seconds: float = 0.25) -> list[tuple[float, int]]:
    """(clock time, offset) of every record, until the source has no more."""
    found = []
    while not source.is_exhausted():
        found += [(clock.now(), record.offset) for record in source.poll(10, timeout_seconds)]
    return found


@pytest.mark.parametrize(("speed", "due"), [(1.0, [0.0, 1.0, 2.0, 5.0]), (60.0, [0.0, 1 / 60, 2 / 60, 5 / 60])])
def test_records_come_when_their_time_has_come(speed, due):
    clock = ManualClock()
    source = paced([make_raw(k, time=START + at) for k, at in enumerate([0, 1, 2, 5])], speed=speed, clock=clock)

    found = arrivals(source, clock)

    assert [offset for _, offset in found] == [0, 1, 2, 3]
    assert [at for at, _ in found] == pytest.approx(due)


def test_the_first_record_is_due_at_once_whatever_its_time():
    clock = ManualClock()
    clock.advance(1_000.0)
    source = paced([make_raw(0, time=START)], clock=clock)

    assert [record.offset for record in source.poll(10, 0.25)] == [0]


def test_nothing_is_waited_for_longer_than_asked():
    clock = ManualClock()
    source = paced([make_raw(0, time=START), make_raw(1, time=START + 3_600)], clock=clock)
    source.poll(10, 0.25)

    before = clock.now()

    assert source.poll(10, 0.25) == []
    assert clock.now() - before == 0.25


def test_records_that_go_back_in_time_or_have_none_follow_the_one_before_them():
    clock = ManualClock()
    records = [
        make_raw(0, time=START),
        make_raw(1, time=START + 4),
        make_raw(2, time=START + 2),
        RawRecord("readings", 0, 3, -1.0, b"a", b"no reading"),
        make_raw(4, time=START + 5),
    ]
    source = paced(records, clock=clock)

    found = arrivals(source, clock)

    assert [offset for _, offset in found] == [0, 1, 2, 3, 4]
    assert [at for at, _ in found] == pytest.approx([0, 4, 4, 4, 5])


def test_a_stop_of_the_reader_is_caught_up():
    clock = ManualClock()
    source = paced([make_raw(k) for k in range(20)], clock=clock)
    source.poll(10, 0.25)

    clock.advance(12.5)

    assert [record.offset for record in source.poll(10, 0.25)] == list(range(1, 10))
    assert [record.offset for record in source.poll(10, 0.25)] == [10, 11, 12]


def test_it_is_exhausted_only_when_everything_was_delivered():
    source = paced([make_raw(0, time=START), make_raw(1, time=START + 10)])
    source.poll(10, 0.25)

    assert not source.is_exhausted()


def test_the_rest_is_that_of_the_source_beneath():
    clock, listener = ManualClock(), Listener()
    inner = MemorySource([make_raw(0)])
    source = PacedSource(inner, time_of=time_of, clock=clock, speed=1.0, sleep=clock.advance)

    source.subscribe(listener)
    source.poll(10, 0.1)
    source.poll(10, 0.1)
    source.commit({0: 1})
    lag = source.lag()
    source.close()

    assert source.topic == "readings"
    assert lag == {0: 0}
    assert inner.committed == {0: 1}
    assert listener.told == [("assigned", [0]), ("revoked", [0])]


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan])
def test_a_speed_that_leads_nowhere_is_refused(speed):
    with pytest.raises(ConfigurationError, match="not above 0"):
        PacedSource(MemorySource(), time_of=time_of, clock=ManualClock(), speed=speed)


def test_a_record_that_falls_due_between_two_looks_at_the_clock_is_waited_for_no_time():
    class Creeping(ManualClock):
        """Goes on by 0.3 s whenever it is looked at."""

        def monotonic(self) -> float:
            self.advance(0.3)
            return super().monotonic()

    clock, slept = Creeping(), []
    records = [make_raw(0, time=START), make_raw(1, time=START + 1)]
    source = PacedSource(MemorySource(records), time_of=time_of, clock=clock, speed=1.0, sleep=slept.append)
    source.subscribe(Listener())

    found = [record.offset for _ in range(10) for record in source.poll(10, 0.25)]

    assert found == [0, 1]
    assert slept
    assert all(0 <= seconds <= 0.25 for seconds in slept)
