"""The Avro bytes of forecasts that readers of the topic were written for."""

import pytest
from golden.test_forecast_json import SILENT, WHOLE

from forecaster.codecs.avro import HEAD_BYTES, MARKER, AvroSchema
from forecaster.codecs.forecast_avro import SCHEMA, decode_forecast_avro, encode_forecast_avro, read_forecast
from forecaster.codecs.forecast_json import encode_forecast

WHOLE_BYTES = bytes.fromhex(
    "c3011cdb6585cbb97b14"  # marker, fingerprint of the schema
    "1a776172642d332f6265642d3132 80ade4e688d2a306 020000000000005240 000000000000f03f"  # id, origin, value, step
    "06 9a9999999999b93f 000000000000e03f cdccccccccccec3f 00"  # levels
    "02 04 06 9a99999999b95140 6666666666065240 9a99999999595240 00"
    "06 0000000000805140 0000000000005240 0000000000a05240 00 00"  # quantiles, a row a lead
    "046f6b 02346772752d3230323630313031543030303030302d616231326364"  # status, model
    "04 0a6e61697665 8fc2f5285c8fd23f 12726563757272656e74 b81e85eb51b8e63f 00"  # experts
    "1072656164696e6773 06 a81c 00 8008 02000000000000ea3f 00"  # source, seq, coverage, withheld
)
SILENT_BYTES = bytes.fromhex(
    "c3011cdb6585cbb97b14 126dc3bc686c652fc2b5 a0ef82e788d2a306 00 0000000000000000 02 000000000000e03f 00 00"
    "0e7761726d696e67 00 02 0a6e61697665 000000000000f03f 00 1072656164696e6773 00 00 0874656d70 02 00 00"
)


@pytest.mark.parametrize(("forecast", "expected"), [(WHOLE, WHOLE_BYTES), (SILENT, SILENT_BYTES)])
def test_a_forecast_is_these_bytes_and_these_bytes_are_that_forecast(forecast, expected):
    assert encode_forecast_avro(forecast) == expected
    assert decode_forecast_avro(expected) == forecast


def test_the_fingerprint_is_that_of_the_specification():
    # Of "int", in share/test/data/schema-tests.txt of Apache Avro.
    assert AvroSchema({"type": "int"}).head == MARKER + (8247732601305521295).to_bytes(8, "little")


def test_readers_of_the_topic_tell_both_forms_apart():
    assert read_forecast(WHOLE_BYTES) == read_forecast(encode_forecast(WHOLE)) == WHOLE


@pytest.mark.parametrize(
    "value",
    [
        b"",
        MARKER,
        SCHEMA.head,
        WHOLE_BYTES[:-1],
        WHOLE_BYTES + b"\x00",
        WHOLE_BYTES.replace(SCHEMA.head, MARKER + bytes(8)),
        SCHEMA.head + b"\x02\xff" + WHOLE_BYTES[HEAD_BYTES + 2 :],
        SCHEMA.head + b"\x02a" + b"\xfe" * 9 + b"\x01" + WHOLE_BYTES[HEAD_BYTES + 22 :],
    ],
)
def test_bytes_that_are_no_forecast_are_refused(value):
    with pytest.raises(ValueError, match=r"record|expected to begin|follow their schema|no time"):
        decode_forecast_avro(value)
