"""Writes benchmarks/RESULTS.md, docs/scaling.md and their pictures from the figures in benchmarks/results.

usage: python benchmarks/make_results.py

A figure whose file is not there is named as not measured, with the command that measures it. `make bench` runs them all
and then this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from forecaster.reports.drawing import ACTUAL, NAIVE, OTHER, OURS, SEASONAL, plain

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
IMAGES = HERE / "images"
DOCS = HERE.parent / "docs"

Result = dict[str, Any]

HEAD = """\
# Results

<!-- written by benchmarks/make_results.py from benchmarks/results; change those -->

What `make bench` found, with machine, commit and command under each figure. The machine is shared: compare ratios,
which are taken within one run, rather than quote a number. A commit with a `+` had changes on it. Figures of accuracy
are in [accuracy.md](../docs/accuracy.md), of recovery and fail-over in [reliability.md](../docs/reliability.md); what
follows for a large installation is in [scaling.md](../docs/scaling.md).
"""

READINGS_WANTED = 1_000_000
"""A second, of `docs/scaling.md`."""
_HEADROOM = 0.6
"""Share of a core that is planned for; the rest is for restarts, rebalances and bursts."""
_CORE_LOADS = (10_000, 100_000, 1_000_000)
_NETWORK_OVERHEAD = 70
"""Bytes of a record in a batch beside its value: key, offsets, lengths."""
_REPLICAS = 3
SCRIPTS = {
    name: f"bench_{name}.py"
    for name in ("e2e", "latency", "rest", "scale", "step", "codec", "client", "delivery", "peers")
}
NEEDED_FOR_SCALING = {"scale", "codec", "e2e"}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    found = read_all()
    (HERE / "RESULTS.md").write_text(results_page(found))
    if "scale" in found:
        draw_scale(found["scale"])
    if set(found) >= NEEDED_FOR_SCALING:
        (DOCS / "scaling.md").write_text(scaling_page(found))


def read_all() -> dict[str, Result]:
    """Every result file, by its name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def results_page(found: dict[str, Result]) -> str:
    """``benchmarks/RESULTS.md``."""
    parts = [HEAD, goals(found), reasons(found)]
    sections: dict[str, Callable[[Result], str]] = {
        "e2e": end_to_end,
        "latency": latency,
        "rest": rest,
        "scale": scale,
        "step": step,
        "codec": codec,
        "client": client,
        "delivery": delivery,
        "peers": peers,
    }
    for name, section in sections.items():
        script = SCRIPTS[name]
        if name in found:
            parts.append(section(found[name]) + "\n" + source(found[name]) + "\n")
        else:
            parts.append(f"## {section.__doc__}\n\nNot measured: `python benchmarks/{script}`.\n")
    return "\n".join(parts)


def goals(found: dict[str, Result]) -> str:
    """The goals, what was found, and by how much it falls short."""
    rows = []
    for what, goal, is_least, value, unit in goal_figures(found):
        limit = f"{'≥' if is_least else '≤'} {goal:g}{unit}"
        if value is None:
            rows.append((what, limit, "not measured", ""))
            continue
        met = value >= goal if is_least else value <= goal
        short = (
            "met" if met else f"missed: {value / goal:.2f} of it" if is_least else f"missed: {value / goal:.2f} times"
        )
        rows.append((what, limit, f"{value:,.3g}{unit}" if value < 1000 else f"{value:,.0f}{unit}", short))
    return "## Goals\n\n" + table(("figure", "goal", "found", ""), rows) + "\n" + disturbed(found)


