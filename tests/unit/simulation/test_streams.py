import itertools
from collections import Counter

import numpy as np
import pytest

from forecaster.errors import ConfigurationError
from forecaster.simulation.streams import SimulatedStream, demo_streams, make_streams, simulate


class Count:
    """Its own number of steps as value."""

    def __init__(self) -> None:
        self._steps = -1

    def step(self, time: float) -> float:
        self._steps += 1
        return float(self._steps)


def make_rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_readings_come_by_time_each_stream_at_its_interval() -> None:
    streams = [SimulatedStream("slow", Count(), 10.0), SimulatedStream("fast", Count(), 4.0)]

    readings = [
        (reading.stream_id, reading.time, reading.value) for reading in simulate(streams, start=100, seconds=13)
    ]

    assert readings == [
        ("slow", 100, 0),
        ("fast", 100, 0),
        ("fast", 104, 1),
        ("fast", 108, 2),
        ("slow", 110, 1),
        ("fast", 112, 3),
    ]


def test_intervals_that_no_double_holds_do_not_add_up() -> None:
    (last,) = itertools.islice(simulate([SimulatedStream("a", Count(), 0.1)], start=0), 100_000, 100_001)

    assert last.time == 10_000.0


def test_simulation_without_an_end_goes_on() -> None:
    assert len(list(itertools.islice(simulate([SimulatedStream("a", Count(), 1.0)], start=0), 1_000))) == 1_000


def test_demo_has_a_ward_a_hall_and_two_servers() -> None:
    streams = demo_streams(make_rng())

    assert Counter(stream.stream_id.split("-")[0] for stream in streams) == {"ward": 6, "hall": 6, "server": 6}
    assert len({stream.stream_id for stream in streams}) == 18
    assert {"ward-3/bed-12", "hall-1/press-2/temperature", "server-1/latency"} <= {
        stream.stream_id for stream in streams
    }


@pytest.mark.parametrize("profile", ["heart-rate", "sensor", "server", "all"])
def test_any_number_of_streams_of_a_profile_can_be_made(profile: str) -> None:
    streams = make_streams(profile, 100, make_rng())

    assert len({stream.stream_id for stream in streams}) == 100


def test_streams_of_a_seed_do_not_depend_on_how_many_are_made() -> None:
    few, many = make_streams("all", 5, make_rng()), make_streams("all", 9, make_rng())

    def start_of(streams: list[SimulatedStream]) -> list[tuple[str, float]]:
        return [(stream.stream_id, stream.process.step(0.0)) for stream in streams[:5]]

    assert start_of(few) == start_of(many)


@pytest.mark.parametrize(("profile", "count"), [("weather", 3), ("sensor", 0)])
def test_streams_that_cannot_be_made_are_refused(profile: str, count: int) -> None:
    with pytest.raises(ConfigurationError):
        make_streams(profile, count, make_rng())
