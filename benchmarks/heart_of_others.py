"""How well heart rates can be forecast by a network that has learnt from many other people.

usage: python benchmarks/heart_of_others.py [--steps 400 3000] [--seeds 0 1 2] [--scorer PYTHON]

`forecaster train` learns from the people of ../shared/data/heart/rr_nsr2db who are not among the eight of the set
`heart` of accuracy_sets.py, twelve thousand readings of each at 5 s; `forecaster backtest --model` then plays the eight
with that network, which is never trained on them. What it adds to the network of the set, which knows the first 1,200
readings of eight people alone, is what more history could add. Writes benchmarks/results/heart_of_others.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_sets import DECILES, RESULTS, ROOT, SETS, SHARED, Set, environment_of, run

_READINGS = 12_000
_STEP_SECONDS = 5
_SHORTEST, _LONGEST = 0.3, 2.0  # s between two beats; others are false beats or dropouts (../shared/data/README.md)
_START = datetime(2020, 1, 1, tzinfo=UTC)
_NO_TRAINING = {"training.mode": "off"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[400, 3_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scorer", metavar="PYTHON", help="as in accuracy_sets.py")
    args = parser.parse_args()
    path = RESULTS / "heart_of_others.json"
    with tempfile.TemporaryDirectory(prefix="forecaster-heart-") as scratch:
        data = Path(scratch) / "others.csv.gz"
        people = write_others(data)
        for steps in args.steps:
            for seed in args.seeds:
                result = json.loads(path.read_text()) if path.is_file() else {"runs": {}}
                result |= {"command": "python benchmarks/heart_of_others.py", "people": people, "readings": _READINGS}
                model = train(data, Path(scratch) / f"{steps}-{seed}", steps=steps, seed=seed)
                heart = SETS["heart"]
                chosen = Set(heart.title, heart.data, (*heart.flags, "--model", str(model)), heart.scored_season)
                played = Path(scratch) / f"played-{steps}-{seed}"
                found = run(chosen, seed, args.scorer, played, settings=_NO_TRAINING)
                scores = found["pooled"]["all"]
                kept = {"of_naive": scores["relative_naive"], "sql": scores["sql"]}
                if "score_py" in found:
                    kept |= {"score_py": found["score_py"]}
                result["runs"][f"{steps}/{seed}"] = kept
                path.write_text(json.dumps(result, indent=1) + "\n")
                print(f"{steps} steps, seed {seed}: {json.dumps(kept)}", flush=True)


def train(data: Path, out: Path, *, steps: int, seed: int) -> Path:
    """A model of this data."""
    settings = {
        "forecast.quantiles": f"[{DECILES}]",
        "training.max_readings_per_stream": str(_READINGS),
        "training.max_seconds": "1h",
    }
    command = [sys.executable, "-m", "forecaster", "train", "--data", str(data), "--out", str(out)]
    command += ["--horizon", "30", "--season", "0", "--steps", str(steps), "--seed", str(seed)]
    subprocess.run(command, env=os.environ | environment_of(settings), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (model,) = out.glob("*.model")
    return model


def write_others(path: Path) -> int:
    """Heart rates, in beats a minute every 5 s, of everybody who is not in the set; how many people these are."""
    with gzip.open(SETS["heart"].data, "rt") as file:
        known = {line.split(",")[0] for line in file}
    people = 0
    with gzip.open(path, "wt") as file:
        file.write("stream_id,timestamp,value\n")
        for source in sorted((SHARED / "data" / "heart" / "rr_nsr2db").glob("*.txt.gz")):
            name = source.name.split("_")[0]
            if name in known:
                continue
            people += 1
            for place, rate in enumerate(rates(source)[:_READINGS]):
                time = _START + timedelta(seconds=_STEP_SECONDS * place)
                file.write(f"{name},{time:%Y-%m-%dT%H:%M:%SZ},{'' if np.isnan(rate) else round(float(rate), 5)}\n")
    return people


def rates(source: Path) -> Any:
    """Mean rate in every 5 s since the first beat, ``nan`` where none was seen."""
    with gzip.open(source, "rt") as file:
        numbers = np.array([float(line) for line in file if line.strip()])
    since_start, intervals = numbers[0], numbers[1:]
    place = ((since_start + np.cumsum(intervals)) // _STEP_SECONDS).astype(np.int64)
    is_beat = (intervals >= _SHORTEST) & (intervals <= _LONGEST)
    beats = np.bincount(place[is_beat], minlength=place[-1] + 1)
    seconds = np.bincount(place[is_beat], intervals[is_beat], minlength=place[-1] + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 60.0 * beats / seconds
    return found[np.flatnonzero(beats)[0] :]


if __name__ == "__main__":
    main()
