"""What a reading costs the engine, by part, and what a stream costs in memory, by column.

usage: python benchmarks/bench_engine.py [--streams 256] [--waves 400] [--repeats 5] [--quantiles 0.1,0.5,0.9]

Waves of one reading of every stream go through `Pipeline.step` alone: no transport, no decoding, no publishing. The
network has the default shape and untrained weights, its linear forecast is fitted to nothing; what they answer does not
change what they cost. Time is processor time of this process, on one thread; a part's share comes from a second run
under clocks around the parts, scaled to the first. Medians over repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from forecaster.app import build_encoder, build_pipeline, build_untrained
from forecaster.engine.pipeline import Pipeline
from forecaster.engine.wave import Wave
from forecaster.experts.former import FormerChampion
from forecaster.experts.linear import lag_inputs
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.linear import MOST_OWN, LinearForecast
from forecaster.models.network import RecurrentForecaster
from forecaster.series.columns import row_bytes
from forecaster.series.identity import stream_identity
from forecaster.settings import Settings
from forecaster.state.streams import StreamTable

_WARM_WAVES = 200
_SEASON = 24
_PARTS = (
    ("catch up", "_catch_up", None),
    ("detect", "_detect", None),
    ("judge", "_judge", None),
    ("learn: encoder", "encoder", "tick"),
    ("learn: network", "recurrent", "step"),
    ("forecast: network's head", "recurrent", "answer"),
    ("forecast: baselines and linear", "_points", None),
    ("forecast: weights", "_mixture", "weights"),
    ("forecast: widths", "_tracker", "widen"),
    ("forecast: keep what waits", "pending", "add"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--waves", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quantiles", default="0.1,0.5,0.9")
    parser.add_argument("--former", action="store_true", help="with a former champion beside the network")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings.model_validate(
        {
            "forecast": {"quantiles": [float(q) for q in args.quantiles.split(",")], "seasons": [str(_SEASON)]},
            "promotion": {"keep_former": args.former},
        }
    )
    pipeline = build_pipeline(settings)
    recurrent = untrained(settings, pipeline)
    whole = [cost(pipeline, recurrent, args.streams, args.waves) for _ in range(args.repeats)]
    parts: defaultdict[str, float] = defaultdict(float)
    timed = cost(pipeline, recurrent, args.streams, args.waves, parts)
    per_reading = statistics.median(whole)

    print(f"{args.streams} streams a wave, {args.waves} waves, horizon {pipeline.horizon}, levels {args.quantiles}")
    print(f"{'whole':32s} {per_reading:6.2f} µs a reading (least {min(whole):.2f}, most {max(whole):.2f})")
    shares = {name: spent / (args.streams * args.waves) * per_reading / timed for name, spent in parts.items()}
    shares["all else"] = per_reading - sum(shares.values())
    for name, share in shares.items():
        print(f"  {name:30s} {share:6.2f}")
    memory = {column.name: column.row_bytes for column in pipeline.columns}
    print(f"{row_bytes(pipeline.columns):,} bytes a stream")
    for name, nbytes in sorted(memory.items(), key=lambda item: -item[1])[:10]:
        print(f"  {name:30s} {nbytes:6,}")
    if args.json:
        found = {"microseconds": per_reading, "parts": shares, "bytes": memory, "streams": args.streams}
        with open(args.json, "w") as file:
            json.dump(found, file, indent=1)


def untrained(settings: Settings, pipeline: Pipeline) -> RecurrentExpert:
    """The serving expert of `untrained_network`."""
    network = untrained_network(settings)
    former = FormerChampion(untrained_network(settings), version="gru-former") if pipeline.keeps_former else None
    return RecurrentExpert(
        network, model=1, version="gru-bench", season=_SEASON, encoder=pipeline.encoder, former=former
    )


def untrained_network(settings: Settings) -> RecurrentForecaster:
    """A network of the default shape, with a linear forecast beside it that has weights of their own for s0, s1, …"""
    encoder, horizon = build_encoder(settings), settings.forecast.horizon
    network = build_untrained(settings, encoder).network
    width, names = lag_inputs(encoder).width, sorted(stream_identity(f"s{k}") for k in range(MOST_OWN))
    linear = LinearForecast(width, horizon, len(names))
    zeros = torch.zeros(len(names), width, horizon)
    linear.set(zeros[0], torch.ones(horizon), zeros, torch.tensor(names))
    network.take_linear(linear)
    return network


def cost(
    pipeline: Pipeline,
    recurrent: RecurrentExpert,
    streams: int,
    waves: int,
    parts: defaultdict[str, float] | None = None,
) -> float:
    """Processor time a reading, in µs, once every stream has all it needs; by part too where asked for."""
    table = StreamTable(pipeline.columns, max_streams=streams + 1)
    slots = np.array([table.slot(f"s{k}") for k in range(streams)])
    rng = np.random.default_rng(0)
    values = 100.0 + np.cumsum(rng.standard_normal((_WARM_WAVES + waves, streams)), axis=0)

    def play(first: int, last: int) -> None:
        for n in range(first, last):
            times = np.full(streams, 1_767_225_600.0 + 3_600.0 * n)
            pipeline.step(table.arrays, Wave(slots, times, values[n], None, slots), recurrent)

    play(0, _WARM_WAVES)
    restore = [] if parts is None else [clocked(pipeline, recurrent, part, parts) for part in _PARTS]
    began = time.process_time()
    play(_WARM_WAVES, _WARM_WAVES + waves)
    spent = time.process_time() - began
    for undo in restore:
        undo()
    return 1e6 * spent / (streams * waves)


def clocked(
    pipeline: Pipeline,
    recurrent: RecurrentExpert,
    part: tuple[str, str, str | None],
    spent: defaultdict[str, float],
) -> Callable[[], None]:
    """Put a clock around a part; returns what takes it off again."""
    label, name, method = part
    owner: Any = pipeline if method is None else recurrent if name == "recurrent" else getattr(pipeline, name)
    attribute = name if method is None else method
    plain = getattr(owner, attribute)

    def measured(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        try:
            return plain(*args, **kwargs)
        finally:
            spent[label] += 1e6 * (time.process_time() - began)

    setattr(owner, attribute, measured)
    return lambda: delattr(owner, attribute)


if __name__ == "__main__":
    main()