def reasons(found: dict[str, Result]) -> str:
    """What lies between the missed goals and the figures, from the figures."""
    lines = ["## What the missed goals wait for", ""]
    if "scale" in found and "e2e" in found:
        runs = {run["wave"]: run for run in max(found["scale"]["cells"], key=lambda cell: len(cell["runs"]))["runs"]}
        rows = [
            (f"{width:,}", f"{run['us_per_reading']['median']:.1f} µs", *(f"{us:.1f} µs" for us in stages(run)))
            for width, run in sorted(runs.items())
        ]
        wide = runs[max(runs)]["us_per_reading"]["median"]
        (relay,) = [
            one["cpu_us_per_reading"]["median"]
            for one in found["e2e"]["figures"]
            if (one["client"], one["who"], one["delivery"]) == ("librdkafka", "relay", "at_least_once")
        ]
        lines += [
            "*Throughput*: what the engine adds to the client. Processor time of a reading at 100,000 streams, without "
            "a client, and the share of its stages, by width of the waves:",
            "",
            table(("waves of", "whole", "decode", "step", "record"), rows),
            "",
            f"A relay on librdkafka takes {relay:.1f} µs a reading: with the engine's {wide:.1f} µs beside it, a "
            f"daemon on one core cannot be above {relay / (relay + wide):.2f} of it.",
            "Of the step a third is torch's products, the rest spread over thirty kernels and four hundred calls, none "
            "above 5 % ([0031](../docs/decisions/0031-a-record-is-written-in-one-pass.md)).",
            "",
        ]
    if "step" in found:
        cells = [cell for cell in found["step"]["cells"] if cell["rows"] == 1_024]
        lines += [
            f"*The step*, of waves of 1,024: its products alone take {cell['products_us_per_row']:.2f} µs a row; "
            "gathering and scattering rows, gates, activations and the sums that keep quantiles in order the other "
            f"{cell['step_us_per_row'] - cell['products_us_per_row']:.2f}."
            for cell in cells
        ] + [""]
    if "peers" in found and "scale" in found:
        of = {peer["name"]: peer["us_per_reading"] for peer in found["peers"]["peers"]}
        decode, _, record = stages(max(found["scale"]["cells"][0]["runs"], key=lambda run: run["wave"]))
        lines += [
            f"*{name}* takes {us:.1f} µs to learn a value and to give twelve numbers as Python objects; reading JSON "
            f"and writing the record takes ours {decode + record:.1f} µs already, the forecast of all experts and its "
            "intervals not counted."
            for name, us in of.items()
            if "HoltWinters" in name
        ] + [""]
    at_rate = [one for one in (found["latency"]["figures"] if "latency" in found else []) if is_at_goal_rate(one)]
    for delivery in dict.fromkeys(one["delivery"] for one in at_rate):
        newest = {one["client"]: one for one in at_rate if one["delivery"] == delivery}
        if not {"relay", "batched"} <= set(newest):
            continue
        shown = [
            f"{one['p50_ms']:.0f} and {one['p99_ms']:.0f} ms at {one['cpu_share']:.2f} of a core"
            for one in (newest["relay"], newest["batched"])
        ]
        lines += [
            f"*At 1,000 readings a second, {delivery.replace('_', ' ')}* (p50, p99): a bare relay by the public calls "
            f"of kafka-python {shown[0]}, the daemon, in the same minutes, {shown[1]}.",
            "",
        ]
    return "\n".join(lines) if len(lines) > 2 else ""


def is_at_goal_rate(figure: dict[str, Any]) -> bool:
    """At the rate that goals are given for."""
    return bool(figure["readings_per_second"] == 1_000)


def stages(run: Result) -> tuple[float, float, float]:
    """Decode, step and publish of a run, in µs a reading."""
    of = run["stages"]
    return of["decode"], of["step"], of["publish"]


def disturbed(found: dict[str, Result]) -> str:
    """Which figures were taken while others computed on the machine."""
    names = [
        f"`{name}`"
        for name, result in found.items()
        if name in SCRIPTS and result["machine"]["load_before"] > result["machine"]["cores"]
    ]
    if not names:
        return ""
    return f"""
Taken while others kept all cores busy (the load when it began was above their number): {", ".join(names)}. Costs in
these are upper bounds, rates and their ratios say little; they are to be measured again on a machine that rests.
"""


