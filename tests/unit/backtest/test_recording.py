"""The order in which files are played."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from backtests import HOUR, START, write_table

from forecaster.backtest.recording import Recording
from forecaster.errors import ConfigurationError
from forecaster.transports.tables import TableLayout, open_tables

DAY = 86_400.0


def played(recording: Recording) -> list[tuple[str, float]]:
    return [(row.stream_id, row.time) for row in map(recording.row, range(len(recording)))]


def test_streams_that_run_side_by_side_are_played_by_event_time_whatever_the_order_of_the_file(tmp_path):
    table = write_table(tmp_path / "t.csv", {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]})

    recording = Recording(open_tables([table]))

    assert recording.alignment == "time"
    assert [name for name, _ in played(recording)] == ["a", "b", "a", "b", "a", "b"]
    assert [time for _, time in played(recording)] == [START + HOUR * (k // 2) for k in range(6)]
    assert recording.shift.tolist() == [0.0, 0.0]


def test_unrelated_streams_are_played_by_progress_each_in_its_own_order(tmp_path):
    starts = {"old": START - 900 * DAY, "new": START, "older": START - 2_000 * DAY}
    streams = {"old": [1.0] * 40, "new": [2.0] * 80, "older": [3.0] * 20}
    recording = Recording(open_tables([write_table(tmp_path / "t.csv", streams, starts=starts)]))

    assert recording.alignment == "progress"
    first_half = played(recording)[: recording.rows_within(0.5)]
    counts = {name: sum(stream == name for stream, _ in first_half) for name in streams}
    assert counts == {"old": 20, "new": 40, "older": 10}
    for name in streams:
        times = [time for stream, time in played(recording) if stream == name]
        assert np.diff(times).tolist() == [HOUR] * (len(times) - 1)


@pytest.mark.parametrize(("rows", "period"), [(12, 1.0), (24 * 5, DAY), (24 * 30, 7 * DAY)])
def test_unrelated_streams_are_moved_by_whole_calendar_cycles_and_begin_together(tmp_path, rows, period):
    starts = {"a": START - 500 * DAY - 7 * HOUR, "b": START - 250 * DAY, "c": START}
    table = write_table(tmp_path / "t.csv", {name: [1.0] * rows for name in starts}, starts=starts)

    recording = Recording(open_tables([table]), alignment="progress")

    assert (recording.shift % period).tolist() == [0.0, 0.0, 0.0]
    begins = np.array(list(starts.values())) + recording.shift
    assert begins.max() == START
    assert (START - begins < period).all()


def test_the_share_of_the_rows_is_exact_in_spite_of_rounding(tmp_path):
    table = write_table(tmp_path / "t.csv", {"a": [1.0] * 10, "b": [1.0] * 10})

    recording = Recording(open_tables([table]))

    assert [recording.rows_within(share) for share in (0.3, 0.7, 0.29, 0.0)] == [6, 14, 5, 0]
    assert recording.rows_of_steps(3) == 6
    assert recording.step_seconds == HOUR


def test_rows_that_cannot_be_read_stay_in_their_place_for_the_codec_to_refuse(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "timestamp,value\n2026-01-01 00:00:00,1\nyesterday,2\n2026-01-01 01:00:00,many\n2026-01-01 02:00:00,\n"
    )

    recording = Recording(open_tables([path]))

    rows = [recording.row(k) for k in range(len(recording))]
    assert [row.value for row in rows] == [1.0, 2.0, "many", None]
    assert math.isnan(rows[1].time)
    assert rows[1].time_text == "yesterday"


def test_json_lines_are_played_as_they_stand(tmp_path):
    path = tmp_path / "t.jsonl"
    lines = [json.dumps({"stream_id": name, "timestamp": at, "value": 1}) for name in "ab" for at in (1e9, 1e9 + 60)]
    path.write_text("\n".join(lines))

    recording = Recording(open_tables([path]))

    assert [recording.row(k).line.decode() for k in range(4)] == [lines[0], lines[2], lines[1], lines[3]]
    with pytest.raises(ConfigurationError, match="as they stand"):
        Recording(open_tables([path]), alignment="progress")


def test_files_without_a_time_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("timestamp,value\nsoon,1\nlater,2\n")

    with pytest.raises(ConfigurationError, match="no row with a readable time"):
        Recording(open_tables([path]))


def test_covariates_stay_with_their_rows_whatever_the_order(tmp_path):
    for name, day in (("a", 1), ("b", 2)):
        lines = [f"2026-01-0{day}T{hour:02}:00,{hour},{name}-no" if hour == 5 else
                 f"2026-01-0{day}T{hour:02}:00,{hour},{100 * day + hour}" for hour in range(8)]  # fmt: skip
        (tmp_path / f"{name}.csv").write_text("\n".join(["timestamp,value,rain", *lines]))
    tables = open_tables([tmp_path], TableLayout(covariates=("rain",)))

    for order in ("time", "progress"):
        recording = Recording(tables, alignment=order, covariates=1)

        rows = [recording.row(offset) for offset in range(len(recording))]
        for row in rows:
            day = 1 if row.stream_id == "a" else 2
            expected = f"{row.stream_id}-no" if row.value == 5 else 100 * day + row.value
            assert row.covariates == (expected,)
