"""Alerts on a real stack: each fault is injected and its alert has to fire; in health none may.

    python deploy/test_alerts.py                            # every fault, each on a stack of its own
    python deploy/test_alerts.py ForecasterDown …           # these alone; what is known of the others stays
    python deploy/test_alerts.py --health 30                # half an hour of `simulate --faults`, rules as they are
    python deploy/test_alerts.py --page                     # docs/alerts.md again, from what is known

Needs a JVM, Maven and Prometheus; the fault of memory also needs root. Writes benchmarks/results/alerts.json, and from
it docs/alerts.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "alerts"))

from faults import FAULTS, SMALL, Fault, calm  # noqa: E402 - a folder of scripts, no package
from scene import ROOT, Feed, Scene, SceneError  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "alerts.json"
PAGE = ROOT / "docs" / "alerts.md"

LONGEST_SECONDS = 420.0
CALM_SECONDS = 20.0
"""Of health before the fault."""
STREAMS = 20
HEALTH_FACTOR = 12.0
"""Of the rules beside: an hour is five minutes, so that `for: 1h` can end within the run."""


def inject(fault: Fault) -> dict[str, Any]:
    """What fired, and how long after."""
    with (
        Scene(factor=fault.factor, settings={**SMALL, **fault.settings}) as scene,
        Feed(scene.broker.bootstrap, streams=STREAMS, rate=fault.rate, make=calm) as feed,
    ):
        scene.worker()
        if fault.has_trainer:
            scene.trainer()
        scene.watch()
        scene.until(lambda: scene.above("sum(rate(forecaster_forecasts_total[5s]))", 0), what="forecasts")
        if fault.has_trainer:
            scene.until(lambda: scene.ask('up{job="forecaster-trainer"}') == [1.0], what="the trainer is up")
        time.sleep(CALM_SECONDS)
        before = scene.alerts("firing", within=CALM_SECONDS)
        if before:
            raise SceneError(f"{before} fired before anything was done.")
        began = time.monotonic()
        going_on = fault.inject(scene, feed)

        def has_fired() -> bool:
            next(going_on, None)
            return scene.above(f'ALERTS{{alertname="{fault.alert}", alertstate="firing"}}', 0)

        try:
            scene.until(has_fired, what=f"{fault.alert} fires", seconds=LONGEST_SECONDS)
        finally:
            going_on.close()
        seconds = time.monotonic() - began
        fired = scene.alerts("firing", within=seconds)
        return {
            "alert": fault.alert,
            "fault": fault.what,
            "factor": fault.factor,
            "fired_after_seconds": round(seconds, 1),
            "beside": [name for name in fired if name != fault.alert],
        }


def health(minutes: float) -> dict[str, Any]:
    """What fired in so long a time in which nothing is done, by the rules as they are and by quicker ones beside."""
    with Scene() as scene:
        scene.worker()
        scene.trainer()
        scene.watch()
        scene.watch("quicker", factor=HEALTH_FACTOR)
        scene.start("simulator", "simulate", "--history", "6h", "--faults")
        scene.until(lambda: scene.above("sum(forecaster_forecasts_total)", 0), what="forecasts")
        began = time.monotonic()
        while time.monotonic() - began < 60 * minutes:
            time.sleep(5)
            ended = [name for name, process in scene.processes.items() if process.poll() is not None]
            if ended:
                raise SystemExit(f"{ended} ended\n{scene.explain()}")
        spent = time.monotonic() - began
        return {
            "minutes": round(spent / 60, 1),
            "readings": round(sum(scene.ask("sum(forecaster_records_total)"))),
            "trainings": round(sum(scene.ask("sum(forecaster_training_runs_total)"))),
            "models": round(sum(scene.ask("sum(forecaster_model_switches_total)"))),
            **{
                name: {
                    "factor": factor,
                    "fired": scene.alerts("firing", within=spent, of=watcher),
                    "pending": scene.alerts("pending", within=spent, of=watcher),
                }
                for name, watcher, factor in (("rules", "prometheus", 1.0), ("quicker", "quicker", HEALTH_FACTOR))
            },
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("alerts", nargs="*", choices=[[], *[fault.alert for fault in FAULTS]], metavar="ALERT")
    parser.add_argument("--health", type=float, metavar="MINUTES")
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    if args.page:
        keep(lambda found: None)
        return
    if args.health:
        row = health(args.health)
        print(row, flush=True)
        keep(lambda found: found.update(health=row))
        return
    failed = []
    for fault in FAULTS:
        if args.alerts and fault.alert not in args.alerts:
            continue
        try:
            row = inject(fault)
        except SceneError as error:
            row = {"alert": fault.alert, "fault": fault.what, "factor": fault.factor}
            row["failed"] = str(error).partition("\n")[0]
            failed.append(fault.alert)
            print(error)
        print(row, flush=True)
        keep(lambda found, row=row: note(found, row))
    if failed:
        raise SystemExit(f"{', '.join(failed)} did not fire.")


def keep(change: Callable[[dict[str, Any]], None]) -> None:
    """Change what is known, and write it with its page."""
    found = json.loads(RESULT.read_text("utf-8")) if RESULT.is_file() else {}
    change(found)
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(found), encoding="utf-8")


def note(found: dict[str, Any], row: dict[str, Any]) -> None:
    """What came of one fault, in its place among the others."""
    rows = {known["alert"]: known for known in found.get("faults", [])} | {row["alert"]: row}
    found["faults"] = [rows[fault.alert] for fault in FAULTS if fault.alert in rows]


def page(found: dict[str, Any]) -> str:
    """docs/alerts.md: what was seen of each alert."""
    lines = [
        "# Alerts, seen firing",
        "",
        "<!-- written by deploy/test_alerts.py from benchmarks/results/alerts.json; change those -->",
        "",
        "`make test-alerts` brings a broker, a worker, maybe a trainer, and Prometheus up with the rules of "
        "`deploy/prometheus/rules`, lets them be well for a while, does the harm, and waits for the alert. So that "
        "nobody waits for hours, `for` and the windows of rates are divided by the factor in the table; thresholds are "
        "as they are. *Beside*: what else the same harm set off.",
        "",
        "| alert | what was done | factor | fired after | beside |",
        "|---|---|---|---|---|",
    ]
    for row in found.get("faults", []):
        beside = ", ".join(f"`{name}`" for name in row.get("beside", [])) or "–"
        after = f"{row['fired_after_seconds']:.0f} s" if "failed" not in row else f"did not: {row['failed']}"
        lines.append(f"| `{row['alert']}` | {row['fault']} | {row['factor']:g} | {after} | {beside} |")
    tried = {row["alert"] for row in found.get("faults", [])}
    if never := [fault.alert for fault in FAULTS if fault.alert not in tried]:
        lines += ["", f"Never tried: {', '.join(f'`{name}`' for name in never)}."]
    if (health := found.get("health")) is not None:
        lines += [
            "",
            "## In health",
            "",
            f"{health['minutes']:g} minutes of `forecaster simulate --history 6h --faults`, one worker and a trainer: "
            f"{health['readings']:,} readings, {health['trainings']} trainings, {health['models']} new models. "
            "A second Prometheus scraped the same processes under rules made quicker, for those that wait an hour: "
            f"{health['minutes']:g} minutes are {health['minutes'] * HEALTH_FACTOR / 60:.1f} hours to it. "
            "`python deploy/test_alerts.py --health 30`.",
            "",
            "| rules | fired | true for a while, and not for long enough |",
            "|---|---|---|",
        ]
        for heading, of in (("as they are", health["rules"]), ("quicker", health["quicker"])):
            fired, pending = (", ".join(f"`{name}`" for name in of[key]) or "none" for key in ("fired", "pending"))
            lines.append(f"| {heading} (factor {of['factor']:g}) | {fired} | {pending} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
