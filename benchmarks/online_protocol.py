"""ETTh1 under the online protocol of the literature, by ``forecaster backtest`` that retrains as it goes.

usage: python benchmarks/online_protocol.py [--horizons 1 24 48] [--seeds 0 1 2] [--keep DIR]

The first 20 months of 30 days: four to train on, one to validate, fifteen to be scored; seven streams. The engine is
played all of it, trains at the end of the fifth month and every 30 days after, and answers every reading from earlier
ones alone; a horizon has a backtest of its own. The score is the mean squared error over leads 1..H, all origins and
streams, of values standardised by each stream's mean and deviation in the first four months. The point forecast is
the one that squared error asks for, the mean, as the published quantiles tell it (`expected_value`); that of the median
is kept beside it. Reads ../shared beside the checkout, writes benchmarks/results/online_etth1.json, which
``python docs/make_accuracy.py`` shows. What is in that file already is not played again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from accuracy_sets import environment_of
from series import DATA, read_table

from forecaster.models.artifact import write_atomically

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "online_etth1.json"
SOURCE = DATA / "ett" / "ETTh1.csv"
MONTH = 30 * 24
STANDARDISED, WARMUP, ROWS = 4 * MONTH, 5 * MONTH, 20 * MONTH
FLAGS = ("--columns", "*", "--season", "24", "--warmup", str(WARMUP), "--retrain-every", str(MONTH))
NONE: Mapping[str, str] = MappingProxyType({})
GOALS = {1: 0.21, 24: 0.63, 48: 0.75}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--horizons", type=int, nargs="+", default=list(GOALS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what the backtests write")
    parser.add_argument("--result", type=Path, default=RESULT, metavar="FILE")
    args = parser.parse_args()
    result = json.loads(args.result.read_text()) if args.result.exists() else {"runs": {}}
    result["command"] = f"forecaster backtest --data {SOURCE.name} --horizon H {_shown(FLAGS)} --seed S"
    result["naive"], result["goals"] = naive_errors(), {str(horizon): goal for horizon, goal in GOALS.items()}
    with tempfile.TemporaryDirectory(prefix="forecaster-online-") as scratch:
        data = cut_series(Path(scratch))
        for seed, horizon in itertools.product(args.seeds, args.horizons):
            name = f"{horizon}/{seed}"
            if name in result["runs"]:
                continue
            found = run(data, horizon, seed, (args.keep or Path(scratch)) / f"{horizon}-seed-{seed}")
            result["runs"][name] = found
            write_atomically(args.result, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
            print(f"H={horizon}, seed {seed}: {found['mse']:.4f}, {found['cpu_seconds']:.0f} s of CPU", flush=True)


def cut_series(directory: Path) -> Path:
    """The rows of the protocol as a file, under the name of the whole."""
    with SOURCE.open() as source:
        path = directory / SOURCE.name
        path.write_text("".join(itertools.islice(source, 1 + ROWS)))
    return path


def run(data: Path, horizon: int, seed: int, out: Path, settings: Mapping[str, str] = NONE) -> dict[str, Any]:
    """One backtest with ``settings`` by name, scored; what lies at ``out`` already is not played again."""
    if not (out / "scores.json").is_file():
        _play(data, horizon, seed, out, settings)
    scores = json.loads((out / "scores.json").read_bytes())
    of_mean, of_median = standardised_errors(scores, "mse_mean"), standardised_errors(scores, "mse")
    return {
        "mse": float(np.mean(list(of_mean.values()))),
        "mse_median": float(np.mean(list(of_median.values()))),
        "by_stream": of_mean,
        "coverage": scores["pooled"]["all"]["intervals"][0]["coverage"],
        "trainings": [
            {"outcome": note["outcome"], "seconds": round(note["seconds"], 1)} for note in scores["trainings"]
        ],
        "cpu_seconds": round(scores["timing"]["cpu_seconds"], 1),
    }


def standardised_errors(scores: dict[str, Any], name: str) -> dict[str, float]:
    """A squared error by stream, mean over the leads, in units of `units`."""
    unit = units()
    by_stream = {
        stream["stream_id"].removeprefix(f"{SOURCE.stem}/"): np.mean([lead[name] for lead in stream["leads"]])
        for stream in scores["streams"]
    }
    return {name: float(by_stream[name] / unit[name] ** 2) for name in unit}


def _play(data: Path, horizon: int, seed: int, out: Path, settings: Mapping[str, str]) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
    command = [sys.executable, "-m", "forecaster", "backtest", "--data", str(data), "--out", str(out), *FLAGS]
    subprocess.run(
        # Forecasts themselves are not looked at: as few as can be are written.
        [*command, "--horizon", str(horizon), "--seed", str(seed), "--origin-stride", str(ROWS)],
        env=inherited | environment_of(settings),
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def units() -> dict[str, float]:
    """Deviation of every stream in the first four months."""
    names, _, values = read_table(SOURCE, "date")
    return dict(zip(names, values[:STANDARDISED].std(axis=0).tolist(), strict=True))


def naive_errors() -> dict[str, dict[str, float]]:
    """The same score of the last value and of the value a day before each lead."""
    _, _, values = read_table(SOURCE, "date")
    standardised = values[:ROWS] / values[:STANDARDISED].std(axis=0)
    found: dict[str, dict[str, float]] = {"last value": {}, "a day before": {}}
    for horizon in GOALS:
        errors: dict[str, list[float]] = {"last value": [], "a day before": []}
        for lead in range(1, horizon + 1):
            target = np.arange(WARMUP + lead, ROWS)
            for name, back in (("last value", lead), ("a day before", 24 * -(-lead // 24))):
                errors[name].append(float(((standardised[target] - standardised[target - back]) ** 2).mean()))
        for name, by_lead in errors.items():
            found[name][str(horizon)] = float(np.mean(by_lead))
    return found


def _shown(flags: tuple[str, ...]) -> str:
    return " ".join(f"'{flag}'" if flag == "*" else flag for flag in flags)


if __name__ == "__main__":
    main()
