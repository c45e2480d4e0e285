"""CSV, Parquet and JSON-lines files as rows: which column is what, and what each cell says."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from forecaster.errors import ConfigurationError, TransportError
from forecaster.transports.parquet import parquet_records, parquet_rows
from forecaster.transports.table_times import (
    DATE_PARTS,
    AmbiguousDates,
    choose_time_reader,
    is_number,
    read_json,
    read_text,
)

ALL_COLUMNS = "*"
_TIME_NAMES = ("timestamp", "datetime", "date_time", "time", "date", "ds", "ts", "timer")
_ID_NAMES = ("stream_id", "unique_id", "series_id", "item_id", "id")
_VALUE_NAMES = ("value", "heartrate", "heart_rate", "hr", "bpm")
_PARQUET_SUFFIX = ".parquet"
_TABLE_SUFFIXES = (".csv", ".csv.gz", _PARQUET_SUFFIX, ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_JSON_SUFFIXES = (".jsonl", ".ndjson")
_SAMPLE_ROWS = 2_000
_MOST_NAMES, _LONGEST_NAME = 30, 60  # of a message


@dataclass(frozen=True)
class TableLayout:
    """What a table's header does not say. The defaults read the common forms; names match without regard to case."""

    time_column: str = ""
    """Column with the time, or several joined by a comma (``Date,Time``, ``year,month,day,hour``); empty finds it."""
    value_column: str = ""
    """Column with the value; empty finds it."""
    id_column: str = ""
    """Column with the stream id; empty finds it, and where there is none the file's name is the id."""
    columns: tuple[str, ...] = ()
    """Wide tables: each of these columns is a stream of its own, ``id/column``; ``*`` takes every one with numbers."""
    time_unit: str = "auto"
    """Of numeric times: s, ms, us, ns, or auto."""
    day_first: bool | None = None
    """Whether 3/4/2024 is in April; ``None`` finds out from the file."""
    missing: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "null", "None")
    """Cells that stand for a missing reading."""
    start_seconds: float = 0.0
    """Time of the first row where a table has no times, seconds since the epoch."""
    step_seconds: float = 0.0
    """Seconds between rows where a table has no times."""
    beat_intervals: str = ""
    """``s`` or ``ms``: the table is one interval between heart beats a line, read as beats a minute at each beat."""
    id_field: str = "stream_id"
    """JSON field of the id, in lines read and in readings written."""
    time_field: str = "timestamp"
    """JSON field of the time."""
    value_field: str = "value"
    """JSON field of the value."""
    covariates: tuple[str, ...] = ()
    """Columns, and JSON fields in lines read and in readings written, that stand beside the value."""
    known_ahead: tuple[str, ...] = ()
    """Columns whose values at the rows that follow are known, each row's lists of them in readings written; JSON fields
    with such lists in lines read."""
    horizon: int = 0
    """Rows that are looked ahead for them."""


COMMON_FORMS = TableLayout()
"""Nothing said beyond the header."""


class Row(NamedTuple):
    """One reading of a table, as far as it could be read."""

    stream_id: str
    time: float
    """Seconds since the epoch; ``nan`` where the text is no time."""
    time_text: str
    """As it stands in the table; empty where the table has no times."""
    value: float | str | None
    """``None`` is a missing reading; text is a cell that is no finite number, handed on as it is."""
    line: bytes = b""
    """The reading itself where the table is JSON lines, else empty."""
    covariates: tuple[float | str | None, ...] = ()
    """As the value; empty where the table has no columns to hold them."""
    known: tuple[float | None, ...] = ()
    """What the columns that are known ahead say of this row; empty where the table has none, and of JSON lines."""
    future: tuple[tuple[float | None, ...] | str, ...] = ()
    """What is known of the rows that follow, the next one first, column by column; text for what is no list of numbers.
    `forecaster.transports.readings.merge_rows` fills it in; only JSON lines say it themselves."""


