"""docs/metrics.md, docs/runbook.md and the table of metrics name the same things."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forecaster.records import Reason, Status
from forecaster.telemetry.collectors import FAILURES, METRICS, MOVES, STAGES, TRAINING_RESULTS, Collectors
from forecaster.telemetry.together import SUPERVISOR_METRICS

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<kind>\w+) \|(?P<labels>[^|]*)\| [^|]+ \|", re.MULTILINE)


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    return {row["name"]: (row["kind"], tuple(re.findall(r"`(\w+)`", row["labels"]))) for row in ROW.finditer(text)}


def process_metrics() -> dict[str, str]:
    families = Collectors(build={}).registry.collect()
    named = {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families}
    return {name: kind for name, kind in named.items() if name.startswith("process_")}


def test_every_metric_has_a_line_in_the_docs_with_its_kind_and_labels():
    expected = {spec.name: (spec.kind, spec.label) for spec in (*METRICS, *SUPERVISOR_METRICS)}
    expected |= {name: (kind, ()) for name, kind in process_metrics().items()}

    assert documented() == expected


def test_docs_name_every_value_of_the_closed_labels():
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")

    missing = [
        value for value in (*Reason, *Status, *STAGES, *TRAINING_RESULTS, *FAILURES, *MOVES) if f"`{value}`" not in text
    ]

    assert missing == []


@pytest.mark.parametrize("page", ["metrics.md", "runbook.md"])
def test_no_page_names_a_metric_that_does_not_exist(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    known = {spec.name for spec in (*METRICS, *SUPERVISOR_METRICS)} | set(process_metrics())
    series = known | {f"{spec.name}_{end}" for spec in METRICS for end in ("sum", "count", "bucket")}

    named = set(re.findall(r"\b(?:forecaster|process)_[a-z_]*[a-z]", text))

    assert named
    assert named <= series


def test_links_between_the_pages_lead_to_headings_that_exist():
    headings = {
        page: {
            re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in (DOCS / page).read_text(encoding="utf-8").splitlines()
            if line.startswith("#")
        }
        for page in ("metrics.md", "runbook.md")
    }

    links = re.findall(r"\((metrics|runbook)\.md#([\w-]+)\)", "".join((DOCS / p).read_text("utf-8") for p in headings))

    assert links
    assert [link for link in links if link[1] not in headings[f"{link[0]}.md"]] == []
