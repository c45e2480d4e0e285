import numpy as np
import pytest
from factories import make_raw

from forecaster.records import Observation
from forecaster.state.reorder import ReorderBuffer


def pushed(buffer, times, streams=None):
    """(offset, time) of what comes out, after each push."""
    out = []
    for offset, time in enumerate(times):
        stream = "a" if streams is None else streams[offset]
        due = list(buffer.push(make_raw(offset, stream), Observation(stream, float(time), 1.0)))
        out.append([(raw.offset, observation.time) for raw, observation in due])
    return out


def test_without_a_hold_everything_comes_out_at_once_in_order_of_arrival():
    buffer = ReorderBuffer(0.0)

    assert pushed(buffer, [5, 3, 9]) == [[(0, 5.0)], [(1, 3.0)], [(2, 9.0)]]
    assert len(buffer) == 0
    assert buffer.oldest_offset() is None


def test_readings_come_out_sorted_once_the_watermark_is_the_hold_past_them():
    buffer = ReorderBuffer(10.0)

    out = pushed(buffer, [100, 95, 103, 110, 113])

    assert out == [[], [], [], [(1, 95.0), (0, 100.0)], [(2, 103.0)]]
    assert buffer.oldest_offset() == 3


def test_equal_times_come_out_in_order_of_arrival():
    buffer = ReorderBuffer(1.0)

    out = pushed(buffer, [5, 5, 5, 6])

    assert out[-1] == [(0, 5.0), (1, 5.0), (2, 5.0)]


def test_a_reading_later_than_the_hold_comes_out_at_once():
    buffer = ReorderBuffer(2.0)

    assert pushed(buffer, [50, 10]) == [[], [(1, 10.0)]]


def test_release_lets_go_of_some_streams_in_order_and_keeps_the_rest():
    buffer = ReorderBuffer(100.0)
    pushed(buffer, [5, 3, 4, 1], "abab")

    due = buffer.release(lambda stream: stream == "a")

    assert [raw.offset for raw, _ in due] == [2, 0]
    assert buffer.oldest_offset() == 1
    assert pushed(buffer, [103.5])[0] == [(3, 1.0), (1, 3.0)]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_and_what_is_late_by_less_than_the_hold_comes_out_sorted(seed):
    rng = np.random.default_rng(seed)
    hold = float(rng.choice([0.5, 3.0, 20.0]))
    times = np.arange(300) + rng.uniform(-hold / 2, hold / 2, 300).round(2)
    buffer = ReorderBuffer(hold)

    out = [entry for entries in pushed(buffer, times) for entry in entries]
    rest = [(raw.offset, observation.time) for raw, observation in buffer.release(lambda _: True)]

    assert sorted(offset for offset, _ in out + rest) == list(range(300))
    assert [time for _, time in out + rest] == sorted(times)
    assert all(time > max(times) - hold for _, time in rest)
