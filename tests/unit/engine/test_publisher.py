import numpy as np
import pytest
from factories import START, headers_of, make_raw
from msgspec import UNSET

from forecaster.codecs.forecast_json import decode_forecast
from forecaster.engine.pipeline import STATUSES, Answers
from forecaster.engine.publisher import Publisher
from forecaster.records import DeadLetter, Observation, RawRecord, Reason, Status


def make_answers(**overrides):
    return Answers(
        **{
            "tags": np.array([0]),
            "slots": np.array([1]),
            "times": np.array([START]),
            "values": np.array([72.0]),
            "step_seconds": np.array([5.0]),
            "quantiles": np.array([[[70.9, 72.1, 73.4], [70.0, 72.0, 74.0]]]),
            "statuses": np.array([STATUSES.index(Status.OK)]),
            "weights": np.array([[0.28999, 0.00001, 0.71]], np.float32),
            "readings": np.array([512]),
            "coverages": np.array([0.79286]),
            **overrides,
        }
    )


def published(model="gru-1", observation=None, **overrides):
    publisher = Publisher(
        forecasts="forecasts",
        dead_letters="readings.dlq",
        quantile_levels=(0.1, 0.5, 0.9),
        experts=("naive", "seasonal", "recurrent"),
    )
    raw = RawRecord("readings", 3, 1812, 5.0, b"ward", b"{}")
    reading = (raw, observation or Observation("ward", START, 72.0))
    [record] = publisher.forecasts(make_answers(**overrides), [reading], model)
    return record, decode_forecast(record.value)


def test_a_forecast_names_all_that_is_needed_to_judge_it():
    record, forecast = published()

    assert (record.topic, record.partition, record.key, record.headers) == ("forecasts", 3, b"ward", ())
    assert record.timestamp is None
    assert (forecast.stream_id, forecast.origin, forecast.value) == ("ward", "2026-01-01T00:00:00Z", 72.0)
    assert (forecast.status, forecast.model, forecast.seq, forecast.step_seconds) == ("ok", "gru-1", 512, 5.0)
    assert forecast.quantiles == [[70.9, 72.1, 73.4], [70.0, 72.0, 74.0]]
    assert forecast.experts == {"naive": 0.29, "recurrent": 0.71}
    assert forecast.coverage == 0.7929
    assert (forecast.source.topic, forecast.source.partition, forecast.source.offset) == ("readings", 3, 1812)


def test_a_missing_reading_has_no_value_and_a_silent_stream_no_quantiles():
    _, missing = published(values=np.array([np.nan]))
    _, silent = published(values=np.array([np.nan]), quantiles=np.full((1, 2, 3), np.nan))

    assert missing.value is None
    assert missing.quantiles is not None
    assert silent.quantiles is None


def test_a_stream_of_which_no_forecast_has_been_judged_has_no_coverage():
    record, forecast = published(coverages=np.array([np.nan]))

    assert forecast.coverage is UNSET
    assert b"coverage" not in record.value


@pytest.mark.parametrize(
    ("model", "weight", "expected"), [("gru-1", 0.5, "gru-1"), ("gru-1", 0.0, None), (None, 0.0, None)]
)
def test_a_model_is_named_where_it_took_part(model, weight, expected):
    _, forecast = published(model, weights=np.array([[1.0 - weight, 0.0, weight]], np.float32))

    assert forecast.model == expected


def test_one_target_of_several_is_named_in_the_source():
    record, forecast = published(observation=Observation("ward/temp", START, 72.0, "temp"))

    assert record.key == b"ward/temp"
    assert forecast.source.field == "temp"


def test_a_dead_letter_holds_the_bytes_it_came_in_and_the_reason():
    publisher = Publisher(forecasts="f", dead_letters="dlq", quantile_levels=(0.5,), experts=("naive",))
    raw = make_raw(7)

    record = publisher.dead_letter(DeadLetter(raw, Reason.LATE, "too late", "temp"))

    assert (record.topic, record.partition, record.key, record.value) == ("dlq", 0, raw.key, raw.value)
    headers = headers_of(record)
    assert (headers["reason"], headers["detail"], headers["field"]) == ("late", "too late", "temp")
    assert (headers["source.topic"], headers["source.offset"]) == ("readings", "7")
    assert record.timestamp is None, "the time of publishing: with the reading's, retention would take it at once"
