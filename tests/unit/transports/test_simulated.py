from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from forecaster.clock import ManualClock
from forecaster.codecs.json_codec import JsonCodec
from forecaster.errors import ConfigurationError, TransportError
from forecaster.records import DeadLetter, Observation, RawRecord, Reason
from forecaster.simulation.faults import FaultInjector, FaultRates
from forecaster.simulation.streams import (
    PROFILES,
    Fault,
    SimulatedReading,
    SimulatedStream,
    demo_streams,
    make_streams,
    simulate,
)
from forecaster.transports.simulated import ReadingEncoder, SimulatedSource

START = 1_767_225_600.0


class Constant:
    def step(self, time: float) -> float:
        return 5.0


class ListenerLog:
    def __init__(self) -> None:
        self.events: list[tuple[str, list[int]]] = []

    def assigned(self, partitions: Sequence[int]) -> None:
        self.events.append(("assigned", list(partitions)))

    def revoked(self, partitions: Sequence[int]) -> None:
        self.events.append(("revoked", list(partitions)))

    def lost(self, partitions: Sequence[int]) -> None:
        self.events.append(("lost", list(partitions)))


def make_source(clock: ManualClock, *, streams: int = 2, **overrides: Any) -> tuple[SimulatedSource, ListenerLog]:
    made = [SimulatedStream(f"s{number}", Constant(), 10.0) for number in range(streams)]
    source = SimulatedSource(made, start=START, clock=clock, sleep=clock.advance, **overrides)
    listener = ListenerLog()
    source.subscribe(listener)
    assert source.poll(100, 0) == []
    return source, listener


def times(records: list[RawRecord]) -> list[float]:
    answers = [JsonCodec().decode(record)[0] for record in records]
    return [answer.time - START for answer in answers if isinstance(answer, Observation)]


def test_history_is_there_at_once_and_the_present_is_not_left_out() -> None:
    source, listener = make_source(ManualClock(50.0), history_seconds=30)

    assert times(source.poll(100, 0)) == [-30, -30, -20, -20, -10, -10, 0, 0]
    assert source.poll(100, 0) == []
    assert listener.events == [("assigned", [0])]


def test_readings_come_when_the_clock_has_come_to_them() -> None:
    clock = ManualClock()
    source, _ = make_source(clock)
    source.poll(100, 0)

    clock.advance(9.0)
    assert source.poll(100, 0) == []
    clock.advance(11.0)
    assert times(source.poll(100, 0)) == [10, 10, 20, 20]


def test_speed_makes_event_time_pass_faster() -> None:
    clock = ManualClock()
    source, _ = make_source(clock, speed=60.0)
    source.poll(100, 0)

    clock.advance(0.5)

    assert times(source.poll(100, 0)) == [10, 10, 20, 20, 30, 30]


def test_poll_waits_for_the_next_reading_and_no_longer_than_allowed() -> None:
    clock = ManualClock()
    source, _ = make_source(clock, speed=2.0)
    source.poll(100, 0)

    assert source.poll(100, 1.0) == []
    assert clock.now() == 1.0
    assert times(source.poll(100, 60.0)) == [10, 10]
    assert clock.now() == 5.0


def test_without_a_speed_readings_never_wait() -> None:
    source, _ = make_source(ManualClock(), speed=None)

    assert len(source.poll(1_000, 0)) == 1_000
    assert source.lag() == {0: 0}


def test_source_with_an_end_is_exhausted_after_its_last_reading() -> None:
    source, _ = make_source(ManualClock(), speed=None, history_seconds=20, seconds=20)

    assert not source.is_exhausted()
    assert times(source.poll(100, 0)) == [-20, -20, -10, -10, 0, 0, 10, 10]
    assert source.is_exhausted()
    assert source.poll(100, 0) == []


def test_lag_is_what_the_clock_has_passed() -> None:
    clock = ManualClock()
    source, _ = make_source(clock, streams=1)
    source.poll(100, 0)
    assert source.lag() == {0: 0}

    clock.advance(35)

    assert source.lag() == {0: 3}
    source.poll(2, 0)
    assert source.lag() == {0: 1}


def test_streams_keep_their_partition_and_offsets_have_no_gap() -> None:
    source, listener = make_source(ManualClock(), streams=20, partitions=3, speed=None)

    records = source.poll(200, 0)

    assert listener.events == [("assigned", [0, 1, 2])]
    assert len({(record.key, record.partition) for record in records}) == 20
    for partition in range(3):
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == list(range(len(offsets)))


def test_faults_are_put_in() -> None:
    faults = FaultInjector(FaultRates(malformed=0.2, nan_token=0.2), np.random.default_rng(1))
    source, _ = make_source(ManualClock(), speed=None, faults=faults)

    answers = [JsonCodec().decode(record)[0] for record in source.poll(500, 0)]

    reasons = {answer.reason for answer in answers if isinstance(answer, DeadLetter)}
    assert reasons == {Reason.NOT_JSON, Reason.NOT_FINITE}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(Fault.MALFORMED, Reason.NOT_JSON), (Fault.NAN_TOKEN, Reason.NOT_FINITE)],
)
def test_fault_of_the_bytes_is_one_the_codec_names(fault: Fault, reason: Reason) -> None:
    key, value = ReadingEncoder().encode(SimulatedReading("a", START, 1.0, fault))

    (answer,) = JsonCodec().decode(RawRecord("readings", 0, 0, -1.0, key, value))

    assert isinstance(answer, DeadLetter)
    assert answer.reason == reason


def test_close_revokes_once_and_ends_polling() -> None:
    source, listener = make_source(ManualClock())

    source.close()
    source.close()

    assert listener.events[-1] == ("revoked", [0])
    assert len(listener.events) == 2
    with pytest.raises(TransportError, match="closed"):
        source.poll(1, 0)


def test_commits_are_remembered_and_foreign_ones_refused() -> None:
    source, _ = make_source(ManualClock())

    source.commit({0: 2})

    assert source.committed == {0: 2}
    with pytest.raises(TransportError, match="not assigned"):
        source.commit({1: 2})


def test_speed_has_to_be_above_nothing() -> None:
    with pytest.raises(ConfigurationError, match="Speed 0"):
        SimulatedSource([], start=START, clock=ManualClock(), speed=0.0)


def test_every_reading_of_the_demo_and_of_each_profile_is_one_the_codec_accepts() -> None:
    """Processes may answer with numpy's own floats, whose text is no JSON number."""
    codec, encoder = JsonCodec(), ReadingEncoder()
    rng = np.random.default_rng(3)
    sets = [demo_streams(rng), *(make_streams(profile, 8, rng) for profile in PROFILES)]

    decoded = []
    for streams in sets:
        for reading in simulate(streams, start=START, seconds=1_800.0):
            key, value = encoder.encode(reading)
            decoded += codec.decode(RawRecord("readings", 0, 0, -1.0, key, value))

    assert len(decoded) > 10_000
    assert [found for found in decoded if not isinstance(found, Observation)] == []
