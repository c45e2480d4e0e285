"""A backtest is the serving engine: trained at set readings, switched where it says, the same every time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from backtests import HOUR, START, make_backtest, make_values, play, quick_settings, write_table

from forecaster.app import build_encoder, train_challenger
from forecaster.backtest.result import season_rows, training_points
from forecaster.codecs.timestamps import format_time
from forecaster.errors import ArtifactMismatch
from forecaster.training.history import History, Series

ROWS = 400


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "t.csv", {f"s{k}": make_values(ROWS, stream=k) for k in range(3)})


def test_the_first_training_is_at_the_end_of_the_warmup_and_serves_from_the_next_reading(tmp_path, table):
    backtest = make_backtest(tmp_path / "out", table)

    playback, made = play(backtest, warmup=0.4, every_rows=0)

    (note,) = playback.trainings
    assert note.outcome == "promoted"
    assert note.at == 3 * 160
    assert [artifact.version for artifact in playback.champions] == [note.version]
    for stream in made.values():
        assert stream.serving.tolist() == [-1] * 160 + [0] * 240
        assert stream.weights[:160, -1].max() == 0.0
        assert stream.weights[161:, -1].max() > 0.0


def test_retraining_comes_every_so_many_rows_of_a_stream(tmp_path, table):
    backtest = make_backtest(tmp_path / "out", table)

    playback, _ = play(backtest, warmup=160.0, every_rows=80)

    assert [note.at for note in playback.trainings] == [3 * 160, 3 * 240, 3 * 320]
    assert [note.readings for note in playback.trainings] == [3 * 160, 3 * 240, 3 * 320]


def test_covariates_of_a_file_are_what_trainings_and_the_serving_network_see(tmp_path):
    rain = np.round(np.random.default_rng(3).normal(size=400), 3)
    lines = [f"{format_time(START + HOUR * k)},{v!r},{rain[k]}" for k, v in enumerate(make_values(400).tolist())]
    (tmp_path / "t.csv").write_text("\n".join(["timestamp,value,rain", *lines]))
    settings = quick_settings(readings={"covariates": ["rain"]})
    backtest = make_backtest(tmp_path / "out", tmp_path / "t.csv", settings)

    playback, _ = play(backtest, warmup=0.6, every_rows=0)

    assert playback.dead_letters == 0
    assert playback.champions
    assert len(playback.champions[0].manifest.hyperparameters.feature_names) == len(
        build_encoder(quick_settings()).feature_names
    ) + 1  # fmt: skip
    assert backtest.history is not None
    np.testing.assert_array_equal(backtest.history.history(1e9).streams["t"].covariates[:, 0], rain)


def test_trainings_are_moved_down_to_the_boundary_at_which_the_model_switches(tmp_path, table):
    backtest = make_backtest(tmp_path / "out", table)
    assert backtest.boundary_records == 3 * 8

    playback, made = play(backtest, warmup=166.0, every_rows=0)

    assert playback.trainings[0].at == 3 * 160
    assert made["s2"].serving.tolist() == [-1] * 160 + [0] * 240


def test_the_same_seed_gives_the_same_forecasts_and_another_seed_others(tmp_path, table):
    def made(seed: int) -> bytes:
        backtest = make_backtest(tmp_path / "out", table, quick_settings(training={"seed": seed}))
        return b"".join(stream.quantiles.tobytes() for stream in play(backtest)[1].values())

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_a_model_that_is_given_serves_from_the_first_reading_a_stream_can_have_one(tmp_path, table):
    settings = quick_settings(training={"mode": "off"})
    series = {"h": Series(START - HOUR * np.arange(ROWS, 0, -1.0), make_values(ROWS, seed=5))}
    trained = train_challenger(settings, History(series), champion=None, now=START, max_seconds=1e9).artifact

    playback, made = play(make_backtest(tmp_path / "out", table, settings, champion=trained))

    assert playback.trainings == []
    assert [artifact.version for artifact in playback.champions] == [trained.version]
    assert made["s0"].weights[9, 2] > 0.0
    with pytest.raises(ArtifactMismatch, match=r"forecast\.horizon 4, here 5"):
        play(make_backtest(tmp_path / "out", table, quick_settings(forecast={"horizon": 5}), champion=trained))


def test_a_training_that_fails_is_noted_and_the_baselines_go_on(tmp_path):
    table = write_table(tmp_path / "t.csv", {"flat": np.ones(400)})

    playback, made = play(make_backtest(tmp_path / "out", table), every_rows=0)

    (note,) = playback.trainings
    assert note.outcome == "failed"
    assert "nothing to learn" in note.reason
    assert np.allclose(made["flat"].quantiles, 1.0, rtol=0.0, atol=1e-6)


def test_refused_rows_are_no_rows_and_stand_in_a_file_with_their_reason(tmp_path):
    path = tmp_path / "t.csv"
    hours = [*range(30), 29, 3, *range(30, 60)]
    cells = [f"{format_time(START + HOUR * hour)},{k}" for k, hour in enumerate(hours)]
    path.write_text("timestamp,value\n" + "\n".join([*cells, "never,1", f"{format_time(START + HOUR * 60)},much"]))

    playback, made = play(make_backtest(tmp_path / "out", path, quick_settings(training={"mode": "off"})))

    (stream,) = made.values()
    assert stream.times.tolist() == [START + HOUR * hour for hour in range(60)]
    assert (playback.readings, playback.dead_letters) == (60, 4)
    letters = [json.loads(line) for line in (tmp_path / "out" / "dead_letters.jsonl").read_text().splitlines()]
    assert [letter["headers"]["reason"] for letter in letters] == ["conflict", "late", "bad_time", "wrong_type"]


def test_an_empty_cell_is_a_missing_reading_one_step_long(tmp_path):
    values = make_values(50)
    values[20] = np.nan

    _, made = play(make_backtest(tmp_path / "out", write_table(tmp_path / "t.csv", {"a": values})), every_rows=0)

    assert np.isnan(made["a"].values[20])
    assert len(made["a"].times) == 50
    assert np.isfinite(made["a"].quantiles[20]).all()


def test_forecasts_carry_the_streams_own_times_wherever_they_were_moved(tmp_path):
    starts = {"old": START - 700 * 24 * HOUR, "new": START}
    table = write_table(tmp_path / "t.csv", {name: make_values(100) for name in starts}, starts=starts)
    backtest = make_backtest(tmp_path / "out", table, alignment="progress")

    _, made = play(backtest, every_rows=0)

    assert backtest.recording.shift.tolist() == [700 * 24 * HOUR, 0.0]
    for name, start in starts.items():
        assert made[name].times.tolist() == [start + HOUR * k for k in range(100)]


def test_no_training_where_the_warmup_is_empty_or_longer_than_everything(tmp_path, table):
    backtest = make_backtest(tmp_path / "out", table)

    assert list(training_points(backtest, warmup=0.0, every_rows=None)) == []
    assert list(training_points(backtest, warmup=1_000.0, every_rows=None)) == []
    assert list(training_points(backtest, warmup=0.3, every_rows=None)) == [360, 720, 1_080]
    backtest.close()


def test_the_season_of_seasonal_naive_is_the_declared_one_or_what_training_found(tmp_path):
    values = {f"s{k}": make_values(600, stream=k, season=24) for k in range(3)}
    settings = quick_settings(forecast={"seasons": []})
    path = write_table(tmp_path / "t.csv", values)
    backtest = make_backtest(tmp_path / "out", path, settings)

    playback, _ = play(backtest, every_rows=0)

    assert season_rows(None, playback, HOUR) == 24
    assert season_rows(36, playback, HOUR) == 36
    assert season_rows(0, playback, HOUR) == 0
    assert season_rows(7_200.0, playback, HOUR) == 2
