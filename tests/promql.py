"""What a PromQL expression asks for, as far as tests of rules and dashboards want to know it."""

from __future__ import annotations

import re
from typing import NamedTuple

from forecaster.telemetry.collectors import METRICS, Collectors

_SELECTOR = re.compile(
    r"\b(?P<name>(?:forecaster|process|job|job_lead|job_stage)[_:][a-z0-9_:]*|ALERTS\b|up\b)(?:\{(?P<labels>[^}]*)\})?"
)
_LABEL = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_ADDED = {"job", "instance"}
"""Labels that the scrape adds."""
_LABELS = {spec.name: spec.label for spec in METRICS}
_VALUES = {spec.name: (spec.label[0], spec.values) for spec in METRICS if spec.values}


class Selector(NamedTuple):
    """One metric that an expression reads."""

    name: str
    labels: tuple[tuple[str, str, str], ...]
    """(label, operator, value)."""


def selectors(expression: str) -> list[Selector]:
    """All metrics of an expression with what it asks of their labels.

    >>> selectors('sum(rate(forecaster_records_total[5m])) / up{job="forecaster"}')
    [Selector(name='forecaster_records_total', labels=()), Selector(name='up', labels=(('job', '=', 'forecaster'),))]
    """
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", expression)
    return [
        Selector(found["name"], tuple(_LABEL.findall(found["labels"] or "")))  # type: ignore[arg-type]
        for found in _SELECTOR.finditer(bare)
    ]


def series_names() -> set[str]:
    """Every name that a scrape of the program has, parts of histograms included."""
    families = Collectors(build={}).registry.collect()
    process = {f.name + ("_total" if f.type == "counter" else "") for f in families if f.name.startswith("process_")}
    histograms = {f"{s.name}_{end}" for s in METRICS if s.kind == "histogram" for end in ("sum", "count", "bucket")}
    return {s.name for s in METRICS if s.kind != "histogram"} | histograms | process


def mistakes(selector: Selector) -> list[str]:
    """Labels that the metric lacks, and values that it never has."""
    base = re.sub(r"_(?:sum|count|bucket)$", "", selector.name)
    name = base if base in _LABELS else selector.name
    if name not in _LABELS:
        return []
    known = {*_LABELS[name], *_ADDED, *(["le"] if selector.name.endswith("_bucket") else [])}
    found = [f"{selector.name} has no label {label}" for label, _, _ in selector.labels if label not in known]
    label, values = _VALUES.get(name, ("", ()))
    for asked, operator, value in selector.labels:
        if asked == label and "$" not in value:
            pattern = value if "~" in operator else re.escape(value)
            if not any(re.fullmatch(pattern, one) for one in values):
                found.append(f"{selector.name} never has {label}={value}")
    return found
