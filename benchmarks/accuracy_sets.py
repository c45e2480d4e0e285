"""Backtests the engine on public series and keeps the scores: what docs/accuracy.md is made of.

usage: python benchmarks/accuracy_sets.py [--sets etth1 air …] [--seeds 0 1 2] [--scorer PYTHON] [--keep DIR]

Each set is `forecaster backtest` with the flags below and every other setting at its default, once for every seed and
once without a network. Reads ../shared beside the checkout, writes benchmarks/results/<set>.json. `--scorer` names an
interpreter that has pandas: then ../shared/evaluation/score.py scores the written forecasts as well. `--keep` keeps
what the backtests wrote, forecasts and reports too, and does not play again what is there already.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
RESULTS = ROOT / "benchmarks" / "results"
DECILES = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"


class Set(NamedTuple):
    """One set of series and how it is played."""

    title: str
    data: Path
    flags: tuple[str, ...]
    scored_season: int
    """Of seasonal naive where score.py scores; 0 where it does not."""


NO_NETWORK = {"training.mode": "off"}
SERIES = SHARED / "evaluation" / "series"
SETS = {
    "etth1": Set(
        "ETTh1, hourly, seven columns of an electricity transformer",
        SERIES / "etth1.csv.gz",
        ("--horizon", "24", "--season", "24", "--origin-stride", "23", "--quantiles", DECILES),
        24,
    ),
    "air": Set(
        "Air quality, hourly, twelve sensors of one station, 3 to 18 % missing",
        SERIES / "air_dev.csv.gz",
        ("--horizon", "24", "--season", "24", "--origin-stride", "23", "--quantiles", DECILES),
        24,
    ),
    "nab": Set(
        "Server metrics and other series of the Numenta benchmark, every 5 minutes, unrelated to each other",
        SERIES / "nab_dev.csv.gz",
        ("--horizon", "12", "--origin-stride", "11", "--quantiles", DECILES),
        288,
    ),
    "heart": Set(
        "Heart rate of eight people, every 5 s",
        SERIES / "heart_dev.csv.gz",
        ("--horizon", "30", "--origin-stride", "11", "--quantiles", DECILES),
        1,
    ),
    "etth1_60": Set(
        "ETTh1 in full, one training on the first 60 %, scored on the rest",
        SHARED / "data" / "ett" / "ETTh1.csv",
        ("--columns", "*", "--horizon", "24", "--season", "24", "--warmup", "0.6", "--retrain-every", "0"),
        0,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scorer", metavar="PYTHON", help="interpreter with pandas, for ../shared/evaluation/score.py")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep, and use again, what the backtests write")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="forecaster-accuracy-") as scratch:
        play_sets(args, args.keep or Path(scratch))


def play_sets(args: argparse.Namespace, kept: Path) -> None:
    """Every set with every seed, backtests below ``kept``; writes a result as soon as a set is done."""
    for name in args.sets:
        chosen = SETS[name]
        shown = " ".join(f"'{flag}'" if flag == "*" else flag for flag in chosen.flags)
        result: dict[str, Any] = {
            "title": chosen.title,
            "command": f"forecaster backtest --data {chosen.data.name} {shown}",
            "without_network": run(chosen, 0, args.scorer, kept / f"{name}-without-network", settings=NO_NETWORK),
            "runs": [],
        }
        for seed in args.seeds:
            found = run(chosen, seed, args.scorer, kept / f"{name}-seed-{seed}")
            result["runs"].append(found)
            scores = found["pooled"]["all"]
            print(
                f"{name}, seed {seed}: {scores['relative_naive']:.3f} of naive, sql {scores['sql']:.3f}, "
                f"{scores['intervals'][0]['coverage']:.3f} covered, {found['timing']['cpu_seconds']:.0f} s CPU",
                flush=True,
            )
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def run(
    chosen: Set, seed: int, scorer: str | None, out: Path, *, settings: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """One backtest, with ``settings`` by name: what is kept of its scores.json, and the figures of score.py."""
    if not (out / "scores.json").is_file():
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
        environment = environment_of(settings)
        command = [sys.executable, "-m", "forecaster", "backtest", "--data", str(chosen.data), "--out", str(out)]
        subprocess.run(
            [*command, *chosen.flags, "--seed", str(seed)],
            env=inherited | environment,
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    scores = json.loads((out / "scores.json").read_bytes())
    neutral = score_neutrally(chosen, out, scores["protocol"]["horizon"], scorer)
    kept = {name: scores[name] for name in ("seed", "order", "protocol", "readings", "pooled", "trainings", "timing")}
    kept["streams"] = [
        {
            "stream_id": stream["stream_id"],
            "is_tied": stream["is_tied"],
            "relative_naive": stream["all"]["relative_naive"],
            "relative_best_naive": stream["relative_best_naive"],
            "coverage": stream["all"]["intervals"][0]["coverage"],
        }
        for stream in scores["streams"]
    ]
    return kept | ({"score_py": neutral} if neutral else {})


def environment_of(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings by name as variables of the environment."""
    return {f"FORECASTER_{name.replace('.', '__').upper()}": value for name, value in settings.items()}


def score_neutrally(chosen: Set, out: Path, horizon: int, scorer: str | None) -> dict[str, Any] | None:
    """The aggregate of score.py, where there is an interpreter for it."""
    if scorer is None or not chosen.scored_season:
        return None
    command = [scorer, str(SHARED / "evaluation" / "score.py"), "--actuals", str(chosen.data)]
    command += ["--forecasts", f"ours={out / 'forecasts.csv.gz'}", "--season", str(chosen.scored_season)]
    command += ["--horizon", str(horizon), "--json", str(out / "neutral.json")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    aggregate: dict[str, Any] = json.loads((out / "neutral.json").read_bytes())["ours"]["aggregate"]
    return aggregate


if __name__ == "__main__":
    main()
