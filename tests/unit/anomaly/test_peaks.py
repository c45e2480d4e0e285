"""Whether a stream is more surprising than it usually is, and than its own peaks let expect."""

from __future__ import annotations

import numpy as np
import pytest

from forecaster.anomaly.peaks import PEAK_READINGS, WARM_READINGS, SurprisePeaks, _peak_threshold
from forecaster.series.columns import Columns
from forecaster.series.rows import Rows

SLOT = np.array([0])


def feed(peaks: SurprisePeaks, c: Columns, surprises: np.ndarray) -> np.ndarray:
    """Likelihoods of both channels as multiples of their thresholds, ``[n, 2]``."""
    both = np.ones((1, 2), np.bool_)
    return np.array([peaks.update(c, SLOT, np.full((1, 2), s), both)[0] for s in surprises])


@pytest.fixture
def peaks() -> SurprisePeaks:
    return SurprisePeaks(risk=1e-3)


def test_a_young_stream_is_never_likely_to_be_anomalous(peaks):
    c = Rows(peaks.columns, 1)

    assert (feed(peaks, c, np.full(WARM_READINGS, 1e6)) == 0).all()


def test_one_wild_reading_stands_out_at_the_next_lead_and_only_a_lasting_change_at_the_longest(peaks):
    rng = np.random.default_rng(1)
    c = Rows(peaks.columns, 1)
    feed(peaks, c, rng.exponential(1.0, 500))

    spike = feed(peaks, c, np.array([1e5]))[0]
    feed(peaks, c, rng.exponential(1.0, 50))
    lasting = feed(peaks, c, np.full(12, 1e5))

    assert spike[0] > 1.0
    assert spike[1] < spike[0]
    assert lasting[-1, 1] > 1.0


def test_exponential_surprise_as_of_calibrated_forecasts_almost_never_reaches_the_threshold(peaks):
    c = Rows(peaks.columns, 1)

    found = feed(peaks, c, np.random.default_rng(2).exponential(1.0, 6_000))

    assert (found >= 1).sum() == 0
    assert found.max() > 0.3, "and yet it is looked at"


def test_a_stream_of_bursts_gets_a_threshold_of_its_own_above_the_fixed_one(peaks):
    """One reading in forty is wild, as the load of a machine that runs a job now and then."""
    rng = np.random.default_rng(3)
    surprises = np.where(rng.random(4_000) < 0.025, 10.0 ** rng.uniform(2, 6, 4_000), rng.exponential(0.3, 4_000))
    c = Rows(peaks.columns, 1)

    found = feed(peaks, c, surprises)[:, 0]

    early, late = found[WARM_READINGS:PEAK_READINGS], found[2_000:]
    assert (early >= 1).mean() > 3 * (late >= 1).mean()
    assert (late >= 1).mean() < 3e-3


def test_the_threshold_of_peaks_is_exceeded_with_the_risk_asked_for():
    """Where peaks are exponential the generalised Pareto threshold is known: level + mean excess · log(0.02 / q)."""
    assert _peak_threshold(3.0, 2.0, 4.0, np.log(0.02 / 1e-3)) == pytest.approx(
        3.0 + 2.0 * np.log(0.02 / 1e-3), rel=0.01
    )


def test_what_is_not_counted_changes_nothing(peaks):
    c = Rows(peaks.columns, 1)
    feed(peaks, c, np.random.default_rng(4).exponential(1.0, 300))
    before = {name: array.copy() for name, array in c.items()}

    found = peaks.update(c, SLOT, np.full((1, 2), 1e6), np.array([[False, False]]))

    assert found.tolist() == [[0.0, 0.0]]
    assert all(np.array_equal(array, before[name]) for name, array in c.items())
