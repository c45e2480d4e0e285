"""How log records become lines: JSON for machines or text for people, and repeated warnings become one with a count."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from forecaster.clock import Clock, SystemClock
from forecaster.errors import ForecasterError

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MOST_MESSAGES = 1_000


def configure(
    level: str,
    format: Literal["json", "text"],
    stream: TextIO | None = None,
    *,
    clock: Clock | None = None,
    repeat_seconds: float = 30.0,
) -> None:
    """Send every log record of the process to ``stream``, one line each. Calling again replaces the earlier call.

    Handlers that others put on the root logger stay. The Kafka client is kept at WARNING unless ``level`` is DEBUG:
    at INFO it tells of every connection. Its error that a committed offset still waits for a transaction to end is
    dropped: that is so after every crash, for as long as it should.

    Args:
        level: the lowest level written: DEBUG, INFO, WARNING or ERROR.
        format: ``json`` for one object a line, ``text`` for people.
        stream: where lines go; standard error where this is ``None``.
        clock: what spaces repeated warnings; the machine's own where this is ``None``.
        repeat_seconds: within this time a warning or error with the same message is counted, not written.
    """
    handler = _OwnHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    handler.addFilter(RateLimited(clock or SystemClock(), every_seconds=repeat_seconds))
    root = logging.getLogger()
    for earlier in [known for known in root.handlers if isinstance(known, _OwnHandler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger("kafka").setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
    logging.getLogger("kafka.coordinator.consumer").addFilter(_is_news)
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """One object a line: ``ts``, ``level``, ``logger``, ``message``, the fields of ``extra``, ``hint``, ``exception``.

    Always one line of ASCII and always valid JSON, whatever the fields hold.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": _rfc3339(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in _fields(record).items() if name not in line}
        trace = _trace(self, record)
        if trace:
            line["exception"] = trace
        return json.dumps(_plain(line))


class TextFormatter(logging.Formatter):
    """``12:00:01 WARNING engine.worker  late burst  partition=3 records=12``, then the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        name = record.name.removeprefix("forecaster.")
        fields = " ".join(f"{name}={_short(value)}" for name, value in _fields(record).items())
        line = f"{time} {record.levelname:<7} {name}  {record.getMessage()}" + (f"  {fields}" if fields else "")
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


class RateLimited(logging.Filter):
    """Lets a warning or error through once in ``every_seconds``; the next one through carries ``repeats``.

    Records are the same when logger, level and message (before its arguments) are: messages are constant sentences,
    what differs is in the fields. INFO and DEBUG pass untouched. At most 1,000 messages are remembered.
    """

    def __init__(self, clock: Clock, *, every_seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._every_seconds = every_seconds
        self._seen: dict[tuple[str, int, str], list[float]] = {}  # -> [time last written, repeats since]

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now = self._clock.monotonic()
        key = (record.name, record.levelno, str(record.msg))
        entry = self._seen.get(key)
        if entry is not None and now - entry[0] < self._every_seconds:
            entry[1] += 1
            return False
        if entry is not None and entry[1]:
            record.repeats = int(entry[1])
        self._seen.pop(key, None)
        self._seen[key] = [now, 0]
        if len(self._seen) > _MOST_MESSAGES:
            del self._seen[next(iter(self._seen))]
        return True


def _is_news(record: logging.LogRecord) -> bool:
    """False where the client calls it an error that offsets wait for the end of a transaction: it asks again itself."""
    return not any(type(argument).__name__ == "UnstableOffsetCommitError" for argument in record.args or ())


class _OwnHandler(logging.StreamHandler[TextIO]):
    """Told apart from the handlers of others, so that `configure` replaces only its own."""


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What ``extra`` gave, and the hint of our own exception where a hint was not given."""
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    error = record.exc_info[1] if record.exc_info else None
    while error is not None and "hint" not in fields:
        if isinstance(error, ForecasterError) and error.hint:
            fields["hint"] = error.hint
        error = error.__cause__
    return fields


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[1] is not None:
        return formatter.formatException(record.exc_info)
    return record.exc_text or ""


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: object) -> object:
    """Only what JSON has: other types and numbers that are not finite become text."""
    if isinstance(value, bool | int | None):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return (
        json.dumps(text, ensure_ascii=False)
        if not text or any(c.isspace() or not c.isprintable() for c in text)
        else text
    )
