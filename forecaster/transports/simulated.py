"""Made-up streams as a source, paced by a clock, and as the bytes of readings."""

from __future__ import annotations

import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from forecaster.clock import Clock
from forecaster.errors import ConfigurationError, TransportError
from forecaster.ports import AssignmentListener
from forecaster.records import RawRecord
from forecaster.simulation.faults import FaultInjector
from forecaster.simulation.streams import Fault, SimulatedReading, SimulatedStream, simulate
from forecaster.transports.readings import RowEncoder
from forecaster.transports.tables import COMMON_FORMS, Row, TableLayout


class ReadingEncoder:
    """Writes made-up readings as key and JSON bytes, with the faults that only bytes can have."""

    def __init__(self, layout: TableLayout = COMMON_FORMS) -> None:
        self._rows = RowEncoder(layout)

    def encode(self, reading: SimulatedReading) -> tuple[bytes, bytes]:
        """Key and value; a malformed one is cut off in the middle, a NaN token stands where the value should.

        >>> ReadingEncoder().encode(SimulatedReading("a", 0.0, 1.0, Fault.NAN_TOKEN))
        (b'a', b'{"stream_id":"a","timestamp":"1970-01-01T00:00:00Z","value":NaN}')
        """
        value = None if math.isnan(reading.value) else reading.value
        key, body = self._rows.encode(Row(reading.stream_id, reading.time, "", value))
        if reading.fault is Fault.MALFORMED:
            return key, body[: len(body) // 2]
        if reading.fault is Fault.NAN_TOKEN:
            return key, body[: body.rindex(b":")] + b":NaN}"
        return key, body


class SimulatedSource:
    """A `Source` of made-up readings that arrive as time goes by.

    The first poll assigns the partitions and starts the clock. ``history_seconds`` of readings are there at once; the
    ones after them when the clock has come to them, at ``speed`` times its pace.

    Args:
        streams: what is simulated.
        start: event time of the clock's start, seconds since the epoch; the history lies before it.
        clock: paces the readings.
        speed: event seconds in one of the clock; ``None`` delivers as fast as it is polled.
        history_seconds: event time delivered at once.
        seconds: event time after ``start`` until the source is exhausted; ``None`` never is.
        faults: damages readings.
        layout: names of the JSON fields.
        topic: name of the source.
        partitions: how many; a stream's is ``crc32(id) % partitions``.
        sleep: waits so many seconds; a test hands in its clock's ``advance``.
    """

    def __init__(
        self,
        streams: Sequence[SimulatedStream],
        *,
        start: float,
        clock: Clock,
        speed: float | None = 1.0,
        history_seconds: float = 0.0,
        seconds: float | None = None,
        faults: FaultInjector | None = None,
        layout: TableLayout = COMMON_FORMS,
        topic: str = "readings",
        partitions: int = 1,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if speed is not None and not speed > 0:
            raise ConfigurationError(f"Speed {speed:g} is not above 0.", hint="1 is real time, 60 a minute a second.")
        self.topic = topic
        self.committed: dict[int, int] = {}
        """Partition -> next offset, as last committed; kept in memory only."""
        total = None if seconds is None else history_seconds + seconds
        readings = simulate(streams, start=start - history_seconds, seconds=total)
        self._readings = readings if faults is None else faults.apply(readings)
        self._next: SimulatedReading | None = None
        self._streams = streams
        self._encoder = ReadingEncoder(layout)
        self._start = start
        self._clock = clock
        self._speed = speed
        self._sleep = sleep
        self._offsets = [0] * partitions
        self._listener: AssignmentListener | None = None
        self._clock_start: float | None = None
        self._is_closed = False

    def subscribe(self, listener: AssignmentListener) -> None:
        if self._listener is not None:
            raise TransportError(f"Source {self.topic} has a subscriber already.", hint="Subscribe once.")
        self._listener = listener

    def poll(self, max_records: int, timeout_seconds: float) -> list[RawRecord]:
        if self._is_closed:
            raise TransportError(f"Source {self.topic} is closed.")
        if self._listener is None:
            raise TransportError(f"Source {self.topic} has no subscriber.", hint="Call subscribe before poll.")
        if self._clock_start is None:
            self._clock_start = self._clock.monotonic()
            self._next = next(self._readings, None)
            self._listener.assigned(range(len(self._offsets)))
            return []
        if self._next is not None and not self._is_due(self._next):
            self._sleep(max(0.0, min(timeout_seconds, self._seconds_until(self._next))))
        records: list[RawRecord] = []
        while len(records) < max_records and self._next is not None and self._is_due(self._next):
            records.append(self._record(self._next))
            self._next = next(self._readings, None)
        return records

    def commit(self, offsets: Mapping[int, int]) -> None:
        foreign = sorted(set(offsets) - set(range(len(self._offsets))))
        if foreign or self._is_closed or self._clock_start is None:
            raise TransportError(f"Commit of partitions {foreign or sorted(offsets)} of {self.topic}, not assigned.")
        self.committed.update(offsets)

    def lag(self) -> Mapping[int, int]:
        """Readings the clock has passed and nobody has polled; about right where faults leave some out.

        Nothing is ever known to wait when there is no pace.
        """
        if self._clock_start is None or self._is_closed:
            return {}
        waiting = Counter(dict.fromkeys(range(len(self._offsets)), 0))
        if self._next is not None and self._speed is not None:
            behind = self._event_time() - self._next.time
            if behind >= 0:
                for stream in self._streams:
                    waiting[self._partition(stream.stream_id.encode())] += int(behind // stream.step_seconds) + 1
        return waiting

    def is_exhausted(self) -> bool:
        return self._clock_start is not None and self._next is None

    def close(self) -> None:
        if self._is_closed:
            return
        if self._clock_start is not None and self._listener is not None:
            self._listener.revoked(range(len(self._offsets)))
        self._is_closed = True

    def _event_time(self) -> float:
        assert self._clock_start is not None
        assert self._speed is not None
        return self._start + (self._clock.monotonic() - self._clock_start) * self._speed

    def _is_due(self, reading: SimulatedReading) -> bool:
        return self._speed is None or reading.time <= self._event_time()

    def _seconds_until(self, reading: SimulatedReading) -> float:
        assert self._speed is not None
        return (reading.time - self._event_time()) / self._speed

    def _record(self, reading: SimulatedReading) -> RawRecord:
        key, value = self._encoder.encode(reading)
        partition = self._partition(key)
        offset = self._offsets[partition]
        self._offsets[partition] += 1
        return RawRecord(self.topic, partition, offset, -1.0, key, value)

    def _partition(self, key: bytes) -> int:
        return zlib.crc32(key) % len(self._offsets)
