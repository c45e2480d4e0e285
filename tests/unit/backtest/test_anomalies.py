"""Anomalies of a backtest, and their scores against labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from backtests import HOUR, START, make_backtest, make_values, quick_settings, write_table

from forecaster.backtest.anomalies import COLUMNS, read_labels, trace, worth_a_picture
from forecaster.backtest.report import render
from forecaster.backtest.result import Result, conclude
from forecaster.backtest.scoring import ScoringRules
from forecaster.codecs.timestamps import format_time
from forecaster.errors import ConfigurationError
from forecaster.records import Feedback
from forecaster.reports.html import number

SPIKE = 200


def written_labels(path: Path, windows: dict[str, list[tuple[int, int]]]) -> Path:
    """Labels by row."""
    found = {
        name: [[format_time(START + HOUR * first), format_time(START + HOUR * last)] for first, last in rows]
        for name, rows in windows.items()
    }
    path.write_text(json.dumps(found))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """Two streams without a network, a spike in one of them, with labels."""
    directory = tmp_path_factory.mktemp("anomalies")
    values = make_values(320)
    values[SPIKE] += 80.0
    table = write_table(directory / "plant.csv", {"a": values, "b": make_values(320, stream=1)})
    labels = read_labels(written_labels(directory / "labels.json", {"plant/a.csv": [(195, 214)]}))
    backtest = make_backtest(directory, table, quick_settings(training={"mode": "off"}))
    playback = backtest.play(())
    result = conclude(
        backtest,
        playback,
        protocol=ScoringRules(horizon=4, quantile_levels=(0.1, 0.5, 0.9), warmup=0.3, season_rows=12),
        seed=0,
        table=directory / "forecasts.csv",
        origin_stride=50,
        labels=labels,
    )
    backtest.close()
    return result, directory


def test_anomalies_are_a_table_with_the_time_of_their_reading(done):
    _, directory = done

    with (directory / "anomalies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert tuple(rows[0]) == COLUMNS
    raised = [row for row in rows if row["state"] == "raised"]
    assert [(row["stream_id"], row["timestamp"]) for row in raised] == [("a", format_time(START + HOUR * SPIKE))]
    assert float(raised[0]["value"]) > float(raised[0]["upper"])


def test_they_are_scored_as_the_benchmark_scores(done):
    result, _ = done

    scores = result.anomalies

    assert (scores.raised, scores.windows) == (1, 1)
    assert [profile.profile for profile in scores.profiles] == [
        "standard",
        "reward_low_FP_rate",
        "reward_low_FN_rate",
    ]
    # five rows into a window of twenty
    worth = (2 / (1 + np.exp(-5 * 15 / 20)) - 1) / (2 / (1 + np.exp(-5)) - 1)
    standard = scores.profiles[0]
    assert standard.score_as_raised == pytest.approx(50 + 50 * worth)
    assert standard.score >= standard.score_as_raised
    assert json.loads(json.dumps(result.scores()["anomalies"]["profiles"][0]["streams"]))[0][0] == "a"


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": [["yesterday", "today"]]}', '{"a": 3}'])
def test_labels_that_cannot_be_read_are_refused_with_an_example(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_text(content)

    with pytest.raises(ConfigurationError, match="Labels cannot be read") as caught:
        read_labels(path)

    assert "2026-01-01" in (caught.value.hint or "")


def test_labels_of_other_streams_are_refused(tmp_path):
    table = write_table(tmp_path / "plant.csv", {"a": make_values(40), "b": make_values(40)})
    backtest = make_backtest(tmp_path, table, quick_settings(training={"mode": "off"}))
    playback = backtest.play(())

    with pytest.raises(ConfigurationError, match="None of the 1 labelled streams"):
        conclude(
            backtest,
            playback,
            protocol=ScoringRules(horizon=4, quantile_levels=(0.1, 0.5, 0.9), warmup=0.3, season_rows=0),
            seed=0,
            table=tmp_path / "forecasts.csv",
            origin_stride=50,
            labels=read_labels(written_labels(tmp_path / "labels.json", {"other": [(1, 2)]})),
        )
    backtest.close()


def test_the_report_lists_them_shows_them_over_the_labels_and_says_how_right_they_were(done):
    result, _ = done
    without = render(msgspec.structs.replace(result, traces=()))

    report = render(result)

    section = report.split("<h2>Anomalies</h2>")[1].split("<h2>")[0]
    spike = next(found for found in result.told if found.state == "raised" and found.value > 60.0)
    assert f"<td>a</td><td>{spike.timestamp}</td><td>{spike.severity}</td>" in section
    assert result.traces[0].stream_id == "a", "the labelled one first"
    assert section.count("data:image/png") == len(result.traces)
    assert "data:image/png" not in without.split("<h2>Anomalies</h2>")[1].split("<h2>")[0]
    for profile in result.anomalies.profiles:
        assert f"<td>{profile.profile}</td><td>{number(profile.score_as_raised)}</td>" in section
    assert "1 labelled windows" in section
    assert {"told", "traces"} & set(result.scores()) == set()


def test_without_labels_the_report_says_nothing_of_scores(done):
    result, _ = done

    report = render(msgspec.structs.replace(result, anomalies=msgspec.structs.replace(result.anomalies, profiles=())))

    assert "labelled windows" not in report


def test_a_long_stream_is_thinned_out_without_losing_a_peak(done):
    result, _ = done
    values = np.random.default_rng(0).standard_normal(50_000)
    values[[7, 31_007]] = 50.0, -50.0
    values[100:900] = np.nan

    found = trace("a", np.arange(50_000.0), values, result.told, {"a": [(1.0, 2.0)]})

    assert len(found.times) == len(found.values) <= 2_000
    assert {(7.0, 50.0), (31_007.0, -50.0)} <= set(zip(found.times, found.values, strict=True))
    assert (np.diff(found.times) > 0).all()
    assert not np.isnan(found.values).any()
    assert {raised.stream_id for raised in found.raised} == {"a"}
    assert found.windows == ((1.0, 2.0),)


def test_labelled_streams_are_shown_before_those_that_raised_most(done):
    result, _ = done
    spike = next(found for found in result.told if found.state == "raised")
    told = [msgspec.structs.replace(spike, stream_id=name) for name in ("x", "y", "y", "z")]

    assert worth_a_picture(told, {"quiet": [(0.0, 1.0)], "z": [(0.0, 1.0)], "empty": []}, 3) == ["z", "quiet", "y"]
    assert worth_a_picture(told, None, 9) == ["y", "x", "z"]


def test_a_false_label_keeps_a_like_episode_from_being_raised_again(tmp_path):
    values = make_values(440)
    values[150] += 80.0
    values[420] += 96.0
    table = write_table(tmp_path / "plant.csv", {"a": values})
    false = Feedback("a", (False, START + HOUR * 150), None)

    raised = []
    for name, feedback in (("plain", []), ("labelled", [false])):
        settings = quick_settings(training={"mode": "off"})
        backtest = make_backtest(tmp_path / name, table, settings, feedback=feedback)
        backtest.play(())
        told = backtest.collector.anomalies_found
        raised.append([found.seq - 1 for found in told if found.state == "raised" and found.value > 60.0])
        backtest.close()

    assert raised == [[150, 420], [150]]
