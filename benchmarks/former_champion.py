"""What a former champion is worth beside its successor: `promotion.keep_former` on and off, on real series.

usage: python benchmarks/former_champion.py [--seeds 0 1 2]

ETTh1, seven hourly streams, 24 leads, by the pipeline that serves. A first model is trained on the first half of the
rows and serves from there. After 60 % a successor takes over, and the next 20 % are scored: mean pinball of what is
published, in units of each stream's scale at the switch, beside what the first model would have lost. Successors are

    warm      trained on the 60 % from the first model, as in service
    alike     trained on the 60 % from nothing, on another seed
    astray    a model of other streams, PM2.5 in Beijing, promoted by mistake

Then the online protocol (benchmarks/online_protocol.py) over 24 leads, without and with the former champion. Reads
../shared beside the checkout, writes benchmarks/results/former_champion.json; what is in that file already is not
measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from online_protocol import cut_series, run
from series import DATA, read_table
from training_techniques import HORIZON, SEASON, load, scenario

from forecaster.app import build_pipeline, build_recurrent, train_challenger
from forecaster.engine.wave import Wave
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.artifact import ModelArtifact, write_atomically
from forecaster.series.columns import FloatArray
from forecaster.settings import Settings
from forecaster.state.streams import StreamTable
from forecaster.training.history import History, Series

RESULT = Path(__file__).parent / "results" / "former_champion.json"
FIRST, SWITCH, END = 0.5, 0.6, 0.8
SPANS = (48, 240, 10**9)
"""Readings after the switch over which losses are told."""
STEPS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--result", type=Path, default=RESULT, metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(args.result.read_text()) if args.result.exists() else {"switch": {}, "online": {}}
    for seed in args.seeds:
        if str(seed) not in result["switch"]:
            result["switch"][str(seed)] = switch(seed)
            write_atomically(args.result, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
            print(f"seed {seed}: {json.dumps(result['switch'][str(seed)])}", flush=True)
    with tempfile.TemporaryDirectory(prefix="forecaster-former-") as scratch:
        data = cut_series(Path(scratch))
        for seed, keeps in itertools.product(args.seeds, ("false", "true")):
            name = f"{seed}/{'with' if keeps == 'true' else 'without'}"
            if name not in result["online"]:
                found = run(data, HORIZON, seed, Path(scratch) / name, settings={"promotion.keep_former": keeps})
                result["online"][name] = found["mse"]
                write_atomically(args.result, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
                print(f"online, seed {name}: {found['mse']:.4f}", flush=True)


def switch(seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Loss by successor, span, and who answers: ``stays`` (the first model), ``alone`` and ``beside``."""
    _, times, values = read_table(DATA / "ett" / "ETTh1.csv", "date")
    rows = {name: int(share * len(times)) for name, share in (("first", FIRST), ("switch", SWITCH), ("end", END))}
    settings = settings_of(seed, keeps_former=True)

    def fit(until: int, champion: ModelArtifact | None, seed: int) -> ModelArtifact:
        streams = {f"s{k}": Series(times[:until], values[:until, k]) for k in range(values.shape[1])}
        return trained(settings_of(seed, keeps_former=True), History(streams), champion)

    first = fit(rows["first"], None, seed)
    successors = {
        "warm": fit(rows["switch"], first, seed),
        "alike": fit(rows["switch"], None, seed + 100),
        "astray": astray(settings),
    }
    stays = play(settings, values[: rows["end"]], times, rows, first, None)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, successor in successors.items():
        losses = {
            "stays": stays,
            "alone": play(settings_of(seed, keeps_former=False), values[: rows["end"]], times, rows, first, successor),
            "beside": play(settings, values[: rows["end"]], times, rows, first, successor),
        }
        found[name] = {
            who: {str(min(span, len(loss))): float(loss[:span].mean()) for span in SPANS}
            for who, loss in losses.items()
        }
    return found


def settings_of(seed: int, *, keeps_former: bool) -> Settings:
    return load(
        {
            "forecast.horizon": HORIZON,
            "forecast.seasons": [SEASON],
            "training.seed": seed,
            "training.steps": STEPS,
            "promotion.keep_former": keeps_former,
        }
    )


def trained(settings: Settings, history: History, champion: ModelArtifact | None) -> ModelArtifact:
    outcome = train_challenger(settings, history, champion=champion, now=0.0, max_seconds=math.inf)
    artifact: ModelArtifact = outcome.artifact
    return artifact


def astray(settings: Settings) -> ModelArtifact:
    """A model of other streams under the same settings."""
    pm25 = scenario("pm25").history.streams["pm2.5"]
    rows = len(pm25.times) // 2
    return trained(settings, History({"pm2.5": Series(pm25.times[:rows], pm25.values[:rows])}), None)


def play(
    settings: Settings,
    values: FloatArray,
    times: FloatArray,
    rows: dict[str, int],
    first: ModelArtifact,
    successor: ModelArtifact | None,
) -> FloatArray:
    """Losses of every reading after the switch, mean over streams and leads, ``[T]``."""
    pipeline = build_pipeline(settings)
    table = StreamTable(pipeline.columns, max_streams=values.shape[1] + 1)
    slots = np.array([table.slot(f"s{k}") for k in range(values.shape[1])])
    network: RecurrentExpert | None = None
    scale, losses = np.ones(len(slots)), []
    for row in range(len(values)):
        if row == rows["first"]:
            network = build_recurrent(first, pipeline)
        if row == rows["switch"]:
            scale = table.arrays["scale"][slots].astype(np.float64)
            if successor is not None:
                network = build_recurrent(successor, pipeline, first)
        wave = Wave(slots, np.full(len(slots), times[row]), values[row], None, slots)
        result = pipeline.step(table.arrays, wave, network, keep_losses=row >= rows["switch"])
        if result.losses is not None:
            losses.append(np.nanmean(result.losses / scale[:, None]))
    return np.array(losses)


if __name__ == "__main__":
    main()
