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


def test_what_is_known_ahead_is_a_list_in_avro_too():
    names = {"covariates": ("load",), "known_ahead": ("tariff",)}
    codec, schema = AvroCodec(**names, horizon=3), reading_schema(**names)
    body = {"stream_id": "ward", "timestamp": MICROS, "value": 1.0, "load": 2.0}

    told = [codec.decode(raw(written({**body, "tariff": known}, schema)))[0] for known in ([4.0, None], None)]

    assert told[0].future[0] == 4.0
    assert [math.isnan(number) for number in told[0].future] == [False, True, True]
    assert [math.isnan(number) for number in told[1].future] == [True, True, True]


def test_infinite_number_in_a_list_is_refused_as_with_json():
    names = {"known_ahead": ("tariff",)}
    body = {"stream_id": "ward", "timestamp": MICROS, "value": 1.0, "tariff": [1.0, math.inf]}

    [found] = AvroCodec(**names, horizon=3).decode(raw(written(body, reading_schema(**names))))

    assert isinstance(found, DeadLetter)
    assert (found.reason, found.detail) == (Reason.NOT_FINITE, "tariff[1]: expected a finite number, found number inf")


def test_list_that_claims_more_numbers_than_it_has_bytes_for_is_no_reading():
    """Its head says 2⁶² items; each would take a byte."""
    names = {"known_ahead": ("tariff",)}
    body = {"stream_id": "ward", "timestamp": MICROS, "value": 1.0, "tariff": []}
    honest = written(body, reading_schema(**names))
    assert honest.endswith(b"\x02\x00")
    bomb = honest[:-1] + b"\x80" * 8 + b"\x40"

    [found] = AvroCodec(**names, horizon=3).decode(raw(bomb))

    assert isinstance(found, DeadLetter)
    assert found.reason is Reason.NOT_AVRO


@pytest.mark.parametrize(
    "items", ["null", "string", {"type": "array", "items": "double"}, ["null"], ["null", "string"]]
)
def test_schema_whose_list_is_not_of_numbers_is_refused(items):
    schema = schema_of(value="double", tariff={"type": "array", "items": items})

    with pytest.raises(ConfigurationError, match="'array'"):
        AvroCodec(schemas=[schema], known_ahead=("tariff",))


@pytest.mark.parametrize("items", ["double", "float", "long", ["null", "int"]])
def test_list_of_any_numbers_is_read_where_it_is_known_ahead_and_nowhere_else(items):
    schema = schema_of(value="double", tariff={"type": "array", "items": items})

    [found] = AvroCodec(schemas=[schema], known_ahead=("tariff",), horizon=2).decode(
        raw(written({"value": 1.0, "tariff": [3, 4]}, schema))
    )

    assert found.future == (3.0, 4.0)
    with pytest.raises(ConfigurationError, match="'array'"):
        AvroCodec(schemas=[schema])