def goal_figures(found: dict[str, Result]) -> list[tuple[str, float, bool, float | None, str]]:
    """(what, goal, whether it is a least, figure or ``None``, unit)."""
    scaled, steps = found.get("scale"), found.get("step")
    engine = engine_us(scaled) if scaled else None
    relay = "{}: daemon, {} / relay, {}"
    crossed = {"kafka-python": relay.format("at_least_once", "kafka-python", "kafka-python")}
    crossed["batched"] = relay.format("at_least_once", "batched", "kafka-python")
    crossed["librdkafka"] = relay.format("at_least_once", "librdkafka", "librdkafka")
    e2e = found.get("e2e")
    listed: list[tuple[str, float, bool, float | None, str]] = [
        (
            "kafka-python by its public calls, end to end ÷ its relay",
            0.75,
            True,
            ratio(e2e, crossed["kafka-python"]),
            "",
        ),
        ("kafka-python by whole batches ÷ relay of the public calls", 2.0, True, ratio(e2e, crossed["batched"]), ""),
        ("librdkafka, end to end ÷ its relay", 0.45, True, ratio(e2e, crossed["librdkafka"]), ""),
        (
            "librdkafka ÷ kafka-python by its public calls, end to end",
            3.0,
            True,
            ratio(e2e, "at_least_once: daemon, librdkafka / daemon, kafka-python"),
            "",
        ),
        ("exactly once ÷ at least once, throughput", 0.8, True, exactly_once_ratio(found), ""),
        ("products of the step ÷ step, waves of 1,024", 0.5, True, step_ratio(steps, 1_024), ""),
        (
            "engine without transport, readings per core-second, waves of 256",
            60_000,
            True,
            1e6 / engine[256] if engine and 256 in engine else None,
            "",
        ),
        ("cost per reading, 1 M streams ÷ 1 k streams", 1.3, False, scaled["ratio"]["cost"] if scaled else None, ""),
        (
            "memory per stream without 4 B a seasonal slot",
            4096,
            False,
            max(cell["bytes"]["without_seasonal"] for cell in scaled["cells"]) if scaled else None,
            " B",
        ),
    ]
    listed += latency_goals(found.get("latency"))
    idle = found.get("rest")
    worst = max(one["cpu_share"]["median"] for one in idle["figures"]) if idle else None
    listed.append(("idle worker, share of a core", 0.02, False, worst, ""))
    against = found.get("peers")
    for name, goal in (("deep-river", 100.0), ("SNARIMAX", 20.0), ("HoltWinters", 1.0)):
        times = [peer["times"] for peer in against["peers"] if name in peer["name"]] if against else []
        listed.append((f"readings per core-second, ours ÷ {name}", goal, True, min(times) if times else None, ""))
    return listed


def latency_goals(result: Result | None) -> list[tuple[str, float, bool, float | None, str]]:
    """Those at 1,000 readings a second, kafka-python as it is by default."""
    limits = {"at_least_once": (25.0, 65.0), "exactly_once": (95.0, 200.0)}
    listed: list[tuple[str, float, bool, float | None, str]] = []
    for how, (p50, p99) in limits.items():
        of = [one for one in result["figures"] if one["delivery"] == how] if result else []
        of = [one for one in of if one["client"] == "batched" and one["readings_per_second"] == 1_000]
        newest = of[-1] if of else None
        for name, goal in (("p50", p50), ("p99", p99)):
            value = newest[f"{name}_ms"] if newest else None
            listed.append((f"latency at 1,000/s, {how.replace('_', ' ')}, {name}", goal, False, value, " ms"))
        if how == "at_least_once":
            share = newest["cpu_share"] if newest else None
            listed.append(("share of a core at 1,000/s, at least once", 0.3, False, share, ""))
    return listed


def ratio(result: Result | None, what: str) -> float | None:
    """Median throughput ratio of that name."""
    named = [one for one in result["ratios"] if one["what"] == what] if result else []
    return float(named[0]["throughput"]["median"]) if named else None


