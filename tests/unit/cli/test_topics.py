"""Which topics are made, and how large a message they have to take."""

from __future__ import annotations

import argparse

import pytest

from forecaster.cli import topics
from forecaster.codecs.forecast_json import Forecast, SourcePosition, encode_forecast
from forecaster.settings import load_settings
from forecaster.transports.kafka_admin import TopicDescription


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("FORECASTER_")]:
        monkeypatch.delenv(name)


def test_new_topics_have_the_partitions_and_replicas_of_the_settings():
    settings = load_settings({"topics": {"partitions": 6, "replication": 2, "forecasts": "answers"}})

    plans = topics.plan_topics(settings, {}, None)

    assert [(plan.name, plan.partitions, plan.replication) for plan in plans] == [
        ("readings", 6, 2),
        ("answers", 6, 2),
        ("readings.dlq", 6, 2),
        ("anomalies", 6, 2),
        ("forecaster.state", 6, 2),
        ("forecaster.models", 1, 2),
    ]
    assert [plan.configs for plan in plans] == [{}, {}, {}, {}, *[{"cleanup.policy": "compact"}] * 2]


def test_where_nobody_looks_for_anomalies_no_topic_is_made_for_them():
    plans = topics.plan_topics(load_settings({"anomalies": {"enabled": False}}), {}, None)

    assert "anomalies" not in [plan.name for plan in plans]


def test_a_topic_of_feedback_is_made_and_checked_where_it_is_named():
    named, unnamed = load_settings({"topics": {"feedback": "labels"}}), load_settings()

    assert ("labels", {}) in [(plan.name, plan.configs) for plan in topics.plan_topics(named, {}, None)]
    assert "labels" in topics.topic_names(named)
    assert set(topics.topic_names(named)) - set(topics.topic_names(unnamed)) == {"labels"}


def test_without_state_in_kafka_no_topic_is_made_for_it():
    plans = topics.plan_topics(load_settings({"delivery": "at_least_once"}), {}, None)

    assert "forecaster.state" not in [plan.name for plan in plans]


def test_answers_get_as_many_partitions_as_an_existing_readings_topic_has():
    settings = load_settings({"topics": {"partitions": 6}})
    existing = {"readings": TopicDescription(name="readings", partitions=24, replication=1)}

    plans = topics.plan_topics(settings, existing, None)

    assert {plan.name: plan.partitions for plan in plans} == {
        "readings": 24,
        "forecasts": 24,
        "readings.dlq": 24,
        "anomalies": 24,
        "forecaster.state": 24,
        "forecaster.models": 1,
    }


def test_retention_goes_to_the_broker_in_milliseconds():
    assert topics.plan_topics(load_settings(), {}, 3600.0)[0].configs == {"retention.ms": "3600000"}


@pytest.mark.parametrize("text", ["0", "-1d", "0.5s", "soon", "inf", "nan"])
def test_a_retention_that_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        topics._retention(text)


@pytest.mark.parametrize(("horizon", "quantiles"), [(12, (0.1, 0.5, 0.9)), (512, tuple(q / 40 for q in range(1, 40)))])
def test_no_forecast_is_larger_than_the_largest_message(horizon, quantiles):
    settings = load_settings(
        {"forecast": {"horizon": horizon, "quantiles": quantiles}, "readings": {"fields": ("température",)}}
    )
    stream_id = '"' * settings.readings.max_id_bytes  # each is two bytes in JSON
    number = -2.2250738585072014e-308  # none has more digits
    forecast = Forecast(
        stream_id=f"{stream_id}/température",
        origin="2026-01-01T00:00:00.000001Z",
        value=number,
        step_seconds=number,
        quantile_levels=(number,) * len(quantiles),
        quantiles=[[number] * len(quantiles)] * horizon,
        status="warming",
        model="lstm-20260101T000000-abcdef",
        experts={"recurrent": 0.3333, "naive": 0.3333, "seasonal_naive": 0.3334},
        source=SourcePosition("r" * 249, 9_999, 2**63, "température"),
        seq=2**63,
    )

    written = len(encode_forecast(forecast)) + len(forecast.stream_id.encode())

    assert written <= topics.largest_message_bytes(settings)
    assert horizon == 12 or written > 0.9 * topics.largest_message_bytes(settings), "the bound is of some use"


def test_a_full_batch_has_to_fit_where_forecasts_are_short():
    assert topics.largest_message_bytes(load_settings()) == 262_144
