"""One watched stream: its readings, what was forecast for them, and who forecast it."""

from __future__ import annotations

from typing import Any

from panels import WORKERS, band, choice, lines, matrix, number, page

STREAM = f'{WORKERS}, stream="$stream"'
FORECAST = f'forecaster_watched_forecast_value{{{STREAM}, lead="$lead", quantile="%s"}}'
READING = f"max by (stream) (forecaster_watched_reading_value{{{STREAM}}})"
# How long ago, on the wall clock, the forecast for the present reading was made: lead times step of event time, at the
# pace at which event time passes here (1 for live readings, more in a replay).
AHEAD = (
    'query_result(ceil($lead * max(forecaster_watched_step_seconds{stream="$stream"}) '
    '/ max(deriv(forecaster_watched_timestamp_seconds{stream="$stream"}[5m]))))'
)


def made_for_now(quantile: str) -> str:
    """The forecast whose target is the present reading."""
    return f"max by (stream) ({FORECAST % quantile} offset ${{ahead}}s)"


def dashboard() -> Any:
    fan = lines(
        "Readings, and what was forecast for them",
        "The band was published at the chosen lead before the reading it lies over. Readings should fall inside as "
        "often as forecast.quantiles promise. For leads that are some scrapes long: of a quick replay this is no more "
        "than a sample.",
        (READING, "reading"),
        (made_for_now("0.1"), "lower"),
        (made_for_now("0.5"), "median"),
        (made_for_now("0.9"), "upper"),
        width=24,
    )
    return page(
        "Stream",
        "stream",
        "One of the streams in telemetry.watch. Quantile levels are those of the default forecast.quantiles.",
        number("Reading", "Newest value.", READING, width=4),
        number("Forecast", "Newest median at the chosen lead.", f"max({FORECAST % '0.5'})", width=4),
        number(
            "Interval",
            "Width of the newest one at that lead.",
            f"max({FORECAST % '0.9'}) - max({FORECAST % '0.1'})",
            width=4,
        ),
        number(
            "Error against naive",
            "Over about the last hundred readings, all leads.",
            f"max(forecaster_watched_error_vs_naive_ratio{{{STREAM}}})",
            decimals=2,
            limits=[(None, "green"), (0.95, "yellow"), (1.0, "red")],
        ),
        number(
            "Coverage",
            "Share of targets inside the outermost interval, as recent.",
            f"max(forecaster_watched_coverage_ratio{{{STREAM}}})",
            unit="percentunit",
            decimals=0,
        ),
        number(
            "Step",
            "Interval between readings, as learnt.",
            f"max(forecaster_watched_step_seconds{{{STREAM}}})",
            unit="s",
        ),
        band(fan, low="lower", high="upper"),
        matrix(
            "The forecast now",
            "Quantiles at the anchor leads; every lead is in the forecasts topic and at /streams/<id>.",
            f"max by (lead, quantile) (forecaster_watched_forecast_value{{{STREAM}}})",
            row="lead",
            column="quantile",
        ),
        lines(
            "Medians by lead, as they were made",
            "Drawn at the time of making, not at that of the target.",
            (f'max by (lead) (forecaster_watched_forecast_value{{{STREAM}, quantile="0.5"}})', "lead {{lead}}"),
        ),
        lines(
            "Who forecasts",
            "Share of each expert in the published mix.",
            (f"max by (expert) (forecaster_watched_expert_weight_ratio{{{STREAM}}})", "{{expert}}"),
            unit="percentunit",
            stack=True,
            low=0,
            high=1,
        ),
        lines(
            "Interval hits",
            "Share of the last half hour in which the reading was inside the interval that was published for it. For "
            "leads that are some scrapes long.",
            (
                f"avg_over_time((({READING} >= bool {made_for_now('0.1')}) "
                f"* ({READING} <= bool {made_for_now('0.9')}))[30m:15s])",
                "inside",
            ),
            (f"max(forecaster_promised_coverage_ratio{{{WORKERS}}})", "promised"),
            unit="percentunit",
            low=0,
            high=1,
        ),
        lines(
            "Error against naive, and coverage",
            "Over about the last hundred readings, all leads.",
            (f"max(forecaster_watched_error_vs_naive_ratio{{{STREAM}}})", "error against naive"),
            (f"max(forecaster_watched_coverage_ratio{{{STREAM}}})", "coverage"),
            low=0,
        ),
        lines(
            "In an anomaly",
            "1 while the stream is in one. Its cause and severity are in the topic of anomalies and at /streams/<id>.",
            (f"max(forecaster_watched_anomaly{{{STREAM}}})", "in an anomaly"),
            low=0,
            high=1,
        ),
        lines(
            "How late readings come",
            "Wall clock less event time of the newest reading. In a replay it is the age of the data.",
            (f"time() - max(forecaster_watched_timestamp_seconds{{{STREAM}}})", "behind"),
            unit="s",
        ),
        variables=[
            choice("stream", "Stream", f"label_values(forecaster_watched_reading_value{{{WORKERS}}}, stream)"),
            choice("lead", "Lead", 'label_values(forecaster_watched_forecast_value{stream="$stream"}, lead)'),
            choice("ahead", "Seconds ahead", AHEAD, regex=r"/.*\} (\d+).*/", hidden=True),
        ],
    )
