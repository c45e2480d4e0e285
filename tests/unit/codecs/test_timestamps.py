import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecaster.codecs.timestamps import epoch_seconds, format_time, parse_time

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T12:00:00Z",
        "2026-01-01T12:00:00",
        "2026-01-01 12:00:00",
        "2026-01-01T14:00:00+02:00",
        "2026-01-01T12:00:00.000000000Z",
    ],
)
def test_one_moment_is_read_from_every_common_spelling(text: str) -> None:
    assert parse_time(text) == NOON


def test_a_date_alone_is_its_midnight_in_utc() -> None:
    assert parse_time("2026-01-01") == NOON - 12 * 3600


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-01-01T25:00:00Z", "1767268800"])
def test_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


@pytest.mark.parametrize("number", [NOON, NOON * 1e3, NOON * 1e6, int(NOON) * 10**9])
def test_unit_of_a_number_is_told_by_its_magnitude(number: float) -> None:
    assert epoch_seconds(number) == NOON


def test_declared_unit_overrides_magnitude() -> None:
    assert epoch_seconds(2_500, "ms") == 2.5
    assert epoch_seconds(NOON, "ms") == NOON / 1000


def test_numbers_are_rounded_to_the_microsecond() -> None:
    assert epoch_seconds(1_767_268_800.123_456_7) == 1_767_268_800.123_457
    assert epoch_seconds(1_767_268_800_123_456_499) == 1_767_268_800.123_456


@given(st.integers(0, 7_258_118_400 * 10**6))
def test_time_survives_writing_and_reading_to_the_microsecond(microseconds: int) -> None:
    seconds = microseconds / 1e6

    assert parse_time(format_time(seconds)) == seconds


@given(st.integers(0, 10**14 - 1), st.sampled_from(["auto", "s", "ms"]))
def test_a_whole_number_is_the_time_that_rounding_would_give(number: int, unit: str) -> None:
    divisor = {"auto": 1 if number < 1e11 else 1_000, "s": 1, "ms": 1_000}[unit]

    assert epoch_seconds(number, unit) == round(number / divisor, 6)
