"""Streaming libraries beside the engine: readings per core-second when each is learnt from and answered by a forecast.

usage: python benchmarks/bench_peers.py --python PEERS/bin/python [--streams 20] [--readings 100] [--wave 1024]

PEERS is a virtual environment of its own, since these libraries want other versions of torch and numpy than the
project: `python3.11 -m venv PEERS && PEERS/bin/pip install river deep-river pytest` (deep-river imports pytest). There
a model object for each stream learns a reading and forecasts twelve steps, as River's protocol has it. Ours is the
whole engine as in `bench_scale.py`: JSON in, JSON with quantiles out. Processor time on one thread. deep-river trains
its network at each reading, ours is trained by another process at times, which is not in the figure; River's two have
no network. Writes benchmarks/results/peers.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HORIZON, SEASON = 12, 24
_WARM_UP = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="of an environment with river and deep-river")
    parser.add_argument("--streams", type=int, default=20, help="of the peers")
    parser.add_argument("--readings", type=int, default=100, help="of each of them, behind the warm-up")
    parser.add_argument("--wave", type=int, default=1_024, help="streams that ours steps at once")
    parser.add_argument("--only-peers", action="store_true", help="run in the peers' environment; prints figures")
    args = parser.parse_args()
    if args.only_peers:
        print(json.dumps(measure_peers(args.streams, args.readings)))
        return

    from bench_scale import measure  # needs the project
    from kafka_bench import RESULTS, about, write

    command = [str(args.python), __file__, "--python", str(args.python), "--only-peers"]
    command += ["--streams", str(args.streams), "--readings", str(args.readings)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, env=alone).stdout)
    [run] = measure(max(args.wave, 1_000), [args.wave], 16 * args.wave, 3)["runs"]
    ours = run["us_per_reading"]["median"]

    shown = [argument if argument != str(args.python) else "PEERS/bin/python" for argument in sys.argv[1:]]
    result: dict[str, Any] = about(["benchmarks/bench_peers.py", *shown])
    result |= {"streams": args.streams, "horizon": HORIZON, "wave": args.wave, "versions": found["versions"]}
    result["ours_us_per_reading"] = ours
    result["peers"] = [
        {"name": name, "us_per_reading": us, "times": round(us / ours, 1)} for name, us in found["peers"].items()
    ]
    write(RESULTS / "peers.json", result)
    for peer in result["peers"]:
        print(f"{peer['name']}: {peer['us_per_reading']:.1f} µs a reading, ours {ours:.1f}: {peer['times']} times")


def measure_peers(streams: int, readings: int) -> dict[str, Any]:
    """µs a reading of each, in the peers' environment."""
    import importlib.metadata
    import warnings

    warnings.simplefilter("ignore")
    import torch
    from deep_river import forecasting
    from river import linear_model, preprocessing, time_series

    torch.set_num_threads(1)
    contenders: dict[str, Callable[[], Any]] = {
        "deep-river, GRUForecaster, window 24, width 64": lambda: forecasting.GRUForecaster(
            window_size=SEASON, hidden_size=64
        ),
        "deep-river, LSTMForecaster, window 24, width 64": lambda: forecasting.LSTMForecaster(
            window_size=SEASON, hidden_size=64
        ),
        "River, SNARIMAX, p 12, d 1, q 12, season 24": lambda: time_series.SNARIMAX(
            p=12,
            d=1,
            q=12,
            m=SEASON,
            sd=1,
            regressor=preprocessing.StandardScaler() | linear_model.LinearRegression(),
        ),
        "River, HoltWinters, season 24": lambda: time_series.HoltWinters(
            alpha=0.3, beta=0.1, gamma=0.6, seasonality=SEASON
        ),
    }
    versions = {name: importlib.metadata.version(name) for name in ("river", "deep-river", "torch", "numpy")}
    return {"versions": versions, "peers": {name: cost(make, streams, readings) for name, make in contenders.items()}}


def cost(make: Callable[[], Any], streams: int, readings: int) -> float:
    """Processor µs of learning a reading and forecasting from it."""
    models = [make() for _ in range(streams)]

    def value(stream: int, lap: int) -> float:
        return 10.0 + math.sin(2 * math.pi * lap / SEASON) + (stream * 7919 + lap * 104_729) % 1_000 / 5_000

    for lap in range(_WARM_UP):
        for stream, model in enumerate(models):
            model.learn_one(value(stream, lap))
    began = time.process_time()
    for lap in range(_WARM_UP, _WARM_UP + readings):
        for stream, model in enumerate(models):
            model.learn_one(value(stream, lap))
            model.forecast(horizon=HORIZON)
    return round(1e6 * (time.process_time() - began) / (streams * readings), 2)


if __name__ == "__main__":
    main()
