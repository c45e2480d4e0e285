import numpy as np
import pytest

from forecaster.errors import TrainingFailed
from forecaster.training.history import History, Series, lay_out_ticks

NAN = float("nan")


def series(times, values=None):
    times = np.asarray(times, np.float64)
    return Series(times, np.arange(len(times), dtype=np.float64) if values is None else np.asarray(values, np.float64))


def test_late_and_repeated_readings_are_dropped_as_serving_refuses_them():
    history = History({"a": series([10.0, 20.0, 20.0, 15.0, 30.0], [1.0, 2.0, 3.0, 4.0, 5.0])})

    assert history.streams["a"].times.tolist() == [10.0, 20.0, 30.0]
    assert history.streams["a"].values.tolist() == [1.0, 2.0, 5.0]


def test_stream_without_readings_is_no_stream():
    assert History({"a": series([])}).streams == {}


def test_trim_keeps_the_newest_of_every_stream_and_shares_the_budget():
    history = History({"long": series(range(100)), "short": series(range(10))})

    trimmed = history.trim(60)

    assert trimmed.streams["short"].times.tolist() == list(range(10))
    assert trimmed.streams["long"].times.tolist() == list(range(50, 100))
    assert history.trim(110) is history


def test_span_counts_all_streams_and_an_empty_history_has_none():
    history = History({"a": series([5.0, 9.0]), "b": series([2.0, 3.0])})

    assert history.span() == (2.0, 9.0)
    assert history.readings == 4
    with pytest.raises(TrainingFailed, match="no reading"):
        History({}).span()


def test_between_includes_both_ends():
    assert History({"a": series([1, 2, 3, 4])}).between(2.0, 3.0).streams["a"].times.tolist() == [2.0, 3.0]


def test_without_makes_the_values_of_a_streams_periods_missing_and_leaves_the_rest():
    history = History({"a": series([1, 2, 3, 4, 5], [10, 20, 30, 40, 50]), "b": series([1, 2], [1, 2])})

    kept = history.without({"a": [(2.0, 3.0), (4.5, 9.0)], "stranger": [(0.0, 9.0)]})

    np.testing.assert_array_equal(kept.streams["a"].values, [10, NAN, NAN, 40, NAN])
    assert kept.streams["a"].times.tolist() == [1, 2, 3, 4, 5]
    assert kept.streams["b"].values.tolist() == [1, 2]
    assert history.streams["a"].values.tolist() == [10, 20, 30, 40, 50], "another value"


def test_merge_appends_only_what_is_newer():
    older = History({"a": series([1, 2, 3], [1, 2, 3]), "b": series([1])})
    newer = History({"a": series([2, 3, 4], [20, 30, 40]), "c": series([7])})

    merged = older.merge(newer)

    assert merged.streams["a"].values.tolist() == [1.0, 2.0, 3.0, 40.0]
    assert set(merged.streams) == {"a", "b", "c"}


def test_sample_draws_that_many_streams_and_the_same_for_a_seed():
    history = History({str(k): series([1.0, 2.0]) for k in range(20)})

    first, second = (history.sample(5, np.random.default_rng(3)) for _ in range(2))

    assert len(first.streams) == 5
    assert list(first.streams) == list(second.streams)
    assert history.sample(20, np.random.default_rng(3)) is history


