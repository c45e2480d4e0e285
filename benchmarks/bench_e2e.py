"""The daemon from Kafka to Kafka beside a bare relay of the same client: readings a second and CPU a reading.

usage: python benchmarks/bench_e2e.py [--readings 200000] [--streams 1000] [--runs 1] [--add] [--clients kafka-python …]

One topic is filled; then, in turn and several times over, each contender empties it under a group of its own: the
daemon as `forecaster run` wires it, with an untrained network of the default shape (what it answers does not change
what it costs), and `relay.py`, which decodes, encodes an answer of the same size and sends it, with the same settings
of the client. Clients are kafka-python by its public calls, the same by whole batches (`kafka.batched`, the default;
there is no relay of that kind, it stands beside the one of public calls) and librdkafka. Every second run takes them in
the opposite order. The first fifth of the readings warms up and is not counted: imports, assignment, streams too young
for a network. CPU is user and system time of the process with all its threads. Writes benchmarks/results/e2e.json, with
`--add` beside the runs that are there, so that no call is long; the last line is the throughput of the daemon by whole
batches over that of the relay on kafka-python, both at least once.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bench_engine import untrained_network
from kafka_bench import RESULTS, ROOT, START, EvenStreams, about, brokers, process_seconds, spread, write

from fault.harness import Crew, Ground  # isort: skip
from kafka import KafkaConsumer, TopicPartition

from forecaster.models.artifact import DataSpan, ModelArtifact
from forecaster.settings import Settings
from forecaster.stores.registry_directory import DirectoryRegistry

DELIVERIES = ("at_least_once", "exactly_once")
CLIENTS = {
    "kafka-python": {"KAFKA__BATCHED": "false"},
    "batched": {},
    "librdkafka": {"KAFKA__CLIENT": "librdkafka"},
}
"""Settings of the daemon."""
RELAYS = {"kafka-python": "kafka-python", "batched": "kafka-python", "librdkafka": "librdkafka"}
"""Whose relay each stands beside."""
PATIENCE_SECONDS = 300.0
WARM_UP = 0.2
_LOOK_SECONDS = 0.02
_DEFAULTS = {
    "FORECAST__HORIZON": "12",
    "MODEL__HIDDEN": "64",
    "STREAMS__RING_STEPS": "336",
    "ENGINE__BOUNDARY_RECORDS": "1024",
    "STATE__FLUSH_SECONDS": "10",
    "ANOMALIES__GAP_STEPS": "30",
}
"""Of serving, where crews of the fault tests have others."""


def make_registry(directory: Path) -> Path:
    """A registry whose champion is a network of the default shape."""
    settings = Settings.model_validate({})
    artifact = ModelArtifact.create(
        untrained_network(settings),
        created=START,
        data=DataSpan(first=START, last=START + 1, streams=1, readings=2),
        season_steps=24,
    )
    registry = DirectoryRegistry(directory)
    registry.put(artifact)
    registry.promote(artifact.version, {"reason": "benchmark"}, now=START)
    return directory


@contextmanager
def daemon(
    ground: Ground, directory: Path, registry: Path, delivery: str, client: str, commit_ms: int
) -> Iterator[tuple[str, Callable[[], int]]]:
    """A worker on the readings: its group, and its process id once it is up."""
    settings = {**_DEFAULTS, "COMMIT__INTERVAL_MS": str(commit_ms), **CLIENTS[client]}
    with Crew(ground, workers=1, directory=directory, registry=registry, delivery=delivery, settings=settings) as crew:

        def pid() -> int:
            process = crew.slots[0].process
            assert process is not None, crew.explain()
            return process.pid

        yield crew.group_id, pid
        assert crew.slots[0].endings == [], crew.explain()


@contextmanager
def relay(ground: Ground, delivery: str, client: str, commit_ms: int) -> Iterator[tuple[str, Callable[[], int]]]:
    """A bare relay of the readings: its group and its process id."""
    group = f"relay-{uuid.uuid4().hex[:8]}"
    ground.make_topics({group: {}})
    command = [sys.executable, str(ROOT / "benchmarks" / "relay.py"), "--bootstrap", ground.bootstrap]
    command += ["--readings", ground.readings, "--answers", group, "--group", group]
    command += ["--partitions", str(ground.partitions), "--client", client, "--commit-ms", str(commit_ms)]
    if delivery == "exactly_once":
        command.append("--transactions")
    with subprocess.Popen(command) as process:
        try:
            yield group, lambda: process.pid
            assert process.poll() is None, "the relay ended by itself"
        finally:
            process.kill()


def drain(ground: Ground, group: str, pid: Callable[[], int]) -> dict[str, float]:
    """Readings a second and CPU µs a reading of a group of one process that empties the topic."""
    partitions = [TopicPartition(ground.readings, number) for number in range(ground.partitions)]
    with closing(KafkaConsumer(bootstrap_servers=ground.bootstrap, group_id=group)) as asking:

        def done(at_least: float) -> tuple[int, float, float]:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while (committed := sum(asking.committed(tp) or 0 for tp in partitions)) < at_least:
                assert time.monotonic() < deadline, f"{committed} of {at_least:.0f} readings answered in time"
                time.sleep(_LOOK_SECONDS)
            return committed, time.monotonic(), process_seconds(pid())

        first, began, used_before = done(WARM_UP * ground.sent)
        last, ended, used = done(ground.sent)
    return {
        "readings_per_second": (last - first) / (ended - began),
        "cpu_us_per_reading": 1e6 * (used - used_before) / (last - first),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=200_000, help="of the topic that is emptied")
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--commit-ms", type=int, default=200)
    parser.add_argument("--clients", nargs="+", default=list(CLIENTS), choices=CLIENTS)
    parser.add_argument("--deliveries", nargs="+", default=list(DELIVERIES), choices=DELIVERIES)
    parser.add_argument("--add", action="store_true", help="to the runs in the file, of the same settings")
    parser.add_argument("--bootstrap", help="a running broker; else one is started")
    parser.add_argument("--out", type=Path, default=RESULTS / "e2e.json")
    args = parser.parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)

    result: dict[str, Any] = about(["benchmarks/bench_e2e.py", *sys.argv[1:]])
    result["settings"] = {name: vars(args)[name] for name in ("readings", "streams", "partitions", "commit_ms")}
    runs: list[dict[str, Any]] = []
    if args.add and args.out.exists():
        before = json.loads(args.out.read_text())
        assert before["settings"] == result["settings"], "runs of other settings cannot be compared"
        runs = before["runs"]
    first = 1 + max((run["round"] for run in runs), default=0)
    with brokers(args.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as scratch:
        registry = make_registry(Path(scratch) / "models")
        ground = Ground(bootstrap, partitions=args.partitions, streams=1, seed=0)
        ground._input = EvenStreams(args.streams)  # type: ignore[assignment]
        with closing(ground):
            for _ in range(args.readings // 10_000):
                ground.feed(10_000)
            for number in range(first, first + args.runs):
                cases = [
                    (client, delivery, who)
                    for client in args.clients
                    for delivery in args.deliveries
                    for who in ("relay", "daemon")
                    if who == "daemon" or RELAYS[client] == client
                ]
                for client, delivery, who in cases if number % 2 else reversed(cases):
                    if who == "relay":
                        contender = relay(ground, delivery, client, args.commit_ms)
                    else:
                        place = Path(scratch) / f"{number}-{client}-{delivery}"
                        contender = daemon(ground, place, registry, delivery, client, args.commit_ms)
                    with contender as (group, pid):
                        found = drain(ground, group, pid)
                    runs.append(
                        {
                            "round": number,
                            "client": client,
                            "delivery": delivery,
                            "who": who,
                            "commit": result["commit"],
                        }
                        | found
                    )
                    print(
                        f"{client}, {delivery}, {who}: {found['readings_per_second']:.0f} readings/s, "
                        f"{found['cpu_us_per_reading']:.1f} µs of CPU a reading",
                        flush=True,
                    )
                    result |= {"runs": runs, "figures": figures(runs), "ratios": ratios(runs)}
                    write(args.out, result)  # each time: a run that is cut short has not been for nothing
    for ratio in result["ratios"]:
        print(
            f"{ratio['what']}: {ratio['throughput']['median']} of the throughput, {ratio['cpu']['median']} of the CPU"
        )
    goal = "at_least_once: daemon, batched / relay, kafka-python"
    print(*(f"ratio {ratio['throughput']['median']:.2f}" for ratio in result["ratios"] if ratio["what"] == goal))


def figures(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Median, least and greatest of each contender."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault((run["client"], run["delivery"], run["who"]), []).append(run)
    return [
        {"client": client, "delivery": delivery, "who": who, "runs": len(these)}
        | {name: spread([run[name] for run in these]) for name in ("readings_per_second", "cpu_us_per_reading")}
        for (client, delivery, who), these in found.items()
    ]


def ratios(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The daemon over the relay, transactions over none, one client over the other, each within one round."""
    by_place = {(run["round"], run["client"], run["delivery"], run["who"]): run for run in runs}
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for (number, client, delivery, who), run in by_place.items():
        against = {
            f"{client}, {who}: exactly_once / at_least_once": (client, "at_least_once", who)
            if delivery == "exactly_once"
            else None,
            f"{delivery}: daemon, {client} / relay, {RELAYS[client]}": (RELAYS[client], delivery, "relay")
            if who == "daemon"
            else None,
            f"{delivery}: {who}, {client} / {who}, kafka-python": ("kafka-python", delivery, who)
            if client != "kafka-python"
            else None,
        }
        for what, place in against.items():
            other = by_place.get((number, *place)) if place else None
            if other is not None:
                found.setdefault(what, []).append((run, other))
    return [
        {
            "what": what,
            "throughput": spread([a["readings_per_second"] / b["readings_per_second"] for a, b in pairs]),
            "cpu": spread([a["cpu_us_per_reading"] / b["cpu_us_per_reading"] for a, b in pairs]),
        }
        for what, pairs in found.items()
    ]


if __name__ == "__main__":
    main()
