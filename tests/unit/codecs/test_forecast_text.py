import msgspec
import numpy as np
import pytest
from factories import make_forecast_wave
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecaster.codecs.forecast_wave import encode_forecasts


def matrices(numbers):
    """What is written for each row of ``[B, H, Q]``."""
    wave = make_forecast_wave(numbers)
    return [text.split(b'"quantiles":')[1].split(b',"status"')[0] for text in encode_forecasts(wave)]


def written(*numbers):
    """One row of one lead."""
    (text,) = matrices(np.array([[numbers]], np.float64))
    return text


def as_msgspec(numbers):
    return [msgspec.json.encode(row.tolist()) for row in numbers]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, b"0.0"),
        (-0.0, b"-0.0"),
        (96.0, b"96.0"),
        (-0.5, b"-0.5"),
        (1200.0, b"1200.0"),
        (0.001, b"0.001"),
        (0.0001, b"0.0001"),
        (0.1 + 0.2, b"0.30000000000000004"),
        (999_999_999_999_999.0, b"999999999999999.0"),
        (1e15, b"1000000000000000.0"),
        (1e16, b"1e16"),
        (5e-324, b"5e-324"),
    ],
)
def test_numbers_are_written_as_json_writes_them(number, text):
    assert written(number) == b"[[" + text + b"]]"
    assert written(1.25, number, 7.125) == b"[[1.25," + text + b",7.125]]"


@settings(max_examples=300, deadline=None)
@given(
    arrays(np.float64, (3, 2, 3), elements=st.floats(allow_nan=False, allow_infinity=False)),
    st.integers(-3, 14),
)
def test_any_numbers_and_any_rounding_give_the_bytes_of_msgspec(numbers, decimals):
    assert matrices(numbers) == as_msgspec(numbers)
    with np.errstate(all="ignore"):
        near = np.round(np.clip(numbers, -1e9, 1e9), decimals)
    assert matrices(near) == as_msgspec(near)


@pytest.mark.parametrize("decimals", range(10))
def test_neighbours_of_rounded_numbers_are_not_taken_for_them(decimals):
    rounded = np.random.default_rng(decimals).uniform(-1e5, 1e5, (200, 1, 1)).round(decimals)
    numbers = np.concatenate((np.nextafter(rounded, -np.inf), rounded, np.nextafter(rounded, np.inf)), axis=2)

    assert matrices(numbers) == as_msgspec(numbers)


def test_a_row_that_knows_nothing_is_null_and_leaves_its_neighbours_alone():
    numbers = np.array([[[1.5]], [[np.nan]], [[2.5]]])

    assert matrices(numbers) == [b"[[1.5]]", b"null", b"[[2.5]]"]
