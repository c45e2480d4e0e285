"""Every alert has a fault that is meant to set it off, and the page of what was seen leaves none of them out."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((ROOT / "deploy/prometheus/rules/alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for folder in ("deploy/grafana", "deploy/alerts", "deploy"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    import test_alerts

    return test_alerts


def test_every_alert_has_one_fault(harness):
    named = [fault.alert for fault in harness.FAULTS]

    assert sorted(named) == sorted(ALERTS)


def test_the_page_names_every_alert_whether_it_was_tried_or_not(harness):
    row = {"alert": ALERTS[0], "fault": "it is killed", "factor": 30.0, "fired_after_seconds": 5.0, "beside": []}

    page = harness.page({"faults": [row]})

    tried, _, never = page.partition("Never tried:")
    assert f"| `{ALERTS[0]}` |" in tried
    assert [name for name in ALERTS[1:] if f"`{name}`" not in never] == []


def test_the_page_is_the_one_that_the_results_make(harness):
    found = json.loads(harness.RESULT.read_text("utf-8"))

    assert harness.PAGE.read_text("utf-8") == harness.page(found), "run `deploy/test_alerts.py --page`"
    assert {row["alert"] for row in found["faults"]} <= set(ALERTS)
