"""Settings of groups: what one group has of its own, and mistakes that are told before anything is opened."""

from __future__ import annotations

import os
from typing import Any

import pytest

from forecaster.app import build_group_pipelines, build_pipeline, state_terms
from forecaster.errors import ConfigurationError
from forecaster.settings import (
    Settings,
    build_groups,
    declared_season,
    further_seasons,
    group_settings,
    load_settings,
    to_environment,
)


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FORECASTER_"):
            monkeypatch.delenv(name)


def make_settings(*groups: dict[str, Any], **sections: Any) -> Settings:
    return load_settings({"groups": list(groups), **sections})


def test_a_group_has_what_its_preset_says_unless_it_says_otherwise_and_all_else_is_common() -> None:
    settings = make_settings(
        {"name": "rooms", "preset": "sensor", "training": {"window": "2d"}},
        {"name": "hr", "preset": "heart-rate", "season": "12h", "step_seconds": "5s", "start_from": "hr.model"},
        training={"steps": 77},
    )

    rooms, hr, rest = (group_settings(settings, name) for name in ("rooms", "hr", ""))

    assert (rooms.training.window, rooms.training.missing, rooms.training.steps) == (2 * 86_400.0, "interpolate", 77)
    assert (declared_season(rooms), rooms.anomalies.preset) == (86_400.0, "sensor")
    assert (declared_season(hr), hr.streams.step_seconds, hr.training.start_from) == (43_200.0, 5.0, "hr.model")
    assert (hr.training.outliers, hr.anomalies.preset) == ("hampel", "heart-rate")
    assert rest == settings


def test_pipelines_of_groups_keep_the_same_columns() -> None:
    settings = make_settings({"name": "rooms", "preset": "sensor"}, {"name": "hr", "preset": "heart-rate"})

    pipelines = build_group_pipelines(settings)

    assert set(pipelines) == {"rooms", "hr"}
    assert all(pipeline.columns == build_pipeline(settings).columns for pipeline in pipelines.values())


@pytest.mark.parametrize("forecast", [{"seasons": [24, 168]}, {"find_seasons": 2}])
def test_a_group_with_a_season_of_its_own_has_no_further_one_in_columns_that_are_common(
    forecast: dict[str, Any],
) -> None:
    settings = make_settings({"name": "rooms", "season": 12}, {"name": "rest"}, forecast=forecast)

    rooms, rest = (group_settings(settings, name) for name in ("rooms", "rest"))

    assert (declared_season(rooms), further_seasons(rooms)) == (12, (0,))
    assert further_seasons(rest) == further_seasons(settings) != (0,)
    assert build_group_pipelines(settings)["rooms"].columns == build_pipeline(settings).columns
    assert "seasonal_2" in build_pipeline(settings).experts


def test_a_further_season_has_to_fit_the_ring_by_the_step_of_each_group() -> None:
    forecast = {"seasons": ["1d", "7d"]}
    make_settings({"name": "rooms", "step_seconds": 3_600.0}, forecast=forecast)

    with pytest.raises(ConfigurationError, match=r"groups: rooms: .* 604800s is 672 steps .* at least 673"):
        make_settings({"name": "rooms", "step_seconds": 900.0}, forecast=forecast)


def test_a_group_of_another_topic_is_none_here_and_one_field_alone_is_every_stream() -> None:
    groups = (
        {"name": "far", "topic": "other"},
        {"name": "near", "topic": "readings", "fields": ["pulse"]},
    )
    one, two = (make_settings(*groups, readings={"fields": fields}) for fields in (["pulse"], ["pulse", "spo2"]))

    assert build_groups(one).names == ("near", "")
    assert build_groups(one).of("bed-1") == "near"
    assert [build_groups(two).of(stream) for stream in ("bed-1/pulse", "bed-1/spo2")] == ["near", ""]


def test_a_child_is_given_the_same_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings({"name": "rooms", "streams": ["room-*"], "season": "1d", "training": {"steps": 5}})

    for name, value in to_environment(settings).items():
        monkeypatch.setenv(name, value)

    assert load_settings() == settings


def test_state_belongs_to_the_rules_of_membership_and_to_nothing_else_of_a_group() -> None:
    one = make_settings({"name": "a", "streams": ["x"]})
    other = make_settings({"name": "a", "streams": ["y"]})
    trained_otherwise = make_settings({"name": "a", "streams": ["x"], "training": {"steps": 5}})

    assert state_terms(one)["groups"] != state_terms(other)["groups"]
    assert state_terms(one) == state_terms(trained_otherwise)
    assert state_terms(load_settings())["groups"] == []


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ([{"name": "a", "horizon": 3}], "all groups share forecast.horizon"),
        ([{"name": "a", "layers": 3, "quantiles": [0.5]}], "all groups share forecast.quantiles, model.layers"),
        ([{"name": "a"}, {"name": "a"}], "names of their own"),
        ([{"name": "default"}], "default is the group of streams that no other takes"),
        ([{"name": "A b"}], "FORECASTER_GROUPS"),
        ([{"name": "a", "training": {"stpes": 3}}], "training of a: stpes"),
        ([{"name": "a", "training": {"steps": 0}}], "training of a: steps"),
        ([{"name": "a", "training": {"mode": "off"}}], "training of a cannot hold mode"),
        ([{"name": "a", "fields": ["x"]}], r"a takes fields \['x'\], readings.fields are \['value'\]"),
        ([{"name": "a", "season": 5000}], "season 5000 of a does not fit streams.ring_steps"),
        ([{"name": "a", "preset": "weather"}], "heart-rate"),
    ],
)
def test_what_cannot_work_is_told_by_the_name_of_the_group(groups: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        make_settings(*groups)


def test_an_environment_that_is_not_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORECASTER_GROUPS", "[{nope")

    with pytest.raises(ConfigurationError, match=r"FORECASTER_GROUPS is '\[{nope', expected a JSON list"):
        load_settings()
