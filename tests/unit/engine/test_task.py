import numpy as np
import pytest
from factories import START, forecasts_of, headers_of, make_pipeline, make_raw, make_recurrent, make_task, process

from forecaster.clock import ManualClock
from forecaster.codecs.anomaly_json import decode_anomaly
from forecaster.codecs.forecast_json import decode_forecast
from forecaster.codecs.json_codec import JsonCodec
from forecaster.ports import FeedbackRecord
from forecaster.records import Feedback, RawRecord, Reason
from forecaster.series.groups import GroupRule, GroupRules
from forecaster.stores.history_buffer import HistoryBuffer


def tombstone(offset, record_id):
    return RawRecord("readings", 0, offset, -1.0, record_id.encode(), None)


def answered(result):
    """(stream, offset, seq, status) of each forecast."""
    decoded = [decode_forecast(value) for value in forecasts_of(result.records)]
    return [(forecast.stream_id, forecast.source.offset, forecast.seq, forecast.status) for forecast in decoded]


def refusals(result):
    """(offset, reason) of each dead letter."""
    headers = [headers_of(record) for record in result.records if record.topic == "readings.dlq"]
    return [(int(header["source.offset"]), header["reason"]) for header in headers]


def test_answers_come_in_the_order_of_their_readings_forecasts_and_dead_letters_alike():
    task = make_task()
    records = [
        make_raw(0, "a"),
        make_raw(1, "b"),
        make_raw(2, "a"),
        make_raw(3, "a", START + 2),
        RawRecord("readings", 0, 4, -1.0, b"a", b"no json"),
        make_raw(5, "b"),
        make_raw(6, "a"),
    ]

    result = process(task, records)

    places = [
        int(headers_of(record)["source.offset"])
        if record.topic == "readings.dlq"
        else decode_forecast(record.value).source.offset
        for record in result.records
    ]
    assert places == list(range(7))
    assert refusals(result) == [(3, "duplicate"), (4, "not_json")]
    assert (result.forecasts, result.dead_letters) == (5, 2)
    assert [record.partition for record in result.records] == [0] * 7
    assert task.committable() == 7


def test_a_poll_without_records_changes_nothing():
    task = make_task()

    result = process(task, [])

    assert result.records == []
    assert task.committable() is None
    assert task.watermark == -np.inf


def test_several_targets_of_one_record_are_streams_of_their_own_and_answered_each():
    task = make_task(codec=JsonCodec(fields=("temp", "vibration")))
    body = b'{"stream_id":"m","timestamp":1767225600,"temp":4.5,"vibration":"high"}'
    good = b'{"stream_id":"m","timestamp":1767225601,"temp":4.5,"vibration":1}'

    result = process(
        task, [RawRecord("readings", 0, 0, -1.0, b"m", body), RawRecord("readings", 0, 1, -1.0, b"m", good)]
    )

    assert answered(result) == [
        ("m/temp", 0, 1, "warming"),
        ("m/temp", 1, 2, "warming"),
        ("m/vibration", 1, 1, "warming"),
    ]
    assert refusals(result) == [(0, "wrong_type")]
    assert [decode_forecast(value).source.field for value in forecasts_of(result.records)] == [
        "temp",
        "temp",
        "vibration",
    ]


def test_duplicates_are_dropped_where_that_is_the_rule_and_conflicts_are_not():
    task = make_task(drop_duplicates=True)

    result = process(task, [make_raw(0), make_raw(1, time=START), make_raw(2, time=START, value=2.0)])

    assert len(answered(result)) == 1
    assert refusals(result) == [(2, "conflict")]
    assert result.report.dropped == 1
    assert result.report.rejected == {Reason.DUPLICATE: 1, Reason.CONFLICT: 1}


def test_a_tombstone_forgets_the_stream_and_those_below_it_once_they_are_answered():
    task = make_task()
    streams = ["a", "a/temp", "ab", "b"]
    before = [make_raw(offset, stream) for offset, stream in enumerate(streams * 2)]

    result = process(task, [*before, tombstone(8, "a"), make_raw(9, "a", START)])

    assert len(answered(result)) == 9
    assert answered(result)[-1] == ("a", 9, 1, "warming")
    assert sorted(task.table) == ["a", "ab", "b"]
    assert result.report.evicted == 2
    assert result.report.new_streams == 5
    assert task.committable() == 10


def test_a_tombstone_of_an_unknown_stream_is_passed_over():
    result = process(make_task(), [tombstone(0, "nobody")])

    assert result.records == []
    assert result.report.evicted == 0


