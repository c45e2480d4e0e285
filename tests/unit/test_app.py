"""The wiring: settings become a daemon that answers, and models that do not fit the settings are turned away."""

from __future__ import annotations

import gc
import json
import logging
import weakref
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from factories import START, make_raw

from forecaster.anomaly.detector import AnomalyRules
from forecaster.anomaly.presets import PRESETS
from forecaster.app import build_daemon, build_detector, build_encoder, state_terms, train_challenger
from forecaster.codecs.avro import MARKER
from forecaster.codecs.forecast_avro import read_forecast
from forecaster.models.artifact import DataSpan, ModelArtifact
from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.network import RecurrentForecaster
from forecaster.settings import Settings, load_settings
from forecaster.stores.registry_directory import DirectoryRegistry
from forecaster.training.history import History, Series
from forecaster.transports.memory import MemorySink, MemorySource


def make_settings(tmp_path: Path, **more: Any) -> Settings:
    return load_settings(
        {
            "registry": {"kind": "directory", "directory": str(tmp_path / "models")},
            "training": {"mode": "off"},
            "telemetry": {"port": 0},
            "forecast": {"horizon": 4},
            "model": {"hidden": 8},
            "engine": {"boundary_records": 1},
            **more,
        }
    )


def make_artifact(
    settings: Settings, *, seed: int = 1, season_seconds: tuple[float, ...] = (), **overrides: Any
) -> ModelArtifact:
    """An untrained network."""
    features = build_encoder(settings).feature_names
    shape: dict[str, Any] = {"horizon": 4, "hidden": 8, "feature_names": features, "used_features": features}
    network = RecurrentForecaster.seeded(HyperParameters(**(shape | overrides)), seed)
    span = DataSpan(first=START, last=START + 1, streams=1, readings=2)
    return ModelArtifact.create(network, created=START, data=span, season_seconds=season_seconds)


def promote(settings: Settings, **overrides: Any) -> str:
    """An untrained network becomes champion of the registry of the settings."""
    artifact = make_artifact(settings, **overrides)
    registry = DirectoryRegistry(settings.registry.directory)
    registry.put(artifact)
    registry.promote(artifact.version, {}, now=START)
    return artifact.version


class EndingSink(MemorySink):
    """Tells the daemon to stop when so many forecasts are there: a topic has no end."""

    def __init__(self, stop: Event, forecasts: int) -> None:
        super().__init__()
        self._stop, self._wanted = stop, forecasts

    def flush(self, timeout_seconds: float) -> None:
        super().flush(timeout_seconds)
        if len(self.of_topic("forecasts")) == self._wanted:
            self._stop.set()


def published(settings: Settings, *, embedded: bool = True) -> list[bytes]:
    """What the daemon publishes for 30 readings of one stream."""
    source = MemorySource([make_raw(k, value=float(k % 5)) for k in range(30)])
    stop = Event()
    sink = MemorySink() if embedded else EndingSink(stop, 30)
    build_daemon(settings, source=source, sink=sink, embedded=embedded).run(stop)
    return [record.value or b"" for record in sink.of_topic("forecasts")]


def answers(settings: Settings) -> list[dict[str, Any]]:
    """The same, read."""
    return [json.loads(value) for value in published(settings)]


def test_the_format_of_forecasts_is_a_setting_of_topics_and_changes_nothing_else(tmp_path):
    plain, avro = make_settings(tmp_path), make_settings(tmp_path, publish={"format": "avro"})

    as_json, as_avro = published(plain, embedded=False), published(avro, embedded=False)

    assert [read_forecast(value) for value in as_avro] == [read_forecast(value) for value in as_json]
    assert {value[:2] for value in as_avro} == {MARKER}
    assert published(avro) == as_json, "files hold JSON lines"


def test_the_champion_of_the_registry_serves(tmp_path):
    settings = make_settings(tmp_path)
    version = promote(settings)

    published = answers(settings)

    assert len(published) == 30
    assert [p["status"] for p in published[:9]] == ["warming"] * 9
    assert [p["status"] for p in published[9:]] == ["ok"] * 21
    assert {p["model"] for p in published[9:]} <= {version, None}
    assert any(p["model"] == version for p in published[9:]), "once a forecast of its own has settled"


