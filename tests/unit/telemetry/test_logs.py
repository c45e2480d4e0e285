"""Log lines are valid whatever they hold, and repeats become a count."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
from kafka.errors import GroupMaxSizeReachedError, UnstableOffsetCommitError

from forecaster.clock import ManualClock
from forecaster.errors import TransportError
from forecaster.telemetry.logs import JsonFormatter, RateLimited, TextFormatter, configure

log = logging.getLogger("forecaster.engine.worker")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, kafka = logging.getLogger(), logging.getLogger("kafka")
    handlers, level, kafka_level = list(root.handlers), root.level, kafka.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    kafka.setLevel(kafka_level)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def make_record(message: str = "late burst", levelno: int = logging.WARNING, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "forecaster.engine.worker", "levelno": levelno, "levelname": logging.getLevelName(levelno)}
        | {"msg": message, "created": 1767225605.25}
        | fields
    )


def test_json_line_has_time_level_logger_message_and_fields():
    line = json.loads(JsonFormatter().format(make_record(partition=3, seconds=0.8)))

    assert line == {
        "ts": "2026-01-01T00:00:05.250Z",
        "level": "WARNING",
        "logger": "forecaster.engine.worker",
        "message": "late burst",
        "partition": 3,
        "seconds": 0.8,
    }


def test_json_line_stays_one_valid_line_whatever_the_fields_hold():
    fields = {
        "stream_id": "a\nb\ud800\x00",
        "nan": float("nan"),
        "offsets": {3: 17, ("a", 1): float("inf")},
        "ids": [object, {1}],
        "raw": b"\xff",
    }

    text = JsonFormatter().format(make_record(**fields))

    assert "\n" not in text
    assert text.isascii()
    line = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert line["nan"] == "nan"
    assert line["offsets"] == {"3": 17, "('a', 1)": "inf"}


def test_field_cannot_replace_what_every_line_has():
    line = json.loads(JsonFormatter().format(make_record(ts="yesterday", level="CALM")))

    assert line["ts"] == "2026-01-01T00:00:05.250Z"
    assert line["level"] == "WARNING"


def test_exception_is_a_field_and_its_hint_another(stream):
    configure("INFO", "json", stream)

    try:
        raise TransportError("Port 8000 is taken.", hint="Set telemetry.port.")
    except TransportError:
        log.exception("telemetry failed")

    (line,) = lines(stream)
    assert line["hint"] == "Set telemetry.port."
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("TransportError: Port 8000 is taken.")


def test_hint_of_the_cause_is_found(stream):
    configure("INFO", "json", stream)

    try:
        raise RuntimeError("loop stopped") from TransportError("gone", hint="Start the broker.")
    except RuntimeError:
        log.exception("worker failed")

    assert lines(stream)[0]["hint"] == "Start the broker."


def test_hint_given_as_field_wins(stream):
    configure("INFO", "json", stream)

    try:
        raise TransportError("gone", hint="Start the broker.")
    except TransportError:
        log.exception("worker failed", extra={"hint": "Wait."})

    assert lines(stream)[0]["hint"] == "Wait."


def test_text_line_reads_in_one_glance():
    text = TextFormatter().format(make_record(partition=3, path="a b", seconds=0.123456789))

    assert text == '00:00:05 WARNING engine.worker  late burst  partition=3 path="a b" seconds=0.123457'


def test_text_line_cannot_be_forged_by_a_field():
    text = TextFormatter().format(make_record(stream_id="x\n00:00:06 ERROR root  all is lost"))

    assert "\n" not in text


def test_text_line_is_followed_by_its_traceback(stream):
    configure("INFO", "text", stream)

    try:
        raise TransportError("gone", hint="Start the broker.")
    except TransportError:
        log.exception("worker failed")

    first, *trace = stream.getvalue().splitlines()
    assert first.endswith('ERROR   engine.worker  worker failed  hint="Start the broker."')
    assert trace[0].startswith("Traceback")


def test_levels_below_the_configured_one_are_not_written(stream):
    configure("WARNING", "json", stream)

    log.info("assigned")
    log.warning("late burst")

    assert [line["message"] for line in lines(stream)] == ["late burst"]


def test_of_offsets_that_wait_for_a_transaction_to_end_the_kafka_client_is_not_heard(stream):
    """It asks again by itself; but it calls every answer it does not know an unknown error."""
    configure("INFO", "json", stream)
    client = logging.getLogger("kafka.coordinator.consumer")

    for error in (UnstableOffsetCommitError(), GroupMaxSizeReachedError()):
        client.error("Unknown error fetching offsets for %s: %s", "readings-0", error)

    [line] = lines(stream)
    assert "GroupMaxSizeReachedError" in line["message"]


def test_kafka_client_speaks_from_warning_up_unless_debugging(stream):
    configure("INFO", "json", stream)
    logging.getLogger("kafka.conn").info("connecting")
    logging.getLogger("kafka.conn").warning("disconnected")

    configure("DEBUG", "json", stream)
    logging.getLogger("kafka.conn").debug("request sent")

    assert [line["message"] for line in lines(stream)] == ["disconnected", "request sent"]


def test_configuring_again_replaces_only_our_handler(stream):
    foreign = logging.NullHandler()
    logging.getLogger().addHandler(foreign)
    second = io.StringIO()

    configure("INFO", "json", stream)
    configure("INFO", "json", second)
    log.info("started")

    assert stream.getvalue() == ""
    assert len(lines(second)) == 1
    assert foreign in logging.getLogger().handlers


def test_python_warnings_become_log_lines(stream):
    configure("INFO", "json", stream)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    assert lines(stream)[0]["logger"] == "py.warnings"


def test_repeats_are_held_back_and_the_next_line_counts_them(clock):
    limited = RateLimited(clock, every_seconds=30)
    burst = [limited.filter(make_record(partition=partition)) for partition in range(5)]
    clock.advance(30)
    later = make_record(partition=9)

    passed = limited.filter(later)

    assert burst == [True, False, False, False, False]
    assert passed
    assert later.repeats == 4  # type: ignore[attr-defined]


def test_line_after_a_quiet_time_carries_no_count(clock):
    limited = RateLimited(clock, every_seconds=30)
    limited.filter(make_record())
    clock.advance(31)
    later = make_record()

    assert limited.filter(later)
    assert not hasattr(later, "repeats")


def test_different_warnings_do_not_hold_each_other_back(clock):
    limited = RateLimited(clock, every_seconds=30)

    assert limited.filter(make_record("late burst"))
    assert limited.filter(make_record("retrying flush"))
    assert limited.filter(make_record("late burst", levelno=logging.ERROR))


def test_information_is_never_held_back(clock):
    limited = RateLimited(clock, every_seconds=30)

    assert all(limited.filter(make_record(levelno=logging.INFO)) for _ in range(3))


def test_messages_that_never_repeat_do_not_fill_the_memory(clock):
    limited = RateLimited(clock, every_seconds=1e9)

    for number in range(5000):
        limited.filter(make_record(f"message {number}"))

    assert not limited.filter(make_record("message 4999"))
    assert limited.filter(make_record("message 0"))


def test_configured_log_limits_repeats_by_the_clock_given(stream, clock):
    configure("INFO", "json", stream, clock=clock, repeat_seconds=10)
    for _ in range(3):
        log.warning("retrying flush", extra={"attempt": 1})
    clock.advance(10)

    log.warning("retrying flush", extra={"attempt": 4})

    assert [line.get("repeats") for line in lines(stream)] == [None, 2]
