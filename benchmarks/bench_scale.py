"""What a reading costs and what a stream takes as streams become many and waves wide: the engine alone, no broker.

usage: python benchmarks/bench_scale.py [--streams 1000 10000 100000 1000000] [--waves 16 64 256 1024] [--repeats 3]

One partition's task as the daemon builds it, with exactly-once bookkeeping and an untrained network of the default
shape, takes JSON readings in and makes JSON forecasts. A thousand streams are brought to age by 120 readings each; the
others get their rows from one of these and names of their own, since ageing a million streams would take an hour and
change no figure. Then streams come in an order drawn at random, each once a lap, so that the rows of a wave lie as far
apart as memory allows. Each number of streams has a process of its own. Time is processor time on one thread of
`PartitionTask.process`, the median over the repeats; memory is the resident size of the process with the streams, less
that before them. Last, pages of state are encoded: what `exactly_once` adds to a commit. Writes
benchmarks/results/scale.json.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_engine import untrained
from kafka_bench import RESULTS, START, about, spread, write

from forecaster.app import build_pipeline, build_rules
from forecaster.clock import SystemClock
from forecaster.connections import build_codec
from forecaster.engine.keeper import StateKeeper
from forecaster.engine.pipeline import Pipeline
from forecaster.engine.publisher import Publisher
from forecaster.engine.task import PartitionTask
from forecaster.records import RawRecord
from forecaster.series.columns import row_bytes
from forecaster.series.groups import DEFAULT
from forecaster.settings import Settings
from forecaster.state.pages import PAGE_SLOTS, encode_page
from forecaster.state.streams import IDENTITY

AGED = 1_000
_AGE_READINGS = 120
_STEP_SECONDS = 60.0
_PAGES = 200
_PARTS = {
    "readings to look back on (ring)": ("ring", "ring_elapsed"),
    "published forecasts that wait for their target": ("pending_quantiles", "pending_made"),
    "experts' forecasts that wait for their target": ("pending_points",),
    "hidden state of the network": ("hidden",),
    "expert weights": ("regret", "inverse_rate", "regret_bound"),
    "widths and spreads": ("spread", "log_width"),
}
"""Columns of the table by what they are for; the others stand together."""
_SEASONAL_BYTES = 4
"""Of the ring, for each step that a season may look back."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--waves", type=int, nargs="+", default=[16, 64, 256, 1_024], help="streams stepped at once")
    parser.add_argument("--waves-at", type=int, default=100_000, help="streams at which waves of each width are tried")
    parser.add_argument("--wave", type=int, default=1_024, help="of the other numbers of streams")
    parser.add_argument("--readings", type=int, default=65_536, help="of one repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--add", action="store_true", help="to the numbers of streams in the file, of the same settings"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    parser.add_argument("--one", type=int, metavar="STREAMS", help="measure this number here and print it")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.waves, args.readings, args.repeats)))
        return

    result: dict[str, Any] = about(["benchmarks/bench_scale.py", *sys.argv[1:]])
    result["settings"] = {"readings": args.readings, "repeats": args.repeats, "wave": args.wave}
    result["cells"] = []
    if args.add and args.out.exists():
        before = json.loads(args.out.read_text())
        assert before["settings"] == result["settings"], "cells of other settings cannot be compared"
        result["command"] = f"{before['command']}; {result['command']}"
        result["cells"] = [cell for cell in before["cells"] if cell["streams"] not in args.streams]
    for streams in args.streams:
        waves = sorted({args.wave, *args.waves}) if streams == args.waves_at else [args.wave]
        command = [sys.executable, __file__, "--one", str(streams), "--readings", str(args.readings)]
        command += ["--repeats", str(args.repeats), "--waves", *map(str, waves)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        result["cells"] = sorted([*result["cells"], found], key=lambda cell: cell["streams"])
        by_streams = {cell["streams"]: at(cell, args.wave)["us_per_reading"]["median"] for cell in result["cells"]}
        most, least = max(by_streams), min(by_streams)
        result["ratio"] = {"streams": [most, least], "cost": round(by_streams[most] / by_streams[least], 3)}
        write(args.out, result)  # each time: a run that is cut short has not been for nothing
        for run in found["runs"]:
            print(
                f"{streams} streams, waves of {run['wave']}: {run['us_per_reading']['median']} µs a reading", flush=True
            )
        print(f"{streams} streams: {found['resident_bytes']} B a stream resident, {found['bytes']['whole']} B by part")
    print(f"cost at {most} streams ÷ at {least}: ratio {result['ratio']['cost']:.2f}")


def at(cell: dict[str, Any], wave: int) -> dict[str, Any]:
    """The run of a cell at one width of waves."""
    return next(run for run in cell["runs"] if run["wave"] == wave)


def measure(streams: int, waves: Sequence[int], readings: int, repeats: int) -> dict[str, Any]:
    """Costs and bytes of one number of streams."""
    torch.set_num_threads(1)
    settings = Settings.model_validate({"streams": {"max_streams": streams}, "engine": {"max_wave": max(waves)}})
    pipeline = build_pipeline(settings)
    task = make_task(settings, pipeline)
    source = Readings(task.partition)
    age(task, source)
    resident_before = resident_bytes()
    multiply(task, streams)
    resident = (resident_bytes() - resident_before) / max(streams - AGED, 1)
    gc.collect()
    gc.freeze()  # as `forecaster run` does

    runs = []
    order = np.random.default_rng(0).permutation(streams)
    for wave in waves:
        us, stages = [], []
        for _ in range(repeats):
            spent, by_stage = play(task, source, order, wave, readings)
            us.append(spent)
            stages.append(by_stage)
        middle = stages[us.index(statistics.median_low(us))]
        runs.append({"wave": wave, "us_per_reading": spread(us), "stages": middle})
    return {
        "streams": streams,
        "runs": runs,
        "resident_bytes": round(resident) if streams > AGED else None,
        "bytes": parts(task, pipeline),
        "pages": pages(task, streams),
    }


def make_task(settings: Settings, pipeline: Pipeline) -> PartitionTask:
    """As `build_daemon` makes it for exactly-once delivery."""
    publisher = Publisher(
        forecasts="forecasts",
        dead_letters="dead",
        quantile_levels=settings.forecast.quantiles,
        experts=pipeline.experts,
    )
    return PartitionTask(
        0,
        codec=build_codec(settings),
        pipeline=pipeline,
        publisher=publisher,
        rules=build_rules(settings),
        networks={DEFAULT: untrained(settings, pipeline)},
        keep_state=lambda table: StateKeeper(table, flush_seconds=settings.state.flush_seconds, max_pages=8),
    )


class Readings:
    """Readings of given streams, each a step after the stream's last one."""

    def __init__(self, partition: int) -> None:
        self._partition, self._offset = partition, 0
        self._rng = np.random.default_rng(1)
        self._laps: dict[int, int] = {}

    def take(self, streams: Sequence[int]) -> list[RawRecord]:
        """One reading of each."""
        records = []
        noise = self._rng.normal(0, 1, len(streams)).tolist()
        for stream, step in zip(streams, noise, strict=True):
            lap = self._laps.get(stream, _AGE_READINGS if stream >= AGED else 0)
            self._laps[stream] = lap + 1
            body = b'{"stream_id":"%b","timestamp":%d,"value":%.3f}' % (
                name(stream).encode(),
                START + _STEP_SECONDS * lap,
                100.0 + 10.0 * np.sin(lap / 24 * 2 * np.pi) + step,
            )
            key = name(stream).encode()
            records.append(RawRecord("readings", self._partition, self._offset, START, key, body))
            self._offset += 1
        return records


def name(stream: int) -> str:
    """As long as the names of sensors are."""
    return f"site-{stream % 97}/sensor-{stream}"


def age(task: PartitionTask, source: Readings) -> None:
    """Bring the first streams to where all they need is learnt."""
    clock = SystemClock()
    for _ in range(_AGE_READINGS):
        task.process(source.take(range(AGED)), clock)


def multiply(task: PartitionTask, streams: int) -> None:
    """Give all further streams the rows of an aged one."""
    aged = [task.table.find(name(stream)) for stream in range(AGED)]
    slots = [task.table.slot(name(stream)) for stream in range(AGED, streams)]
    assert None not in slots, "the table is large enough"
    for first in range(0, len(slots), 50_000):
        to = np.array(slots[first : first + 50_000])
        of = np.array([aged[(first + n) % AGED] for n in range(len(to))])
        for column, array in task.table.arrays.items():
            if column != IDENTITY:
                array[to] = array[of]


def play(
    task: PartitionTask, source: Readings, order: np.ndarray[Any, Any], wave: int, readings: int
) -> tuple[float, dict[str, float]]:
    """Processor µs a reading, and wall-clock µs by stage."""
    clock, spent = SystemClock(), 0.0
    by_stage: dict[str, float] = {}
    places = np.resize(np.roll(order, -source._offset), readings).tolist()
    at_once = min(wave, len(order))  # a stream that came twice would make a second, narrow wave
    for first in range(0, readings, at_once):
        records = source.take(places[first : first + at_once])
        began = time.process_time()
        found = task.process(records, clock)
        spent += time.process_time() - began
        assert found.forecasts == len(records), "each reading is answered by a forecast"
        for stage, seconds in found.seconds.items():
            by_stage[stage] = by_stage.get(stage, 0.0) + 1e6 * seconds / readings
    return 1e6 * spent / readings, {stage: round(us, 2) for stage, us in by_stage.items()}


def parts(task: PartitionTask, pipeline: Pipeline) -> dict[str, Any]:
    """Bytes a stream, by what they are for."""
    by_name = {column.name: column.row_bytes for column in pipeline.columns}
    found = {part: sum(by_name.pop(name) for name in names) for part, names in _PARTS.items()}
    found["clock, scale, anomaly state and other columns"] = sum(by_name.values())
    table = task.table
    names = sum(sys.getsizeof(stream) for stream in table) / len(table)
    entries = (sys.getsizeof(table._slots) + sys.getsizeof(table._ids)) / len(table)
    numbers = sys.getsizeof(2**20)  # the slot in the dictionary
    found["name, entry, slot number, identity"] = round(names + entries + numbers + 8 + 1)
    slots = pipeline.encoder.ring_steps
    whole = sum(found.values())
    seasonal = _SEASONAL_BYTES * slots
    return {
        "whole": whole,
        "columns": row_bytes(pipeline.columns),
        "parts": found,
        "seasonal_slots": slots,
        "without_seasonal": whole - seasonal,
    }


def pages(task: PartitionTask, streams: int) -> dict[str, float]:
    """What writing state costs: µs and bytes of one stream's share of a page."""
    numbers = np.random.default_rng(2).permutation(streams // PAGE_SLOTS)[:_PAGES].tolist()
    began = time.process_time()
    written = [encode_page(task.table, number, 0, model="gru-bench") for number in numbers]
    spent = time.process_time() - began
    rows = len(numbers) * PAGE_SLOTS
    return {
        "us_per_stream": round(1e6 * spent / rows, 3),
        "bytes_per_stream": round(sum(len(page or b"") for page in written) / rows, 1),
    }


def resident_bytes() -> int:
    """Of this process, after what was freed has gone back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages_resident = int(Path("/proc/self/statm").read_text().split()[1])
    return pages_resident * 4096


if __name__ == "__main__":
    main()
