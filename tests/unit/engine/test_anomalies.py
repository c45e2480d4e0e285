"""Anomalies on their way from a reading to a record, and through a restart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from factories import START, make_pipeline, make_raw, make_task, process

from forecaster.anomaly.detector import AnomalyRules
from forecaster.clock import ManualClock
from forecaster.codecs.anomaly_json import Anomaly, decode_anomaly
from forecaster.engine.inspection import Inspector
from forecaster.engine.keeper import StateKeeper
from forecaster.engine.task import PartitionTask, TaskResult
from forecaster.records import OutRecord, RawRecord
from forecaster.state.streams import StreamTable

SPIKES = {"a": {150: 1.0, 415: 1.6}, "b": {151: 1.0}}
"""In nineties. The second one of a stream is larger: the same again would not be news."""


def readings(count: int = 440) -> list[RawRecord]:
    """Two streams in turn, each with spikes, a silence in one of them."""
    rng = np.random.default_rng(1)
    records = []
    for row in range(count):
        for stream in ("a", "b"):
            value: float | None = 20.0 + float(rng.standard_normal()) + 90.0 * SPIKES[stream].get(row, 0.0)
            if stream == "b" and 200 <= row < 220:
                value = None
            records.append(make_raw(len(records), stream, START + row, value))
    return records


def task_of(**overrides: Any) -> PartitionTask:
    return make_task(make_pipeline(horizon=2, ring_steps=32, hidden_shape=(1, 4)), **overrides)


def anomalies_of(records: list[OutRecord]) -> list[Anomaly]:
    return [decode_anomaly(record.value or b"") for record in records if record.topic == "anomalies"]


@pytest.fixture(scope="module")
def result() -> TaskResult:
    return process(task_of(), readings())


def test_a_spike_is_told_once_with_all_that_is_needed_to_look_at_it(result):
    raised = [anomaly for anomaly in anomalies_of(result.records) if anomaly.state == "raised"]

    first = raised[0]
    assert (first.stream_id, first.timestamp) == ("a", "2026-01-01T00:02:30Z")
    assert first.since == first.timestamp
    assert (first.direction, first.severity) == ("up", "critical")
    assert first.value is not None
    assert first.expected is not None
    assert first.upper is not None
    assert first.value > 100.0
    assert 15.0 < first.expected < first.upper < 30.0
    assert (first.source.topic, first.source.partition, first.source.offset) == ("readings", 0, 300)
    assert first.seq == 151
    assert [(a.stream_id, a.seq - 1) for a in raised if a.cause != "gap"] == [("a", 150), ("b", 151), ("a", 415)]
    assert [(a.stream_id, a.seq - 1, a.value) for a in raised if a.cause == "gap"] == [("b", 209, None)]


def test_it_stands_behind_the_forecast_of_its_reading_in_the_same_partition(result):
    for at, record in enumerate(result.records):
        if record.topic == "anomalies":
            anomaly, before = decode_anomaly(record.value or b""), result.records[at - 1]
            assert before.topic == "forecasts"
            assert json.loads(before.value or b"")["source"]["offset"] == anomaly.source.offset
            assert (record.partition, record.key) == (0, anomaly.stream_id.encode())


def test_what_was_raised_is_cleared_and_counted(result):
    told = anomalies_of(result.records)
    raised = [anomaly for anomaly in told if anomaly.state == "raised"]
    cleared = [anomaly for anomaly in told if anomaly.state == "cleared"]

    assert {(a.stream_id, a.since) for a in cleared} <= {(a.stream_id, a.timestamp) for a in raised}
    assert len(cleared) >= 3
    assert dict(result.report.raised) == {"up": 3, "gap": 1}
    assert result.report.cleared == len(cleared)
    assert result.forecasts == len(readings()), "anomalies are no answers"


def test_polls_and_waves_change_nothing(result):
    task, records = task_of(max_wave=1), readings()
    found: list[OutRecord] = []
    for begin in range(0, len(records), 7):
        found += process(task, records[begin : begin + 7]).records

    assert found == result.records


@pytest.mark.parametrize("committed", [180, 302, 303, 310, 425, 472])
def test_a_worker_that_takes_over_tells_what_the_first_would_have_told(result, committed):
    """Before, at and shortly after spikes and in the silence: nothing twice, nothing lost."""

    def keep(table: StreamTable) -> StateKeeper:
        return StateKeeper(table, flush_seconds=0.0, max_pages=100, terms={})

    records = readings()
    first = task_of(keep_state=keep)
    before = process(first, records[:committed]).records
    state = first.export_state(0.0)

    second = task_of(keep_state=keep)
    begin = second.restore_state(state, committed=committed, network=lambda version: pytest.fail(version))
    second.replay(records[begin:committed], ManualClock())
    second.finish_replay(committed)
    after = process(second, records[committed:]).records

    assert before + after == result.records


def test_a_replay_tells_nothing_a_second_time_and_comes_to_the_same(result):
    """Pages from before the spike, readings up to behind it replayed: the anomaly is open again, and silent."""

    def keep(table: StreamTable) -> StateKeeper:
        return StateKeeper(table, flush_seconds=1e9, max_pages=100, terms={})

    records = readings()
    first = task_of(keep_state=keep)
    before = process(first, records[:310]).records
    state = first.export_state(0.0)

    second = task_of(keep_state=keep)
    begin = second.restore_state(state, committed=310, network=lambda version: pytest.fail(version))
    assert begin < 300, "the spike has to be replayed"
    second.replay(records[begin:310], ManualClock())
    second.finish_replay(310)
    after = process(second, records[310:]).records

    assert before + after == result.records


def test_a_stream_shows_the_anomaly_it_is_in():
    pipeline = make_pipeline(horizon=2, ring_steps=32, hidden_shape=(1, 4))
    task, records = make_task(pipeline), readings()
    process(task, records[:301])
    during = Inspector().detail(task, "a")["anomaly"]
    process(task, records[301:400])
    after = Inspector().detail(task, "a")["anomaly"]

    assert during["direction"] == "up"
    assert during["since"] == "2026-01-01T00:02:30Z"
    assert during["score"] > 1
    assert after is None


def test_where_nobody_looks_nothing_is_told():
    pipeline = make_pipeline(horizon=2, ring_steps=32, hidden_shape=(1, 4), detects=False)

    result = process(make_task(pipeline), readings())

    assert anomalies_of(result.records) == []
    assert make_pipeline(anomalies=AnomalyRules()).columns == make_pipeline(detects=False).columns, "state fits both"
