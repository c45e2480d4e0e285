"""Scores of an anomaly detector by the rules of the Numenta Anomaly Benchmark, from rows and labelled windows.

A detection is a row whose score reaches one threshold, the same for all files. Of the detections in a window only the
earliest counts, the more the earlier it is; each detection outside costs, less just behind a window. The first 15 % of
a file (of at most 5,000 rows) are for learning and count for nothing. Detections are never adjusted to windows.

Source: Lavin & Ahmad (2015), "Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly Benchmark",
ICMLA, arXiv:1510.03336, and the constants of version 1.1 of the benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

PROBATION = 0.15
_PROBATION_ROWS = 5_000  # of longer files only this many count

_OUTSIDE, _PROBATIONARY = -1, -2


class Profile(NamedTuple):
    """What a detection is worth, and what a wrong or a missing one costs."""

    name: str
    true_positive: float
    false_positive: float
    false_negative: float


PROFILES = (
    Profile("standard", 1.0, 0.11, 1.0),
    Profile("reward_low_FP_rate", 1.0, 0.22, 1.0),
    Profile("reward_low_FN_rate", 1.0, 0.11, 2.0),
)


class ScoredFile(NamedTuple):
    """One file of the benchmark with a detector's scores."""

    name: str
    scores: FloatArray
    """Of each row, larger is more anomalous, ``[n]``."""
    windows: tuple[tuple[int, int], ...]
    """First and last row of each labelled window, in order."""


class FileScore(NamedTuple):
    """What one threshold comes to in one file."""

    name: str
    score: float
    """Not normalised: the sum over windows and false detections."""
    windows: int
    """That a detector can be right about: not wholly in the probationary rows."""
    found: int
    """Of these."""
    true_positives: int
    """Rows detected within windows."""
    false_positives: int
    """Rows detected outside."""


class CorpusScore(NamedTuple):
    """What the best threshold comes to over all files."""

    profile: str
    threshold: float
    score: float
    """0 is a detector that never detects, 100 one that detects each window at its first row and nothing else."""
    files: tuple[FileScore, ...]


def score_corpus(files: Sequence[ScoredFile], profile: Profile) -> CorpusScore:
    """The score at the best single threshold over all files, as the benchmark's sweep finds it.

    Files without a window count as well: each detection there costs.
    """
    threshold = best_threshold(files, profile)
    scored = tuple(score_file(file, threshold, profile) for file in files)
    return CorpusScore(profile.name, threshold, normalised(scored, profile), scored)


def score_file(file: ScoredFile, threshold: float, profile: Profile) -> FileScore:
    """One file at a given threshold; a row is detected when its score is not below it."""
    worth, window = _rows(file, profile)
    detected = file.scores >= threshold
    numbers = np.unique(window[window >= 0])
    hits = [worth[detected & (window == number)] for number in numbers]
    # The earliest hit is the one worth most.
    of_windows = sum(float(hit.max()) if len(hit) else -profile.false_negative for hit in hits)
    wrong = detected & (window == _OUTSIDE)
    return FileScore(
        name=file.name,
        score=of_windows + float(worth[wrong].sum()),
        windows=len(hits),
        found=sum(len(hit) > 0 for hit in hits),
        true_positives=sum(map(len, hits)),
        false_positives=int(wrong.sum()),
    )


def best_threshold(files: Sequence[ScoredFile], profile: Profile) -> float:
    """The threshold with the highest score over all files together; the highest one of equals.

    ``inf`` where detecting nothing is best.
    """
    scores, gains = [], []
    for file in files:
        worth, window = _rows(file, profile)
        gain = np.where(window == _OUTSIDE, worth, 0.0)
        for number in np.unique(window[window >= 0]):
            rows = np.flatnonzero(window == number)
            rows = rows[np.argsort(-file.scores[rows], kind="stable")]
            best = np.maximum.accumulate(worth[rows])
            gain[rows] = np.diff(best, prepend=-profile.false_negative)
        counted = window != _PROBATIONARY
        scores.append(file.scores[counted])
        gains.append(gain[counted])
    every, gained = np.concatenate(scores), np.concatenate(gains)
    order = np.argsort(-every, kind="stable")
    total = np.cumsum(gained[order])
    ends = np.flatnonzero(np.diff(every[order], append=-np.inf))  # all rows of one score are detected together
    if not len(ends) or total[ends].max() <= 0:
        return math.inf
    return float(every[order][ends[np.argmax(total[ends])]])


def normalised(files: Sequence[FileScore], profile: Profile) -> float:
    """Sum of scores of files on the scale from detecting nothing (0) to perfection (100); ``nan`` without a window."""
    windows = sum(file.windows for file in files)
    if windows == 0:
        return math.nan
    nothing = -profile.false_negative * windows
    perfect = profile.true_positive * windows
    return 100 * (sum(file.score for file in files) - nothing) / (perfect - nothing)


def windows_of(times: Sequence[float] | FloatArray, labelled: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """Rows of labelled windows: from the first row at or after the beginning to the first at, or last before, the end.

    Windows that hold no row are left out.
    """
    found = np.asarray(times, np.float64)
    rows = []
    for begin, end in sorted(labelled):
        inside = np.flatnonzero((found >= begin) & (found <= end))
        if len(inside):
            at_end = np.flatnonzero(found == end)
            rows.append((int(inside[0]), int(at_end[0] if len(at_end) else inside[-1])))
    return rows


def probationary_rows(rows: int) -> int:
    """Rows at a file's beginning that count for nothing.

    >>> probationary_rows(4032), probationary_rows(22695)
    (604, 750)
    """
    return min(math.floor(PROBATION * rows), round(PROBATION * _PROBATION_ROWS))


def _rows(file: ScoredFile, profile: Profile) -> tuple[FloatArray, IntArray]:
    """What detecting each row is worth, ``[n]``, and the number of its window or `_OUTSIDE`, `_PROBATIONARY`, ``[n]``.

    Within a window the worth falls from ``true_positive`` at its first row towards 0 at its last; behind it falls from
    0 to ``-false_positive``, which it is three widths behind and before any window.
    """
    row = np.arange(len(file.scores))
    window = np.full(len(row), _OUTSIDE, np.int64)
    worth = np.full(len(row), -profile.false_positive)
    for number, (first, last) in enumerate(file.windows):
        width = last - first + 1
        behind = row[last + 1 :] - last
        # A window of a single row has nothing behind it that is near.
        place = behind / (width - 1) if width > 1 else np.full(len(behind), np.inf)
        worth[last + 1 :] = profile.false_positive * np.where(place < 3.0, _worth(np.minimum(place, 3.0)), -1.0)
        inside = slice(first, last + 1)
        worth[inside] = profile.true_positive * _worth((row[inside] - last - 1) / width) / _worth(np.array(-1.0))
        window[inside] = number
    window[: probationary_rows(len(row))] = _PROBATIONARY
    return worth, window


def _worth(place: FloatArray) -> FloatArray:
    """Scaled sigmoid: near 1 at the left edge of a window (-1), 0 at its right edge (0), near -1 a width behind (1)."""
    return np.asarray(2 / (1 + np.exp(5 * place)) - 1)
