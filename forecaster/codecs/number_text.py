"""Quantiles of a wave as JSON, byte for byte as msgspec writes them, without an object for each number.

Published numbers are rounded to a few decimals. Such a number is a whole one over a power of ten, and where that has
at most fifteen digits they are the shortest that name it: what everybody writes. Numbers of other kinds are left to
msgspec.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from forecaster.series.columns import FloatArray, IntArray
from forecaster.series.compiled import compiled

_encode = msgspec.json.Encoder().encode

_DIGITS = 15
_LONGEST = _DIGITS + 4  # with a sign, a point, a nought before it or behind it
_POWERS = 10.0 ** np.arange(_DIGITS + 1)
_WHOLE_POWERS = 10 ** np.arange(_DIGITS + 1)
_LEAST, _BEYOND = 1e-3, 1e15
_MINUS, _POINT, _NOUGHT, _COMMA, _OPEN, _CLOSE = (ord(sign) for sign in "-.0,[]")


def matrices(numbers: FloatArray) -> list[bytes]:
    """Each row of ``[B, H, Q]`` as a JSON array of arrays; null where its first number is ``nan``."""
    rows, leads, levels = numbers.shape
    text = np.empty((rows, leads * (levels * (_LONGEST + 1) + 2) + 2), np.uint8)
    ends = np.empty(rows, np.int64)
    _write_matrices(np.ascontiguousarray(numbers), text, ends)
    whole, size = text.tobytes(), text.shape[1]
    return [
        whole[row * size : row * size + end] if end > 0 else _encode_plain(numbers[row])
        for row, end in enumerate(ends.tolist())
    ]


def _encode_plain(numbers: FloatArray) -> bytes:
    return b"null" if np.isnan(numbers[0, 0]) else _encode(numbers.tolist())


@compiled
def _write_matrices(numbers: FloatArray, text: npt.NDArray[np.uint8], ends: IntArray) -> None:
    """``ends`` is where a row's text ends; 0 where it is left to others."""
    rows, leads, levels = numbers.shape
    for row in range(rows):
        line = text[row]
        line[0] = _OPEN
        at, decimals = 1, 0
        for lead in range(leads):
            line[at] = _OPEN
            at += 1
            for level in range(levels):
                at, decimals = _write(numbers[row, lead, level], decimals, line, at)
                if at < 0:
                    break
                line[at] = _COMMA
                at += 1
            if at < 0:
                break
            line[at - 1] = _CLOSE
            line[at] = _COMMA
            at += 1
        if at > 0:
            line[at - 1] = _CLOSE
        ends[row] = max(at, 0)


@compiled
def _write(number: float, decimals: int, line: npt.NDArray[np.uint8], at: int) -> tuple[int, int]:
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
        while power > 0 and whole % 10 == 0:
            whole //= 10
            power -= 1
    else:
        return -1, 0
    if np.signbit(number):
        line[at] = _MINUS
        at += 1
    before, behind = whole // _WHOLE_POWERS[power], whole % _WHOLE_POWERS[power]
    digits = 1
    while digits < _DIGITS and before >= _WHOLE_POWERS[digits]:
        digits += 1
    for place in range(at + digits - 1, at - 1, -1):
        line[place] = _NOUGHT + before % 10
        before //= 10
    at += digits
    line[at] = _POINT
    at += 1
    if power == 0:
        line[at] = _NOUGHT
        return at + 1, decimals
    for place in range(at + power - 1, at - 1, -1):
        line[place] = _NOUGHT + behind % 10
        behind //= 10
    return at + power, decimals
