"""Small backtests for tests: made-up tables, quick settings, and the forecasts they come to."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from forecaster.app import build_backtest
from forecaster.backtest.collect import StreamForecasts
from forecaster.backtest.play import Backtest, Playback
from forecaster.backtest.recording import Alignment, Recording
from forecaster.backtest.result import training_points
from forecaster.codecs.timestamps import format_time
from forecaster.models.artifact import ModelArtifact
from forecaster.records import Feedback
from forecaster.settings import Settings, load_settings
from forecaster.transports.tables import COMMON_FORMS, open_tables

START = 1_767_225_600.0
HOUR = 3_600.0


def make_values(rows: int, *, stream: int = 0, season: int = 12, seed: int = 0) -> np.ndarray:
    """A noisy season around a level of its own."""
    rng = np.random.default_rng([seed, stream])
    return 20.0 * stream + 5.0 * np.sin(2 * np.pi * np.arange(rows) / season) + rng.standard_normal(rows)


def write_table(
    path: Path, streams: Mapping[str, Sequence[float | str]], *, starts: Mapping[str, float] | None = None
) -> Path:
    """A table of hourly streams, one after the other; ``nan`` is written as an empty cell, text as it is."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["stream_id", "timestamp", "value"])
        for stream_id, values in streams.items():
            begin = (starts or {}).get(stream_id, START)
            for k, value in enumerate(values):
                cell = value if isinstance(value, str) else "" if np.isnan(value) else repr(float(value))
                rows.writerow([stream_id, format_time(begin + HOUR * k), cell])
    return path


def quick_settings(**overrides: Any) -> Settings:
    """Horizon 4, a small network, a training of a few steps."""
    sections: dict[str, dict[str, Any]] = {
        "forecast": {"horizon": 4, "seasons": [12]},
        "model": {"hidden": 8},
        "training": {"steps": 20, "window": "36500d"},
        "streams": {"idle_ttl": "36500d"},
    }
    for section, values in overrides.items():
        sections.setdefault(section, {}).update(values)
    return load_settings(sections)


def make_backtest(
    directory: Path,
    table: Path,
    settings: Settings | None = None,
    *,
    alignment: Alignment = "auto",
    champion: ModelArtifact | None = None,
    feedback: Sequence[Feedback] = (),
) -> Backtest:
    """A backtest that has not been played."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = settings or quick_settings()
    names = settings.readings.covariates
    layout = replace(
        COMMON_FORMS,
        covariates=names,
        known_ahead=settings.readings.known_ahead,
        horizon=settings.forecast.horizon,
    )
    return build_backtest(
        settings,
        Recording(open_tables([table], layout), alignment=alignment, covariates=len(names)),
        layout=layout,
        directory=directory,
        champion=champion,
        feedback=feedback,
    )


def play(
    backtest: Backtest, *, warmup: float = 0.3, every_rows: float | None = None
) -> tuple[Playback, dict[str, StreamForecasts]]:
    """What became of it, and every stream's forecasts in its own time."""
    with contextlib.closing(backtest):
        playback = backtest.play(training_points(backtest, warmup=warmup, every_rows=every_rows))
        shift = dict(zip(backtest.recording.streams, backtest.recording.shift.tolist(), strict=True))
        return playback, {stream.stream_id: stream for stream in backtest.collector.streams(shift)}
