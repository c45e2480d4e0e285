"""What a training costs, and what it costs the worker beside it: CPU seconds, memory, throughput, waiting.

usage: python benchmarks/bench_training.py [--parts fits worker] [--runs 3] [--seconds 180] [--streams 997]

``fits``: `forecaster train` on the seven streams of ETTh1, pinned to one core: cold on the first 16 months, then warm,
from the model promoted before, on 24; the whole process counts, imports too. ``worker``: the embedded daemon in memory,
pinned to one core, answers readings as fast as it can and trains again and again in a child pinned to another, as
`forecaster demo` would; what it does while a child runs is set against what it does between two, in one run. Both need
two cores. Writes benchmarks/results/training_cost.json, each part as soon as it is known; a part that is not measured
stays there as it was. `python docs/make_training.py` makes a section of docs/training.md of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kafka_bench import RESULTS, EvenStreams, about, spread, write
from series import DATA

from forecaster.app import build_daemon
from forecaster.daemon import Daemon
from forecaster.ports import AssignmentListener, Sink
from forecaster.records import OutRecord, RawRecord
from forecaster.settings import load_settings
from forecaster.stores.registry_directory import DirectoryRegistry

WORKER_CORE, TRAINER_CORE = 0, 1
COLD_ROWS, WARM_ROWS = 16 * 30 * 24, 24 * 30 * 24
TURN_READINGS = 256
"""Taken by a poll, so that each is answered within one turn of the loop."""
AFTER_SWITCH_SECONDS = 5.0
"""A promoted model is taken over after its training: streams rebuild their hidden states. Neither with nor without."""
LEAST_SECONDS = 5.0
"""A stretch shorter than this is not measured."""


class Batch(NamedTuple):
    """Readings handed over by one poll."""

    polled: float
    readings: int
    state: str
    """``training``, ``waiting``, or ``switching``."""


class EndlessSource:
    """A `Source` in memory that always has more, and notes when each batch was taken."""

    topic = "readings"

    def __init__(self, streams: int) -> None:
        self.batches: list[Batch] = []
        self.state = "switching"
        self._streams, self._offset = EvenStreams(streams), 0
        self._listener: AssignmentListener | None = None
        self._has_begun = False

    def subscribe(self, listener: AssignmentListener) -> None:
        self._listener = listener

    def poll(self, max_records: int, timeout_seconds: float) -> list[RawRecord]:
        assert self._listener is not None, "the worker subscribes first"
        if not self._has_begun:
            self._has_begun = True
            self._listener.assigned([0])
            return []
        self.batches.append(Batch(time.perf_counter(), max_records, self.state))
        first, self._offset = self._offset, self._offset + max_records
        return [
            RawRecord(self.topic, 0, first + k, -1.0, key, value)
            for k, (key, value) in enumerate(self._streams.take(max_records))
        ]

    def commit(self, offsets: Mapping[int, int]) -> None:
        """There is nowhere to."""

    def lag(self) -> Mapping[int, int]:
        return {0: 0}

    def is_exhausted(self) -> bool:
        return False

    def close(self) -> None:
        """There is nothing to release."""


class ForgetfulSink(Sink):
    """A `Sink` that keeps nothing but when its records were asked to be safe."""

    def __init__(self) -> None:
        self.flushes: list[float] = []

    def send(self, record: OutRecord) -> None:
        """Taken and forgotten."""

    def flush(self, timeout_seconds: float) -> None:
        self.flushes.append(time.perf_counter())

    def close(self) -> None:
        """There is nothing to release."""


class PinTrainer(logging.Handler):
    """Moves the trainer child to its core as soon as the daemon says that it has started one."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "training started":
            os.sched_setaffinity(record.__dict__["pid"], {TRAINER_CORE})


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """This thread, and what it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def fits(run: int) -> dict[str, dict[str, float]]:
    """CPU seconds, wall-clock seconds and largest memory of a cold and of a warm training."""
    with tempfile.TemporaryDirectory() as scratch, (DATA / "ett" / "ETTh1.csv").open() as source:
        lines = list(source)
        registry = Path(scratch) / "models"
        found = {}
        for name, rows in (("cold", COLD_ROWS), ("warm", WARM_ROWS)):
            data = Path(scratch) / "ETTh1.csv"
            data.write_text("".join(lines[: 1 + rows]))
            command = [sys.executable, "-m", "forecaster", "train", "--data", str(data), "--columns", "*"]
            command += ["--horizon", "24", "--season", "24", "--seed", str(run)]
            command += ["--set", "registry.kind=directory", "--set", f"registry.directory={registry}"]
            found[name] = _run_pinned(command)
            promoted = DirectoryRegistry(registry).champion()
            assert promoted is not None, "the first model beats naive here, or there is nothing to be warm from"
        return found


def _run_pinned(command: Sequence[str]) -> dict[str, float]:
    with pinned(WORKER_CORE), open(os.devnull, "wb") as nowhere:
        began = time.perf_counter()
        actions = [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1), (os.POSIX_SPAWN_DUP2, nowhere.fileno(), 2)]
        pid = os.posix_spawn(command[0], list(command), os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}.")
    return {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "seconds": time.perf_counter() - began,
        "peak_mb": usage.ru_maxrss / 1024,
    }


def beside_a_worker(streams: int, seconds: float) -> dict[str, Any]:
    """Throughput and waiting of a worker while a child trains and while none does, stretch by stretch."""
    with tempfile.TemporaryDirectory() as scratch, pinned(WORKER_CORE):
        settings = load_settings(
            {
                "registry": {"kind": "directory", "directory": f"{scratch}/models"},
                "telemetry": {"port": 0, "log_level": "ERROR"},
                "engine": {"max_poll_records": TURN_READINGS},
                "training": {"every": 1, "min_wall_seconds": 15, "max_readings_per_stream": 2_000},
                # Else the former champion is scored beside its successor in the stretches without a training alone.
                "promotion": {"guard_steps": 0},
            }
        )
        source, sink, stop = EndlessSource(streams), ForgetfulSink(), threading.Event()
        daemon = build_daemon(settings, source=source, sink=sink, embedded=True)
        watcher = threading.Thread(target=_watch, args=(daemon, source, stop, seconds))
        watcher.start()
        daemon.run(stop)
        watcher.join()
    return compare(source.batches, sink.flushes)


def _watch(daemon: Daemon, source: EndlessSource, stop: threading.Event, seconds: float) -> None:
    """Keep the source's state up to date from the end of the first training on; stop when the time is over."""
    os.sched_setaffinity(0, {TRAINER_CORE})
    first_is_over, ended, deadline = False, 0.0, float("inf")
    was_training = False
    while (now := time.perf_counter()) < deadline and not stop.wait(0.005):
        is_training = daemon.header()["training"] == "running"
        if was_training and not is_training:
            ended = now
            if not first_is_over:
                first_is_over, deadline = True, now + seconds
        was_training = is_training
        settled = now - ended > AFTER_SWITCH_SECONDS
        source.state = "switching" if not first_is_over else "training" if is_training else (
            "waiting" if settled else "switching"
        )  # fmt: skip
    stop.set()


