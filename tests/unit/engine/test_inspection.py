import json

import numpy as np
import pytest
from factories import START, forecasts_of, make_pipeline, make_raw, make_recurrent, make_task, process

from forecaster.codecs.forecast_json import decode_forecast
from forecaster.engine.inspection import Inspector


def watched(values, *, recurrent=False, times=None, **overrides):
    """An inspector, a task that has read these values of stream a, one a second, and its last forecast."""
    pipeline = make_pipeline(**overrides)
    task = make_task(pipeline, recurrent=make_recurrent(pipeline) if recurrent else None)
    times = [START + offset for offset in range(len(values))] if times is None else times
    records = [make_raw(offset, "a", times[offset], value) for offset, value in enumerate(values)]
    result = process(task, records)
    return Inspector(), task, decode_forecast(forecasts_of(result.records)[-1])


def test_a_stream_is_described_as_its_last_forecast_has_it():
    values = np.round(20 + np.cumsum(np.random.default_rng(0).standard_normal(100)), 3).tolist()
    inspector, task, forecast = watched(values, recurrent=True)

    detail = inspector.detail(task, "a")

    assert detail["stream_id"] == "a"
    assert (detail["status"], detail["seq"], detail["time"]) == ("ok", 100, forecast.origin)
    assert (detail["value"], detail["step_seconds"], detail["model"]) == (values[-1], 1.0, "gru-test-1")
    assert detail["forecast"]["leads"] == [1, 2, 4]
    np.testing.assert_allclose(
        detail["forecast"]["quantiles"], [forecast.quantiles[lead - 1] for lead in (1, 2, 4)], atol=2e-3
    )
    assert {name: share for name, share in detail["experts"].items() if share} == pytest.approx(
        forecast.experts, abs=2e-4
    )
    assert detail["error_vs_naive"] > 0
    assert 0 < detail["coverage"] < 1
    assert detail["partition"] == 0
    assert detail["calibration"]["leads"] == [1, 2, 4]
    assert np.shape(detail["calibration"]["width_factors"]) == (3, 1)
    assert detail["coverage"] == pytest.approx(forecast.coverage, abs=5e-5)


def test_details_hold_the_seasons_of_a_stream_in_steps():
    pipeline = make_pipeline(declared_season=6, further_seasons=(12, 0))
    task = make_task(pipeline)
    process(task, [make_raw(offset, value=float(offset % 5)) for offset in range(14)])

    detail = Inspector().detail(task, "a")

    assert (detail["season_steps"], detail["further_season_steps"]) == (6, [12, 0])
    assert "seasonal_2" in detail["experts"]


def test_details_hold_width_and_shares_of_the_experts_at_each_anchor_lead():
    values = np.round(20 + np.cumsum(np.random.default_rng(0).standard_normal(100)), 3).tolist()
    inspector, task, forecast = watched(values, recurrent=True)

    detail = inspector.detail(task, "a")

    assert detail["experts_by_lead"]["leads"] == detail["calibration"]["leads"] == [1, 2, 4]
    widths = [forecast.quantiles[lead - 1][-1] - forecast.quantiles[lead - 1][0] for lead in (1, 2, 4)]
    np.testing.assert_allclose(detail["calibration"]["widths"], widths, atol=4e-3)
    shares = np.array(list(detail["experts_by_lead"]["shares"].values()))  # [E, A]
    assert np.ptp(shares, axis=1).max() > 0.01, "no expert is as good at every lead"
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=3e-4)
    one, two, four = shares.T
    mean = np.mean([one, two, (two + four) / 2, four], axis=0)  # the lead between is interpolated
    np.testing.assert_allclose(mean, list(detail["experts"].values()), atol=2e-4)


