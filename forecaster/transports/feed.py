"""Readings into a sink at a given pace, every delivery checked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from forecaster.clock import Clock
from forecaster.errors import ConfigurationError
from forecaster.ports import Sink
from forecaster.records import OutRecord


@dataclass(frozen=True)
class FeedReport:
    """What was fed."""

    sent: int
    """Records the sink acknowledged."""
    seconds: float
    """How long it took, by the clock."""

    @property
    def records_per_second(self) -> float:
        return self.sent / self.seconds if self.seconds > 0 else 0.0


def feed(
    records: Iterable[tuple[float, OutRecord]],
    sink: Sink,
    *,
    clock: Clock,
    speed: float | None = None,
    sleep: Callable[[float], object] = time.sleep,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], None] = lambda sent: None,
    check_seconds: float = 1.0,
    check_records: int = 10_000,
    timeout_seconds: float = 30.0,
) -> FeedReport:
    """Sends records in the order given, waiting until each is due, and returns when all are acknowledged.

    Args:
        records: event time and record. The first readable time is due at once, later ones when the clock has come to
            them; times that go back, or are ``nan``, are due at once.
        sink: where they go; it is flushed, not closed.
        clock: paces, and says when to flush.
        speed: event seconds in one of the clock; ``None`` sends flat out.
        sleep: waits so many seconds or less.
        should_stop: looked at before each record and each second of waiting; true ends the feed early.
        on_progress: told the number of acknowledged records after each flush.
        check_seconds: longest time between flushes.
        check_records: most records between flushes.
        timeout_seconds: how long one flush may take.

    Raises:
        ConfigurationError: ``speed`` is not above 0.
        TransportError: a record was refused, or not acknowledged in time.
    """
    if speed is not None and not speed > 0:
        raise ConfigurationError(f"Speed {speed:g} is not above 0.", hint="1 is real time, 60 a minute a second.")
    begin = clock.monotonic()
    checked_at, sent, acknowledged = begin, 0, 0
    first_time = math.nan

    def check() -> None:
        nonlocal checked_at, acknowledged
        sink.flush(timeout_seconds)
        checked_at, acknowledged = clock.monotonic(), sent
        on_progress(acknowledged)

    for event_time, record in records:
        if speed is not None and not math.isnan(event_time):
            if math.isnan(first_time):
                first_time = event_time
            due = begin + (event_time - first_time) / speed
            while (wait := due - clock.monotonic()) > 0 and not should_stop():
                if sent > acknowledged and clock.monotonic() - checked_at >= check_seconds:
                    check()
                    continue
                sleep(min(wait, check_seconds))
        if should_stop():
            break
        sink.send(record)
        sent += 1
        if sent - acknowledged >= check_records or clock.monotonic() - checked_at >= check_seconds:
            check()
    if sent > acknowledged:
        check()
    return FeedReport(sent, clock.monotonic() - begin)
