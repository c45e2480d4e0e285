"""A search's report: every configuration, and what each setting's values came to."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from forecaster.models.artifact import write_atomically
from forecaster.reports.drawing import OURS, plain
from forecaster.reports.html import image, page, table
from forecaster.training.search import Row, as_toml

_PANELS_A_ROW = 3


def write_search_report(rows: Sequence[Row], path: Path) -> None:
    """Write the report as one HTML file; pictures are inside it.

    Args:
        rows: best first, at least one.
    """
    write_atomically(path, render(rows).encode())


def render(rows: Sequence[Row]) -> str:
    """The report as HTML."""
    names = list(rows[0].configuration)
    cells = [
        (
            *(str(row.configuration[name]) for name in names),
            str(row.steps),
            " ".join(f"{loss:.4f}" for loss in row.losses),
            f"{row.mean:.4f}",
        )
        for row in rows
    ]
    return page(
        "Search for settings",
        (
            "<p class=note>Mean pinball on rolling-origin folds, in units of each stream's scale, every stream alike. "
            "Rows are comparable after equally many steps alone: who stopped early was not among the best there.</p>",
            f"<p>The best one:</p><pre>{escape(as_toml(rows[0].configuration))}</pre>",
            image(values_picture(rows)),
            table((*names, "steps", "folds", "mean"), cells),
        ),
    )


def values_picture(rows: Sequence[Row]) -> Figure | None:
    """Loss of every configuration by the value of each setting, darker after more steps; ``None`` of one choice."""
    values = {name: list(dict.fromkeys(row.configuration[name] for row in rows)) for name in rows[0].configuration}
    varied = [name for name, found in values.items() if len(found) > 1]
    if not varied:
        return None
    rungs = sorted({row.steps for row in rows})
    lines = -(-len(varied) // _PANELS_A_ROW)
    figure = Figure(figsize=(10, 2.8 * lines), layout="constrained")
    panels = figure.subplots(lines, _PANELS_A_ROW, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, varied, strict=False):
        places = {value: k for k, value in enumerate(sorted(values[name], key=lambda value: (str(type(value)), value)))}
        for steps, alpha in zip(rungs, _shades(len(rungs)), strict=True):
            own = [row for row in rows if row.steps == steps]
            at = [places[row.configuration[name]] for row in own]
            axes.plot(at, [row.mean for row in own], "o", color=OURS, alpha=alpha, label=f"{steps} steps")
        axes.set_xticks(range(len(places)), [str(value) for value in places], fontsize=8)
        axes.set_xlim(-0.5, len(places) - 0.5)
        axes.set_title(name, fontsize=10, loc="left")
    for axes in panels[len(varied) :]:
        axes.set_axis_off()
    panels[0].set_ylabel("mean pinball")
    panels[0].legend(fontsize=8, frameon=False)
    return plain(figure)


def _shades(count: int) -> list[float]:
    return [1.0 if count == 1 else 0.25 + 0.75 * k / (count - 1) for k in range(count)]
