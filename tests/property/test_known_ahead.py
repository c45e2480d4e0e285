"""What is known ahead: it changes the forecasts it is known to, and nothing of the value's own future ever does."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from backtests import HOUR, START, make_backtest, play, quick_settings

from forecaster.app import build_daemon
from forecaster.codecs.timestamps import format_time
from forecaster.settings import Settings
from forecaster.stores.registry_directory import DirectoryRegistry
from forecaster.transports.file import FileSource
from forecaster.transports.memory import MemorySink
from forecaster.transports.tables import COMMON_FORMS

ROWS = 600
STREAMS = 3
HORIZON = 4


def make_plan(rows: int, *, seed: int) -> np.ndarray:
    """On and off for a random while each: nothing in the past tells when it changes."""
    rng = np.random.default_rng([seed, 1])
    return np.repeat(np.arange(rows) % 2, rng.integers(2, 9, rows))[:rows].astype(np.float64)


def make_planned(rows: int = ROWS, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values that follow a plan, and the plan, both ``[streams, rows]``."""
    rng = np.random.default_rng([seed, 0])
    plans = np.stack([make_plan(rows, seed=10 * seed + k) for k in range(STREAMS)])
    noise = rng.standard_normal((STREAMS, rows))
    for t in range(1, rows):
        noise[:, t] += 0.8 * noise[:, t - 1]
    return 50.0 + noise + 10.0 * plans, plans


def write_planned(path: Path, values: np.ndarray, plans: np.ndarray) -> Path:
    """A table whose column ``plan`` is known ahead, and stands a second time as the covariate ``now``."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["stream_id", "timestamp", "value", "plan", "now"])
        for t in range(values.shape[1]):
            for k in range(STREAMS):
                at, plan = format_time(START + HOUR * t), plans[k, t]
                rows.writerow([f"s{k}", at, f"{values[k, t]:.6f}", plan, plan])
    return path


def settings_of(*, known: bool = True, **sections: Any) -> Settings:
    readings = {"covariates": ["now"], "known_ahead": ["plan"] if known else []}
    return quick_settings(readings=readings, forecast={"seasons": []}, **sections)


def test_a_plan_that_the_value_follows_makes_forecasts_several_times_better_at_every_lead(tmp_path):
    """After the warm-up of 180 rows, with one training; the values are noise of deviation 1.7 and steps of 10."""
    values, plans = make_planned()
    table = write_planned(tmp_path / "t.csv", values, plans)

    errors = {}
    for known in (False, True):
        backtest = make_backtest(tmp_path / str(known), table, settings_of(known=known))
        playback, made = play(backtest, every_rows=0)
        assert playback.champions
        errors[known] = np.mean(
            [
                [
                    np.abs(made[f"s{k}"].quantiles[200 : ROWS - lead, lead - 1, 1] - values[k, 200 + lead :]).mean()
                    for lead in range(1, HORIZON + 1)
                ]
                for k in range(STREAMS)
            ],
            axis=0,
        )

    assert (errors[True] < 0.5 * errors[False]).all(), errors


@pytest.mark.parametrize("seed", range(2))
def test_readings_after_an_origin_change_nothing_and_a_plan_for_its_leads_does(tmp_path, seed):
    """Trainings included. The plan from row 401 on is known from row 397 on, and used there."""
    values, plans = make_planned(seed=seed)
    other_values, other_plans = values.copy(), plans.copy()
    other_values[:, 400:] = 1_000.0 * np.random.default_rng(seed).standard_normal((STREAMS, ROWS - 400))
    other_plans[:, 401:] = 1.0 - plans[:, 401:]

    made = []
    for name, table in (
        ("as it was", (values, plans)),
        ("values", (other_values, plans)),
        ("plans", (values, other_plans)),
    ):
        path = write_planned(tmp_path / f"{name}.csv", *table)
        playback, forecasts = play(make_backtest(tmp_path / name, path, settings_of()), every_rows=280)
        assert [note.at for note in playback.trainings] == [3 * 176, 3 * 456]
        assert playback.champions
        made.append(forecasts)

    for stream_id, ours in made[0].items():
        values_changed, plans_changed = (other[stream_id].quantiles for other in made[1:])
        assert np.array_equal(ours.quantiles[:400], values_changed[:400], equal_nan=True)
        assert not np.array_equal(ours.quantiles[400], values_changed[400])
        assert np.array_equal(ours.quantiles[:397], plans_changed[:397], equal_nan=True)
        assert not np.array_equal(ours.quantiles[397], plans_changed[397])


def test_forecasts_are_those_that_the_daemon_publishes_for_the_same_file_and_model(tmp_path):
    """Rows are looked ahead by both, and histories remembered for a training by both."""
    settings = settings_of(
        training={"mode": "off"}, registry={"directory": str(tmp_path / "models")}, telemetry={"port": 0}
    )
    values, plans = make_planned()
    values[1, [40, 41, 90]] = np.nan
    plans[2, 60:63] = np.nan
    table = write_planned(tmp_path / "t.csv", values, plans)
    text = table.read_text().replace("nan", "")
    table.write_text(text)
    champion = play(make_backtest(tmp_path / "first", table, settings_of()), every_rows=0)[0].champions[0]
    registry = DirectoryRegistry(settings.registry.directory)
    registry.put(champion)
    registry.promote(champion.version, {}, now=START)
    layout = replace(COMMON_FORMS, covariates=("now",), known_ahead=("plan",), horizon=HORIZON)

    sink = MemorySink()
    build_daemon(settings, source=FileSource([table], layout=layout), sink=sink, embedded=True).run(Event())
    _, made = play(make_backtest(tmp_path / "out", table, settings, champion=champion))

    published: dict[str, list[list[list[float]] | None]] = {f"s{k}": [] for k in range(STREAMS)}
    for record in sink.of_topic("forecasts"):
        answer = json.loads(record.value or b"")
        published[answer["stream_id"]].append(answer["quantiles"])
    assert champion.manifest.hyperparameters.future_inputs == HORIZON
    for name, stream in made.items():
        assert published[name] == stream.quantiles.tolist()
