"""Readings in Avro: which schemas are taken, what units times are in, what is refused and why."""

import math

import pytest
from factories import START

from forecaster.codecs.avro import MARKER, AvroSchema
from forecaster.codecs.avro_codec import AvroCodec, reading_schema
from forecaster.errors import ConfigurationError
from forecaster.records import DeadLetter, Observation, RawRecord, Reason

MICROS = round(START * 1e6)


def raw(value, key=b"ward"):
    return RawRecord("readings", 0, 7, START, key, value)


def written(record, schema=None):
    return AvroSchema(schema or reading_schema()).write(record)


def schema_of(**fields):
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}


def test_a_reading_is_read_by_the_schema_that_follows_from_the_field_names():
    found = AvroCodec().decode(raw(written({"stream_id": "ward", "timestamp": MICROS + 250_000, "value": 72.5})))

    assert found == [Observation("ward", START + 0.25, 72.5)]


def test_a_null_value_is_a_missing_reading_and_a_null_time_the_records_own():
    [found] = AvroCodec().decode(raw(written({"stream_id": "ward", "timestamp": None, "value": None})))

    assert isinstance(found, Observation)
    assert (found.time, math.isnan(found.value)) == (START, True)


def test_json_and_avro_share_a_topic():
    codec = AvroCodec()
    body = b'{"stream_id":"ward","timestamp":"2026-01-01T00:00:00Z","value":72.5}'

    assert codec.decode(raw(body)) == codec.decode(
        raw(written({"stream_id": "ward", "timestamp": MICROS, "value": 72.5}))
    )


@pytest.mark.parametrize(
    ("kind", "time", "unit"),
    [
        ({"type": "long", "logicalType": "timestamp-millis"}, MICROS // 1000, "s"),
        ({"type": "long", "logicalType": "timestamp-micros"}, MICROS, "ms"),
        ("long", MICROS // 1000, "ms"),
        ("double", START, "auto"),
        ("string", "2026-01-01T00:00:00Z", "ms"),
    ],
)
def test_a_time_counts_in_the_unit_of_its_logical_type_else_in_the_settings(kind, time, unit):
    schema = schema_of(stream_id="string", timestamp=kind, value="double")
    codec = AvroCodec(schemas=[schema], time_unit=unit)

    assert codec.decode(raw(written({"stream_id": "ward", "timestamp": time, "value": 1.0}, schema))) == [
        Observation("ward", START, 1.0)
    ]


def test_several_targets_and_covariates_come_from_their_fields():
    names = {"fields": ("temp", "vibration"), "covariates": ("load",)}
    record = {"stream_id": "ward", "timestamp": MICROS, "temp": 20.0, "vibration": 0.5, "load": None}
    found = AvroCodec(**names).decode(raw(written(record, reading_schema(**names))))

    assert [(answer.stream_id, answer.value, answer.field) for answer in found] == [
        ("ward/temp", 20.0, "temp"),
        ("ward/vibration", 0.5, "vibration"),
    ]
    assert all(math.isnan(answer.covariates[0]) for answer in found)


def test_what_is_wrong_with_a_value_is_told_as_with_json():
    body = written({"stream_id": "ward", "timestamp": MICROS, "value": math.inf})

    [found] = AvroCodec().decode(raw(body))
    [conflict] = AvroCodec().decode(
        raw(written({"stream_id": "other", "timestamp": MICROS, "value": 1.0}), key=b"ward")
    )

    assert isinstance(found, DeadLetter)
    assert isinstance(conflict, DeadLetter)
    assert (found.reason, conflict.reason) == (Reason.NOT_FINITE, Reason.ID_CONFLICT)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (MARKER, "expected a schema"),
        (MARKER + bytes(8) + b"rest", "0000000000000000"),
        (AvroSchema(reading_schema()).head, "follow their schema"),
        (written({"stream_id": "ward", "timestamp": 1, "value": 1.0}) + b"more", "4 bytes stand behind"),
        (written({"stream_id": "ward", "timestamp": 1, "value": 1.0})[:-1], "follow their schema"),
    ],
)
def test_bytes_that_are_no_reading_go_to_the_dead_letters(body, said):
    [found] = AvroCodec().decode(raw(body))

    assert isinstance(found, DeadLetter)
    assert found.reason is Reason.NOT_AVRO
    assert said in found.detail


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (schema_of(stream_id="string", value="double", bomb={"type": "array", "items": "null"}), "'array'"),
        (schema_of(stream_id="string", value={"type": "map", "values": "double"}), "'map'"),
        (schema_of(stream_id="string", value=["null", {**schema_of(inner="double"), "name": "Inner"}]), "'record'"),
        (schema_of(stream_id="string", other="double"), "expected one of"),
        (schema_of(value="nothing"), "nothing"),
        ({"type": "string"}, "not of a record"),
        (["null"], "not of a record"),
    ],
)
def test_a_schema_of_something_else_is_refused_before_the_first_reading(schema, said):
    with pytest.raises(ConfigurationError, match=said):
        AvroCodec(schemas=[schema])


def test_field_names_that_avro_does_not_know_leave_the_schemas_that_are_given():
    assert reading_schema(fields=("temp.c",)) is None
    [found] = AvroCodec(fields=("temp.c",)).decode(raw(MARKER + bytes(8)))

    assert isinstance(found, DeadLetter)
    assert "fingerprint none" in found.detail
