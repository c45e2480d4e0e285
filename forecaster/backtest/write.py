"""Forecasts of a backtest as a table: one row per stream, origin, step and quantile level."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from forecaster.backtest.collect import StreamForecasts
from forecaster.codecs.timestamps import format_time
from forecaster.errors import ConfigurationError

COLUMNS = ("stream_id", "origin", "step", "q", "value")
SUFFIXES = (".csv", ".csv.gz", ".parquet")

_BATCH_ORIGINS = 2_000


class ForecastTable(Protocol):
    """A table under way."""

    def write(self, stream: StreamForecasts, *, stride: int) -> int:
        """Add a stream's forecasts at the rows that are multiples of ``stride``; returns how many origins."""


@contextmanager
def open_table(path: Path, quantile_levels: tuple[float, ...]) -> Iterator[ForecastTable]:
    """A table of forecasts at ``path``, by its suffix CSV, gzipped CSV or Parquet.

    Raises:
        ConfigurationError: another suffix, Parquet without its library, or a path that cannot be written.
    """
    check_table_path(path)
    try:
        if path.name.endswith(".parquet"):
            table = _ParquetTable(path, quantile_levels)
            try:
                yield table
            finally:
                table.close()
            return
        with path.open("wb") as file:
            if not path.name.endswith(".gz"):
                yield _CsvTable(file, quantile_levels)
                return
            # without name and time, so that equal forecasts make equal files
            with gzip.GzipFile("", "wb", compresslevel=5, fileobj=file, mtime=0) as packed:
                buffered = io.BufferedWriter(packed, 1 << 20)
                yield _CsvTable(buffered, quantile_levels)
                buffered.flush()
                buffered.detach()
    except OSError as error:
        raise ConfigurationError(
            f"Forecasts cannot be written to {path}: {error.strerror}.", hint="Give a directory that can be written to."
        ) from error


def check_table_path(path: Path) -> None:
    """Say at once what would fail after hours.

    Raises:
        ConfigurationError: the suffix is not known, or Parquet's library is absent.
    """
    if not path.name.endswith(SUFFIXES):
        raise ConfigurationError(
            f"Forecasts cannot be written as {path.name}.", hint=f"The name has to end in {', '.join(SUFFIXES)}."
        )
    if path.name.endswith(".parquet"):
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigurationError(
                "Parquet needs pyarrow, which is not installed.",
                hint="Install forecaster[parquet], or take a name that ends in .csv.gz.",
            ) from None


def chosen_rows(stream: StreamForecasts, stride: int) -> Any:
    """Rows whose forecasts are written: multiples of ``stride`` at which the stream had had a value."""
    rows = np.arange(0, len(stream.values), stride)
    return rows[~np.isnan(stream.quantiles[rows, 0, 0])]


class _CsvTable:
    def __init__(self, file: IO[bytes] | io.BufferedWriter, quantile_levels: tuple[float, ...]) -> None:
        self._file = file
        self._levels = quantile_levels
        self._file.write((",".join(COLUMNS) + "\n").encode())

    def write(self, stream: StreamForecasts, *, stride: int) -> int:
        rows = chosen_rows(stream, stride)
        name = _quoted(stream.stream_id)
        horizon = stream.quantiles.shape[1]
        # One formatting operation an origin: numbers are never touched one by one.
        ends = [f",{step},{level!r},%r\n" for step in range(1, horizon + 1) for level in self._levels]
        for begin in range(0, len(rows), _BATCH_ORIGINS):
            part = rows[begin : begin + _BATCH_ORIGINS]
            times = stream.times[part].tolist()
            grids = stream.quantiles[part].reshape(len(part), -1).tolist()
            text = []
            for time, grid in zip(times, grids, strict=True):
                start = f"{name},{format_time(time)}".replace("%", "%%")
                text.append((start + start.join(ends)) % tuple(grid))
            self._file.write("".join(text).encode())
        return len(rows)


class _ParquetTable:
    def __init__(self, path: Path, quantile_levels: tuple[float, ...]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._levels = np.array(quantile_levels)
        names = pa.dictionary(pa.int32(), pa.string())
        kinds = (names, pa.timestamp("us", "UTC"), pa.int32(), pa.float64(), pa.float64())
        self._schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
        self._writer: Any = pq.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, stream: StreamForecasts, *, stride: int) -> int:
        import pyarrow as pa

        rows = chosen_rows(stream, stride)
        _, horizon, levels = stream.quantiles.shape
        for begin in range(0, len(rows), _BATCH_ORIGINS):
            part = rows[begin : begin + _BATCH_ORIGINS]
            each = horizon * levels
            names = pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(len(part) * each, np.int32)), pa.array([stream.stream_id])
            )
            origins = np.rint(stream.times[part] * 1e6).astype(np.int64)
            columns = [
                names,
                pa.array(np.repeat(origins, each)).cast(pa.timestamp("us", "UTC")),
                pa.array(np.tile(np.repeat(np.arange(1, horizon + 1, dtype=np.int32), levels), len(part))),
                pa.array(np.tile(self._levels, len(part) * horizon)),
                pa.array(stream.quantiles[part].ravel()),
            ]
            self._writer.write_table(pa.table(columns, schema=self._schema))
        return len(rows)

    def close(self) -> None:
        self._writer.close()


def _quoted(text: str) -> str:
    """A CSV cell."""
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text
