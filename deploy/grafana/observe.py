"""Puts every expression of every panel and rule to a Prometheus that scraped a real run; writes down what comes back.

    python deploy/grafana/observe.py --minutes 20             # starts `forecaster demo` and Prometheus for that long
    python deploy/grafana/observe.py --prometheus http://localhost:9090 --run "docker-compose up, three workers"

Writes deploy/grafana/observed.json and docs/dashboards.md; --pictures draws docs/images/dashboard-*.png as well.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from ask import RULES, Prometheus, choose, dashboards, fill, panels  # noqa: E402 - a folder of scripts, no package

ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "dashboards.md"
RESULT = HERE / "observed.json"
PORT, PROMETHEUS_PORT = 18000, 19090

WHY_EMPTY = {
    "Dead letters by reason": "no reading was refused",
    "Dead letters by reason, last hour": "no reading was refused",
    "Drift of the loss": "no detector of drift raised an alarm",
    "How long a restore takes": "no partition was restored within the hour before; embedded there are none",
}


def observe(prometheus: Prometheus, run: str, given: dict[str, str]) -> dict[str, Any]:
    """Number of series and a value for each expression."""
    names = prometheus.names()
    found: dict[str, Any] = {"run": run, "panels": [], "recording": [], "alerts": []}
    for name, dashboard in dashboards().items():
        values = choose(prometheus, dashboard, given)
        for panel in panels(dashboard):
            for target in panel["targets"]:
                asked = prometheus.instant(fill(target["expr"], values))
                found["panels"].append(
                    {"dashboard": name, "panel": panel["title"], "expr": target["expr"], **_answer(asked)}
                )
    for file in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]:
            for rule in group["rules"]:
                asked = prometheus.instant(rule["expr"])
                entry = {"rule": rule.get("record") or rule["alert"], "expr": rule["expr"], **_answer(asked)}
                if "alert" in rule:
                    read = set(re.findall(r"[a-z0-9_:]+", rule["expr"])) & names
                    entry["reads"] = {name: len(prometheus.instant(name)) for name in sorted(read)}
                found["recording" if "record" in rule else "alerts"].append(entry)
    return found


def page(found: dict[str, Any]) -> str:
    """docs/dashboards.md."""
    empty = [entry for entry in found["panels"] if not entry["series"]]
    lines = [
        "# Dashboards and rules, asked of a real run",
        "",
        f"Made by `deploy/grafana/observe.py`. The run: {found['run']}. Grafana shows the four dashboards in "
        "`deploy/grafana/dashboards`, which `deploy/grafana/make_dashboards.py` makes. Every expression in them and in "
        "`deploy/prometheus/rules` was put to the Prometheus that scraped that run, with variables filled in as "
        "Grafana fills them. The pictures are drawn from the answers by `deploy/grafana/draw.py`, where Grafana would "
        f"lay them out; they are not Grafana's own. They show {found.get('pictures', 'the same run')}.",
        "",
        f"{len(found['panels'])} expressions in panels, {len(empty)} of them without an answer.",
        "",
        *(["| dashboard | panel | why there is none |", "|---|---|---|"] if empty else []),
        *(f"| {e['dashboard']} | {e['panel']} | {WHY_EMPTY.get(e['panel'], '**not explained**')} |" for e in empty),
        "",
    ]
    for name in dict.fromkeys(entry["dashboard"] for entry in found["panels"]):
        lines += [f"## {name.capitalize()}", ""]
        if (ROOT / "docs" / "images" / f"dashboard-{name}.png").is_file():
            lines += [f"![{name}](images/dashboard-{name}.png)", ""]
        lines += ["| panel | series | one value |", "|---|---|---|"]
        lines += [
            f"| {e['panel']} | {e['series']} | {e['value'] or '–'} |" for e in found["panels"] if e["dashboard"] == name
        ]
        lines += [""]
    lines += ["## Recording rules", "", "| rule | series | one value |", "|---|---|---|"]
    lines += [f"| `{e['rule']}` | {e['series']} | {e['value'] or '–'} |" for e in found["recording"]]
    lines += [
        "",
        "## Alerts",
        "",
        "An alert's expression is empty in health. What it reads is there:",
        "",
        "| alert | in the run | series read |",
        "|---|---|---|",
    ]
    for entry in found["alerts"]:
        read = ", ".join(f"`{name}` {count}" for name, count in entry["reads"].items())
        lines.append(f"| `{entry['rule']}` | {'true now' if entry['series'] else 'silent'} | {read} |")
    return "\n".join(lines) + "\n"


def _answer(series: list[Any]) -> dict[str, Any]:
    values = [one.points[0][1] for one in series]
    known = [value for value in values if math.isfinite(value)]
    return {"series": len(values), "value": f"{known[0]:.4g}" if known else ("NaN" if values else "")}


@contextmanager
def _running(minutes: float) -> Iterator[Prometheus]:
    """The demo and a Prometheus beside it, for so long; both end with this."""
    with tempfile.TemporaryDirectory(prefix="forecaster-observe-") as scratch:
        configuration = yaml.safe_load((RULES.parent / "prometheus.yml").read_text("utf-8"))
        del configuration["alerting"]
        configuration["rule_files"] = [f"{RULES}/*.yml"]
        configuration["scrape_configs"] = [
            {"job_name": "forecaster", "static_configs": [{"targets": [f"127.0.0.1:{PORT}"]}]}
        ]
        file = Path(scratch) / "prometheus.yml"
        file.write_text(yaml.safe_dump(configuration))
        environment = {**os.environ, "FORECASTER_TELEMETRY__WATCH": '["*"]'}
        commands = [
            [sys.executable, "-m", "forecaster", "demo", "--port", str(PORT)],
            [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={scratch}/tsdb",
                f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}",
            ],
        ]
        with open(os.devnull, "wb") as nowhere:
            running = [subprocess.Popen(c, env=environment, stdout=nowhere, stderr=nowhere) for c in commands]
        try:
            time.sleep(60 * minutes)
            if any(process.poll() is not None for process in running):
                raise SystemExit("the demo or Prometheus has ended; run them by hand to see why")
            yield Prometheus(f"http://127.0.0.1:{PROMETHEUS_PORT}")
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--prometheus", metavar="URL", help="one that runs already, and has scraped for a while")
    parser.add_argument("--at", type=float, metavar="EPOCH", help="with --prometheus: the moment to ask about, not now")
    parser.add_argument("--run", default="", help="what it has scraped, for the page")
    parser.add_argument("--stream", help="shown in the dashboard Stream; the first by name where this is not given")
    parser.add_argument("--lead", default="1")
    parser.add_argument("--pictures", type=float, metavar="MINUTES", help="draw the dashboards over the last so many")
    args = parser.parse_args()
    given = {"lead": args.lead, **({"stream": args.stream} if args.stream else {})}

    def write(prometheus: Prometheus, run: str) -> None:
        found = observe(prometheus, run, given)
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        if args.pictures:
            from draw import draw

            for name, dashboard in dashboards().items():
                values = choose(prometheus, dashboard, given)
                draw(
                    prometheus, dashboard, values, minutes=args.pictures, to=ROOT / f"docs/images/dashboard-{name}.png"
                )
        PAGE.write_text(page(found), encoding="utf-8")

    if args.prometheus:
        write(Prometheus(args.prometheus, at=args.at), args.run)
    else:
        with _running(args.minutes) as prometheus:
            write(prometheus, args.run or f"`forecaster demo`, {args.minutes:g} minutes")


if __name__ == "__main__":
    main()
