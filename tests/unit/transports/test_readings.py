import math
from pathlib import Path

import numpy as np

from forecaster.codecs.json_codec import JsonCodec
from forecaster.records import DeadLetter, Observation, RawRecord, Reason
from forecaster.transports.readings import RowEncoder, merge_rows, read_series
from forecaster.transports.tables import Row, TableLayout, open_tables

NEW_YEAR = 1_767_225_600.0


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_of_several_files_are_merged_by_event_time(tmp_path: Path) -> None:
    a = write(tmp_path / "a.csv", "timestamp,value", "2026-01-01,1", "2026-01-03,2", "2026-01-05,3")
    b = write(tmp_path / "b.csv", "timestamp,value", "2026-01-01,4", "2026-01-02,5", "2026-01-04,6")

    assert [row.value for row in merge_rows(open_tables([a, b]))] == [1, 4, 5, 2, 6, 3]


def test_row_that_steps_back_stays_behind_the_row_before_it(tmp_path: Path) -> None:
    a = write(tmp_path / "a.csv", "timestamp,value", "2026-01-03,1", "2026-01-01,2", "soon,3", "2026-01-05,4")
    b = write(tmp_path / "b.csv", "timestamp,value", "2026-01-02,5", "2026-01-04,6")

    assert [row.value for row in merge_rows(open_tables([a, b]))] == [5, 1, 2, 3, 6, 4]


def decode(row: Row) -> Observation | DeadLetter:
    key, value = RowEncoder().encode(row)
    (answer,) = JsonCodec().decode(RawRecord("readings", 0, 0, -1.0, key, value))
    assert isinstance(answer, Observation | DeadLetter)
    return answer


def test_written_row_is_read_back_as_it_was() -> None:
    answer = decode(Row('ward "3"/é', NEW_YEAR + 0.25, "", 0.1 + 0.2))

    assert answer == Observation('ward "3"/é', NEW_YEAR + 0.25, 0.1 + 0.2)


def test_missing_value_is_written_as_null() -> None:
    answer = decode(Row("a", NEW_YEAR, "", None))

    assert isinstance(answer, Observation)
    assert math.isnan(answer.value)


def test_unreadable_value_and_time_are_left_to_the_codec_to_refuse() -> None:
    bad_value = decode(Row("a", NEW_YEAR, "", "@"))
    bad_time = decode(Row("a", math.nan, "so\u00fcn", 1.0))

    assert isinstance(bad_value, DeadLetter)
    assert bad_value.reason == Reason.WRONG_TYPE
    assert isinstance(bad_time, DeadLetter)
    assert bad_time.reason == Reason.BAD_TIME


def test_configured_field_names_are_written() -> None:
    layout = TableLayout(id_field="id", time_field="t", value_field="v")

    assert RowEncoder(layout).encode(Row("a", 0.0, "", 1.0)) == (b"a", b'{"id":"a","t":"1970-01-01T00:00:00Z","v":1.0}')


def test_json_line_is_written_as_it_was() -> None:
    assert RowEncoder().encode(Row("a", math.nan, "", None, b"any thing")) == (b"a", b"any thing")


def test_covariates_are_written_beside_the_value_and_read_back() -> None:
    layout = TableLayout(covariates=("wind speed", "rain"))

    key, value = RowEncoder(layout).encode(Row("a", NEW_YEAR, "", 1.0, b"", (2.5, None)))

    (answer,) = JsonCodec(covariates=layout.covariates).decode(RawRecord("readings", 0, 0, -1.0, key, value))
    assert isinstance(answer, Observation)
    assert answer.covariates[0] == 2.5
    assert math.isnan(answer.covariates[1])


def test_series_have_the_covariates_of_the_rows_the_engine_would_accept(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "timestamp,wind,value,rain",
        *("2026-01-01,1,10,0.5", "2026-01-02,2,20,", "2026-01-03,calm,30,1", "2026-01-04,4,,2"),
    )

    series = read_series(open_tables([path], TableLayout(covariates=("rain", "wind"))), covariates=2)

    _, values, covariates, _ = series["a"]
    np.testing.assert_array_equal(values, [10, 20, np.nan])
    np.testing.assert_array_equal(covariates, [[0.5, 1], [np.nan, 2], [2, 4]])


def test_json_lines_without_a_covariate_have_none_of_it(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"stream_id": "a", "timestamp": "2026-01-01", "value": 1, "rain": 3}',
        '{"stream_id": "a", "timestamp": "2026-01-02", "value": 2}',
    )

    series = read_series(open_tables([path], TableLayout(covariates=("rain",))), covariates=1)

    np.testing.assert_array_equal(series["a"].covariates, [[3], [np.nan]])


def test_series_hold_what_the_engine_would_accept(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "stream_id,timestamp,value",
        *("p,2026-01-01,1", "q,2026-01-01,7", "p,2026-01-01,2", "p,2026-01-03,", "p,2026-01-02,4", "p,2026-01-04,@"),
        *("p,soon,1", "p,2026-01-05,5"),
    )

    series = read_series(open_tables([path]))

    times, values, covariates, _ = series["p"]
    assert covariates is None
    assert (times - NEW_YEAR).tolist() == [0, 2 * 86_400, 4 * 86_400]
    np.testing.assert_array_equal(values, [1, np.nan, 5])
    assert series["q"][1].tolist() == [7]
