from itertools import pairwise

import numpy as np
import pytest

from forecaster.series.encoder import SeriesEncoder
from forecaster.training.encoding import encode
from forecaster.training.history import Series, lay_out_ticks
from forecaster.training.splits import before, cut_rows, rolling_origin, split, unseen_since

HORIZON = 4


def encoded(*times):
    rng = np.random.default_rng(0)
    series = [Series(np.asarray(t, np.float64), rng.normal(size=len(t))) for t in times]
    ticks = lay_out_ticks(series, max_gap_steps=10**9, step_seconds=1.0)
    return encode(SeriesEncoder(ring_steps=32, horizon=HORIZON), ticks, np.zeros(len(ticks), np.int64))


def test_streams_side_by_side_are_cut_at_one_moment():
    data = encoded(np.arange(100), np.arange(50, 100), np.arange(100))

    rows = cut_rows(data, 0.2)

    moments = data.times[rows]
    assert (moments == moments[0]).all()
    assert abs((data.times >= moments[0]).mean() - 0.2) < 0.01


def test_unrelated_files_are_cut_each_by_itself():
    data = encoded(np.arange(100), np.arange(10_000, 10_100), np.arange(50_000, 50_100))

    assert (cut_rows(data, 0.2) - data.starts[:-1]).tolist() == [80, 80, 80]


def test_parts_follow_each_other_and_no_target_of_an_older_part_lies_in_a_newer_one():
    data = encoded(np.arange(1000), np.arange(1000))

    parts = split(data, horizon=HORIZON)

    for stream in range(2):
        rows = np.arange(data.starts[stream], data.starts[stream + 1])
        last_train = rows[parts.train[rows]].max()
        stopping = (parts.stopping.first[stream], parts.stopping.last[stream])
        judged = (parts.judged.first[stream], parts.judged.last[stream])
        assert last_train + HORIZON < stopping[0] < stopping[1]
        assert stopping[1] - 1 + HORIZON < judged[0] < judged[1] == data.starts[stream + 1]
        assert abs((judged[1] - judged[0]) / 1000 - 0.15) < 0.01
        assert data.times[judged[0]] > parts.seen_until


def test_early_stopping_cannot_reach_a_judged_value():
    data = encoded(np.arange(200))
    parts = split(data, horizon=HORIZON)

    limited = before(data, parts.stopping_end)
    last = np.array([parts.judged.first[0] - 1])

    assert data.targets(last, HORIZON)[1].all()
    assert not limited.targets(last, HORIZON)[1].any()


def test_only_origins_after_what_the_champion_saw_are_unseen():
    data = encoded(np.arange(100), np.arange(100))
    judged = split(data, horizon=HORIZON).judged

    later = unseen_since(data, judged, 90.0)
    nothing = unseen_since(data, judged, 1e9)

    assert data.times[later.first].tolist() == [91.0, 91.0]
    assert (nothing.last - nothing.first).tolist() == [0, 0]
    assert unseen_since(data, judged, -1.0).first.tolist() == judged.first.tolist()


def test_folds_roll_forward_with_a_gap_and_no_target_of_one_part_in_another():
    data = encoded(np.arange(400), np.arange(100, 400))
    folds = rolling_origin(data, folds=3, horizon=4)

    assert len(folds) == 3
    assert [fold.train.sum() for fold in folds] == sorted(fold.train.sum() for fold in folds)
    for fold in folds:
        for k, (start, end) in enumerate(pairwise(data.starts)):
            train = start + np.flatnonzero(fold.train[start:end])
            first, last, limit = fold.scored.first[k], fold.scored.last[k], fold.ends[k]
            if last > first:
                assert first >= train.max() + 1 + 4
                assert last + 4 <= limit <= end
    for before_it, after in pairwise(folds):
        assert (before_it.ends <= after.scored.first).all()  # what one fold is scored on the next one learns from
        assert not (before_it.train & ~after.train).any()


def test_folds_score_the_newest_half_between_them():
    data = encoded(np.arange(1_000))

    folds = rolling_origin(data, folds=5, horizon=1)

    assert folds[0].scored.first[0] == pytest.approx(501, abs=2)
    assert folds[-1].ends[0] == 1_000
    assert [int(f.scored.last[0] - f.scored.first[0]) for f in folds] == pytest.approx([98] * 5, abs=2)
