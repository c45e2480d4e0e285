"""Files whose columns are known ahead: what each row is told of those after it, by every way files come in."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from forecaster.backtest.recording import Recording
from forecaster.codecs.json_codec import JsonCodec
from forecaster.errors import ConfigurationError
from forecaster.records import DeadLetter, Observation, RawRecord
from forecaster.transports.file import FileSource
from forecaster.transports.readings import RowEncoder, merge_rows, read_series
from forecaster.transports.tables import Table, TableLayout, open_tables

LAYOUT = TableLayout(known_ahead=("plan",), horizon=2)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def told(paths: list[Path], layout: TableLayout = LAYOUT) -> list[tuple[str, float | str | None, tuple[object, ...]]]:
    return [(row.stream_id, row.value, row.future) for row in merge_rows(open_tables(paths, layout))]


def test_a_row_is_told_the_values_of_the_rows_that_follow_and_the_last_ones_what_there_is(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "timestamp,value,plan", *(f"2026-01-0{day},{day},{10 * day}" for day in range(1, 5))
    )

    assert told([path]) == [
        ("a", 1.0, ((20.0, 30.0),)),
        ("a", 2.0, ((30.0, 40.0),)),
        ("a", 3.0, ((40.0,),)),
        ("a", 4.0, ((),)),
    ]


def test_rows_of_other_streams_and_of_other_files_of_a_stream_are_told_apart(tmp_path: Path) -> None:
    header = "stream_id,timestamp,value,plan"
    january = write(tmp_path / "a.csv", header, "p,2026-01-01,1,10", "q,2026-01-01,5,50", "p,2026-01-02,2,20")
    february = write(tmp_path / "b.csv", header, "p,2026-02-01,3,30", "q,2026-02-02,6,60")

    assert told([february, january]) == [
        ("p", 1.0, ((20.0, 30.0),)),
        ("q", 5.0, ((60.0,),)),
        ("p", 2.0, ((30.0,),)),
        ("p", 3.0, ((),)),
        ("q", 6.0, ((),)),
    ]


def test_rows_that_the_clock_refuses_count_for_nothing_and_missing_ones_do(tmp_path: Path) -> None:
    """A late row, a repeated one and one without a time take no step of the clock; an empty value does."""
    path = write(
        tmp_path / "a.csv",
        "timestamp,value,plan",
        *("2026-01-01,1,10", "2026-01-01,9,99", "2025-01-01,9,98", "soon,9,97"),
        *("2026-01-02,,20", "2026-01-03,@,", "2026-01-04,4,40"),
    )

    rows = told([path])

    assert rows[0] == ("a", 1.0, ((20.0, None),))
    assert rows[4] == ("a", None, ((None, 40.0),))
    assert rows[5] == ("a", "@", ((40.0,),))


def messy_files(directory: Path) -> list[Path]:
    """Three streams in two files with gaps, late and repeated rows, bad values and two columns known ahead."""
    rng = np.random.default_rng(0)
    paths = []
    for name in ("one", "two"):
        lines = ["stream_id,timestamp,value,plan,shift"]
        for second in range(60):
            for stream in ("p", "q", "r")[: 3 if name == "one" else 2]:
                if rng.random() < 0.2:
                    continue
                at = 1_767_225_600 + second + (0 if name == "one" else 1_000) - (5 if rng.random() < 0.05 else 0)
                value = rng.choice(["", "@", "1.5"], p=[0.1, 0.05, 0.85])
                plan = "" if rng.random() < 0.1 else f"{rng.random():.3f}"
                lines.append(f"{stream},{at},{value},{plan},{rng.integers(3)}")
        paths.append(write(directory / f"{name}.csv", *lines))
    return paths


def test_replay_backtest_and_training_are_told_the_same(tmp_path: Path) -> None:
    layout = TableLayout(known_ahead=("plan", "shift"), horizon=4)
    tables = open_tables(messy_files(tmp_path), layout)
    codec = JsonCodec(known_ahead=layout.known_ahead, horizon=layout.horizon)
    encoder, recording = RowEncoder(layout), Recording(tables)

    def decoded(rows) -> dict[str, list[tuple[float, tuple[float, ...]]]]:
        found: dict[str, list[tuple[float, tuple[float, ...]]]] = {}
        for row in rows:
            (answer,) = codec.decode(RawRecord("readings", 0, 0, -1.0, *encoder.encode(row)))
            if isinstance(answer, Observation):
                of_stream = found.setdefault(answer.stream_id, [])
                if not of_stream or answer.time > of_stream[-1][0]:
                    of_stream.append((answer.time, answer.future))
        return found

    replayed = decoded(merge_rows(tables))
    played = decoded(recording.row(offset) for offset in range(len(recording)))
    series = read_series(tables, future=8)

    assert set(replayed) == set(played) == set(series) == {"p", "q", "r"}
    for stream, readings in replayed.items():
        future = np.array([known for _, known in readings])
        assert np.isnan(future).any()
        np.testing.assert_array_equal(np.array([known for _, known in played[stream]]), future)
        np.testing.assert_array_equal(series[stream].future, future)
        assert series[stream].times.tolist() == [time for time, _ in readings]


def test_streams_played_by_progress_are_told_of_their_own_rows(tmp_path: Path) -> None:
    for name, year in (("a", 2010), ("b", 2020)):
        lines = [f"{year}-01-{day:02},{day},{year + day}" for day in range(1, 9)]
        write(tmp_path / f"{name}.csv", "timestamp,value,plan", *lines)

    recording = Recording(open_tables([tmp_path], LAYOUT), alignment="progress")

    for row in map(recording.row, range(len(recording))):
        year, day = (2010 if row.stream_id == "a" else 2020), int(row.value or 0)
        assert row.future == (tuple(float(year + day + lead) for lead in (1, 2) if day + lead <= 8),)


def test_json_lines_say_themselves_what_is_known(tmp_path: Path) -> None:
    plans = [[1, None, 3], 4, [5, "x"], None, [6]]
    lines = [
        json.dumps({"stream_id": "a", "timestamp": f"2026-01-0{k + 1}", "value": k, "plan": plan})
        for k, plan in enumerate(plans)
    ]
    path = write(tmp_path / "a.jsonl", *lines)
    codec = JsonCodec(known_ahead=LAYOUT.known_ahead, horizon=2)

    source = FileSource([path], layout=LAYOUT)
    source.subscribe(_Nobody())
    source.poll(10, 0.0)
    answers = [codec.decode(raw)[0] for raw in source.poll(10, 0.0)]
    series = read_series(open_tables([path], LAYOUT), future=2)["a"]

    assert [type(answer) for answer in answers] == [Observation, DeadLetter, DeadLetter, Observation, Observation]
    accepted = [answer.future for answer in answers if isinstance(answer, Observation)]
    np.testing.assert_array_equal(series.future, accepted)
    np.testing.assert_array_equal(accepted, [[1, math.nan], [math.nan, math.nan], [6, math.nan]])


class _Nobody:
    def assigned(self, partitions) -> None: ...

    def revoked(self, partitions) -> None: ...

    def lost(self, partitions) -> None: ...


def test_column_that_is_known_ahead_is_no_stream(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "timestamp,temp,load,plan", "2026-01-01,1,2,3")

    rows = list(Table(path, TableLayout(columns=("*",), known_ahead=("plan",), horizon=2)).rows())

    assert [row.stream_id for row in rows] == ["a/temp", "a/load"]
    assert [row.known for row in rows] == [(3.0,), (3.0,)]


def test_column_of_text_that_is_to_be_known_ahead_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "timestamp,value,plan", "2026-01-01,1,", "2026-01-02,1,peak")

    with pytest.raises(ConfigurationError, match=r"'plan' .* holds no number in its first 2 rows, but 'peak'"):
        Table(path, LAYOUT)


def test_file_without_the_column_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no column 'plan'"):
        Table(write(tmp_path / "a.csv", "timestamp,value", "2026-01-01,1"), LAYOUT)
