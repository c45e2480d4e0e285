import math

import numpy as np
from factories import START, make_anomaly

from forecaster.codecs.anomaly_json import AnomalyMarks
from forecaster.records import RawRecord
from forecaster.training.blocks import BlockBuilder, HistoryCollector
from forecaster.training.flags import flagged_periods
from forecaster.training.history import History, Series, lay_out_ticks


def make_record(stream, state, time, since=None):
    return RawRecord("anomalies", 0, 0, START, stream.encode(), make_anomaly(stream, state, time, since))


def periods_of(*records):
    builder, collector = BlockBuilder(), HistoryCollector()
    for offset, record in enumerate(records):
        builder.take(offset, AnomalyMarks().decode(record))
    collector.add(builder.block())
    found = flagged_periods(collector.history())
    return {name: [(a - START, b - START) for a, b in periods] for name, periods in found.items()}


def test_periods_go_from_the_raising_reading_to_the_clearing_one():
    found = periods_of(
        make_record("a", "raised", 10),
        make_record("b", "raised", 11),
        make_record("a", "cleared", 15, since=10),
        make_record("a", "raised", 40.5),
    )

    assert found == {"a": [(10.0, 15.0), (40.5, math.inf)], "b": [(11.0, math.inf)]}


def test_an_anomaly_raised_before_the_window_is_known_by_its_end():
    assert periods_of(make_record("a", "cleared", 15, since=-500)) == {"a": [(-500.0, 15.0)]}


def test_what_is_no_anomaly_says_nothing():
    for value in (None, b"", b"{}", b"[1", make_record("a", "raised", 1).value.replace(b"2026", b"when")):
        assert AnomalyMarks().decode(RawRecord("anomalies", 0, 0, START, b"a", value)) == []


def make_history():
    streams = {name: Series(np.arange(6.0), np.arange(6.0), np.arange(12.0).reshape(6, 2)) for name in ("a", "b")}
    return History(streams).flag({"a": [(1.0, 3.0), (5.0, math.inf)]})


def marks_of(history):
    return {name: np.flatnonzero(series.flagged).tolist() for name, series in history.streams.items()}


def test_flags_stay_with_their_readings_whatever_is_cut_merged_and_handed_over(tmp_path):
    history = make_history()
    assert marks_of(history) == {"a": [1, 2, 5], "b": []}

    assert marks_of(history.between(2.0, 5.0)) == {"a": [0, 3], "b": []}
    assert marks_of(history.trim(6)) == {"a": [2], "b": []}
    assert marks_of(history.without({"a": [(0.0, 1.0)]})) == {"a": [1, 2, 5], "b": []}
    later = History({"a": Series(np.arange(4.0, 8.0), np.zeros(4), np.zeros((4, 2)))})
    assert marks_of(history.merge(later)) == {"a": [1, 2, 5], "b": []}
    history.save(tmp_path / "history")
    assert marks_of(History.load(tmp_path / "history")) == marks_of(history)
    again = history.flag({"b": [(0.0, 0.5)]})
    assert marks_of(again) == {"a": [1, 2, 5], "b": [0]}


def test_only_the_tick_of_a_flagged_reading_is_flagged():
    times = np.array([0.0, 1.0, 2.0, 3.0, 6.0, 7.0])
    (ticks,) = lay_out_ticks([Series(times, times, flagged=times >= 6.0)], max_gap_steps=5, step_seconds=1.0)

    assert ticks.times.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert ticks.flagged.tolist() == [False] * 6 + [True] * 2
