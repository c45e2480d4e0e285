"""Labels move a stream's thresholds, and no further than they may."""

import numpy as np
import pytest
from factories import LEVELS, START

from forecaster.anomaly.detector import AnomalyDetector, AnomalyRules, Expectation
from forecaster.anomaly.labels import LEAST_TOLERANCE, MOST_TOLERANCE, STEP
from forecaster.series.rows import Rows


class Watched:
    """A detector, and streams of noise of size 1 about 0 that are forecast as what they are."""

    def __init__(self, streams=1, seed=0):
        self.detector = AnomalyDetector(AnomalyRules(), quantile_levels=LEVELS)
        self.c = Rows(self.detector.columns, streams + 1)
        self.slots = np.arange(1, streams + 1)
        self.rng = np.random.default_rng(seed)
        self.readings = 0
        self.raised = [[] for _ in self.slots]

    def read(self, *values):
        streams = len(self.slots)
        told = np.tile([-1.2816, 0.0, 1.2816], (streams, 1))
        for value in values:
            verdicts = self.detector.update(
                self.c,
                self.slots,
                np.full(streams, self.now),
                np.full(streams, float(value)),
                Expectation(told, told, np.ones(streams)),
                run=np.ones(streams, np.int64),
                missed=np.zeros(streams, np.int64),
                readings=np.full(streams, self.readings),
            )
            self.readings += 1
            for stream in np.flatnonzero(verdicts.raised):
                self.raised[stream].append(float(verdicts.score[stream]))

    @property
    def now(self):
        return START + self.readings

    @property
    def tolerance(self):
        return float(self.c["tolerance"][1])

    def calm(self, readings):
        self.read(*self.rng.standard_normal(readings))

    def label(self, *, is_true, time=None, slot=1):
        self.detector.label(self.c, slot, self.now if time is None else time, is_true=is_true)


def with_an_episode(size):
    """300 readings, then one that is raised, then 300 in which it is cleared and forgotten."""
    stream = Watched()
    stream.calm(300)
    stream.raised[0].clear()
    stream.read(size)
    stream.calm(300)
    assert len(stream.raised[0]) == 1, "the episode is one anomaly"
    return stream


def test_without_a_label_a_like_episode_is_raised_again():
    """A little larger: a stream's scores are relative to all it has been, so the very same is no news."""
    stream = with_an_episode(14.0)

    stream.read(1.2 * 14.0)

    assert len(stream.raised[0]) == 2


def test_after_a_false_label_a_like_episode_is_not_raised_again_but_a_worse_one_is():
    stream = with_an_episode(14.0)

    stream.label(is_true=False)
    stream.read(1.2 * 14.0)
    stream.calm(300)
    assert len(stream.raised[0]) == 1

    stream.read(40 * 14.0)
    assert len(stream.raised[0]) == 2


def test_false_labels_lower_the_rate_of_alarms_and_true_ones_raise_it():
    """On the same 2,000 readings of a heavy tail, Student's t with two degrees of freedom."""
    streams = Watched(streams=3, seed=3)
    streams.calm(300)
    for _ in range(3):
        streams.label(is_true=False, time=START, slot=1)
        streams.label(is_true=True, slot=3)
    for raised in streams.raised:
        raised.clear()

    streams.read(*streams.rng.standard_t(2, 2_000))

    disliked, plain, liked = map(len, streams.raised)
    assert disliked < plain < liked


@pytest.mark.parametrize(("is_true", "bound"), [(True, LEAST_TOLERANCE), (False, MOST_TOLERANCE)])
def test_however_many_labels_there_are_the_thresholds_keep_within_their_bounds(is_true, bound):
    stream = with_an_episode(14.0)

    for _ in range(100):
        stream.label(is_true=is_true)

    assert stream.tolerance == bound


def test_a_label_of_an_anomaly_before_the_last_one_moves_by_the_fixed_share_alone():
    stream = with_an_episode(14.0)

    stream.label(is_true=False, time=START)

    assert stream.tolerance == pytest.approx(STEP)


def test_scores_are_multiples_of_the_streams_own_thresholds():
    plain, labelled = with_an_episode(14.0), with_an_episode(14.0)
    labelled.label(is_true=True)
    labelled.label(is_true=True)
    for stream in (plain, labelled):
        stream.read(1.2 * 14.0)

    assert labelled.raised[0][-1] == pytest.approx(STEP**2 * plain.raised[0][-1], rel=1e-5)


def test_labels_concern_their_stream_alone():
    detector = AnomalyDetector(AnomalyRules(), quantile_levels=LEVELS)
    c = Rows(detector.columns, 4)

    detector.label(c, 2, START, is_true=False)

    assert c["tolerance"].tolist() == [1.0, 1.0, pytest.approx(STEP), 1.0]
