"""What the network is asked to answer, cleaned: outliers capped or masked, missing values left out or filled.

Only targets are cleaned. Inputs stay those that serving makes, bit for bit, because serving meets the wild readings
too: its encoder caps changes and marks what is missing. Scores for early stopping and judging stay raw as well.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np

from forecaster.series.columns import BoolArray, FloatArray, IntArray

_LEAST_PAST = 8
_NORMAL_MAD = 1.4826  # standard deviations of a normal distribution in one median absolute deviation


class Cleaning(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to targets before training; the default is nothing, unobserved targets bear no loss."""

    missing: Literal["drop", "last", "interpolate", "model"] = "drop"
    """``model`` interpolates what the stream's own seasonal profile leaves over; without a season, the values."""
    fill_steps: int = 3
    """Longest gap that is filled."""
    outliers: Literal["none", "hampel", "z_score", "range"] = "none"
    treatment: Literal["cap", "mask"] = "cap"
    """An outlier moves to the nearest value that is none, or counts as missing."""
    threshold: float = 5.0
    """Deviations from the middle beyond which a value is an outlier, of ``hampel`` and ``z_score``."""
    window: int = 48
    """Values before the one judged that it is compared with."""
    minimum: float = -1e30
    maximum: float = 1e30
    anomalies: Literal["keep", "cap", "mask"] = "keep"
    """A value flagged as an anomaly moves to where Hampel's rule, with ``threshold`` and ``window`` over the values
    before it that were not flagged, would have it at the most, or counts as missing."""


def clean(
    values: FloatArray,
    starts: IntArray,
    rows: BoolArray,
    segment_end: IntArray,
    rules: Cleaning,
    *,
    phase: IntArray | None = None,
    flagged: BoolArray | None = None,
) -> FloatArray:
    """Targets of all streams as training sees them.

    Args:
        values: as read, stream after stream, ``[M]``.
        starts: first row of each stream, and M, ``[N + 1]``.
        rows: rows that may be looked at, ``[M]``; others are neither read nor changed.
        segment_end: row after the last one without a jump of the clock between, ``[M]``; no gap is filled across.
        rules: what to do.
        phase: place of each row in its stream's season, below 0 where there is none, ``[M]``; for ``model``.
        flagged: rows whose value was flagged as an anomaly, ``[M]``; ``None`` for none.

    Source: Moritz & Bartz-Beielstein (2017), "imputeTS: Time Series Missing Value Imputation in R" (`na_seadec`:
    interpolation after taking the season out); the profile here is the median of each phase.
    """
    cleaned = values.copy()
    for start, end in pairwise(starts):
        own = start + np.flatnonzero(rows[start:end])
        treated = treat_outliers(values[own], rules, None if flagged is None else flagged[own])
        profile = np.zeros(len(own))
        if rules.missing == "model" and phase is not None:
            profile = seasonal_profile(treated, phase[own])
        # Rows next to each other in one segment; what is not allowed to be seen parts them too.
        parted = np.flatnonzero((np.diff(own) > 1) | (np.diff(segment_end[own]) != 0)) + 1
        filled = profile + np.concatenate([fill_missing(run, rules) for run in np.split(treated - profile, parted)])
        cleaned[own] = np.where(np.isnan(treated), filled, treated)
    return cleaned


def treat_outliers(values: FloatArray, rules: Cleaning, flagged: BoolArray | None = None) -> FloatArray:
    """One stream's values with outliers and flagged anomalies capped or masked.

    Each is judged by itself and by values before it alone.

    >>> treat_outliers(np.array([1.0, 9.0, np.nan]), Cleaning(outliers="range", maximum=5.0))
    array([ 1.,  5., nan])
    >>> treat_outliers(np.array([1.0, 9.0]), Cleaning(anomalies="mask"), np.array([False, True]))
    array([ 1., nan])
    """
    if flagged is not None and rules.anomalies != "keep":
        values = _treat_flagged(values, rules, flagged)
    if rules.outliers == "none":
        return values
    known = np.flatnonzero(~np.isnan(values))
    low, high = _bounds(values[known], rules)
    treated = values.copy()
    if rules.treatment == "cap":
        treated[known] = np.clip(values[known], low, high)
    else:
        outside = (values[known] < low) | (values[known] > high)
        treated[known[outside]] = np.nan
    return treated


