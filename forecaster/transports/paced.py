"""Any source at the pace of a clock: readings come when their event time has come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from forecaster.clock import Clock
from forecaster.errors import ConfigurationError
from forecaster.ports import AssignmentListener, Source
from forecaster.records import RawRecord


class PacedSource:
    """Delivers the records of another source at ``speed`` event seconds per second of the clock.

    The first record is due at once. Records whose time goes back, or cannot be told, follow the one before them.

    Args:
        inner: where the records come from, in an order close to that of event time.
        time_of: event time of a record in seconds, ``nan`` where it has none.
        sleep: waits so many seconds; a test hands in its clock's ``advance``.
    """

    def __init__(
        self,
        inner: Source,
        *,
        time_of: Callable[[RawRecord], float],
        clock: Clock,
        speed: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not speed > 0:
            raise ConfigurationError(f"Speed {speed:g} is not above 0.", hint="1 is real time, 60 a minute a second.")
        self.topic = inner.topic
        self._inner = inner
        self._time_of = time_of
        self._clock = clock
        self._speed = speed
        self._sleep = sleep
        self._waiting: list[RawRecord] = []
        self._began: tuple[float, float] | None = None  # clock and event time of the first record

    def subscribe(self, listener: AssignmentListener) -> None:
        self._inner.subscribe(listener)

    def poll(self, max_records: int, timeout_seconds: float) -> list[RawRecord]:
        if not self._waiting:
            self._waiting = self._inner.poll(max_records, timeout_seconds)
        due = 0
        while due < len(self._waiting) and self._seconds_until(self._waiting[due]) <= 0:
            due += 1
        if due == 0 and self._waiting:
            # The clock went on since the loop looked, so that the record may be due by now.
            self._sleep(min(timeout_seconds, max(0.0, self._seconds_until(self._waiting[0]))))
            return []
        delivered, self._waiting = self._waiting[:due], self._waiting[due:]
        return delivered

    def commit(self, offsets: Mapping[int, int]) -> None:
        self._inner.commit(offsets)

    def lag(self) -> Mapping[int, int]:
        return self._inner.lag()

    def is_exhausted(self) -> bool:
        return not self._waiting and self._inner.is_exhausted()

    def close(self) -> None:
        self._inner.close()

    def _seconds_until(self, record: RawRecord) -> float:
        at = self._time_of(record)
        if math.isnan(at):
            return 0.0
        if self._began is None:
            self._began = self._clock.monotonic(), at
        began, first = self._began
        return (at - first) / self._speed - (self._clock.monotonic() - began)
