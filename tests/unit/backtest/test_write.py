"""Tables of forecasts: which rows are written, and what they say."""

from __future__ import annotations

import csv
import gzip
import sys

import numpy as np
import pytest
from backtests import HOUR, START

from forecaster.backtest.collect import StreamForecasts
from forecaster.backtest.write import open_table
from forecaster.errors import ConfigurationError

LEVELS = (0.1, 0.5, 0.9)


def make_stream(stream_id: str = "a", rows: int = 7) -> StreamForecasts:
    quantiles = np.random.default_rng(0).standard_normal((rows, 2, 3)).cumsum(axis=2)
    quantiles[0] = np.nan
    times = START + HOUR * np.arange(rows)
    return StreamForecasts(
        stream_id,
        times,
        np.zeros(rows),
        quantiles,
        np.zeros((rows, 2), np.float32),
        np.zeros(rows, np.int64),
        np.zeros(rows),
    )


def expected(stream: StreamForecasts, stride: int) -> list[tuple[str, int, float, float]]:
    """The rows, made one by one: origin hour, step, level, value."""
    return [
        (f"2026-01-01T{row:02d}:00:00Z", step + 1, level, float(stream.quantiles[row, step, k]))
        for row in range(1, len(stream.values))
        if row % stride == 0
        for step in range(2)
        for k, level in enumerate(LEVELS)
    ]


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz"])
def test_csv_holds_every_quantile_of_every_chosen_origin_to_the_last_digit(tmp_path, name, stride):
    stream = make_stream('a "b", 100 % of it')

    with open_table(tmp_path / name, LEVELS) as table:
        written = table.write(stream, stride=stride)

    with (gzip.open if name.endswith(".gz") else open)(tmp_path / name, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(row["origin"], int(row["step"]), float(row["q"]), float(row["value"])) for row in rows]
    assert found == expected(stream, stride)
    assert {row["stream_id"] for row in rows} == {'a "b", 100 % of it'}
    assert written == len(found) // 6


def test_equal_forecasts_make_equal_bytes(tmp_path):
    for name in ("x.csv.gz", "y.csv.gz"):
        with open_table(tmp_path / name, LEVELS) as table:
            table.write(make_stream(), stride=1)

    assert (tmp_path / "x.csv.gz").read_bytes() == (tmp_path / "y.csv.gz").read_bytes()


def test_parquet_holds_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, the extra forecaster[parquet], is absent")
    stream, other = make_stream(), make_stream("b")

    with open_table(tmp_path / "f.parquet", LEVELS) as table:
        table.write(stream, stride=1)
        table.write(other, stride=1)

    rows = parquet.read_table(tmp_path / "f.parquet").to_pylist()
    found = [(f"{row['origin']:%Y-%m-%dT%H:%M:%SZ}", row["step"], row["q"], row["value"]) for row in rows]
    assert found == 2 * expected(stream, 1)
    assert [row["stream_id"] for row in rows] == ["a"] * 36 + ["b"] * 36


def test_an_unknown_suffix_and_an_absent_library_are_said_at_once(tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"f\.xlsx"), open_table(tmp_path / "f.xlsx", LEVELS):
        pass
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigurationError, match="pyarrow"), open_table(tmp_path / "f.parquet", LEVELS):
        pass
