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

from forecaster.series.columns import BoolArray, Column, Columns, FloatArray, IntArray, gathered

WARM_READINGS = 100
"""Before it a stream's long-run distribution is not known."""
THRESHOLD = 6.5
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
_SHAPES = (-0.5, 0.45)  # beyond them moments do not tell the shape


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
        held = {column.name: gathered(c[column.name], slots).astype(np.float64) for column in self.columns}
        n = held["surprise_readings"]
        u = np.log1p(surprise)
        short = held["surprise_short"]
        short = short + (u - short) * np.maximum(_SHORT_WEIGHTS, 1 / (n + 1))
        likelihood = (short - held["surprise_mean"]) / np.maximum(np.sqrt(held["surprise_square"]), _LEAST_SPREAD)
        likelihood = np.where(n >= WARM_READINGS, np.maximum(likelihood, 0.0), 0.0)
        threshold = np.where(n >= PEAK_READINGS, np.maximum(THRESHOLD, self._peak_threshold(held)), THRESHOLD)

        weight = np.maximum(1 / _LONG_READINGS, 1 / (n + 1))
        away = short - held["surprise_mean"]
        learned = {
            "surprise_readings": n + 1,
            "surprise_short": short,
            "surprise_mean": held["surprise_mean"] + weight * away,
            "surprise_square": (1 - weight) * (held["surprise_square"] + weight * away * away),
            **self._follow_peaks(held, likelihood, threshold),
        }
        all_counted = counted.all()
        for column in self.columns:
            value = learned[column.name]
            if not all_counted:
                old = c[column.name][slots]
                value = np.where(counted, value.astype(old.dtype), old)
            c[column.name][slots] = value
        return np.where(counted, likelihood / threshold, 0.0)

    def _peak_threshold(self, held: dict[str, FloatArray]) -> FloatArray:
        """Exceeded with the risk asked for, by the generalised Pareto distribution of the peaks' first two moments."""
        mean, variance = held["peak_excess"], held["peak_square"]
        shape = np.clip(0.5 * (1 - mean * mean / np.maximum(variance, 1e-12)), *_SHAPES)
        shape = np.where(np.abs(shape) < 1e-3, 1e-3, shape)
        width = np.maximum(mean * (1 - shape), 1e-9)
        rarer = (1 - _LEVEL) / self._risk
        return np.asarray(held["peak_level"] + width / shape * (np.exp(shape * np.log(rarer)) - 1))

    def _follow_peaks(
        self, held: dict[str, FloatArray], likelihood: FloatArray, threshold: FloatArray
    ) -> dict[str, FloatArray]:
        """Level, count and moments of the peaks with this reading; what is beyond the threshold enters capped."""
        since = held["surprise_readings"] - WARM_READINGS
        begun = since >= 0
        level, mean, count = held["peak_level"], held["peak_excess"], held["peaks"]
        rate = np.maximum(_LEVEL_RATE, 1 / (1 + np.maximum(since, 0.0) / 10)) * (mean + 1e-3)
        over = likelihood > level
        is_peak = over & (since >= _FIRST_PEAK_READINGS)
        excess = np.minimum(likelihood, threshold) - level
        weight = np.where(is_peak & (excess > 0), 1 / np.minimum(count + 2, _PEAKS), 0.0)  # the first guess counts once
        away = excess - mean
        return {
            "peak_level": np.where(begun, level + rate * (over - (1 - _LEVEL)), level),
            "peaks": count + is_peak,
            "peak_excess": mean + weight * away,
            "peak_square": (1 - weight) * (held["peak_square"] + weight * away * away),
        }