def _treat_flagged(values: FloatArray, rules: Cleaning, flagged: BoolArray) -> FloatArray:
    treated, normal = values.copy(), np.flatnonzero(~flagged & ~np.isnan(values))
    if rules.anomalies == "mask":
        treated[flagged] = np.nan
        return treated
    hampel = msgspec.structs.replace(rules, outliers="hampel")
    for row in np.flatnonzero(flagged & ~np.isnan(values)):  # few: an anomaly is rare, or it is none
        before = normal[: np.searchsorted(normal, row)][-rules.window :]
        if len(before) >= _LEAST_PAST:
            middle, spread = (float(part[0]) for part in _middle_and_spread(values[None, before], hampel))
            reach = rules.threshold * spread if spread > 0 else np.inf  # a past at rest says nothing about size
            treated[row] = min(max(values[row], middle - reach), middle + reach)
    return treated


def seasonal_profile(values: FloatArray, phase: IntArray) -> FloatArray:
    """Median of all values of a row's phase, ``[T]``: 0 below phase 0, ``nan`` for a phase without any value.

    >>> seasonal_profile(np.array([1.0, 5.0, 3.0, np.nan]), np.array([0, 1, 0, 1]))
    array([2., 5., 2., 5.])
    """
    known = ~np.isnan(values)
    profile = np.where(phase < 0, 0.0, np.nan)
    for number in np.unique(phase[known & (phase >= 0)]):
        own = phase == number
        profile[own] = np.median(values[own & known])
    return profile


def fill_missing(values: FloatArray, rules: Cleaning) -> FloatArray:
    """One unbroken run of values with gaps of at most ``fill_steps`` filled.

    >>> fill_missing(np.array([1.0, np.nan, 3.0, np.nan]), Cleaning(missing="interpolate"))
    array([ 1.,  2.,  3., nan])
    >>> fill_missing(np.array([1.0, np.nan, 3.0, np.nan]), Cleaning(missing="last"))
    array([1., 1., 3., 3.])
    """
    known = np.flatnonzero(~np.isnan(values))
    if rules.missing == "drop" or len(known) in (0, len(values)):
        return values
    row = np.arange(len(values))
    before = np.searchsorted(known, row, side="right") - 1  # of the last value at or before this row; -1 none
    after = np.minimum(np.searchsorted(known, row), len(known) - 1)
    previous = known[np.maximum(before, 0)]
    following = np.where(known[after] >= row, known[after], len(values))
    fillable = (before >= 0) & (following - previous - 1 <= rules.fill_steps) & np.isnan(values)
    if rules.missing == "last":
        return np.where(fillable, values[previous], values)
    return np.where(fillable & (following < len(values)), np.interp(row, known, values[known]), values)


def _bounds(known: FloatArray, rules: Cleaning) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest value that is no outlier, for each value; infinite where there is too little past.

    Source: Hampel (1974), "The Influence Curve and Its Role in Robust Estimation" (median and MAD); the window here
    ends before the value judged, where the usual filter is centred on it, so that nothing is told of the future.
    """
    if rules.outliers == "range":
        return np.full(len(known), rules.minimum), np.full(len(known), rules.maximum)
    middle, spread = np.zeros(len(known)), np.full(len(known), np.inf)
    window = min(rules.window, max(len(known) - 1, 0))
    for at in range(_LEAST_PAST, min(window, len(known))):  # a past that is not yet full
        middle[at], spread[at] = (float(part[0]) for part in _middle_and_spread(known[None, :at], rules))
    if window >= _LEAST_PAST:
        past = np.lib.stride_tricks.sliding_window_view(known[:-1], window)  # [T - window, window]
        middle[window:], spread[window:] = _middle_and_spread(past, rules)
    reach = np.where(spread > 0, rules.threshold * spread, np.inf)  # a past at rest says nothing about size
    return middle - reach, middle + reach


def _middle_and_spread(past: FloatArray, rules: Cleaning) -> tuple[FloatArray, FloatArray]:
    if rules.outliers == "hampel":
        middle = np.median(past, axis=1)
        return middle, _NORMAL_MAD * np.median(np.abs(past - middle[:, None]), axis=1)
    return past.mean(axis=1), past.std(axis=1)
