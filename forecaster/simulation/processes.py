"""Made-up measurements that behave like the real thing: heart rates, machine sensors, server metrics.

Every process is stepped through rising times and draws a fixed number of random numbers a step, so the values depend
on the seed and the times alone, not on how many steps are taken at once.
"""

from __future__ import annotations

import copy
import math
from typing import Protocol

import numpy as np

DAY = 86_400.0
HOUR = 3_600.0


class Process(Protocol):
    """One stream's values."""

    def step(self, time: float) -> float:
        """The value at ``time``, seconds since the epoch and later than all before; ``nan`` from a silent sensor."""


class Wander:
    """Ornstein-Uhlenbeck noise, exact at any step: returns to zero over ``relaxation_seconds``, spread ``deviation``.

    Source: Gillespie (1996), "Exact numerical simulation of the Ornstein-Uhlenbeck process", Phys. Rev. E 54, 2084.
    """

    def __init__(self, rng: np.random.Generator, *, deviation: float, relaxation_seconds: float) -> None:
        self._rng = rng
        self._deviation = deviation
        self._relaxation_seconds = relaxation_seconds
        self._value = deviation * float(rng.standard_normal())

    def step(self, seconds: float) -> float:
        """The noise ``seconds`` after the last step."""
        kept = math.exp(-seconds / self._relaxation_seconds)
        fresh = self._deviation * math.sqrt(1.0 - kept * kept)
        self._value = kept * self._value + fresh * float(self._rng.standard_normal())
        return self._value


class Episodes:
    """Things that begin now and then and last a while; ``strength`` is drawn anew for each.

    Args:
        rng: source of chance.
        per_hour: how many begin in an hour where ``step`` is given a readiness of 1.
        seconds: shortest and longest.
        strength: smallest and largest.
    """

    def __init__(
        self, rng: np.random.Generator, *, per_hour: float, seconds: tuple[float, float], strength: tuple[float, float]
    ) -> None:
        self._rng = rng
        self._per_second = per_hour / HOUR
        self._seconds = seconds
        self._strength = strength
        self._left = 0.0
        self._now = 0.0

    def step(self, seconds: float, readiness: float = 1.0) -> float:
        """Strength of the episode under way ``seconds`` after the last step, or 0."""
        chance, length, strength = self._rng.random(3)
        self._left -= seconds
        if self._left <= 0:
            self._now = 0.0
            if chance < 1.0 - math.exp(-self._per_second * readiness * seconds):
                self._left = self._seconds[0] + length * (self._seconds[1] - self._seconds[0])
                self._now = self._strength[0] + strength * (self._strength[1] - self._strength[0])
        return self._now


class HeartRate:
    """Beats a minute of one person: asleep, at rest, walking or exercising; the sensor comes loose at times.

    Effort rises within a minute and is recovered from over some minutes, as after exercise; breathing and posture
    keep the rate wandering. Whole beats, as monitors send them.

    Args:
        rng: source of chance; also of the person's resting rate and habits.
        activity: how often the person moves, 1 for somebody up and about, less for a patient in bed.
    """

    def __init__(self, rng: np.random.Generator, *, activity: float = 1.0) -> None:
        self._resting = float(rng.uniform(54, 76))
        self._bedtime = float(rng.uniform(21.5, 24.0)) * HOUR
        self._asleep_seconds = float(rng.uniform(7.0, 8.5)) * HOUR
        self._recovery_seconds = float(rng.uniform(70, 180))
        breathing, posture, walks, exercise, dropout = rng.spawn(5)
        self._breathing = Wander(breathing, deviation=1.0, relaxation_seconds=6)
        self._posture = Wander(posture, deviation=2.5, relaxation_seconds=400)
        self._walks = Episodes(walks, per_hour=1.5 * activity, seconds=(90, 600), strength=(12, 30))
        self._exercise = Episodes(exercise, per_hour=0.12 * activity, seconds=(900, 2700), strength=(45, 95))
        self._dropout = Episodes(dropout, per_hour=0.25, seconds=(10, 120), strength=(1, 1))
        self._effort = 0.0
        self._time: float | None = None

    def step(self, time: float) -> float:
        seconds = 0.0 if self._time is None else time - self._time
        self._time = time
        awake = self._awakeness(time)
        wanted = max(self._walks.step(seconds, awake), self._exercise.step(seconds, awake))
        relaxation = 40.0 if wanted > self._effort else self._recovery_seconds
        self._effort = wanted + (self._effort - wanted) * math.exp(-seconds / relaxation)
        wander = self._breathing.step(seconds) + self._posture.step(seconds)
        if self._dropout.step(seconds):
            return math.nan
        rate = self._resting - 9.0 * (1.0 - awake) + self._effort + wander
        return float(round(min(max(rate, 32.0), 215.0)))

    def _awakeness(self, time: float) -> float:
        """0 deep in the night, 1 by day, about half an hour between."""
        since_bedtime = (time - self._bedtime) % DAY
        falling = 1.0 / (1.0 + math.exp(-_bounded(since_bedtime / 600.0 - 3.0)))
        waking = 1.0 / (1.0 + math.exp(-_bounded((since_bedtime - self._asleep_seconds) / 600.0)))
        return 1.0 - falling + waking