def exactly_once_ratio(found: dict[str, Result]) -> float | None:
    """Of throughputs, by whole batches: end to end where both were measured in one round, else of `bench_delivery`."""
    whole = ratio(found.get("e2e"), "batched, daemon: exactly_once / at_least_once")
    if whole is None and "delivery" in found:
        return 1 / float(found["delivery"]["cost"]["time"]["median"])
    return whole


def step_ratio(result: Result | None, rows: int) -> float | None:
    """Of the waves with this many rows."""
    named = [cell["ratio"] for cell in result["cells"] if cell["rows"] == rows] if result else []
    return float(named[0]) if named else None


def engine_us(result: Result) -> dict[int, float]:
    """CPU µs a reading by width of waves, where several were tried."""
    widest = max(result["cells"], key=lambda cell: len(cell["runs"]))
    return {run["wave"]: run["us_per_reading"]["median"] for run in widest["runs"]}


def end_to_end(result: Result) -> str:
    """End to end, Kafka to Kafka"""
    rows = [
        (
            one["client"],
            one["delivery"].replace("_", " "),
            one["who"],
            str(one["runs"]),
            span(one["readings_per_second"], digits=0),
            span(one["cpu_us_per_reading"], digits=1),
        )
        for one in result["figures"]
    ]
    compared = [(one["what"].replace("_", " "), span(one["throughput"]), span(one["cpu"])) for one in result["ratios"]]
    set_by = result["settings"]
    return f"""\
## {end_to_end.__doc__}

A topic of {set_by["readings"]:,} readings of {set_by["streams"]:,} streams on {set_by["partitions"]} partitions is
emptied, by the daemon and by a bare relay that only decodes, encodes an answer of the same size and sends it. The
broker is on the same cores: CPU is what a contender itself used.

{table(("client", "delivery", "who", "runs", "readings/s", "CPU µs a reading"), rows)}

Ratios, each within one round:

{table(("", "throughput", "CPU"), compared)}
"""


def latency(result: Result) -> str:
    """Latency, from a reading's sending to its forecast in a consumer's hands"""
    rows = [
        (
            one["client"],
            one["delivery"].replace("_", " "),
            f"{one['commit_ms']} ms",
            f"{one['readings_per_second']:,}/s",
            f"{one['p50_ms']:.0f} ms" if "p50_ms" in one else "",
            f"{one['p99_ms']:.0f} ms" if "p99_ms" in one else "",
            f"{100 * one['cpu_share']:.1f} %",
            one["commit"],
        )
        for one in result["figures"]
    ]
    head = ("client", "delivery", "commits every", "rate", "p50", "p99", "of a core", "commit")
    return f"""\
## {latency.__doc__}

`relay` is a bare relay by the public calls of kafka-python: it decodes, encodes an answer of the same size and sends
it.

{table(head, rows)}
"""


def rest(result: Result) -> str:
    """Start and rest"""
    rows = [
        (
            one["client"],
            one["delivery"].replace("_", " "),
            span(one["seconds_to_http"]),
            span(one["seconds_to_ready"]),
            span(one["cpu_seconds_to_ready"]),
            f"{100 * one['cpu_share']['median']:.1f} % (most {100 * one['cpu_share']['max']:.1f})",
            f"{one['wake_ups_per_second']['median']:.0f}",
            f"{one['resident_mb']['median']:.0f} MB",
        )
        for one in result["figures"]
    ]
    head = ("client", "delivery", "s to HTTP", "s to ready", "CPU s", "idle, of a core", "wake-ups/s", "resident")
    return f"""\
## {rest.__doc__}

`forecaster run` on {result["settings"]["partitions"]} partitions without readings: seconds from the command to the
first HTTP answer and to `/readyz`, the CPU of that; then {result["settings"]["seconds"]:g} s of rest.

{table(head, rows)}
"""


