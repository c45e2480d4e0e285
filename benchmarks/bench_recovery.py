"""Kills a worker with SIGKILL and times how long its successor takes to stand where it stood, by number of streams.

usage: python benchmarks/bench_recovery.py [--cells 1000:10 10000:2 10000:10 10000:30 100000:10] [--rate 500]

A cell is streams:flush_seconds. All streams get three readings, then readings come at the rate given for a flush
interval and a half; then the worker dies, and the same slot is started again. Timed is what is between the assignment
of its partitions and the last one's release: reading state and readings, and replaying what no page holds. The longest
commit is read from the worker's own histogram. Writes benchmarks/results/recovery.json; other
cells taken at the same settings stay in it.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from signal import SIGKILL
from typing import Any
from urllib.request import urlopen

from kafka_bench import RESULTS, SERVING, EvenStreams, about, brokers, events, spread, with_earlier, write

from fault.harness import Crew, Ground  # isort: skip

PATIENCE_SECONDS = 600.0


def longest_commit(crew: Crew) -> float:
    """Upper bound of the fullest bucket that the worker's commits reached, in seconds."""
    url = [json.loads(line) for line in crew.log(0).splitlines() if '"started"' in line][-1]["url"]
    with urlopen(f"{url}metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r'forecaster_stage_seconds_bucket\{le="([^"]+)",stage="commit"\} ([0-9.e+]+)', text)
    counts = [(float(bound), float(count)) for bound, count in found]
    return next(bound for bound, count in counts if count == counts[-1][1])


def recover(bootstrap: str, directory: Path, args: argparse.Namespace, streams: int, flush: float) -> dict[str, Any]:
    """Seconds and sizes of one cell."""
    ground = Ground(bootstrap, partitions=args.partitions, streams=1, seed=0)
    ground._input = EvenStreams(streams)  # type: ignore[assignment]
    settings = {**SERVING, "STATE__FLUSH_SECONDS": str(flush), "COMMIT__INTERVAL_MS": "200"}
    with (
        closing(ground),
        Crew(ground, workers=1, directory=directory, registry=directory / "none", settings=settings) as crew,
    ):
        for _ in range(3):
            for begin in range(0, streams, 10_000):
                ground.feed(min(10_000, streams - begin))
        crew.wait_until(lambda: crew.lag() == 0, seconds=PATIENCE_SECONDS, what="all streams known")
        runs = []
        for _ in range(args.kills):
            ground.start_feeding(args.rate)
            time.sleep(1.5 * flush + 2)
            commit = longest_commit(crew)
            killed = time.time()
            crew.signal(0, SIGKILL)
            ground.stop_feeding()

            def restored(since: float = killed) -> list[dict[str, Any]]:
                return events(crew, 0, "partition restored", since)

            crew.wait_until(
                lambda: len(restored()) >= ground.partitions, seconds=PATIENCE_SECONDS, what="all partitions restored"
            )
            found = restored()
            assigned = events(crew, 0, "partitions assigned", killed)[0]["at"]
            runs.append(
                {
                    "seconds": max(event["at"] for event in found) - assigned,
                    "replayed": sum(event["replayed"] for event in found),
                    "state_mb": sum(event["state_bytes"] for event in found) / 1e6,
                    "longest_commit_seconds": commit,
                }
            )
            crew.wait_until(lambda: crew.lag() == 0, seconds=PATIENCE_SECONDS, what="caught up")
    return {"kills": len(runs), **{name: spread([run[name] for run in runs]) for name in runs[0]}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cells", nargs="+", default=["1000:10", "10000:2", "10000:10", "10000:30", "100000:10"], help="STREAMS:FLUSH"
    )
    parser.add_argument("--rate", type=int, default=500, help="readings a second before the kill")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--kills", type=int, default=3, help="in each cell")
    parser.add_argument("--bootstrap", help="a running broker; else one is started")
    parser.add_argument("--out", type=Path, default=RESULTS / "recovery.json")
    args = parser.parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)

    result: dict[str, Any] = about(["benchmarks/bench_recovery.py", *sys.argv[1:]])
    result["settings"] = {"rate": args.rate, "partitions": args.partitions}
    result["cells"] = []
    with brokers(args.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as scratch:
        for cell in args.cells:
            streams, flush = (float(part) for part in cell.split(":"))
            found = recover(bootstrap, Path(scratch) / cell, args, int(streams), flush)
            result["cells"].append({"cell": cell, "streams": int(streams), "flush_seconds": flush, **found})
            print(
                f"{int(streams)} streams, pages every {flush:g} s: restored in {found['seconds']['median']:.2f} s, "
                f"{found['replayed']['median']:.0f} readings replayed, {found['state_mb']['median']:.0f} MB",
                flush=True,
            )
    write(args.out, with_earlier(args.out, result, "cells", by="cell"))


if __name__ == "__main__":
    main()
