"""How intervals keep their promise at 80 and 90 %: worst stream and lead by name, and against the network's own ones.

usage: python benchmarks/coverage.py [--sets etth1 air …] [--seed 0]

Each set of benchmarks/accuracy_sets.py is played by `forecaster backtest` in this process with levels for both
intervals. Coverage is that of scores.json, of every origin and lead after the warm-up; streams most of whose values are
one value or repeat the one before are left out and counted. The interval score is also taken of what the network said
itself, before mixture and calibration, at the same origins: there each of those streams stands alone. Writes
benchmarks/results/coverage.json, set by set.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_sets import RESULTS, SETS, Set

from forecaster.cli.main import main as forecaster
from forecaster.engine.pipeline import Pipeline, StepResult
from forecaster.evaluation.scores import Array, interval_score
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.series.identity import stream_identity
from forecaster.state.streams import IDENTITY

LEVELS = "0.05,0.1,0.5,0.9,0.95"
_OUTER, _INNER = 0, 1  # place of the lower quantile of the 90 and the 80 % interval
NOMINAL = {_INNER: 0.8, _OUTER: 0.9}
_NO_ORIGIN = "1000000"  # a stride beyond every stream: no forecasts are written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["etth1", "air", "nab", "heart"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    path = RESULTS / "coverage.json"
    for name in args.sets:
        found = played(SETS[name], args.seed)
        results = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(results | {name: found}, indent=1) + "\n")
        print(name, json.dumps(found), flush=True)


def played(chosen: Set, seed: int) -> dict[str, Any]:
    """One backtest of a set, and what became of its intervals."""
    flags = list(chosen.flags)
    for flag, value in (("--origin-stride", _NO_ORIGIN), ("--quantiles", LEVELS), ("--seed", str(seed))):
        if flag in flags:
            flags[flags.index(flag) + 1] = value
        else:
            flags += [flag, value]
    with tempfile.TemporaryDirectory(prefix="forecaster-coverage-") as out, kept_answers() as answers:
        code = forecaster(["backtest", "--data", str(chosen.data), "--out", out, *flags])
        if code:
            raise SystemExit(code)
        scores = json.loads((Path(out) / "scores.json").read_bytes())
    by_identity = against_raw(answers, scores["protocol"]["horizon"], scores["protocol"]["warmup"])
    ratios = {
        stream["stream_id"]: by_identity[identity]
        for stream in scores["streams"]
        if (identity := stream_identity(stream["stream_id"])) in by_identity
    }
    tied = [stream["stream_id"] for stream in scores["streams"] if stream["is_tied"]]
    return {
        "title": chosen.title,
        "seed": seed,
        "streams": len(scores["streams"]),
        "tied": tied,
        "intervals": [coverages(scores, nominal) for nominal in NOMINAL.values()],
        "interval_score_of_raw": _pooled([ratio for name, ratio in ratios.items() if name not in tied]),
        "interval_score_of_raw_tied": {name: ratio for name, ratio in ratios.items() if name in tied},
    }


def coverages(scores: dict[str, Any], nominal: float) -> dict[str, Any]:
    """Pooled, worst stream, worst lead and local deviation of one interval, over streams that are not tied."""
    fair = [stream for stream in scores["streams"] if not stream["is_tied"]]
    place = next(k for k, part in enumerate(fair[0]["all"]["intervals"]) if abs(part["nominal"] - nominal) < 1e-9)

    def pooled(parts: list[dict[str, Any]]) -> float:
        covered = [part["intervals"][place]["coverage"] for part in parts]
        return float(np.average(covered, weights=[part["targets"] for part in parts]))

    streams = {stream["stream_id"]: stream["all"]["intervals"][place]["coverage"] for stream in fair}
    leads = {
        str(lead + 1): pooled([stream["leads"][lead] for stream in fair])
        for lead in range(scores["protocol"]["horizon"])
    }
    deviations = [stream["local_deviation"][place] for stream in fair]
    return {
        "nominal": nominal,
        "coverage": pooled([stream["all"] for stream in fair]),
        "worst_stream": _worst(streams, nominal),
        "worst_lead": _worst(leads, nominal),
        "streams_off_by_two_points": sorted(name for name, held in streams.items() if abs(held - nominal) > 0.02),
        "leads_off_by_two_points": sorted(int(name) for name, held in leads.items() if abs(held - nominal) > 0.02),
        "local_deviation": float(np.mean([value for value in deviations if value is not None])),
    }


def _worst(coverage: dict[str, float], nominal: float) -> tuple[str, float]:
    name = max(coverage, key=lambda key: abs(coverage[key] - nominal))
    return name, coverage[name]


@contextlib.contextmanager
def kept_answers() -> Iterator[list[dict[str, Array]]]:
    """While it is open, what the engine published and what the network itself said, wave by wave."""
    answers: list[dict[str, Array]] = []
    said: list[Array] = []
    answer, step = RecurrentExpert.answer, Pipeline.step

    def heard(self: RecurrentExpert, top: Any, at: Any) -> Any:
        made, sane = answer(self, top, at)
        own = at.value[:, None, None] + at.scale[:, None, None] * made
        said[:] = [np.where(sane[:, None, None], own, np.nan)]
        return made, sane

    def kept(self: Pipeline, c: Any, wave: Any, recurrent: Any, **options: Any) -> StepResult:
        said.clear()
        result = step(self, c, wave, recurrent, **options)
        given = result.answers
        if len(given.slots):
            raw = said[0][: len(given.slots)] if said else np.full_like(given.quantiles, np.nan)
            answers.append(
                {
                    "stream": c[IDENTITY][given.slots],
                    "value": given.values,
                    "published": given.quantiles.astype(np.float32),
                }
                | {"raw": raw.astype(np.float32)}
            )
        return result

    RecurrentExpert.answer, Pipeline.step = heard, kept  # type: ignore[method-assign]
    try:
        yield answers
    finally:
        RecurrentExpert.answer, Pipeline.step = answer, step  # type: ignore[method-assign]


def against_raw(answers: list[dict[str, Array]], horizon: int, warmup: float) -> dict[int, dict[str, float]]:
    """Interval score published over that of the network's own interval, by nominal, of each `stream_identity`."""
    whole = {name: np.concatenate([part[name] for part in answers]) for name in answers[0]}
    found: dict[int, dict[str, float]] = {}
    for stream in np.unique(whole["stream"]):
        mine = whole["stream"] == stream
        values, published, raw = whole["value"][mine], whole["published"][mine], whole["raw"][mine]
        origins = np.arange(int(len(values) * warmup), max(len(values) - horizon, 0))
        origins = origins[~np.isnan(raw[origins, 0, 0])]
        if not len(origins):
            continue
        target = values[origins[:, None] + 1 + np.arange(horizon)]
        for place, nominal in NOMINAL.items():
            score, of_raw = (
                interval_score(target, made[origins, :, place], made[origins, :, -1 - place], miss_rate=1 - nominal)
                for made in (published, raw)
            )
            if of_raw > 0:
                found.setdefault(int(stream), {})[f"{nominal:g}"] = score / of_raw
    return found


def _pooled(ratios: list[dict[str, float]]) -> dict[str, float]:
    """Geometric mean over streams, by nominal."""
    names = [f"{nominal:g}" for nominal in NOMINAL.values()]
    return {name: float(np.exp(np.mean([np.log(ratio[name]) for ratio in ratios if name in ratio]))) for name in names}


if __name__ == "__main__":
    main()
