"""The few kinds of panel that the dashboards are made of, so that they look and behave alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    VariableHide,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
WORKERS = 'job=~"$job"'
"""What every selector begins with: the group of workers that was chosen at the top."""

Query = tuple[str, str]
"""Expression, and how its series are called; ``{{label}}`` is filled in."""
Limit = tuple[float | None, str]
"""From this value on, this colour; ``None`` is from the beginning."""


def lines(title: str, what: str, *queries: Query, unit: str = "short", width: int = 12, **options: Any) -> Any:
    """Curves over time.

    Args:
        what: the panel's help, one or two sentences.
        options: ``stack`` for areas on top of each other, ``low`` and ``high`` for the axis, ``at`` for a dashed line.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(what)
        .datasource(PROMETHEUS)
        .unit(unit)
        .span(width)
        .height(8)
        .line_width(1.5)
        .fill_opacity(60 if options.get("stack") else 4)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
    )
    if options.get("stack"):
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    if "low" in options:
        panel.axis_soft_min(options["low"])
    if "high" in options:
        panel.axis_soft_max(options["high"])
    if "at" in options:
        panel.thresholds(_steps([(None, "transparent"), (options["at"], "red")]))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED))
    for query in queries:
        panel.with_target(_target(*query))
    return panel


def band(panel: Any, *, low: str, high: str) -> Any:
    """Fill the space between two curves, by their names."""
    return panel.override_by_name(
        high, [DynamicConfigValue("custom.fillBelowTo", low), DynamicConfigValue("custom.lineWidth", 0)]
    ).override_by_name(low, [DynamicConfigValue("custom.lineWidth", 0)])


def number(
    title: str, what: str, query: str, *, unit: str = "short", limits: Sequence[Limit] = (), **options: Any
) -> Any:
    """One number, with its recent past behind it; coloured by ``limits``."""
    panel = (
        stat.Panel()
        .title(title)
        .description(what)
        .datasource(PROMETHEUS)
        .unit(unit)
        .span(options.get("width", 4))
        .height(4)
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_steps(limits or [(None, "text")]))
        .with_target(_target(query, ""))
    )
    if "decimals" in options:
        panel.decimals(options["decimals"])
    return panel


def bars(
    title: str, what: str, *queries: Query, unit: str = "short", width: int = 12, limits: Sequence[Limit] = ()
) -> Any:
    """One bar a series, for now."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(what)
        .datasource(PROMETHEUS)
        .unit(unit)
        .span(width)
        .height(8)
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_steps(limits or [(None, "blue")]))
    )
    for query in queries:
        panel.with_target(_target(*query, instant=True))
    return panel


def rows(title: str, what: str, query: str, *, columns: dict[str, str], unit: str = "short", width: int = 12) -> Any:
    """A table of the series there are now: a column for each label in ``columns``, with its heading, and the value."""
    order = {label: place for place, label in enumerate(columns)}
    return (
        table.Panel()
        .title(title)
        .description(what)
        .datasource(PROMETHEUS)
        .unit(unit)
        .span(width)
        .height(8)
        .with_target(_target(query, "", instant=True).format(PromQueryFormat.TABLE))
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "includeByName": dict.fromkeys(columns, True),
                    "indexByName": order,
                    "renameByName": columns,
                },
            )
        )
    )


def matrix(title: str, what: str, query: str, *, row: str, column: str, width: int = 12) -> Any:
    """A table with one label down and another across."""
    return (
        table.Panel()
        .title(title)
        .description(what)
        .datasource(PROMETHEUS)
        .span(width)
        .height(8)
        .with_target(_target(query, "", instant=True).format(PromQueryFormat.TABLE))
        .with_transformation(
            DataTransformerConfig(
                id_val="groupingToMatrix", options={"rowField": row, "columnField": column, "valueField": "Value"}
            )
        )
    )


def row(title: str) -> Any:
    """A heading across the page."""
    return dashboard.Row(title)


def page(title: str, uid: str, what: str, *panels: Any, since: str = "now-1h", variables: Sequence[Any] = ()) -> Any:
    """A dashboard: links to the others, the group of workers to choose, then panels and rows in order."""
    made = (
        dashboard.Dashboard(f"Forecaster / {title}")
        .uid(f"forecaster-{uid}")
        .description(what)
        .tags(["forecaster"])
        .time(since, "now")
        .refresh("10s")
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["forecaster"])
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(choice("job", "Group", "label_values(forecaster_build_info, job)", several=True))
    )
    for variable in variables:
        made.with_variable(variable)
    for panel in panels:
        if isinstance(panel, dashboard.Row):
            made.with_row(panel)
        else:
            made.with_panel(panel)
    return made


def choice(name: str, label: str, query: str, *, several: bool = False, regex: str = "", hidden: bool = False) -> Any:
    """A variable whose values Prometheus knows."""
    made = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query({"query": query, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NUMERICAL_ASC)
        .regex(regex)
    )
    if several:
        made.multi(True).include_all(True).all_value(".*")
    if hidden:
        made.hide(VariableHide.HIDE_VARIABLE)
    return made


def _target(expression: str, name: str, *, instant: bool = False) -> Any:
    target = prometheus.Dataquery().expr(expression).legend_format(name).datasource(PROMETHEUS)
    return target.instant() if instant else target.range()


def _steps(limits: Sequence[Limit]) -> Any:
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=colour) for value, colour in limits])
    )
