"""Readings in Avro beside readings in JSON, in one topic, by the same rules.

A record that begins with the marker of Avro's single-object encoding is Avro, any other is JSON: no JSON text begins
so. Its schema is found by the fingerprint it names, among that of `reading_schema` and those the settings give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from forecaster.codecs.avro import HEAD_BYTES, MARKER, AvroSchema, Schema
from forecaster.codecs.json_codec import JsonCodec, dead_letter
from forecaster.errors import ConfigurationError, RecordError
from forecaster.records import DeadLetter, Observation, RawRecord, Reason, Tombstone

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNITS = {"timestamp-millis": "ms", "timestamp-micros": "us", "timestamp-nanos": "ns"}
_NUMBERS = frozenset({"int", "long", "float", "double"})
_SCALARS = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "bytes", "enum", "fixed"})


def reading_schema(
    id_field: str = "stream_id",
    time_field: str = "timestamp",
    fields: Sequence[str] = ("value",),
    covariates: Sequence[str] = (),
    known_ahead: Sequence[str] = (),
) -> dict[str, Any] | None:
    """The schema of readings with these fields; ``None`` where a name is none that Avro allows."""
    numbers = [*fields, *covariates]
    names = [id_field, time_field, *numbers, *known_ahead]
    if not all(_NAME.fullmatch(name) for name in names):
        return None
    time = {"type": "long", "logicalType": "timestamp-micros"}
    number: list[Any] = ["null", "double"]
    leads = ["null", {"type": "array", "items": number}]
    types: list[Any] = ["string", ["null", time], *[number] * len(numbers), *[leads] * len(known_ahead)]
    found = [{"name": name, "type": kind} for name, kind in zip(names, types, strict=True)]
    return {"type": "record", "name": "Reading", "namespace": "forecaster", "fields": found}


class AvroCodec(JsonCodec):
    """Decodes readings of both kinds. Holds no state between records; never raises for what it is given.

    Args:
        schemas: that producers write with, beside `reading_schema` of the fields: records whose fields hold single
            values, and lists of numbers where something is known ahead. A time of a logical type counts in its unit,
            any other in ``time_unit``.
        rules: those of `JsonCodec`.

    Raises:
        ConfigurationError: as `JsonCodec`, or a schema is none, or not of readings.
    """

    def __init__(self, *, schemas: Iterable[Schema] = (), **rules: Any) -> None:
        super().__init__(**rules)
        own = reading_schema(self._id_field, self._time_field, self._fields, self._covariates, self._known_ahead)
        codecs = [_SchemaCodec(schema, rules) for schema in (*([own] if own else []), *schemas)]
        self._by_head = {codec.schema.head: codec for codec in codecs}

    def _read_slowly(self, raw: RawRecord) -> list[Observation | DeadLetter | Tombstone]:
        # Here, and not before the quick reader of JSON, which gives up at the marker: JSON costs what it always did.
        body = raw.value
        if body is None or not body.startswith(MARKER) or len(body) > self._max_payload_bytes:
            return super()._read_slowly(raw)
        codec = self._by_head.get(body[:HEAD_BYTES])
        if codec is not None:
            return codec.decode(raw)
        known = ", ".join(head[len(MARKER) :].hex() for head in self._by_head) or "none"
        detail = f"record: expected a schema of fingerprint {known}, found {body[len(MARKER) : HEAD_BYTES].hex()}"
        return [dead_letter(raw, RecordError(Reason.NOT_AVRO, detail))]


class _SchemaCodec(JsonCodec):
    """Decodes readings of one schema."""

    def __init__(self, schema: Schema, rules: dict[str, Any]) -> None:
        unit = _check(schema, rules)
        super().__init__(**{**rules, **({"time_unit": unit} if unit else {})})
        self.schema = AvroSchema(schema)

    def decode(self, raw: RawRecord) -> list[Observation | DeadLetter | Tombstone]:
        assert raw.value is not None, "it names its schema"
        try:
            found = self._read_quickly(raw, msgspec.convert(self.schema.read(raw.value), self._reading))
        except (ValueError, OverflowError):
            found = None
        return found if found is not None else self._read_slowly(raw)

    def _parse(self, body: bytes) -> dict[str, object]:
        try:
            return self.schema.read(body)
        except ValueError as error:
            raise RecordError(Reason.NOT_AVRO, f"record: expected an Avro record: {error}") from error


def _check(schema: Schema, rules: dict[str, Any]) -> str | None:
    """Refuse a schema of something else than readings; the unit of its times where a logical type says it.

    Arrays, maps and records inside are refused too: ten bytes may say that they hold 2⁶² items. Lists of what is known
    ahead are not: each of their numbers takes a byte at least, so that a record holds no more of them than it is long.
    """
    hint = "Set readings.avro_schemas to files of the schemas that readings are written with."
    fields = schema.get("fields") if isinstance(schema, dict) else None
    if fields is None or schema.get("type") != "record" or not isinstance(fields, list):
        raise ConfigurationError("A reading's Avro schema is not of a record.", hint=hint)
    try:
        AvroSchema(schema)
    except ValueError as error:
        raise ConfigurationError(f"A reading's schema is {error}.", hint=hint) from error
    for field in fields:
        allowed = _SCALARS
        if field["name"] in rules.get("known_ahead", ()) and _is_list_of_numbers(field["type"]):
            allowed = _SCALARS | {"array"}
        for kind in _kinds(field["type"]):
            if kind not in allowed:
                raise ConfigurationError(
                    f"Field {field['name']!r} of schema {schema['name']!r} holds {kind!r}; expected a single value.",
                    hint=hint,
                )
    by_name = {field["name"]: field["type"] for field in fields}
    targets = rules.get("fields", ("value",))
    if not any(target in by_name for target in targets):
        raise ConfigurationError(
            f"Schema {schema['name']!r} has fields {sorted(by_name)}; expected one of {list(targets)}.",
            hint="Set readings.fields and readings.avro_schemas so that they agree.",
        )
    time = by_name.get(rules.get("time_field", "timestamp"), "null")
    branches = time if isinstance(time, list) else [time]
    units = {_UNITS[kind["logicalType"]] for kind in branches if isinstance(kind, dict) and _is_time(kind)}
    if len(units) > 1:
        raise ConfigurationError(f"Times of schema {schema['name']!r} are in {sorted(units)}; expected one.", hint=hint)
    return units.pop() if units else None


def _is_time(kind: dict[str, Any]) -> bool:
    return kind.get("logicalType") in _UNITS


def _is_list_of_numbers(kind: Any) -> bool:
    """Whether all lists that a field may hold are of numbers, or numbers and null."""
    lists = [branch for branch in (kind if isinstance(kind, list) else [kind]) if _kinds(branch) == ["array"]]
    items = [set(_kinds(branch["items"])) for branch in lists]
    return all(found <= _NUMBERS | {"null"} and found & _NUMBERS for found in items)


def _kinds(kind: Any) -> list[str]:
    """Names of the types that a field may hold."""
    if isinstance(kind, list):
        return [name for branch in kind for name in _kinds(branch)]
    return [str(kind["type"]) if isinstance(kind.get("type"), str) else "record"] if isinstance(kind, dict) else [kind]
