"""Whether a stream is more surprising than it usually is, and more than its own peaks let expect.

Two layers for each channel of surprise. The *likelihood*: a short-window mean of ``log(1 - log p)`` in standard
deviations of its long-run distribution, so that a stream that is badly forecast is not always anomalous. The
*threshold*: a fixed one, and above it what the peaks of this very stream over their 0.98 quantile say is exceeded with
a given risk, so that a stream of bursts does not raise an alarm at each.

Source: Lavin & Ahmad (2015), arXiv:1510.03336, section 4, for the likelihood, there on raw anomaly scores; Siffer,
Fouque, Termier, Largouët (2017), "Anomaly Detection in Streams with Extreme Value Theory", KDD, for the threshold
(DSPOT; the likelihood's long-run mean is its drift). Here the generalised Pareto distribution is fitted by moments
that forget, and the initial quantile is tracked, so that a reading costs O(1) and nothing is kept of the peaks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.compiled import compiled

WARM_READINGS = 100
"""Before it a stream's long-run distribution is not known."""
THRESHOLD = 8.5
"""Standard deviations; alone while a stream has fewer than `PEAK_READINGS` readings, and never undercut."""
PEAK_READINGS = 1_000
SHORT_READINGS = (1.0, 6.0)
"""Window of the mean, by channel: the next step as it is, the longest lead over six readings."""

_SHORT_WEIGHTS = 1 / np.array(SHORT_READINGS)
_LONG_READINGS = 8_000.0
_LEAST_SPREAD = 0.05
_LEVEL = 0.98
_FIRST_LEVEL, _FIRST_EXCESS = 2.0, 0.5  # of a normal and an exponential distribution
_LEVEL_RATE = 0.02
_PEAKS = 200.0
_FIRST_PEAK_READINGS = 100  # in which the level finds its place
_LEAST_SHAPE, _MOST_SHAPE = -0.5, 0.45  # beyond them moments do not tell the shape


class SurprisePeaks:
    """Likelihood and threshold of two channels of surprise per stream.

    Args:
        risk: q, share of readings allowed beyond the threshold of peaks, below 0.02.
    """

    def __init__(self, *, risk: float) -> None:
        self._risk = risk
        channels = (len(SHORT_READINGS),)
        self.columns = (
            Column("surprise_readings", "i4", channels),
            Column("surprise_short", "f4", channels),
            Column("surprise_mean", "f4", channels),
            Column("surprise_square", "f4", channels),  # mean squared distance to the mean
            Column("peak_level", "f4", channels, _FIRST_LEVEL),
            Column("peaks", "i4", channels),
            Column("peak_excess", "f4", channels, _FIRST_EXCESS),  # mean over the level
            Column("peak_square", "f4", channels, _FIRST_EXCESS**2),  # variance of it
        )

    def update(self, c: Columns, slots: IntArray, surprise: FloatArray, counted: BoolArray) -> FloatArray:
        """Take -log p in, ``[B, 2]`` where ``counted``; returns likelihoods as multiples of their thresholds."""
        found = np.zeros(surprise.shape)
        _follow(slots, surprise, counted, self._risk, found, *(c[column.name] for column in self.columns))
        return found


@compiled
def _follow(
    slots: IntArray,
    surprise: FloatArray,
    counted: BoolArray,
    risk: float,
    found: FloatArray,
    readings: npt.NDArray[np.int32],
    short_mean: Float32Array,
    long_mean: Float32Array,
    long_square: Float32Array,
    level: Float32Array,
    peaks: npt.NDArray[np.int32],
    excess_mean: Float32Array,
    excess_square: Float32Array,
) -> None:
    log_rarer = np.log((1 - _LEVEL) / risk)
    for row in range(len(slots)):
        slot = slots[row]
        for channel in range(surprise.shape[1]):
            if not counted[row, channel]:
                continue
            n = readings[slot, channel]
            u, short = np.log1p(surprise[row, channel]), np.float64(short_mean[slot, channel])
            short += (u - short) * max(_SHORT_WEIGHTS[channel], 1 / (n + 1))
            mean, square = np.float64(long_mean[slot, channel]), np.float64(long_square[slot, channel])
            away = short - mean
            likelihood = max(away / max(np.sqrt(square), _LEAST_SPREAD), 0.0) if n >= WARM_READINGS else 0.0
            threshold = THRESHOLD
            if n >= PEAK_READINGS:
                of_peaks = _peak_threshold(
                    level[slot, channel], excess_mean[slot, channel], excess_square[slot, channel], log_rarer
                )
                threshold = max(THRESHOLD, of_peaks)
            found[row, channel] = likelihood / threshold

            weight = max(1 / _LONG_READINGS, 1 / (n + 1))
            readings[slot, channel] = n + 1
            short_mean[slot, channel] = short
            long_mean[slot, channel] = mean + weight * away
            long_square[slot, channel] = (1 - weight) * (square + weight * away * away)
            if n >= WARM_READINGS:
                _follow_peaks(
                    n - WARM_READINGS,
                    likelihood,
                    threshold,
                    level[slot],
                    peaks[slot],
                    excess_mean[slot],
                    excess_square[slot],
                    channel,
                )


@compiled
def _peak_threshold(level: float, mean: float, variance: float, log_rarer: float) -> float:
    """Exceeded with the risk asked for, by the generalised Pareto distribution of the peaks' first two moments; of how
    much rarer that is than the level, the logarithm."""
    shape = 0.5 * (1 - mean * mean / max(variance, 1e-12))
    shape = min(max(shape, _LEAST_SHAPE), _MOST_SHAPE)
    if abs(shape) < 1e-3:
        shape = 1e-3
    width = max(mean * (1 - shape), 1e-9)
    above: float = width / shape * (np.exp(shape * log_rarer) - 1)
    return level + above


@compiled
def _follow_peaks(
    since: int,
    likelihood: float,
    threshold: float,
    level: Float32Array,
    peaks: npt.NDArray[np.int32],
    excess_mean: Float32Array,
    excess_square: Float32Array,
    channel: int,
) -> None:
    """Level, count and moments of the peaks with this reading; what is beyond the threshold enters capped."""
    at, mean, count = np.float64(level[channel]), np.float64(excess_mean[channel]), peaks[channel]
    over = likelihood > at
    rate = max(_LEVEL_RATE, 1 / (1 + since / 10)) * (mean + 1e-3)
    level[channel] = at + rate * ((1.0 if over else 0.0) - (1 - _LEVEL))
    if over and since >= _FIRST_PEAK_READINGS:
        peaks[channel] = count + 1
        excess = min(likelihood, threshold) - at
        if excess > 0:
            weight = 1 / min(count + 2, _PEAKS)  # the first guess counts once
            away = excess - mean
            excess_mean[channel] = mean + weight * away
            excess_square[channel] = (1 - weight) * (excess_square[channel] + weight * away * away)
