"""Settings: where values come from, and what people are told about values that cannot work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from forecaster.errors import ConfigurationError
from forecaster.settings import (
    Settings,
    declared_season,
    further_seasons,
    load_settings,
    parse_duration,
    parse_season,
    to_environment,
)


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:

    for name in list(os.environ):
        if name.startswith("FORECASTER_"):
            monkeypatch.delenv(name)


def mistake(**sources: Any) -> str:
    """What a person reads when these settings are loaded."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**sources)
    assert caught.value.hint
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"flag", "environment", "secret", "toml", "default"}, "flag"),
        ({"environment", "secret", "toml", "default"}, "environment"),
        ({"secret", "toml", "default"}, "secret"),
        ({"toml", "default"}, "toml"),
        ({"default"}, "default"),
        (set(), "forecaster"),
    ],
)
def test_flags_go_before_environment_before_secrets_before_toml_before_defaults(
    tmp_path, monkeypatch, sources, expected
):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    if "environment" in sources:
        monkeypatch.setenv("FORECASTER_KAFKA__GROUP_ID", "environment")
    if "secret" in sources:
        write(secrets / "FORECASTER_KAFKA__GROUP_ID", "secret\n")
    toml = write(tmp_path / "forecaster.toml", '[kafka]\ngroup_id = "toml"\n' if "toml" in sources else "")

    settings = load_settings(
        {"kafka": {"group_id": "flag"}} if "flag" in sources else {},
        defaults={"kafka": {"group_id": "default"}} if "default" in sources else {},
        config_file=toml,
        secrets_dir=secrets,
    )

    assert settings.kafka.group_id == expected


def test_sources_are_merged_field_by_field(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECASTER_KAFKA__GROUP_ID", "from-environment")
    toml = write(tmp_path / "f.toml", '[kafka]\nbootstrap_servers = "kafka:9092"\ngroup_id = "from-toml"\n')

    kafka = load_settings({"kafka": {"start": "latest"}}, config_file=toml).kafka

    assert (kafka.bootstrap_servers, kafka.group_id, kafka.start) == ("kafka:9092", "from-environment", "latest")


def test_file_and_secrets_directory_can_be_named_in_the_environment(tmp_path, monkeypatch):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    write(secrets / "forecaster_kafka__sasl_password", "hunter2\n")
    monkeypatch.setenv("FORECASTER_CONFIG", str(write(tmp_path / "f.toml", "[forecast]\nhorizon = 3\n")))
    monkeypatch.setenv("FORECASTER_SECRETS_DIR", str(secrets))

    settings = load_settings()

    assert settings.forecast.horizon == 3
    assert settings.kafka.sasl_password.get_secret_value() == "hunter2"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("90s", 90.0),
        ("15m", 900.0),
        ("15 min", 900.0),
        ("1.5h", 5400.0),
        ("14d", 1_209_600.0),
        ("1w", 604_800.0),
        ("30", 30.0),
        (30, 30),
    ],
)
def test_durations_have_units_or_are_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "1 fortnight", "h", "", "1h30m"])
def test_a_duration_that_cannot_be_read_says_what_one_looks_like(text):
    message = mistake(overrides={"training": {"every": text}})

    assert "training.every" in message
    assert "15m" in message
    assert repr(text) in message


@pytest.mark.parametrize(
    ("season", "declared"),
    [
        ("24", 24),
        (24, 24),
        ("0", 0),
        ("1d", 86_400.0),
        ("365d", 31_536_000.0),
        ("12345678s", 12_345_678.0),
        ("250ms", 0.25),
    ],
)
def test_a_season_is_steps_or_a_duration(season, declared):
    settings = load_settings({"forecast": {"seasons": [season]}})

    assert declared_season(settings) == declared
    assert type(declared_season(settings)) is type(declared)


def test_no_season_is_left_to_training():
    assert declared_season(load_settings()) is None
    assert further_seasons(load_settings()) == ()
    assert further_seasons(load_settings({"forecast": {"find_seasons": 2}})) == (None,)


def test_each_season_beyond_the_first_is_a_further_one_and_none_is_looked_for_then():
    settings = load_settings({"forecast": {"seasons": [24, "7d", 100], "find_seasons": 2}})

    assert declared_season(settings) == 24
    assert further_seasons(settings) == (604_800.0, 100)


