"""Times as people write them into tables, to seconds since the epoch; ``nan`` is text that is no time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from forecaster.codecs.timestamps import epoch_seconds, parse_time

DATE_PARTS = ("year", "month", "day", "hour", "minute", "second")
"""Columns that hold one part of a time each, in the order they are read."""

_SLASHED = re.compile(
    r"(\d{1,4})[/.](\d{1,2})[/.](\d{1,4})(?:[ T]+(\d{1,2})[:.](\d{2})(?:[:.](\d{2})(?:\.(\d{1,6}))?)?\s*([AaPp][Mm])?)?"
)


class AmbiguousDates(ValueError):
    """Dates with slashes that may have the day or the month first; the message is one of them."""


def choose_time_reader(
    names: Sequence[str], texts: Sequence[str], *, unit: str = "auto", day_first: bool | None = None
) -> Callable[[str], float]:
    """The reader for one column of times, chosen once by looking at its first cells, so that all are read alike.

    Args:
        names: lower-case names of the columns that were joined to make a cell.
        texts: the first cells.
        unit: of numeric times; anything but ``auto`` says that they are numbers.
        day_first: whether 3/4/2024 is in April; ``None`` finds out.

    Raises:
        AmbiguousDates: ``day_first`` is ``None`` and the cells do not tell.
    """
    if tuple(names[:3]) == DATE_PARTS[:3]:
        return read_date_parts
    are_compact_dates = all(len(text) == 8 and text[:2] in ("19", "20") for text in texts)
    if unit != "auto" or (all(map(is_number, texts)) and not are_compact_dates):
        return lambda text: read_number(text, unit)
    slashed = [match for match in map(_SLASHED.fullmatch, texts) if match and len(match[1]) < 3]
    if slashed and day_first is None:
        day_first = _guess_day_first(slashed)
    return lambda text: read_text(text, day_first=bool(day_first))


def is_number(text: str) -> bool:
    """Whether the text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_number(text: str, unit: str = "auto") -> float:
    """Seconds since the epoch of a number in ``unit``.

    >>> read_number("1500", "ms")
    1.5
    """
    return _on_calendar(epoch_seconds(float(text), unit)) if is_number(text) else math.nan


def read_text(text: str, *, day_first: bool = False) -> float:
    """Seconds since the epoch of an ISO 8601 time, or of a date with slashes or dots and an optional 12 or 24 h time.

    >>> read_text("2014-04-01 00:05:00") == read_text("4/1/2014 12:05 AM") == read_text("1.4.2014 0:05", day_first=True)
    True
    """
    try:
        return _on_calendar(parse_time(text))
    except (ValueError, OverflowError):
        return _read_slashed(text, day_first)


def read_date_parts(text: str) -> float:
    """Seconds since the epoch of whole numbers in the order of `DATE_PARTS`, year, month and day at least.

    >>> read_date_parts("1970 1 1 2")
    7200.0
    """
    try:
        parts = [int(part) for part in text.split()]
        year, month, day, hour, minute, second = [*parts, 0, 0, 0][:6]
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return math.nan


def read_json(found: object, unit: str = "auto") -> float:
    """Seconds since the epoch of a JSON value: text or a number in ``unit``."""
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return math.nan
    try:
        return _on_calendar(parse_time(found) if isinstance(found, str) else epoch_seconds(found, unit))
    except (ValueError, OverflowError):
        return math.nan


def _read_slashed(text: str, day_first: bool) -> float:
    match = _SLASHED.fullmatch(text)
    if match is None:
        return math.nan
    first, second, third = int(match[1]), int(match[2]), int(match[3])
    if len(match[1]) == 4:
        year, month, day = first, second, third
    elif day_first:
        year, month, day = third, second, first
    else:
        year, month, day = third, first, second
    if year < 100:
        year += 2000
    hour, minute, whole_second = (int(match[group] or 0) for group in (4, 5, 6))
    if match[8]:
        hour = hour % 12 + (12 if match[8].lower() == "pm" else 0)
    microsecond = int((match[7] or "").ljust(6, "0"))
    try:
        return datetime(year, month, day, hour, minute, whole_second, microsecond, UTC).timestamp()
    except ValueError:
        return math.nan


def _guess_day_first(dates: Sequence[re.Match[str]]) -> bool:
    if any(int(match[1]) > 12 for match in dates):
        return True
    if any(int(match[2]) > 12 or match[8] for match in dates):  # AM and PM go with the month first
        return False
    raise AmbiguousDates(dates[0][0])


def _on_calendar(seconds: float) -> float:
    """``nan`` for a time no calendar has, so that it is handed on as the text it was."""
    return seconds if -62_135_596_800 <= seconds < 253_402_300_800 else math.nan
