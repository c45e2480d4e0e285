"""Feedback as JSON: what people say of a stream's anomalies, and which readings no model is to learn from.

    {"stream_id": "ward-3/bed-12", "label": false, "timestamp": "2026-01-01T00:00:05Z"}
    {"stream_id": "ward-3/bed-12", "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T06:00:00Z"}

One record may be both. Times are as in readings: ISO 8601, or an epoch number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import msgspec

from forecaster.codecs.timestamps import LATEST_TIME, epoch_seconds, parse_time
from forecaster.errors import ConfigurationError
from forecaster.records import Feedback


class _Record(msgspec.Struct, frozen=True, rename={"first": "from", "last": "to"}):
    stream_id: str
    label: bool | None = None
    timestamp: str | float | None = None
    first: str | float | None = None
    last: str | float | None = None


_DECODER = msgspec.json.Decoder(_Record)


def decode_feedback(value: bytes) -> Feedback:
    """Feedback from JSON.

    Raises:
        ValueError: the bytes are no feedback; the message says what is wrong with them.
    """
    try:
        found = _DECODER.decode(value)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    label, excluded = None, None
    if found.label is not None:
        if found.timestamp is None:
            raise ValueError("`label` needs a `timestamp`: that of the anomaly")
        label = found.label, _seconds(found.timestamp)
    if (found.first is None) != (found.last is None):
        raise ValueError("`from` and `to` go together")
    if found.first is not None and found.last is not None:
        excluded = _seconds(found.first), _seconds(found.last)
        if excluded[0] > excluded[1]:
            raise ValueError("`from` is later than `to`")
    if label is None and excluded is None:
        raise ValueError("it has neither `label` nor `from` and `to`")
    return Feedback(found.stream_id, label, excluded)


def read_feedback_file(path: Path) -> list[Feedback]:
    """Feedback from a file of JSON lines.

    Raises:
        ConfigurationError: there is no such file, or a line is something else.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"Feedback cannot be read from {path}: {error.strerror}.") from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(decode_feedback(line))
        except ValueError as error:
            raise ConfigurationError(
                f"Line {number} of {path} is no feedback: {error}.",
                hint='A line looks like {"stream_id": "a", "label": false, "timestamp": "2026-01-01T00:00:05Z"}.',
            ) from error
    return found


def excluded_periods(feedback: Iterable[Feedback]) -> dict[str, list[tuple[float, float]]]:
    """By stream, the periods of which nothing is to be learnt in a training."""
    periods: dict[str, list[tuple[float, float]]] = {}
    for said in feedback:
        if said.excluded is not None:
            periods.setdefault(said.stream_id, []).append(said.excluded)
    return periods


def _seconds(time: str | float) -> float:
    seconds = parse_time(time) if isinstance(time, str) else epoch_seconds(time)
    if not (math.isfinite(seconds) and 0 <= seconds <= LATEST_TIME):
        raise ValueError(f"{time!r} is no time between 1970 and 2200")
    return seconds