@pytest.mark.parametrize("keeps", [False, True])
def test_the_champion_before_answers_beside_it_where_the_settings_say_so(tmp_path: Path, keeps: bool) -> None:
    settings = make_settings(tmp_path, promotion={"keep_former": keeps})
    for seed in (1, 2):
        version = promote(settings, seed=seed)

    published = answers(settings)

    assert {p["model"] for p in published[9:]} <= {version, None}
    assert any("former" in p["experts"] for p in published) == keeps


def test_networks_that_serve_no_more_are_let_go(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    daemon = build_daemon(settings, source=MemorySource([]), sink=MemorySink(), embedded=True)
    models = [make_artifact(settings, seed=seed) for seed in range(8)]

    networks = [weakref.ref(daemon._make_recurrent(model, None)) for model in models]

    gc.collect()
    assert networks[0]() is None
    assert daemon._make_recurrent(models[-1], None) is networks[-1](), "who serves is not made again"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"horizon": 6}, "forecast.horizon 6, here 4"),
        ({"quantile_levels": (0.05, 0.5, 0.95)}, "forecast.quantiles (0.05, 0.5, 0.95), here (0.1, 0.5, 0.9)"),
        ({"hidden": 16}, "(1, 16), here (1, 8)"),
        ({"cell": "lstm"}, "(1, 16), here (1, 8)"),
        ({"feature_names": ("change",), "used_features": ("change",)}, "inputs ('change',)"),
        ({"future_inputs": 8}, "numbers known ahead 8, here 0"),
    ],
)
def test_a_champion_that_does_not_fit_the_settings_is_named_and_the_baselines_answer(
    tmp_path, caplog, overrides, named
):
    settings = make_settings(tmp_path)
    version = promote(settings, **overrides)

    with caplog.at_level(logging.ERROR):
        published = answers(settings)

    assert len(published) == 30
    assert {p["model"] for p in published} == {None}
    assert len(caplog.records) == 1
    assert version in caplog.records[0].error  # type: ignore[attr-defined]
    assert named in caplog.records[0].error  # type: ignore[attr-defined]


def test_a_preset_gives_what_is_not_set_a_value_and_nothing_else() -> None:
    heart = build_detector(load_settings({"anomalies": {"preset": "heart-rate", "gap_steps": 99}}))

    assert heart.rules.episodes.min_readings == PRESETS["heart-rate"].min_readings
    assert (heart.rules.gap_steps, heart.rules.flat_readings) == (99, PRESETS["heart-rate"].flat_readings)
    assert build_detector(load_settings()).rules == AnomalyRules(flat_readings=60, gap_steps=10)


def test_what_is_known_ahead_is_a_term_of_the_state_only_where_something_is() -> None:
    told = load_settings({"readings": {"known_ahead": ["tariff"]}})

    assert state_terms(told) == state_terms(load_settings()) | {"readings.known_ahead": ("tariff",)}


@pytest.mark.parametrize(
    ("forecast", "experts"),
    [({}, {"seasonal"}), ({"find_seasons": 2}, {"seasonal", "seasonal_2"}), ({"seasons": [5]}, {"seasonal"})],
    ids=["one", "two", "declared"],
)
def test_a_longer_season_of_the_model_takes_part_where_it_was_asked_for(
    tmp_path: Path, forecast: dict[str, Any], experts: set[str]
) -> None:
    settings = make_settings(tmp_path, forecast={"horizon": 4, **forecast})
    promote(settings, season_seconds=(5.0, 10.0))

    told = answers(settings)

    assert {name for answer in told for name in answer["experts"] if name.startswith("seasonal")} == experts


def test_a_training_looks_for_as_many_seasons_as_the_settings_say(tmp_path: Path) -> None:
    hours, day = np.arange(24 * 7 * 4), 86_400.0
    values = 3.0 * np.sin(hours * 2 * np.pi / 24) - 2.0 * (hours % 168 >= 120)
    values += 0.3 * np.random.default_rng(0).standard_normal(len(hours))
    history = History({"s": Series(START + 3_600.0 * hours, values)})

    def found(**forecast: Any) -> tuple[float, ...]:
        settings = make_settings(tmp_path, forecast={"horizon": 4, **forecast}, training={"mode": "off", "steps": 1})
        outcome = train_challenger(settings, history, champion=None, now=START, max_seconds=1e9)
        return outcome.artifact.manifest.season_seconds

    assert found() == (day,)
    assert found(find_seasons=2) == (day, 7 * day)
    assert found(find_seasons=2, seasons=["1d"]) == (day,)
