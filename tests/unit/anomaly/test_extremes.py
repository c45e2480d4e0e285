"""How far a stream leaves the range it has ever been in."""

from __future__ import annotations

import numpy as np
import pytest

from forecaster.anomaly.extremes import THRESHOLD, WARM_READINGS, Extremes
from forecaster.series.rows import Rows

SLOT, PRESENT = np.array([0]), np.array([True])


class Range:
    def __init__(self) -> None:
        self.extremes = Extremes()
        self.c = Rows(Extremes.columns, 1)

    def feed(self, values: np.ndarray, scale: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
        found = [self.extremes.update(self.c, SLOT, np.array([v]), np.array([scale]), PRESENT) for v in values]
        return np.array([beyond[0] for beyond, _ in found]), np.array([above[0] for _, above in found])


WAVES = np.sin(np.arange(400) / 5.0)


def test_within_the_range_nothing_is_extreme_and_beyond_it_the_share_counts():
    stream = Range()
    assert stream.feed(WAVES)[0].max() < 0.1, "but for what the range has shrunk by meanwhile"

    beyond, above = stream.feed(np.array([1.5, -1.5]))

    assert beyond[0, 0] * THRESHOLD * (1 + 300 / 401) == pytest.approx(0.5 / 2.0, rel=0.02)
    assert above[:, 0].tolist() == [True, False]


def test_the_same_extreme_is_new_only_once():
    stream = Range()
    stream.feed(WAVES)

    beyond = stream.feed(np.array([3.0, 0.0, 0.0, 3.0]))[0][:, 0]

    assert beyond[0] > 1
    assert beyond[3] < 0.1


def test_the_mean_of_some_readings_is_beyond_where_no_single_one_is():
    """A level that the stream has touched at its peaks, but never stayed at."""
    stream = Range()
    stream.feed(np.tile([-1.0, 1.0], 200))

    beyond = stream.feed(np.full(20, 1.0))[0]

    assert beyond[:, 0].max() < 0.1
    assert beyond[:, 1].max() > 1


def test_young_streams_and_missing_values_are_never_extreme():
    stream = Range()
    assert stream.feed(np.arange(float(WARM_READINGS)))[0].max() == 0.0
    before = {name: array.copy() for name, array in stream.c.items()}

    beyond, _ = stream.extremes.update(stream.c, SLOT, np.array([1e9]), np.array([1.0]), np.array([False]))

    assert beyond.tolist() == [[0.0, 0.0]]
    assert all(np.array_equal(array, before[name]) for name, array in stream.c.items())


def test_a_constant_stream_that_moves_is_extreme_once_and_finitely():
    stream = Range()
    stream.feed(np.full(300, 7.0), scale=1e-8)

    beyond = stream.feed(np.array([8.0, 8.0, 7.0, 8.0]), scale=1e-8)[0]

    assert np.isfinite(beyond).all()
    assert (beyond[:, 0] > 1).tolist() == [True, False, False, False]