def scale(result: Result) -> str:
    """The engine by number of streams and width of waves, without transport"""
    wave = result["settings"]["wave"]
    by_streams = [(cell, run_at(cell, wave)) for cell in result["cells"]]
    rows = [
        (
            f"{cell['streams']:,}",
            span(run["us_per_reading"]),
            *(f"{run['stages'].get(stage, 0):.2f}" for stage in ("decode", "step", "publish")),
            f"{cell['resident_bytes']:,} B" if cell["resident_bytes"] else "",
            f"{cell['pages']['us_per_stream']:.2f} µs, {cell['pages']['bytes_per_stream']:,.0f} B",
        )
        for cell, run in by_streams
    ]
    widest = max(result["cells"], key=lambda cell: len(cell["runs"]))
    waves = [(f"{run['wave']:,}", span(run["us_per_reading"])) for run in widest["runs"]]
    parts = widest["bytes"]
    memory = [(what, f"{size:,} B") for what, size in parts["parts"].items()]
    memory += [("**together**", f"**{parts['whole']:,} B**")]
    head = ("streams", "CPU µs a reading", "decode", "step", "publish", "resident a stream", "a state page, a stream")
    most, least = result["ratio"]["streams"]
    return f"""\
## {scale.__doc__}

JSON readings in, JSON forecasts out, one thread, exactly-once bookkeeping, streams in random order, waves of
{wave:,}. CPU µs a reading (median, least and greatest), µs of wall clock by stage, what a stream takes of resident
memory, and what its share of a state page costs to encode.

{table(head, rows)}

Cost at {most:,} streams ÷ at {least:,}: **{result["ratio"]["cost"]:.2f}**.

![cost and memory against number of streams](images/streams.png)

At {widest["streams"]:,} streams, by width of the waves:

{table(("streams stepped at once", "CPU µs a reading"), waves)}

![cost against width of waves](images/waves.png)

Bytes of a stream, at the default horizon of 12 and width of 64, a ring of {parts["seasonal_slots"]} steps. A season
needs a step of the ring for each of its steps, 4 B each: {parts["without_seasonal"]:,} B are left without them.

{table(("part", "bytes"), memory)}
"""


def run_at(cell: Result, wave: int) -> Result:
    """The run of a cell at one width of waves."""
    found: Result = next(run for run in cell["runs"] if run["wave"] == wave)
    return found


def draw_scale(result: Result) -> None:
    """Cost and memory against streams; cost against waves."""
    wave = result["settings"]["wave"]
    streams = [cell["streams"] for cell in result["cells"]]
    runs = [run_at(cell, wave)["us_per_reading"] for cell in result["cells"]]
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(streams, [run["median"] for run in runs], "o-", color=OURS)
    left.fill_between(streams, [run["min"] for run in runs], [run["max"] for run in runs], color=OURS, alpha=0.2, lw=0)
    left.set(xscale="log", xlabel="streams", ylabel="CPU µs a reading", ylim=(0, None))
    left.set_title(f"cost, waves of {wave:,}", fontsize=10, loc="left")
    known = [cell for cell in result["cells"] if cell["resident_bytes"]]
    right.plot(
        [cell["streams"] for cell in known],
        [cell["resident_bytes"] for cell in known],
        "o-",
        color=OURS,
        label="resident",
    )
    right.plot(streams, [cell["bytes"]["whole"] for cell in result["cells"]], "x--", color=OTHER, label="by part")
    right.set(xscale="log", xlabel="streams", ylabel="bytes a stream", ylim=(0, None))
    right.set_title("memory", fontsize=10, loc="left")
    right.legend(fontsize=8, frameon=False)
    save(figure, "streams.png")

    widest = max(result["cells"], key=lambda cell: len(cell["runs"]))
    figure = Figure(figsize=(5.5, 3), layout="constrained")
    axes = figure.subplots()
    widths = [run["wave"] for run in widest["runs"]]
    axes.plot(widths, [run["us_per_reading"]["median"] for run in widest["runs"]], "o-", color=ACTUAL, label="whole")
    for stage, colour in (("decode", SEASONAL), ("step", OURS), ("publish", NAIVE)):
        axes.plot(
            widths, [run["stages"].get(stage, 0.0) for run in widest["runs"]], ".-", color=colour, label=stage, lw=1
        )
    axes.set(xscale="log", yscale="log", xlabel="streams stepped at once", ylabel="µs a reading")
    axes.set_title(f"cost by width of waves, {widest['streams']:,} streams", fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False)
    save(figure, "waves.png")


