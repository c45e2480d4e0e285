"""Kills the owner of partitions with SIGKILL and times the way to the first committed answer of each, by stage.

usage: python benchmarks/bench_failover.py [--streams 1000 10000] [--rate 300] [--kills 6] [--bootstrap HOST:PORT]

For every number of streams there are crews with ``recovery.standby`` 0 and 1, each of two workers that share the
partitions. They are up together and take turns: one crew is fed, settles and has a worker killed, then the other one,
so that whatever else the machine does befalls both. The killed worker is held back until the other has answered, and
started again; the next time it is the other's turn. Before a kill each partition has one owner that has restored it,
both workers have some, nothing waits, and all of that has been so for a flush interval and two seconds; a standby crew
in which a partition came back in another way than from memory is an error, no figure.

Times are from the kill on, on the clock of this machine:

    assigned   the group has given the partition to the survivor: session time-out and rebalance
    read       committed offset, state and readings are there
    restored   the readings since the oldest page are replayed
    sent       the survivor has handed over the first answer of the partition that a reader sees
    answered   a read-committed reader beside the crew has it: after the commit, and where the killed worker left a
               transaction open on the answers' partition, after the broker has ended that, which holds all readers back

Writes benchmarks/results/failover.json; runs of the same settings with other numbers of streams stay in it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from signal import SIGKILL
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka_bench import RESULTS, SERVING, EvenStreams, about, brokers, events, spread, with_earlier, write

from fault.harness import Crew, Ground  # isort: skip

STAGES = ("assigned", "read", "restored", "sent", "answered")
PATIENCE_SECONDS = 120.0
QUIET_SECONDS = 0.5
"""No answer of the survivor comes so soon: the session is longer. One of the killed worker's last commit may."""


class Arrivals:
    """When committed forecasts were sent and came, by partition: the first that came since the last `forget`."""

    def __init__(self, crew: Crew) -> None:
        self.first: dict[int, tuple[float, float]] = {}
        self._since = 0.0
        self._lock = threading.Lock()
        self._partitions = [TopicPartition(crew.forecasts, n) for n in range(crew.ground.partitions)]
        self._bootstrap = crew.ground.bootstrap
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="arrivals", daemon=True)
        self._thread.start()

    def forget(self, since: float) -> None:
        """Count from this time on."""
        with self._lock:
            self.first, self._since = {}, since

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        with closing(KafkaConsumer(bootstrap_servers=self._bootstrap, isolation_level="read_committed")) as consumer:
            consumer.assign(self._partitions)
            consumer.seek_to_beginning()
            while not self._over.is_set():
                found = consumer.poll(timeout_ms=50, max_records=5_000)
                now = time.time()
                with self._lock:
                    for tp, records in found.items():
                        sent = [record.timestamp / 1000 for record in records if record.timestamp / 1000 > self._since]
                        if sent:
                            self.first.setdefault(tp.partition, (sent[0], now))


def owned(crew: Crew, number: int) -> set[int]:
    """Partitions that the worker has restored and not given away, by its log."""
    mine: set[int] = set()
    for line in crew.log(number).splitlines():
        if '"partition restored"' in line:
            mine.add(json.loads(line)["partition"])
        elif '"partitions revoked"' in line or '"partitions lost"' in line:
            mine -= set(json.loads(line)["partitions"])
    return mine


def kill_once(crew: Crew, arrivals: Arrivals, victim: int) -> list[dict[str, float | str]]:
    """Stages of every partition that moves, in seconds from the kill on, and what was restored from."""
    survivor = 1 - victim
    moving = owned(crew, victim)
    crew.slots[victim].is_held = True
    killed = time.time()
    arrivals.forget(killed + QUIET_SECONDS)
    crew.signal(victim, SIGKILL)
    crew.wait_until(lambda: moving <= set(arrivals.first), seconds=PATIENCE_SECONDS, what=f"{moving} answered")
    assigned = {
        number: event["at"]
        for event in reversed(events(crew, survivor, "partitions assigned", killed))
        for number in event["partitions"]
    }
    restored = {event["partition"]: event for event in events(crew, survivor, "partition restored", killed)}
    rows: list[dict[str, float | str]] = []
    for number in sorted(moving):
        done = restored[number]
        began = done["at"] - done["seconds"]
        rows.append(
            {
                "assigned": assigned[number] - killed,
                "read": began + done["read_seconds"] - killed,
                "restored": done["at"] - killed,
                "sent": arrivals.first[number][0] - killed,
                "answered": arrivals.first[number][1] - killed,
                "replayed": done["replayed"],
                "state_bytes": done["state_bytes"],
                "kind": done["kind"],
            }
        )
    crew.release(victim)
    return rows


