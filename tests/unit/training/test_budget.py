import numpy as np
import pytest

from forecaster.training.budget import STREAM_BYTES, StreamBudget

READINGS = {f"s{k}": 5 + 7 * (k % 11) for k in range(200)}


def kept(order, *, seed=0, **bounds):
    """What is left after one reading at a time in this order, and the most bytes there ever were."""
    budget = StreamBudget(reading_bytes=16, seed=seed, **{"max_bytes": 10**9, **bounds})
    streams, most = {}, 0
    for name in order:
        if budget.admits(name):
            streams[name] = streams.get(name, 0) + 1
            for refused in budget.grow(name, 1):
                del streams[refused]
        most = max(most, budget.bytes)
    return streams, most


def mixed(seed):
    every = [name for name, readings in READINGS.items() for _ in range(readings)]
    return [every[k] for k in np.random.default_rng(seed).permutation(len(every))]


@pytest.mark.parametrize("max_bytes", [3_000, 40_000])
def test_same_streams_are_kept_whole_however_readings_are_mixed(max_bytes):
    found = [kept(mixed(seed), max_bytes=max_bytes)[0] for seed in range(5)]

    order = sorted(READINGS, key=StreamBudget(max_bytes=1, reading_bytes=1).rank)
    fitting, total = {}, 0
    for name in order:  # the longest beginning of the order that fits, by hand
        total += STREAM_BYTES + 16 * READINGS[name]
        if total > max_bytes:
            break
        fitting[name] = READINGS[name]
    assert 1 < len(fitting) < len(READINGS)
    assert found == [fitting] * 5


def test_memory_never_exceeds_the_bound():
    assert kept(mixed(0), max_bytes=20_000)[1] <= 20_000


def test_another_seed_chooses_other_streams_and_the_same_seed_the_same():
    first, again, other = (set(kept(mixed(0), max_streams=20, seed=seed)[0]) for seed in (1, 1, 2))

    assert first == again
    assert len(first) == len(other) == 20
    assert len(first & other) < 10


def test_every_stream_has_the_same_chance():
    """100 draws of 20 of 200: each is drawn 10 times on average, deviation 3; over 60 for any would be out of order."""
    drawn = dict.fromkeys(READINGS, 0)
    for seed in range(100):
        for name in kept(list(READINGS), max_streams=20, seed=seed)[0]:
            drawn[name] += 1

    assert sum(drawn.values()) == 2_000
    assert min(drawn.values()) > 0
    assert max(drawn.values()) < 25


def test_nothing_is_refused_while_all_fit():
    budget = StreamBudget(max_bytes=10**9, reading_bytes=16)

    assert [budget.grow(name, readings) for name, readings in READINGS.items()] == [[]] * 200
    assert not budget.has_refused


def test_the_last_stream_stays_whatever_it_takes():
    assert kept(["only"] * 1_000, max_bytes=100)[0] == {"only": 1_000}
