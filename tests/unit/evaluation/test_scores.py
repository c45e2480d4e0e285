import numpy as np
import pytest

from forecaster.evaluation.scores import (
    coverage,
    expected_value,
    interval_score,
    mae,
    mase,
    mean_quantile_loss,
    mse,
    quantile_loss,
    smape,
    weighted_quantile_loss,
)

LEVELS = np.array([0.1, 0.5, 0.9])


def pinball_by_definition(y, f, q):
    return q * (y - f) if y >= f else (1 - q) * (f - y)


def test_quantile_loss_equals_its_definition_element_by_element():
    rng = np.random.default_rng(0)
    target, forecast = rng.normal(size=(4, 3)), rng.normal(size=(4, 3, 3))

    loss = quantile_loss(target, forecast, LEVELS)

    for index in np.ndindex(4, 3, 3):
        assert loss[index] == pytest.approx(pinball_by_definition(target[index[:2]], forecast[index], LEVELS[index[2]]))


def test_pinball_is_least_at_the_true_quantile():
    sample = np.random.default_rng(1).exponential(size=20_000)
    candidates = np.linspace(0.05, 4.0, 80)

    losses = [mean_quantile_loss(sample, np.full((len(sample), 1), c), np.array([0.9])) for c in candidates]

    assert candidates[int(np.argmin(losses))] == pytest.approx(np.quantile(sample, 0.9), abs=0.05)


@pytest.mark.parametrize(("levels", "error"), [((0.1, 0.5, 0.9), 0.05), (tuple(np.arange(1, 100) / 100), 0.03)])
def test_the_mean_of_a_skewed_forecast_is_told_by_its_quantiles(levels, error):
    """Of an exponential distribution, whose mean is 1 and whose median is 0.69."""
    quantiles = -np.log(1 - np.array(levels))

    assert expected_value(quantiles, np.array(levels)) == pytest.approx(1.0, abs=error)


def test_the_mean_of_a_symmetric_forecast_is_its_median_and_of_one_level_that_level():
    forecasts = np.array([[-3.0, 1.0, 5.0], [2.0, 2.0, 2.0]])

    np.testing.assert_allclose(expected_value(forecasts, np.array([0.25, 0.5, 0.75])), [1.0, 2.0])
    np.testing.assert_allclose(expected_value(forecasts[:, 1:2], np.array([0.5])), [1.0, 2.0])


@pytest.mark.parametrize("score", [mae, mse, smape])
def test_missing_targets_are_left_out(score):
    target, forecast = np.array([1.0, np.nan, 3.0]), np.array([2.0, 100.0, 5.0])

    assert score(target, forecast) == score(target[[0, 2]], forecast[[0, 2]])
    assert np.isnan(score(np.array([np.nan]), np.array([1.0])))


def test_mase_of_seasonal_naive_on_its_own_history_is_one():
    history = np.array([1.0, 5.0, 2.0, 7.0, 1.5, 5.0])

    assert mase(history[2:], history[:-2], history, season=2) == pytest.approx(1.0)


@pytest.mark.parametrize("history", [np.ones(9), np.array([1.0]), np.array([])])
def test_mase_of_a_history_without_change_is_nan(history):
    assert np.isnan(mase(np.array([1.0]), np.array([2.0]), history))


def test_weighted_quantile_loss_is_scale_free():
    rng = np.random.default_rng(2)
    target, forecast = rng.normal(size=50), rng.normal(size=(50, 3))

    small, large = (weighted_quantile_loss(k * target, k * forecast, LEVELS) for k in (1.0, 1000.0))

    assert small == pytest.approx(large)


def test_bounds_belong_to_the_interval():
    assert coverage(np.array([0.0, 1.0, 1.1]), np.zeros(3), np.ones(3)) == pytest.approx(2 / 3)


def test_interval_score_charges_width_and_misses_on_both_sides():
    target = np.array([-1.0, 0.5, 2.0])

    score = interval_score(target, np.zeros(3), np.ones(3), miss_rate=0.1)

    assert score == pytest.approx(((1 + 20 * 1) + 1 + (1 + 20 * 1)) / 3)
