import csv

import numpy as np
import pytest

from forecaster.series.seasonality import common_season, find_longer_season, find_season

HOUR, DAY, WEEK = 3_600.0, 86_400.0, 604_800.0


def daily(steps_a_day, days, *, noise=0.5, seed=0, shape=np.sin):
    rng = np.random.default_rng(seed)
    t = np.arange(steps_a_day * days)
    return shape(2 * np.pi * t / steps_a_day) + noise * rng.normal(size=len(t))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("steps_a_day", "days"), [(24, 20), (288, 5), (96, 14)])
def test_daily_season_is_found_through_noise(steps_a_day, days, seed):
    values = daily(steps_a_day, days, seed=seed)

    assert find_season(values, DAY / steps_a_day, max_steps=335) == DAY


def test_daily_season_is_found_through_trend_and_gaps_and_outliers():
    rng = np.random.default_rng(1)
    values = daily(24, 30) + 0.02 * np.arange(24 * 30)
    values[rng.random(len(values)) < 0.2] = np.nan
    values[rng.integers(len(values), size=5)] = 1e6

    assert find_season(values, HOUR, max_steps=335) == DAY


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
def test_season_depends_on_neither_level_nor_unit(factor):
    values = factor * (daily(24, 20) + 1000.0)

    assert find_season(values, HOUR, max_steps=335) == DAY


def test_period_that_is_not_natural_is_found_in_seconds():
    values = daily(50, 30, noise=0.2)

    assert find_season(values, 2.0, max_steps=335) == pytest.approx(100.0, abs=2.0)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("kind", ["white", "walk", "autoregressive", "hump"])
def test_random_series_have_no_season(kind, seed):
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=int(rng.integers(300, 5000)))
    values = {"white": steps.copy(), "walk": np.cumsum(steps)}.get(kind, np.zeros(len(steps)))
    if kind == "autoregressive":
        for t in range(1, len(steps)):
            values[t] = 0.97 * values[t - 1] + steps[t]
    if kind == "hump":
        for t in range(2, len(steps)):
            values[t] = 1.6 * values[t - 1] - 0.65 * values[t - 2] + steps[t]

    assert find_season(values, 60.0, max_steps=335) == 0.0


@pytest.mark.parametrize(
    "values",
    [np.zeros(0), np.ones(500), np.full(500, np.nan), np.arange(500.0), daily(24, 2), np.r_[np.zeros(499), 1.0]],
    ids=["empty", "constant", "missing", "line", "too_short", "one_spike"],
)
def test_series_that_cannot_show_a_season_have_none(values):
    assert find_season(values, HOUR, max_steps=335) == 0.0


def test_season_longer_than_the_ring_is_not_offered():
    assert find_season(daily(288, 6), DAY / 288, max_steps=200) != DAY


def test_group_takes_the_season_most_of_its_streams_have():
    assert common_season([DAY, DAY, 0.0, HOUR]) == DAY
    assert common_season([0.0] * 9 + [DAY]) == 0.0
    assert common_season([]) == 0.0


def real_column(path, column):
    return np.array([float(row[column]) for row in csv.DictReader(path.read_text().splitlines())])


@pytest.mark.data
@pytest.mark.parametrize("column", ["HUFL", "MUFL", "LUFL"])
def test_transformer_loads_have_a_day(data_directory, column):
    assert find_season(real_column(data_directory / "ett/ETTh1.csv", column), HOUR, max_steps=335) == DAY


@pytest.mark.data
@pytest.mark.parametrize("name", ["art_daily_jumpsup", "art_daily_flatmiddle", "art_daily_nojump"])
def test_daily_series_of_nab_have_a_day(data_directory, name):
    values = real_column(data_directory / f"nab/data/artificialWithAnomaly/{name}.csv", "value")

    assert find_season(values, 300.0, max_steps=335) == DAY


@pytest.mark.data
@pytest.mark.parametrize("column", ["CO_GT", "NOx_GT", "PT08_S2_NMHC", "T"])
def test_air_quality_has_a_day(data_directory, column):
    values = real_column(data_directory / "air_quality_uci/AirQualityUCI.csv", column)
    values[values == -200.0] = np.nan  # how this set writes a missing value

    assert find_season(values, HOUR, max_steps=335) == DAY


@pytest.mark.data
@pytest.mark.parametrize("number", ["11839", "207", "237"])
def test_heart_rate_has_no_season(data_directory, number):
    values = np.loadtxt(data_directory / f"heart/mit_hr/hr.{number}.txt")

    assert find_season(values, 0.5, max_steps=335) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_a_week_is_found_in_what_days_leave_through_noise_and_gaps(seed):
    rng = np.random.default_rng([seed, 1])
    hours = np.arange(24 * 7 * 8)
    values = daily(24, 56, seed=seed) - 1.0 * (hours % 168 >= 120) + 0.001 * hours
    values[rng.random(len(values)) < 0.1] = np.nan

    assert find_season(values, HOUR, max_steps=335) == DAY
    assert find_longer_season(values, HOUR, DAY, max_steps=335) == WEEK


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gap", [24, 37, 60, 84])
def test_a_week_is_found_across_a_gap_that_is_jumped_over(gap, seed):
    hours = np.arange(24 * 7 * 8)
    values = daily(24, 56, noise=0.3, seed=seed) - 1.0 * (hours % 168 >= 120)
    kept = (hours < 600) | (hours >= 600 + gap)

    assert find_longer_season(values[kept], HOUR, DAY, max_steps=335, at=hours[kept]) == WEEK


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("rest", ["white", "autoregressive"])
def test_days_that_are_all_alike_leave_no_longer_season(rest, seed):
    steps = np.random.default_rng(seed).normal(size=24 * 60)
    values = steps.copy()
    if rest == "autoregressive":
        for t in range(1, len(steps)):
            values[t] = 0.97 * values[t - 1] + steps[t]

    assert find_longer_season(values + daily(24, 60, noise=0.0), HOUR, DAY, max_steps=335) == 0.0


@pytest.mark.parametrize("values", [np.zeros(0), np.full(500, np.nan), daily(24, 20, noise=0.0)])
def test_where_a_season_leaves_nothing_there_is_no_longer_one(values):
    assert find_longer_season(values, HOUR, DAY, max_steps=335) == 0.0
