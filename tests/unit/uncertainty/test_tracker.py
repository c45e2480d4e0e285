import numpy as np
import pytest

from forecaster.series.rows import Rows
from forecaster.uncertainty.tracker import LogQuantileTracker

STEPS = 20_000


def noise(kind, rng):
    """20,000 errors around a forecast of 0."""
    if kind == "normal":
        return rng.standard_normal(STEPS)
    if kind == "heavy":
        return rng.standard_t(2, STEPS)
    drift = np.exp(np.sin(np.arange(STEPS) / 2_000.0))  # spread between 0.37 and 2.7, over 12,600 steps
    return drift * rng.standard_normal(STEPS)


@pytest.mark.parametrize("wrong_by", [0.1, 10.0])
@pytest.mark.parametrize("kind", ["normal", "heavy", "drifting"])
def test_coverage_is_nominal_within_two_points_over_20000_steps_from_widths_that_are_wrong(kind, wrong_by):
    """One stream, seed 5; intervals of 80 % and 50 % nominal coverage, both ± 0.02."""
    tracker = LogQuantileTracker(anchors=1, quantile_levels=(0.1, 0.25, 0.5, 0.75, 0.9))
    c = Rows(tracker.columns, 1)
    slot = np.array([0])
    raw = wrong_by * np.array([[[-1.2816, -0.6745, 0.0, 0.6745, 1.2816]]], np.float32)
    targets = noise(kind, np.random.default_rng(5)).astype(np.float32)
    hits = np.zeros(2)

    for step, target in enumerate(targets):
        published = tracker.widen(raw, tracker.factors(c, slot))
        low, inner_low, _, inner_high, high = published[0, 0]
        hits += (low <= target <= high, inner_low <= target <= inner_high)
        tracker.update(c, slot, np.ones((1, 1), bool), np.array([target]), published, np.array([step]))

    assert hits / STEPS == pytest.approx([0.8, 0.5], abs=0.02)


@pytest.mark.parametrize("seed", range(30))
def test_widened_quantiles_never_cross_and_keep_their_median(seed):
    rng = np.random.default_rng(seed)
    levels = [(0.1, 0.5, 0.9), (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)][seed % 2]
    tracker = LogQuantileTracker(anchors=1, quantile_levels=levels)
    quantiles = np.sort(rng.standard_normal((5, 4, len(levels))), axis=-1).astype(np.float32)
    factors = np.exp(rng.uniform(-4, 4, (5, 4, len(levels) // 2))).astype(np.float32)

    widened = tracker.widen(quantiles, factors)

    middle = len(levels) // 2
    assert (np.diff(widened, axis=-1) >= 0).all()
    np.testing.assert_array_equal(widened[..., middle], quantiles[..., middle])
    inner = quantiles[..., middle + 1] - quantiles[..., middle]
    np.testing.assert_allclose(
        widened[..., middle + 1] - widened[..., middle], inner * factors[..., -1], rtol=1e-3, atol=1e-5
    )


def test_factors_of_one_change_nothing():
    tracker = LogQuantileTracker(anchors=2, quantile_levels=(0.1, 0.5, 0.9))
    c = Rows(tracker.columns, 1)
    quantiles = np.array([[[-3.0, 1.0, 2.0], [0.0, 0.0, 4.0]]], np.float32)

    np.testing.assert_array_equal(tracker.widen(quantiles, tracker.factors(c, np.array([0]))), quantiles)


@pytest.mark.parametrize(("target", "moved"), [(0.0, -0.02), (1.0, -0.02), (-1.0, -0.02), (1.1, 0.08), (-1.1, 0.08)])
def test_a_hit_narrows_by_the_nominal_miss_rate_and_a_miss_widens_by_the_rest(target, moved):
    """At the first value the rate is 0.1; the bounds belong to the interval; the nominal miss rate is 0.2."""
    tracker = LogQuantileTracker(anchors=2, quantile_levels=(0.1, 0.5, 0.9))
    c = Rows(tracker.columns, 2)
    published = np.array([[[-1.0, 0.0, 1.0]] * 2], np.float32)

    tracker.update(
        c, np.array([1]), np.array([[True, False]]), np.array([target], np.float32), published, np.array([0])
    )

    np.testing.assert_allclose(c["log_width"][1, :, 0], [moved, 0.0], atol=1e-6)
    assert not c["log_width"][0].any()


def test_the_rate_falls_to_a_hundredth_with_the_values_of_the_stream():
    tracker = LogQuantileTracker(anchors=1, quantile_levels=(0.1, 0.5, 0.9))
    c = Rows(tracker.columns, 3)
    slots, published = np.arange(3), np.array([[[-1.0, 0.0, 1.0]]] * 3, np.float32)

    tracker.update(c, slots, np.ones((3, 1), bool), np.full(3, 9, np.float32), published, np.array([0, 40, 10_000]))

    np.testing.assert_allclose(c["log_width"][:, 0, 0], 0.8 * np.array([0.1, 0.02, 0.01]), rtol=1e-5)


def test_a_constant_stream_narrows_to_a_limit():
    tracker = LogQuantileTracker(anchors=1, quantile_levels=(0.1, 0.5, 0.9))
    c = Rows(tracker.columns, 1)

    for step in range(5_000):
        tracker.update(
            c, np.array([0]), np.ones((1, 1), bool), np.zeros(1, np.float32), np.zeros((1, 1, 3), np.float32),
            np.array([step]),
        )  # fmt: skip

    assert c["log_width"][0, 0, 0] == -4.0


def test_a_single_level_has_no_width_to_track():
    tracker = LogQuantileTracker(anchors=1, quantile_levels=(0.5,))
    c = Rows(tracker.columns, 1)
    quantiles = np.array([[[3.0]]], np.float32)

    tracker.update(c, np.array([0]), np.ones((1, 1), bool), np.ones(1, np.float32), quantiles, np.array([5]))

    assert not c["log_width"].any()
    np.testing.assert_array_equal(tracker.widen(quantiles, tracker.factors(c, np.array([0]))), quantiles)