class MachineTemperature:
    """Degrees Celsius of a machine in a hall: a working day, a thermostat's cycle, slow drift, sensor noise."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._base = float(rng.uniform(45, 75))
        self._daily = float(rng.uniform(3, 8))
        self._cycle = float(rng.uniform(0.5, 1.5))
        self._cycle_seconds = float(rng.uniform(900, 2400))
        self._phase = float(rng.uniform(0, 2 * math.pi))
        drift, noise = rng.spawn(2)
        self._drift = Wander(drift, deviation=2.0, relaxation_seconds=2 * DAY)
        self._noise = Wander(noise, deviation=0.15, relaxation_seconds=20)
        self._time: float | None = None

    def step(self, time: float) -> float:
        seconds = 0.0 if self._time is None else time - self._time
        self._time = time
        day = self._daily * math.sin(2 * math.pi * (time / DAY - 0.375))  # warmest in mid-afternoon
        cycle = self._cycle * math.sin(2 * math.pi * time / self._cycle_seconds + self._phase)
        return round(self._base + day + cycle + self._drift.step(seconds) + self._noise.step(seconds), 2)


class MachineVibration:
    """Millimetres a second (RMS) of a machine: quiet outside its shifts, rougher as bearings wear, jolts at times."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._running = float(rng.uniform(1.5, 4.0))
        self._shift_start = float(rng.uniform(5.0, 7.0)) * HOUR
        self._wear_days = float(rng.uniform(20, 60))
        load, noise, jolts = rng.spawn(3)
        self._load = Wander(load, deviation=0.12, relaxation_seconds=900)
        self._noise = Wander(noise, deviation=0.05, relaxation_seconds=5)
        self._jolts = Episodes(jolts, per_hour=0.2, seconds=(20, 180), strength=(0.5, 2.0))
        self._time: float | None = None

    def step(self, time: float) -> float:
        seconds = 0.0 if self._time is None else time - self._time
        self._time = time
        is_running = (time - self._shift_start) % DAY < 16 * HOUR
        wear = 1.0 + 0.6 * (time / DAY / self._wear_days % 1.0)  # bearings are changed when the period is over
        wander = math.exp(self._load.step(seconds) + self._noise.step(seconds))
        jolt = self._jolts.step(seconds)
        level = self._running * wear + jolt if is_running else 0.08 * self._running
        return round(level * wander, 3)


class ServerLoad:
    """Requests a second: the day, the quieter weekend, bursts that die down, and levels that shift for good."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.capacity = float(rng.uniform(300, 1200))
        """Requests a second at which the machine is full."""
        self._peak_hour = float(rng.uniform(13, 20)) * HOUR
        wander, bursts, shifts = rng.spawn(3)
        self._wander = Wander(wander, deviation=0.08, relaxation_seconds=600)
        self._bursts = Episodes(bursts, per_hour=0.25, seconds=(30, 240), strength=(0.3, 1.2))
        self._shifts = Episodes(shifts, per_hour=1 / 36, seconds=(6 * HOUR, 48 * HOUR), strength=(-0.35, 0.4))
        self._burst = 0.0
        self._shift = 0.0
        self._time: float | None = None

    def step(self, time: float) -> float:
        seconds = 0.0 if self._time is None else time - self._time
        self._time = time
        day = 0.55 + 0.45 * math.cos(2 * math.pi * (time - self._peak_hour) / DAY)
        is_weekend = int(time // DAY + 4) % 7 in (0, 6)  # the epoch began on a Thursday
        week = 0.6 if is_weekend else 1.0
        self._burst = max(self._bursts.step(seconds), self._burst * math.exp(-seconds / 300.0))
        self._shift = self._shifts.step(seconds)
        level = 0.15 + 0.45 * day * week
        return self.capacity * level * (1.0 + self._burst) * (1.0 + self._shift) * math.exp(self._wander.step(seconds))


class RequestRate:
    """Requests a second as counted: the load with the noise of counting."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._load = ServerLoad(rng)
        (self._rng,) = rng.spawn(1)

    def step(self, time: float) -> float:
        expected = self._load.step(time)
        return round(max(0.0, expected + math.sqrt(expected) * float(self._rng.standard_normal())), 1)


class ServerLatency:
    """Milliseconds at the 99th percentile: grows as the load comes near the capacity, as queues do."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._load = ServerLoad(rng)
        self._service = float(rng.uniform(8, 30))
        (noise,) = rng.spawn(1)
        self._noise = Wander(noise, deviation=0.12, relaxation_seconds=30)
        self._time: float | None = None

    def step(self, time: float) -> float:
        seconds = 0.0 if self._time is None else time - self._time
        self._time = time
        usage = min(self._load.step(time) / self._load.capacity, 0.97)
        return round(self._service / (1.0 - usage) * math.exp(self._noise.step(seconds)), 2)


class ServerCpu:
    """Percent of the processors in use: the load, and a background job every hour."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._load = ServerLoad(rng)
        self._job_minute = float(rng.uniform(0, 50)) * 60
        (noise,) = rng.spawn(1)
        self._noise = Wander(noise, deviation=1.5, relaxation_seconds=15)
        self._time: float | None = None

    def step(self, time: float) -> float:
        seconds = 0.0 if self._time is None else time - self._time
        self._time = time
        job = 12.0 if (time - self._job_minute) % HOUR < 240 else 0.0
        usage = 6.0 + 80.0 * self._load.step(time) / self._load.capacity + job + self._noise.step(seconds)
        return round(min(max(usage, 0.5), 100.0), 1)


def server_processes(rng: np.random.Generator) -> dict[str, Process]:
    """The metrics of one server, by name. All follow one load, as long as they are stepped through the same times."""
    return {
        "requests": RequestRate(copy.deepcopy(rng)),
        "latency": ServerLatency(copy.deepcopy(rng)),
        "cpu": ServerCpu(rng),
    }


def _bounded(exponent: float) -> float:
    return min(max(exponent, -60.0), 60.0)
