"""The audit against answers of a real task: silent on them, loud on what is taken out, doubled, moved or made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from factories import START, make_messy_records, make_pipeline, make_raw, make_task, process

from forecaster.codecs.forecast_avro import encode_forecast_avro
from forecaster.codecs.forecast_json import decode_forecast, encode_forecast
from forecaster.codecs.json_codec import JsonCodec
from forecaster.engine.audit import (
    Answer,
    AuditReport,
    AuditRules,
    Kind,
    PartitionAudit,
    Span,
    read_dead_letter,
    read_forecast,
)
from forecaster.engine.withholding import PublishingRules
from forecaster.records import OutRecord, RawRecord

RULES = AuditRules(topic="readings", fields=())


def audited(
    readings: Sequence[RawRecord],
    answers: Sequence[OutRecord],
    rules: AuditRules = RULES,
    *,
    codec: JsonCodec | None = None,
    first: int = 0,
    reached: int | None = None,
) -> AuditReport:
    """Audit of partition 0, its answers topic by topic as a consumer would read them."""
    goal = reached if reached is not None else readings[-1].offset + 1
    audit = PartitionAudit(0, (codec or JsonCodec()).decode, rules, Span(first=first, reached=goal))
    audit.expect(raw for raw in readings if raw.offset >= first)
    forecasts = [record for record in answers if record.topic == "forecasts"]
    dead_letters = [record for record in answers if record.topic != "forecasts"]
    audit.answered(read_forecast(at, record.value) for at, record in enumerate(forecasts))
    audit.answered(read_dead_letter(at, record.headers) for at, record in enumerate(dead_letters))
    return audit.finish()


def messy(seed: int = 1, **rules: object) -> tuple[list[RawRecord], list[OutRecord]]:
    readings = make_messy_records(np.random.default_rng(seed), streams=30, readings=40)
    return readings, answers_of(process(make_task(**rules), readings).records)


def answers_of(records: Sequence[OutRecord]) -> list[OutRecord]:
    """What is written without anomalies, which answer nothing."""
    return [record for record in records if record.topic != "anomalies"]


def forecast_positions(answers: Sequence[OutRecord]) -> list[int]:
    return [at for at, record in enumerate(answers) if record.topic == "forecasts"]


@pytest.mark.parametrize("seed", range(3))
def test_all_answers_of_a_task_are_found_in_order(seed: int) -> None:
    readings, answers = messy(seed)

    report = audited(readings, answers)

    assert report.is_clean, report.breaches
    assert report.forecasts + report.dead_letters == report.due == len(answers)
    assert report.tombstones > 0
    assert report.due + report.tombstones == report.records == len(readings)


@pytest.mark.parametrize("lost", [0, 1])
def test_forecasts_in_avro_are_audited_like_those_in_json(lost: int) -> None:
    """Half of the topic in each form, as after a change of `publish.format`."""
    readings, answers = messy()
    places = forecast_positions(answers)[::2]
    for at in places:
        forecast = decode_forecast(answers[at].value or b"")
        answers[at] = msgspec.structs.replace(answers[at], value=encode_forecast_avro(forecast))
    if lost:
        del answers[places[3]]

    report = audited(readings, answers)

    assert report.counts[Kind.MISSING] == lost
    assert report.counts[Kind.UNREADABLE] == 0


def test_a_lost_answer_is_missing_and_named() -> None:
    readings, answers = messy()
    lost = next(at for at, record in enumerate(answers) if record.topic == "readings.dlq")
    offset = int(dict(answers[lost].headers)["source.offset"])

    report = audited(readings, answers[:lost] + answers[lost + 1 :])

    assert report.counts == {Kind.MISSING: 1}
    assert (report.breaches[0].partition, report.breaches[0].offset) == (0, offset)


def test_a_lost_forecast_also_breaks_its_streams_numbers() -> None:
    readings = [make_raw(offset) for offset in range(6)]
    answers = process(make_task(), readings).records

    report = audited(readings, answers[:3] + answers[4:])

    assert report.counts == {Kind.MISSING: 1, Kind.SEQUENCE: 1}


def test_a_second_answer_is_a_duplicate_also_where_one_is_a_forecast_and_one_a_dead_letter() -> None:
    readings = [make_raw(0), make_raw(1), make_raw(1, stream="b")]
    answers = process(make_task(), readings[:2]).records
    letter = process(make_task(), [make_raw(1, value="broken")]).records

    twice = audited(readings[:2], [*answers, answers[1]])
    both = audited(readings[:2], [*answers, *letter])

    assert twice.counts == both.counts == {Kind.DUPLICATED: 1}
    assert twice.breaches[0].offset == 1


def test_answers_of_a_stream_in_another_order_are_found() -> None:
    readings = [make_raw(offset, stream="ab"[offset % 2]) for offset in range(8)]
    answers = process(make_task(), readings).records

    swapped = [*answers[:4], answers[6], answers[5], answers[4], answers[7]]
    harmless = [answers[1], answers[0], *answers[2:]]

    assert audited(readings, swapped).counts[Kind.OUT_OF_ORDER] == 1
    assert audited(readings, harmless).is_clean, "order holds within a stream"


def test_dead_letters_in_another_order_are_found() -> None:
    readings = [make_raw(offset, value="broken") for offset in range(3)]
    answers = process(make_task(), readings).records

    report = audited(readings, [answers[1], answers[0], answers[2]])

    assert report.counts == {Kind.OUT_OF_ORDER: 1}


def test_state_that_went_back_shows_in_the_numbers_of_a_stream() -> None:
    readings = [make_raw(offset) for offset in range(6)]
    answers = process(make_task(), readings).records
    forgetful = decode_forecast(answers[4].value or b"")
    answers[4] = OutRecord("forecasts", 0, b"a", encode_forecast(msgspec.structs.replace(forgetful, seq=3)))

    assert audited(readings, answers).counts[Kind.SEQUENCE] == 2
    assert audited(readings, answers, replace(RULES, check_sequences=False)).is_clean


def test_a_forgotten_stream_begins_again_and_is_counted() -> None:
    readings = [make_raw(0), make_raw(1), RawRecord("readings", 0, 2, -1.0, b"a", None), make_raw(3), make_raw(4)]

    report = audited(readings, process(make_task(), readings).records)

    assert report.is_clean
    assert (report.restarts, report.tombstones) == (1, 1)


def test_answers_nobody_asked_for_are_found() -> None:
    readings = [make_raw(0), RawRecord("readings", 0, 1, -1.0, b"a", None), make_raw(2)]
    answers = process(make_task(), readings).records
    to_a_tombstone = process(make_task(), [make_raw(1, stream="x")]).records
    beyond_the_end = process(make_task(), [make_raw(9, stream="x")]).records

    report = audited(readings, [*answers, *to_a_tombstone, *beyond_the_end])

    assert report.counts == {Kind.WITHOUT_READING: 2}


def test_an_answer_in_another_partition_is_misplaced() -> None:
    answers = process(make_task(), [RawRecord("readings", 5, 0, -1.0, b"a", make_raw(0).value)]).records

    report = audited([make_raw(0)], answers, reached=0)

    assert report.counts == {Kind.MISPLACED: 1}


def test_answers_to_another_topic_and_to_earlier_readings_are_left_alone() -> None:
    readings = [make_raw(offset) for offset in range(6)]
    answers = process(make_task(), readings).records
    other = process(make_task(), [RawRecord("pulses", 0, 4, -1.0, b"a", readings[4].value)]).records

    report = audited(readings, [*answers, *other], first=3)

    assert report.is_clean
    assert (report.records, report.forecasts, report.foreign) == (3, 3, 4)


@pytest.mark.parametrize(
    "record",
    [OutRecord("forecasts", 0, b"a", b"{}"), OutRecord("forecasts", 0, b"a", None), OutRecord("dlq", 0, b"a", b"x")],
    ids=["no forecast", "null", "no headers"],
)
def test_a_record_that_does_not_say_what_it_answers_is_found(record: OutRecord) -> None:
    assert audited([make_raw(0)], [record], reached=0).counts == {Kind.UNREADABLE: 1}


def test_what_the_group_has_not_reached_is_waiting_and_not_missing() -> None:
    readings = [make_raw(offset) for offset in range(10)]
    answers = process(make_task(), readings).records[:7]

    assert audited(readings, answers, reached=6).waiting == 3
    assert audited(readings, answers, reached=6).is_clean
    assert audited(readings, answers, reached=9).counts == {Kind.MISSING: 2}


@pytest.mark.parametrize("seed", range(3))
def test_readings_held_back_are_pending_and_those_released_need_their_answer(seed: int) -> None:
    readings, answers = messy(seed, max_lateness_seconds=30.0)
    rules = replace(RULES, max_lateness_seconds=30.0)

    report = audited(readings, answers, rules)
    without_last = audited(readings, answers[: forecast_positions(answers)[-1]], rules)

    assert report.is_clean, report.breaches
    assert report.pending > 0
    assert report.pending == report.due - len(answers)
    assert without_last.counts[Kind.MISSING] >= 1


def test_readings_held_at_the_committed_offset_are_pending_though_later_ones_would_release_them() -> None:
    readings = [make_raw(offset, time=START + 10 * offset) for offset in range(8)]
    answers = process(make_task(max_lateness_seconds=15.0), readings[:5]).records

    report = audited(readings, answers, replace(RULES, max_lateness_seconds=15.0), reached=5)

    assert report.is_clean
    assert (len(answers), report.pending, report.waiting) == (3, 2, 3)


@pytest.mark.parametrize("hold", [0.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_with_the_drop_setting_exactly_the_repeated_readings_need_no_answer(seed: int, hold: float) -> None:
    readings = make_messy_records(np.random.default_rng(seed), streams=20, readings=40)
    result = process(make_task(drop_duplicates=True, max_lateness_seconds=hold), readings)
    rules = replace(RULES, drop_duplicates=True, max_lateness_seconds=hold)

    answers = answers_of(result.records)

    report = audited(readings, answers, rules)
    strict = audited(readings, answers, replace(rules, drop_duplicates=False))
    lossy = audited(readings, answers[:-1], rules)

    assert report.is_clean, report.breaches
    assert report.dropped == result.report.dropped > 0
    assert strict.counts == {Kind.MISSING: report.dropped}
    assert lossy.counts[Kind.MISSING] == 1


def test_each_field_of_a_record_needs_its_own_answer() -> None:
    codec = JsonCodec(fields=("temp", "load"))
    rules = replace(RULES, fields=("temp", "load"))
    readings = [
        make_raw(0, temp=1.0, load=2.0),
        make_raw(1, temp=1.5),
        make_raw(2, temp="broken", load=None),
        RawRecord("readings", 0, 3, -1.0, b"a", b"no json"),
    ]
    answers = process(make_task(codec=codec), readings).records

    whole = audited(readings, answers, rules, codec=codec)
    lost = [record for record in answers if b'"a/load"' not in (record.value or b"")]
    partial = audited(readings, lost, rules, codec=codec)

    assert whole.is_clean, whole.breaches
    assert whole.due == len(answers) == 6
    assert partial.counts == {Kind.MISSING: 2}
    assert {(breach.offset, breach.field) for breach in partial.breaches} == {(0, "load"), (2, "load")}


def test_examples_are_limited_and_counts_are_not() -> None:
    readings = [make_raw(offset) for offset in range(50)]

    report = audited(readings, [], replace(RULES, max_breaches=3))

    assert report.counts == {Kind.MISSING: 50}
    assert [breach.offset for breach in report.breaches] == [0, 1, 2]


def test_reports_of_partitions_add_up() -> None:
    readings, answers = messy()
    whole, lossy = audited(readings, answers), audited(readings, answers[:-2])

    lossy.add(whole)

    assert lossy.due == 2 * whole.due
    assert lossy.counts[Kind.MISSING] == 2
    assert not lossy.is_clean


def test_a_dead_letter_says_what_it_answers() -> None:
    headers = (("source.topic", b"readings"), ("source.partition", b"3"), ("source.offset", b"12"), ("field", b"temp"))

    assert read_dead_letter(0, headers) == Answer("readings", 3, 12, "temp", "", 0.0, 0)


POLICIES: dict[str, dict[str, Any]] = {
    "every_nth": {"when": "every_nth", "nth": 4},
    "interval": {"when": "interval", "interval_seconds": 30.0},
    "change": {"when": "change", "tolerance": 1.0},
}


def withholding(name: str, seed: int, **rules: Any) -> tuple[list[RawRecord], list[OutRecord], AuditRules, int]:
    """Readings, their answers, the rules of the audit, and how many forecasts were withheld."""
    pipeline = make_pipeline(publishing=POLICIES[name], horizon=6)
    readings = make_messy_records(np.random.default_rng(seed), streams=20, readings=40)
    result = process(make_task(pipeline, **rules), readings)
    publishing = PublishingRules(**POLICIES[name], horizon=6)
    audit = replace(
        RULES,
        publishing=publishing,
        max_lateness_seconds=rules.get("max_lateness_seconds", 0.0),
        drop_duplicates=rules.get("drop_duplicates", False),
    )
    return readings, answers_of(result.records), audit, result.report.withheld


@pytest.mark.parametrize("rules", [{}, {"max_lateness_seconds": 30.0}, {"drop_duplicates": True}], ids=str)
@pytest.mark.parametrize("name", POLICIES)
def test_what_a_publishing_policy_withholds_is_not_missing(name: str, rules: dict[str, Any]) -> None:
    readings, answers, audit, withheld = withholding(name, 1, **rules)

    report = audited(readings, answers, audit)

    assert report.is_clean, report.breaches
    assert report.withheld == withheld > 0
    assert report.due == len(answers) + report.withheld + report.dropped + report.pending


@pytest.mark.parametrize("name", POLICIES)
def test_every_single_published_forecast_that_is_lost_is_found_among_the_withheld(name: str) -> None:
    readings, answers, audit, _ = withholding(name, 2)
    last = {record.key: at for at, record in enumerate(answers) if record.topic == "forecasts"}
    named = tails = 0

    for at in forecast_positions(answers)[::7]:
        lost = decode_forecast(answers[at].value or b"").source.offset
        report = audited(readings, answers[:at] + answers[at + 1 :], audit)

        if at in last.values() and name == "change":
            tails += 1  # nothing comes after it: within what the policy may withhold at the end of a stream
            continue
        named += 1
        missing = [breach.offset for breach in report.breaches if breach.kind is Kind.MISSING]
        assert missing == [lost], (at, report.breaches)

    assert named > 10 > tails


@pytest.mark.parametrize("name", POLICIES)
def test_a_dead_letter_lost_is_not_taken_for_a_withheld_forecast(name: str) -> None:
    readings, answers, audit, _ = withholding(name, 3)
    letters = [at for at, record in enumerate(answers) if record.topic != "forecasts"]

    for at in letters:
        report = audited(readings, answers[:at] + answers[at + 1 :], audit)

        assert report.counts == {Kind.MISSING: 1}, dict(answers[at].headers)


def test_a_stream_that_falls_silent_in_the_answers_is_found_by_the_bound_of_the_policy() -> None:
    readings = [make_raw(offset) for offset in range(40)]
    pipeline = make_pipeline(publishing=POLICIES["every_nth"])
    answers = process(make_task(pipeline), readings).records
    audit = replace(RULES, publishing=PublishingRules(**POLICIES["every_nth"], horizon=4))

    report = audited(readings, answers[:5], audit)

    assert [breach.offset for breach in report.breaches] == [20, 24, 28, 32, 36]
    assert report.counts == {Kind.MISSING: 5}


def test_an_audit_that_begins_in_the_middle_trusts_the_first_forecast_it_sees() -> None:
    readings, answers, audit, _ = withholding("every_nth", 4)
    first = len(readings) // 2

    report = audited(readings, answers, audit, first=first)

    assert report.is_clean, report.breaches
    assert report.withheld > 0


def test_without_the_policy_withheld_forecasts_are_missing() -> None:
    readings, answers, _, withheld = withholding("every_nth", 5)

    assert audited(readings, answers, RULES).counts[Kind.MISSING] == withheld


def test_a_forecast_that_tells_of_more_withheld_than_there_are_is_found() -> None:
    readings = [make_raw(offset) for offset in range(10)]
    policy = POLICIES["every_nth"]
    answers = process(make_task(make_pipeline(publishing=policy)), readings).records
    audit = replace(RULES, publishing=PublishingRules(**policy, horizon=4))
    forecast = decode_forecast(answers[1].value or b"")
    boast = encode_forecast(msgspec.structs.replace(forecast, seq=forecast.seq + 2, withheld=5))

    report = audited(readings, [answers[0], OutRecord("forecasts", 0, b"a", boast), *answers[2:]], audit)

    assert report.counts[Kind.SEQUENCE] == 2, "of what it tells, and of the number after it"