class Arm:
    """A crew with a topic of readings of its own, killed from time to time."""

    def __init__(
        self, bootstrap: str, directory: Path, args: argparse.Namespace, *, streams: int, standby: int
    ) -> None:
        self.standby = standby
        self.kills: list[list[dict[str, float | str]]] = []
        self._args = args
        self._streams = streams
        self.ground = Ground(bootstrap, partitions=args.partitions, streams=1, seed=0)
        self.ground._input = EvenStreams(streams)  # type: ignore[assignment]
        settings = {
            **SERVING,
            "RECOVERY__STANDBY": str(standby),
            "KAFKA__SESSION_TIMEOUT_SECONDS": str(args.session_seconds),
            "COMMIT__INTERVAL_MS": str(args.commit_ms),
            "STATE__FLUSH_SECONDS": str(args.flush_seconds),
        }
        place = directory / f"{streams}-{standby}"
        self.crew = Crew(self.ground, workers=2, directory=place, registry=place / "models", settings=settings)

    def begin(self) -> None:
        """Two readings of every stream, so that each has state."""
        self._wait_for_both()
        self.ground.feed(2 * self._streams)

    def kill(self) -> None:
        """Settle under load, and time one more kill.

        Raises:
            SystemExit: a standby crew has restored a partition from the topic: its time is not what is asked for.
        """
        self._wait_for_both()
        self.ground.start_feeding(self._args.rate)
        arrivals = Arrivals(self.crew)
        try:
            self._settle()
            rows = kill_once(self.crew, arrivals, len(self.kills) % 2)
        finally:
            arrivals.close()
            self.ground.stop_feeding()
        if self.standby and (others := {str(row["kind"]) for row in rows} - {"standby"}):
            raise SystemExit(f"with a standby, partitions were restored as {others}: {rows}\n{self.crew.explain()}")
        self.kills.append(rows)
        self._wait_for_both()

    def _wait_for_both(self) -> None:
        crew = self.crew
        crew.wait_until(lambda: crew.is_up(0) and crew.is_up(1), seconds=PATIENCE_SECONDS, what="both up")

    def _settle(self) -> None:
        """Return when nothing has moved for so long that all pages were due, and a standby has read them."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        seconds = self._args.flush_seconds + 2.0
        since, before = time.monotonic(), None
        while True:
            now = self._shares()
            if now is None or now != before or self.crew.lag() > 2 * self._args.rate:
                since, before = time.monotonic(), now
            elif time.monotonic() - since >= seconds:
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"partitions were not shared in peace: {self._shares()}\n{self.crew.explain()}")
            time.sleep(0.25)

    def _shares(self) -> tuple[frozenset[int], frozenset[int]] | None:
        """Who owns what; ``None`` where a partition has no owner or two, or a worker none."""
        first, second = (frozenset(owned(self.crew, number)) for number in (0, 1))
        everything = set(range(self.ground.partitions))
        return (first, second) if first and second and first | second == everything and not first & second else None


def measure(bootstrap: str, directory: Path, args: argparse.Namespace, streams: int) -> list[dict[str, Any]]:
    """One run for each kind of crew, their kills in turn."""
    with ExitStack() as closing_all:
        arms = [Arm(bootstrap, directory, args, streams=streams, standby=standby) for standby in args.standby]
        for arm in arms:
            closing_all.callback(arm.ground.close)
            closing_all.enter_context(arm.crew)
        for arm in arms:
            arm.begin()
        for turn in range(args.kills):
            for arm in arms if turn % 2 == 0 else arms[::-1]:
                arm.kill()
        return [{"streams": streams, "standby": arm.standby} | summary(arm.kills, args.session_seconds) for arm in arms]


def summary(kills: Sequence[Sequence[dict[str, Any]]], session_seconds: float) -> dict[str, Any]:
    """Per stage, median and spread of the slowest partition of each kill, and of each stage's own share."""
    result: dict[str, Any] = {"kills": len(kills), "partitions_moved": [len(rows) for rows in kills]}
    for stage in STAGES:
        result[f"until_{stage}_seconds"] = spread([max(row[stage] for row in rows) for rows in kills])
    for before, stage in pairwise(STAGES):
        result[f"{before}_to_{stage}_seconds"] = spread([row[stage] - row[before] for rows in kills for row in rows])
    result["beyond_the_session_seconds"] = spread(
        [max(row["answered"] for row in rows) - session_seconds for rows in kills]
    )
    every = [row for rows in kills for row in rows]
    result["replayed_readings"] = spread([row["replayed"] for row in every])
    result["state_bytes"] = spread([row["state_bytes"] for row in every])
    result["kinds"] = {kind: sum(row["kind"] == kind for row in every) for kind in ("standby", "cold", "fresh")}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--standby", type=int, nargs="+", choices=(0, 1), default=[0, 1])
    parser.add_argument("--rate", type=int, default=300, help="readings a second")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--session-seconds", type=float, default=3.0)
    parser.add_argument("--commit-ms", type=int, default=200)
    parser.add_argument("--flush-seconds", type=float, default=10.0)
    parser.add_argument("--bootstrap", help="a running broker; else one is started")
    parser.add_argument("--out", type=Path, default=RESULTS / "failover.json")
    args = parser.parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)

    result: dict[str, Any] = about(["benchmarks/bench_failover.py", *sys.argv[1:]])
    result["settings"] = {
        name: getattr(args, name) for name in vars(args) if name not in ("bootstrap", "out", "streams")
    }
    result["runs"] = []
    with brokers(args.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as directory:
        for streams in args.streams:
            for run in measure(bootstrap, Path(directory), args, streams):
                result["runs"].append(run)
                beyond, read = run["beyond_the_session_seconds"], run["assigned_to_read_seconds"]
                print(
                    f"{streams} streams, standby {run['standby']}: answered {beyond['median']:+.2f} s "
                    f"({beyond['min']:+.2f} to {beyond['max']:+.2f}) beyond the session; "
                    f"assigned to read {read['median']:.3f} s ({read['min']:.3f} to {read['max']:.3f})",
                    flush=True,
                )
    write(args.out, with_earlier(args.out, result, "runs", by="streams"))


if __name__ == "__main__":
    main()
