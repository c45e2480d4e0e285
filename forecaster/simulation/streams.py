"""Sets of made-up streams, and their readings in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from forecaster.errors import ConfigurationError
from forecaster.simulation.processes import HeartRate, MachineTemperature, MachineVibration, Process, server_processes

PROFILES = ("heart-rate", "sensor", "server", "all")


class Fault(StrEnum):
    """What is wrong with a made-up reading."""

    DUPLICATE = "duplicate"
    """Sent a second time."""
    LATE = "late"
    """Sent after several later readings of its stream."""
    SHUFFLED = "shuffled"
    """Sent after the next reading of its stream."""
    MISSING = "missing"
    """Without a value."""
    MALFORMED = "malformed"
    """Cut off in the middle."""
    OUT_OF_RANGE = "out_of_range"
    """With a value no sensor can have."""
    NAN_TOKEN = "nan_token"
    """With NaN for a value, which JSON does not have."""
    GAP = "gap"
    """Not sent at all."""
    FLAT_LINE = "flat_line"
    """With the value of an earlier reading."""


class SimulatedReading(NamedTuple):
    """One reading before it is bytes."""

    stream_id: str
    time: float
    value: float
    """``nan`` is a missing reading."""
    fault: Fault | None = None


@dataclass(frozen=True)
class SimulatedStream:
    """One made-up stream."""

    stream_id: str
    process: Process
    step_seconds: float

    def every(self, step_seconds: float) -> SimulatedStream:
        """The same stream at another interval."""
        return replace(self, step_seconds=step_seconds)


def demo_streams(rng: np.random.Generator) -> list[SimulatedStream]:
    """A ward with six beds, a hall with three presses of two sensors each, and two servers of three metrics each."""
    ward = [(f"ward-3/bed-{bed}", HeartRate(rng, activity=0.6)) for bed in range(11, 17)]
    streams = [SimulatedStream(stream_id, process, 5.0) for stream_id, process in ward]
    for press in range(1, 4):
        streams.append(SimulatedStream(f"hall-1/press-{press}/temperature", MachineTemperature(rng), 10.0))
        streams.append(SimulatedStream(f"hall-1/press-{press}/vibration", MachineVibration(rng), 10.0))
    for server in range(1, 3):
        for name, process in server_processes(rng.spawn(1)[0]).items():
            streams.append(SimulatedStream(f"server-{server}/{name}", process, 10.0))
    return streams


def make_streams(profile: str, count: int, rng: np.random.Generator) -> list[SimulatedStream]:
    """``count`` streams of one profile; ``all`` takes the profiles in turn.

    Raises:
        ConfigurationError: no such profile, or no stream asked for.
    """
    if profile not in PROFILES or count < 1:
        raise ConfigurationError(
            f"{count} streams of profile {profile!r} cannot be made.",
            hint=f"Ask for at least one of {', '.join(PROFILES)}.",
        )
    if profile == "all":
        sets = [_endless(name, rng.spawn(1)[0]) for name in PROFILES[:-1]]
        return [next(sets[number % len(sets)]) for number in range(count)]
    endless = _endless(profile, rng)
    return [next(endless) for _ in range(count)]


def simulate(
    streams: Sequence[SimulatedStream], *, start: float, seconds: float | None = None
) -> Iterator[SimulatedReading]:
    """Readings of all streams by time, from ``start`` on (seconds since the epoch), each stream at its interval.

    Streams due at the same time come in the order given. Without ``seconds`` it never ends.
    """
    # (time, number of the stream, steps taken): times are multiples of the interval, so that nothing adds up
    due = [(round(start, 6), number, 0) for number in range(len(streams))]
    while due:
        time, number, steps = due[0]
        if seconds is not None and time >= start + seconds:
            return
        stream = streams[number]
        yield SimulatedReading(stream.stream_id, time, stream.process.step(time))
        heapq.heapreplace(due, (round(start + (steps + 1) * stream.step_seconds, 6), number, steps + 1))


def _endless(profile: str, rng: np.random.Generator) -> Iterator[SimulatedStream]:
    number = 0
    while True:
        number += 1
        if profile == "heart-rate":
            yield SimulatedStream(f"ward-{(number - 1) // 20 + 1}/bed-{(number - 1) % 20 + 1}", HeartRate(rng), 5.0)
        elif profile == "sensor":
            machine = f"hall-{(number - 1) // 20 + 1}/press-{(number - 1) % 20 + 1}"
            yield SimulatedStream(f"{machine}/temperature", MachineTemperature(rng), 10.0)
            yield SimulatedStream(f"{machine}/vibration", MachineVibration(rng), 10.0)
        else:
            for name, process in server_processes(rng.spawn(1)[0]).items():
                yield SimulatedStream(f"server-{number}/{name}", process, 10.0)
