"""Expositions of real collectors put together: what adds up, what keeps its worker, what a restart leaves."""

from __future__ import annotations

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from forecaster.engine.report import LeadScores, LoopReport, StepReport
from forecaster.telemetry.collectors import Collectors
from forecaster.telemetry.merging import ACCEPT, MergedMetrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def collectors(accepted: int, *, streams: int = 0, model: str = "none", wave: float | None = None) -> Collectors:
    made = Collectors(build={})
    report = LoopReport(StepReport(LeadScores.zero((1,)), accepted=accepted))
    if wave is not None:
        report.waves.append((int(wave), 0.003))
    made.observe(report)
    made.set_streams({"ok": streams})
    made.set_model(model, trained_at=None)
    return made


def told(by: Collectors) -> str:
    return by.exposition(ACCEPT)[0].decode()


def shown(merged: MergedMetrics) -> Samples:
    text = merged.exposition("")[0].decode()
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_counters_and_histograms_add_up() -> None:
    merged = MergedMetrics()
    merged.take(0, 1, told(collectors(3, wave=40.0)))
    merged.take(1, 1, told(collectors(4, wave=2000.0)))

    found = shown(merged)

    assert found["forecaster_readings_accepted_total", ()] == 7
    assert found["forecaster_wave_streams_count", ()] == 2
    assert found["forecaster_wave_streams_sum", ()] == 2040
    assert found["forecaster_wave_streams_bucket", (("le", "64.0"),)] == 1
    assert found["forecaster_wave_streams_bucket", (("le", "+Inf"),)] == 2


def test_gauges_and_infos_keep_their_worker() -> None:
    merged = MergedMetrics()
    merged.take(0, 1, told(collectors(0, streams=5, model="gru-1")))
    merged.take(1, 1, told(collectors(0, streams=7, model="gru-2")))

    found = shown(merged)

    assert found["forecaster_known_streams", (("status", "ok"), ("worker", "0"))] == 5
    assert found["forecaster_known_streams", (("status", "ok"), ("worker", "1"))] == 7
    assert found["forecaster_model_info", (("group", "default"), ("version", "gru-1"), ("worker", "0"))] == 1
    assert found["forecaster_model_info", (("group", "default"), ("version", "gru-2"), ("worker", "1"))] == 1
    assert math.isnan(found["forecaster_promotion_timestamp_seconds", (("worker", "0"),)])


def test_what_a_worker_had_counted_stays_when_another_process_takes_its_place() -> None:
    merged = MergedMetrics()
    for life, accepted in ((1, 10), (1, 12), (2, 1), (2, 3), (3, 2)):
        merged.take(0, life, told(collectors(accepted)))

    assert shown(merged)["forecaster_readings_accepted_total", ()] == 12 + 3 + 2


def test_of_a_worker_that_is_gone_the_counts_stay_and_the_gauges_go() -> None:
    merged = MergedMetrics()
    merged.take(0, 1, told(collectors(10, streams=5)))
    merged.take(1, 1, told(collectors(1, streams=6)))

    merged.gone(0)
    found = shown(merged)

    assert found["forecaster_readings_accepted_total", ()] == 11
    assert ("forecaster_known_streams", (("status", "ok"), ("worker", "0"))) not in found
    assert found["forecaster_known_streams", (("status", "ok"), ("worker", "1"))] == 6


@pytest.mark.parametrize("accept", ["", ACCEPT])
def test_one_worker_alone_is_shown_with_the_same_names_as_by_itself(accept: str) -> None:
    alone, merged = collectors(3, streams=2), MergedMetrics()
    merged.take(0, 1, told(alone))

    def described(text: bytes) -> set[str]:
        return {line for line in text.decode().splitlines() if line.startswith(("# HELP", "# TYPE"))}

    (theirs, kind), (ours, our_kind) = alone.exposition(accept), merged.exposition(accept)

    with_samples = {line.split()[2] for line in described(theirs)}
    assert described(ours) == {line for line in described(theirs) if line.split()[2] in with_samples}
    assert our_kind == kind


def test_what_is_no_exposition_is_refused_and_changes_nothing() -> None:
    merged = MergedMetrics()
    merged.take(0, 1, told(collectors(3)))

    with pytest.raises(ValueError):
        merged.take(0, 1, "<html>")

    assert shown(merged)["forecaster_readings_accepted_total", ()] == 3
