import numpy as np
import pytest

from forecaster.training.augment import (
    Augmentation,
    altered_copies,
    bootstrap_series,
    jitter,
    magnitude_warp,
    moving_blocks,
)
from forecaster.training.history import Ticks


def rng(seed=0):
    return np.random.default_rng(seed)


def autoregressive(ticks=4_000, memory=0.9):
    noise, values = rng(1).normal(size=ticks), np.zeros(ticks)
    for t in range(1, ticks):
        values[t] = memory * values[t - 1] + noise[t]
    return values


def lag_one(values):
    return np.corrcoef(values[:-1], values[1:])[0, 1]


def test_blocks_are_runs_of_the_values_laid_end_to_end():
    drawn = moving_blocks(np.arange(100.0), 10, rng())

    blocks = drawn.reshape(10, 10)
    assert (np.diff(blocks, axis=1) == 1.0).all()
    assert len({block[0] for block in blocks}) > 5


def test_blocks_keep_the_memory_of_a_series_that_single_draws_lose():
    values = autoregressive()

    assert lag_one(moving_blocks(values, 50, rng())) > 0.85
    assert abs(lag_one(moving_blocks(values, 1, rng()))) < 0.1


@pytest.mark.parametrize("season", [0, 24])
def test_bootstrap_keeps_level_season_and_gaps_and_draws_another_remainder(season):
    t = np.arange(2_400)
    values = 0.01 * t + (5.0 * np.sin(2 * np.pi * t / 24) if season else 0.0) + rng(2).normal(size=2_400)
    values[100:110] = np.nan

    drawn = bootstrap_series(values, season, rng(3))

    assert np.isnan(drawn[100:110]).all()
    assert np.isnan(drawn).sum() == 10
    known = ~np.isnan(values)
    difference = (drawn - values)[known]
    assert 0.5 < difference.std() < 2.0  # two independent remainders of deviation 1 differ by about 1.4
    assert abs(difference.mean()) < 0.2
    if season:
        phase_means = [np.nanmean(drawn[k::24] - values[k::24]) for k in range(24)]
        assert np.abs(phase_means).max() < 0.6  # against a season of 5


def test_series_too_short_for_two_blocks_is_given_back():
    values = np.arange(60.0)

    assert bootstrap_series(values, 24, rng()) is values


def test_warp_is_a_smooth_positive_factor_on_the_swings_of_the_size_asked_for():
    values = np.where(np.arange(1_001) % 2, 9.0, 11.0)
    values[500] = 10.0  # the median
    factors = np.stack([(magnitude_warp(values, 0.1, rng(k)) - 10.0)[1::2] / (9.0 - 10.0) for k in range(300)])

    assert (factors > 0).all()
    assert np.abs(np.diff(factors, axis=1)).max() < 0.01
    assert np.log(factors[:, 0]).std() == pytest.approx(0.1, rel=0.15)


def test_jitter_is_noise_in_the_streams_own_deviations():
    values = 100.0 + 20.0 * rng().normal(size=20_000)
    values[7] = np.nan

    added = jitter(values, 0.03, rng(1)) - values

    assert np.nanstd(added) == pytest.approx(0.6, rel=0.05)
    assert np.isnan(added[7])
    assert abs(lag_one(added[8:])) < 0.05


def test_the_same_generator_state_gives_the_same_copies_and_copies_differ():
    values = autoregressive(500)
    ticks = [Ticks(np.arange(500.0), values, np.ones(500), np.zeros(500, np.int64), None)]
    plan = Augmentation(copies=2)

    first, second = (altered_copies(ticks, np.array([0]), plan, rng(5)) for _ in range(2))

    assert len(first) == 2
    np.testing.assert_array_equal(first[1].values, second[1].values)
    assert not np.array_equal(first[0].values, first[1].values)
    np.testing.assert_array_equal(first[0].times, ticks[0].times)


def test_all_alterations_off_copy_the_stream():
    values = autoregressive(500)
    ticks = [Ticks(np.arange(500.0), values, np.ones(500), np.zeros(500, np.int64), None)]

    (copy,) = altered_copies(ticks, np.array([0]), Augmentation(copies=1, bootstrap=False, warp=0.0, jitter=0.0), rng())

    np.testing.assert_array_equal(copy.values, values)


def test_a_stream_with_a_plan_is_not_torn_from_it():
    values = autoregressive(500)
    known = np.arange(1_000.0).reshape(500, 2)
    ticks = [Ticks(np.arange(500.0), values, np.ones(500), np.zeros(500, np.int64), None, None, known)]
    plan = Augmentation(copies=1, warp=0.0, jitter=0.0)

    (copy,) = altered_copies(ticks, np.array([0]), plan, rng())
    (torn,) = altered_copies([ticks[0]._replace(future=None)], np.array([0]), plan, rng())

    np.testing.assert_array_equal(copy.values, values)
    np.testing.assert_array_equal(copy.future, known)
    assert not np.array_equal(torn.values, values)
