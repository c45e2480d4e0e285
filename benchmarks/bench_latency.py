"""From a reading's sending to its forecast in a consumer's hands, at steady rates, and what the worker takes of a core.

usage: python benchmarks/bench_latency.py [--rates 0 100 1000] [--seconds 10] [--add] [--clients batched …]

One worker with the defaults of serving and an untrained network of the default shape; commits come every 200 ms at
least once, every 100 ms in transactions. Readings carry the time of sending, a read-committed reader notes when the
forecast of each is there. `relay` among the clients is `relay.py`, which only decodes, encodes an answer of the same
size and sends it, by the public calls of kafka-python: what client and broker take by themselves. Rate 0 measures the
worker at rest. Writes benchmarks/results/latency.json, with `--add` beside the figures that are there.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from bench_e2e import CLIENTS, make_registry, relay
from kafka_bench import RESULTS, SERVING, EvenStreams, about, brokers, cpu_seconds, process_seconds, write

from fault.harness import Crew, Ground  # isort: skip
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

COMMIT_MS = {"at_least_once": 200, "exactly_once": 100}
_STREAMS, _PARTITIONS = 1_000, 4
_PATIENCE_SECONDS = 120.0
_TICK_SECONDS = 0.001


RELAY = "relay"


@contextmanager
def daemon(
    ground: Ground, directory: Path, args: argparse.Namespace, client: str, delivery: str
) -> Iterator[tuple[str, Callable[[], float]]]:
    """A worker that is up: the topic of its answers, and its seconds of CPU so far."""
    settings = {
        **SERVING,
        "COMMIT__INTERVAL_MS": str(COMMIT_MS[delivery]),
        "STATE__FLUSH_SECONDS": "10",
        "KAFKA__SESSION_TIMEOUT_SECONDS": "10",
        **CLIENTS[client],
        **dict(pair.split("=", 1) for pair in args.set),
    }
    registry = make_registry(directory / "models")
    with Crew(ground, workers=1, directory=directory, registry=registry, delivery=delivery, settings=settings) as crew:
        crew.wait_until(lambda: crew.is_up(0), seconds=_PATIENCE_SECONDS, what="up")
        yield crew.forecasts, lambda: cpu_seconds(crew)


@contextmanager
def bare(ground: Ground, delivery: str) -> Iterator[tuple[str, Callable[[], float]]]:
    """The same of a bare relay on kafka-python."""
    with relay(ground, delivery, "kafka-python", COMMIT_MS[delivery]) as (answers, pid):
        yield answers, lambda: process_seconds(pid())


def measure(bootstrap: str, directory: Path, args: argparse.Namespace, client: str, delivery: str, rate: int) -> Any:
    """Milliseconds and the share of a core of one worker, or of a bare relay, at one rate."""
    ground = Ground(bootstrap, partitions=_PARTITIONS, streams=1, seed=0)
    streams = EvenStreams(_STREAMS, now=time.time)
    waits: list[float] = []
    with (
        closing(ground),
        bare(ground, delivery) if client == RELAY else daemon(ground, directory, args, client, delivery) as (
            answers,
            spent,
        ),
        closing(KafkaProducer(bootstrap_servers=bootstrap, linger_ms=0)) as producer,
        closing(KafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")) as reader,
    ):
        reader.assign([TopicPartition(answers, number) for number in range(_PARTITIONS)])
        reader.seek_to_beginning()
        began = time.monotonic()
        used, is_warm, sent = 0.0, False, 0
        while (now := time.monotonic() - began) < args.warm_up + args.seconds:
            if not is_warm and now >= args.warm_up:
                is_warm, used, measured_from = True, spent(), now
            due = round(now * rate) - sent
            for key, value in streams.take(due):
                producer.send(ground.readings, key=key, value=value)
            sent += due
            if not rate:
                time.sleep(0.1)
                continue
            for records in reader.poll(timeout_ms=1).values():
                arrived = time.time()
                for record in records:
                    if is_warm:
                        origin = json.loads(record.value)["origin"]
                        waits.append(arrived - datetime.fromisoformat(origin.replace("Z", "+00:00")).timestamp())
            time.sleep(_TICK_SECONDS)
        share = (spent() - used) / (time.monotonic() - began - measured_from)
    found: dict[str, Any] = {"client": client, "delivery": delivery, "readings_per_second": rate}
    found |= {"commit_ms": COMMIT_MS[delivery], "cpu_share": round(share, 3)}
    if waits:
        p50, p99 = np.percentile(waits, [50, 99]) * 1000
        found |= {"forecasts": len(waits), "p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=int, nargs="+", default=[0, 100, 1_000])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=5.0)
    parser.add_argument("--clients", nargs="+", default=["batched"], choices=[*CLIENTS, RELAY])
    parser.add_argument("--deliveries", nargs="+", default=list(COMMIT_MS), choices=COMMIT_MS)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="further settings of the worker")
    parser.add_argument("--add", action="store_true", help="to the figures in the file")
    parser.add_argument("--bootstrap", help="a running broker; else one is started")
    parser.add_argument("--out", type=Path, default=RESULTS / "latency.json")
    args = parser.parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)

    result: dict[str, Any] = about(["benchmarks/bench_latency.py", *sys.argv[1:]])
    result["figures"] = json.loads(args.out.read_text())["figures"] if args.add and args.out.exists() else []
    with brokers(args.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as scratch:
        for client in args.clients:
            for delivery in args.deliveries:
                for rate in args.rates:
                    place = Path(scratch) / f"{client}-{delivery}-{rate}"
                    found = measure(bootstrap, place, args, client, delivery, rate)
                    result["figures"].append({**found, "commit": result["commit"]})
                    print(json.dumps(found), flush=True)
    write(args.out, result)


if __name__ == "__main__":
    main()