@pytest.mark.parametrize("season", ["365d", "1d", "12h", "250ms", "24"])
def test_a_parsed_season_can_be_parsed_again(season):
    once = parse_season(season)

    assert parse_season(once) == once


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            {"forecast": {"horizon": 0}},
            ["forecast.horizon", "FORECASTER_FORECAST__HORIZON", "greater than or equal to 1", "found 0"],
        ),
        ({"forecast": {"horizon": "many"}}, ["forecast.horizon", "valid integer", "'many'"]),
        ({"telemetry": {"port": 70_000}}, ["telemetry.port", "65535", "70000"]),
        ({"telemetry": {"log_level": "LOUD"}}, ["telemetry.log_level", "'WARNING'", "'LOUD'"]),
        ({"model": {"cell": "transformer"}}, ["model.cell", "'lstm'", "'transformer'"]),
        ({"forecast": {"quantiles": [0.1, 0.9]}}, ["forecast", "hold 0.5", "[0.1, 0.9]"]),
        ({"forecast": {"quantiles": [0.5, 0.1, 0.9]}}, ["must rise", "[0.5, 0.1, 0.9]"]),
        ({"forecast": {"quantiles": [0.1, 0.5, 0.8]}}, ["symmetric", "[0.1, 0.5, 0.8]"]),
        ({"forecast": {"seasons": ["soon"]}}, ["forecast.seasons", "24", "1d", "'soon'"]),
        ({"forecast": {"seasons": [-3]}}, ["forecast.seasons", "below 0", "-3"]),
        ({"forecast": {"seasons": [1, 2, 3, 4, 5]}}, ["forecast.seasons", "at most 4"]),
        ({"forecast": {"seasons": [24, 24]}}, ["forecast", "differ", "[24, 24]"]),
        ({"forecast": {"seasons": [24, 0]}}, ["forecast", "0 stands alone", "[24, 0]"]),
        ({"forecast": {"seasons": [24, 400]}}, ["forecast.seasons 400", "streams.ring_steps 336", "at least 401"]),
        (
            {"forecast": {"seasons": ["1d", "7d"]}, "streams": {"step_seconds": "15m"}},
            ["forecast.seasons 604800s is 672 steps", "streams.step_seconds 900", "at least 673"],
        ),
        ({"forecast": {"seasons": [400]}}, ["forecast.seasons 400", "streams.ring_steps 336", "at least 401"]),
        ({"readings": {"minimum": 5, "maximum": 5}}, ["minimum 5", "maximum 5"]),
        ({"readings": {"fields": ["timestamp"]}}, ["used twice", "'timestamp'"]),
        ({"topics": {"forecasts": "readings"}}, ["topics.readings", "must differ", "'readings'"]),
        ({"topics": {"feedback": "readings"}}, ["topics.readings", "must differ", "'readings'"]),
        ({"kafka": {"request_timeout_seconds": 60}}, ["kafka", "request_timeout_seconds 60", "a second longer"]),
        ({"delivery": "at_most_once"}, ["delivery", "'exactly_once'", "'at_least_once'", "'at_most_once'"]),
    ],
)
def test_a_mistake_names_field_expectation_and_value(overrides, told):
    message = mistake(overrides=overrides)

    assert [part for part in told if part not in message] == []


def test_all_mistakes_are_told_at_once():
    message = mistake(overrides={"forecast": {"horizon": 0}, "telemetry": {"port": -1}})

    assert [line.split()[1] for line in message.splitlines()] == ["forecast.horizon", "telemetry.port"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("FORECASTER_FORECAST__HORIZONN", "forecast.horizon"),
        ("FORECASTER_FORCAST__HORIZON", "forecast.horizon"),
        ("FORECASTER_HORIZON", "forecast.horizon"),
        ("FORECASTER_TELEMETRIE__X", "telemetry"),
    ],
)
def test_an_unknown_environment_variable_is_named_with_the_nearest_setting(monkeypatch, name, nearest):
    monkeypatch.setenv(name, "3")

    message = mistake()

    assert name in message
    assert f"did you mean {nearest}?" in message


def test_what_is_close_to_nothing_gets_no_suggestion(monkeypatch):
    monkeypatch.setenv("FORECASTER_QQQQ", "3")

    assert mistake() == "Environment variable FORECASTER_QQQQ names no setting."


@pytest.mark.parametrize("text", ["horizon = 3\n", "[telemetrie]\nport = 1\n", "[forecast]\nhorizn = 3\n"])
def test_an_unknown_key_of_the_toml_file_is_named(tmp_path, text):
    message = mistake(config_file=write(tmp_path / "f.toml", text))

    assert "does not exist; did you mean" in message