class Table:
    """One file of readings. The constructor looks at its beginning and settles what each column is.

    Args:
        path: CSV or JSON lines, plain or gzip, or Parquet, read as a CSV of its columns. CSV with a header (comma,
            semicolon or tab), or without one: a time and a value, or one number a line (see `TableLayout.step_seconds`
            and `TableLayout.beat_intervals`), or the export of an Empatica E4 (start, rate, then values; or start,
            then offset and beat interval).
        layout: what the header does not say.
        name: stream id, or its first part; the file's name without endings where it is empty.

    Raises:
        ConfigurationError: the file is absent, empty, or its columns cannot be told apart; the message names them.
    """

    def __init__(self, path: Path, layout: TableLayout = COMMON_FORMS, *, name: str = "") -> None:
        self.path = path
        self.name = name or table_name(path)
        self.layout = layout
        """What was said beyond the header."""
        self._missing = frozenset(layout.missing)
        self._is_parquet = path.name.lower().endswith(_PARQUET_SUFFIX)
        if not path.is_file():
            raise ConfigurationError(f"File {path} is not there.", hint="Give the path of a CSV or JSON-lines file.")
        self._read: Callable[[Iterator[list[str]]], Iterator[Row]] | None = None
        self._delimiter = ","
        self._series_per_line = 1
        if _plain_suffix(path) in _JSON_SUFFIXES:
            with self._open_bytes() as lines:
                if not any(line.strip() for line in itertools.islice(lines, _SAMPLE_ROWS)):
                    raise self._empty()
        else:
            self._settle_columns()

    def rows(self) -> Iterator[Row]:
        """Every row in file order, read as one goes; a wide table gives its columns side by side.

        Raises:
            TransportError: the file is damaged, or gone since.
        """
        count = 0
        try:
            for row in self._json_rows() if self._read is None else self._table_rows(self._read):
                count += 1
                yield row
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            raise TransportError(
                f"File {self.path} cannot be read after {count} readings: {error}.", hint="Is the file whole?"
            ) from error

    def count_rows(self) -> int:
        """About how many rows there are, quickly, by counting line ends."""
        if self._is_parquet:
            return parquet_rows(self.path) * self._series_per_line
        with self._open_bytes() as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        return lines * self._series_per_line

    def _open_bytes(self) -> IO[bytes]:
        return cast(IO[bytes], gzip.open(self.path, "rb") if self.path.suffix == ".gz" else self.path.open("rb"))

    def _open_text(self) -> IO[str]:
        return io.TextIOWrapper(self._open_bytes(), encoding="utf-8-sig", errors="replace", newline="")

    @contextmanager
    def _records(self) -> Iterator[Iterator[list[str]]]:
        """Every line as cells, the header too."""
        if self._is_parquet:
            yield parquet_records(self.path)
            return
        with self._open_text() as file:
            yield (cells for cells in csv.reader(file, delimiter=self._delimiter) if cells)

    def _empty(self) -> ConfigurationError:
        return ConfigurationError(f"File {self.path} is empty.", hint="A table needs at least one row.")

    # -- what each column is

    def _settle_columns(self) -> None:
        try:
            self._delimiter = "," if self._is_parquet else self._found_delimiter()
            with self._records() as records:
                sample = list(itertools.islice(records, _SAMPLE_ROWS + 1))
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            raise ConfigurationError(f"File {self.path} is no readable table: {error}.") from error
        if not sample:
            raise self._empty()
        first = [cell.strip() for cell in sample[0]]
        if self.layout.beat_intervals:
            self._read = self._beat_rows
        elif is_number(first[0]) and len(first) == 1:
            self._settle_numbers(sample)
        elif is_number(first[0]) and first[1:] == ["IBI"]:
            self._read = self._e4_beat_rows
        elif len(first) == 2 and is_number(first[1]) and not math.isnan(read_text(first[0])):
            self._settle_header(["timestamp", "value"], sample, has_header=False)
        elif len(sample) == 1:
            raise ConfigurationError(
                f"File {self.path} has a header ({', '.join(first)}) and no row.",
                hint="A table needs at least one row.",
            )
        else:
            # R writes row numbers without a name for them: rows are one cell longer than the header
            names = ["", *first] if len(sample[1]) == len(first) + 1 else first
            self._settle_header(names, sample[1:], has_header=True)

    def _found_delimiter(self) -> str:
        with self._open_text() as file:
            first_line = file.readline()
        return next((mark for mark in (",", ";", "\t") if mark in first_line), ",")

    def _settle_numbers(self, sample: list[list[str]]) -> None:
        """One number a line, without a header: the E4's start and rate come first, or the layout gives the step."""
        start = float(sample[0][0])
        rate = float(sample[1][0]) if len(sample) > 1 and is_number(sample[1][0]) else 0.0
        step = self.layout.step_seconds
        if step > 0:
            self._read = lambda records: self._spaced_rows(records, self.layout.start_seconds, step)
        elif start >= 1e9 and 0 < rate <= 1000:
            self._read = lambda records: self._spaced_rows(itertools.islice(records, 2, None), start, 1 / rate)
        else:
            raise ConfigurationError(
                f"File {self.path} holds one number a line and no times.",
                hint="Give the seconds between rows (step_seconds), or say they are beat intervals (beat_intervals).",
            )

    def _settle_header(self, names: list[str], sample: list[list[str]], *, has_header: bool) -> None:
        layout = self.layout
        lower = [name.lower() for name in names]
        times = [self._find(name, names) for name in layout.time_column.split(",") if name] or self._guess_time(lower)
        if not times:
            raise ConfigurationError(
                f"File {self.path} has no time column; its columns are {_listed(names)}.",
                hint="Name it (time_column); several are joined by commas, as in Date,Time.",
            )
        id_index = self._find(layout.id_column, names) if layout.id_column else _first_of(_ID_NAMES, lower)
        covariates = [self._find(name, names) for name in layout.covariates]
        known = [self._known_column(name, names, sample) for name in layout.known_ahead]
        taken = {*times, id_index, *covariates, *known}
        values = self._settle_values(names, lower, taken, sample)
        self._series_per_line = len(values)
        texts = [" ".join(_cell(cells, index) for index in times) for cells in sample]
        try:
            read_time = choose_time_reader(
                [lower[index] for index in times], texts, unit=layout.time_unit, day_first=layout.day_first
            )
        except AmbiguousDates as error:
            raise ConfigurationError(
                f"File {self.path} has dates like {error}, which may have the day or the month first.",
                hint="Say which (day_first).",
            ) from error
        self._read = lambda records: self._header_rows(
            itertools.islice(records, 1 if has_header else 0, None),
            times,
            read_time,
            id_index,
            values,
            covariates,
            known,
        )

    def _known_column(self, wanted: str, names: list[str], sample: list[list[str]]) -> int:
        """A column that is known ahead: a cell that is no number is missing there, so that some have to be one."""
        index = self._find(wanted, names)
        texts = [cell for cells in sample if (cell := _cell(cells, index)) not in self._missing]
        if texts and not any(map(is_number, texts)):
            raise ConfigurationError(
                f"Column {names[index]!r} of file {self.path} is to be known ahead and holds no number in its first "
                f"{len(sample)} rows, but {texts[0]!r}.",
                hint="Set readings.known_ahead to columns of numbers.",
            )
        return index

    def _guess_time(self, lower: list[str]) -> list[int]:
        if "date" in lower and "time" in lower and not {"timestamp", "datetime"} & set(lower):
            return [lower.index("date"), lower.index("time")]
        found = _first_of(_TIME_NAMES, lower)
        if found is not None:
            return [found]
        if {"year", "month", "day"} <= set(lower):
            return [lower.index(part) for part in DATE_PARTS if part in lower]
        return []

    def _settle_values(
        self, names: list[str], lower: list[str], taken: set[int | None], sample: list[list[str]]
    ) -> list[tuple[int, str]]:
        """(index, suffix of the stream id) of each column with values."""
        layout = self.layout
        rest = [index for index, name in enumerate(names) if index not in taken and name]
        if layout.columns == (ALL_COLUMNS,):
            numeric = [index for index in rest if any(is_number(_cell(cells, index)) for cells in sample)]
            return [(index, f"/{names[index]}") for index in numeric]
        if layout.columns:
            return [(index, f"/{names[index]}") for index in (self._find(name, names) for name in layout.columns)]
        if layout.value_column:
            return [(self._find(layout.value_column, names), "")]
        found = _first_of(_VALUE_NAMES, lower)
        if found is None and len(rest) == 1:
            found = rest[0]
        if found is None:
            raise ConfigurationError(
                f"File {self.path} has no value column; beside the time its columns are "
                f"{_listed([names[index] for index in rest])}.",
                hint="Name one (value_column) or several (columns); * takes all with numbers.",
            )
        return [(found, "")]

    def _find(self, wanted: str, names: list[str]) -> int:
        wanted = wanted.strip()
        for index, name in enumerate(names):
            if name == wanted:
                return index
        for index, name in enumerate(names):
            if name.lower() == wanted.lower():
                return index
        raise ConfigurationError(
            f"File {self.path} has no column {wanted!r}; its columns are {_listed(names)}.", hint="Check the name."
        )

    # -- rows

    def _header_rows(
        self,
        records: Iterator[list[str]],
        times: list[int],
        read_time: Callable[[str], float],
        id_index: int | None,
        values: list[tuple[int, str]],
        covariates: list[int],
        known: list[int],
    ) -> Iterator[Row]:
        single_time = times[0] if len(times) == 1 else None
        for cells in records:
            if single_time is not None:
                time_text = _cell(cells, single_time)
            else:
                time_text = " ".join(_cell(cells, index) for index in times)
            time = read_time(time_text)
            stream_id = self.name if id_index is None else _cell(cells, id_index) or self.name
            beside = tuple(self._value(_cell(cells, index)) for index in covariates)
            told = tuple(_number_or_none(self._value(_cell(cells, index))) for index in known)
            for index, suffix in values:
                value = self._value(_cell(cells, index))
                yield Row(stream_id + suffix if suffix else stream_id, time, time_text, value, b"", beside, told)

    def _spaced_rows(self, records: Iterator[list[str]], start: float, step: float) -> Iterator[Row]:
        for number, cells in enumerate(records):
            yield Row(self.name, start + number * step, "", self._value(cells[0].strip()))

    def _beat_rows(self, records: Iterator[list[str]]) -> Iterator[Row]:
        divisor = 1000.0 if self.layout.beat_intervals == "ms" else 1.0
        elapsed = 0.0
        for cells in records:
            value = self._value(cells[0].strip())
            if isinstance(value, float) and value > 0:
                elapsed += value / divisor
                value = 60.0 * divisor / value
            yield Row(self.name, self.layout.start_seconds + elapsed, "", value)

    def _e4_beat_rows(self, records: Iterator[list[str]]) -> Iterator[Row]:
        start = float(next(records)[0])
        for cells in records:
            value = self._value(_cell(cells, 1))
            if isinstance(value, float) and value > 0:
                value = 60.0 / value
            offset = _cell(cells, 0)
            yield Row(self.name, start + float(offset) if is_number(offset) else math.nan, offset, value)

    def _table_rows(self, read: Callable[[Iterator[list[str]]], Iterator[Row]]) -> Iterator[Row]:
        with self._records() as records:
            yield from read(records)

    def _json_rows(self) -> Iterator[Row]:
        layout = self.layout
        with self._open_bytes() as lines:
            for line in lines:
                body = line.strip()
                if not body:
                    continue
                try:
                    found = msgspec.json.decode(body)
                except (ValueError, RecursionError):  # not JSON: the codec will say what is wrong with it
                    found = None
                reading = found if isinstance(found, dict) else {}
                stream_id = reading.get(layout.id_field)
                has_id = isinstance(stream_id, str | int) and not isinstance(stream_id, bool)
                yield Row(
                    str(stream_id) if has_id else self.name,
                    read_json(reading.get(layout.time_field), layout.time_unit),
                    "",
                    _json_value(reading.get(layout.value_field, "absent")),
                    body,
                    tuple(_json_value(reading.get(name)) for name in layout.covariates),
                    future=tuple(_json_list(reading.get(name)) for name in layout.known_ahead),
                )

    def _value(self, cell: str) -> float | str | None:
        if cell in self._missing:
            return None
        try:
            value = float(cell)
        except ValueError:
            return cell
        return value if math.isfinite(value) else cell


