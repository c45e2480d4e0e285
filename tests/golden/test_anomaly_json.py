"""The bytes of anomalies that readers of the topic were written for."""

import pytest
from msgspec import MsgspecError

from forecaster.codecs.anomaly_json import Anomaly, decode_anomaly, encode_anomaly
from forecaster.codecs.forecast_json import SourcePosition

RAISED = Anomaly(
    stream_id="ward-3/bed-12",
    timestamp="2026-01-01T00:00:05Z",
    state="raised",
    direction="up",
    cause="extreme",
    severity="critical",
    score=3.412,
    since="2026-01-01T00:00:05Z",
    value=172.0,
    expected=72.1,
    lower=70.9,
    upper=73.4,
    model_version="gru-20260101T000000-ab12cd",
    source=SourcePosition("readings", 3, 1812),
    seq=512,
)
RAISED_BYTES = (
    b'{"stream_id":"ward-3/bed-12","timestamp":"2026-01-01T00:00:05Z","state":"raised","direction":"up",'
    b'"cause":"extreme","severity":"critical","score":3.412,"since":"2026-01-01T00:00:05Z","value":172.0,'
    b'"expected":72.1,"lower":70.9,"upper":73.4,"model_version":"gru-20260101T000000-ab12cd",'
    b'"source":{"topic":"readings","partition":3,"offset":1812},"seq":512}'
)
SILENT = Anomaly(
    stream_id="mühle/µ",
    timestamp="2026-01-01T00:00:05.250000Z",
    state="cleared",
    direction="gap",
    cause="gap",
    severity="minor",
    score=1.0,
    since="2026-01-01T00:00:01Z",
    value=None,
    expected=None,
    lower=None,
    upper=None,
    model_version=None,
    source=SourcePosition("readings", 0, 0, "temp"),
    seq=21,
)
SILENT_BYTES = (
    '{"stream_id":"mühle/µ","timestamp":"2026-01-01T00:00:05.250000Z","state":"cleared","direction":"gap",'
    '"cause":"gap","severity":"minor","score":1.0,"since":"2026-01-01T00:00:01Z","value":null,'
    '"expected":null,"lower":null,"upper":null,"model_version":null,'
    '"source":{"topic":"readings","partition":0,"offset":0,"field":"temp"},"seq":21}'
).encode()


@pytest.mark.parametrize(("anomaly", "expected"), [(RAISED, RAISED_BYTES), (SILENT, SILENT_BYTES)])
def test_an_anomaly_is_these_bytes_and_these_bytes_are_that_anomaly(anomaly, expected):
    assert encode_anomaly(anomaly) == expected
    assert decode_anomaly(expected) == anomaly


@pytest.mark.parametrize("value", [b"", b"{}", RAISED_BYTES[:-1], RAISED_BYTES.replace(b"172.0", b'"high"')])
def test_bytes_that_are_no_anomaly_are_refused(value):
    with pytest.raises(MsgspecError):
        decode_anomaly(value)
