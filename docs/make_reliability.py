"""Writes docs/reliability.md from the figures in benchmarks/results.

usage: python docs/make_reliability.py
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from forecaster import crash_points

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "benchmarks" / "results"

HEAD = """\
# Reliability

<!-- written by docs/make_reliability.py from benchmarks/results; change those -->

With `delivery = exactly_once`, the default, a read-committed consumer finds each reading answered once, and the
forecasts of a run that was disturbed are byte for byte those of one that was not. This page says what was done to
workers and brokers to see it, and what it costs. [architecture.md](architecture.md#what-a-crash-does) says how it
works, [runbook.md](runbook.md) what an operator does about what cannot be cured.
"""


def render() -> str:
    """The page."""
    return "\n".join([HEAD, faults(), places(), mutations(), recovery(), failover(), cost()])


def faults() -> str:
    """What was injected, and what was found: the newest line of each test."""
    lines = [json.loads(line) for line in (RESULTS / "faults.jsonl").read_text().splitlines()]
    newest = {(line["file"], line["test"]): line for line in lines}
    rows = []
    for (file, test), line in sorted(newest.items()):
        rows.append(
            (
                f"{test.removeprefix('test_').replace('_', ' ')} (`tests/fault/{file}`)",
                "long" if line["is_long"] else "short",
                f"{line['workers']}" if "workers" in line else "–",
                f"{killed(line):,}" if "workers" in line else "–",
                f"{line['readings']:,}" if "readings" in line else "–",
                "yes" if "byte-equal" in line.get("found", []) else "–",
                f"{line['seconds']:,.0f} s" if line["seconds"] is not None else "–",
                f"{line['date']}, {line['commit']}",
            )
        )
    kills = sum(killed(line) for line in newest.values())
    return f"""\
## What was done to it

Processes die by SIGKILL at named places of the program and at random, stand still beyond every time-out, lose their
network, their group, their broker: short forms of all these tests (`tests/fault`) run on a real broker with every
`make test`, the long ones with `make test-fault`, which adds a line to `benchmarks/results/faults.jsonl` for each test
that passes. After each accident `forecaster verify --complete` has to find every reading answered once and in order;
where bytes were compared, a single worker that nobody disturbed has written the same ones for the same readings. The
newest run of each test that was recorded; workers were killed {kills:,} times in them:

{table(("test", "form", "workers", "kills", "readings", "bytes equal", "took", "when"), rows)}
{endings(list(newest.values()))}"""


def killed(line: dict[str, Any]) -> int:
    """Workers that died by SIGKILL in a run."""
    return int(sum(line.get("killed_at_places", {}).values()) + line.get("killed_at_random", 0))


def endings(lines: Sequence[dict[str, Any]]) -> str:
    """What workers said that ended by themselves among the accidents."""
    counts = Counter(said(told) for line in lines for told in line.get("reasons", []) if not told.startswith("130: "))
    if not counts:
        return ""
    told = "\n".join(f"* {count} × `{reason}`" for reason, count in counts.most_common())
    return f"""
Some workers ended by themselves among the accidents, and their supervisor started them again. They said:

{told}
"""


def said(reason: str) -> str:
    """The last words of a process without its exit code, of a line of the log the message, and no numbers of one run.

    >>> said("1: forecaster run: state-3e49777e partition 0 was read to 410 of 747 within 120 s.")
    'forecaster run: state-… partition … was read to … of … within … s.'
    """
    words = reason.partition(": ")[2]
    if words.startswith("{"):
        words = json.loads(words)["message"]
    words = re.sub(r"\b[0-9a-f]{8}\b|\b\d[\d.:]*(?=\W|$)", "…", words)
    return re.sub(r"\[…(, …)+\]", "[…]", words)


def places() -> str:
    """The named places, as the module that holds them describes them."""
    described = re.findall(r"^(\w+) {2,}(.+)$", crash_points.__doc__ or "", re.MULTILINE)
    rows = [(f"`{name}`", what) for name, what in described]
    return f"""\
## Named places to die at

For tests, `CRASH_AT=after_flush:3` in a worker's environment kills it by SIGKILL the third time it comes to
`after_flush`; `after_flush:3:stop` stops it there. By default it is not set, and a place costs one comparison. It is no
setting: it has no prefix, no file and no flag, so that no deployment sets it by mistake.

{table(("place", "what the process has just done"), rows)}
"""


def mutations() -> str:
    """Guards that were taken out, and whether a test noticed."""
    path = RESULTS / "mutations.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    rows = [
        (
            name,
            f"`{entry['file']}`",
            ", ".join(f"`{test.partition('::')[0]}`" for test in entry["tests"]),
            "red" if entry["is_noticed"] else "**green**",
            f"{entry['date']}, {entry['commit']}",
        )
        for name, entry in found.items()
    ]
    noticed = sum(entry["is_noticed"] for entry in found.values())
    return f"""\
## Without its guards

`make test-mutations` takes one guard out at a time, in a copy of the checkout, and runs the tests that are to notice.
They were red for {noticed} of {len(found)}:

{table(("guard taken out", "in", "tests", "they were", "when"), rows)}
"""


def recovery() -> str:
    """Seconds from assignment to release, by streams and flush interval."""
    result = read("recovery.json")
    rows = [
        (
            f"{cell['streams']:,}",
            f"{cell['flush_seconds']:g} s",
            f"{cell['kills']}",
            span(cell["seconds"], "s"),
            f"{cell['replayed']['median']:,.0f}",
            f"{cell['state_mb']['median']:,.0f} MB",
            f"≤ {cell['longest_commit_seconds']['max']:g} s",
        )
        for cell in result["cells"]
    ]
    set_by = result["settings"]
    return f"""\
## Recovery

A worker that holds all {set_by["partitions"]} partitions is killed while readings come at {set_by["rate"]} a second;
the time is from the assignment of its partitions to its successor until the last of them answers again: state and
readings are read, and what no page holds is replayed. The session time-out (`kafka.session_timeout_seconds`), after
which the group gives the partitions away, comes before it. Median, least and greatest.

{table(("streams", "`state.flush_seconds`", "kills", "restored in", "replayed", "state read", "longest commit"), rows)}

{sources(result, "cells")}
"""


def failover() -> str:
    """With and without a standby."""
    result = read("failover.json")
    rows = [
        (
            f"{run['streams']:,}",
            "yes" if run["standby"] else "no",
            f"{run['kills']}",
            span(run["beyond_the_session_seconds"], "s"),
            span(run["assigned_to_read_seconds"], "s"),
            span(run["read_to_restored_seconds"], "s"),
            span(run["until_answered_seconds"], "s"),
        )
        for run in result["runs"]
    ]
    set_by = result["settings"]
    head = ("streams", "standby", "kills", "beyond the session", "state at hand after", "replayed in", "kill to answer")
    return f"""\
## Fail-over

Two workers share {set_by["partitions"]} partitions, {set_by["rate"]} readings a second; one is killed, and the other
takes over. With `recovery.standby = 1` it holds the state of the other's partitions already, and its clients are
connected; readings since a page was written (`state.flush_seconds`, here {set_by["flush_seconds"]:g} s) are fetched and
taken in again all the same. {gained(result)} Session time-out {set_by["session_seconds"]:g} s, commits every
{set_by["commit_ms"]} ms. *Beyond the session*: kill to first answer of the last partition, in a read-committed reader's
hands, less the session time-out; the session begins with the last heartbeat, somewhat before the kill.

{table(head, rows)}

{sources(result, "runs")}
"""


def gained(result: dict[str, Any]) -> str:
    """In words, what the figures say about the standby, at each number of streams."""
    told = []
    goal = 2 * result["settings"]["commit_ms"] / 1000
    by_streams: dict[int, dict[int, dict[str, float]]] = {}
    for run in result["runs"]:
        by_streams.setdefault(run["streams"], {})[run["standby"]] = run["beyond_the_session_seconds"]
    for streams, found in sorted(by_streams.items()):
        if set(found) != {0, 1}:
            continue
        without, warm = found[0]["median"], found[1]["median"]
        gain = without - warm
        overlap = found[1]["max"] >= found[0]["min"]
        if gain > 0:
            what = f"took {gain:.2f} s from the median" + (", less than single kills differ by" if overlap else "")
        else:
            what = f"gained nothing ({-gain:.2f} s more in the median)"
        within = "within" if warm < goal else "beyond"
        told.append(f"At {streams:,} streams that {what}; {warm:.2f} s is {within} two commit intervals ({goal:g} s).")
    return " ".join(told)


def cost() -> str:
    """Throughput and latency beside at-least-once."""
    result = read("delivery.json")
    set_by, throughput = result["settings"], result["throughput"]
    rows = [
        (
            f"`{name}`",
            span(found["readings_per_second"], "", digits=0),
            span(found["cpu_us_per_reading"], "µs", digits=0),
        )
        for name, found in throughput.items()
    ]
    waits = [
        (
            f"`{found['delivery']}`",
            f"{found['commit_interval_ms']} ms",
            f"{found['p50_ms']:.0f} ms",
            f"{found['p99_ms']:.0f} ms",
            f"{100 * found['cpu_share']:.0f} %",
        )
        for found in result["latency"]
    ]
    price = result["cost"]
    return f"""\
## What it costs

One worker empties a topic of {set_by["readings"]:,} readings of {set_by["streams"]:,} streams, the two deliveries in
turn in one run, commits every {set_by["commit_ms"]} ms. Exactly once took {span(price["time"], "times")} the time and
{span(price["cpu"], "times")} the CPU.

{table(("delivery", "readings a second", "CPU a reading"), rows)}

From a reading's sending to its forecast in a read-committed consumer's hands, at {set_by["rate"]:,} readings a second:

{table(("delivery", "`commit.interval_ms`", "p50", "p99", "CPU of one core"), waits)}

{source(result)}
"""


def read(name: str) -> Any:
    """A result file."""
    return json.loads((RESULTS / name).read_text())


def span(of: dict[str, float], unit: str, digits: int = 2) -> str:
    """Median, with least and greatest."""
    low, high = f"{of['min']:,.{digits}f}", f"{of['max']:,.{digits}f}"
    return f"{of['median']:,.{digits}f} {unit} ({low}–{high})".replace("  ", " ")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def sources(result: dict[str, Any], name: str) -> str:
    """Where the figures of entries come from that were taken one after the other."""
    taken = {(entry.get("command", result["command"]), entry.get("commit", result["commit"])) for entry in result[name]}
    machine = result["machine"]
    commands = "; ".join(f"`{command}` at {commit}" for command, commit in sorted(taken))
    return (
        f"{commands}: {machine['cpu']}, {machine['cores']} cores, shared with the broker, Python {machine['python']}."
    )


def source(result: dict[str, Any]) -> str:
    """Where the figures come from."""
    machine = result["machine"]
    return (
        f"`{result['command']}` at {result['commit']}: {machine['cpu']}, {machine['cores']} cores, shared with the "
        f"broker, Python {machine['python']}."
    )


if __name__ == "__main__":
    (HERE / "reliability.md").write_text(render())
