"""Where targets fall among quantiles, and coverage as time goes by."""

from __future__ import annotations

import math

import numpy as np
import pytest

from forecaster.evaluation.calibration import local_deviation, pit_histogram, rolling_coverage


def test_targets_are_counted_between_quantiles_and_ties_are_spread_evenly():
    quantiles = np.tile([1.0, 2.0, 2.0, 3.0], (6, 1))
    target = np.array([0.5, 1.0, 2.0, 2.5, 9.0, np.nan])

    found = pit_histogram(target, quantiles)

    by_hand = [1 + 1 / 2, 1 / 2 + 1 / 3, 1 / 3, 1 / 3 + 1, 1]
    assert found.tolist() == pytest.approx(by_hand)


def test_a_calibrated_forecast_fills_every_bin_by_the_difference_of_its_levels():
    """20,000 standard normal targets, seed 0; five standard errors."""
    target = np.random.default_rng(0).standard_normal(20_000)
    quantiles = np.tile([-1.2815516, 0.0, 1.2815516], (20_000, 1))

    found = pit_histogram(target, quantiles) / 20_000

    assert found == pytest.approx([0.1, 0.4, 0.4, 0.1], abs=5 * math.sqrt(0.24 / 20_000))


def test_rolling_coverage_is_the_mean_of_every_window():
    inside = (np.random.default_rng(0).random(50) < 0.8).astype(float)

    found = rolling_coverage(inside, 7)

    assert found.tolist() == pytest.approx([inside[k : k + 7].mean() for k in range(44)])
    assert local_deviation(inside, 0.8, 7) == pytest.approx(np.abs(found - 0.8).mean())


def test_fewer_targets_than_a_window_have_no_local_deviation():
    assert math.isnan(local_deviation(np.ones(3), 0.8, 4))
