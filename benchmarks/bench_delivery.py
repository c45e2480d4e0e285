"""What exactly-once delivery costs beside at-least-once, in one run: throughput, CPU, latency by commit interval.

usage: python benchmarks/bench_delivery.py [--readings 100000] [--runs 3] [--rate 1000] [--seconds 20]

Throughput: one worker empties a topic that was filled before; from its first commit to its last, the two deliveries in
turn. Latency: readings come at a steady rate and carry the time of sending; a read-committed reader notes when the
forecast of each is there. Both start after a warm-up. Writes benchmarks/results/delivery.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from kafka_bench import RESULTS, SERVING, EvenStreams, about, brokers, cpu_seconds, spread, write

from fault.harness import Crew, Ground, make_registry  # isort: skip
from kafka import KafkaConsumer, TopicPartition

DELIVERIES = ("at_least_once", "exactly_once")
PATIENCE_SECONDS = 300.0


def drain(bootstrap: str, directory: Path, ground: Ground, delivery: str, interval_ms: int) -> dict[str, float]:
    """Readings a second and CPU µs a reading of a worker that empties the topic."""
    settings = {**SERVING, "COMMIT__INTERVAL_MS": str(interval_ms), "STATE__FLUSH_SECONDS": "10"}
    with (
        Crew(
            ground, workers=1, directory=directory, registry=directory / "none", delivery=delivery, settings=settings
        ) as crew,
        closing(KafkaConsumer(bootstrap_servers=bootstrap, group_id=crew.group_id)) as asking,
    ):
        partitions = [TopicPartition(ground.readings, number) for number in range(ground.partitions)]

        def done() -> int:
            return sum(asking.committed(tp) or 0 for tp in partitions)

        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (first := done()):
            assert time.monotonic() < deadline, crew.explain()
            time.sleep(0.02)
        began, used = time.monotonic(), cpu_seconds(crew)
        while (last := done()) < ground.sent:
            assert time.monotonic() < deadline, crew.explain()
            time.sleep(0.1)
        seconds, used = time.monotonic() - began, cpu_seconds(crew) - used
        crew.stop(0)
    return {"readings_per_second": (last - first) / seconds, "cpu_us_per_reading": 1e6 * used / (last - first)}


def latencies(bootstrap: str, directory: Path, args: argparse.Namespace, delivery: str, ms: int) -> dict[str, Any]:
    """Milliseconds from a reading's sending to its forecast in a read-committed consumer's hands."""
    ground = Ground(bootstrap, partitions=args.partitions, streams=1, seed=0)
    ground._input = EvenStreams(args.streams, now=time.time)  # type: ignore[assignment]
    registry = directory / "models"
    make_registry(registry)
    settings = {"COMMIT__INTERVAL_MS": str(ms), "STATE__FLUSH_SECONDS": "10"}
    with (
        closing(ground),
        Crew(ground, workers=1, directory=directory, registry=registry, delivery=delivery, settings=settings) as crew,
        closing(KafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")) as reader,
    ):
        crew.wait_until(lambda: crew.is_up(0), seconds=PATIENCE_SECONDS, what="up")
        reader.assign([TopicPartition(crew.forecasts, number) for number in range(ground.partitions)])
        reader.seek_to_beginning()
        waits: list[float] = []
        began = time.monotonic()
        used, warm, sent = 0.0, False, 0
        while (now := time.monotonic() - began) < args.warm_up + args.seconds:
            if not warm and now >= args.warm_up:
                warm, used = True, cpu_seconds(crew)
            due = round(now * args.rate) - sent
            for key, value in ground._input.take(due):
                ground._producer.send(ground.readings, key=key, value=value)
            sent += due
            for records in reader.poll(timeout_ms=5).values():
                arrived = time.time()
                for record in records:
                    if warm:
                        origin = json.loads(record.value)["origin"]
                        waits.append(arrived - datetime.fromisoformat(origin.replace("Z", "+00:00")).timestamp())
        used = cpu_seconds(crew) - used
    p50, p99 = np.percentile(waits, [50, 99]) * 1000
    return {
        "delivery": delivery,
        "commit_interval_ms": ms,
        "forecasts": len(waits),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "cpu_share": round(used / args.seconds, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=100_000, help="of the topic that is emptied")
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--commit-ms", type=int, default=200, help="commit interval of the throughput runs")
    parser.add_argument("--rate", type=int, default=1_000, help="readings a second, for the latency")
    parser.add_argument("--seconds", type=float, default=20.0, help="that latency is measured")
    parser.add_argument("--warm-up", type=float, default=8.0)
    parser.add_argument("--intervals-ms", type=int, nargs="+", default=[50, 100, 200, 500])
    parser.add_argument("--bootstrap", help="a running broker; else one is started")
    parser.add_argument("--out", type=Path, default=RESULTS / "delivery.json")
    args = parser.parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)

    result: dict[str, Any] = about(["benchmarks/bench_delivery.py", *sys.argv[1:]])
    result["settings"] = {"readings": args.readings, "streams": args.streams, "commit_ms": args.commit_ms}
    result["settings"] |= {"rate": args.rate, "partitions": args.partitions}
    with brokers(args.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        ground = Ground(bootstrap, partitions=args.partitions, streams=1, seed=0)
        ground._input = EvenStreams(args.streams)  # type: ignore[assignment]
        with closing(ground):
            for _ in range(args.readings // 10_000):
                ground.feed(10_000)
            runs: dict[str, list[dict[str, float]]] = {delivery: [] for delivery in DELIVERIES}
            for run in range(args.runs):
                for delivery in DELIVERIES:
                    found = drain(bootstrap, directory / f"{run}-{delivery}", ground, delivery, args.commit_ms)
                    runs[delivery].append(found)
                    print(f"{delivery}: {found['readings_per_second']:.0f} readings/s", flush=True)
        result["throughput"] = {
            delivery: {name: spread([run[name] for run in found]) for name in found[0]}
            for delivery, found in runs.items()
        }
        pairs = list(zip(*(runs[delivery] for delivery in DELIVERIES), strict=True))
        result["cost"] = {
            "time": spread([a["readings_per_second"] / b["readings_per_second"] for a, b in pairs]),
            "cpu": spread([b["cpu_us_per_reading"] / a["cpu_us_per_reading"] for a, b in pairs]),
        }
        cells = [("at_least_once", args.commit_ms), *(("exactly_once", ms) for ms in args.intervals_ms)]
        result["latency"] = []
        for delivery, ms in cells:
            found = latencies(bootstrap, directory / f"latency-{delivery}-{ms}", args, delivery, ms)
            result["latency"].append(found)
            print(f"{delivery}, {ms} ms: p50 {found['p50_ms']}, p99 {found['p99_ms']} ms", flush=True)
    write(args.out, result)
    print(f"exactly once costs {result['cost']['time']['median']:.2f} times the time, "
          f"{result['cost']['cpu']['median']:.2f} times the CPU")  # fmt: skip


if __name__ == "__main__":
    main()
