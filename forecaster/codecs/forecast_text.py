"""Forecasts of a wave as JSON text, byte for byte as msgspec writes them one by one, in one compiled pass.

Published numbers are rounded to a few decimals. Such a number is a whole one over a power of ten, and where that has
at most fifteen digits they are the shortest that name it: what everybody writes. Quantiles of other kinds leave a hole
in their record, for msgspec to fill. Names and numbers that nobody rounded come in as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from forecaster.series.columns import FloatArray, IntArray
from forecaster.series.compiled import compiled

_DIGITS = 15
_LONGEST = _DIGITS + 4  # with a sign, a point, a nought before it or behind it
_POWERS = 10.0 ** np.arange(_DIGITS + 1)
_WHOLE_POWERS = 10 ** np.arange(19)
_LEAST, _BEYOND = 1e-4, 1e15
_TEN = np.uint64(10)
_SHARE = 10_000  # shares have four decimals
_MINUS, _POINT, _NOUGHT, _COMMA, _OPEN, _CLOSE, _QUOTE, _ESCAPE = (ord(sign) for sign in '-.0,[]"\\')
_NULL = tuple(b"null")
_INTEGER = 20  # bytes of the longest
_TIME = len("2026-01-01T00:00:00.000000Z")

NAME, ORIGIN, VALUE, STEP, LEVELS, SOURCE, SEQUENCE, COVERAGE, WITHHELD, END = range(10)
"""Places of the texts that all records share, in `RecordTexts.shared`: each stands before what it is called by."""


class RecordTexts(NamedTuple):
    """What is the same in many records of a wave."""

    shared: Sequence[bytes]
    """By the places above."""
    kinds: Sequence[bytes]
    """Status and model: two for each status, without a share of the network and with one."""
    experts: Sequence[bytes]
    """Before the share of each expert, ``E``."""
    fields: Sequence[bytes]


class RecordColumns(NamedTuple):
    """What differs from record to record, ``B`` of them."""

    names: bytes
    """JSON array of the streams' names."""
    seconds: FloatArray
    """Whole seconds of their times, from 1970 on, ``[B]``."""
    microseconds: IntArray
    numbers: bytes
    """JSON array of the values and the steps, in turn."""
    quantiles: FloatArray
    """``[B, H, Q]``"""
    statuses: IntArray
    network: int
    """Place of the network among the experts; -1 where it is none of them."""
    shares: FloatArray
    """From 0 to 1, rounded to four decimals, ``[B, E]``."""
    offsets: IntArray
    fields: IntArray
    """Which of the `RecordTexts.fields`, ``[B]``."""
    sequences: IntArray
    coverages: FloatArray
    """As shares, ``nan`` where unknown, ``[B]``."""
    withheld: IntArray


def write_records(texts: RecordTexts, columns: RecordColumns) -> tuple[list[bytes], dict[int, int]]:
    """The records, and those with a hole: by row, the place in the record where its quantiles are missing."""
    every = [*texts.shared, *texts.kinds, *texts.experts, *texts.fields]
    pool = b"".join(every)
    bounds = np.zeros(len(every) + 1, np.int64)
    np.cumsum([len(text) for text in every], out=bounds[1:])
    rows, leads, levels = columns.quantiles.shape
    matrix = leads * (levels * (_LONGEST + 1) + 2) + 2
    longest = len(pool) + matrix + _TIME + 4 * _INTEGER + (_LONGEST + 1) * (len(texts.experts) + 1)
    out = np.empty(rows * longest + len(columns.names) + len(columns.numbers), np.uint8)
    ends, holes = np.empty(rows, np.int64), np.empty(rows, np.int64)
    kinds = len(texts.shared)
    experts = kinds + len(texts.kinds)
    _write_records(
        np.frombuffer(pool, np.uint8),
        bounds,
        (kinds, experts, experts + len(texts.experts)),
        np.frombuffer(columns.names, np.uint8),
        columns.seconds,
        columns.microseconds,
        np.frombuffer(columns.numbers, np.uint8),
        np.ascontiguousarray(columns.quantiles),
        columns.statuses,
        columns.network,
        columns.shares,
        columns.offsets,
        columns.fields,
        columns.sequences,
        columns.coverages,
        columns.withheld,
        out,
        ends,
        holes,
    )
    found = ends.tolist()
    whole = out[: found[-1]].tobytes()
    records = [whole[begin:end] for begin, end in zip([0, *found], found, strict=False)]
    return records, {row: int(holes[row]) for row in np.flatnonzero(holes >= 0).tolist()}


