"""Naive forecasts against loops over rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from forecaster.evaluation.naive import is_tied, last_value, seasonal_value, targets


def make_values() -> np.ndarray:
    values = np.round(np.random.default_rng(0).standard_normal(40), 1)
    values[[0, 1, 7, 8, 20]] = np.nan
    return values


def known_until(values: np.ndarray, row: int) -> float:
    return next((values[k] for k in range(row, -1, -1) if not math.isnan(values[k])), math.nan)


@pytest.mark.parametrize(("season", "horizon"), [(1, 3), (5, 3), (3, 7), (50, 4)])
def test_seasonal_naive_takes_the_newest_value_known_whole_seasons_before_the_target(season, horizon):
    values = make_values()

    found = seasonal_value(values, season, horizon)

    for row in range(len(values)):
        for lead in range(1, horizon + 1):
            source = row + lead - season * math.ceil(lead / season)
            expected = known_until(values, source if source >= 0 else row)
            assert found[row, lead - 1] == pytest.approx(expected, nan_ok=True)


def test_the_last_value_passes_over_missing_ones():
    values = make_values()

    assert last_value(values).tolist() == pytest.approx([known_until(values, k) for k in range(40)], nan_ok=True)


def test_no_naive_forecast_depends_on_later_values():
    values, changed = make_values(), make_values()
    changed[25:] += 100.0

    for season in (1, 5):
        assert np.array_equal(seasonal_value(values, season, 9)[:25], seasonal_value(changed, season, 9)[:25], True)


def test_targets_are_the_rows_that_follow():
    values = make_values()

    found = targets(values, 3)

    for row in range(40):
        for lead in (1, 2, 3):
            expected = values[row + lead] if row + lead < 40 else math.nan
            assert found[row, lead - 1] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("values", "tied"),
    [
        ([0, 5, 0, 7, 0, 8, 0, 0], True),
        ([1, 1, 1, 2, 2, 2, 3, 3, 3, math.nan], True),
        ([1, 2, 1, 2, 1, 2, 3, 4], False),
        ([1, math.nan], True),
    ],
)
def test_a_stream_is_tied_when_most_values_are_one_or_repeat(values, tied):
    assert is_tied(np.array(values, float)) is tied
