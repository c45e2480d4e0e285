"""What the dashboards and rules ask, put to a Prometheus that is running: variables filled in as Grafana would."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RULES = HERE.parent / "prometheus" / "rules"
_LABEL_VALUES = re.compile(r"label_values\((?P<expr>.+), *(?P<label>\w+)\)")
_QUERY_RESULT = re.compile(r"query_result\((?P<expr>.+)\)")


class Series(NamedTuple):
    """One curve; an instant has one point."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


class Prometheus:
    """Its HTTP interface, as far as it is needed here.

    Args:
        at: the moment that counts as now, seconds since the epoch, for what was scraped before; ``None`` for the clock.
    """

    def __init__(self, url: str, *, at: float | None = None) -> None:
        self._url = url.rstrip("/")
        self._at = at

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() if self._at is None else self._at

    def instant(self, expression: str) -> list[Series]:
        """The value now."""
        found = self._get("query", query=expression, time=str(self.now()))
        return [Series(one["metric"], [(one["value"][0], float(one["value"][1]))]) for one in found["result"]]

    def over(self, expression: str, begin: float, end: float, step: float) -> list[Series]:
        """Values from ``begin`` to ``end``, seconds since the epoch."""
        found = self._get("query_range", query=expression, start=str(begin), end=str(end), step=str(step))
        return [Series(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in found["result"]]

    def names(self) -> set[str]:
        """Of all metrics it has."""
        return set(self._get("label/__name__/values"))

    def _get(self, path: str, **query: str) -> Any:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]


def dashboards() -> dict[str, dict[str, Any]]:
    """File name without suffix -> the dashboard."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((HERE / "dashboards").glob("*.json"))}


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels that show something, those within rows too."""
    for panel in dashboard["panels"]:
        yield from (panel.get("panels", []) if panel["type"] == "row" else [panel])


def choose(prometheus: Prometheus, dashboard: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """A value for each variable: the given one, all, or the first that Prometheus knows."""
    chosen: dict[str, str] = {}
    for variable in dashboard["templating"]["list"]:
        name, query = variable["name"], fill(variable["query"]["query"], chosen)
        if name in given:
            chosen[name] = given[name]
        elif variable.get("includeAll"):
            chosen[name] = variable["allValue"]
        elif found := _LABEL_VALUES.fullmatch(query):
            values = sorted({one.labels[found["label"]] for one in prometheus.instant(found["expr"])})
            chosen[name] = values[0] if values else "none"
        elif found := _QUERY_RESULT.fullmatch(query):
            lines = [f"{{}} {one.points[0][1]:.0f} {one.points[0][0]:.0f}" for one in prometheus.instant(found["expr"])]
            wanted = re.compile(variable["regex"].strip("/"))
            chosen[name] = next((match[1] for line in lines if (match := wanted.fullmatch(line))), "0")
    return chosen


def fill(text: str, values: Mapping[str, str]) -> str:
    """Variables replaced by their values.

    >>> fill('up{job=~"$job"} offset ${ahead}s', {"job": ".*", "ahead": "5"})
    'up{job=~".*"} offset 5s'
    """
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], found[0]), text)
