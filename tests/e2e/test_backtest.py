"""``forecaster backtest`` as people run it."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from backtests import make_values, write_table

QUICK = {"FORECASTER_TRAINING__STEPS": "20", "FORECASTER_MODEL__HIDDEN": "8"}


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
    return subprocess.run(
        [sys.executable, "-m", "forecaster", "backtest", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**inherited, **QUICK, **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "plant.csv"
    return write_table(path, {f"line, {k}": make_values(320, stream=k) for k in range(3)})


@pytest.fixture(scope="module")
def done(table, tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One backtest that several tests look at."""
    out = tmp_path_factory.mktemp("backtest") / "plant"
    flags = ("--horizon", "6", "--season", "12", "--quantiles", "0.1,0.25,0.5,0.75,0.9", "--origin-stride", "7")
    return run("--data", table, *flags, "--retrain-every", "5d", "--seed", "3", "--out", out), out


def test_it_writes_forecasts_of_every_seventh_row_of_every_stream(done):
    process, out = done

    assert process.returncode == 0, process.stderr
    with gzip.open(out / "forecasts.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    origins = sorted({(row["stream_id"], row["origin"]) for row in rows})
    assert len(rows) == len(origins) * 6 * 5
    assert {stream for stream, _ in origins} == {"line, 0", "line, 1", "line, 2"}
    assert [origin for stream, origin in origins if stream == "line, 0"][:3] == [
        "2026-01-01T00:00:00Z",
        "2026-01-01T07:00:00Z",
        "2026-01-01T14:00:00Z",
    ]
    assert len(origins) == 3 * len(range(0, 320, 7))


def test_scores_hold_every_stream_every_lead_and_every_training(done):
    _, out = done

    scores = json.loads((out / "scores.json").read_bytes())

    assert [stream["stream_id"] for stream in scores["streams"]] == ["line, 0", "line, 1", "line, 2"]
    assert scores["seed"] == 3
    assert [note["at"] for note in scores["trainings"]] == [288, 648]
    assert [interval["nominal"] for interval in scores["pooled"]["all"]["intervals"]] == [0.8, 0.5]
    assert len(scores["pooled"]["leads"]) == 6
    # every origin after the warm-up is scored, not only those written
    assert scores["pooled"]["all"]["targets"] == 3 * sum(min(6, 319 - row) for row in range(96, 320))
    assert 0.0 < scores["pooled"]["all"]["relative_naive"] < 1.0
    promoted = {note["version"] for note in scores["trainings"] if note["outcome"] == "promoted"}
    assert {path.stem for path in (out / "models").glob("*.model")} == promoted


def test_the_report_is_one_file_with_its_pictures_inside(done):
    _, out = done

    text = (out / "report.html").read_text()

    assert text.count("data:image/png;base64,") >= 7
    assert re.findall(r'(?:src|href)="?(?!data:)[^">]+', text) == []
    assert text.count("<td>line, 1</td>") == 1
    assert "by event time" in text


def test_standard_output_is_a_table_of_scores(done):
    process, _ = done

    assert "MAE against the last value" in process.stdout
    assert "coverage of 80%" in process.stdout


def test_without_training_nothing_is_trained_and_parquet_is_a_matter_of_the_name(table, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow, the extra forecaster[parquet], is absent")

    process = run("--data", table, "--out", tmp_path, "--forecasts", "f.parquet", FORECASTER_TRAINING__MODE="off")

    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "scores.json").read_bytes())["trainings"] == []
    assert (tmp_path / "f.parquet").read_bytes()[:4] == b"PAR1"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--quantiles", "0.1,0.5"), "symmetric"),
        (("--quantiles", "low,high"), "no list of levels"),
        (("--warmup", "-1"), "neither a share"),
        (("--origin-stride", "0"), "whole number from 1 on"),
        (("--retrain-every", "often"), "neither a number of rows nor a duration"),
        (("--forecasts", "f.xlsx"), ".parquet"),
    ],
)
def test_wrong_flags_are_said_before_anything_is_played(table, tmp_path, flags, said):
    process = run("--data", table, "--out", tmp_path / "out", *flags)

    assert process.returncode == 2
    assert said in process.stderr
    assert not (tmp_path / "out" / "scores.json").exists()


def test_where_no_forecast_met_its_target_that_is_said_with_what_was_refused(tmp_path):
    data = tmp_path / "bad.csv"
    data.write_text("timestamp,value\n2026-01-01,abc\nnot a time,1\n")

    result = run("--data", data, "--horizon", "4", "--out", tmp_path / "out")

    assert result.returncode == 2
    assert "nothing to score in 2 rows, 2 of which were refused" in result.stderr
    assert "Traceback" not in result.stderr
