"""How surprising a value is to a forecast."""

from __future__ import annotations

import numpy as np
import pytest

from forecaster.anomaly.surprise import MOST_SURPRISING, Surprise

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
QUANTILES = np.array([[8.0, 9.5, 10.0, 11.0, 14.0]])


def surprise_of(value: float, *, quantiles: np.ndarray = QUANTILES, levels: tuple[float, ...] = LEVELS) -> float:
    return float(Surprise(levels)(np.array([value]), quantiles, np.array([1.0]))[0])


@pytest.mark.parametrize(
    ("value", "p"), [(10.0, 1.0), (9.5, 0.5), (8.0, 0.2), (11.0, 0.5), (14.0, 0.2), (18.0, 0.04), (6.0, 0.04)]
)
def test_at_a_quantile_it_is_the_level_and_twice_as_far_out_the_tail_squares_it(value, p):
    """Beyond the outermost level as a Laplace distribution: 0.2 at a distance, 0.04 at twice the distance."""
    assert surprise_of(value) == pytest.approx(-np.log(p), abs=1e-12)


def test_it_rises_with_the_distance_on_both_sides():
    far = np.linspace(0.0, 12.0, 200)
    for side in (-1, 1):
        found = [surprise_of(10.0 + side * d) for d in far]

        assert np.all(np.diff(found) > 0)


def test_a_forecast_without_width_is_surprised_by_any_move_and_never_infinitely():
    flat = np.full((1, 5), 10.0)

    assert surprise_of(10.0, quantiles=flat) == 0.0
    assert surprise_of(10.5, quantiles=flat) > 100.0
    assert surprise_of(1e300, quantiles=flat) == MOST_SURPRISING


def test_without_value_or_forecast_nothing_is_surprising():
    assert surprise_of(np.nan) == 0.0
    assert surprise_of(3.0, quantiles=np.full((1, 5), np.nan)) == 0.0


def test_units_do_not_matter():
    found = Surprise(LEVELS)(np.array([2.0e6]), QUANTILES * 1e6, np.array([1e6]))

    assert found[0] == pytest.approx(surprise_of(2.0), rel=1e-12)
