"""Finding the season of a series, or finding that it has none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forecaster.series.columns import BoolArray, FloatArray, IntArray

NATURAL_SECONDS = (3_600.0, 86_400.0, 604_800.0)
"""Periods the world has: hour, day, week."""

_MIN_CYCLES = 3
_MIN_CORRELATION = 0.25


def find_season(
    values: FloatArray,
    step_seconds: float,
    *,
    max_steps: int,
    min_steps: int = 2,
    natural_seconds: Sequence[float] = NATURAL_SECONDS,
) -> float:
    """Season of a regular series in seconds, 0.0 where it has none.

    A period m is taken when the value one period ago says clearly more about the coming value than the last values
    do: the autocorrelation of the detrended series peaks at m, above what a process without season could show there,
    and the peak returns at 2m. Natural periods go before a peak that lies within 5 % of them; among several
    periods the strongest peak wins, the shorter one where they are about equal.

    Args:
        values: equally spaced, oldest first, ``nan`` where missing, ``[T]``.
        step_seconds: spacing.
        max_steps: longest period of interest, in steps.
        min_steps: shortest one.
        natural_seconds: periods to look at first.

    >>> hours = np.arange(24 * 20)
    >>> find_season(np.sin(2 * np.pi * hours / 24), 3600.0, max_steps=336)
    86400.0
    """
    x = np.asarray(values, np.float64)
    longest = min(max_steps, len(x) // _MIN_CYCLES)
    known = np.isfinite(x)
    if longest < min_steps or known.sum() < 0.5 * len(x) or step_seconds <= 0:
        return 0.0
    flat = _flattened(x, known)
    if flat is None:
        return 0.0
    correlation = _autocorrelation(flat, known, min(2 * longest + longest // 10, len(x) - 2))

    best_steps, best_strength = 0, 0.0
    for steps in _candidates(correlation, step_seconds, min_steps, longest, natural_seconds):
        strength = _strength(correlation, steps, int(known.sum()))
        # Every multiple of a season repeats too; it has to say a good deal more to be one of its own.
        is_multiple = best_steps > 0 and steps % best_steps == 0
        if strength > best_strength + (0.25 if is_multiple else 0.05):
            best_steps, best_strength = steps, strength
    if best_steps == 0:
        return 0.0
    for natural in natural_seconds:
        if abs(best_steps * step_seconds - natural) <= 0.05 * natural:
            return float(natural)
    return float(best_steps * step_seconds)


def find_longer_season(
    values: FloatArray, step_seconds: float, season_seconds: float, *, max_steps: int, at: IntArray | None = None
) -> float:
    """Season, in seconds, of what a shorter one leaves: of the values without the mean of their phase in it.

    A week over a day: that weekends are other days shows only when what all days share is gone. 0.0 where the rest has
    no natural season of at least two of the shorter ones: over so many cycles, any other is mostly chance.

    Args:
        values, step_seconds, max_steps: as in `find_season`.
        season_seconds: the one found, at least two steps.
        at: step of the clock at which each value stands, where some were jumped over, ``[T]``.

    >>> hours = np.arange(24 * 28)
    >>> find_longer_season(np.sin(2 * np.pi * hours / 24) * (hours % 168 < 120), 3600.0, 86400.0, max_steps=336)
    604800.0
    """
    season = round(season_seconds / step_seconds) if step_seconds > 0 else 0
    if season < 2:
        return 0.0
    known, phase = np.isfinite(values), (np.arange(len(values)) if at is None else at) % season
    total = np.bincount(phase[known], np.asarray(values, np.float64)[known], season)
    profile = total / np.maximum(np.bincount(phase[known], minlength=season), 1)
    found = find_season(values - profile[phase], step_seconds, max_steps=max_steps, min_steps=2 * season)
    return found if found in NATURAL_SECONDS else 0.0


def common_season(found: Sequence[float]) -> float:
    """The season of a group of streams: the one that most of them have, 0.0 where fewer than a fifth share any.

    >>> common_season([86400.0, 86400.0, 0.0]), common_season([0.0, 0.0, 0.0, 0.0, 0.0, 60.0])
    (86400.0, 0.0)
    """
    seasons, counts = np.unique([season for season in found if season > 0], return_counts=True)
    if not len(seasons):
        return 0.0
    most = int(np.argmax(counts))
    return float(seasons[most]) if 5 * counts[most] >= len(found) else 0.0


def _flattened(x: FloatArray, known: BoolArray) -> FloatArray | None:
    """Detrended, outliers pulled in, missing at 0; ``None`` for a series that does not move."""
    position = np.linspace(-1.0, 1.0, len(x))
    size = float(np.abs(x[known]).max())
    flat = np.where(known, x, 0.0)
    for _ in range(3):  # outliers bend the trend, and the trend hides outliers: in turns
        low, high = _usual_range(flat[known])
        flat = np.clip(flat, low, high)
        trend = np.polynomial.polynomial.Polynomial.fit(position[known], flat[known], 1)(position)
        flat = flat - trend
    flat = np.where(known, flat, 0.0)
    return np.asarray(flat) if np.std(flat[known]) > 1e-9 * size else None


def _usual_range(x: FloatArray) -> tuple[float, float]:
    """Median and five median deviations to both sides; all there is where most values are equal, as with rare jobs."""
    middle = float(np.median(x))
    reach = 5.0 * float(np.median(np.abs(x - middle)))
    return (middle - reach, middle + reach) if reach > 0 else (float(x.min()), float(x.max()))


def _autocorrelation(x: FloatArray, known: BoolArray, lags: int) -> FloatArray:
    """Autocorrelation at lags 0..``lags``, over the pairs of which both are known."""
    size = 1 << int(np.ceil(np.log2(2 * len(x))))

    def lagged_products(left: FloatArray, right: FloatArray) -> FloatArray:
        spectrum = np.fft.rfft(left, size).conj() * np.fft.rfft(right, size)
        return np.asarray(np.fft.irfft(spectrum, size)[: lags + 1])

    seen = known.astype(np.float64)
    squares = x * x * seen
    covariance = lagged_products(x, x)
    # Each lag is measured by the pairs it has: otherwise a long period is penalised for having fewer of them.
    energy = np.sqrt(np.maximum(lagged_products(squares, seen), 0) * np.maximum(lagged_products(seen, squares), 0))
    return np.asarray(np.divide(covariance, energy, out=np.zeros(lags + 1), where=energy > 1e-12 * energy[0]))


def _candidates(
    correlation: FloatArray, step_seconds: float, shortest: int, longest: int, natural_seconds: Sequence[float]
) -> list[int]:
    """Periods in steps worth a look: natural ones first, then local peaks, shortest first."""
    natural = [round(seconds / step_seconds) for seconds in natural_seconds]
    inner = correlation[1:-1]
    peaks = np.flatnonzero((inner > correlation[:-2]) & (inner >= correlation[2:]) & (inner > _MIN_CORRELATION)) + 1
    # The highest peaks, so that a noisy series does not offer hundreds.
    peaks = np.sort(peaks[np.argsort(-correlation[peaks])][:20])
    return [steps for steps in dict.fromkeys([*natural, *peaks.tolist()]) if shortest <= steps <= longest]


def _strength(correlation: FloatArray, steps: int, count: int) -> float:
    """How much the season shows: height of the peak over the valleys beside it; 0 where it is no season."""
    half = max(steps // 2, 1)
    reach = max(1, round(0.05 * steps))
    peak = float(correlation[max(steps - reach, 1) : steps + reach + 1].max())
    valley = float(correlation[max(half - half // 2, 1) : half + half // 2 + 1].min())
    upper = correlation[steps + half - half // 2 : steps + half + half // 2 + 1]
    second = correlation[2 * steps - 2 * reach : 2 * steps + 2 * reach + 1]
    if not len(upper) or not len(second):
        return 0.0
    valley = max(valley, float(upper.min()))
    # A wandering series shows one fine hump by chance when few cycles are seen, so few cycles have to agree better.
    needed = max(_MIN_CORRELATION, 2.0 * steps / count, 3.0 / np.sqrt(count))
    returns = float(second.max()) > 0.5 * peak
    return peak if peak > needed and peak - valley > 0.2 and returns else 0.0
