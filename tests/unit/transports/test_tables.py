import gzip
import math
import random
from pathlib import Path

import pytest

from forecaster.errors import ConfigurationError, TransportError
from forecaster.transports.tables import COMMON_FORMS, Row, Table, TableLayout, open_tables, table_name

NEW_YEAR = 1_767_225_600.0


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path, layout: TableLayout = COMMON_FORMS) -> list[tuple[str, float, float | str | None]]:
    """(stream, seconds after new year, value) of each row."""
    return [(row.stream_id, row.time - NEW_YEAR, row.value) for row in Table(path, layout).rows()]


def test_time_and_value_are_a_stream_named_by_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "pump.csv", "timestamp,value", "2026-01-01 00:00:00,1.5", "2026-01-01 00:01:00,2")

    assert read(path) == [("pump", 0.0, 1.5), ("pump", 60.0, 2.0)]


def test_id_column_names_the_stream(tmp_path: Path) -> None:
    path = write(tmp_path / "all.csv", "stream_id,timestamp,value", "a,2026-01-01,1", "b,2026-01-01,2", ",2026-01-01,3")

    assert read(path) == [("a", 0.0, 1.0), ("b", 0.0, 2.0), ("all", 0.0, 3.0)]


def test_wide_table_gives_each_named_column_as_a_stream(tmp_path: Path) -> None:
    path = write(tmp_path / "ett.csv", "date,HUFL,OT,note", "2026-01-01,1,2,x", "2026-01-02,3,4,y")

    rows = read(path, TableLayout(columns=("ot", "HUFL")))

    assert rows == [("ett/OT", 0, 2), ("ett/HUFL", 0, 1), ("ett/OT", 86_400, 4), ("ett/HUFL", 86_400, 3)]


def test_star_takes_every_column_that_holds_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "air.csv", "No,year,month,day,pm2.5,wind", "1,2026,1,1,NA,NW", "2,2026,1,2,7,SE")

    rows = read(path, TableLayout(columns=("*",)))

    assert rows == [("air/No", 0, 1), ("air/pm2.5", 0, None), ("air/No", 86_400, 2), ("air/pm2.5", 86_400, 7)]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("TimeStamp,Value,Label", '"2026-01-01T00:00:00Z",5.0,0'),
        ("Id,Time,Value", "pump,1/1/2026 12:00:00 AM,5"),
        ("Time,HeartRate,Intensity,Steps", "2026-01-01 00:00:00,5,0,0"),
        ("Date,Time,level", "2026-01-01,00:00:00,5"),
        ("level;date", "5;2026-01-01"),
        ("ts\tspeed", "1767225600000\t5"),
        ("\ufefftimestamp,value", "2026-01-01,5"),
        ("timestamp , value", "2026-01-01 , 5 "),
    ],
)
def test_common_headers_are_understood_without_help(tmp_path: Path, header: str, row: str) -> None:
    assert read(write(tmp_path / "pump.csv", header, row)) == [("pump", 0.0, 5.0)]


def test_row_numbers_without_a_name_in_the_header_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "room.txt", '"date","CO2"', '"140","2026-01-01 00:00:00",749.2')

    assert read(path) == [("room", 0.0, 749.2)]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "who,when,date,a,value", "p,2026-01-01,2020-01-01,7,8")

    rows = read(path, TableLayout(id_column="WHO", time_column="when", value_column="a"))

    assert rows == [("p", 0.0, 7.0)]


def test_times_in_two_named_columns_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "day,clock,a", "2026-01-01,00:00:30,7")

    assert read(path, TableLayout(time_column="day,clock")) == [("x", 30.0, 7.0)]


def test_empty_cells_and_marks_of_absence_are_missing_readings(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "timestamp,value", *(f"2026-01-01,{cell}" for cell in ("", "NA", "NaN", "-200")))

    assert [value for _, _, value in read(path)] == [None, None, None, -200]
    assert [value for _, _, value in read(path, TableLayout(missing=("", "NA", "NaN", "-200")))] == [None] * 4


def test_short_row_is_a_missing_reading(tmp_path: Path) -> None:
    assert read(write(tmp_path / "x.csv", "timestamp,value", "2026-01-01")) == [("x", 0.0, None)]


def test_cells_that_cannot_be_read_get_through_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "timestamp,value", "2026-01-01,@", "soon,1", "2026-01-01,1e999")

    rows = list(Table(path).rows())

    assert [row.value for row in rows] == ["@", 1.0, "1e999"]
    assert math.isnan(rows[1].time)
    assert rows[1].time_text == "soon"


