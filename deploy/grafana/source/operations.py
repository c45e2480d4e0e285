"""Operations: where the time goes, what the group does, what is thrown away, how much memory there is left."""

from __future__ import annotations

from typing import Any

from panels import WORKERS, bars, lines, number, page, row, rows


def quantile(level: float, histogram: str, *labels: str) -> str:
    """Of a histogram over five minutes."""
    by = ", ".join(("le", *labels))
    return f"histogram_quantile({level}, sum by ({by}) (rate({histogram}_bucket{{{WORKERS}}}[5m])))"


def dashboard() -> Any:
    return page(
        "Operations",
        "operations",
        "Latency, commits, group, restores, memory, errors.",
        number(
            "Workers",
            "That answer scrapes.",
            f"sum(up{{{WORKERS}}})",
            limits=[(None, "red"), (1, "green")],
        ),
        number("Partitions answered", "By all workers.", f"sum(forecaster_owned_partitions{{{WORKERS}}})"),
        number(
            "Partitions not live",
            "Assigned, and still being restored.",
            f"sum(forecaster_restoring_partitions{{{WORKERS}}})",
            limits=[(None, "green"), (1, "yellow")],
        ),
        number(
            "Commits a second",
            "Of answers and offsets together.",
            f"sum(rate(forecaster_commits_total{{{WORKERS}}}[1m]))",
            unit="cps",
            decimals=1,
        ),
        number(
            "Transactions thrown away",
            "Last hour. Readers saw none of them.",
            f"sum(increase(forecaster_transactions_aborted_total{{{WORKERS}}}[1h]))",
            decimals=0,
            limits=[(None, "green"), (5, "yellow"), (50, "red")],
        ),
        number(
            "Memory used",
            "Greatest share of its limit that a worker has.",
            f"max(process_resident_memory_bytes{{{WORKERS}}} / forecaster_memory_limit_bytes{{{WORKERS}}})",
            unit="percentunit",
            decimals=0,
            limits=[(None, "green"), (0.75, "yellow"), (0.9, "red")],
        ),
        row("Where the time goes"),
        lines(
            "Share of the loop, by stage",
            "Mostly poll is idle.",
            (f"job_stage:forecaster_stage_seconds:share_rate5m{{{WORKERS}}}", "{{stage}}"),
            unit="percentunit",
            stack=True,
            low=0,
            high=1,
        ),
        lines(
            "A turn of the loop, 99 of 100 take less",
            "By stage.",
            (quantile(0.99, "forecaster_stage_seconds", "stage"), "{{stage}}"),
            unit="s",
            low=0,
        ),
        lines(
            "A wave",
            "Time to step the streams of one wave.",
            (quantile(0.5, "forecaster_wave_seconds"), "half take less"),
            (quantile(0.99, "forecaster_wave_seconds"), "99 of 100 take less"),
            unit="s",
            low=0,
        ),
        lines(
            "Streams in a wave",
            "Near engine.max_wave the worker is busy; near 1 it has time, or one stream sends everything.",
            (quantile(0.5, "forecaster_wave_streams"), "half have fewer"),
            (
                f"sum(rate(forecaster_wave_streams_sum{{{WORKERS}}}[5m])) "
                f"/ sum(rate(forecaster_wave_streams_count{{{WORKERS}}}[5m]))",
                "mean",
            ),
            low=0,
        ),
        row("The group"),
        lines(
            "Partitions, by worker",
            "How evenly they are spread.",
            (f"sum by (instance) (forecaster_owned_partitions{{{WORKERS}}})", "{{instance}}"),
            stack=True,
            low=0,
        ),
        lines(
            "Partitions that moved",
            "In five minutes. lost: a worker was silent for a session time-out.",
            (f"sum by (kind) (increase(forecaster_partition_moves_total{{{WORKERS}}}[5m]))", "{{kind}}"),
            low=0,
        ),
        lines(
            "Partitions not live",
            "Above 0 for five minutes is an alert.",
            (f"sum by (instance) (forecaster_restoring_partitions{{{WORKERS}}})", "{{instance}}"),
            low=0,
        ),
        bars(
            "Restores, last day",
            "From a copy in memory, from the state topic, or without state.",
            (f"sum by (kind) (increase(forecaster_restores_total{{{WORKERS}}}[1d]))", "{{kind}}"),
        ),
        lines(
            "How long a restore takes",
            "Mean of those of the hour before.",
            (
                f"sum by (kind) (rate(forecaster_restore_seconds_sum{{{WORKERS}}}[1h])) "
                f"/ (sum by (kind) (rate(forecaster_restore_seconds_count{{{WORKERS}}}[1h])) > 0)",
                "{{kind}}",
            ),
            unit="s",
            low=0,
        ),
        lines(
            "What restores take in",
            "In five minutes: state records and bytes read, readings taken in a second time.",
            (f"sum(increase(forecaster_restored_state_records_total{{{WORKERS}}}[5m]))", "state records"),
            (f"sum(increase(forecaster_restored_state_bytes_total{{{WORKERS}}}[5m])) / 1000", "state, kB"),
            (f"sum(increase(forecaster_replayed_readings_total{{{WORKERS}}}[5m]))", "readings replayed"),
            low=0,
        ),
        lines(
            "Copies held for others' partitions",
            "With recovery.standby = 1.",
            (f"sum by (instance) (forecaster_standby_partitions{{{WORKERS}}})", "{{instance}}, partitions"),
            (f"sum by (instance) (forecaster_standby_bytes{{{WORKERS}}}) / 1e6", "{{instance}}, MB"),
            low=0,
        ),
        lines(
            "Copies doubted",
            "In an hour, by reason. Nothing is lost by any of them.",
            (f"sum by (reason) (increase(forecaster_standby_doubts_total{{{WORKERS}}}[1h]))", "{{reason}}"),
            low=0,
        ),
        row("What went wrong"),
        lines(
            "Turns that ended unconfirmed",
            "In five minutes, by kind. rebalancing belongs to every change of the group.",
            (f"sum by (kind) (increase(forecaster_broker_failures_total{{{WORKERS}}}[5m]))", "{{kind}}"),
            low=0,
        ),
        lines(
            "Transactions thrown away",
            "In five minutes, by worker.",
            (f"sum by (instance) (increase(forecaster_transactions_aborted_total{{{WORKERS}}}[5m]))", "{{instance}}"),
            low=0,
        ),
        lines(
            "Dead letters by reason",
            "docs/runbook.md, Dead letters, says what to do about each.",
            (f"sum by (reason) (rate(forecaster_readings_rejected_total{{{WORKERS}}}[5m])) > 0", "{{reason}}"),
            unit="cps",
            stack=True,
            low=0,
        ),
        lines(
            "Share of readings refused",
            "Five of a hundred for ten minutes is an alert.",
            (f"job:forecaster_dead_letters:ratio_rate5m{{{WORKERS}}}", "refused"),
            unit="percentunit",
            low=0,
            at=0.05,
        ),
        row("The processes"),
        lines(
            "Memory, and what it may be",
            "Beyond the limit the system ends the process.",
            (f"sum by (instance) (process_resident_memory_bytes{{{WORKERS}}})", "{{instance}}"),
            (f"min(forecaster_memory_limit_bytes{{{WORKERS}}})", "limit"),
            unit="bytes",
            low=0,
        ),
        lines(
            "Memory of the streams' state",
            "Grows with the streams, in doubling steps.",
            (f"sum by (instance) (forecaster_state_bytes{{{WORKERS}}})", "{{instance}}"),
            unit="bytes",
            low=0,
        ),
        lines(
            "Cores in use",
            "One loop uses one core at the most; a training adds one.",
            (f"sum by (instance) (rate(process_cpu_seconds_total{{{WORKERS}}}[1m]))", "{{instance}}"),
            low=0,
        ),
        lines(
            "Open files, and starts",
            "Files without end: a leak. Starts within the hour: something ends it.",
            (f"sum by (instance) (process_open_fds{{{WORKERS}}})", "{{instance}}, files"),
            (f"sum by (instance) (changes(process_start_time_seconds{{{WORKERS}}}[1h]))", "{{instance}}, starts"),
            low=0,
        ),
        lines(
            "Answers handed over",
            "Forecasts and dead letters, before they are confirmed.",
            (f"sum by (kind) (rate(forecaster_answers_total{{{WORKERS}}}[5m]))", "{{kind}}"),
            unit="cps",
            low=0,
        ),
        rows(
            "Versions",
            "Workers of one group should not differ.",
            f"forecaster_build_info{{{WORKERS}}}",
            columns={"instance": "Worker", "version": "Program", "python": "Python", "torch": "Torch"},
        ),
    )
