"""What a publishing policy leaves out, and that nothing but the record is left out."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from factories import START, forecasts_of, make_pipeline, make_raw, make_task, process

from forecaster.codecs.forecast_json import Forecast, decode_forecast
from forecaster.engine.withholding import PublishingRules, Withholding
from forecaster.records import RawRecord
from forecaster.series.columns import Column
from forecaster.series.rows import Rows

NTH = {"when": "every_nth", "nth": 3}
INTERVAL = {"when": "interval", "interval_seconds": 10.0}
CHANGE = {"when": "change", "tolerance": 0.5}


def published(readings: list[RawRecord], publishing: dict[str, Any] | None, **overrides: Any) -> list[Forecast]:
    task = make_task(make_pipeline(publishing=publishing, **overrides))
    return [decode_forecast(value) for value in forecasts_of(process(task, readings).records)]


def decide(policy: Withholding, c: dict[str, np.ndarray], time: float, median: list[float], *, status: int = 1) -> int:
    """One more reading of the stream in slot 1, forecast as ``median`` within an interval two wide."""
    c["readings"][1] += 1
    c["step"][1] = 1.0
    quantiles = np.array(median)[None, :, None] + np.array([-1.0, 0.0, 1.0])
    return int(policy.decide(c, np.array([1]), np.array([time]), quantiles, np.array([status]))[0])


def make_policy(horizon: int = 4, **rules: Any) -> tuple[Withholding, dict[str, np.ndarray]]:
    policy = Withholding(PublishingRules(horizon=horizon, **rules), median=1)
    return policy, Rows([*policy.columns, Column("readings", "i8"), Column("step", "f8")], 2)


def test_every_third_reading_of_each_stream_is_published_and_says_how_many_were_not() -> None:
    readings = [make_raw(offset, stream="ab"[offset % 5 == 0]) for offset in range(20)]

    told = published(readings, NTH)

    assert [f.seq for f in told if f.stream_id == "a"] == [1, 4, 7, 10, 13, 16]
    assert [f.seq for f in told if f.stream_id == "b"] == [1, 4]
    assert [f.withheld or 0 for f in told if f.stream_id == "a"] == [0, 2, 2, 2, 2, 2]


def test_at_most_one_forecast_in_an_interval_of_event_time() -> None:
    times = [0.0, 4.0, 9.99, 10.0, 13.0, 31.0, 32.0]

    told = published([make_raw(k, time=START + time) for k, time in enumerate(times)], INTERVAL)

    assert [f.source.offset for f in told] == [0, 3, 5]
    assert [f.withheld or 0 for f in told] == [0, 2, 1]


def test_what_is_published_is_what_would_have_been_without_the_policy() -> None:
    rng = np.random.default_rng(1)
    readings = [make_raw(offset, value=float(value)) for offset, value in enumerate(rng.standard_normal(60))]

    everything = {f.source.offset: f for f in published(readings, None)}

    for policy in (NTH, INTERVAL, CHANGE):
        told = published(readings, policy)
        assert 0 < len(told) < len(everything)
        for forecast in told:
            plain = msgspec.structs.replace(forecast, withheld=msgspec.UNSET)
            assert plain == everything[forecast.source.offset]


def test_anomalies_and_dead_letters_are_published_whatever_the_policy() -> None:
    values: list[Any] = [float(np.sin(k)) for k in range(150)]
    values[141], values[145] = 500.0, "broken"
    readings = [make_raw(offset, value=value) for offset, value in enumerate(values)]

    def others(publishing: dict[str, Any] | None) -> list[Any]:
        records = process(make_task(make_pipeline(publishing=publishing)), readings).records
        return [(r.topic, r.value) for r in records if r.topic != "forecasts"]

    assert {topic for topic, _ in others(NTH)} == {"anomalies", "readings.dlq"}
    assert others(NTH) == others(None)


def test_withheld_forecasts_are_counted_and_those_published_are_answers() -> None:
    result = process(make_task(make_pipeline(publishing=NTH)), [make_raw(offset) for offset in range(10)])

    assert (result.report.accepted, result.report.withheld, result.forecasts) == (10, 6, 4)


def test_a_forecast_that_says_the_same_of_the_same_times_is_withheld_until_half_of_it_is_past() -> None:
    policy, c = make_policy(when="change", tolerance=0.25, horizon=6)
    trend = np.arange(20.0)  # as it was foretold: lead h of reading k speaks of k + h

    said = [decide(policy, c, START + k, (trend[k : k + 6] * 7).tolist()) for k in range(7)]

    assert said == [0, -1, -1, 2, -1, -1, 2]


@pytest.mark.parametrize(("move", "withheld"), [(0.49, -1), (0.51, 0)])
def test_tolerance_is_a_share_of_the_published_interval(move: float, withheld: int) -> None:
    policy, c = make_policy(when="change", tolerance=0.25)
    decide(policy, c, START, [0.0, 0.0, 0.0, 0.0])

    assert decide(policy, c, START + 1, [0.0, 0.0, move, 0.0]) == withheld


def test_another_status_is_news() -> None:
    policy, c = make_policy(when="change")
    decide(policy, c, START, [0.0] * 4)

    assert decide(policy, c, START + 1, [0.0] * 4, status=3) == 0


def test_a_stream_without_a_value_yet_is_not_withheld() -> None:
    policy, c = make_policy(when="change")

    assert [decide(policy, c, START + k, [np.nan] * 4) for k in range(3)] == [0, 0, 0]


def test_readings_that_come_faster_than_the_step_are_not_held_longer() -> None:
    policy, c = make_policy(when="change", horizon=6)

    said = [decide(policy, c, START + 0.01 * k, [0.0] * 6) for k in range(5)]

    assert said == [0, -1, -1, 2, -1]


def test_under_a_policy_new_to_an_old_stream_nothing_counts_as_withheld() -> None:
    policy, c = make_policy(when="every_nth", nth=3)
    c["readings"][1] = 95

    assert [decide(policy, c, START + k, [0.0] * 4) for k in range(4)] == [0, -1, -1, 2]
