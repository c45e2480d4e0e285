"""Draws a dashboard from its own JSON and a running Prometheus: where Grafana lays a panel out, what Grafana would ask.

Not Grafana's pixels, but its content: for the README, and to look at dashboards where Grafana is not at hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from ask import Prometheus, Series, fill
from matplotlib import pyplot
from matplotlib.axes import Axes

BACK, PANEL, INK, GRID = "#111217", "#181b1f", "#d0d1d5", "#2c3036"
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#c0d8ff", "#ca95e5", "#96d98d")
NAMED = {"green": "#73bf69", "yellow": "#f2cc0c", "red": "#f2495c", "text": INK, "blue": "#5794f2"}


def draw(
    prometheus: Prometheus, dashboard: Mapping[str, Any], values: Mapping[str, str], *, minutes: float, to: Path
) -> None:
    """The dashboard over the last minutes, with its variables filled in, as a PNG."""
    end = prometheus.now()
    begin = end - 60 * minutes
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = pyplot.figure(figsize=(18, height * 0.36 + 0.6), facecolor=BACK)
    shown = [f"{key} {value}" for key, value in values.items() if key in ("stream", "lead")]
    name = ", ".join([*shown, f"last {minutes:g} minutes"])
    figure.text(
        0.01, 1 - 0.3 / figure.get_figheight(), f"{dashboard['title']}   {name}", color=INK, size=15, va="center"
    )
    top = 1 - 0.6 / figure.get_figheight()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        low, left = top * (1 - (at["y"] + at["h"]) / height), at["x"] / 24
        if panel["type"] == "row":
            figure.text(0.01, low + 0.3 * at["h"] * top / height, panel["title"], color=INK, size=12, weight="bold")
            continue
        box = (left + 0.003, low + 0.0015, at["w"] / 24 - 0.006, at["h"] * top / height - 0.003)
        figure.patches.append(pyplot.Rectangle(box[:2], *box[2:], transform=figure.transFigure, color=PANEL, zorder=-1))
        figure.text(box[0] + 0.004, box[1] + box[3] - 0.24 / figure.get_figheight(), panel["title"], color=INK, size=10)
        bottom, head = (0.1 if panel["type"] == "stat" else 0.55) / figure.get_figheight(), 0.4 / figure.get_figheight()
        axes = figure.add_axes((box[0] + 0.035, box[1] + bottom, box[2] - 0.045, box[3] - bottom - head))
        _KINDS[panel["type"]](axes, panel, prometheus, values, begin, end)
    figure.savefig(to, dpi=70, facecolor=BACK)
    pyplot.close(figure)


def _curves(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, values: Any, begin: float, end: float) -> None:
    found: list[tuple[str, Series]] = []
    for target in panel["targets"]:
        asked = prometheus.over(fill(target["expr"], values), begin, end, max((end - begin) / 300, 5))
        found += [(_name(target.get("legendFormat", ""), one.labels), one) for one in asked]
    found.sort(key=lambda entry: _natural(entry[0]))
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    colour = dict(zip([name for name, _ in found], COLOURS * 9, strict=False))
    _look(axes, unit)
    if custom.get("stacking", {}).get("mode") == "normal" and found:
        times = sorted({at for _, one in found for at, _ in one.points})
        rows = [[dict(one.points).get(at, 0.0) for at in times] for _, one in found]
        axes.stackplot(
            [_ago(at, end) for at in times], rows, labels=list(colour), colors=list(colour.values()), alpha=0.8
        )
    else:
        band = {name: one for name, one in found if name in ("lower", "upper")}
        if len(band) == 2:
            lower, upper = (dict(band[name].points) for name in ("lower", "upper"))
            times = sorted(set(lower) & set(upper))
            axes.fill_between(
                [_ago(at, end) for at in times], [lower[at] for at in times], [upper[at] for at in times],
                facecolor="#5794f266", edgecolor="#5794f2", linewidth=0.6, label="lower to upper",
            )  # fmt: skip
        for name, one in found:
            if name not in band:
                xs, ys = [_ago(at, end) for at, _ in one.points], [value for _, value in one.points]
                axes.plot(xs, ys, color=colour[name], linewidth=1.3, label=name)
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", []):
        if custom.get("thresholdsStyle") and step["value"] is not None:
            axes.axhline(step["value"], color=NAMED["red"], linestyle="--", linewidth=1)
    axes.set_xlim(_ago(begin, end), 0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    if custom.get("axisSoftMin") == 0 and axes.get_ylim()[0] > 0:
        axes.set_ylim(bottom=0)
    if not found:
        axes.text(0.5, 0.5, "no data", color=INK, ha="center", size=12, transform=axes.transAxes)
    else:
        axes.legend(
            loc="upper left", bbox_to_anchor=(-0.02, -0.13), ncols=min(len(found), 7), fontsize=7, frameon=False,
            labelcolor=INK, handlelength=1, columnspacing=1,
        )  # fmt: skip


def _number(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, values: Any, begin: float, end: float) -> None:
    axes.axis("off")
    found = prometheus.over(fill(panel["targets"][0]["expr"], values), begin, end, max((end - begin) / 100, 5))
    defaults = panel["fieldConfig"]["defaults"]
    points = [(at, value) for one in found[:1] for at, value in one.points if math.isfinite(value)]
    if not points:
        axes.text(0.5, 0.4, "no data", color=INK, ha="center", size=14, transform=axes.transAxes)
        return
    last = points[-1][1]
    colour = INK
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or last >= step["value"]:
            colour = NAMED[step["color"]]
    axes.fill_between(
        [at for at, _ in points], [value for _, value in points], min(v for _, v in points), color=colour, alpha=0.15
    )
    axes.text(
        0.5, 0.45, _human(last, defaults.get("unit", "")), color=colour, ha="center", size=20, transform=axes.transAxes
    )


def _bars(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, values: Any, begin: float, end: float) -> None:
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    found = [
        (_name(target.get("legendFormat", ""), one.labels), one.points[0][1])
        for target in panel["targets"]
        for one in prometheus.instant(fill(target["expr"], values))
    ]
    found.sort(key=lambda entry: _natural(entry[0]), reverse=True)  # the first on top
    _look(axes)
    if not found:
        axes.axis("off")
        axes.text(0.5, 0.5, "no data", color=INK, ha="center", size=12, transform=axes.transAxes)
        return
    axes.barh(range(len(found)), [value for _, value in found], color=NAMED["blue"], height=0.5)
    axes.set_yticks(range(len(found)), [name for name, _ in found])
    axes.xaxis.set_major_formatter(lambda value, _: _human(value, unit))


def _table(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, values: Any, begin: float, end: float) -> None:
    axes.axis("off")
    found = prometheus.instant(fill(panel["targets"][0]["expr"], values))
    (transformation,) = panel["transformations"]
    options = transformation["options"]
    if transformation["id"] == "groupingToMatrix":
        down, across = options["rowField"], options["columnField"]
        heads = sorted({one.labels[across] for one in found}, key=float)
        cells = {(one.labels[down], one.labels[across]): one.points[0][1] for one in found}
        rows = [
            [r, *(f"{cells.get((r, h), math.nan):.4g}" for h in heads)]
            for r in sorted({r for r, _ in cells}, key=float)
        ]
        heads = [down, *heads]
    else:
        place = options["indexByName"]
        renamed = dict(sorted(options["renameByName"].items(), key=lambda entry: int(place[entry[0]])))
        heads = list(renamed.values())
        rows = [
            [f"{one.points[0][1]:.3g}" if label == "Value" else one.labels.get(label, "") for label in renamed]
            for one in found
        ][:9]
    for line, row in enumerate([heads, *rows]):
        for place, text in enumerate(row):
            axes.text(
                place / len(heads), 1 - 0.11 * line, text, color=INK, size=9, va="top",
                weight="bold" if line == 0 else "normal", transform=axes.transAxes,
            )  # fmt: skip


_KINDS = {"timeseries": _curves, "stat": _number, "bargauge": _bars, "table": _table}


def _look(axes: Axes, unit: str = "short") -> None:
    axes.set_facecolor(PANEL)
    axes.grid(color=GRID, linewidth=0.6)
    axes.tick_params(colors=INK, labelsize=7, length=0)
    axes.yaxis.set_major_formatter(lambda value, _: _human(value, unit))
    for spine in axes.spines.values():
        spine.set_visible(False)


def _ago(at: float, end: float) -> float:
    return (at - end) / 60


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend) or "value"


def _natural(name: str) -> list[tuple[bool, float, str]]:
    """Names by their words, and numbers in them by size: lead 2 before lead 12.

    >>> sorted(["lead 12", "lead 2", "lead 1"], key=_natural)
    ['lead 1', 'lead 2', 'lead 12']
    """
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [
        (place % 2 == 0, 0.0, part) if place % 2 == 0 else (False, float(part), "") for place, part in enumerate(parts)
    ]


_SIGNS = {"bytes": "B", "cps": "/s", "s": "s"}


def _human(value: float, unit: str) -> str:
    """A value as Grafana writes it.

    >>> _human(0.985, "percentunit"), _human(2.5e9, "bytes"), _human(12_000, "cps"), _human(0.0042, "s")
    ('98.5 %', '2.5 GB', '12 k/s', '4.2 ms')
    """
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s" and abs(value) >= 120:
        return f"{value / 60:.3g} min" if abs(value) < 7_200 else f"{value / 3_600:.3g} h"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{1_000 * value:.3g} ms"
    sign = _SIGNS.get(unit, "")
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and (abs(value) >= 10_000 or sign):
            return f"{value / size:.4g} {letter}{sign}"
    return f"{value:.4g} {sign}".rstrip()
