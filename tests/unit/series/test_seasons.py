import numpy as np
import pytest

from forecaster.series.seasons import season_steps


@pytest.mark.parametrize(
    ("season", "step", "expected"),
    [
        (86_400.0, 3_600.0, 24),
        (86_400.0, 86_400.0, 0),  # a season of one step says nothing
        (86_400.0, 43_200.0, 2),
        (3_600.0, 7.0, 0),  # longer than the ring
        (100.0, 9.9, 10),  # within 2 %: a clock that drifts
        (100.0, 9.5, 0),
        (100.0, 0.0, 0),
        (0.0, 10.0, 0),
    ],
)
def test_a_season_is_whole_steps_or_none(season, step, expected):
    assert season_steps(season, np.array([step]), 336).tolist() == [expected]


def test_streams_of_different_steps_have_seasons_of_their_own():
    assert season_steps(60.0, np.array([1.0, 5.0, 60.0]), 60).tolist() == [60, 12, 0]
