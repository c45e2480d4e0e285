"""Parquet files as the text records of a CSV file: a header, then a row of cells for each of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from forecaster.errors import ConfigurationError, TransportError

_BATCH_ROWS = 4_096


def parquet_records(path: Path) -> Iterator[list[str]]:
    """Names of the columns, then every row; nulls are empty cells, times are written in ISO 8601.

    Raises:
        ConfigurationError: the file cannot be opened as Parquet, or the library that reads it is absent.
        TransportError: it is damaged further in.
    """
    file = _opened(path)
    yield list(file.schema_arrow.names)
    try:
        for batch in file.iter_batches(_BATCH_ROWS):
            columns = [[_text(value) for value in column.to_pylist()] for column in batch.columns]
            yield from map(list, zip(*columns, strict=True))
    except (OSError, ValueError) as error:  # pyarrow's errors are one or the other
        raise TransportError(f"File {path} cannot be read further: {error}.", hint="Is the file whole?") from error


def parquet_rows(path: Path) -> int:
    """How many rows the file has, by what it says of itself."""
    return int(_opened(path).metadata.num_rows)


def _opened(path: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigurationError(
            f"Reading {path} needs pyarrow, which is not installed.",
            hint="Install forecaster[parquet], or give the readings as CSV.",
        ) from None
    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"File {path} is no readable Parquet: {error}.") from error


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime) else str(value)
