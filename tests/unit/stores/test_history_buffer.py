import numpy as np
import pytest

from forecaster.stores.history_buffer import HistoryBuffer


def add(buffer, stream, times, values, covariates=None):
    for k, time in enumerate(times):
        buffer.add([stream], [time], [values[k]], [() if covariates is None else covariates[k]])


def test_readings_come_back_by_stream_with_missing_ones_and_covariates():
    buffer = HistoryBuffer(max_readings_per_stream=10, covariates=2)
    buffer.add(["a", "b"], np.array([1.0, 1.5]), np.array([5.0, np.nan]), [(1.0, 2.0), (3.0, np.nan)])
    buffer.add(["a"], [2.0], [6.0], [(4.0, 5.0)])

    history = buffer.history(100.0)

    assert sorted(history.streams) == ["a", "b"]
    assert history.streams["a"].times.tolist() == [1.0, 2.0]
    assert history.streams["a"].values.tolist() == [5.0, 6.0]
    assert history.streams["a"].covariates.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    np.testing.assert_array_equal(history.streams["b"].covariates, [[3.0, np.nan]])


@pytest.mark.parametrize("count", [2, 3, 4, 6, 7, 50])
def test_each_stream_keeps_its_newest_readings_up_to_the_limit(count):
    buffer = HistoryBuffer(max_readings_per_stream=3, covariates=2)
    add(buffer, "a", range(count), [10.0 * n for n in range(count)], [(float(n), -1.0) for n in range(count)])

    kept = buffer.history(1e9).streams["a"]

    expected = list(range(count))[-3:]
    assert kept.times.tolist() == expected
    assert kept.values.tolist() == [10.0 * n for n in expected]
    assert kept.covariates.tolist() == [[n, -1.0] for n in expected]


def test_the_window_ends_at_the_newest_reading_of_any_stream():
    buffer = HistoryBuffer(max_readings_per_stream=100)
    add(buffer, "a", range(10), [0.0] * 10)
    add(buffer, "b", [15.0], [1.0])

    history = buffer.history(7.0)

    assert history.streams["a"].times.tolist() == [8.0, 9.0]
    assert history.streams["b"].times.tolist() == [15.0]


def test_what_is_excluded_is_no_trainers_to_see():
    buffer = HistoryBuffer(max_readings_per_stream=5, excluded={"a": [(2.0, 2.5)]})
    add(buffer, "a", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])

    np.testing.assert_array_equal(buffer.history(10.0).streams["a"].values, [1.0, np.nan, 3.0])


def test_an_empty_buffer_is_an_empty_history():
    assert HistoryBuffer(max_readings_per_stream=5).history(10.0).readings == 0


def test_what_was_handed_out_does_not_change_with_later_readings():
    buffer = HistoryBuffer(max_readings_per_stream=2)
    add(buffer, "a", [1.0, 2.0], [1.0, 2.0])
    history = buffer.history(10.0)

    add(buffer, "a", [3.0, 4.0, 5.0], [3.0, 4.0, 5.0])

    assert history.streams["a"].times.tolist() == [1.0, 2.0]


def test_streams_that_do_not_fit_are_left_out_whole_by_the_seed(caplog):
    names = [f"s{k}" for k in range(40)]

    def kept(seed, order):
        buffer = HistoryBuffer(max_readings_per_stream=100, max_bytes=10 * (512 + 128 * 16), seed=seed)
        for time in range(100):
            buffer.add(order, np.full(40, float(time)), np.zeros(40), [()] * 40)
        return {name: len(series.times) for name, series in buffer.history(1e9).streams.items()}

    found = kept(0, names)

    assert set(found.values()) == {100}
    assert len(found) == 10
    assert kept(0, names[::-1]) == found
    assert kept(1, names) != found
    assert caplog.messages.count("not all streams fit into a training's memory") == 3


def test_a_stream_that_goes_round_is_counted_once():
    buffer = HistoryBuffer(max_readings_per_stream=100, max_bytes=2 * (512 + 256 * 16))
    for time in range(5_000):
        buffer.add(["a", "b"], [float(time)] * 2, [0.0, 1.0], [(), ()])

    assert {name: len(series.times) for name, series in buffer.history(1e9).streams.items()} == {"a": 100, "b": 100}


def test_readings_of_raised_anomalies_come_back_flagged():
    buffer = HistoryBuffer(max_readings_per_stream=10)
    for time in range(8):
        buffer.add(["a", "b"], [float(time)] * 2, [0.0, 0.0], [(), ()])
        if time == 2:
            buffer.flag("a", 2.0, None)
        if time == 4:
            buffer.flag("a", 2.0, 4.0)
        if time == 6:
            buffer.flag("a", 6.0, None)

    flagged = {name: np.flatnonzero(s.flagged).tolist() for name, s in buffer.history(100.0).streams.items()}

    assert flagged == {"a": [2, 3, 6, 7], "b": []}


def test_anomalies_before_all_that_is_remembered_are_forgotten():
    buffer = HistoryBuffer(max_readings_per_stream=3)
    for time in range(50):
        buffer.add(["a"], [float(time)], [0.0], [()])
        buffer.flag("a", time, None)
        buffer.flag("a", time, time + 0.5)

    buffer.history(1e9)

    assert len(buffer._anomalies["a"]) == 3


@pytest.mark.parametrize("covariates", [0, 1])
def test_what_was_known_ahead_comes_back_with_its_reading(covariates):
    buffer = HistoryBuffer(max_readings_per_stream=3, covariates=covariates, future=2)
    for k in range(7):
        buffer.add(
            ["a", "b"], [float(k)] * 2, [1.0, 2.0], [(9.0,) * covariates] * 2, [(1.0 * k, 2.0 * k), (-1.0, np.nan)]
        )

    history = buffer.history(100.0)

    assert history.streams["a"].future.tolist() == [[1.0 * k, 2.0 * k] for k in (4, 5, 6)]
    np.testing.assert_array_equal(history.streams["b"].future, [[-1.0, np.nan]] * 3)
    assert history.covariates == covariates