@compiled
def _write_records(
    pool: npt.NDArray[np.uint8],
    bounds: IntArray,
    first: tuple[int, int, int],
    names: npt.NDArray[np.uint8],
    seconds: FloatArray,
    microseconds: IntArray,
    numbers: npt.NDArray[np.uint8],
    quantiles: FloatArray,
    statuses: IntArray,
    network: int,
    shares: FloatArray,
    offsets: IntArray,
    fields: IntArray,
    sequences: IntArray,
    coverages: FloatArray,
    withheld: IntArray,
    out: npt.NDArray[np.uint8],
    ends: IntArray,
    holes: IntArray,
) -> None:
    """``first`` are the places of kinds, experts and fields among the texts, which are ``pool`` between ``bounds``."""
    at = 0
    name, number = 1, 1  # places in their texts, behind the bracket
    for row in range(len(ends)):
        begin = at
        at = _text(pool, bounds, NAME, out, at)
        behind = _string_end(names, name)
        at = _copy(names, name, behind, out, at)
        name = behind + 1
        at = _text(pool, bounds, ORIGIN, out, at)
        at = _time(int(seconds[row]), microseconds[row], out, at)
        at = _text(pool, bounds, VALUE, out, at)
        behind = _number_end(numbers, number)
        at = _copy(numbers, number, behind, out, at)
        number = behind + 1
        at = _text(pool, bounds, STEP, out, at)
        behind = _number_end(numbers, number)
        at = _copy(numbers, number, behind, out, at)
        number = behind + 1
        at = _text(pool, bounds, LEVELS, out, at)
        end = _matrix(quantiles[row], out, at)
        holes[row] = -1 if end > 0 else at - begin
        at = max(at, end)

        serves = network >= 0 and shares[row, network] > 0
        at = _text(pool, bounds, first[0] + 2 * statuses[row] + (1 if serves else 0), out, at)
        is_first = True
        for expert in range(shares.shape[1]):
            if shares[row, expert] > 0:
                if not is_first:
                    out[at] = _COMMA
                    at += 1
                is_first = False
                at = _text(pool, bounds, first[1] + expert, out, at)
                at = _share(shares[row, expert], out, at)
        at = _text(pool, bounds, SOURCE, out, at)
        at = _integer(offsets[row], out, at)
        at = _text(pool, bounds, first[2] + fields[row], out, at)
        at = _text(pool, bounds, SEQUENCE, out, at)
        at = _integer(sequences[row], out, at)
        if not np.isnan(coverages[row]):
            at = _text(pool, bounds, COVERAGE, out, at)
            at = _share(coverages[row], out, at)
        if withheld[row] > 0:
            at = _text(pool, bounds, WITHHELD, out, at)
            at = _integer(withheld[row], out, at)
        at = _text(pool, bounds, END, out, at)
        ends[row] = at


@compiled
def _text(pool: npt.NDArray[np.uint8], bounds: IntArray, text: int, out: npt.NDArray[np.uint8], at: int) -> int:
    return _copy(pool, bounds[text], bounds[text + 1], out, at)


@compiled
def _copy(text: npt.NDArray[np.uint8], begin: int, end: int, out: npt.NDArray[np.uint8], at: int) -> int:
    for place in range(end - begin):
        out[at + place] = text[begin + place]
    return at + end - begin


@compiled
def _string_end(text: npt.NDArray[np.uint8], begin: int) -> int:
    """Place behind the JSON string that begins here."""
    place = begin + 1
    while text[place] != _QUOTE:
        place += 2 if text[place] == _ESCAPE else 1
    return place + 1


@compiled
def _number_end(text: npt.NDArray[np.uint8], begin: int) -> int:
    """Place behind the number, or null, that begins here."""
    place = begin
    while text[place] != _COMMA and text[place] != _CLOSE:
        place += 1
    return place


@compiled
def _matrix(numbers: FloatArray, out: npt.NDArray[np.uint8], at: int) -> int:
    """An array of arrays, ``[H, Q]``, or null where its first number is ``nan``; -1 where it is left to others."""
    if np.isnan(numbers[0, 0]):
        for letter in _NULL:
            out[at] = letter
            at += 1
        return at
    out[at] = _OPEN
    at, decimals = at + 1, 0
    for lead in range(numbers.shape[0]):
        out[at] = _OPEN
        at += 1
        for level in range(numbers.shape[1]):
            at, decimals = _write(numbers[lead, level], decimals, out, at)
            if at < 0:
                return -1
            out[at] = _COMMA
            at += 1
        out[at - 1] = _CLOSE
        out[at] = _COMMA
        at += 1
    out[at - 1] = _CLOSE
    return at