def save(figure: Figure, name: str) -> None:
    """Without a date and version inside, so that the same figures give the same file."""
    plain(figure).savefig(IMAGES / name, dpi=110, metadata={"Software": None})


def step(result: Result) -> str:
    """The recurrent step beside its matrix products"""
    rows = [
        (
            f"{cell['rows']:,}",
            f"{cell['step_us_per_row']:.3f}",
            f"{cell['products_us_per_row']:.3f}",
            f"{cell['ratio']:.2f}",
        )
        for cell in result["cells"]
    ]
    shapes = ", ".join(f"{inputs} × {outputs}" for inputs, outputs in result["products"])
    head = ("rows", "step, µs a row", "products, µs a row", "products ÷ step")
    return f"""\
## {step.__doc__}

Gather, cell, scatter and head of a wave beside `torch.mm` of the same matrices ({shapes}) on one thread, torch
{result["torch"]}.

{table(head, rows)}
"""


def codec(result: Result) -> str:
    """Codecs"""
    rows = [(name, f"{us:.2f}") for name, us in result["cpu_us_per_record"].items()]
    sizes = [
        (f"{kind}, {form}", *(f"{size:,.0f} B" for size in by_kind.values()))
        for kind, forms in result["bytes_per_record"].items()
        for form, by_kind in forms.items()
    ]
    return f"""\
## {codec.__doc__}

{table(("what", "CPU µs a record"), rows)}

{table(("a value", "plain", "in a batch, lz4", "in a batch, zstd"), sizes)}
"""


def client(result: Result) -> str:
    """kafka-python record by record and by whole batches, in memory"""
    rows = [
        (what, *(f"{times[name]:.2f}" for name in ("record by record", "by batches")))
        for what, times in result["cpu_us_per_record"].items()
    ]
    return f"## {client.__doc__}\n\n{table(('CPU µs a record', 'record by record', 'by batches'), rows)}\n"


def delivery(result: Result) -> str:
    """Exactly once beside at least once"""
    rows = [
        (name.replace("_", " "), span(one["readings_per_second"], digits=0), span(one["cpu_us_per_reading"], digits=0))
        for name, one in result["throughput"].items()
    ]
    return f"## {delivery.__doc__}\n\n{table(('delivery', 'readings/s', 'CPU µs a reading'), rows)}\n"


def peers(result: Result) -> str:
    """Streaming libraries beside the engine, readings per core-second"""
    rows = [
        (
            peer["name"],
            f"{peer['us_per_reading']:,.1f}",
            f"{1e6 / peer['us_per_reading']:,.0f}",
            f"{peer['times']:,.1f}",
        )
        for peer in result["peers"]
    ]
    ours = result["ours_us_per_reading"]
    rows.append(("**forecaster**, waves of " + f"{result['wave']:,}", f"{ours:,.1f}", f"{1e6 / ours:,.0f}", "1"))
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"""\
## {peers.__doc__}

Each reading is learnt from and answered by a forecast of {result["horizon"]} steps, {result["streams"]} streams, one
model object a stream, one thread; ours decodes JSON, learns weights and widths (its network is trained elsewhere),
answers with quantiles and encodes JSON as well. Versions: {versions}.

{table(("", "CPU µs a reading", "readings per core-second", "ours is so many times quicker"), rows)}
"""


