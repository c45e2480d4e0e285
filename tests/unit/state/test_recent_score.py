import numpy as np
import pytest

from forecaster.series.rows import Rows
from forecaster.state.recent_score import RecentScore


def update(score, c, settled, error, naive, covered, slot=1):
    rows = [np.array([row]) for row in (settled, error, naive, covered)]
    score.update(
        c, np.array([slot]), rows[0].astype(bool), rows[1].astype("f4"), rows[2].astype("f4"), rows[3].astype(bool)
    )


def test_nothing_is_said_before_anything_was_settled():
    score = RecentScore()
    c = Rows(score.columns, 2)
    update(score, c, [0, 0], [9, 9], [9, 9], [1, 1])

    assert score.summary(c, 1) == (None, None)
    assert np.isnan(score.coverage(c, np.array([1]))).all()


def test_the_first_hundred_readings_count_alike_and_older_ones_fade_after():
    rng = np.random.default_rng(0)
    score = RecentScore()
    c = Rows(score.columns, 2)
    error, naive, covered = 0.0, 0.0, 0.0

    for n in range(1, 301):
        settled = [1, rng.random() < 0.5]
        errors, naives = rng.random(2), 2 * rng.random(2)
        hits = rng.random(2) < 0.8
        update(score, c, settled, errors, naives, hits)

        chosen = np.flatnonzero(settled)
        weight = 1 / min(n, 100)
        error += weight * (errors[chosen].mean() - error)
        naive += weight * (naives[chosen].mean() - naive)
        covered += weight * (hits[chosen].mean() - covered)

    ratio, coverage = score.summary(c, 1)
    assert ratio == pytest.approx(error / naive, rel=1e-4)
    assert coverage == pytest.approx(covered, rel=1e-4)
    assert score.coverage(c, np.array([0, 1])).tolist() == [pytest.approx(np.nan, nan_ok=True), coverage]
    assert c["recent_settled"].tolist() == [0, 300]


def test_where_the_naive_forecast_is_perfect_there_is_no_ratio():
    score = RecentScore()
    c = Rows(score.columns, 2)
    update(score, c, [1, 1], [0, 0], [0, 0], [1, 1])

    assert score.summary(c, 1) == (None, 1.0)


def test_a_reading_that_settles_nothing_changes_nothing():
    score = RecentScore()
    c = Rows(score.columns, 2)
    update(score, c, [1, 0], [0.5, 0], [1, 0], [1, 0])
    before = {name: array.copy() for name, array in c.items()}

    update(score, c, [0, 0], [np.nan, 7], [np.nan, 7], [0, 0])

    for name, array in c.items():
        np.testing.assert_array_equal(array, before[name])
