"""Scores of the anomalies on the Numenta benchmark's files, kept for docs/accuracy.md.

usage: python benchmarks/nab_scores.py [--seeds 0 1 2] [--without-network] [--keep DIR]

`forecaster backtest` plays the files of ../shared/data/nab beside the checkout with their labels and every setting at
its default, once for every seed; `--without-network` plays them once more with the baselines alone. Writes
benchmarks/results/anomalies.json. `--keep` keeps what the backtests wrote, and does not play again what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAB = ROOT.parent / "shared" / "data" / "nab"
RESULT = ROOT / "benchmarks" / "results" / "anomalies.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--without-network", action="store_true", help="play once more with the baselines alone")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep, and use again, what the backtests write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forecaster-nab-") as scratch:
        kept = args.keep or Path(scratch)
        result: dict[str, Any] = {
            "command": "forecaster backtest --data nab/data --labels nab/labels/combined_windows.json",
            "runs": [run(kept / f"seed-{seed}", seed) for seed in args.seeds],
            "without_network": run(kept / "without-network", 0, network=False) if args.without_network else None,
        }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def run(out: Path, seed: int, *, network: bool = True) -> dict[str, Any]:
    """One backtest: what is kept of its scores.json."""
    if not (out / "scores.json").is_file():
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
        environment = {} if network else {"FORECASTER_TRAINING__MODE": "off"}
        command = [sys.executable, "-m", "forecaster", "backtest", "--data", str(NAB / "data"), "--out", str(out)]
        command += ["--labels", str(NAB / "labels" / "combined_windows.json"), "--seed", str(seed)]
        command += ["--origin-stride", "1000"]  # the table of forecasts is not looked at
        subprocess.run(command, env=inherited | environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    scores: dict[str, Any] = json.loads((out / "scores.json").read_bytes())
    kept = {name: scores[name] for name in ("seed", "readings", "anomalies", "timing")}
    standard = kept["anomalies"]["profiles"][0]
    print(
        f"seed {seed}{'' if network else ', without a network'}: standard profile {standard['score']:.1f} at threshold "
        f"{standard['threshold']:.2f}, {standard['score_as_raised']:.1f} as raised",
        flush=True,
    )
    return kept


if __name__ == "__main__":
    main()
