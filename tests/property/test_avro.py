"""Avro says what JSON says: of any reading, of any forecast; and no bytes behind its marker stop the codec."""

import json

import pytest
from factories import START
from hypothesis import given, settings
from hypothesis import strategies as st
from property.test_codec_never_raises import KEYS, check_answers
from property.test_forecast_wave import alone, make_wave, rows, texts

from forecaster.codecs.avro import AvroSchema
from forecaster.codecs.avro_codec import AvroCodec, reading_schema
from forecaster.codecs.forecast_avro import decode_forecast_avro, encode_forecast_avro, encode_forecasts_avro
from forecaster.codecs.forecast_json import decode_forecast
from forecaster.codecs.json_codec import JsonCodec
from forecaster.codecs.timestamps import LATEST_TIME
from forecaster.records import RawRecord

NAMES = {"fields": ("value", "other"), "covariates": ("steps",)}
SCHEMA = AvroSchema(reading_schema(**NAMES))
numbers = st.none() | st.floats(-1e31, 1e31) | st.integers(-1000, 1000).map(float)
readings = st.fixed_dictionaries(
    {
        "stream_id": st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
        "timestamp": st.none() | st.integers(-10, round(LATEST_TIME * 1e6) + 10),
        "value": numbers,
        "other": numbers,
        "steps": numbers,
    }
)


@settings(max_examples=300, deadline=None)
@given(readings)
def test_a_reading_means_the_same_in_both_forms(reading):
    key = reading["stream_id"].encode() or b"key"

    def observed(codec, body):
        return [repr(answer) for answer in codec.decode(RawRecord("readings", 0, 1, START, key, body))]

    plain = {**NAMES, "time_unit": "us", "max_future_seconds": 1e10}
    as_json = observed(JsonCodec(**plain), json.dumps(reading).encode())
    as_avro = observed(AvroCodec(**plain), SCHEMA.write(reading))

    if "DeadLetter" not in "".join(as_json + as_avro):
        assert as_avro == as_json
    else:  # the bytes refused differ, what is wrong with them does not
        assert [answer.partition("reason=")[2] for answer in as_avro] == [
            answer.partition("reason=")[2] for answer in as_json
        ]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | readings.map(lambda reading: SCHEMA.write(reading)[10:]), KEYS)
def test_whatever_stands_behind_the_marker_is_answered(content, key):
    codec = AvroCodec(**NAMES)
    check_answers(codec, RawRecord("readings", 0, 1, START, key, SCHEMA.head + content))


@settings(max_examples=200, deadline=None)
@given(st.lists(rows, max_size=6), texts, texts | st.none())
def test_a_wave_of_forecasts_is_written_as_its_forecasts_are_and_read_as_their_json_is(found, topic, model):
    alone_as_json = [decode_forecast(alone(row, topic, model)) for row in found]

    written = encode_forecasts_avro(make_wave(found, topic, model))

    assert written == [encode_forecast_avro(forecast) for forecast in alone_as_json]
    assert [decode_forecast_avro(value) for value in written] == alone_as_json


@settings(max_examples=100, deadline=None)
@given(rows, st.binary(min_size=1, max_size=40))
def test_forecasts_that_were_cut_or_lengthened_are_refused_in_words(row, junk):
    value = encode_forecasts_avro(make_wave([row], "readings", "gru"))[0]

    for broken in (value[: len(value) // 2], value[:-1], value + junk):
        with pytest.raises(ValueError, match=r"follow their schema|stand behind|expected to begin"):
            decode_forecast_avro(broken)
