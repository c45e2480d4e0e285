import math
from datetime import UTC, datetime

import pytest

from forecaster.transports.table_times import (
    AmbiguousDates,
    choose_time_reader,
    read_date_parts,
    read_json,
    read_number,
    read_text,
)


def seconds(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2014-04-01 00:05:00", (2014, 4, 1, 0, 5)),
        ("2018-04-25T00:00:00Z", (2018, 4, 25)),
        ("2016-11-24 13:58:58.097000", (2016, 11, 24, 13, 58, 58, 97_000)),
        ("4/1/2016 7:54:00 AM", (2016, 4, 1, 7, 54)),
        ("4/1/2016 12:00:00 AM", (2016, 4, 1)),
        ("4/1/2016 12:30:00 PM", (2016, 4, 1, 12, 30)),
        ("2016/4/1 7:54", (2016, 4, 1, 7, 54)),
        ("4/1/16", (2016, 4, 1)),
    ],
)
def test_times_are_read_as_people_write_them(text: str, expected: tuple[int, ...]) -> None:
    assert read_text(text) == seconds(*expected)


@pytest.mark.parametrize("text", ["", "soon", "13/13/2004", "2014-02-30", "31/4/2004 1:00"])
def test_text_that_is_no_time_is_nan(text: str) -> None:
    assert math.isnan(read_text(text))


def test_day_comes_first_where_any_date_can_only_be_read_so() -> None:
    read = choose_time_reader(["date", "time"], ["10/03/2004 18:00:00", "13/03/2004 18:00:00"])

    assert read("10/03/2004 18:00:00") == seconds(2004, 3, 10, 18)


def test_month_comes_first_where_any_date_can_only_be_read_so() -> None:
    read = choose_time_reader(["date"], ["10/03/2004", "10/13/2004"])

    assert read("10/03/2004") == seconds(2004, 10, 3)


def test_dates_that_could_be_either_are_refused_unless_said() -> None:
    with pytest.raises(AmbiguousDates, match="10/03/2004"):
        choose_time_reader(["date"], ["10/03/2004"])

    assert choose_time_reader(["date"], ["10/03/2004"], day_first=True)("10/03/2004") == seconds(2004, 3, 10)


def test_numbers_are_epoch_times_in_the_unit_given() -> None:
    assert choose_time_reader(["timer"], ["0.0", "8.5"], unit="ms")("8.5") == 0.0085
    assert choose_time_reader(["ts"], ["1767225605"])("1767225605") == 1_767_225_605


def test_eight_digits_are_a_date_and_not_a_number() -> None:
    assert choose_time_reader(["date"], ["20140401", "20140402"])("20140403") == seconds(2014, 4, 3)


def test_date_in_several_columns_is_put_together() -> None:
    read = choose_time_reader(["year", "month", "day", "hour"], ["2010 1 1 0"])

    assert read("2010 1 2 3") == seconds(2010, 1, 2, 3)
    assert math.isnan(read_date_parts("2010 13 1 0"))
    assert math.isnan(read_date_parts("2010 x 1"))
    assert math.isnan(read_date_parts("2010 1"))


@pytest.mark.parametrize("found", [None, True, [], "soon", 10**400, 1e300])
def test_json_value_that_is_no_time_is_nan(found: object) -> None:
    assert math.isnan(read_json(found))


def test_number_off_the_calendar_is_nan() -> None:
    assert math.isnan(read_number("1e18", "s"))
    assert math.isnan(read_number("x"))
