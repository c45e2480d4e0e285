"""Stuck and silent sensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from forecaster.anomaly.silence import Silence
from forecaster.series.rows import Rows

SLOT = np.array([0])


def stuck(runs: Sequence[int], *, flat_readings: int = 5) -> list[bool]:
    """What is said at each reading of a stream that repeats values, this many times each."""
    silence = Silence(flat_readings=flat_readings, gap_steps=0)
    c = Rows(Silence.columns, 1)
    found, readings = [], 0
    for length in runs:
        for run in range(1, length + 1):
            readings += 1
            judged = silence.update(
                c,
                SLOT,
                run=np.array([run]),
                missed=np.array([0]),
                readings=np.array([readings]),
                present=np.array([True]),
            )
            found.append(bool(judged[0, 0]))
    return found


def silent(missed: Sequence[int], *, gap_steps: int = 5) -> list[bool]:
    """What is said at each reading of an old stream, before which so many steps were missing."""
    silence = Silence(flat_readings=0, gap_steps=gap_steps)
    c = Rows(Silence.columns, 1)
    return [
        bool(
            silence.update(
                c,
                SLOT,
                run=np.array([1]),
                missed=np.array([steps]),
                readings=np.array([1_000]),
                present=np.array([True]),
            )[0, 1]
        )
        for steps in missed
    ]


def test_a_stream_that_moved_and_stands_still_for_long_enough_is_stuck_until_it_moves():
    assert stuck([1] * 10 + [6] + [1, 1]) == [False] * 10 + [False] * 4 + [True] * 2 + [False] * 2


def test_a_stream_that_never_moved_is_not_stuck():
    assert not any(stuck([500]))


def test_it_has_to_be_twice_as_long_as_ever_before():
    found = stuck([1] * 30 + [4, 1, 8, 1, 17])

    assert found.index(True) == 30 + 4 + 1 + 8 + 1 + 16
    assert sum(found) == 1


def test_a_gap_has_to_be_twice_as_long_as_ever_before():
    assert silent([0, 5, 5, 10, 20, 21, 42]) == [False, True, False, False, False, False, False]
    assert silent([0, 5, 11, 0, 23]) == [False, True, True, False, True]


@pytest.mark.parametrize("found", [stuck([1] * 50 + [500], flat_readings=0), silent([0, 500], gap_steps=0)])
def test_zero_is_never(found):
    assert not any(found)
