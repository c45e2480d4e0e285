"""A worker that starts and then has nothing to do: time to ready, memory at rest, CPU and wake-ups while idle.

usage: python benchmarks/bench_rest.py [--clients batched librdkafka] [--seconds 15]

`forecaster run` as a process of its own, with the defaults of serving and an untrained network of the default shape,
on a topic without readings. Ready is when `/readyz` first answers 200: imports, the look at the topics, the group's
rebalance, the state of its partitions. The worker then rests; after a pause its CPU (user and system, all threads),
resident memory and voluntary context switches are taken over the seconds given. Writes benchmarks/results/rest.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from bench_e2e import CLIENTS, DELIVERIES, make_registry
from kafka_bench import RESULTS, SERVING, about, brokers, process_seconds, spread, write

from fault.harness import Crew, Ground  # isort: skip

_PARTITIONS = 4
_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.01
"""Between two looks at a worker that starts, which is as exact as the time to ready is."""
_SETTLE_SECONDS = 5.0
"""From ready to where rest is timed: what a start leaves to be done is none of it."""


def measure(ground: Ground, directory: Path, registry: Path, client: str, delivery: str, seconds: float) -> Any:
    """One start and one rest."""
    port = free_port()
    settings = {
        **SERVING,
        "COMMIT__INTERVAL_MS": "200",
        "STATE__FLUSH_SECONDS": "10",
        "KAFKA__SESSION_TIMEOUT_SECONDS": "10",
        "TELEMETRY__PORT": str(port),
        **CLIENTS[client],
    }
    crew = Crew(ground, workers=1, directory=directory, registry=registry, delivery=delivery, settings=settings)
    with (directory / "worker.log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "forecaster", "run"], env=crew.environment(), stdout=log, stderr=log
        )
        try:
            answers, ready = wait_until_ready(port, process, began)
            used = process_seconds(process.pid)
            time.sleep(_SETTLE_SECONDS)
            at, used_before, switched = time.monotonic(), process_seconds(process.pid), switches(process.pid)
            time.sleep(seconds)
            passed = time.monotonic() - at
            return {
                "seconds_to_http": round(answers, 2),
                "seconds_to_ready": round(ready, 2),
                "cpu_seconds_to_ready": round(used, 2),
                "cpu_share": (process_seconds(process.pid) - used_before) / passed,
                "wake_ups_per_second": (switches(process.pid) - switched) / passed,
                "resident_mb": resident_kb(process.pid) / 1024,
            }
        finally:
            process.terminate()
            process.wait(30)


def wait_until_ready(port: int, process: subprocess.Popen[bytes], began: float) -> tuple[float, float]:
    """Seconds until anybody answers, and until the answer is that it is ready."""
    answers = None
    while (now := time.monotonic() - began) < _PATIENCE_SECONDS:
        assert process.poll() is None, "the worker ended; its log is in the directory"
        with suppress(URLError, HTTPException, OSError):
            try:
                with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    return answers or now, now
            except HTTPError as error:  # it answers, and is not ready
                error.close()
                answers = answers or now
        time.sleep(_LOOK_SECONDS)
    raise AssertionError(f"not ready within {_PATIENCE_SECONDS} s")


def free_port() -> int:
    """One that nobody listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def switches(pid: int) -> int:
    """Voluntary context switches of all threads so far: each is a wake-up."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with suppress(FileNotFoundError):  # a thread that has just ended
            found += int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.MULTILINE)[0])
    return found


def resident_kb(pid: int) -> int:
    """Resident memory of a process."""
    return int(re.findall(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", nargs="+", default=["batched", "librdkafka"], choices=CLIENTS)
    parser.add_argument("--deliveries", nargs="+", default=list(DELIVERIES), choices=DELIVERIES)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--bootstrap", help="a running broker; else one is started")
    parser.add_argument("--out", type=Path, default=RESULTS / "rest.json")
    args = parser.parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)

    result: dict[str, Any] = about(["benchmarks/bench_rest.py", *sys.argv[1:]])
    result["settings"] = {"partitions": _PARTITIONS, "seconds": args.seconds, "runs": args.runs}
    result["figures"] = []
    with brokers(args.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as scratch:
        registry = make_registry(Path(scratch) / "models")
        with closing(Ground(bootstrap, partitions=_PARTITIONS, streams=1, seed=0)) as ground:
            for client in args.clients:
                for delivery in args.deliveries:
                    runs = []
                    for run in range(args.runs):
                        place = Path(scratch) / f"{client}-{delivery}-{run}"
                        runs.append(measure(ground, place, registry, client, delivery, args.seconds))
                    found = {"client": client, "delivery": delivery}
                    found |= {name: spread([run[name] for run in runs]) for name in runs[0]}
                    result["figures"].append(found)
                    print(json.dumps(found), flush=True)
    write(args.out, result)


if __name__ == "__main__":
    main()
