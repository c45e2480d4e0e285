import numpy as np
import pytest

from forecaster.engine.units import in_own_units, outcome, rounded, significant_decimals
from forecaster.state.pending import Due

NAN = np.nan


@pytest.mark.parametrize(
    ("scale", "decimals"),
    [(1.0, 3), (9.99, 3), (10.0, 2), (1e6, -3), (2e-5, 8), (1e-30, 33), (1e-320, 300), (1.7e308, -300)],
)
def test_decimals_show_a_thousandth_of_the_scale(scale, decimals):
    assert significant_decimals(scale) == decimals


@pytest.mark.parametrize(
    ("number", "decimals", "expected"),
    [(0.1 + 0.2, 3, 0.3), (2.5, 0, 2.0), (-1234.5, -2, -1200.0), (1e300, 300, np.inf), (1.5e302, -300, 1.5e302)],
)
def test_numbers_lose_what_is_behind_their_decimals(number, decimals, expected):
    assert rounded(number, decimals) == pytest.approx(expected, rel=1e-15)


def due_of(*, points, network, published):
    """One stream, one anchor lead."""
    quantiles = np.array([[[network, published]]], np.float32)
    return Due(np.ones((1, 1), bool), np.array([[points]], np.float32), quantiles)


def test_a_value_is_set_against_what_was_forecast_for_it_in_scales():
    due = due_of(points=[10.0, NAN], network=[8.0, 12.0, 14.0], published=[9.0, 11.0, 13.0])

    found = outcome(due, np.array([12.0], np.float32), np.array([2.0]), 1)

    assert found.settled.tolist() == [[True]]
    np.testing.assert_array_equal(found.points, [[[-1.0, NAN]]])
    np.testing.assert_array_equal(found.network, [[[-2.0, 0.0, 1.0]]])
    assert (found.error, found.naive_error, found.width, found.covered) == (0.5, 1.0, 2.0, True)


@pytest.mark.parametrize(("target", "published"), [(NAN, [9.0, 11.0, 13.0]), (12.0, [NAN, NAN, NAN])])
def test_a_missing_value_settles_nothing_and_neither_does_a_forecast_of_nothing(target, published):
    due = due_of(points=[10.0], network=[NAN] * 3, published=published)

    found = outcome(due, np.array([target], np.float32), np.array([1.0]), 1)

    assert not found.settled.any()
    for counted in (found.error, found.naive_error, found.width, found.covered):
        assert not counted.any()


def test_the_first_move_of_a_constant_stream_counts_for_a_thousand_scales():
    due = due_of(points=[0.0], network=[NAN] * 3, published=[0.0, 0.0, 0.0])

    found = outcome(due, np.array([5.0], np.float32), np.array([1e-30]), 1)

    assert (found.error, found.naive_error, found.covered) == (1_000, 1_000, False)


@pytest.mark.parametrize("bound", [0, -1])
def test_a_value_on_the_bound_is_inside(bound):
    """The value 0.1 in double precision is above what was kept of a quantile of 0.1."""
    published = np.array([0.1, 0.2, 0.3], np.float32)
    due = due_of(points=[0.0], network=[NAN] * 3, published=published)

    assert outcome(due, np.array([published[bound]]), np.array([1.0]), 1).covered.all()


def restored(*, seen=5, usable=True, answered=(True, False)):
    """Two leads, the second an anchor; two experts; value 100, scale 2."""
    relative = np.array([[[-1.0, 0.0, 1.0], [-2.0, 0.12345, 2.0]]], np.float32)
    return in_own_units(
        relative,
        np.array([[[0.5, 7.0], [1.5, 7.0]]], np.float32),
        np.array([answered]),
        relative + 1,
        np.array([usable]),
        np.array([100.0]),
        np.array([2.0]),
        np.array([seen]),
        np.array([1]),
    )


def test_answers_come_back_in_own_units_and_rounded_to_what_the_scale_shows():
    kept = restored()

    assert kept.published.tolist() == [[[98.0, 100.0, 102.0], [96.0, 100.247, 104.0]]]
    np.testing.assert_array_equal(kept.points, [[[103.0, NAN]]])
    np.testing.assert_allclose(kept.quantiles, [[[[98.0, 102.2469, 106.0], [96.0, 100.247, 104.0]]]], rtol=1e-8)


def test_what_had_no_answer_waits_as_nan():
    kept = restored(usable=False)

    assert np.isnan(kept.quantiles[:, :, 0]).all()
    assert not np.isnan(kept.quantiles[:, :, 1]).any()


def test_before_its_first_value_a_stream_is_told_nothing():
    assert np.isnan(restored(seen=0).published).all()
