"""What trainings gain where readings that were flagged as anomalies are capped or left out: `training.anomalies`.

usage: python benchmarks/flagged_anomalies.py [--seeds 0 1 2]

The server metrics of the Numenta benchmark, played as in docs/accuracy.md, with every treatment that there is: a
reading in an anomaly which the detector has raised is a target like others, moves to where Hampel's rule would have it
at the most, or bears no loss. Reads ../shared beside the checkout, writes benchmarks/results/flagged_anomalies.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from accuracy_sets import RESULTS, SETS, run

from forecaster.models.artifact import write_atomically

RESULT = RESULTS / "flagged_anomalies.json"
TREATMENTS = ("keep", "cap", "mask")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    found: dict[str, dict[str, Any]] = {treatment: {} for treatment in TREATMENTS}
    with tempfile.TemporaryDirectory(prefix="forecaster-flagged-") as scratch:
        for seed in args.seeds:
            for treatment in TREATMENTS:
                settings = {"training.anomalies": treatment}
                scores = run(SETS["nab"], seed, None, Path(scratch) / f"{treatment}-{seed}", settings=settings)
                pooled = scores["pooled"]["all"]
                found[treatment][str(seed)] = {name: pooled[name] for name in ("relative_naive", "sql")}
                print(f"{treatment}, seed {seed}: {found[treatment][str(seed)]}", flush=True)
    write_atomically(RESULT, (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    main()
