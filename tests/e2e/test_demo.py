"""``forecaster demo`` as a person runs it: a process of its own, files in, files and pages out."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from forecaster.codecs.timestamps import format_time

pytestmark = pytest.mark.slow

START = 1_767_225_600.0
PATIENCE_SECONDS = 90.0
QUICK_TRAINING = {
    "FORECASTER_TRAINING__STEPS": "20",
    "FORECASTER_TRAINING__MIN_READINGS": "900",
    "FORECASTER_FORECAST__HORIZON": "4",
    "FORECASTER_MODEL__HIDDEN": "8",
}


@dataclass
class Demo:
    """A running demo; its lines are read as they come."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors), daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line of the output with this in it."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        with self.news:
            self.news.wait_for(lambda: found() or self.process.poll() is not None, PATIENCE_SECONDS)
        match = found()
        assert match, f"no line with {pattern!r} in {self.lines}, errors {self.errors}"
        return match

    @property
    def url(self) -> str:
        return self.wait_for(r"http://[\d.:]+/")[0]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return str(answer.read().decode())

    def get_when(self, path: str, text: str) -> str:
        """What stands there as soon as it holds this text."""
        by = time.monotonic() + PATIENCE_SECONDS
        while text not in (found := self.get(path)):
            assert time.monotonic() < by, f"no {text!r} at {path}: {found}"
            time.sleep(0.1)
        return found

    def end(self) -> int:
        """Wait until it has ended by itself."""
        code = self.process.wait(PATIENCE_SECONDS)
        for reader in self.readers:
            reader.join(5)
        return code

    def _read(self, stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self.news:
                    lines.append(line.rstrip("\n"))
                    self.news.notify_all()
        with self.news:
            self.news.notify_all()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Any]:
    """Starts ``forecaster demo`` with these flags and settings, and ends what still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(*flags: str, **settings: str) -> Demo:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "forecaster", "demo", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**inherited, "PYTHONUNBUFFERED": "1", **settings},
        )
        started.append(process)
        return Demo(process)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def write_csv(path: Path, *, rows: int, streams: int = 3) -> Path:
    """A wave a stream, one row a minute."""
    lines = ["timestamp,stream_id,value"]
    for k in range(rows):
        for stream in range(streams):
            value = 20 + 5 * math.sin(k / 8 + stream) + ((k * 7919 + stream) % 13) / 26
            lines.append(f"{format_time(START + 60 * k)},s{stream},{value:.3f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def forecasts_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_of_a_file_is_answered_and_the_end_is_told(demo, tmp_path):
    rows, streams = 200, 3
    data = write_csv(tmp_path / "wave.csv", rows=rows, streams=streams)

    running = demo(
        "--data", str(data), "--speed", "max", "--port", "0", "--out", "f.jsonl", FORECASTER_TRAINING__MODE="off"
    )
    code = running.end()

    forecasts = forecasts_in(tmp_path / "f.jsonl")
    assert code == 0, running.errors
    assert [f["source"]["offset"] for f in forecasts] == list(range(rows * streams))
    for stream in range(streams):
        own = [f for f in forecasts if f["stream_id"] == f"s{stream}"]
        assert [f["seq"] for f in own] == list(range(1, rows + 1))
        assert [f["origin"] for f in own] == [format_time(START + 60 * k) for k in range(rows)]
    assert {len(f["quantiles"]) for f in forecasts} == {12}
    assert all(low <= middle <= high for f in forecasts for low, middle, high in f["quantiles"])
    assert "600 forecasts and 0 dead letters" in running.lines[-1]
    assert running.errors == ["forecasts are in f.jsonl"]


def test_two_runs_over_one_file_write_the_same_bytes(demo, tmp_path):
    data = write_csv(tmp_path / "wave.csv", rows=100)
    flags = ("--data", str(data), "--speed", "max", "--port", "0")

    first = demo(*flags, "--out", "first.jsonl", FORECASTER_TRAINING__MODE="off").end()
    second = demo(
        *flags, "--out", "second.jsonl", FORECASTER_TRAINING__MODE="off", FORECASTER_ENGINE__MAX_POLL_RECORDS="7"
    ).end()

    assert (first, second) == (0, 0)
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()


def test_page_metrics_health_and_streams_can_be_reached_while_it_runs(demo):
    running = demo("--port", "0", FORECASTER_TRAINING__MODE="off")

    page, metrics = running.get(""), running.get("metrics")
    health, ready = json.loads(running.get("healthz")), json.loads(running.get("readyz"))
    streams = json.loads(running.get("streams?limit=5"))
    detail = json.loads(running.get("streams/" + streams["streams"][0]["stream_id"]))
    with pytest.raises(urllib.error.HTTPError) as missing:
        running.get("streams/nobody")
    missing.value.close()

    assert "<title>" in page
    assert float(re.search(r"^forecaster_readings_accepted_total (\S+)", metrics, re.MULTILINE)[1]) > 0
    assert (health["ok"], ready["ok"]) == (True, True)
    assert streams["count"] == 5
    assert detail["forecast"]["quantiles"]
    assert missing.value.code == 404


def test_sigterm_ends_it_within_5_seconds_with_all_answers_written(demo, tmp_path):
    running = demo("--port", "0", "--out", "f.jsonl")
    running.wait_for(r"training running")

    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    code = running.end()

    assert code == 0
    assert time.monotonic() - began < 5.0
    forecasts = forecasts_in(tmp_path / "f.jsonl")
    assert [f["source"]["offset"] for f in forecasts] == list(range(len(forecasts)))
    assert f"{len(forecasts):,} forecasts" in running.lines[-1]


def test_it_stops_by_itself_after_the_seconds_asked_for(demo):
    running = demo("--port", "0", "--seconds", "1", FORECASTER_TRAINING__MODE="off")

    assert running.end() == 0
    assert float(re.search(r"in ([\d.]+) s", running.lines[-1])[1]) < 5.0


@pytest.mark.parametrize(
    ("flags", "settings", "told"),
    [
        ((), {"FORECASTER_FORECAST__HORIZON": "0"}, "forecast.horizon"),
        (("--config", "no.toml"), {}, "no.toml"),
        (("--data", "no.csv"), {}, "no.csv"),
        (("--data", "empty.csv"), {}, "empty"),
        (("--speed", "0"), {}, "--speed"),
        (("--seconds", "0"), {}, "--seconds"),
        (("--seed", "-1"), {}, "--seed"),
        (("--out", "no/such/directory/f.jsonl"), {}, "f.jsonl"),
    ],
)
def test_what_cannot_work_ends_with_2_and_opens_nothing(demo, tmp_path, flags, settings, told):
    (tmp_path / "empty.csv").touch()
    before = sorted(tmp_path.iterdir())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    out = () if "--out" in flags else ("--out", "f.jsonl")

    running = demo(*flags, *out, "--port", str(port), **settings)
    code = running.end()

    assert code == 2
    assert told in " ".join(running.errors)
    assert "Traceback" not in " ".join(running.errors)
    assert running.lines == []
    assert sorted(tmp_path.iterdir()) == before


def test_a_port_in_use_ends_with_1_and_names_the_knob(demo):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        running = demo("--port", str(listener.getsockname()[1]))
        code = running.end()

    assert code == 1
    assert "Address already in use" in running.errors[0]
    assert "telemetry.port" in running.errors[1]
    assert "Traceback" not in " ".join(running.errors)


def test_rows_that_are_no_readings_are_counted_and_the_rest_is_answered(demo, tmp_path):
    (tmp_path / "odd.csv").write_text(
        "timestamp,value\nyesterday,1\n2026-01-01T00:00:00Z,two\n2026-01-01T00:01:00Z,\n2026-01-01T00:02:00Z,5\n",
        encoding="utf-8",
    )

    running = demo("--data", "odd.csv", "--speed", "max", "--port", "0", "--out", "f.jsonl")
    code = running.end()

    assert code == 0, running.errors
    assert "2 forecasts and 2 dead letters" in running.lines[-1]
    assert [f["value"] for f in forecasts_in(tmp_path / "f.jsonl")] == [None, 5.0]


def test_a_model_is_trained_takes_over_and_signs_the_forecasts_after(demo, tmp_path):
    data = write_csv(tmp_path / "wave.csv", rows=3_000)

    running = demo(
        "--data", str(data), "--speed", "3600", "--port", "0", "--out", "f.jsonl", **QUICK_TRAINING
    )  # 3,000 minutes in 50 s
    version = running.wait_for(r"model (\S+) took over")[1]
    running.wait_for(rf"model {version} ·")
    # A model may serve before the process that trained it has ended and is counted.
    metrics = running.get_when("metrics", 'forecaster_training_runs_total{group="default",result="ok_promoted"} 1.0\n')
    running.process.send_signal(signal.SIGTERM)
    code = running.end()

    forecasts = forecasts_in(tmp_path / "f.jsonl")
    signed = [f for f in forecasts if f["model"] == version]
    assert code == 0, running.errors
    assert forecasts[0]["model"] is None
    assert forecasts[0]["status"] == "warming"
    assert signed
    assert signed[-1]["status"] == "ok"
    assert signed[-1]["experts"]["recurrent"] > 0
    assert f'forecaster_model_info{{group="default",version="{version}"}} 1.0' in metrics
