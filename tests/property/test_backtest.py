"""What a backtest forecasts depends on the past alone, and is what the daemon publishes."""

from __future__ import annotations

import json
from threading import Event

import numpy as np
import pytest
from backtests import HOUR, START, make_backtest, make_values, play, quick_settings, write_table

from forecaster.app import build_daemon, train_challenger
from forecaster.stores.registry_directory import DirectoryRegistry
from forecaster.training.history import History, Series
from forecaster.transports.file import FileSource
from forecaster.transports.memory import MemorySink

ROWS = 300


@pytest.mark.parametrize("seed", range(3))
def test_a_changed_future_changes_nothing_before_it(tmp_path, seed):
    """Trainings included: one before the change, one after it."""
    rng = np.random.default_rng(seed)
    streams = {f"s{k}": make_values(ROWS, stream=k, seed=seed) for k in range(3)}
    cut = int(rng.integers(120, 220))
    changed = {name: values.copy() for name, values in streams.items()}
    for values in changed.values():
        values[cut:] = 1_000.0 * rng.standard_normal(ROWS - cut)
        values[cut:][rng.random(ROWS - cut) < 0.2] = np.nan

    made = []
    for name, given in (("as it was", streams), ("changed", changed)):
        table = write_table(tmp_path / f"{name}.csv", given)
        playback, forecasts = play(make_backtest(tmp_path / name, table), every_rows=140)
        assert [note.at for note in playback.trainings] == [264, 3 * 224]
        assert playback.champions
        made.append(forecasts)

    for stream_id, ours in made[0].items():
        theirs = made[1][stream_id]
        assert np.array_equal(ours.quantiles[:cut], theirs.quantiles[:cut], equal_nan=True)
        assert not np.array_equal(ours.quantiles[cut], theirs.quantiles[cut])


def test_another_streams_future_changes_nothing_either(tmp_path):
    streams = {f"s{k}": make_values(ROWS, stream=k) for k in range(2)}
    changed = streams | {"s1": np.concatenate([streams["s1"][:200], 50.0 + streams["s1"][200:]])}

    made = []
    for name, given in (("as it was", streams), ("changed", changed)):
        table = write_table(tmp_path / f"{name}.csv", given)
        made.append(play(make_backtest(tmp_path / name, table), every_rows=0)[1])

    assert np.array_equal(made[0]["s0"].quantiles, made[1]["s0"].quantiles, equal_nan=True)


def test_forecasts_are_those_that_the_daemon_publishes_for_the_same_file_and_model(tmp_path):
    settings = quick_settings(
        training={"mode": "off"}, registry={"directory": str(tmp_path / "models")}, telemetry={"port": 0}
    )
    series = {"h": Series(START - HOUR * np.arange(ROWS, 0, -1.0), make_values(ROWS, seed=9))}
    champion = train_challenger(settings, History(series), champion=None, now=START, max_seconds=1e9).artifact
    registry = DirectoryRegistry(settings.registry.directory)
    registry.put(champion)
    registry.promote(champion.version, {}, now=START)
    values = {f"s{k}": make_values(ROWS, stream=k) for k in range(3)}
    values["s1"][[40, 41, 90]] = np.nan
    table = write_table(tmp_path / "t.csv", values)

    sink = MemorySink()
    build_daemon(settings, source=FileSource([table]), sink=sink, embedded=True).run(Event())
    _, made = play(make_backtest(tmp_path / "out", table, settings, champion=champion))

    published: dict[str, list[list[list[float]] | None]] = {name: [] for name in values}
    for record in sink.of_topic("forecasts"):
        answer = json.loads(record.value or b"")
        published[answer["stream_id"]].append(answer["quantiles"])
    for name, stream in made.items():
        assert published[name] == stream.quantiles.tolist()
