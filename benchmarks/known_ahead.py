"""Backtests of made-up streams that follow a shift plan, with and without the plan's next hours in the readings.

usage: python benchmarks/known_ahead.py [--seeds 0 1 2] [--streams 8] [--rows 1500] [--steps 400]

Hourly streams: a day of their own, noise with a memory of ten hours, and a gain of their own for as long as a shift
runs. Shifts begin and end at random, so that nothing but the plan tells when. One training after 30 % of the rows, then
every forecast is scored: mean absolute error as a share of the last value's, by lead, of the mixture that is published
and of the champion's network and linear forecast alone. Everything is written to benchmarks/results/known_ahead.json.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from forecaster.app import build_backtest, build_encoder, prepare_history
from forecaster.backtest.recording import Recording
from forecaster.backtest.result import training_points
from forecaster.codecs.timestamps import format_time
from forecaster.experts.linear import lag_inputs
from forecaster.models.artifact import ModelArtifact, write_atomically
from forecaster.settings import Settings, future_inputs, load_settings
from forecaster.training.evaluate import Stretch, forecast_stretch
from forecaster.training.history import History, Series
from forecaster.training.linear import linear_points
from forecaster.transports.readings import read_series
from forecaster.transports.tables import Table, TableLayout, open_tables

RESULT = Path(__file__).parent / "results" / "known_ahead.json"
HORIZON, SEASON, WARMUP = 24, 24, 0.3
LEADS = (1, 6, 12, 24)
START, HOUR = 1_767_225_600.0, 3_600.0

READINGS: dict[str, dict[str, list[str]]] = {
    "neither": {},
    "the hour's own shift, a covariate": {"covariates": ["now"]},
    "the next hours' shifts, known ahead": {"known_ahead": ["plan"]},
    "both": {"covariates": ["now"], "known_ahead": ["plan"]},
}

Floats = npt.NDArray[np.float64]


def make_streams(rng: np.random.Generator, streams: int, rows: int) -> tuple[Floats, Floats]:
    """Values and plans, both ``[streams, rows]``."""
    hours = np.arange(rows)
    plans = np.stack([np.repeat(hours % 2, rng.integers(3, 19, rows))[:rows] for _ in range(streams)]).astype(float)
    noise = rng.standard_normal((streams, rows))
    for t in range(1, rows):
        noise[:, t] += 0.9 * noise[:, t - 1]
    day = 4.0 * np.sin(2 * np.pi * hours / SEASON + rng.uniform(0, 2 * np.pi, (streams, 1)))
    return 50.0 + day + noise + rng.uniform(5.0, 15.0, (streams, 1)) * plans, plans


def write_table(path: Path, values: Floats, plans: Floats) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["stream_id", "timestamp", "value", "plan", "now"])
        for t in range(values.shape[1]):
            for k in range(len(values)):
                rows.writerow([f"s{k}", format_time(START + HOUR * t), repr(float(values[k, t])), *[plans[k, t]] * 2])


def shares(points: Floats, values: Floats, first: int) -> list[float]:
    """Error at each of the leads as a share of the last value's; points of every row, ``[streams, rows, H]``."""
    found = []
    for lead in LEADS:
        target, last = values[:, first + lead :], values[:, first:-lead]
        error = np.abs(points[:, first:-lead, lead - 1] - target).mean()
        found.append(float(error / np.abs(last - target).mean()))
    return found


def alone(settings: Settings, artifact: ModelArtifact, tables: list[Table], first: int) -> tuple[Floats, Floats]:
    """Medians of the champion's network and points of its linear forecast, both ``[streams, rows, H]``."""
    columns = read_series(tables, covariates=len(settings.readings.covariates), future=future_inputs(settings))
    history = History({name: Series(c.times, c.values, c.covariates, future=c.future) for name, c in columns.items()})
    prepared, encoder, network = prepare_history(settings, history), build_encoder(settings), artifact.network()
    data = prepared.data
    begins = data.starts[:-1]
    rows, made = forecast_stretch(network, data, Stretch(begins + first, data.starts[1:]))
    assert network.linear is not None, "one was fitted"
    names = list(prepared.sampled.streams)
    steps = prepared.season_steps(encoder)
    linear = linear_points(network.linear, data, lag_inputs(encoder), rows, steps, names)
    stream = np.searchsorted(data.starts, rows, side="right") - 1
    found = np.zeros((2, len(names), int(np.diff(data.starts)[0]), HORIZON))
    for place, points in enumerate((made[..., network.hp.median_index], linear)):
        own = data.origin[rows][:, None] + data.scale[rows][:, None] * points
        found[place, [int(names[k][1:]) for k in stream], rows - begins[stream]] = own
    return found[0], found[1]


def measure(readings: dict[str, list[str]], seed: int, args: argparse.Namespace) -> dict[str, list[float]]:
    """One backtest."""
    values, plans = make_streams(np.random.default_rng(seed), args.streams, args.rows)
    settings = load_settings(
        {
            "readings": readings,
            "forecast": {"horizon": HORIZON, "seasons": [SEASON]},
            "training": {"steps": args.steps, "window": "36500d", "seed": seed},
            "streams": {"idle_ttl": "36500d"},
        }
    )
    layout = TableLayout(
        covariates=settings.readings.covariates, known_ahead=settings.readings.known_ahead, horizon=HORIZON
    )
    first = int(WARMUP * args.rows) + 1
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "streams.csv"
        write_table(path, values, plans)
        tables = open_tables([path], layout)
        recording = Recording(tables, covariates=len(settings.readings.covariates))
        backtest = build_backtest(settings, recording, layout=layout, directory=Path(directory))
        with contextlib.closing(backtest):
            playback = backtest.play(training_points(backtest, warmup=WARMUP, every_rows=0))
            made: dict[str, Any] = {
                s.stream_id: s for s in backtest.collector.streams(dict.fromkeys(recording.streams, 0.0))
            }
        median = settings.forecast.quantiles.index(0.5)
        mixture = np.stack([made[f"s{k}"].quantiles[:, :, median] for k in range(args.streams)])
        network, linear = alone(settings, playback.champions[0], tables, first)
    return {
        "mixture": shares(mixture, values, first),
        "network": shares(network, values, first),
        "linear": shares(linear, values, first),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rows", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--result", type=Path, default=RESULT, metavar="FILE")
    args = parser.parse_args()
    result: dict[str, Any] = {"leads": LEADS, **{name: getattr(args, name) for name in ("streams", "rows", "steps")}}
    cells: dict[str, dict[int, dict[str, list[float]]]] = {name: {} for name in READINGS}
    for name, readings in READINGS.items():
        for seed in args.seeds:
            cells[name][seed] = measure(readings, seed, args)
            print(f"{name}, seed {seed}: {json.dumps(cells[name][seed])}", flush=True)
        for who in ("mixture", "network", "linear"):
            of_seeds = np.array([cells[name][seed][who] for seed in args.seeds])
            told = "  ".join(
                f"{mean:.3f} ± {spread:.3f}"
                for mean, spread in zip(of_seeds.mean(axis=0), of_seeds.std(axis=0), strict=True)
            )
            print(f"{name:38} {who:8} leads {LEADS}: {told}", flush=True)
    result["cells"] = cells
    write_atomically(args.result, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main()
