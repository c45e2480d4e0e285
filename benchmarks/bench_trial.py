"""What a trial costs while it lasts: CPU time of a task's waves with a second model beside the first, and without.

usage: python benchmarks/bench_trial.py

Prints, for some numbers of streams in a partition and on trial, the CPU time a wave takes alone, and with the second
model as a multiple of it. Both are taken in turns within one run; the middle of nine ratios counts.
"""

from __future__ import annotations

import json
import time
from statistics import median

import numpy as np
import torch

from forecaster.app import build_pipeline, build_rules
from forecaster.clock import SystemClock
from forecaster.connections import build_codec
from forecaster.engine.pipeline import Pipeline
from forecaster.engine.publisher import Publisher
from forecaster.engine.task import PartitionTask
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.decisions import Trial
from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.network import RecurrentForecaster
from forecaster.records import RawRecord
from forecaster.series.groups import DEFAULT
from forecaster.settings import Settings, load_settings

SIZES = ((16, 16), (64, 64), (512, 16), (512, 64), (512, 512))
ROUNDS, READINGS, WARM_UP = 9, 20, 40


def make_expert(pipeline: Pipeline, seed: int) -> RecurrentExpert:
    """An untrained network of the default shape; what it answers costs as much as what a trained one does."""
    names = pipeline.encoder.feature_names
    hp = HyperParameters(
        hidden=pipeline.hidden_shape[1],
        layers=1,
        horizon=pipeline.horizon,
        quantile_levels=pipeline.quantile_levels,
        feature_names=names,
        used_features=names,
    )
    return RecurrentExpert(
        RecurrentForecaster.seeded(hp, seed), model=seed, version=f"model-{seed}", season=0, encoder=pipeline.encoder
    )


def make_task(settings: Settings, pipeline: Pipeline, recurrent: RecurrentExpert, streams: int) -> PartitionTask:
    """A task as the daemon makes it, in memory; a boundary between any two readings of all streams."""
    publisher = Publisher(
        forecasts="forecasts", dead_letters="dlq", quantile_levels=pipeline.quantile_levels, experts=pipeline.experts
    )
    chosen = settings.model_copy(
        update={"engine": settings.engine.model_copy(update={"boundary_records": streams, "max_wave": 512})}
    )
    return PartitionTask(
        0,
        codec=build_codec(settings),
        pipeline=pipeline,
        publisher=publisher,
        rules=build_rules(chosen),
        networks={DEFAULT: recurrent},
    )


def readings(streams: int, first: int, count: int, rng: np.random.Generator) -> list[RawRecord]:
    """``count`` readings of each stream, a minute apart."""
    records = []
    for step in range(first, first + count):
        for stream in range(streams):
            body = {"timestamp": 1_767_225_600 + 60 * step, "value": round(float(rng.normal()), 3)}
            offset = step * streams + stream
            records.append(RawRecord("readings", 0, offset, -1.0, f"s{stream}".encode(), json.dumps(body).encode()))
    return records


def cpu_seconds(task: PartitionTask, records: list[RawRecord]) -> float:
    """CPU time of answering these."""
    began = time.process_time()
    task.process(records, SystemClock())
    return time.process_time() - began


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    print(f"{'streams':>8} {'on trial':>8} {'ms a wave':>10} {'with trial':>10}")
    for streams, on_trial in SIZES:
        settings = load_settings({"promotion": {"streams": on_trial}})
        pipeline = build_pipeline(settings)
        serving, beside = make_expert(pipeline, 1), make_expert(pipeline, 2)
        tasks = [make_task(settings, pipeline, serving, streams) for _ in range(2)]
        trial = Trial(number=1, kind="shadow", serving="model-1", beside="model-2", steps=1, began=0.0)
        tasks[1].try_out((trial, beside))
        rng, alone, ratios = np.random.default_rng(0), [], []
        warm_up = readings(streams, 0, WARM_UP, rng)
        for task in tasks:
            task.process(warm_up, SystemClock())
        for number in range(ROUNDS):
            records = readings(streams, WARM_UP + number * READINGS, READINGS, rng)
            one, both = (cpu_seconds(task, records) for task in tasks)
            alone.append(1000 * one / READINGS)
            ratios.append(both / one)
        assert tasks[1].live_scores(), "nothing was tried out"
        print(f"{streams:>8} {on_trial:>8} {median(alone):>10.2f} {median(ratios):>10.2f}")


if __name__ == "__main__":
    main()
