import numpy as np
import pytest
from factories import make_origins

from forecaster.experts.naive import DampedLevel, Persistence, SeasonalNaive


def test_persistence_stays_at_the_last_value_and_expects_errors_that_grow_with_the_root_of_the_lead():
    expert, at = Persistence(horizon=4), make_origins()

    points, available = expert.forecast({}, at)

    assert available.all()
    assert not points.any()
    np.testing.assert_allclose(expert.first_spread({}, at), [0.5 * np.sqrt([1, 2, 3, 4]), [0, 0, 0, 0]], rtol=1e-6)


def test_seasonal_naive_repeats_the_season_where_there_is_one():
    expert, at = SeasonalNaive(), make_origins()

    points, available = expert.forecast({}, at)

    assert available.tolist() == [True, False]
    assert points[0].tolist() == [0.5, -1.0, 2.0, 0.0]
    assert expert.first_spread({}, at).tolist() == [[1.0] * 4] * 2
    assert np.isfinite(points).all()


def test_seasonal_naive_of_a_further_season_repeats_that_one_and_says_so():
    weekly = np.array([[1.0, 2.0, 3.0, 4.0]] * 2, np.float32), np.array([False, True])
    at = make_origins(further=((np.zeros((2, 4), np.float32), np.zeros(2, bool)), weekly))

    points, available = SeasonalNaive(2).forecast({}, at)

    assert [SeasonalNaive(place).name for place in range(3)] == ["seasonal", "seasonal_2", "seasonal_3"]
    assert available.tolist() == [False, True]
    assert points[1].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_the_damped_level_returns_a_twentieth_of_what_is_left_at_each_step():
    """Stepped by hand: two scales away from its level, a stream is 5 % nearer after one step, and so on."""
    points, available = DampedLevel(horizon=4).forecast({}, make_origins())

    left, expected = 2.0, []
    for _ in range(4):
        left -= left / 20
        expected.append(2.0 - left)
    assert available.all()
    np.testing.assert_allclose(points[0], expected, rtol=1e-6)
    assert not points[1].any()


@pytest.mark.parametrize("level", [np.nan, np.inf, 1e30])
def test_the_damped_level_has_no_answer_where_the_level_is_out_of_reach(level):
    points, available = DampedLevel(horizon=4).forecast({}, make_origins(level=np.array([level, 6.0])))

    assert available.tolist() == [False, True]
    assert np.isfinite(points).all()
