import statistics

import numpy as np
import pytest

from forecaster.series.rows import Rows
from forecaster.state.event_clock import Arrival, EventClock

ONE = np.array([1])


def fed(clock, times, values=None):
    """Columns of a clock that stream 1 has shown these times; and the steps and elapsed of each."""
    c = Rows(clock.columns, 3)
    passed = []
    for k, time in enumerate(times):
        value = 1.0 if values is None else values[k]
        steps, elapsed = clock.advance(c, ONE, np.array([time]), np.array([value]))
        passed.append((int(steps[0]), float(elapsed[0])))
    return c, passed


@pytest.mark.parametrize(
    ("time", "value", "expected"),
    [
        (100.5, 7.0, Arrival.ON_TIME),
        (100.0, 7.0, Arrival.DUPLICATE),
        (100.0, 7.5, Arrival.CONFLICT),
        (100.0, np.nan, Arrival.CONFLICT),
        (99.9, 7.0, Arrival.LATE),
        (99.9, np.nan, Arrival.LATE),
    ],
)
def test_a_reading_is_judged_by_its_stream_s_clock(time, value, expected):
    clock = EventClock()
    c, _ = fed(clock, [99.0, 100.0], [5.0, 7.0])

    arrival = clock.classify(c, ONE, np.array([time]), np.array([value]))

    assert arrival.tolist() == [expected]


@pytest.mark.parametrize(("value", "expected"), [(np.nan, Arrival.DUPLICATE), (0.0, Arrival.CONFLICT)])
def test_a_missing_reading_repeated_is_a_duplicate_and_a_value_in_its_place_a_conflict(value, expected):
    clock = EventClock()
    c, _ = fed(clock, [100.0], [np.nan])

    assert clock.classify(c, ONE, np.array([100.0]), np.array([value])).tolist() == [expected]


def test_the_first_reading_of_a_stream_is_on_time_and_streams_have_clocks_of_their_own():
    clock = EventClock()
    c, _ = fed(clock, [100.0])

    arrivals = clock.classify(c, np.array([2, 1]), np.array([0.0, 0.0]), np.ones(2))

    assert arrivals.tolist() == [Arrival.ON_TIME, Arrival.LATE]


@pytest.mark.parametrize("seed", range(5))
def test_the_step_is_the_lower_median_of_the_last_nine_intervals(seed):
    rng = np.random.default_rng(seed)
    intervals = np.round(rng.exponential(10.0, 30) + 0.01, 3)
    times = 1.7e9 + np.cumsum(intervals)
    clock = EventClock()

    for count in range(2, 31):
        c, _ = fed(clock, times[:count])

        expected = statistics.median_low(np.diff(times[:count])[-9:].tolist())
        assert c["step"][1] == pytest.approx(expected, abs=1e-6)


def test_the_learned_step_is_a_clean_number():
    """It is published: 0.1 seconds are not 0.09999990463256836 seconds, as the difference of two doubles says."""
    clock = EventClock()

    c, passed = fed(clock, [1_767_225_600.0, 1_767_225_600.1, 1_767_225_600.2])

    assert c["step"][1] == 0.1
    assert passed[2] == (1, 1.0)


def test_the_step_is_unknown_after_one_reading_and_the_second_is_one_step_on():
    clock = EventClock()

    alone, _ = fed(clock, [50.0])
    _, passed = fed(clock, [50.0, 950.0])

    assert alone["step"][1] == 0.0
    assert passed == [(1, 1.0), (1, 1.0)]


def test_a_declared_step_holds_from_the_first_reading_on():
    clock = EventClock(step_seconds=60.0)

    c, passed = fed(clock, [0.0, 60.0, 240.0, 270.0])

    assert c["step"][1] == 60.0
    assert passed == [(1, 1.0), (1, 1.0), (3, 1.0), (1, 0.5)]


@pytest.mark.parametrize(
    ("interval", "steps", "own"),
    [
        (10.0, 1, 1.0),
        (14.0, 1, 1.4),
        (16.0, 2, 0.6),
        (20.0, 2, 1.0),
        (33.0, 3, 1.3),
        (0.01, 1, 0.001),
        (1e4, 1000, 1.0),
    ],
)
def test_time_that_passed_is_whole_steps_skipped_and_the_reading_s_own_rest(interval, steps, own):
    clock = EventClock()
    c, _ = fed(clock, [0.0, 10.0, 20.0, 30.0])

    found, elapsed = clock.advance(c, ONE, np.array([30.0 + interval]), np.ones(1))

    assert found.tolist() == [steps]
    assert elapsed[0] == pytest.approx(own)


def test_single_gaps_do_not_move_the_step_and_a_lasting_change_of_rate_does():
    clock = EventClock()
    regular = [10.0 * k for k in range(10)]

    gap, _ = fed(clock, [*regular, 1_000.0])
    changed, _ = fed(clock, [*regular, *(90.0 + 60.0 * k for k in range(1, 6))])

    assert gap["step"][1] == 10.0
    assert changed["step"][1] == 60.0


def test_a_jump_over_centuries_is_a_bounded_number_of_steps():
    clock = EventClock()

    _, passed = fed(clock, [0.0, 1e-6, 7.2e9])

    assert passed[2][0] == 2**31


def test_equal_values_in_a_row_are_counted_and_a_missing_one_ends_the_row():
    clock = EventClock()

    four, _ = fed(clock, range(4), [3.0, 3.0, 3.0, 3.0])
    changed, _ = fed(clock, range(4), [3.0, 3.0, 3.0, 4.0])
    missing, _ = fed(clock, range(4), [3.0, np.nan, np.nan, 3.0])

    assert [c["repeats"][1] for c in (four, changed, missing)] == [3, 0, 0]
    assert four["readings"].tolist() == [0, 4, 0]