def test_duplicates_and_steps_back_in_time_keep_their_place(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "timestamp,value", "2026-01-02,1", "2026-01-02,2", "2026-01-01,3")

    assert [value for _, _, value in read(path)] == [1, 2, 3]


def test_table_without_header_may_hold_times_and_values(tmp_path: Path) -> None:
    assert read(write(tmp_path / "x.csv", "2026-01-01,1", "2026-01-02,2")) == [("x", 0, 1), ("x", 86_400, 2)]


def test_one_number_a_line_is_spaced_by_the_step_given(tmp_path: Path) -> None:
    path = write(tmp_path / "hr.txt", "60.5", "61")

    assert read(path, TableLayout(step_seconds=0.5, start_seconds=NEW_YEAR)) == [("hr", 0, 60.5), ("hr", 0.5, 61)]


def test_beat_intervals_become_beats_a_minute_at_each_beat(tmp_path: Path) -> None:
    path = write(tmp_path / "rr.txt", "500", "1000", "@", "750")

    rows = read(path, TableLayout(beat_intervals="ms", start_seconds=NEW_YEAR))

    assert rows == [("rr", 0.5, 120), ("rr", 1.5, 60), ("rr", 1.5, "@"), ("rr", 2.25, 80)]


def test_wristband_export_begins_with_start_and_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "EDA.csv", "1767225600.000000", "4.000000", "0.1", "0.2")

    assert read(path) == [("EDA", 0.0, 0.1), ("EDA", 0.25, 0.2)]


def test_wristband_beats_begin_with_start_and_name(tmp_path: Path) -> None:
    path = write(tmp_path / "IBI.csv", "1767225600.000000, IBI", "604.0,0.5", "604.9,0.75")

    assert read(path) == [("IBI", 604.0, 120.0), ("IBI", pytest.approx(604.9), 80.0)]


def test_gzip_is_read_like_the_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv.gz"
    path.write_bytes(gzip.compress(b"timestamp,value\n2026-01-01,1\n"))

    assert read(path) == [("pump", 0.0, 1.0)]


def test_json_lines_get_through_byte_for_byte(tmp_path: Path) -> None:
    lines = [
        b'{"stream_id":"a","timestamp":1767225600,"value":1}',
        b'{"stream_id":7,"timestamp":"2026-01-01","value":null}',
        b'{"timestamp":"2026-01-01","value":"x"}',
        b"\xff not json",
    ]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n\n")

    rows = list(Table(path).rows())

    assert [row.line for row in rows] == lines
    assert [row.stream_id for row in rows] == ["a", "7", "in", "in"]
    assert [row.value for row in rows] == [1.0, None, "x", "absent"]
    assert [row.time for row in rows[:3]] == [NEW_YEAR] * 3


# -- what cannot be understood


@pytest.mark.parametrize(
    ("lines", "layout", "message"),
    [
        (["a,b", "1,2"], COMMON_FORMS, r"no time column; its columns are a, b"),
        (["\x1b[31ma\x07," + "b" * 70, "1,2"], COMMON_FORMS, rf"columns are \\x1b\[31ma\\x07, {'b' * 60}…\."),
        ([",".join(map(str, range(100, 140))), "1" + 39 * ",1"], COMMON_FORMS, r"100, .*, 129, …\."),
        (["timestamp,a,b", "2026-01-01,1,2"], COMMON_FORMS, r"no value column; .* a, b"),
        (
            ["timestamp,a", "2026-01-01,1"],
            TableLayout(value_column="b"),
            r"no column 'b'; its columns are timestamp, a",
        ),
        (["timestamp,a", "2026-01-01,1"], TableLayout(columns=("a", "c")), r"no column 'c'"),
        (["timestamp,value"], COMMON_FORMS, r"header \(timestamp, value\) and no row"),
        ([""], COMMON_FORMS, r"is empty"),
        (["date,value", "1/2/2026,1"], COMMON_FORMS, r"dates like '?1/2/2026"),
        (["60.5", "61"], COMMON_FORMS, r"one number a line and no times"),
    ],
)
def test_table_that_cannot_be_understood_is_refused_when_opened(
    tmp_path: Path, lines: list[str], layout: TableLayout, message: str
) -> None:
    path = write(tmp_path / "x.csv", *lines)

    with pytest.raises(ConfigurationError, match=message) as raised:
        Table(path, layout)

    assert str(path) in str(raised.value)
    assert raised.value.hint


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not there"):
        Table(tmp_path / "none.csv")


def test_empty_json_lines_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is empty"):
        Table(write(tmp_path / "x.jsonl", ""))


