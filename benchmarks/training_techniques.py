"""Trains with and without each technique on real series and scores what comes after.

usage: python benchmarks/training_techniques.py [--scenarios etth1 few pm25] [--techniques adam l1 …] [--seeds 0 1 2]
           [--steps 400] [--list]

Every cell (scenario, technique, seed) is written to benchmarks/results/training.json as soon as it is known, and is
not measured again; so it can be stopped and run in parts. `python docs/make_training.py` makes docs/training.md of it.

Each cell trains on the first 60 % of the rows and is scored on the next 20 %, at every hour, by the network alone:
mean pinball in units of each stream's scale, every stream alike. Seconds are CPU seconds of the training.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from series import DATA, read_table

from forecaster.app import build_encoder, build_shape, prepare_history, train_challenger
from forecaster.codecs.timestamps import parse_time
from forecaster.models.artifact import ModelArtifact, write_atomically
from forecaster.settings import Settings, load_settings
from forecaster.training.crossvalidation import fold_loss
from forecaster.training.evaluate import Baselines, Stretch
from forecaster.training.history import History, Series
from forecaster.training.judging import StoppingScore
from forecaster.training.preparation import origins_among
from forecaster.training.search import Search, SearchPlan
from forecaster.training.splits import rolling_origin

RESULT = Path(__file__).parent / "results" / "training.json"
HORIZON, SEASON = 24, 24
TRAINED, SCORED = 0.6, 0.8
FEW_ROWS = 21 * 24
OWN_STREAMS, OTHER_STREAMS = ("LUFL", "LULL", "OT"), ("HUFL", "HULL", "MUFL", "MULL")

TECHNIQUES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("the defaults", {}),
    "adam": ("Adam", {"training.optimiser": "adam"}),
    "sgd": ("SGD with momentum", {"training.optimiser": "sgd", "training.learning_rate": 0.1}),
    "cosine": ("cosine schedule", {"training.schedule": "cosine"}),
    "constant": ("constant learning rate", {"training.schedule": "constant"}),
    "no_clip": ("no gradient clipping", {"training.clip": 0}),
    "no_l2": ("no L2", {"training.l2": 0}),
    "l2": ("L2 a hundred times stronger", {"training.l2": 1e-2}),
    "l1": ("L1", {"training.l1": 1e-5}),
    "no_dropout": ("no dropout", {"training.dropout": 0}),
    "dropout": ("dropout 0.3", {"training.dropout": 0.3}),
    "no_averaging": ("no weight averaging", {"training.averaging": 0}),
    "no_stopping": ("all steps taken, the best weights kept all the same", {"training.patience": 1_000_000}),
    "last_weights": ("no early stopping: the last weights", {"training.patience": 0}),
    "no_burn_in": ("no burn-in", {"training.burn_in": 0}),
    "truncated": ("back-propagation through 48 ticks", {"training.backprop_steps": 48}),
    "short_windows": ("windows of 96 ticks", {"training.context_length": 96}),
    "lstm": ("LSTM", {"model.cell": "lstm"}),
    "rnn": ("RNN", {"model.cell": "rnn"}),
    "stacked": ("two layers", {"model.layers": 2}),
    "hampel": ("outliers capped, Hampel", {"training.outliers": "hampel"}),
    "z_score": ("outliers masked, z-score", {"training.outliers": "z_score", "training.outlier_treatment": "mask"}),
    "filled": ("missing interpolated", {"training.missing": "interpolate"}),
    "filled_by_model": ("missing filled about the seasonal profile", {"training.missing": "model"}),
    "forking": ("forking sequences: every tick an origin", {"training.origins": 0}),
    "copies": ("two altered copies", {"training.augment_copies": 2}),
    "bootstrap": (
        "two copies, block bootstrap alone",
        {"training.augment_copies": 2, "training.augment_warp": 0, "training.augment_jitter": 0},
    ),
    "warp": (
        "two copies, warp alone",
        {"training.augment_copies": 2, "training.augment_bootstrap": False, "training.augment_jitter": 0},
    ),
    "jitter": (
        "two copies, jitter alone",
        {"training.augment_copies": 2, "training.augment_bootstrap": False, "training.augment_warp": 0},
    ),
    "mix_up": ("window mix-up", {"training.mix_up": 0.2}),
    "student": ("distilled from five", {"training.teacher_members": 5}),
    "small": ("width 32", {"model.hidden": 32}),
    "small_student": (
        "width 32, distilled from five of 64",
        {"model.hidden": 32, "training.teacher_members": 5, "training.teacher_hidden": 64},
    ),
    "transfer": ("started from other streams' model", {}),
    "two_covariates": ("two best covariates, F statistic", {"training.covariates_kept": 2}),
    "two_by_information": (
        "two best covariates, mutual information",
        {"training.covariates_kept": 2, "training.covariate_score": "mutual_information"},
    ),
    "tuned": ("halving over 12 configurations", {}),
}
"""What is shown of each technique, and the settings that turn it on."""

ONLY = {"transfer": {"few"}, "two_covariates": {"pm25"}, "two_by_information": {"pm25"}}
"""Techniques that need what only some scenarios have."""

SPACE: dict[str, list[Any]] = {
    "model.cell": ["gru", "lstm"],
    "training.learning_rate": [1e-3, 2e-3, 4e-3],
    "training.dropout": [0.0, 0.1, 0.2],
    "training.l2": [0.0, 1e-4, 1e-2],
}


class Scenario(NamedTuple):
    """Series to train on and to be scored on."""

    history: History
    """Everything, the scored part too."""
    train_from: float
    train_until: float
    """Event times; the scored part begins after it."""
    score_until: float
    overrides: dict[str, Any]
    source: History | None = None
    """Older readings of other streams."""


def scenario(name: str) -> Scenario:
    """One of ``etth1``, ``few`` (three streams of it, three weeks) and ``pm25`` (one stream, six covariates)."""
    overrides = {"forecast.horizon": HORIZON, "forecast.seasons": [SEASON]}
    if name == "pm25":
        times, values, covariates = _read_pm25()
        history = History({"pm2.5": Series(times, values, covariates)})
        overrides["readings.covariates"] = [f"c{k}" for k in range(covariates.shape[1])]
    else:
        names, times, values = read_table(DATA / "ett" / "ETTh1.csv", "date")
        history = History({n: Series(times, values[:, k]) for k, n in enumerate(names)})
    until, end = times[int(TRAINED * len(times)) - 1], times[int(SCORED * len(times)) - 1]
    if name != "few":
        return Scenario(history, times[0], until, end, overrides)
    first = times[int(TRAINED * len(times)) - FEW_ROWS]
    own = History({n: history.streams[n] for n in OWN_STREAMS})
    others = History({n: history.streams[n] for n in OTHER_STREAMS})
    return Scenario(own, first, until, end, overrides, others.between(times[0], first - 1.0))


def measure(case: Scenario, technique: str, seed: int, steps: int) -> dict[str, Any]:
    """One cell: train, score."""
    overrides = {**case.overrides, **TECHNIQUES[technique][1], "training.seed": seed, "training.steps": steps}
    history = case.history.between(case.train_from, case.train_until)
    source = None
    if technique == "transfer":
        assert case.source is not None
        source = train(load(overrides), case.source).artifact  # paid once for many groups, so not counted
    began = time.process_time()
    if technique == "tuned":
        overrides |= tuned(overrides, history, steps)
    settings = load(overrides)
    outcome = train(settings, history, source)
    seconds = time.process_time() - began
    pinball, naive = score(settings, case, outcome.artifact)
    found: dict[str, Any] = {"pinball": pinball, "naive": naive, "cpu_seconds": seconds}
    found["best_step"] = outcome.fit.best_step
    if outcome.leads.companions:  # on the trainer's own newest stretch, as it reports them
        found["judged"] = {"student": float(np.mean(outcome.leads.challenger))} | {
            name: float(np.mean(losses)) for name, losses in outcome.leads.companions.items()
        }
    if technique == "tuned":
        found["configuration"] = {name: overrides[name] for name in SPACE}
    return found


def train(settings: Settings, history: History, source: ModelArtifact | None = None) -> Any:
    """One cold training, without a limit of time."""
    return train_challenger(settings, history, champion=None, source=source, now=0.0, max_seconds=math.inf)


def tuned(overrides: Mapping[str, Any], history: History, steps: int) -> dict[str, Any]:
    """The best configuration by successive halving on the training rows; rungs as the defaults, relative to steps."""
    settings = load(overrides)
    prepared = prepare_history(settings, history)
    folds = rolling_origin(prepared.data, folds=3, horizon=HORIZON)
    rungs = tuple(max(1, round(share * steps)) for share in (0.125, 0.375, 1.125))

    def evaluate(jobs: Sequence[Any]) -> Any:
        from forecaster.app import build_recipe

        for job in jobs:
            chosen = load({**overrides, **job.configuration})
            loss = fold_loss(
                prepared,
                folds[job.fold],
                encoder=build_encoder(chosen),
                quantile_levels=chosen.forecast.quantiles,
                shape=build_shape(chosen),
                recipe=build_recipe(chosen),
                steps=job.steps,
                seed=chosen.training.seed,
            )
            yield job, loss

    plan = SearchPlan(space=SPACE, rungs=rungs, seed=settings.training.seed)
    return Search(plan, None).run(evaluate)[0].configuration


def score(settings: Settings, case: Scenario, artifact: ModelArtifact) -> tuple[float, float]:
    """Mean pinball on the scored part, of the network and of the last value."""
    encoder, levels = build_encoder(settings), settings.forecast.quantiles
    data = prepare_history(settings, case.history.between(case.train_from, case.score_until)).data
    bounds = list(zip(data.starts[:-1], data.starts[1:], strict=True))
    cut = np.array([a + np.searchsorted(data.times[a:b], case.train_until, "right") for a, b in bounds])
    stretch = Stretch(cut, data.starts[1:])
    seen = data.times <= case.train_until
    baselines = Baselines.learn(data, origins_among(data, seen), HORIZON, levels)
    scored = StoppingScore(data, stretch, data.starts[1:], levels, baselines, run_in=encoder.ring_steps)
    return scored(artifact.network()), scored.naive


def load(overrides: Mapping[str, Any]) -> Settings:
    """Settings from flat names."""
    nested: dict[str, dict[str, Any]] = {}
    for name, value in overrides.items():
        section, field = name.split(".", 1)
        nested.setdefault(section, {})[field] = value
    return load_settings(nested)


def _read_pm25() -> tuple[Any, Any, Any]:
    """Times, PM2.5 and its six numeric covariates; of the days before the first reading nothing."""
    path = DATA / "beijing_pm25" / "PRSA_data_2010.1.1-2014.12.31.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))[24:]
    times = [parse_time(f"{r['year']}-{int(r['month']):02}-{int(r['day']):02}T{int(r['hour']):02}:00") for r in rows]
    values = [math.nan if r["pm2.5"] == "NA" else float(r["pm2.5"]) for r in rows]
    covariates = [[float(r[name]) for name in ("DEWP", "TEMP", "PRES", "Iws", "Is", "Ir")] for r in rows]
    return np.array(times), np.array(values), np.array(covariates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=["etth1", "few", "pm25"], choices=["etth1", "few", "pm25"])
    parser.add_argument("--techniques", nargs="+", default=list(TECHNIQUES), choices=list(TECHNIQUES), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--result", type=Path, default=RESULT, metavar="FILE")
    parser.add_argument("--list", action="store_true", help="say which cells are missing and end")
    args = parser.parse_args()
    result = json.loads(args.result.read_text()) if args.result.exists() else {"steps": args.steps, "cells": {}}
    if result["steps"] != args.steps:
        parser.error(f"{args.result} holds trainings of {result['steps']} steps; name another --result")
    todo = [
        (case, technique, seed)
        for technique in args.techniques
        for case in args.scenarios
        for seed in args.seeds
        if case in ONLY.get(technique, {case}) and f"{case}/{technique}/{seed}" not in result["cells"]
    ]
    if args.list:
        print("\n".join("/".join(map(str, cell)) for cell in todo))
        return
    cases = {name: scenario(name) for name in {case for case, _, _ in todo}}
    for done, (case, technique, seed) in enumerate(todo, 1):
        cell = measure(cases[case], technique, seed, args.steps)
        result["cells"][f"{case}/{technique}/{seed}"] = cell
        write_atomically(args.result, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
        share = cell["pinball"] / cell["naive"]
        print(
            f"{done}/{len(todo)} {case}/{technique}/{seed}: pinball {cell['pinball']:.4f} ({share:.3f} of naive), "
            f"{cell['cpu_seconds']:.1f} s of CPU",
            flush=True,
        )


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main()
