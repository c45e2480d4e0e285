"""The bytes of forecasts that readers of the topic were written for."""

import pytest
from msgspec import UNSET, MsgspecError
from msgspec.structs import replace

from forecaster.codecs.forecast_json import Forecast, SourcePosition, decode_forecast, encode_forecast

WHOLE = Forecast(
    stream_id="ward-3/bed-12",
    origin="2026-01-01T00:00:05Z",
    value=72.0,
    step_seconds=1.0,
    quantile_levels=(0.1, 0.5, 0.9),
    quantiles=[[70.9, 72.1, 73.4], [70.0, 72.0, 74.5]],
    status="ok",
    model="gru-20260101T000000-ab12cd",
    experts={"naive": 0.29, "recurrent": 0.71},
    source=SourcePosition("readings", 3, 1812),
    seq=512,
    coverage=0.8125,
)
WHOLE_BYTES = (
    b'{"stream_id":"ward-3/bed-12","origin":"2026-01-01T00:00:05Z","value":72.0,"step_seconds":1.0,'
    b'"quantile_levels":[0.1,0.5,0.9],"quantiles":[[70.9,72.1,73.4],[70.0,72.0,74.5]],"status":"ok",'
    b'"model":"gru-20260101T000000-ab12cd","experts":{"naive":0.29,"recurrent":0.71},'
    b'"source":{"topic":"readings","partition":3,"offset":1812},"seq":512,"coverage":0.8125}'
)
SILENT = Forecast(
    stream_id="mühle/µ",
    origin="2026-01-01T00:00:05.250000Z",
    value=None,
    step_seconds=0.0,
    quantile_levels=(0.5,),
    quantiles=None,
    status="warming",
    model=None,
    experts={"naive": 1.0},
    source=SourcePosition("readings", 0, 0, "temp"),
    seq=1,
)
SILENT_BYTES = (
    '{"stream_id":"mühle/µ","origin":"2026-01-01T00:00:05.250000Z","value":null,"step_seconds":0.0,'
    '"quantile_levels":[0.5],"quantiles":null,"status":"warming","model":null,"experts":{"naive":1.0},'
    '"source":{"topic":"readings","partition":0,"offset":0,"field":"temp"},"seq":1}'
).encode()


WITHOUT_COVERAGE = (
    b'{"stream_id":"ward-3/bed-12","origin":"2026-01-01T00:00:05Z","value":72.0,"step_seconds":1.0,'
    b'"quantile_levels":[0.1,0.5,0.9],"quantiles":[[70.9,72.1,73.4],[70.0,72.0,74.5]],"status":"ok",'
    b'"model":"gru-20260101T000000-ab12cd","experts":{"naive":0.29,"recurrent":0.71},'
    b'"source":{"topic":"readings","partition":3,"offset":1812},"seq":512}'
)


@pytest.mark.parametrize(("forecast", "expected"), [(WHOLE, WHOLE_BYTES), (SILENT, SILENT_BYTES)])
def test_a_forecast_is_these_bytes_and_these_bytes_are_that_forecast(forecast, expected):
    assert encode_forecast(forecast) == expected
    assert decode_forecast(expected) == forecast


def test_a_forecast_of_a_version_that_told_no_coverage_is_read():
    assert decode_forecast(WITHOUT_COVERAGE) == replace(WHOLE, coverage=UNSET)


def test_fields_that_later_versions_add_are_passed_over():
    assert decode_forecast(WHOLE_BYTES.replace(b'"seq":512', b'"seq":512,"colour":"red"')) == WHOLE


@pytest.mark.parametrize("value", [b"", b"{}", WHOLE_BYTES[:-1], WHOLE_BYTES.replace(b"72.0", b'"high"')])
def test_bytes_that_are_no_forecast_are_refused(value):
    with pytest.raises(MsgspecError):
        decode_forecast(value)