def test_readings_held_back_are_answered_before_their_stream_is_forgotten():
    task = make_task(max_lateness_seconds=100.0)

    result = process(task, [make_raw(0, "a"), make_raw(1, "b"), make_raw(2, "a"), tombstone(3, "a")])

    assert [offset for _, offset, _, _ in answered(result)] == [0, 2]
    assert "a" not in task.table
    assert task.held_back == 1
    assert task.committable() == 1


def test_late_readings_within_the_hold_are_sorted_and_later_ones_refused():
    task = make_task(max_lateness_seconds=5.0)
    times = [0, 3, 1, 2, 9, 0.5, 20]

    result = process(task, [make_raw(offset, time=START + time) for offset, time in enumerate(times)])

    assert [offset for _, offset, _, _ in answered(result)] == [0, 2, 3, 1, 4]
    assert refusals(result) == [(5, "late")]
    assert task.held_back == 1
    assert task.committable() == 6


def test_streams_beyond_the_limit_are_refused_and_the_known_ones_served():
    task = make_task(max_streams=2)

    result = process(task, [make_raw(offset, stream) for offset, stream in enumerate("abcab")])

    assert [offset for _, offset, _, _ in answered(result)] == [0, 1, 3, 4]
    assert refusals(result) == [(2, "stream_limit")]
    assert "streams.max_streams" in headers_of(result.records[2])["detail"]
    assert result.report.rejected == {Reason.STREAM_LIMIT: 1}


@pytest.mark.parametrize("polls", [[], [3], [1, 2, 3, 4, 5, 6, 7]])
def test_idle_streams_are_forgotten_at_boundaries_only(polls):
    task = make_task(boundary_records=4, idle_ttl_seconds=60.0)
    records = [
        make_raw(0, "idle", START),
        make_raw(1, "busy", START),
        make_raw(2, "busy", START + 100),
        make_raw(3, "idle", START + 101),
        make_raw(4, "busy", START + 200),
        make_raw(7, "busy", START + 300),
        make_raw(9, "busy", START + 310),
    ]

    known = []
    for raw in records:
        process(task, [raw])
        known.append(sorted(task.table))

    assert known[3:] == [["busy", "idle"], ["busy", "idle"], ["busy", "idle"], ["busy"]]


def test_an_idle_stream_that_comes_back_is_a_new_one():
    task = make_task(boundary_records=2, idle_ttl_seconds=10.0)

    result = process(task, [make_raw(0, "a", START), make_raw(1, "b", START + 99), make_raw(2, "a", START + 100)])

    assert [entry[2] for entry in answered(result)] == [1, 1, 1]
    assert result.report.evicted == 1


def test_a_network_begins_to_serve_at_the_first_boundary_after_it_was_scheduled():
    pipeline = make_pipeline()
    task = make_task(pipeline, boundary_records=20)
    process(task, [make_raw(offset) for offset in range(15)])
    task.schedule(make_recurrent(pipeline))

    result = process(task, [make_raw(offset) for offset in range(15, 25)])

    models = [decode_forecast(value).model for value in forecasts_of(result.records)]
    assert set(models[:5]) == {None}
    assert set(models[5:]) - {None} == {"gru-test-1"}, "None where the mixture gives it no weight"
    assert task.switched_at == 20
    assert len(result.waves) == 10


class Said:
    """Feedback that a test lets come."""

    def __init__(self):
        self.records = []

    def say(self, offset, stream, label, *, partition=0):
        said = Feedback(stream, None if label is None else (label, START), (START, START))
        self.records.append(FeedbackRecord(partition, offset, said))

    def take(self, begin, watermark):
        return [record for record in self.records if record.offset >= begin.get(record.partition, 0)]

    def close(self):
        pass


def test_labels_take_effect_once_at_the_next_boundary_and_on_known_streams_alone():
    said = Said()
    task = make_task(boundary_records=10, feedback=said)
    process(task, [make_raw(offset, "ab"[offset % 2]) for offset in range(15)])

    def tolerances():
        return {stream: float(task.table.arrays["tolerance"][task.table.find(stream)]) for stream in task.table}

    said.say(7, "a", False, partition=2)
    said.say(9, "stranger", False, partition=2)
    said.say(0, "b", True)
    said.say(1, "b", None)
    before = process(task, [make_raw(offset, "a") for offset in range(15, 20)])
    assert (tolerances(), before.report.labels) == ({"a": 1.0, "b": 1.0}, {})

    at_it = process(task, [make_raw(offset, "a") for offset in range(20, 25)])
    assert at_it.report.labels == {"false": 1, "true": 1}
    assert tolerances() == {"a": pytest.approx(1.25), "b": pytest.approx(0.8)}

    after = process(task, [make_raw(offset, "stranger") for offset in range(25, 45)])
    assert after.report.labels == {}
    assert tolerances() == {"a": pytest.approx(1.25), "b": pytest.approx(0.8), "stranger": 1.0}