def scaling_page(found: dict[str, Result]) -> str:
    """``docs/scaling.md``: what a rate needs, from measured unit costs."""
    sizes = found["codec"]["bytes_per_record"]
    reading, answer = sizes["reading"]["json"], sizes["forecast"]["json"]
    batched = [run for run in found["e2e"]["figures"] if run["who"] == "daemon"]
    costs = {(run["client"], run["delivery"]): run["cpu_us_per_reading"]["median"] for run in batched}
    largest = max(found["scale"]["cells"], key=lambda cell: cell["streams"])
    page, row = largest["pages"], largest["bytes"]["whole"]
    flush_seconds = 10.0

    need = []
    for (name, how), us in sorted(costs.items(), key=lambda item: item[1]):
        cores = [rate * us / 1e6 for rate in _CORE_LOADS]
        need.append((name, how.replace("_", " "), f"{us:.0f} µs", *(f"{one / _HEADROOM:,.1f}" for one in cores)))
    best = min(us for (_, how), us in costs.items() if how == "exactly_once")
    workers = READINGS_WANTED * best / 1e6 / _HEADROOM
    each_worker = READINGS_WANTED / workers
    network = []
    for streams in (100_000, 1_000_000, 10_000_000):
        dirty = min(streams, READINGS_WANTED * flush_seconds)
        a_second = dirty / flush_seconds
        network.append(
            (
                f"{streams:,}",
                f"{a_second * page['bytes_per_stream'] / 1e6:,.0f} MB/s",
                f"{100 * a_second * page['us_per_stream'] / 1e6 / workers:.1f} %",
                f"{streams * page['bytes_per_stream'] / 1e9:,.1f} GB",
                f"{streams * row / 1e9:,.1f} GB",
            )
        )
    volumes = []
    for kind, size in (("readings", reading), ("forecasts", answer)):
        for form in ("plain", "lz4"):
            each = size[form] + (_NETWORK_OVERHEAD if form == "plain" else _NETWORK_OVERHEAD / 3)
            volumes.append(
                (
                    f"{kind}, {form}",
                    f"{each:,.0f} B",
                    f"{READINGS_WANTED * each / 1e6:,.0f} MB/s",
                    f"{8 * READINGS_WANTED * each / 1e9:,.1f} Gbit/s",
                    f"{READINGS_WANTED * each * _REPLICAS * 86_400 / 1e12:,.0f} TB",
                )
            )
    partitions = 2 ** max(int(workers - 1).bit_length(), 1)
    return f"""\
# Scaling

<!-- written by benchmarks/make_results.py from benchmarks/results; change those -->

A worker is a member of a consumer group. It owns whole partitions: their streams, their state, their order. Two workers
share nothing but the brokers, so twice the workers take twice the readings until partitions or brokers run out. This
page says how to add them, and what {READINGS_WANTED:,} readings a second would need. The needs are **calculated** from
unit costs that were measured on two cores ([RESULTS.md](../benchmarks/RESULTS.md)); nobody ran an installation of that
size, and brokers are not in the figures.
{disturbed({name: found[name] for name in sorted(NEEDED_FOR_SCALING)})}
## Adding workers

- **Partitions first.** A partition is the smallest thing that moves, and its readings are answered by one core. Their
  number cannot be changed afterwards without starting anew: a stream's partition follows from its name and their number
  (`forecaster topics check` and `doctor` say so). Take twice as many as workers are planned, the same number for
  readings and answers.
- **On one host:** `forecaster run --workers N` starts N members and shows their metrics at one address. Not more than
  cores: a worker computes on one thread.
- **On several hosts:** the same command and the same `kafka.group_id` on each; Kafka's group protocol divides the
  partitions. `kafka.instance_id` has to differ; with `kafka.static_membership` a restart within the session keeps its
  partitions.
- **On Kubernetes:** `deploy/k8s` has a StatefulSet (a pod's name is its instance id), a disruption budget and a KEDA
  component that scales on the group's lag. Every change of the number of pods moves partitions, each of which is
  restored from the state topic first ([reliability.md](reliability.md#recovery) has seconds by number of streams), so
  scale in large steps, and seldom. Lag (`forecaster_consumer_lag_records`), not CPU, says that there are too few: a
  worker that keeps up waits for readings.
- **`recovery.standby = 1`** holds the state of partitions that others own, for a quicker take-over: more memory (at
  most `recovery.standby_bytes`), and the state topic is read as it is written.
- **The trainer** is a process of its own (`training.mode = "service"`), one for the group, on a core of its own.

## Cores

A core is planned to {100 * _HEADROOM:.0f} %: the rest is for restores, rebalances, bursts. CPU of a reading end to end
as measured, and the cores that it makes:

{table(("client", "delivery", "CPU a reading", *(f"{rate:,}/s" for rate in _CORE_LOADS)), need)}

The engine alone, JSON in and out, takes {min(engine_us(found["scale"]).values()):.0f} µs of that; the rest is the
client's. For {READINGS_WANTED:,} readings a second exactly once, at {best:.0f} µs: **{workers:,.0f} workers** on as
many cores, and {partitions:,} or {2 * partitions:,} partitions for each of the topics `readings`, `forecasts`,
`anomalies`, `readings.dlq` and `forecaster.state`.

## Network and disks

A value's bytes are those of the benchmark's streams; for key, offsets and lengths {_NETWORK_OVERHEAD} B a record
are allowed, a third of that compressed: an estimate, not measured. `kafka.compression` is lz4 by default.

{table(("", "a record", "to or from workers", "", f"a day on disk, {_REPLICAS} replicas"), volumes)}

A consumer of the forecasts reads that volume once more, and brokers copy each record {_REPLICAS - 1} times among
themselves. Where not every forecast is needed, `publish.when` divides the largest of these figures: `every_nth` by its
number, `change` by what the streams allow.

## State

With `delivery = exactly_once` a stream that had a reading is written to the state topic about every
`state.flush_seconds` ({flush_seconds:g} s), {page["bytes_per_stream"]:,.0f} B uncompressed, whatever came in between.
At {READINGS_WANTED:,} readings a second:

{table(("streams", "to the state topic", "of the workers' CPU", "topic, compacted", "memory of all workers"), network)}

The CPU is that of encoding pages; producing them adds to it. A longer `state.flush_seconds` divides the volume and
multiplies what a restart replays. `state.bytes_per_commit` bounds a commit: at {each_worker:,.0f} readings a second on
a worker and commits every 200 ms it has to be {each_worker * 0.2 * page["bytes_per_stream"] / 1e6:,.1f} MB where each
reading is of another stream, or pages are written later than planned.

## What would stop it

- **Partitions.** {partitions:,} partitions in five topics are {5 * partitions:,} logs,
  {5 * _REPLICAS * partitions:,} with replicas: a matter of several brokers.
- **Transactions.** Each worker has one producer and commits every `commit.interval_ms`: {workers * 5:,.0f} commits a
  second at 200 ms, each with a marker in every partition written.
- **The models topic** is read by every worker, a model once.

{source(found["scale"])} {source(found["e2e"])} {source(found["codec"])}
"""


def span(of: dict[str, float], digits: int = 2) -> str:
    """Median, with least and greatest where they differ."""
    middle = f"{of['median']:,.{digits}f}"
    if of["min"] == of["max"]:
        return middle
    return f"{middle} ({of['min']:,.{digits}f}–{of['max']:,.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def source(result: Result) -> str:
    """Where the figures come from."""
    machine = result["machine"]
    return (
        f"`{result['command']}` at {result['commit']}, {result['date']}: {machine['cpu']}, {machine['cores']} cores "
        f"(load {machine['load_before']:g} when it began), Python {machine['python']}."
    )


if __name__ == "__main__":
    main()
