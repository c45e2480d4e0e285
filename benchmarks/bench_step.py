"""The recurrent step beside the matrix products it contains: how much of its time is arithmetic that has to be.

usage: python benchmarks/bench_step.py [--rows 16 64 256 1024 4096] [--repeats 30]

A step is what `RecurrentExpert` does for a wave: gather hidden states, cell, scatter, head. The products are of the
same matrices with the same rows (`torch.mm` of input, recurrent, and the head's weights into buffers that are there),
nothing between them. The two take turns on one thread; the ratio is products ÷ step, of the medians, so 1 would be a
step that costs nothing but its products. Writes benchmarks/results/step.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_engine import untrained
from kafka_bench import RESULTS, about, write

from forecaster.app import build_pipeline
from forecaster.engine.wave import Wave
from forecaster.experts.base import Origins
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.settings import Settings
from forecaster.state.streams import StreamTable

_STREAMS = 8_192
_CALLS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64, 256, 1_024, 4_096])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS / "step.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings.model_validate({})
    pipeline = build_pipeline(settings)
    expert = untrained(settings, pipeline)
    table = StreamTable(pipeline.columns, max_streams=_STREAMS)
    slots = np.array([table.slot(f"s{k}") for k in range(_STREAMS)])
    pipeline.step(table.arrays, Wave(slots, np.full(_STREAMS, 1e9), np.ones(_STREAMS), None, slots), expert)

    result: dict[str, Any] = about(["benchmarks/bench_step.py", *sys.argv[1:]])
    result["torch"], result["products"] = torch.__version__, [list(shape) for shape in products(expert)]
    result["cells"] = []
    for rows in args.rows:
        step, multiply = make_step(expert, table, slots, rows), make_products(expert, rows)
        turns = [(timed(step), timed(multiply)) for _ in range(args.repeats)]
        whole, bare = (statistics.median(times) / rows for times in zip(*turns, strict=True))
        found = {"rows": rows, "step_us_per_row": round(whole, 4), "products_us_per_row": round(bare, 4)}
        result["cells"].append(found | {"ratio": round(bare / whole, 3)})
        print(f"{rows} rows: step {whole:.3f} µs a row, its products {bare:.3f}, ratio {bare / whole:.2f}")
    write(args.out, result)


def products(expert: RecurrentExpert) -> list[tuple[int, int]]:
    """(inputs, outputs) of every matrix product of one tick and its answer."""
    network = expert.network
    cell = network.body.body
    layers = range(network.hp.layers)
    weights = [getattr(cell, f"weight_{kind}_l{layer}") for layer in layers for kind in ("ih", "hh")]
    head = network.head
    weights += [head.enter.weight, head.leave.weight, head.highway.weight]
    return [(weight.shape[1], weight.shape[0]) for weight in weights]


def make_products(expert: RecurrentExpert, rows: int) -> Callable[[], None]:
    """The products alone."""
    parts = [
        (torch.randn(rows, inputs), torch.randn(inputs, outputs), torch.empty(rows, outputs))
        for inputs, outputs in products(expert)
    ]

    def run() -> None:
        with torch.inference_mode():
            for left, right, out in parts:
                torch.mm(left, right, out=out)

    return run


def make_step(expert: RecurrentExpert, table: StreamTable, slots: Any, rows: int) -> Callable[[], None]:
    """Gather, cell, scatter, head, of streams drawn at random."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(slots)[:rows]
    features = rng.standard_normal((rows, len(expert.network.hp.feature_names)), dtype=np.float32)
    ones = np.ones(rows)
    origins = Origins(
        slots=chosen,
        features=features,
        value=ones,
        scale=ones,
        change=ones,
        level=ones,
        ahead=np.zeros((rows, expert.network.hp.horizon), np.float32),
        seasonal=np.zeros(rows, np.bool_),
    )

    def run() -> None:
        top = expert.step(table.arrays, chosen, features)
        expert.answer(top, origins)

    return run


def timed(work: Callable[[], None]) -> float:
    """Processor µs of one call, the mean of some in a row."""
    began = time.process_time()
    for _ in range(_CALLS):
        work()
    return 1e6 * (time.process_time() - began) / _CALLS


if __name__ == "__main__":
    main()
