import math

import pytest

from forecaster.clock import ManualClock
from forecaster.errors import ConfigurationError, DeliveryFailed
from forecaster.records import OutRecord
from forecaster.transports.feed import FeedReport, feed
from forecaster.transports.memory import MemorySink


class TimedSink(MemorySink):
    """Remembers when each record was sent and each flush made."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.sent_at: list[float] = []
        self.flushed_at: list[float] = []
        self._clock = clock

    def send(self, record: OutRecord) -> None:
        super().send(record)
        self.sent_at.append(self._clock.now())

    def flush(self, timeout_seconds: float) -> None:
        super().flush(timeout_seconds)
        self.flushed_at.append(self._clock.now())


def make_records(*times: float) -> list[tuple[float, OutRecord]]:
    return [(time, OutRecord("readings", None, b"a", str(number).encode())) for number, time in enumerate(times)]


def test_flat_out_everything_is_sent_and_acknowledged_at_once() -> None:
    clock, sink = ManualClock(), MemorySink()

    report = feed(make_records(0, 100, 200), sink, clock=clock, sleep=clock.advance)

    assert report == FeedReport(sent=3, seconds=0.0)
    assert len(sink.records) == 3


def test_records_are_sent_when_they_are_due() -> None:
    clock = ManualClock(1_000.0)
    sink = TimedSink(clock)

    report = feed(make_records(50, 50, 60, 80), sink, clock=clock, speed=10.0, sleep=clock.advance)

    assert sink.sent_at == [1_000, 1_000, 1_001, 1_003]
    assert report.seconds == pytest.approx(3.0)
    assert report.records_per_second == pytest.approx(4 / 3)


def test_times_that_go_back_or_cannot_be_read_are_due_at_once() -> None:
    clock = ManualClock()
    sink = TimedSink(clock)

    feed(make_records(math.nan, 50, 60, 20, math.nan, 61), sink, clock=clock, speed=1.0, sleep=clock.advance)

    assert sink.sent_at == [0, 0, 10, 10, 10, 11]


def test_deliveries_are_checked_while_it_waits() -> None:
    clock = ManualClock()
    sink = TimedSink(clock)

    feed(make_records(0, 10), sink, clock=clock, speed=1.0, sleep=clock.advance, check_seconds=2.0)

    assert sink.flushed_at == [2.0, 10.0]


def test_deliveries_are_checked_after_so_many_records() -> None:
    clock, sink, progress = ManualClock(), MemorySink(), list[int]()

    feed(make_records(*range(7)), sink, clock=clock, sleep=clock.advance, check_records=3, on_progress=progress.append)

    assert progress == [3, 6, 7]


def test_refused_record_ends_the_feed_with_an_error() -> None:
    clock, sink = ManualClock(), MemorySink()
    sink.refuse(1)

    with pytest.raises(DeliveryFailed):
        feed(make_records(0, 1, 2), sink, clock=clock, sleep=clock.advance)


def test_stop_ends_the_feed_in_the_middle_of_waiting_with_what_was_sent_acknowledged() -> None:
    clock, sink = ManualClock(), MemorySink()

    report = feed(
        make_records(0, 1_000),
        sink,
        clock=clock,
        speed=1.0,
        sleep=clock.advance,
        should_stop=lambda: clock.now() >= 5,
    )

    assert report.sent == 1
    assert len(sink.records) == 1
    assert clock.now() < 10


def test_speed_has_to_be_above_nothing() -> None:
    with pytest.raises(ConfigurationError, match="Speed"):
        feed([], MemorySink(), clock=ManualClock(), speed=0.0)
