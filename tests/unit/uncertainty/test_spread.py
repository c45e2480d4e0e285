import numpy as np
import pytest

from forecaster.series.rows import Rows
from forecaster.uncertainty.spread import PointSpread, normal_quantiles

LEVELS = (0.1, 0.5, 0.9)


def make_spread():
    spread = PointSpread(anchors=3, points=("naive", "level"))
    return spread, Rows(spread.columns, 3)


def settle(spread, c, error, *, seen, slot=1, settled=True):
    """One reading of one stream that settles every anchor of every expert with these errors."""
    shape = (1, 3, c["spread"].shape[2])
    away = np.broadcast_to(np.asarray(error, np.float32), shape) * np.array([1, -1], np.float32)  # above and below
    spread.update(c, np.array([slot]), np.full(shape[:2], settled), away, np.array([seen]))


def test_the_shape_is_that_of_a_normal_distribution_with_mean_absolute_value_one():
    draws = np.random.default_rng(0).standard_normal(1_000_000)

    expected = np.quantile(draws / np.abs(draws).mean(), LEVELS)

    assert normal_quantiles(LEVELS) == pytest.approx(expected, abs=0.01)


def test_the_spread_becomes_the_mean_error_of_each_expert_at_each_lead():
    """20,000 targets; two experts, three leads; mean |error| of a normal is sigma times 0.798, within 5 %."""
    spread, c = make_spread()
    rng = np.random.default_rng(1)
    sigma = np.array([[0.5, 1.0], [1.0, 1.5], [1.5, 0.2]])
    means = []

    for step in range(20_000):
        settle(spread, c, np.abs(sigma * rng.standard_normal((3, 2))), seen=step + 1)
        means.append(c["spread"][1].copy())

    np.testing.assert_allclose(np.mean(means[1_000:], axis=0), 0.798 * sigma, rtol=0.05)
    assert not c["spread"][[0, 2]].any()


def test_an_expert_begins_with_its_first_spread_and_keeps_what_it_has_learnt():
    spread, c = make_spread()
    c["spread"][1, :, 0] = 0.3
    first = np.full((1, 3, 2), 0.7, np.float32)

    found = spread.known(c, np.array([1]), np.array([[True, True]]), first)

    np.testing.assert_allclose(found[0], [[0.3, 0.7]] * 3, rtol=1e-6)
    np.testing.assert_array_equal(c["spread"][1], found[0])


def test_an_expert_that_does_not_answer_does_not_begin():
    spread, c = make_spread()

    spread.known(c, np.array([1]), np.array([[True, False]]), np.ones((1, 3, 2), np.float32))

    assert c["spread"][1].tolist() == [[1.0, 0.0]] * 3


def test_what_was_not_settled_teaches_nothing():
    spread, c = make_spread()
    c["spread"][1] = 0.4

    settle(spread, c, np.nan, seen=100, settled=False)

    assert (c["spread"][1] == np.float32(0.4)).all()


def test_an_expert_without_an_answer_learns_nothing_beside_one_that_has():
    spread, c = make_spread()
    c["spread"][1] = 1.0

    settle(spread, c, [2.0, np.nan], seen=1_000)

    np.testing.assert_allclose(c["spread"][1], [[1 + 1 / 168, 1.0]] * 3, rtol=1e-6)


def test_errors_of_a_streams_first_values_teach_nothing():
    """Their unit, a scale made of a handful of differences, may be next to nothing."""
    spread, c = make_spread()
    c["spread"][1] = 1.0

    for seen in range(1, 9):
        settle(spread, c, 19.0, seen=seen)

    assert (c["spread"][1] == 1.0).all()


@pytest.mark.parametrize("error", [1e30, np.inf])
def test_one_wild_reading_counts_for_no_more_than_eight_usual_ones(error):
    spread, c = make_spread()
    c["spread"][1] = 1.0

    settle(spread, c, error, seen=1_000)

    np.testing.assert_allclose(c["spread"][1], 1 + 7 / 168, rtol=1e-6)


def test_a_stream_that_was_constant_so_far_learns_from_its_first_moves():
    """Its spread is zero: errors of a scale must come through, or its intervals would stay closed."""
    spread, c = make_spread()

    for step in range(400):
        settle(spread, c, 1.0, seen=1_000 + step)

    assert (c["spread"][1] > 0.8).all()


def test_no_first_spread_is_larger_than_twenty_scales():
    spread, c = make_spread()

    found = spread.known(c, np.array([1]), np.array([[True, True]]), np.full((1, 3, 2), np.inf, np.float32))

    assert (found == 20).all()


def test_a_first_spread_is_asked_for_until_each_expert_that_answers_has_one():
    spread, c = make_spread()
    slots, first_alone, both = np.array([1]), np.array([[True, False]]), np.array([[True, True]])
    asked = [spread.begins(c, slots, first_alone)]

    spread.known(c, slots, first_alone, np.full((1, 3, 2), 0.5, np.float32))
    asked += [spread.begins(c, slots, first_alone), spread.begins(c, slots, both)]

    assert asked == [True, False, True]