def test_recent_values_are_those_that_were_read_with_their_times():
    inspector, task, _ = watched([1.5, None, 2.25, 4.0])

    recent = inspector.summary(task, "a")["recent"]

    assert recent["values"] == [1.5, None, 2.25, 4.0]
    assert recent["times"] == [f"2026-01-01T00:00:0{second}Z" for second in range(4)]


def test_a_summary_holds_the_last_sixty_and_the_details_all_that_is_remembered():
    inspector, task, _ = watched([float(n) for n in range(100)], ring_steps=80)

    assert inspector.summary(task, "a")["recent"]["values"] == [float(n) for n in range(40, 100)]
    assert inspector.detail(task, "a")["recent"]["values"] == [float(n) for n in range(20, 100)]


def test_a_stream_without_a_value_is_described_without_numbers():
    inspector, task, _ = watched([None] * 12, recurrent=True)

    detail = inspector.detail(task, "a")

    assert detail["value"] is None
    assert detail["forecast"]["quantiles"] is None
    assert detail["calibration"]["widths"] is None
    assert (detail["error_vs_naive"], detail["coverage"]) == (None, None)
    assert detail["recent"]["values"] == [None] * 12
    json.dumps(detail, allow_nan=False)


def test_a_stream_whose_steps_have_become_decades_long_can_still_be_described():
    """Ages are counted in the present step; times before 1970 there are none."""
    times = [float(n) for n in range(60)] + [6e8 * n for n in range(1, 10)]
    inspector, task, _ = watched([1.0] * len(times), times=times)

    recent = inspector.detail(task, "a")["recent"]

    assert recent["times"][0] == "1970-01-01T00:00:00Z"
    assert recent["times"][-1] == "2141-02-13T00:00:00Z"


@pytest.mark.parametrize("values", [[0.0] * 30 + [1e12, 5.0], [7.0] * 40, [1e29, -1e29] * 20])
def test_descriptions_are_json_whatever_the_values_were(values):
    inspector, task, _ = watched(values, recurrent=True)

    json.dumps(inspector.detail(task, "a"), allow_nan=False)


def test_looking_changes_nothing():
    inspector, task, _ = watched([float(n % 7) for n in range(70)], recurrent=True)
    before = {name: array.copy() for name, array in task.table.arrays.items()}

    inspector.summary(task, "a")
    inspector.detail(task, "a")

    for name, array in task.table.arrays.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_a_sample_holds_the_published_forecast_at_the_anchor_leads_and_its_weights():
    values = np.round(20 + np.cumsum(np.random.default_rng(0).standard_normal(100)), 3).tolist()
    inspector, task, forecast = watched(values, recurrent=True)

    sample = inspector.sample(task, "a")

    assert (sample.stream_id, sample.time, sample.value, sample.step_seconds) == ("a", START + 99, values[-1], 1.0)
    levels = forecast.quantile_levels
    published = {(lead, level): forecast.quantiles[lead - 1][n] for lead in (1, 2, 4) for n, level in enumerate(levels)}
    assert sample.forecast == pytest.approx(published, abs=2e-3)
    assert {name: share for name, share in sample.weights.items() if share} == pytest.approx(forecast.experts, abs=2e-4)
    summary = inspector.summary(task, "a")
    assert (sample.error_vs_naive, sample.coverage) == (summary["error_vs_naive"], summary["coverage"])


def test_a_sample_says_whether_the_stream_is_in_an_anomaly():
    well, task, _ = watched([float(n % 7) for n in range(60)])
    assert not well.sample(task, "a").is_anomalous

    flat, task, _ = watched([float(n % 7) for n in range(60)] + [3.0] * 60)
    assert flat.detail(task, "a")["anomaly"]["cause"] == "flat"
    assert flat.sample(task, "a").is_anomalous


def test_a_sample_of_a_stream_without_a_value_has_no_forecast():
    inspector, task, _ = watched([None, None])

    sample = inspector.sample(task, "a")

    assert np.isnan(sample.value)
    assert (sample.forecast, sample.weights) == ({}, {})
