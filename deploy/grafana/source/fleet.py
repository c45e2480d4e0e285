"""The fleet: how many streams, how fast, how good, and what needs a look."""

from __future__ import annotations

from typing import Any

from panels import WORKERS, bars, lines, number, page, row, rows

GREEN_BELOW_ONE = [(None, "green"), (0.95, "yellow"), (1.0, "red")]


def dashboard() -> Any:
    return page(
        "Fleet",
        "fleet",
        "All streams and workers together.",
        number("Streams", "Remembered now.", f"sum(forecaster_known_streams{{{WORKERS}}})"),
        number(
            "Readings a second",
            "Records read from the source.",
            f"sum(rate(forecaster_records_total{{{WORKERS}}}[1m]))",
            unit="cps",
            decimals=1,
        ),
        number(
            "Waiting",
            "Readings that are not answered yet.",
            f"sum(forecaster_consumer_lag_records{{{WORKERS}}})",
            limits=[(None, "green"), (1_000, "yellow"), (100_000, "red")],
        ),
        number(
            "Error against naive",
            "Absolute error of the median over that of the last value, last hour, all leads. Below 1 forecasts earn "
            "their place.",
            f"max(job:forecaster_error_vs_naive:ratio_rate1h{{{WORKERS}}})",
            decimals=2,
            limits=GREEN_BELOW_ONE,
        ),
        number(
            "Coverage",
            "Share of targets inside the outermost interval, last hour, all leads.",
            f"min(job:forecaster_coverage:ratio_rate1h{{{WORKERS}}})",
            unit="percentunit",
            decimals=1,
        ),
        number(
            "Alerts",
            "Firing now.",
            f'count(ALERTS{{alertname=~"Forecaster.*", alertstate="firing", {WORKERS}}}) or vector(0)',
            limits=[(None, "green"), (1, "red")],
        ),
        row("What comes and goes"),
        lines(
            "Readings and answers",
            "Forecasts and dead letters together keep step with the records.",
            (f"job:forecaster_records:rate5m{{{WORKERS}}}", "records"),
            (f"job:forecaster_forecasts:rate5m{{{WORKERS}}}", "forecasts"),
            (f"sum(rate(forecaster_readings_rejected_total{{{WORKERS}}}[5m]))", "dead letters"),
            unit="cps",
            low=0,
        ),
        lines(
            "Waiting, by partition",
            "Growing for minutes: docs/runbook.md, Lag grows.",
            (f"sum by (partition) (forecaster_consumer_lag_records{{{WORKERS}}})", "partition {{partition}}"),
            low=0,
        ),
        lines(
            "Streams by status",
            "Many stale: readings have stopped. Many warming long after the start: no model was promoted.",
            (f"sum by (status) (forecaster_known_streams{{{WORKERS}}})", "{{status}}"),
            stack=True,
            low=0,
        ),
        lines(
            "Forecasts by status",
            "How far the answers can be trusted.",
            (f"sum by (status) (rate(forecaster_forecasts_total{{{WORKERS}}}[5m]))", "{{status}}"),
            unit="cps",
            stack=True,
            low=0,
        ),
        row("How good it is"),
        lines(
            "Error against naive, by lead",
            "Last hour. Each lead is judged at the same origins as the last value.",
            (f"job_lead:forecaster_error_vs_naive:ratio_rate1h{{{WORKERS}}}", "lead {{lead}}"),
            at=1.0,
        ),
        lines(
            "Coverage, by lead",
            "Last hour; five points off what is promised is an alert.",
            (f"job_lead:forecaster_coverage:ratio_rate1h{{{WORKERS}}}", "lead {{lead}}"),
            (f"max(forecaster_promised_coverage_ratio{{{WORKERS}}})", "promised"),
            unit="percentunit",
        ),
        lines(
            "Who forecasts, all streams",
            "Mean share of each expert in the forecasts of five minutes. naive growing: the models are losing touch.",
            (
                f"sum by (expert) (rate(forecaster_expert_share_total{{{WORKERS}}}[5m])) "
                f"/ on () group_left () (sum(rate(forecaster_expert_share_total{{{WORKERS}}}[5m])) > 0)",
                "{{expert}}",
            ),
            unit="percentunit",
            stack=True,
            low=0,
            high=1,
        ),
        lines(
            "Width of intervals, by lead",
            "Mean of the last hour, in stream scales; at equal coverage narrower is better.",
            (
                f"sum by (lead) (rate(forecaster_interval_width_scaled_total{{{WORKERS}}}[1h])) "
                f"/ (sum by (lead) (rate(forecaster_forecasts_settled_total{{{WORKERS}}}[1h])) > 0)",
                "lead {{lead}}",
            ),
            low=0,
        ),
        rows(
            "Watched streams, worst first",
            "Error against naive of the streams in telemetry.watch. All streams by error: the worker's own page, "
            "/streams?sort=error.",
            f"sort_desc(forecaster_watched_error_vs_naive_ratio{{{WORKERS}}})",
            columns={"stream": "Stream", "instance": "Worker", "Value": "Error against naive"},
        ),
        bars(
            "Dead letters by reason, last hour",
            "docs/runbook.md, Dead letters, says what to do about each.",
            (f"sum by (reason) (increase(forecaster_readings_rejected_total{{{WORKERS}}}[1h])) > 0", "{{reason}}"),
        ),
        lines(
            "Anomalies raised, by direction",
            "up and down: beyond the forecast; flat: a stuck sensor; gap: a silent one. A rise on many streams at once "
            "has one cause.",
            (
                f"sum by (direction) (rate(forecaster_anomalies_raised_total{{{WORKERS}}}[5m])) * 3600",
                "{{direction}}, an hour",
            ),
            (f"sum(rate(forecaster_anomalies_cleared_total{{{WORKERS}}}[5m])) * 3600", "over, an hour"),
            low=0,
        ),
        lines(
            "Streams in an anomaly",
            "A tenth of all for ten minutes is an alert.",
            (f"sum(forecaster_anomalous_streams{{{WORKERS}}})", "now"),
            low=0,
        ),
        row("Streams that come and go"),
        lines(
            "New, forgotten, rebuilt",
            "Endless growth of new ones is an id that carries a time of its own.",
            (f"sum(rate(forecaster_streams_new_total{{{WORKERS}}}[5m]))", "new"),
            (f"sum(rate(forecaster_streams_evicted_total{{{WORKERS}}}[5m]))", "forgotten"),
            (f"sum(rate(forecaster_streams_rebuilt_total{{{WORKERS}}}[5m]))", "rebuilt"),
            unit="cps",
            low=0,
        ),
        lines(
            "What is missing",
            "Readings without a value, steps that never came, duplicates that are only counted.",
            (f"sum(rate(forecaster_readings_missing_total{{{WORKERS}}}[5m]))", "no value"),
            (f"sum(rate(forecaster_gap_steps_total{{{WORKERS}}}[5m]))", "gaps, steps"),
            (f"sum(rate(forecaster_readings_dropped_total{{{WORKERS}}}[5m]))", "duplicates dropped"),
            unit="cps",
            low=0,
        ),
    )
