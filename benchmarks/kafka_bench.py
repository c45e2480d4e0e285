"""What benchmarks on a real broker share: a broker, even readings, what a worker used, what figures were taken on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import kafka_broker  # noqa: E402
from fault.harness import Crew  # noqa: E402

RESULTS = Path(__file__).parent / "results"
START = 1_767_225_600.0
SERVING = {"FORECAST__HORIZON": "12", "MODEL__HIDDEN": "64", "STREAMS__RING_STEPS": "336"}
"""The defaults of serving; crews of the fault tests have a smaller network."""


class EvenStreams:
    """Readings of many streams in turn.

    Args:
        now: the time of a reading; by default each stream's readings are a second apart.
    """

    def __init__(self, streams: int, *, now: Callable[[], float] | None = None) -> None:
        self._streams, self._sent, self._now = streams, 0, now

    def take(self, count: int) -> list[tuple[bytes, bytes | None]]:
        """Key and value of this many further records."""
        records: list[tuple[bytes, bytes | None]] = []
        for number in range(self._sent, self._sent + count):
            lap, stream = divmod(number, self._streams)
            name = f"sensor-{stream}"
            at = self._now() if self._now else START + lap
            body = {"stream_id": name, "timestamp": at, "value": 20.0 + (number * 7919 % 1000) / 100}
            records.append((name.encode(), json.dumps(body).encode()))
        self._sent += count
        return records


def cpu_seconds(crew: Crew, number: int = 0) -> float:
    """CPU time of a worker so far, all its threads."""
    process = crew.slots[number].process
    assert process is not None, "the worker runs"
    return process_seconds(process.pid)


def process_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def events(crew: Crew, number: int, message: str, since: float) -> list[dict[str, Any]]:
    """Log lines of a worker with this message, written since then; each with its time in seconds as ``at``."""
    found = []
    for line in (crew.directory / f"worker-{number}.log").read_text(errors="replace").splitlines():
        if f'"{message}"' not in line:
            continue
        entry = json.loads(line)
        at = datetime.fromisoformat(entry["ts"].replace("Z", "+00:00")).timestamp()
        if at >= since:
            found.append({**entry, "at": at})
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {name: round(of(values), 3) for name, of in (("median", statistics.median), ("min", min), ("max", max))}


def about(arguments: Sequence[str]) -> dict[str, Any]:
    """Machine, commit and command, to stand beside every figure."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "forecaster"], capture_output=True, text=True, check=True
    ).stdout
    return {
        "machine": {
            "cpu": cpu[0] if cpu else platform.processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "commit": head.strip() + ("+" if changed else ""),
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", *arguments]),
    }


def with_earlier(path: Path, result: dict[str, Any], name: str, *, by: str) -> dict[str, Any]:
    """A result beside what an earlier run at the same settings has found, so that a long one may be taken in parts.

    Args:
        name: of the list of entries; each gets the commit and the command it was taken with.
        by: of the field that says what an entry is of; one of this run takes the place of an earlier one.
    """
    taken_with = {what: result[what] for what in ("commit", "date", "command")}
    entries = [entry | taken_with for entry in result[name]]
    earlier = json.loads(path.read_text()) if path.exists() else {}
    if earlier.get("settings") == result["settings"]:
        new = {entry[by] for entry in entries}
        entries += [entry for entry in earlier[name] if entry.get(by) not in new]
    return result | {name: sorted(entries, key=lambda entry: (entry["streams"], entry.get("flush_seconds", 0)))}


def write(path: Path, result: dict[str, Any]) -> None:
    """Figures to a file that a page is made from."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


@contextmanager
def brokers(named: str | None) -> Iterator[str]:
    """``host:port`` of the one named, or of one that lives as long as this."""
    if named:
        yield named
    else:
        with kafka_broker.Broker() as node:
            yield node.bootstrap