def test_a_wave_goes_on_over_boundaries_at_which_nothing_is_due():
    """A boundary every 10 records, 45 streams: only where the network takes over does a wave have to end."""
    pipeline = make_pipeline()
    task = make_task(pipeline, boundary_records=10, max_wave=1_000)
    process(task, [make_raw(offset, f"s{offset}") for offset in range(45)])
    task.schedule(make_recurrent(pipeline))

    switching = process(task, [make_raw(offset, f"s{offset % 45}") for offset in range(45, 80)])
    going_on = process(task, [make_raw(offset, f"s{offset % 45}") for offset in range(80, 115)])

    assert task.switched_at == 50
    assert [streams for streams, _ in switching.waves] == [5, 30]
    assert [streams for streams, _ in going_on.waves] == [35]


def test_of_two_networks_scheduled_the_later_one_serves():
    pipeline = make_pipeline()
    task = make_task(pipeline, boundary_records=20)
    task.schedule(make_recurrent(pipeline))
    task.schedule(make_recurrent(pipeline, seed=2, model=2))

    process(task, [make_raw(offset) for offset in range(45)])

    assert task.networks[""].version == "gru-test-2"
    assert task.switched_at == 20


def test_a_boundary_that_no_record_stands_at_is_passed_by_the_next_one():
    """Offsets have holes: transaction markers, compaction."""
    pipeline = make_pipeline()
    task = make_task(pipeline, boundary_records=10)
    task.schedule(make_recurrent(pipeline))

    process(task, [make_raw(8), make_raw(9), make_raw(33)])

    assert task.switched_at == 33


def test_the_watermark_follows_accepted_readings():
    task = make_task()

    process(task, [make_raw(0, time=START + 50), make_raw(1, time=START + 20), make_raw(2, "b", START + 10)])

    assert task.watermark == START + 50


def test_accepted_readings_and_no_others_are_left_in_the_history():
    history = HistoryBuffer(max_readings_per_stream=10)
    task = make_task(history=history)

    process(task, [make_raw(0, value=1.5), make_raw(1, value=None), make_raw(2, time=START), make_raw(3, "b", value=4)])

    kept = history.history(1e6).streams
    assert kept["a"].times.tolist() == [START, START + 1]
    np.testing.assert_array_equal(kept["a"].values, [1.5, np.nan])
    assert kept["b"].values.tolist() == [4.0]


def test_readings_in_an_anomaly_are_flagged_in_the_history_from_raised_to_cleared():
    history = HistoryBuffer(max_readings_per_stream=2_000)
    task = make_task(history=history)
    values = [float(k % 7) for k in range(700)]
    values[500:506] = [400.0, 420.0, 390.0, 410.0, 430.0, 380.0]

    found = process(task, [make_raw(k, value=value) for k, value in enumerate(values)])

    told = [decode_anomaly(record.value) for record in found.records if record.topic == "anomalies"]
    assert [anomaly.state for anomaly in told[:2]] == ["raised", "cleared"]
    places = {anomaly.state: anomaly.seq - 1 for anomaly in told[:2]}
    flagged = history.history(1e6).streams["a"].flagged
    assert 500 <= places["raised"] < 506
    assert np.flatnonzero(flagged)[: places["cleared"] - places["raised"]].tolist() == list(
        range(places["raised"], places["cleared"])
    )
    assert not flagged[places["cleared"]]


def test_time_is_told_by_stage():
    class TickingClock(ManualClock):
        def monotonic(self):
            self.advance(1.0)
            return super().monotonic()

    clock = TickingClock()
    began = clock.monotonic()
    result = make_task().process([make_raw(0), make_raw(1)], clock)
    whole = clock.monotonic() - began - 2.0  # a look at the clock takes a second, and two of them are not its own

    assert result.seconds["step"] == result.seconds["publish"] == 2.0
    assert result.seconds["decode"] == whole - 4.0 > 0
    assert [streams for streams, _ in result.waves] == [1, 1]


def test_membership_is_remembered_only_where_there_are_groups():
    grouped, plain = make_task(groups=GroupRules([GroupRule("odd", ("[bd]",))])), make_task()
    records = [make_raw(offset, stream) for offset, stream in enumerate("abcd")]

    process(grouped, records)
    process(plain, records)

    assert [grouped.group(grouped.table.find(stream)) for stream in "abcd"] == ["", "odd", "", "odd"]
    assert {column.name for column in grouped.table.columns} - {column.name for column in plain.table.columns} == {
        "group"
    }
    assert plain.table.row_bytes + 4 == grouped.table.row_bytes
