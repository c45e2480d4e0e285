"""Event times between text, numbers and seconds since the epoch, exact to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime

LATEST_TIME = 7_258_118_400.0
"""2200-01-01T00:00:00Z: a later event time is a mistake, as is one before 1970."""

UNIT_DIVISORS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def parse_time(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time; without a zone it is UTC. Digits past the microsecond are cut.

    Raises:
        ValueError: the text is no such time.

    >>> parse_time("2026-01-01T01:00:05.25+01:00"), parse_time("2026-01-01 00:00:05")
    (1767225605.25, 1767225605.0)
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def format_time(seconds: float) -> str:
    """RFC 3339 text in UTC; the fraction has six digits, or is absent where there is none.

    Raises:
        ValueError, OverflowError: no calendar has that time.

    >>> format_time(1767225605.0), format_time(1767225605.25)
    ('2026-01-01T00:00:05Z', '2026-01-01T00:00:05.250000Z')
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:-6] + "Z"


def epoch_seconds(number: float, unit: str = "auto") -> float:
    """Seconds since the epoch of a number in ``unit`` (s, ms, us, ns, or auto), rounded to the microsecond.

    ``auto`` tells by magnitude: below 1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds;
    that is right for seconds up to the year 5138 and for the finer units from March 1973 on.

    Raises:
        OverflowError: the number is too large for a double.

    >>> epoch_seconds(1767225605), epoch_seconds(1767225605250), epoch_seconds(1500, "ms")
    (1767225605.0, 1767225605.25, 1.5)
    """
    if unit == "auto":
        size = abs(number)
        divisor = 1 if size < 1e11 else 1_000 if size < 1e14 else 1_000_000 if size < 1e17 else 1_000_000_000
    else:
        divisor = UNIT_DIVISORS[unit]
    seconds = number / divisor
    # Whole seconds and milliseconds have no microseconds to round, and `round` takes longer than all else here.
    return seconds if divisor <= 1_000 and type(number) is int else round(seconds, 6)
