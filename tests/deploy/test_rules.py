"""Prometheus' rules ask for what there is, say what to do, and fire when they should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from promql import mistakes, selectors, series_names

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
RULES: list[dict[str, Any]] = [
    rule
    for file in FILES
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
CASES: list[dict[str, Any]] = [
    case for file in TESTS for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
]
DASHBOARDS = "".join(path.read_text("utf-8") for path in (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))


def name_of(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


def headings(page: Path) -> set[str]:
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed; Debian has it in prometheus and prometheus-alertmanager")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_a_rule_reads_metrics_that_there_are_with_labels_that_they_have(rule):
    found = selectors(rule["expr"])

    assert found
    assert {selector.name for selector in found} - series_names() - RECORDED - {"up"} == set()
    assert [mistake for selector in found for mistake in mistakes(selector)] == []


@pytest.mark.parametrize("alert", ALERTS.values(), ids=name_of)
def test_an_alert_says_how_long_how_bad_what_and_where_to_read_on(alert):
    assert re.fullmatch(r"\d+[mh]", alert["for"])
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert anchor in headings(ROOT / page)


def test_every_recorded_series_is_read_by_an_alert_or_a_panel():
    read = {selector.name for alert in ALERTS.values() for selector in selectors(alert["expr"])}

    assert [name for name in sorted(RECORDED - read) if name not in DASHBOARDS] == []


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_tested_for_firing_and_for_silence(alert):
    looks = [look for case in CASES for look in case.get("alert_rule_test", []) if look["alertname"] == alert]

    assert any(look.get("exp_alerts") for look in looks)
    assert any(not look.get("exp_alerts") for look in looks)


@pytest.mark.parametrize("record", sorted(RECORDED))
def test_a_recorded_series_is_tested(record):
    asked = [
        selector.name
        for case in CASES
        for look in case.get("promql_expr_test", [])
        for selector in selectors(look["expr"])
    ]

    assert record in asked


def test_prometheus_finds_nothing_wrong_with_the_rules():
    done = run("promtool", "check", "rules", *(str(file) for file in FILES))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_rules_do_in_prometheus_what_their_tests_say(file):
    done = run("promtool", "test", "rules", str(file))

    assert done.returncode == 0, done.stdout + done.stderr


def test_alertmanager_finds_nothing_wrong_with_its_configuration():
    done = run("amtool", "check-config", str(ROOT / "deploy" / "alertmanager" / "alertmanager.yml"))

    assert done.returncode == 0, done.stdout + done.stderr


def test_alertmanager_routes_by_severities_and_alerts_that_there_are():
    configuration = yaml.safe_load((ROOT / "deploy" / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8"))
    matchers = [m for route in configuration["route"]["routes"] for m in route["matchers"]]
    for rule in configuration["inhibit_rules"]:
        matchers += rule["source_matchers"] + rule["target_matchers"]
    values = {"severity": {alert["labels"]["severity"] for alert in ALERTS.values()}, "alertname": set(ALERTS)}

    for matcher in matchers:
        label, value = re.fullmatch(r'(\w+)=~?"([^"]+)"', matcher).groups()
        assert set(value.split("|")) <= values[label]


def test_the_page_on_deployment_lists_every_alert_with_its_severity_and_section():
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")

    listed = re.findall(r"^\| \[`(\w+)`\]\(([^)]+)\) \| .+ \| (\w+) \|$", page, re.MULTILINE)

    assert listed == [
        (name, alert["annotations"]["runbook"].removeprefix("docs/"), alert["labels"]["severity"])
        for name, alert in ALERTS.items()
    ]
