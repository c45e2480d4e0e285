"""When an anomaly begins, when it is over, and when it is only the last one again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from forecaster.anomaly.episodes import EpisodeRules, Episodes
from forecaster.series.rows import Rows

SLOT = np.array([0])


class Told(NamedTuple):
    raised: list[int]
    cleared: list[int]
    fresh: list[float]
    scores: list[float]


def tell(scores: Sequence[float], *, missing: Sequence[int] = (), news: Sequence[int] = (), **rules: float) -> Told:
    """At which readings an anomaly is raised and cleared."""
    episodes = Episodes(EpisodeRules(**rules))
    c = Rows(Episodes.columns, 1)
    told = Told([], [], [], [])
    for at, score in enumerate(scores):
        turn = episodes.update(
            c,
            SLOT,
            np.array([float(at)]),
            np.array([score]),
            np.array([3]),
            counted=np.array([at not in missing]),
            is_news=np.array([at in news]),
        )
        told.raised.extend([at] * int(turn.raised[0]))
        told.cleared.extend([at] * int(turn.cleared[0]))
        told.fresh.append(float(turn.fresh[0]))
        told.scores.append(float(turn.score[0]))
        if turn.cleared[0]:
            assert turn.since[0] == told.raised[-1]
            assert turn.code[0] == 3
    return told


def test_it_is_raised_once_and_cleared_after_quiet_readings():
    told = tell([0, 0, 2.0, 3.0, 0, 0, 0, 0, 0], clear_after=3)

    assert (told.raised, told.cleared) == ([2], [6])
    assert told.scores[6] == 3.0, "the highest it had"


def test_between_quiet_and_threshold_it_stays_as_it_is():
    told = tell([0, 0.7, 1.0, 0.7, 0.7, 0.7, 0.1, 0.7, 0.1, 0.1], clear_after=2)

    assert (told.raised, told.cleared) == ([2], [9])


def test_for_a_while_only_a_higher_score_raises_again():
    told = tell([1.5, 0, 0, 1.4, 0, 0, 1.6, 0, 0, 0, 0, 0, 0, 1.5, 0], clear_after=1, repeat_after=5)

    assert told.raised == [0, 6, 13]


def test_what_has_nothing_to_do_with_the_last_one_is_raised_all_the_same():
    told = tell([9.0, 0, 0, 1.0, 0, 0, 8.0], news=[3], clear_after=1)

    assert told.raised == [0, 3]


def test_it_has_to_last_for_as_many_readings_as_asked():
    told = tell([2.0, 2.0, 0, 5.0, 2.0, 2.0, 2.0, 0, 0], min_readings=3, clear_after=2)

    assert (told.raised, told.cleared) == ([5], [8])


def test_a_missing_value_may_raise_and_never_clears():
    told = tell([0, 1.0, 0, 0, 0, 0], missing=[1, 2, 3, 4], clear_after=1)

    assert (told.raised, told.cleared) == ([1], [5])


def test_the_threshold_moves_all_that_is_told():
    assert tell([1.5, 0, 0, 2.5, 1.1, 0.9, 0.9], threshold=2.0, clear_after=2).raised == [3]
    assert tell([1.5, 0, 0, 2.5, 1.1, 0.9, 0.9], threshold=2.0, clear_after=2).cleared == [6]


def test_what_would_be_new_has_a_fresh_score_whether_it_is_raised_or_not():
    told = tell([0.4, 0.3, 0.6, 1.2, 5.0, 0.0], clear_after=9)

    assert told.fresh == pytest.approx([0.4, 0.0, 0.6, 1.2, 0.0, 0.0], rel=1e-6)


def test_with_repeats_as_they_come_every_anomaly_that_is_over_may_be_raised_again():
    assert tell([2.0, 0, 2.0, 0, 2.0, 0], clear_after=1, repeat_after=0).raised == [0, 2, 4]
