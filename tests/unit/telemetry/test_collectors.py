"""Reports become the metrics that the table names, and nothing else."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from forecaster.engine.report import (
    Doubt,
    LeadScores,
    LoopReport,
    RecoveryReport,
    Restored,
    Restoring,
    StandbyReport,
    StepReport,
    StreamSample,
)
from forecaster.records import Reason, Status
from forecaster.telemetry.collectors import METRICS, STAGES, TRAINING_RESULTS, Collectors
from forecaster.training.drift import DriftStatistics

UNITS = {
    "gauge": ("bytes", "seconds", "ratio", "records", "streams", "partitions", "scaled", "value", "spans", "anomaly"),
    "histogram": ("seconds", "streams"),
    "counter": ("total",),
    "info": ("info",),
}


@pytest.fixture
def collectors() -> Collectors:
    return Collectors(build={"version": "1.2.3", "python": "3.11", "torch": "2.6"}, recent_settled=10)


def make_report(step: StepReport | None = None, **overrides: object) -> LoopReport:
    return LoopReport(step=step or StepReport(scores=LeadScores.zero((1,))), **overrides)  # type: ignore[arg-type]


def make_scores(
    leads: tuple[int, ...] = (1,),
    settled: float = 1.0,
    abs_error: float = 0.0,
    naive_abs_error: float = 0.0,
    covered: float = 0.0,
    width: float = 0.0,
) -> LeadScores:
    columns = (settled, abs_error, naive_abs_error, covered, width)
    return LeadScores(leads, *(np.full(len(leads), column) for column in columns))


def make_sample(stream_id: str, **overrides: object) -> StreamSample:
    values: dict[str, object] = {
        "time": 1_000.0,
        "value": 7.5,
        "step_seconds": 5.0,
        "forecast": {(1, 0.1): 6.0, (1, 0.5): 7.0, (1, 0.9): 8.0},
        "weights": {"naive": 0.25, "recurrent": 0.75},
        "error_vs_naive": 0.8,
        "coverage": 0.79,
        "is_anomalous": True,
    }
    return StreamSample(stream_id=stream_id, **{**values, **overrides})  # type: ignore[arg-type]


def value(collectors: Collectors, name: str, **labels: str) -> float | None:
    """As a scraper sees it: out of the text, not out of the objects."""
    text = collectors.exposition("")[0].decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


@pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.name)
def test_name_ends_in_its_unit_and_help_is_a_sentence(spec):
    assert re.fullmatch(r"forecaster(_[a-z]+){2,}|forecaster_records_total", spec.name)
    assert spec.name.endswith(UNITS[spec.kind])
    assert (spec.name.endswith("_total")) == (spec.kind == "counter")
    assert re.fullmatch(r"[A-Z][^\n]{10,}\.", spec.help)


def test_no_label_can_name_a_stream_but_of_the_few_that_are_watched():
    labels = {label for spec in METRICS for label in spec.label if not spec.name.startswith("forecaster_watched_")}

    assert labels == {
        "reason", "status", "kind", "stage", "topic", "partition", "lead", "version", "result", "against", "python",
        "torch", "direction", "expert", "detector", "label", "client", "batched", "group",
    }  # fmt: skip


def test_drift_is_shown_as_its_detectors_stand_and_alarms_add_up(collectors):
    collectors.set_drift(None)
    for name in ("alarm_timestamp_seconds", "window_mean_ratio", "window_spans", "page_hinkley_ratio"):
        assert math.isnan(value(collectors, f"forecaster_drift_{name}", group="default"))
    unwatched = value(collectors, "forecaster_drift_alarms_total", group="default", detector="adwin")
    assert unwatched is None, "nothing watches"

    collectors.set_drift(DriftStatistics({"adwin": 0}, math.nan, 0.25, 40.0))
    assert value(collectors, "forecaster_drift_alarms_total", group="default", detector="adwin") == 0
    assert math.isnan(value(collectors, "forecaster_drift_alarm_timestamp_seconds", group="default"))
    assert math.isnan(value(collectors, "forecaster_drift_page_hinkley_ratio", group="default"))

    for _ in range(2):  # told again, it counts once
        collectors.set_drift(DriftStatistics({"adwin": 2, "page_hinkley": 1}, 1_000.0, 0.5, 8.0, 1.5))
    assert value(collectors, "forecaster_drift_alarms_total", group="default", detector="adwin") == 2
    assert value(collectors, "forecaster_drift_alarms_total", group="default", detector="page_hinkley") == 1
    assert value(collectors, "forecaster_drift_alarm_timestamp_seconds", group="default") == 1_000.0
    assert value(collectors, "forecaster_drift_window_mean_ratio", group="default") == 0.5
    assert value(collectors, "forecaster_drift_window_spans", group="default") == 8.0
    assert value(collectors, "forecaster_drift_page_hinkley_ratio", group="default") == 1.5


def test_labels_that_took_effect_are_counted_by_what_they_said(collectors):
    assert value(collectors, "forecaster_labels_total", label="true") == 0

    collectors.observe(make_report(StepReport(LeadScores.zero((1,)), labels=Counter({"false": 2}))))

    assert value(collectors, "forecaster_labels_total", label="false") == 2
    assert value(collectors, "forecaster_labels_total", label="true") == 0


def test_closed_labels_are_there_at_zero_before_anything_happens(collectors):
    for reason in Reason:
        assert value(collectors, "forecaster_readings_rejected_total", reason=reason) == 0
    for status in Status:
        assert value(collectors, "forecaster_forecasts_total", status=status) == 0
        assert value(collectors, "forecaster_known_streams", status=status) == 0
    for stage in STAGES:
        assert value(collectors, "forecaster_stage_seconds_count", stage=stage) == 0
    for result in TRAINING_RESULTS:
        assert value(collectors, "forecaster_training_runs_total", group="default", result=result) == 0


def test_what_is_not_known_yet_is_not_shown_as_zero(collectors):
    assert math.isnan(value(collectors, "forecaster_model_trained_timestamp_seconds", group="default"))
    assert math.isnan(value(collectors, "forecaster_training_last_gain_ratio", against="naive"))
    assert value(collectors, "forecaster_recent_coverage_ratio", lead="1") is None
    assert value(collectors, "forecaster_model_info", group="default", version="none") == 1


def test_two_reports_add_up(collectors):
    step = StepReport(
        scores=LeadScores.zero((1,)),
        accepted=5,
        missing=2,
        gap_steps=7,
        rebuilt=1,
        new_streams=3,
        evicted=4,
        dropped=6,
        rejected=Counter({Reason.LATE: 2, Reason.NOT_JSON: 1}),
        statuses=Counter({Status.OK: 4, Status.GAP: 1}),
        shares={"naive": 1.25, "recurrent": 3.75},
    )
    report = make_report(step, records=14, forecasts=5, dead_letters=3, committed=True)

    collectors.observe(report)
    collectors.observe(report)

    shown = {
        name: value(collectors, f"forecaster_{name}_total")
        for name in (
            "records", "readings_accepted", "readings_missing", "gap_steps", "streams_rebuilt", "streams_new",
            "streams_evicted", "readings_dropped", "commits",
        )
    }  # fmt: skip
    assert shown == {
        "records": 28, "readings_accepted": 10, "readings_missing": 4, "gap_steps": 14, "streams_rebuilt": 2,
        "streams_new": 6, "streams_evicted": 8, "readings_dropped": 12, "commits": 2,
    }  # fmt: skip
    assert value(collectors, "forecaster_readings_rejected_total", reason="late") == 4
    assert value(collectors, "forecaster_readings_rejected_total", reason="duplicate") == 0
    assert value(collectors, "forecaster_forecasts_total", status="gap") == 2
    assert value(collectors, "forecaster_expert_share_total", expert="recurrent") == 7.5
    assert value(collectors, "forecaster_answers_total", kind="forecast") == 10
    assert value(collectors, "forecaster_answers_total", kind="dead_letter") == 6


def test_a_turn_without_commit_counts_none(collectors):
    collectors.observe(make_report(committed=False))

    assert value(collectors, "forecaster_commits_total") == 0


def test_waves_and_stages_fall_into_their_buckets(collectors):
    collectors.observe(make_report(waves=[(3, 0.002), (500, 0.2)], seconds={"poll": 0.03, "step": 0.2}))

    assert value(collectors, "forecaster_wave_streams_bucket", le="4.0") == 1
    assert value(collectors, "forecaster_wave_streams_bucket", le="512.0") == 2
    assert value(collectors, "forecaster_wave_seconds_sum") == pytest.approx(0.202)
    assert value(collectors, "forecaster_stage_seconds_bucket", stage="poll", le="0.025") == 0
    assert value(collectors, "forecaster_stage_seconds_bucket", stage="poll", le="0.05") == 1
    assert value(collectors, "forecaster_stage_seconds_count", stage="commit") == 0


def test_scores_are_kept_by_lead_as_sums(collectors):
    scores = LeadScores(
        (1, 12),
        settled=np.array([4.0, 2.0]),
        abs_error=np.array([1.0, 3.0]),
        naive_abs_error=np.array([2.0, 4.0]),
        covered=np.array([3.0, 2.0]),
        width=np.array([8.0, 9.0]),
    )

    collectors.observe(make_report(StepReport(scores=scores)))
    collectors.observe(make_report(StepReport(scores=scores)))

    assert value(collectors, "forecaster_forecasts_settled_total", lead="1") == 8
    assert value(collectors, "forecaster_abs_error_scaled_total", lead="12") == 6
    assert value(collectors, "forecaster_naive_abs_error_scaled_total", lead="12") == 8
    assert value(collectors, "forecaster_targets_covered_total", lead="1") == 6
    assert value(collectors, "forecaster_interval_width_scaled_total", lead="12") == 18
    assert value(collectors, "forecaster_recent_error_vs_naive_ratio", lead="12") == pytest.approx(0.75)
    assert value(collectors, "forecaster_recent_coverage_ratio", lead="1") == pytest.approx(0.75)
    assert value(collectors, "forecaster_recent_interval_width_scaled", lead="1") == pytest.approx(2.0)


def test_recent_ratio_forgets_by_the_number_of_settled_forecasts(collectors):
    """With N = 10, ten newer forecasts leave the older ones a weight of 1/e."""
    collectors.observe(make_report(StepReport(scores=make_scores(settled=10, abs_error=10, naive_abs_error=10))))
    collectors.observe(make_report(StepReport(scores=make_scores(settled=10, abs_error=0, naive_abs_error=10))))

    keep = math.exp(-1)
    expected = 10 * keep / (10 * keep + 10)
    assert value(collectors, "forecaster_recent_error_vs_naive_ratio", lead="1") == pytest.approx(expected)


def test_lead_of_which_nothing_has_settled_has_a_sum_of_zero_and_no_ratio(collectors):
    collectors.observe(make_report(StepReport(scores=LeadScores.zero((12,)))))

    assert value(collectors, "forecaster_forecasts_settled_total", lead="12") == 0
    assert value(collectors, "forecaster_recent_coverage_ratio", lead="12") is None


def test_turns_in_which_nothing_settled_forget_nothing(collectors):
    collectors.observe(make_report(StepReport(scores=make_scores(settled=10, covered=8))))

    for _ in range(100):
        collectors.observe(make_report(StepReport(scores=make_scores(settled=0))))

    assert value(collectors, "forecaster_recent_coverage_ratio", lead="1") == pytest.approx(0.8)


def test_ratio_to_a_naive_that_never_erred_is_undefined(collectors):
    collectors.observe(make_report(StepReport(scores=make_scores(abs_error=0.1, naive_abs_error=0.0))))

    assert math.isnan(value(collectors, "forecaster_recent_error_vs_naive_ratio", lead="1"))


def test_lag_of_partitions_given_away_disappears(collectors):
    collectors.set_lag("readings", {0: 10, 1: 20})
    collectors.set_lag("other", {1: 5})

    collectors.set_lag("readings", {1: 7})

    assert value(collectors, "forecaster_consumer_lag_records", topic="readings", partition="0") is None
    assert value(collectors, "forecaster_consumer_lag_records", topic="readings", partition="1") == 7
    assert value(collectors, "forecaster_consumer_lag_records", topic="other", partition="1") == 5


def test_a_watched_stream_is_shown_with_its_forecast_and_its_experts(collectors):
    collectors.set_watched([make_sample("ward-3/bed-12")])

    stream = {"stream": "ward-3/bed-12"}
    assert value(collectors, "forecaster_watched_reading_value", **stream) == 7.5
    assert value(collectors, "forecaster_watched_timestamp_seconds", **stream) == 1_000
    assert value(collectors, "forecaster_watched_step_seconds", **stream) == 5
    assert value(collectors, "forecaster_watched_forecast_value", lead="1", quantile="0.9", **stream) == 8
    assert value(collectors, "forecaster_watched_expert_weight_ratio", expert="naive", **stream) == 0.25
    assert value(collectors, "forecaster_watched_error_vs_naive_ratio", **stream) == 0.8
    assert value(collectors, "forecaster_watched_coverage_ratio", **stream) == 0.79
    assert value(collectors, "forecaster_watched_anomaly", **stream) == 1


def test_a_stream_that_is_watched_no_longer_disappears_with_all_its_series(collectors):
    collectors.set_watched([make_sample("a"), make_sample("b")])

    collectors.set_watched([make_sample("b", forecast={}, weights={})])

    text = collectors.exposition("")[0].decode()
    assert 'stream="a"' not in text
    assert [line for line in text.splitlines() if 'stream="b"' in line and ("lead" in line or "expert" in line)] == []
    assert value(collectors, "forecaster_watched_reading_value", stream="b") == 7.5


def test_what_is_not_known_of_a_watched_stream_is_not_a_number(collectors):
    collectors.set_watched([make_sample("a", error_vs_naive=None, coverage=None)])

    for name in ("error_vs_naive_ratio", "coverage_ratio"):
        assert math.isnan(value(collectors, f"forecaster_watched_{name}", stream="a") or 0.0)


def test_failures_moves_and_aborted_transactions_are_counted(collectors):
    collectors.observe(
        make_report(failures=Counter(fenced=1, timeout=2), moves=Counter(assigned=4, lost=1), starts_over=1)
    )

    assert value(collectors, "forecaster_broker_failures_total", kind="fenced") == 1
    assert value(collectors, "forecaster_broker_failures_total", kind="timeout") == 2
    assert value(collectors, "forecaster_broker_failures_total", kind="other") == 0
    assert value(collectors, "forecaster_partition_moves_total", kind="assigned") == 4
    assert value(collectors, "forecaster_partition_moves_total", kind="lost") == 1
    assert value(collectors, "forecaster_transactions_aborted_total") == 1


def test_what_was_promised_and_what_may_be_taken_are_there_from_the_start():
    collectors = Collectors(build={}, promised_coverage=0.8, memory_limit_bytes=1_000)
    collectors.set_owned(3)

    assert value(collectors, "forecaster_promised_coverage_ratio") == 0.8
    assert value(collectors, "forecaster_memory_limit_bytes") == 1_000
    assert value(collectors, "forecaster_owned_partitions") == 3


def test_status_that_no_stream_has_any_more_returns_to_zero(collectors):
    collectors.set_streams({"warming": 3, "ok": 1})
    collectors.set_streams({"ok": 4})

    assert value(collectors, "forecaster_known_streams", status="warming") == 0
    assert value(collectors, "forecaster_known_streams", status="ok") == 4


def test_state_bytes_are_shown(collectors):
    collectors.set_state_bytes(4096)

    assert value(collectors, "forecaster_state_bytes") == 4096


def test_model_shows_only_the_version_that_answers_and_counts_switches(collectors):
    collectors.set_model("none", trained_at=None)
    collectors.set_model("gru-1", trained_at=1000.0)
    collectors.set_model("gru-1", trained_at=1000.0)
    collectors.set_model("gru-2", trained_at=2000.0)

    assert value(collectors, "forecaster_model_info", group="default", version="gru-1") is None
    assert value(collectors, "forecaster_model_info", group="default", version="gru-2") == 1
    assert value(collectors, "forecaster_model_trained_timestamp_seconds", group="default") == 2000
    assert value(collectors, "forecaster_model_switches_total") == 2


def test_model_found_at_the_start_is_no_switch(collectors):
    collectors.set_model("gru-1", trained_at=1000.0)

    assert value(collectors, "forecaster_model_switches_total") == 0


def test_training_that_failed_leaves_the_last_judgement_standing(collectors):
    collectors.observe_training(
        "ok_promoted", 30.0, ended_at=500.0, loss=0.2, gain_vs_champion=0.041, gain_vs_naive=0.123
    )
    collectors.observe_training("failed", 3.0, ended_at=600.0)

    assert value(collectors, "forecaster_training_runs_total", group="default", result="ok_promoted") == 1
    assert value(collectors, "forecaster_training_runs_total", group="default", result="failed") == 1
    assert value(collectors, "forecaster_training_seconds_sum") == 33
    assert value(collectors, "forecaster_training_last_loss_scaled") == 0.2
    assert value(collectors, "forecaster_training_last_gain_ratio", against="champion") == 0.041
    assert value(collectors, "forecaster_training_last_gain_ratio", against="naive") == 0.123
    assert value(collectors, "forecaster_promotion_timestamp_seconds") == 500


def test_first_training_has_no_champion_to_gain_on(collectors):
    collectors.observe_training("ok_rejected", 30.0, ended_at=500.0, loss=0.2, gain_vs_naive=-0.1)

    assert math.isnan(value(collectors, "forecaster_training_last_gain_ratio", against="champion"))
    assert value(collectors, "forecaster_training_last_gain_ratio", against="naive") == -0.1
    assert math.isnan(value(collectors, "forecaster_promotion_timestamp_seconds"))


def test_build_and_process_are_shown(collectors):
    assert value(collectors, "forecaster_build_info", version="1.2.3", python="3.11", torch="2.6") == 1
    assert value(collectors, "process_resident_memory_bytes") > 1e6


def test_the_client_in_use_is_named_with_its_path(collectors):
    assert value(collectors, "forecaster_client_info", client="none", batched="false") == 1

    collectors.set_client("kafka-python", batched=True)

    assert value(collectors, "forecaster_client_info", client="kafka-python", batched="true") == 1
    assert value(collectors, "forecaster_client_info", client="none", batched="false") is None


def test_two_daemons_in_one_process_do_not_share_metrics(collectors):
    other = Collectors(build={})

    collectors.observe(make_report(records=3))

    assert value(other, "forecaster_records_total") == 0


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version=1.0.0"),
    ],
)
def test_exposition_follows_the_accept_header_and_has_no_created_series(collectors, accept, content_type):
    text, found = collectors.exposition(accept)

    assert found.startswith(content_type)
    assert b"forecaster_records_total 0.0" in text
    assert b"_created" not in text


def test_scrape_shows_exactly_the_metrics_of_the_table(collectors):
    collectors.observe(make_report(StepReport(scores=make_scores())))
    collectors.set_lag("readings", {0: 0})
    collectors.set_watched([make_sample("a")])

    families = text_string_to_metric_families(collectors.exposition("")[0].decode())
    shown = {family.name + ("_total" if family.type == "counter" else "") for family in families}

    assert {name for name in shown if name.startswith("forecaster_")} == {spec.name for spec in METRICS}


def test_restores_are_counted_by_what_they_came_from(collectors):
    done = [
        Restored(3, "standby", 0.08, state_records=5, state_bytes=70_000, replayed=12),
        Restored(4, "cold", 2.0, state_records=6, state_bytes=80_000, replayed=0),
    ]
    standby = StandbyReport(partitions=2, nbytes=1_234, doubts=Counter({Doubt.CHANGED: 1}))
    recovery = RecoveryReport((Restoring(5, "reading", 1, 2), Restoring(6, "waiting")), tuple(done), standby)

    collectors.observe(make_report(recovery=recovery))
    collectors.observe(make_report())

    for kind, count in (("standby", 1), ("cold", 1), ("fresh", 0)):
        assert value(collectors, "forecaster_restores_total", kind=kind) == count
        assert value(collectors, "forecaster_restore_seconds_count", kind=kind) == count
    assert value(collectors, "forecaster_restored_state_records_total") == 11
    assert value(collectors, "forecaster_restored_state_bytes_total") == 150_000
    assert value(collectors, "forecaster_replayed_readings_total") == 12
    assert value(collectors, "forecaster_standby_doubts_total", reason="changed") == 1
    assert value(collectors, "forecaster_standby_doubts_total", reason="full") == 0


def test_gauges_of_recovery_are_those_of_the_newest_report(collectors):
    recovery = RecoveryReport((Restoring(5, "waiting"),), (), StandbyReport(partitions=2, nbytes=1_234))

    collectors.observe(make_report(recovery=recovery))
    then = [
        value(collectors, f"forecaster_{name}")
        for name in ("restoring_partitions", "standby_partitions", "standby_bytes")
    ]
    collectors.observe(make_report())

    assert then == [1, 2, 1_234]
    assert value(collectors, "forecaster_restoring_partitions") == 0
