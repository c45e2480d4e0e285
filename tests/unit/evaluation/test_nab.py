"""Scores by the rules of the Numenta benchmark, against figures its authors published."""

from __future__ import annotations

import csv
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from forecaster.evaluation.nab import (
    PROFILES,
    FileScore,
    ScoredFile,
    best_threshold,
    normalised,
    probationary_rows,
    score_corpus,
    score_file,
    windows_of,
)

STANDARD, LOW_FALSE_POSITIVES, LOW_FALSE_NEGATIVES = PROFILES
HERE = Path(__file__).parent


def make_file(rows: int = 200, *, detected: dict[int, float], windows: tuple[tuple[int, int], ...] = ()) -> ScoredFile:
    scores = np.zeros(rows)
    for row, score in detected.items():
        scores[row] = score
    return ScoredFile("a", scores, windows)


def test_detecting_each_window_at_its_first_row_is_100_and_nothing_is_0():
    windows = ((50, 69), (120, 139))

    perfect = make_file(detected={50: 1.0, 120: 1.0}, windows=windows)
    nothing = score_file(perfect, 2.0, STANDARD)

    assert score_corpus([perfect], STANDARD).score == pytest.approx(100.0)
    assert normalised([nothing], STANDARD) == 0.0
    assert nothing == FileScore("a", -2.0, 2, 0, 0, 0)


def test_within_a_window_only_the_earliest_counts_and_later_is_worth_less():
    def worth(*rows: int) -> float:
        return score_file(make_file(detected=dict.fromkeys(rows, 1.0), windows=((100, 119),)), 1.0, STANDARD).score

    assert worth(100) == pytest.approx(1.0)
    assert worth(105, 118) == worth(105)
    assert 1.0 > worth(105) > worth(110) > worth(119) > 0


def test_a_false_detection_costs_less_just_behind_a_window():
    def cost(row: int) -> float:
        return score_file(make_file(detected={row: 1.0}, windows=((100, 109),)), 1.0, STANDARD).score + 1.0

    assert cost(60) == pytest.approx(-0.11), "before any window"
    assert cost(150) == pytest.approx(-0.11), "more than three widths behind"
    assert -0.11 < cost(112) < cost(110) < 0


def test_the_beginning_is_for_learning():
    file = make_file(detected={10: 1.0, 29: 1.0}, windows=((5, 20), (100, 109)))

    found = score_file(file, 1.0, STANDARD)

    assert probationary_rows(200) == 30
    assert (found.windows, found.false_positives, found.true_positives) == (1, 0, 0)


def test_profiles_weigh_false_alarms_and_misses_differently():
    file = make_file(detected={60: 1.0}, windows=((100, 109),))

    assert score_file(file, 1.0, LOW_FALSE_POSITIVES).score == pytest.approx(-1.22)
    assert score_file(file, 1.0, LOW_FALSE_NEGATIVES).score == pytest.approx(-2.11)


def test_the_best_threshold_is_that_of_trying_every_one():
    rng = np.random.default_rng(5)
    files = []
    for _ in range(6):
        scores = np.round(rng.random(300), 2)
        scores[100:110] += 0.3 * rng.random(10)
        files.append(ScoredFile("f", scores, ((100, 119), (220, 229))))
    tried = {
        threshold: sum(score_file(file, threshold, STANDARD).score for file in files)
        for threshold in {float(s) for file in files for s in file.scores}
    }

    found = best_threshold(files, STANDARD)

    assert tried[found] == pytest.approx(max(tried.values()))
    assert found in tried


def test_where_every_detection_is_wrong_nothing_is_to_be_detected():
    file = make_file(detected={60: 1.0, 70: 2.0})

    assert best_threshold([file], STANDARD) == math.inf
    assert math.isnan(score_corpus([file], STANDARD).score), "there is no window to be right about"


def test_windows_are_found_by_time_and_end_at_the_first_of_repeated_times():
    times = [0.0, 1.0, 2.0, 3.0, 3.0, 4.0, 5.0]

    assert windows_of(times, [(4.5, 9.0), (1.0, 3.0), (20.0, 30.0)]) == [(1, 3), (6, 6)]


def windowed_gaussian(values: np.ndarray, *, size: int = 6_400, step: int = 100) -> np.ndarray:
    """The benchmark's own detector of this name: upper tail of a normal distribution over a window that moves by 100.

    Its published scores have twelve digits, which makes 1 of everything beyond some seven deviations.
    """
    scores = np.zeros(len(values))
    begin = end = 0
    mean, deviation = 0.0, 1.0
    for row, value in enumerate(values.tolist()):
        if row:
            tail = 0.5 * math.erfc((value - mean) / deviation / 1.4142)
            scores[row] = float(f"{1 - tail:.12g}")
        if row < size:
            end = row + 1
        elif (row + 1 - size) % step == 0:
            begin, end = begin + step, end + step
        else:
            continue
        window = values[begin:end]
        mean, deviation = window.mean(), window.std() or 1e-6
    return scores


@pytest.mark.data
def test_scores_of_a_published_detector_are_the_published_ones_in_each_file(data_directory):
    """Score, rows detected in windows and false alarms of 38 files, standard profile, at the published threshold.

    Source: results/windowedGaussian/windowedGaussian_standard_scores.csv of numenta/NAB at 487c0f97.
    """
    published = json.loads((HERE / "nab_windowed_gaussian.json").read_text())
    labels = json.loads((data_directory / "nab/labels/combined_windows.json").read_text())

    def seconds(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    assert len(published) == 38
    for name, (score, true_positives, false_positives) in published.items():
        with (data_directory / "nab/data" / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        times = [seconds(row["timestamp"]) for row in rows]
        windows = windows_of(times, [(seconds(begin), seconds(end)) for begin, end in labels[name]])
        scores = windowed_gaussian(np.array([float(row["value"]) for row in rows]))

        found = score_file(ScoredFile(name, scores, tuple(windows)), 1.0, STANDARD)

        assert (found.true_positives, found.false_positives) == (true_positives, false_positives), name
        assert found.score == pytest.approx(score, abs=1e-9), name
