"""Whatever is in a wave, its forecasts have the bytes that each would have alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from forecaster.codecs.forecast_json import Forecast, SourcePosition, encode_forecast
from forecaster.codecs.forecast_wave import ForecastWave, encode_forecasts
from forecaster.codecs.timestamps import LATEST_TIME, format_time

LEVELS, EXPERTS, STATUSES = (0.1, 0.5, 0.9), ("naive", "100 %", "recurrent"), ("ok", "warming")

numbers = st.floats(-1e30, 1e30) | st.integers(-1000, 1000).map(float)
texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8) | st.sampled_from(
    ['","', '"', "\\", '\\","', "%d", "]],[["]
)
times = st.integers(0, int(LATEST_TIME)).map(float) | st.floats(0, LATEST_TIME).map(lambda time: round(time, 6))
shares = st.floats(0, 1).map(lambda share: float(np.float64(share).round(4)))
rows = st.fixed_dictionaries(
    {
        "stream_id": texts,
        "time": times,
        "value": numbers | st.just(float("nan")),
        "step": st.floats(0, 1e7),
        "quantiles": st.none() | st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=2, max_size=2),
        "status": st.sampled_from(STATUSES),
        "shares": st.lists(shares, min_size=3, max_size=3),
        "offset": st.integers(0, 2**53),
        "field": st.just("") | texts,
        "seq": st.integers(1, 2**40),
        "coverage": st.none() | shares,
        "withheld": st.integers(0, 3),
    }
)


@settings(max_examples=200, deadline=None)
@given(st.lists(rows, max_size=6), texts, texts | st.none())
def test_a_wave_of_forecasts_is_written_as_its_forecasts_are(found, topic, model):
    assert encode_forecasts(make_wave(found, topic, model)) == [alone(row, topic, model) for row in found]


def make_wave(found, topic, model):
    silent = [[float("nan")] * 3] * 2
    return ForecastWave(
        stream_ids=[row["stream_id"] for row in found],
        times=np.array([row["time"] for row in found]),
        values=np.array([row["value"] for row in found]),
        step_seconds=np.array([row["step"] for row in found]),
        quantile_levels=LEVELS,
        quantiles=np.array([row["quantiles"] or silent for row in found]).reshape(len(found), 2, 3),
        statuses=np.array([STATUSES.index(row["status"]) for row in found], np.int64),
        status_names=STATUSES,
        model=model,
        experts=EXPERTS,
        shares=np.array([row["shares"] for row in found]).reshape(len(found), 3),
        network="recurrent",
        topic=topic,
        partition=3,
        offsets=np.array([row["offset"] for row in found], np.int64),
        fields=[row["field"] for row in found],
        sequences=np.array([row["seq"] for row in found], np.int64),
        coverages=np.array([np.nan if row["coverage"] is None else row["coverage"] for row in found]),
        withheld=np.array([row["withheld"] for row in found], np.int64),
    )


def alone(row, topic, model):
    experts = {name: share for name, share in zip(EXPERTS, row["shares"], strict=True) if share > 0}
    return encode_forecast(
        Forecast(
            stream_id=row["stream_id"],
            origin=format_time(row["time"]),
            value=row["value"] if row["value"] == row["value"] else None,
            step_seconds=row["step"],
            quantile_levels=LEVELS,
            quantiles=row["quantiles"],
            status=row["status"],
            model=model if "recurrent" in experts else None,
            experts=experts,
            source=SourcePosition(topic, 3, row["offset"], row["field"]),
            seq=row["seq"],
            coverage=UNSET if row["coverage"] is None else row["coverage"],
            withheld=row["withheld"] or UNSET,
        )
    )
