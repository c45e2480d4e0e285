"""Faults put into made-up readings on purpose, and counted."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass

import numpy as np

from forecaster.errors import ConfigurationError
from forecaster.simulation.streams import Fault, SimulatedReading

_UNREADABLE = (Fault.MALFORMED, Fault.OUT_OF_RANGE, Fault.NAN_TOKEN)


@dataclass(frozen=True)
class FaultRates:
    """How often each fault begins, as a share of readings."""

    duplicate: float = 0.0
    late: float = 0.0
    shuffled: float = 0.0
    missing: float = 0.0
    malformed: float = 0.0
    out_of_range: float = 0.0
    nan_token: float = 0.0
    gap: float = 0.0
    flat_line: float = 0.0

    @classmethod
    def a_bad_day(cls) -> FaultRates:
        """Every fault at a rate a rough installation has; about one reading in forty begins one."""
        return cls(0.004, 0.003, 0.004, 0.004, 0.002, 0.002, 0.002, 0.0005, 0.00005)


class FaultInjector:
    """Damages readings at given rates. At most one fault a reading; a gap or flat line that has begun runs its course.

    Args:
        rates: how often each fault begins; together at most 1.
        rng: source of chance.
        late_readings: later readings of its stream that a late one is sent after.
        gap_readings: readings left out by one gap.
        flat_readings: readings that repeat one value.
        impossible_value: value of a reading out of range.

    Raises:
        ConfigurationError: a rate is negative, or they add up to more than 1.
    """

    def __init__(
        self,
        rates: FaultRates,
        rng: np.random.Generator,
        *,
        late_readings: int = 3,
        gap_readings: int = 20,
        flat_readings: int = 200,
        impossible_value: float = 1e31,
    ) -> None:
        shares = astuple(rates)
        if min(shares) < 0 or sum(shares) > 1:
            raise ConfigurationError(
                f"Fault rates {rates} cannot be shares of readings.", hint="Each is at least 0, together at most 1."
            )
        self.counts: Counter[Fault] = Counter()
        """Faulty readings so far, by fault; a gap or flat line counts each reading it left out or changed."""
        self.sent = 0
        """Readings sent so far, faulty or not."""
        self._bounds = np.cumsum(shares)
        self._faults = list(Fault)
        self._rng = rng
        self._late_readings = late_readings
        self._gap_readings = gap_readings
        self._flat_readings = flat_readings
        self._impossible_value = impossible_value
        self._in_gap: dict[str, int] = {}
        self._in_flat_line: dict[str, tuple[int, float]] = {}
        self._held: defaultdict[str, list[tuple[int, SimulatedReading]]] = defaultdict(list)

    def apply(self, readings: Iterable[SimulatedReading]) -> Iterator[SimulatedReading]:
        """The readings with faults, each faulty one saying which. Readings held back when they end follow at the end.

        A reading held back is only called late when a later good one of its stream was sent before it.
        """
        for reading in readings:
            yield from map(self._counted, self._damage(reading))
        for stream_id in list(self._held):
            for left, reading in self._held.pop(stream_id):
                has_been_overtaken = left < self._wait_of(reading)
                yield self._counted(reading if has_been_overtaken else reading._replace(fault=None))

    def expected_refusals(self) -> int:
        """How many of the readings sent so far have to end as dead letters, when nothing waits for late ones."""
        return sum(self.counts[fault] for fault in (*_UNREADABLE, Fault.DUPLICATE, Fault.LATE, Fault.SHUFFLED))

    def _damage(self, reading: SimulatedReading) -> list[SimulatedReading]:
        stream_id = reading.stream_id
        if stream_id in self._in_gap:
            return self._leave_out(stream_id)
        if stream_id in self._in_flat_line:
            return self._release_behind(self._flatten(reading))
        match self._draw():
            case None:
                return self._release_behind(reading)
            case Fault.GAP:
                self._in_gap[stream_id] = self._gap_readings
                return self._leave_out(stream_id)
            case Fault.FLAT_LINE if not math.isnan(reading.value):
                self._in_flat_line[stream_id] = (self._flat_readings, reading.value)
                return self._release_behind(reading)
            case Fault.FLAT_LINE:
                return self._release_behind(reading)
            case Fault.DUPLICATE:
                first, *released = self._release_behind(reading)
                return [first, reading._replace(fault=Fault.DUPLICATE), *released]
            case (Fault.LATE | Fault.SHUFFLED) as fault:
                held = reading._replace(fault=fault)
                self._held[stream_id].append((self._wait_of(held), held))
                return []
            case Fault.MISSING:
                return self._release_behind(reading._replace(value=math.nan, fault=Fault.MISSING))
            case Fault.OUT_OF_RANGE:
                return [reading._replace(value=self._impossible_value, fault=Fault.OUT_OF_RANGE)]
            case fault:
                return [reading._replace(fault=fault)]

    def _draw(self) -> Fault | None:
        index = int(np.searchsorted(self._bounds, self._rng.random(), side="right"))
        return self._faults[index] if index < len(self._faults) else None

    def _wait_of(self, reading: SimulatedReading) -> int:
        return 1 if reading.fault is Fault.SHUFFLED else self._late_readings

    def _leave_out(self, stream_id: str) -> list[SimulatedReading]:
        self.counts[Fault.GAP] += 1
        self._in_gap[stream_id] -= 1
        if not self._in_gap[stream_id]:
            del self._in_gap[stream_id]
        return []

    def _flatten(self, reading: SimulatedReading) -> SimulatedReading:
        left, value = self._in_flat_line[reading.stream_id]
        if left == 1:
            del self._in_flat_line[reading.stream_id]
        else:
            self._in_flat_line[reading.stream_id] = (left - 1, value)
        return reading._replace(value=value, fault=Fault.FLAT_LINE)

    def _release_behind(self, reading: SimulatedReading) -> list[SimulatedReading]:
        """A good reading, and behind it those held back that have now waited long enough."""
        held = self._held.get(reading.stream_id)
        if not held:
            return [reading]
        waiting = [(left - 1, late) for left, late in held]
        self._held[reading.stream_id] = [(left, late) for left, late in waiting if left > 0]
        return [reading, *(late for left, late in waiting if left <= 0)]

    def _counted(self, reading: SimulatedReading) -> SimulatedReading:
        self.sent += 1
        if reading.fault is not None:
            self.counts[reading.fault] += 1
        return reading