def open_tables(paths: Iterable[Path], layout: TableLayout = COMMON_FORMS) -> list[Table]:
    """Tables at ``paths``, in that order; a directory stands for the files of readings below it, by name.

    Files of one name get their directories' names before it, as many as tell them apart.

    Raises:
        ConfigurationError: there is nothing at a path, or a file cannot be understood.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.name.lower().endswith(_TABLE_SUFFIXES))
            if not below:
                raise ConfigurationError(
                    f"Directory {path} holds no table.", hint=f"Tables end in {', '.join(_TABLE_SUFFIXES)}."
                )
            files.extend(below)
        else:
            files.append(path)
    if not files:
        raise ConfigurationError("No file of readings was given.", hint="Name CSV, Parquet or JSON-lines files.")
    return [Table(path, layout, name=name) for path, name in zip(files, _distinct_names(files), strict=True)]


def table_name(path: Path) -> str:
    """The file's name without its endings.

    >>> table_name(Path("data/nab/art_daily.csv.gz"))
    'art_daily'
    """
    name = path.name.removesuffix(".gz")
    return name.rpartition(".")[0] or name


def _distinct_names(files: list[Path]) -> list[str]:
    for depth in range(max(len(file.parts) for file in files)):
        names = ["/".join([*file.parts[:-1][len(file.parts) - 1 - depth :], table_name(file)]) for file in files]
        if len(set(names)) == len(names):
            return names
    return names


def _plain_suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _first_of(wanted: tuple[str, ...], names: list[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _listed(names: list[str]) -> str:
    """Names for a message: whatever a file holds, a terminal can show it, and the message ends."""
    shown = [_shown(name) for name in names[:_MOST_NAMES]]
    return ", ".join([*shown, *(["…"] if len(names) > len(shown) else [])]) or "none"


def _shown(name: str) -> str:
    clean = "".join(part if part.isprintable() else f"\\x{ord(part):02x}" for part in name[:_LONGEST_NAME])
    return (clean or "(unnamed)") + ("…" if len(name) > _LONGEST_NAME else "")


def _cell(cells: list[str], index: int) -> str:
    return cells[index].strip() if index < len(cells) else ""


def _json_value(found: object) -> float | str | None:
    if found is None:
        return None
    if isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < sys.float_info.max:
        return float(found)
    return str(found)


def _json_list(found: object) -> tuple[float | None, ...] | str:
    if found is None:
        return ()
    if not isinstance(found, list):
        return str(found)
    values = tuple(map(_json_value, found))
    wrong = [value for value in values if isinstance(value, str)]
    return wrong[0] if wrong else tuple(map(_number_or_none, values))


def _number_or_none(value: float | str | None) -> float | None:
    return None if isinstance(value, str) else value
