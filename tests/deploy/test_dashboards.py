"""The dashboards in deploy/grafana are what their source makes, and ask for what there is."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from promql import mistakes, selectors, series_names

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}
ADDED = {"ALERTS", "up"}
"""Series that Prometheus itself makes."""


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield from (panel.get("panels", []) if panel["type"] == "row" else [panel])


PANELS = [pytest.param(panel, id=f"{name}: {panel['title']}") for name, d in DASHBOARDS.items() for panel in panels(d)]
RECORDED = {
    rule["record"]
    for group in yaml.safe_load((ROOT / "deploy/prometheus/rules/recording.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
}


def test_the_files_are_what_the_source_makes():
    pytest.importorskip("grafana_foundation_sdk")

    made = load(GRAFANA / "make_dashboards.py").documents()

    assert {f"{name}.json" for name in DASHBOARDS} == set(made)
    for name, text in made.items():
        assert (GRAFANA / "dashboards" / name).read_text("utf-8") == text, "run `make docs`"


def test_there_is_one_for_the_fleet_a_stream_the_model_and_operations():
    assert set(DASHBOARDS) == {"fleet", "stream", "model", "operations"}
    assert len({d["uid"] for d in DASHBOARDS.values()}) == len(DASHBOARDS)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_reads_metrics_that_there_are_with_labels_that_they_have(panel):
    asked = [selector for target in panel["targets"] for selector in selectors(target["expr"])]

    assert asked
    assert {selector.name for selector in asked} - series_names() - RECORDED - ADDED == set()
    assert [mistake for selector in asked for mistake in mistakes(selector)] == []


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_and_asks_the_data_source_that_is_provisioned(panel):
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text("utf-8"))["datasources"]

    assert panel["description"].endswith(".")
    assert panel["datasource"]["uid"] in {source["uid"] for source in sources}
    assert all(target["datasource"]["uid"] == panel["datasource"]["uid"] for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_shows_the_chosen_group_of_workers_alone(panel):
    for target in panel["targets"]:
        bare = re.sub(r"\b(?:by|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", target["expr"])
        assert bare.count('job=~"$job"') >= len(selectors(bare))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_side_by_side_on_the_grid(name):
    taken: Counter[tuple[int, int]] = Counter()
    for panel in DASHBOARDS[name]["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        taken.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))

    assert [cell for cell, times in taken.items() if times > 1] == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_variable_that_is_used_is_declared(name):
    dashboard = DASHBOARDS[name]
    declared = [variable["name"] for variable in dashboard["templating"]["list"]]
    texts = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    texts += [json.dumps(variable["query"]) for variable in dashboard["templating"]["list"]]

    used = {found for text in texts for found in re.findall(r"\$\{?(\w+)", text)}

    assert used <= set(declared)


def test_the_folder_that_is_provisioned_is_the_one_that_is_mounted():
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/forecaster.yml").read_text("utf-8"))["providers"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))

    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])

    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"


def test_what_was_observed_is_every_expression_of_every_panel_and_rule():
    """One that has changed was never seen against a real run: `deploy/grafana/observe.py` looks again."""
    observed = json.loads((GRAFANA / "observed.json").read_text("utf-8"))
    rules = [
        rule
        for file in sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]

    asked = [(entry["dashboard"], entry["panel"], entry["expr"]) for entry in observed["panels"]]
    ruled = [(entry["rule"], entry["expr"]) for kind in ("recording", "alerts") for entry in observed[kind]]

    assert sorted(asked) == sorted(
        (name, panel["title"], target["expr"])
        for name, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    )
    assert sorted(ruled) == sorted((rule.get("record") or rule["alert"], rule["expr"]) for rule in rules)


def test_every_panel_that_was_empty_in_that_run_has_its_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(GRAFANA))
    reasons = load(GRAFANA / "observe.py").WHY_EMPTY
    observed = json.loads((GRAFANA / "observed.json").read_text("utf-8"))

    empty = {entry["panel"] for entry in observed["panels"] if not entry["series"]}

    assert empty <= set(reasons)
    assert "not explained" not in (ROOT / "docs/dashboards.md").read_text("utf-8")


def test_a_picture_has_leads_in_order_of_size_and_values_with_their_units(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(GRAFANA))
    draw = load(GRAFANA / "draw.py")

    assert sorted(["lead 12", "lead 2", "naive", "lead 1"], key=draw._natural) == [
        "lead 1",
        "lead 2",
        "lead 12",
        "naive",
    ]
    shown = [(0.985, "percentunit"), (2.5e9, "bytes"), (12_000, "cps"), (0.0042, "s"), (600, "s"), (7.25, "short")]
    assert [draw._human(*one) for one in shown] == ["98.5 %", "2.5 GB", "12 k/s", "4.2 ms", "10 min", "7.25"]


def test_prometheus_understands_every_expression(tmp_path: Path):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed; Debian has it in prometheus")
    values = {"job": ".*", "stream": "a", "lead": "1", "ahead": "5"}
    expressions = [target["expr"] for d in DASHBOARDS.values() for panel in panels(d) for target in panel["targets"]]
    rules = [
        {"record": f"expression:{number}", "expr": re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], expression)}
        for number, expression in enumerate(expressions)
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