def compare(batches: Sequence[Batch], flushes: Sequence[float]) -> dict[str, Any]:
    """Stretches with and without a training in turn: what the first does to the second."""
    ends = np.array(flushes)
    stretches: list[tuple[str, dict[str, float]]] = []
    for state, group in itertools.groupby(batches[:-1], key=lambda batch: batch.state):
        part = list(group)
        if state != "switching" and part[-1].polled - part[0].polled >= LEAST_SECONDS:
            stretches.append((state, _measured(part, ends)))
    pairs = [
        (one, other) if state == "waiting" else (other, one)
        for (state, one), (next_state, other) in itertools.pairwise(stretches)
        if state != next_state
    ]
    if not pairs:
        raise SystemExit("No stretch with a training stands beside one without: give more --seconds.")
    return {
        "stretches": [{"state": state, **numbers} for state, numbers in stretches],
        "pairs": len(pairs),
        "throughput_kept": spread([b["readings_per_second"] / a["readings_per_second"] for a, b in pairs]),
        "turn_p50_times": spread([b["turn_p50_ms"] / a["turn_p50_ms"] for a, b in pairs]),
        "turn_p99_times": spread([b["turn_p99_ms"] / a["turn_p99_ms"] for a, b in pairs]),
        "wait_p99_times": spread([b["wait_p99_ms"] / a["wait_p99_ms"] for a, b in pairs]),
    }


def _measured(part: Sequence[Batch], flushes: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    """Of one stretch: readings a second; a turn, from poll to poll; from poll to the commit of what it brought."""
    polled = np.array([batch.polled for batch in part])
    turns = np.diff(polled) * 1000
    after = np.searchsorted(flushes, polled)
    known = after < len(flushes)
    waits = (flushes[after[known]] - polled[known]) * 1000
    turn_p50, turn_p99 = np.percentile(turns, [50, 99])
    wait_p50, wait_p99 = np.percentile(waits, [50, 99])
    seconds = float(polled[-1] - polled[0])
    return {
        "seconds": round(seconds, 1),
        "readings_per_second": round(sum(batch.readings for batch in part[:-1]) / seconds, 1),
        "turn_p50_ms": round(float(turn_p50), 2),
        "turn_p99_ms": round(float(turn_p99), 2),
        "wait_p50_ms": round(float(wait_p50), 1),
        "wait_p99_ms": round(float(wait_p99), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["fits", "worker"], default=["fits", "worker"])
    parser.add_argument("--runs", type=int, default=3, help="of the fits")
    parser.add_argument("--seconds", type=float, default=180.0, help="of the worker, after its first training")
    parser.add_argument("--streams", type=int, default=997, help="with 1,000 no stream would move")
    parser.add_argument("--out", type=Path, default=RESULTS / "training_cost.json")
    args = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("worker and trainer need a core each, and this process may use one alone")
    logging.getLogger("forecaster").addHandler(PinTrainer())
    logging.getLogger("forecaster").setLevel(logging.INFO)
    logging.getLogger("forecaster").propagate = False

    result: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    measured = about(["benchmarks/bench_training.py", *sys.argv[1:]])
    if "fits" in args.parts:
        runs = [fits(run) for run in range(args.runs)]
        found = {kind: {name: spread([run[kind][name] for run in runs]) for name in runs[0][kind]} for kind in runs[0]}
        for kind, numbers in found.items():
            cpu, peak = numbers["cpu_seconds"]["median"], numbers["peak_mb"]["median"]
            print(f"{kind}: {cpu:.1f} s of CPU, {peak:.0f} MB", flush=True)
        result["fits"] = {"about": measured, **found}
        write(args.out, result)
    if "worker" in args.parts:
        beside = beside_a_worker(args.streams, args.seconds)
        result["worker"] = {"about": measured, "streams": args.streams, **beside}
        print(
            f"beside a training, {beside['pairs']} pairs: {beside['throughput_kept']['median']:.3f} of the throughput, "
            f"p99 of a turn {beside['turn_p99_times']['median']:.2f} times",
            flush=True,
        )
        write(args.out, result)


if __name__ == "__main__":
    main()
