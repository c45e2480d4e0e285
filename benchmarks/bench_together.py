"""What it saves to step the waves of several partitions as one, by how many readings each brings.

usage: python benchmarks/bench_together.py [--partitions 4] [--rows 2 8 32 64 128 256] [--waves 200] [--repeats 5]

The pipeline with the defaults and an untrained network of the default shape, without transport and codec. The waves of
all partitions are stepped one after the other, and as one, in turn within one run; time is processor time on a thread,
the median over the repeats. Writes benchmarks/results/together.json: decision 0026 and `MOST_ROWS` of
`forecaster/engine/together.py` go by it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_engine import untrained
from kafka_bench import RESULTS, START, about, write

from forecaster.app import build_pipeline
from forecaster.engine.together import step_as_one
from forecaster.engine.wave import Wave
from forecaster.settings import load_settings
from forecaster.state.streams import StreamTable

_WARM_WAVES = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[2, 8, 32, 64, 128, 256], help="of each partition's wave"
    )
    parser.add_argument("--waves", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "together.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = about(["benchmarks/bench_together.py", *sys.argv[1:]])
    result |= {"partitions": args.partitions, "rows": {}}
    for rows in args.rows:
        alone, together = costs(args.partitions, rows, max(args.waves * 8 // max(rows, 8), 10), args.repeats)
        result["rows"][rows] = {"alone_us": round(alone, 2), "together_us": round(together, 2)}
        print(f"{args.partitions} × {rows}: {alone:.1f} µs a reading alone, {together:.1f} together", flush=True)
    write(args.out, result)


def costs(partitions: int, rows: int, waves: int, repeats: int) -> tuple[float, float]:
    """Processor time a reading in µs, waves alone and as one."""
    settings = load_settings({"forecast": {"seasons": [24]}})
    pipeline = build_pipeline(settings)
    recurrent = untrained(settings, pipeline)
    tables = [StreamTable(pipeline.columns, max_streams=rows + 1) for _ in range(partitions)]
    slots = [np.array([table.slot(f"s{k}") for k in range(rows)]) for table in tables]
    rng, tick = np.random.default_rng(0), 0
    values = 100.0 + np.zeros((partitions, rows))

    def play(count: int, *, as_one: bool) -> float:
        nonlocal tick, values
        spent = 0.0
        for _ in range(count):
            values = values + rng.standard_normal(values.shape)
            times = np.full(rows, START + 3_600.0 * tick)
            parts = [
                (table.arrays, Wave(own, times, x, None, own))
                for table, own, x in zip(tables, slots, values, strict=True)
            ]
            began = time.process_time()
            if as_one:
                step_as_one(pipeline, recurrent, parts)
            else:
                for columns, wave in parts:
                    pipeline.step(columns, wave, recurrent)
            spent += time.process_time() - began
            tick += 1
        return 1e6 * spent / (count * partitions * rows)

    play(_WARM_WAVES, as_one=False)
    found = [(play(waves, as_one=False), play(waves, as_one=True)) for _ in range(repeats)]
    alone, together = (statistics.median(column) for column in zip(*found, strict=True))
    return alone, together


if __name__ == "__main__":
    main()