def test_file_that_is_no_gzip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no readable table"):
        Table(write(tmp_path / "x.csv.gz", "timestamp,value"))


def test_damage_further_on_is_an_error_that_counts_what_was_read(tmp_path: Path) -> None:
    generator = random.Random(1)
    text = "timestamp,value\n" + "".join(f"{NEW_YEAR + i},{generator.random()}\n" for i in range(20_000))
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(text.encode())[:-100_000])

    table = Table(path)
    rows: list[Row] = []
    with pytest.raises(TransportError, match=r"cannot be read after \d+ readings"):
        rows.extend(table.rows())


# -- several files


def test_directory_stands_for_the_tables_below_it(tmp_path: Path) -> None:
    write(tmp_path / "b" / "two.csv", "timestamp,value", "2026-01-01,1")
    write(tmp_path / "a" / "one.csv", "timestamp,value", "2026-01-01,1")
    write(tmp_path / "README.md", "no table")

    assert [table.name for table in open_tables([tmp_path])] == ["one", "two"]


def test_files_of_one_name_are_told_apart_by_their_directories(tmp_path: Path) -> None:
    paths = [tmp_path / "S01" / "HR.csv", tmp_path / "S02" / "HR.csv"]
    for path in paths:
        write(path, "timestamp,value", "2026-01-01,1")

    assert [table.name for table in open_tables(paths)] == ["S01/HR", "S02/HR"]


def test_directory_without_tables_and_no_path_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no table"):
        open_tables([tmp_path])
    with pytest.raises(ConfigurationError, match="No file"):
        open_tables([])


def test_row_count_is_told_beforehand(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "timestamp,a,b", *["2026-01-01,1,2"] * 10)

    assert Table(path, TableLayout(columns=("a", "b"))).count_rows() == pytest.approx(20, abs=2)


def test_table_name_leaves_dots_inside_the_name() -> None:
    assert table_name(Path("hr.11839.txt")) == "hr.11839"
    assert table_name(Path("plain")) == "plain"


def test_covariates_are_columns_beside_the_value_and_no_streams(tmp_path: Path) -> None:
    path = write(tmp_path / "w.csv", "date,a,rain,b", "2026-01-01,1,0.5,2", "2026-01-02,3,,4", "2026-01-03,5,none,6")

    rows = list(Table(path, TableLayout(columns=("*",), covariates=("Rain",))).rows())

    assert [row.stream_id for row in rows[:2]] == ["w/a", "w/b"]
    assert [row.covariates for row in rows[::2]] == [(0.5,), (None,), ("none",)]


def test_value_is_found_among_columns_that_are_no_covariates(tmp_path: Path) -> None:
    path = write(tmp_path / "w.csv", "date,load,rain", "2026-01-01,1,0.5")

    (row,) = Table(path, TableLayout(covariates=("rain",))).rows()

    assert (row.value, row.covariates) == (1.0, (0.5,))


def test_covariate_that_is_no_column_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "w.csv", "date,load,rain", "2026-01-01,1,0.5")

    with pytest.raises(ConfigurationError, match=r"no column 'wind'; its columns are date, load, rain"):
        Table(path, TableLayout(covariates=("wind",)))


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Two streams with times of the format's own, a null, and a column of numbers beside."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    times = pa.array([0, 0, 60_500, 60_500], pa.timestamp("ms", "UTC"))
    columns = {
        "stream_id": ["a", "b", "a", "b"],
        "timestamp": times,
        "value": [1.5, 2.5, None, 4.0],
        "rain": pa.array([0, 1, None, 3], pa.int32()),
    }
    write_table(pa.table(columns), tmp_path / "r.parquet")
    return tmp_path / "r.parquet"


def test_parquet_is_read_as_its_columns(parquet: Path) -> None:
    table = Table(parquet, TableLayout(covariates=("rain",)))

    rows = [(row.stream_id, row.time, row.value, row.covariates) for row in table.rows()]

    assert rows == [
        ("a", 0.0, 1.5, (0.0,)),
        ("b", 0.0, 2.5, (1.0,)),
        ("a", 60.5, None, (None,)),
        ("b", 60.5, 4.0, (3.0,)),
    ]
    assert table.count_rows() == 4


def test_parquet_in_a_directory_is_found(parquet: Path) -> None:
    assert [table.path for table in open_tables([parquet.parent])] == [parquet]


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = write(tmp_path / "r.parquet", "timestamp,value")

    with pytest.raises(ConfigurationError, match=r"r\.parquet is no readable Parquet"):
        Table(path)