def test_a_file_that_is_not_toml_is_named_with_the_place(tmp_path):
    message = mistake(config_file=write(tmp_path / "f.toml", "[forecast\nhorizon = 3\n"))

    assert f"{tmp_path / 'f.toml'} is not TOML" in message
    assert "line 1" in message


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "f.toml").write_bytes(b"\xff\xfe\x00")

    assert f"{tmp_path / 'f.toml'} is not TOML" in mistake(config_file=tmp_path / "f.toml")


def test_files_and_directories_that_are_not_there_are_named(tmp_path):
    assert str(tmp_path / "none.toml") in mistake(config_file=tmp_path / "none.toml")
    assert str(tmp_path) in mistake(config_file=tmp_path)
    assert str(tmp_path / "none") in mistake(secrets_dir=tmp_path / "none")


def test_a_list_in_the_environment_that_is_not_json_is_shown_with_an_example(monkeypatch):
    monkeypatch.setenv("FORECASTER_FORECAST__QUANTILES", "0.1,0.5,0.9")

    assert "FORECASTER_FORECAST__QUANTILES is '0.1,0.5,0.9', expected a JSON list such as [0.1, 0.5, 0.9]" in mistake()


@pytest.mark.parametrize(
    "overrides",
    [
        {"kafka": {"sasl_password": ["hunter2"]}},  # of the wrong type
        {"kafka": {"sasl_password": "hunter2", "request_timeout_seconds": 60}},  # beside values that do not fit
        {"kafka": {"sasl_password": "hunter2"}, "topics": {"forecasts": "readings"}},
        {"kafka": {"sasl_pasword": "hunter2"}},  # under a name that does not exist
        {"kafka": {"proxy_url": "socks5://me:hunter2@bastion"}},  # without a port
    ],
)
def test_a_secret_never_stands_in_an_error(overrides):
    assert "hunter2" not in mistake(overrides=overrides)


@pytest.mark.parametrize("url", ["bastion:1080", "socks4://bastion:1080", "socks5://bastion", "socks5h://:1080 "])
def test_a_proxy_that_is_no_address_of_one_is_refused(url):
    assert "expected socks5://, socks5h:// or http:// with host and port" in mistake(
        overrides={"kafka": {"proxy_url": url}}
    )


@pytest.mark.parametrize("url", ["", "socks5://bastion:1080", "socks5h://me:word@10.0.0.7:1080", "http://proxy:3128"])
def test_a_proxy_is_given_as_an_address(url):
    assert load_settings({"kafka": {"proxy_url": url}}).kafka.proxy_url.get_secret_value() == url


def test_a_secret_never_stands_in_what_is_printed():
    settings = load_settings({"kafka": {"sasl_password": "hunter2"}})

    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert settings.kafka.sasl_password == SecretStr("hunter2")


def test_settings_do_not_change_once_loaded():
    settings = load_settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.forecast.horizon = 3  # type: ignore[misc]


def test_the_environment_of_a_child_gives_it_equal_settings(monkeypatch):
    settings = load_settings(
        {
            "kafka": {"sasl_password": "hünter 2\"'", "instance_id": "w-7", "static_membership": True},
            "readings": {"fields": ["heart rate", "spo2"], "covariates": ["age"], "minimum": -1.5},
            "forecast": {"quantiles": [0.05, 0.5, 0.95], "seasons": ["365d"], "horizon": 48},
            "training": {"every": "20m", "min_wall_seconds": 0.25},
            "registry": {"directory": "/srv/a b/models"},
        }
    )

    for name, value in to_environment(settings).items():
        monkeypatch.setenv(name, value)

    assert load_settings() == settings
    assert isinstance(settings, Settings)


def test_the_environment_of_a_child_holds_every_setting_that_has_a_value():
    settings = load_settings({"anomalies": {"gap_steps": 7}})

    names = {
        f"FORECASTER_{section}__{field}".upper() if fields else f"FORECASTER_{section}".upper()
        for section, fields in settings.model_dump().items()
        for field in (fields if isinstance(fields, dict) else [""])
        if not isinstance(fields, dict) or fields[field] is not None
    }

    assert "FORECASTER_ANOMALIES__GAP_STEPS" in names
    assert "FORECASTER_ANOMALIES__MIN_READINGS" not in names, "of the preset, by default"

    assert {name.removesuffix("__") for name in names} == set(to_environment(settings))