@pytest.mark.parametrize("covariates", [0, 2])
def test_file_gives_back_what_was_saved(tmp_path, covariates):
    beside = np.array([[1.0, NAN], [2.0, 3.0]]) if covariates else None
    history = History(
        {
            "ward-3/bed-12": Series(np.array([1.5, 2.5]), np.array([NAN, 7.0]), beside),
            "größe \u2713": Series(np.array([0.1, 3.0]), np.array([1.0, 2.0]), beside),
        }
    )

    history.save(tmp_path / "history")
    loaded = History.load(tmp_path / "history")

    assert list(loaded.streams) == list(history.streams)
    assert loaded.covariates == covariates
    for name, expected in history.streams.items():
        for mine, theirs in zip(loaded.streams[name], expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_empty_history_survives_a_file(tmp_path):
    History({}).save(tmp_path / "history")

    assert History.load(tmp_path / "history").streams == {}


@pytest.mark.parametrize("content", [b"", b"not a history", b"\x00" * 100])
def test_file_that_is_no_history_is_a_training_failure_that_names_it(tmp_path, content):
    (tmp_path / "history").write_bytes(content)

    with pytest.raises(TrainingFailed, match="history cannot be read"):
        History.load(tmp_path / "history")
    with pytest.raises(TrainingFailed, match="nowhere cannot be read"):
        History.load(tmp_path / "nowhere")


def test_regular_readings_are_their_own_ticks():
    (ticks,) = lay_out_ticks([series([0, 60, 120, 180])], max_gap_steps=5)

    assert ticks.times.tolist() == [0.0, 60.0, 120.0, 180.0]
    assert ticks.values.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert ticks.elapsed.tolist() == [1.0, 1.0, 1.0, 1.0]
    assert ticks.skipped.tolist() == [0, 0, 0, 0]


def test_short_gap_becomes_ticks_without_a_value():
    (ticks,) = lay_out_ticks([series([0, 60, 120, 300, 360])], max_gap_steps=5, step_seconds=60.0)

    assert ticks.times.tolist() == [0.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0]
    np.testing.assert_array_equal(ticks.values, [0.0, 1.0, 2.0, NAN, NAN, 3.0, 4.0])
    assert ticks.skipped.sum() == 0


def test_long_gap_is_jumped_over_and_noted():
    (ticks,) = lay_out_ticks([series([0, 60, 120, 1200, 1260])], max_gap_steps=5, step_seconds=60.0)

    assert ticks.times.tolist() == [0.0, 60.0, 120.0, 1200.0, 1260.0]
    assert ticks.skipped.tolist() == [0, 0, 0, 17, 0]


def test_streams_of_unequal_length_are_laid_out_as_if_each_were_alone():
    rng = np.random.default_rng(0)
    many = [series(np.cumsum(rng.choice([1.0, 1.0, 1.1, 3.0, 50.0], size=n))) for n in (40, 7, 1, 40, 23)]

    together = lay_out_ticks(many, max_gap_steps=4)
    alone = [lay_out_ticks([one], max_gap_steps=4)[0] for one in many]

    for mine, theirs in zip(together, alone, strict=True):
        for a, b in zip(mine[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(a, b)


def test_covariates_of_a_missing_step_are_absent():
    one = Series(np.array([0.0, 60.0, 180.0]), np.ones(3), np.array([[1.0], [2.0], [3.0]]))

    (ticks,) = lay_out_ticks([one], max_gap_steps=5, step_seconds=60.0)

    np.testing.assert_array_equal(ticks.covariates, [[1.0], [2.0], [NAN], [3.0]])


def test_what_was_known_ahead_survives_cutting_merging_and_a_file(tmp_path):
    known = np.array([[1.0, NAN], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    whole = History(
        {
            "a": Series(np.arange(4.0), np.zeros(4), future=known),
            "b": Series(np.arange(4.0), np.zeros(4), future=-known),
        }
    )

    merged = whole.between(0.0, 1.0).merge(whole.between(1.0, 3.0))
    merged.flag({"a": [(0.0, 1.0)]}).save(tmp_path / "history")
    loaded = History.load(tmp_path / "history")

    assert (merged.future, loaded.future, loaded.covariates) == (2, 2, 0)
    np.testing.assert_array_equal(loaded.streams["a"].future, known)
    np.testing.assert_array_equal(loaded.streams["b"].future, -known)
    assert loaded.streams["a"].flagged.tolist() == [True, False, False, False]


def test_nothing_is_known_ahead_at_a_missing_step():
    one = Series(np.array([0.0, 60.0, 180.0]), np.ones(3), future=np.array([[1.0], [2.0], [3.0]]))

    (ticks,) = lay_out_ticks([one], max_gap_steps=5, step_seconds=60.0)

    np.testing.assert_array_equal(ticks.future, [[1.0], [2.0], [NAN], [3.0]])