@compiled
def _write(number: float, decimals: int, out: npt.NDArray[np.uint8], at: int) -> tuple[int, int]:
    """Write a number from ``at`` on; where it ends, -1 where this is not its way, and how many decimals to try first
    for the next one."""
    magnitude = abs(number)
    if number == 0:
        whole, power = 0, 0
    elif _LEAST <= magnitude < _BEYOND:
        # The fewest decimals with which it is a whole number; mostly as many as the number before had.
        power = decimals
        scaled = np.rint(magnitude * _POWERS[power])
        while scaled / _POWERS[power] != magnitude:
            power += 1
            if power > _DIGITS or magnitude * _POWERS[power] >= _BEYOND:
                return -1, 0
            scaled = np.rint(magnitude * _POWERS[power])
        if scaled >= _BEYOND:
            return -1, 0
        whole, decimals = int(scaled), power
    else:
        return -1, 0
    if np.signbit(number):
        out[at] = _MINUS
        at += 1
    return _decimal(whole, power, out, at), decimals


@compiled
def _share(share: float, out: npt.NDArray[np.uint8], at: int) -> int:
    return _decimal(int(np.rint(share * _SHARE)), 4, out, at)


@compiled
def _decimal(whole: int, power: int, out: npt.NDArray[np.uint8], at: int) -> int:
    """``whole`` over ten to ``power``, without noughts that say nothing: but one stands on each side of the point."""
    while power > 0 and whole % 10 == 0:
        whole //= 10
        power -= 1
    if power == 0:
        at = _integer(whole, out, at)
        out[at], out[at + 1] = _POINT, _NOUGHT
        return at + 2
    digits = power + 1
    while digits < _DIGITS + 1 and whole >= _WHOLE_POWERS[digits]:
        digits += 1
    point = at + digits - power
    _digits(_digits(whole, point + 1, at + digits + 1, out), at, point, out)
    out[point] = _POINT
    return at + digits + 1


@compiled
def _integer(whole: int, out: npt.NDArray[np.uint8], at: int) -> int:
    """None below 0."""
    digits = 1
    while digits < len(_WHOLE_POWERS) and whole >= _WHOLE_POWERS[digits]:
        digits += 1
    _digits(whole, at, at + digits, out)
    return at + digits


@compiled
def _digits(whole: int, begin: int, end: int, out: npt.NDArray[np.uint8]) -> int:
    """The last digits, as many as there is place for; the number that stands before them."""
    rest = np.uint64(whole)  # without a sign a tenth is one product
    for place in range(end - 1, begin - 1, -1):
        tenth = rest // _TEN
        out[place] = _NOUGHT + np.int64(rest - tenth * _TEN)
        rest = tenth
    return int(np.int64(rest))


@compiled
def _time(seconds: int, microseconds: int, out: npt.NDArray[np.uint8], at: int) -> int:
    """RFC 3339 in UTC, as `format_time` writes it.

    Source of the date: Hinnant (2021), "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    """
    days, second = seconds // 86_400, seconds % 86_400
    shifted = days + 719_468  # from the first of March of the year 0: leap days end years
    era, day_of_era = shifted // 146_097, shifted % 146_097
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = year_of_era + 400 * era + (1 if month <= 2 else 0)
    at = _padded(year, 4, ord("-"), out, at)
    at = _padded(month, 2, ord("-"), out, at)
    at = _padded(day, 2, ord("T"), out, at)
    at = _padded(second // 3_600, 2, ord(":"), out, at)
    at = _padded(second // 60 % 60, 2, ord(":"), out, at)
    if microseconds == 0:
        return _padded(second % 60, 2, ord("Z"), out, at)
    at = _padded(second % 60, 2, _POINT, out, at)
    return _padded(microseconds, 6, ord("Z"), out, at)


@compiled
def _padded(whole: int, digits: int, sign: int, out: npt.NDArray[np.uint8], at: int) -> int:
    """With noughts before it, and a sign behind it."""
    _digits(whole, at, at + digits, out)
    out[at + digits] = sign
    return at + digits + 1
