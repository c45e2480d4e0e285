"""JSON readings from bytes to observations, and refused readings back to bytes.

A reading is one JSON object::

    {"stream_id": "ward-3/bed-12", "timestamp": "2026-01-01T00:00:05Z", "value": 72.0, "steps": 3}

Two readers share the work. The quick one is a msgspec decoder made for the configured fields: it answers readings with
nothing wrong in them. Whatever it cannot answer goes to the slow one, which knows every rule and names the broken one.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from forecaster.codecs.timestamps import LATEST_TIME, UNIT_DIVISORS, epoch_seconds, parse_time
from forecaster.errors import ConfigurationError, RecordError
from forecaster.records import DeadLetter, Observation, OutRecord, RawRecord, Reason, Tombstone

MAX_DETAIL_CHARACTERS = 200
_MOST_ORIGINAL_BYTES = 1_000_000  # with headers still below a broker's default max.message.bytes of 1,048,588
_MOST_KEY_BYTES = 100_000
MAX_NESTING = 64
"""Deeper JSON is refused. Without a limit of our own the depth at which decoding gives up would follow the caller's
stack, and one record could be answered in two ways."""

_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")
# possessive, and content with a string that is never closed: linear in the length of whatever arrives
_JSON_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_MAX_INTEGER_DIGITS = 600  # Python may refuse to convert longer ones; as a double they are infinite anyhow


class JsonCodec:
    """Decodes readings by the rules of one topic. Holds no state between records; never raises for what it is given.

    Args:
        id_field: JSON field that names the stream, a string or an integer; absent or null, the record's key does.
        time_field: JSON field with the event time, ISO 8601 text or a number; absent or null, it is the record's own.
        fields: JSON fields that are targets. With several, each is a stream of its own, ``id/field``.
        covariates: JSON fields handed on beside the value; numbers, ``nan`` where absent or null.
        known_ahead: JSON fields with a list of what is known of the next steps, the next one first; numbers, ``nan``
            where the list is absent, null, too short, or holds null.
        horizon: H, leads that such a list is read for; what it holds beyond them is checked and passed over.
        time_unit: of numeric times: s, ms, us, ns, or auto.
        minimum: smallest value accepted.
        maximum: largest value accepted.
        max_id_bytes: longest id, in UTF-8.
        max_payload_bytes: largest record value.
        max_future_seconds: how far an event time may lie ahead of the record's own.

    Raises:
        ConfigurationError: a field name cannot be a JSON field, is used twice, or the unit is unknown.
    """

    def __init__(
        self,
        *,
        id_field: str = "stream_id",
        time_field: str = "timestamp",
        fields: tuple[str, ...] = ("value",),
        covariates: tuple[str, ...] = (),
        known_ahead: tuple[str, ...] = (),
        horizon: int = 0,
        time_unit: str = "auto",
        minimum: float = -1e30,
        maximum: float = 1e30,
        max_id_bytes: int = 249,
        max_payload_bytes: int = 65_536,
        max_future_seconds: float = 86_400.0,
    ) -> None:
        if time_unit != "auto" and time_unit not in UNIT_DIVISORS:
            raise ConfigurationError(
                f"Unit {time_unit!r} of numeric times is unknown; expected one of auto, s, ms, us, ns.",
                hint="Set readings.time_unit.",
            )
        self._id_field = id_field
        self._time_field = time_field
        self._fields = fields
        self._covariates = covariates
        self._known_ahead = known_ahead
        self._horizon = horizon
        self._time_unit = time_unit
        self._minimum = minimum
        self._maximum = maximum
        self._max_id_bytes = max_id_bytes
        self._max_payload_bytes = max_payload_bytes
        self._max_future_seconds = max_future_seconds
        self._reading = _typed_reading(id_field, time_field, fields, covariates, known_ahead)
        self._decode_typed = msgspec.json.Decoder(self._reading).decode
        self._target_attributes = [f"target_{number}" for number in range(len(fields))]
        self._covariate_attributes = [f"covariate_{number}" for number in range(len(covariates))]
        self._known_ahead_attributes = [f"known_ahead_{number}" for number in range(len(known_ahead))]
        self._has_one_target = len(fields) == 1 and not covariates and not known_ahead

    def decode(self, raw: RawRecord) -> list[Observation | DeadLetter | Tombstone]:
        """What one record says: an observation or a dead letter for each target in it, or one for the whole record.

        A record that is wrong as a whole (not JSON, no id, bad time, bad covariate, bad list of what is known ahead, no
        target) gives one dead letter without a field. With several targets a bad one gives a dead letter with its
        field, the good ones observations. A null record value gives a tombstone for the key. The answer is never empty.
        """
        body = raw.value
        if body is None or len(body) > self._max_payload_bytes:
            return self._read_slowly(raw)
        # A level takes two brackets: in fewer bytes none is too deep, or it is not JSON.
        if len(body) > 2 * MAX_NESTING and body.count(b"[") + body.count(b"{") > MAX_NESTING:
            return self._read_slowly(raw)
        try:
            answers = self._read_quickly(raw, self._decode_typed(body))
        except (ValueError, OverflowError, RecursionError):  # msgspec's own errors are ValueErrors
            answers = None
        return answers if answers is not None else self._read_slowly(raw)

    def _read_quickly(self, raw: RawRecord, reading: Any) -> list[Observation | DeadLetter | Tombstone] | None:
        """Observations of a reading without fault; ``None``, or any ValueError, where the slow reader has to look."""
        record_id = reading.id
        if type(record_id) is not str:
            if type(record_id) is int:
                record_id = str(record_id)
            elif raw.key is None:
                return None
            else:
                record_id = raw.key.decode()
        encoded = record_id.encode()
        # isprintable is stricter than the rule, and quick: a rare id that fails it is looked at again
        if (
            (raw.key and raw.key != encoded)
            or not 0 < len(encoded) <= self._max_id_bytes
            or not record_id.isprintable()
        ):
            return None

        stamp = reading.time
        if type(stamp) is str:
            time = parse_time(stamp)
        elif stamp is None or stamp is UNSET:
            time = round(raw.timestamp, 6)
        else:
            time = epoch_seconds(stamp, self._time_unit)
        if not 0 <= time <= LATEST_TIME or 0 <= raw.timestamp < time - self._max_future_seconds:
            return None

        if self._has_one_target:
            value = reading.target_0
            if value is None:
                return [Observation(record_id, time, math.nan)]
            if value is UNSET or not self._minimum <= value <= self._maximum:
                return None
            return [Observation(record_id, time, value)]

        covariates = []
        for name in self._covariate_attributes:
            value = getattr(reading, name)
            covariates.append(math.nan if value is None or value is UNSET else value)
        future: list[float] = []
        for name in self._known_ahead_attributes:
            known = getattr(reading, name)
            known = [] if known is None or known is UNSET else known
            if not all(value is None or -math.inf < value < math.inf for value in known):
                return None
            self._extend(future, [math.nan if value is None else value for value in known])
        told = tuple(future)
        answers: list[Observation | DeadLetter | Tombstone] = []
        is_alone = len(self._fields) == 1
        for field, name in zip(self._fields, self._target_attributes, strict=True):
            value = getattr(reading, name)
            if value is UNSET:
                continue
            if value is None:
                value = math.nan
            elif not self._minimum <= value <= self._maximum:
                return None
            stream_id = record_id if is_alone else f"{record_id}/{field}"
            answers.append(Observation(stream_id, time, value, "" if is_alone else field, tuple(covariates), told))
        return answers or None

    def _read_slowly(self, raw: RawRecord) -> list[Observation | DeadLetter | Tombstone]:
        try:
            if raw.value is None:
                return [Tombstone(self._key_id(raw.key))]
            reading = self._parse(raw.value)
            record_id = self._record_id(reading.get(self._id_field), raw.key)
            time = self._time(reading.get(self._time_field), raw.timestamp)
            covariates = tuple(self._number(name, reading.get(name)) for name in self._covariates)
            future: list[float] = []
            for name in self._known_ahead:
                self._extend(future, self._numbers(name, reading.get(name)))
            present = [name for name in self._fields if name in reading]
            if not present:
                expected = " or ".join(self._fields)
                found = ", ".join(map(repr, reading)) or "an empty object"
                raise RecordError(Reason.ABSENT_VALUE, f"{expected}: expected the field, found {found}")
        except RecordError as error:
            return [dead_letter(raw, error)]
        beside = covariates, tuple(future)
        return [self._target(raw, record_id, time, name, reading[name], beside) for name in present]

    def _parse(self, body: bytes) -> dict[str, object]:
        if len(body) > self._max_payload_bytes:
            raise RecordError(
                Reason.OVERSIZED_PAYLOAD, f"record: expected at most {self._max_payload_bytes} bytes, found {len(body)}"
            )
        nesting = _nesting(body)
        if nesting > MAX_NESTING:
            raise RecordError(Reason.NOT_JSON, f"record: expected at most {MAX_NESTING} nested levels, found {nesting}")
        try:
            reading = json.loads(body.decode(), parse_int=_parse_integer)
        except UnicodeDecodeError as error:
            raise RecordError(
                Reason.NOT_JSON,
                f"record: expected UTF-8, found byte 0x{body[error.start]:02x} at position {error.start}",
            ) from error
        except (ValueError, RecursionError) as error:
            raise RecordError(
                Reason.NOT_JSON, f"record: expected a JSON object: {error}; found {body[:80]!r}"
            ) from error
        if not isinstance(reading, dict):
            raise RecordError(Reason.NOT_JSON, f"record: expected a JSON object, found {_describe(reading)}")
        return reading

    def _record_id(self, found: object, key: bytes | None) -> str:
        if found is None:
            return self._key_id(key)
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise RecordError(
                Reason.WRONG_TYPE, f"{self._id_field}: expected a string or an integer, found {_describe(found)}"
            )
        record_id = self._checked_id(str(found), f"{self._id_field} in the body")
        if key and key != record_id.encode():
            raise RecordError(
                Reason.ID_CONFLICT,
                f"{self._id_field}: expected the record's key {key[:60]!r}, found {record_id[:60]!r} in the body",
            )
        return record_id

    def _key_id(self, key: bytes | None) -> str:
        if not key:
            raise RecordError(
                Reason.ABSENT_ID, f"{self._id_field}: expected it in the body or as the record's key, found neither"
            )
        try:
            record_id = key.decode()
        except UnicodeDecodeError as error:
            raise RecordError(Reason.ABSENT_ID, f"key: expected an id in UTF-8, found {key[:60]!r}") from error
        return self._checked_id(record_id, "key")

    def _checked_id(self, record_id: str, where: str) -> str:
        if not record_id:
            raise RecordError(Reason.ABSENT_ID, f"{where}: expected an id, found an empty string")
        if _CONTROL_CHARACTER.search(record_id):
            raise RecordError(
                Reason.WRONG_TYPE, f"{where}: expected an id without control characters, found {record_id[:60]!r}"
            )
        try:
            size = len(record_id.encode())
        except UnicodeEncodeError as error:
            raise RecordError(
                Reason.WRONG_TYPE, f"{where}: expected an id in Unicode, found {record_id[:60]!r}"
            ) from error
        if size > self._max_id_bytes:
            raise RecordError(
                Reason.OVERSIZED_ID, f"{where}: expected at most {self._max_id_bytes} bytes, found {size}"
            )
        return record_id

    def _time(self, found: object, record_time: float) -> float:
        if found is None:
            if not 0 <= record_time <= LATEST_TIME:
                raise RecordError(
                    Reason.BAD_TIME, f"{self._time_field}: absent, and the record's own time is {record_time!r}"
                )
            return round(record_time, 6)
        try:
            if isinstance(found, str):
                time = parse_time(found)
            elif isinstance(found, bool) or not isinstance(found, int | float):
                raise ValueError("neither text nor number")
            else:
                time = epoch_seconds(found, self._time_unit)
        except (ValueError, OverflowError) as error:
            raise RecordError(
                Reason.BAD_TIME,
                f"{self._time_field}: expected an ISO 8601 time or an epoch number, found {_describe(found)}",
            ) from error
        if not 0 <= time <= LATEST_TIME:
            raise RecordError(
                Reason.BAD_TIME, f"{self._time_field}: expected a time from 1970 to 2200, found {_describe(found)}"
            )
        if 0 <= record_time < time - self._max_future_seconds:
            raise RecordError(
                Reason.BAD_TIME,
                f"{self._time_field}: expected at most {self._max_future_seconds:g} s after the record's own time, "
                f"found {_describe(found)}, {time - record_time:.0f} s after it",
            )
        return time

    def _target(
        self,
        raw: RawRecord,
        record_id: str,
        time: float,
        name: str,
        found: object,
        beside: tuple[tuple[float, ...], tuple[float, ...]],
    ) -> Observation | DeadLetter:
        """One target; ``beside`` are covariates and what is known ahead, of the whole record."""
        field = "" if len(self._fields) == 1 else name
        try:
            value = self._number(name, found)
            if value < self._minimum or value > self._maximum:
                raise RecordError(
                    Reason.OUT_OF_RANGE,
                    f"{name}: expected between {self._minimum:g} and {self._maximum:g}, found {value!r}",
                )
        except RecordError as error:
            return dead_letter(raw, error, field)
        return Observation(f"{record_id}/{field}" if field else record_id, time, value, field, *beside)

    def _extend(self, future: list[float], known: list[float]) -> None:
        """Put what is known of one field behind that of those before it: H numbers, whatever was given."""
        future.extend(known[: self._horizon])
        future.extend([math.nan] * (self._horizon - len(known)))

    def _numbers(self, name: str, found: object) -> list[float]:
        """A list of finite numbers, ``nan`` where there is a null; empty for null."""
        if found is None:
            return []
        if not isinstance(found, list):
            raise RecordError(
                Reason.WRONG_TYPE, f"{name}: expected a list of numbers or null, found {_describe(found)}"
            )
        return [self._number(f"{name}[{place}]", value) for place, value in enumerate(found)]

    def _number(self, name: str, found: object) -> float:
        """A finite number, or ``nan`` for null."""
        if found is None:
            return math.nan
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise RecordError(Reason.WRONG_TYPE, f"{name}: expected a number or null, found {_describe(found)}")
        try:
            value = float(found)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise RecordError(Reason.NOT_FINITE, f"{name}: expected a finite number, found {_describe(found)}")
        return value


def encode_dead_letter(letter: DeadLetter, *, topic: str) -> OutRecord:
    """A refused reading on its way to ``topic``: original key and value, to the partition number it came from.

    Headers: ``reason``, ``detail``, ``source.topic``, ``source.partition``, ``source.offset``; ``timestamp`` (the
    source record's own time in milliseconds) where it had one; ``field`` where one target of several was refused.

    A record so large that a broker would refuse it with the headers added is cut, and ``truncated`` says how many bytes
    of key and value it had; the whole of it stands at its place in the source.
    """
    raw = letter.raw
    key = None if raw.key is None else raw.key[:_MOST_KEY_BYTES]
    value = None if raw.value is None else raw.value[: _MOST_ORIGINAL_BYTES - len(key or b"")]
    headers = [
        ("reason", letter.reason.value),
        ("detail", letter.detail),
        ("source.topic", raw.topic),
        ("source.partition", str(raw.partition)),
        ("source.offset", str(raw.offset)),
    ]
    if raw.timestamp >= 0:
        headers.append(("timestamp", str(round(raw.timestamp * 1000))))
    if letter.field:
        headers.append(("field", letter.field))
    if (key, value) != (raw.key, raw.value):
        headers.append(("truncated", f"{len(raw.key or b'')} {len(raw.value or b'')}"))
    encoded = tuple((name, text.encode("utf-8", "backslashreplace")) for name, text in headers)
    return OutRecord(topic, raw.partition, key, value, encoded)


def _typed_reading(
    id_field: str,
    time_field: str,
    fields: tuple[str, ...],
    covariates: tuple[str, ...],
    known_ahead: tuple[str, ...],
) -> type[msgspec.Struct]:
    """A struct type whose attributes id, time, target_N, covariate_N and known_ahead_N are read from the configured
    JSON fields."""
    number = float | None | UnsetType
    attributes: list[tuple[str, Any, Any]] = [
        ("id", str | int | None | UnsetType, UNSET),
        ("time", str | int | float | None | UnsetType, UNSET),
    ]
    names = {"id": id_field, "time": time_field}
    kinds: list[tuple[str, Any, tuple[str, ...]]] = [
        ("target", number, fields),
        ("covariate", number, covariates),
        ("known_ahead", list[float | None] | None | UnsetType, known_ahead),
    ]
    for kind, type_of_kind, kind_names in kinds:
        for index, name in enumerate(kind_names):
            attributes.append((f"{kind}_{index}", type_of_kind, UNSET))
            names[f"{kind}_{index}"] = name
    if not fields or len(set(names.values())) != len(names):
        raise ConfigurationError(
            f"Fields of a reading are {sorted(names.values())}; expected at least one target and no name twice.",
            hint="Set readings.id_field, readings.time_field, readings.fields, readings.covariates and "
            "readings.known_ahead.",
        )
    try:
        return msgspec.defstruct("Reading", attributes, rename=names, gc=False)
    except (ValueError, UnicodeEncodeError) as error:
        raise ConfigurationError(
            f"Fields of a reading are {sorted(names.values())}: {error}.",
            hint="Field names hold no quotation marks, backslashes or control characters.",
        ) from error


def dead_letter(raw: RawRecord, error: RecordError, field: str = "") -> DeadLetter:
    """What is refused, with the rule that it breaks."""
    return DeadLetter(raw, Reason(error.reason), error.detail[:MAX_DETAIL_CHARACTERS], field)


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else float(digits)


def _nesting(body: bytes) -> int:
    """Deepest level of brackets outside strings."""
    if body.count(b"[") + body.count(b"{") <= MAX_NESTING:
        return 0
    level = deepest = 0
    for byte in _JSON_STRING.sub(b"", body):
        if byte in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif byte in b"]}":
            level -= 1
    return deepest


def _describe(found: object) -> str:
    """A JSON value by its JSON type and what it looks like."""
    if found is None:
        return "null"
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, dict):
        return f"an object of {len(found)} fields"
    if isinstance(found, list):
        return f"an array of {len(found)} items"
    if isinstance(found, str):
        return f"string {found[:80]!r}"
    return f"number {str(found)[:80]}"
