import itertools
import math
from collections import Counter

import numpy as np
import pytest

from forecaster.errors import ConfigurationError
from forecaster.simulation.faults import FaultInjector, FaultRates
from forecaster.simulation.streams import Fault, SimulatedReading


def make_readings(count: int, streams: int = 3) -> list[SimulatedReading]:
    return [SimulatedReading(f"s{n % streams}", float(n // streams), float(n)) for n in range(count)]


def inject(
    readings: list[SimulatedReading], *, seed: int = 1, **rates: float
) -> tuple[list[SimulatedReading], FaultInjector]:
    injector = FaultInjector(
        FaultRates(**rates), np.random.default_rng(seed), late_readings=3, gap_readings=4, flat_readings=5
    )
    return list(injector.apply(readings)), injector


def refusals(readings: list[SimulatedReading]) -> int:
    """Dead letters an engine would write that takes only what moves a stream's clock on: counted by another way."""
    clocks: dict[str, float] = {}
    refused = 0
    for reading in readings:
        is_broken = reading.fault in (Fault.MALFORMED, Fault.NAN_TOKEN) or reading.value > 1e30
        if is_broken or reading.time <= clocks.get(reading.stream_id, -math.inf):
            refused += 1
        else:
            clocks[reading.stream_id] = reading.time
    return refused


def test_without_rates_nothing_changes() -> None:
    readings = make_readings(100)

    sent, injector = inject(readings)

    assert sent == readings
    assert injector.sent == 100
    assert not injector.counts


def test_same_seed_injects_the_same_faults() -> None:
    rates = {"late": 0.1, "duplicate": 0.1, "missing": 0.1}

    assert inject(make_readings(200), seed=4, **rates)[0] == inject(make_readings(200), seed=4, **rates)[0]
    assert inject(make_readings(200), seed=4, **rates)[0] != inject(make_readings(200), seed=5, **rates)[0]


def test_duplicate_follows_its_original() -> None:
    sent, injector = inject(make_readings(3), duplicate=1.0)

    assert [(reading.value, reading.fault) for reading in sent] == [
        (0, None),
        (0, Fault.DUPLICATE),
        (1, None),
        (1, Fault.DUPLICATE),
        (2, None),
        (2, Fault.DUPLICATE),
    ]
    assert injector.counts == {Fault.DUPLICATE: 3}


@pytest.mark.parametrize(("fault", "wait"), [(Fault.LATE, 3), (Fault.SHUFFLED, 1)])
def test_reading_held_back_is_sent_after_so_many_later_ones_of_its_stream(fault: Fault, wait: int) -> None:
    sent, injector = inject(make_readings(3_000), **{fault.value: 0.02})

    held = [n for n, reading in enumerate(sent) if reading.fault is fault]
    assert len(held) == injector.counts[fault] > 20
    for n in held:
        before = [reading for reading in sent[:n] if reading.stream_id == sent[n].stream_id and reading.fault is None]
        assert sum(reading.time > sent[n].time for reading in before) == wait
    assert sorted(reading.value for reading in sent) == [float(n) for n in range(3_000)]


def test_reading_held_back_when_the_readings_end_follows_and_is_not_called_late() -> None:
    injector = FaultInjector(FaultRates(late=1.0), np.random.default_rng(1))

    sent = list(injector.apply(make_readings(3)))

    assert sent == make_readings(3)
    assert not injector.counts


def test_missing_reading_has_no_value() -> None:
    sent, injector = inject(make_readings(5), missing=1.0)

    assert all(math.isnan(reading.value) and reading.fault is Fault.MISSING for reading in sent)
    assert injector.counts == {Fault.MISSING: 5}


def test_reading_out_of_range_has_the_impossible_value() -> None:
    sent, _ = inject(make_readings(2), out_of_range=1.0)

    assert [reading.value for reading in sent] == [1e31, 1e31]


@pytest.mark.parametrize("fault", [Fault.MALFORMED, Fault.NAN_TOKEN])
def test_faults_of_the_bytes_are_marked_for_the_encoder(fault: Fault) -> None:
    sent, injector = inject(make_readings(2), **{fault.value: 1.0})

    assert [reading.fault for reading in sent] == [fault, fault]
    assert injector.counts == {fault: 2}


def test_gap_leaves_out_readings_of_one_stream_in_a_row() -> None:
    sent, injector = inject(make_readings(3_000), gap=0.005)

    times = sorted(reading.time for reading in sent if reading.stream_id == "s0")
    missing = sorted(set(map(float, range(1_000))) - set(times))
    runs = Counter(time - n for n, time in enumerate(missing))
    assert missing
    assert all(length % 4 == 0 for length in list(runs.values())[:-1])
    assert injector.counts[Fault.GAP] == 3_000 - len(sent)


def test_flat_line_repeats_the_value_it_began_with() -> None:
    sent, injector = inject(make_readings(3_000), flat_line=0.005)

    assert len(sent) == 3_000
    assert injector.counts[Fault.FLAT_LINE] == sum(reading.fault is Fault.FLAT_LINE for reading in sent) > 20
    one_stream = [reading for reading in sent if reading.stream_id == "s1"]
    for before, reading in itertools.pairwise(one_stream):
        assert (reading.value == before.value) == (reading.fault is Fault.FLAT_LINE)


@pytest.mark.parametrize("seed", range(5))
def test_refusals_an_engine_would_make_are_the_expected_ones(seed: int) -> None:
    rates = dict.fromkeys(FaultRates.__dataclass_fields__, 0.02)

    sent, injector = inject(make_readings(6_000), seed=seed, **rates)

    assert injector.sent == len(sent)
    assert set(injector.counts) == set(Fault)
    assert injector.expected_refusals() == refusals(sent)


def test_faults_come_at_their_rates() -> None:
    _, injector = inject(make_readings(100_000), duplicate=0.03, malformed=0.01)

    assert injector.counts[Fault.DUPLICATE] == pytest.approx(3_000, rel=0.1)
    assert injector.counts[Fault.MALFORMED] == pytest.approx(1_000, rel=0.15)


@pytest.mark.parametrize("rates", [{"late": -0.1}, {"late": 0.6, "gap": 0.6}])
def test_rates_that_are_no_shares_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="Fault rates"):
        inject([], **rates)
