"""Models: which one answers, how trainings go, whether the newest is any better, and calibration lead by lead."""

from __future__ import annotations

from typing import Any

from panels import WORKERS, bars, lines, number, page, row, rows


def dashboard() -> Any:
    return page(
        "Model",
        "model",
        "Versions, trainings, promotions, calibration.",
        number(
            "Age of the model",
            "Since the model that answers was trained. More than 14 days is an alert.",
            f"time() - max(forecaster_model_trained_timestamp_seconds{{{WORKERS}}})",
            unit="s",
            limits=[(None, "green"), (7 * 86_400, "yellow"), (14 * 86_400, "red")],
        ),
        number(
            "Since the last promotion",
            "A champion stays until something beats it.",
            f"time() - max(forecaster_promotion_timestamp_seconds{{{WORKERS}}})",
            unit="s",
        ),
        number(
            "Gain on the champion",
            "Share of the champion's loss that the last trained model saved; negative: it was refused.",
            f'max(forecaster_training_last_gain_ratio{{{WORKERS}, against="champion"}})',
            unit="percentunit",
            decimals=1,
        ),
        number(
            "Gain on naive",
            "The same against the last value and the value a season ago.",
            f'max(forecaster_training_last_gain_ratio{{{WORKERS}, against="naive"}})',
            unit="percentunit",
            decimals=1,
            limits=[(None, "red"), (0.0, "green")],
        ),
        number(
            "Switches",
            "Changes of the model that answers, last day, all workers.",
            f"sum(increase(forecaster_model_switches_total{{{WORKERS}}}[1d]))",
            decimals=0,
        ),
        number(
            "Failed trainings",
            "Last day.",
            f'sum(increase(forecaster_training_runs_total{{{WORKERS}, result="failed"}}[1d]))',
            decimals=0,
            limits=[(None, "green"), (1, "red")],
        ),
        row("Versions and trainings"),
        rows(
            "Who answers with what",
            "Workers of one group differ for seconds only.",
            f"forecaster_model_info{{{WORKERS}}} == 1",
            columns={"instance": "Worker", "version": "Model"},
        ),
        bars(
            "Trainings by result, last day",
            "ok_rejected: trained, but no better than who serves.",
            (f"sum by (result) (increase(forecaster_training_runs_total{{{WORKERS}}}[1d]))", "{{result}}"),
        ),
        lines(
            "Loss of the last trained model",
            "Pinball loss, in stream scales, on the stretch it was judged on.",
            (f"max by (instance) (forecaster_training_last_loss_scaled{{{WORKERS}}})", "{{instance}}"),
        ),
        lines(
            "What the last trained model saved",
            "Share of a rival's loss. Promotion wants it above 0 against both.",
            (f"max by (against) (forecaster_training_last_gain_ratio{{{WORKERS}}})", "against {{against}}"),
            unit="percentunit",
        ),
        bars(
            "Trials on live readings, last day",
            "How they ended. rolled_back: the model was worse than the one before it, which serves again.",
            (f"sum by (result) (increase(forecaster_trials_total{{{WORKERS}}}[1d]))", "{{result}}"),
        ),
        number(
            "A trial has been under way",
            "Two models are scored side by side; no training begins meanwhile.",
            f"time() - max(forecaster_trial_began_timestamp_seconds{{{WORKERS}}})",
            unit="s",
            width=12,
        ),
        lines(
            "How long a training takes",
            "Mean of those that ended in the hour before.",
            (
                f"sum(rate(forecaster_training_seconds_sum{{{WORKERS}}}[1h])) "
                f"/ (sum(rate(forecaster_training_seconds_count{{{WORKERS}}}[1h])) > 0)",
                "mean",
            ),
            unit="s",
            low=0,
        ),
        lines(
            "Switches, and the streams they rebuild",
            "A stream is rebuilt at its first reading after a switch, or after a long gap.",
            (f"sum(increase(forecaster_model_switches_total{{{WORKERS}}}[5m]))", "switches"),
            (f"sum(increase(forecaster_streams_rebuilt_total{{{WORKERS}}}[5m]))", "streams rebuilt"),
            low=0,
        ),
        row("Calibration and drift, lead by lead"),
        lines(
            "Coverage against what is promised, recent",
            "Points above or below. It should stay within five.",
            (
                f"avg by (lead) (forecaster_recent_coverage_ratio{{{WORKERS}}}) "
                f"- on () group_left max(forecaster_promised_coverage_ratio{{{WORKERS}}})",
                "lead {{lead}}",
            ),
            unit="percentunit",
        ),
        lines(
            "Width of intervals, recent",
            "In stream scales; narrower at equal coverage is better. A jump is a change in the data, or in the model.",
            (f"avg by (lead) (forecaster_recent_interval_width_scaled{{{WORKERS}}})", "lead {{lead}}"),
            low=0,
        ),
        lines(
            "Error against naive, recent",
            "Over about the last 10,000 settled forecasts of a lead.",
            (f"avg by (lead) (forecaster_recent_error_vs_naive_ratio{{{WORKERS}}})", "lead {{lead}}"),
            at=1.0,
        ),
        lines(
            "Drift of the loss",
            "ADWIN's mean of loss / (1 + loss); Page-Hinkley's climb as a share of its threshold; alarms in an hour.",
            (f"avg by (group) (forecaster_drift_window_mean_ratio{{{WORKERS}}})", "mean of the window, {{group}}"),
            (f"max by (group) (forecaster_drift_page_hinkley_ratio{{{WORKERS}}}) / 8", "climb, {{group}}"),
            (
                f"sum by (group, detector) (increase(forecaster_drift_alarms_total{{{WORKERS}}}[1h]))",
                "alarms, {{detector}}, {{group}}",
            ),
            low=0,
            at=1.0,
        ),
        lines(
            "Mean absolute error, five minutes",
            "In stream scales. It drifts upwards where the data leave what the model has learnt.",
            (
                f"sum by (lead) (rate(forecaster_abs_error_scaled_total{{{WORKERS}}}[5m])) "
                f"/ (sum by (lead) (rate(forecaster_forecasts_settled_total{{{WORKERS}}}[5m])) > 0)",
                "lead {{lead}}",
            ),
            low=0,
        ),
        lines(
            "Coverage, five minutes",
            "Quicker than the rules' hour, and noisier.",
            (
                f"sum by (lead) (rate(forecaster_targets_covered_total{{{WORKERS}}}[5m])) "
                f"/ (sum by (lead) (rate(forecaster_forecasts_settled_total{{{WORKERS}}}[5m])) > 0)",
                "lead {{lead}}",
            ),
            unit="percentunit",
        ),
        lines(
            "Mean width, five minutes",
            "In stream scales.",
            (
                f"sum by (lead) (rate(forecaster_interval_width_scaled_total{{{WORKERS}}}[5m])) "
                f"/ (sum by (lead) (rate(forecaster_forecasts_settled_total{{{WORKERS}}}[5m])) > 0)",
                "lead {{lead}}",
            ),
            low=0,
        ),
    )
