"""Each way a topic can be wrong is told, at its level, with the remedy."""

from __future__ import annotations

import dataclasses
import math

import pytest

from forecaster.errors import TransportError
from forecaster.transports.kafka_admin import TopicDescription
from forecaster.transports.kafka_checks import Finding, Level, check_topics, refuse_unfit

READINGS, FORECASTS, DEAD_LETTERS, STATE = "readings", "forecasts", "readings.dlq", "forecaster.state"
GOOD = TopicDescription(
    name="",
    partitions=4,
    replication=3,
    max_message_bytes=1_048_588,
    retention_seconds=604_800.0,
    cleanup_policy="delete",
    min_insync_replicas=2,
)


def check(*, brokers: int = 3, answer_bytes: int = 262_144, **changes: dict[str, object] | None) -> list[Finding]:
    """Findings of three good topics, but for the changes of each; ``None`` takes one away."""
    described = {}
    for argument, name in (("readings", READINGS), ("forecasts", FORECASTS), ("dead_letters", DEAD_LETTERS)):
        change = changes.get(argument, {})
        if change is not None:
            described[name] = dataclasses.replace(GOOD, name=name, **change)
    return check_topics(
        described,
        readings=READINGS,
        forecasts=FORECASTS,
        dead_letters=DEAD_LETTERS,
        state=None,
        brokers=brokers,
        answer_bytes=answer_bytes,
    )


def troubles(findings: list[Finding]) -> list[tuple[Level, str]]:
    return [(finding.level, finding.about) for finding in findings if finding.level is not Level.OK]


def test_good_topics_are_ok_one_finding_each():
    findings = check()

    assert [(finding.level, finding.about) for finding in findings] == [
        (Level.OK, f"topic {name}") for name in (READINGS, FORECASTS, DEAD_LETTERS)
    ]
    assert findings[0].found == "4 partitions × 3 replicas, keeps 7 d, messages up to 1,048,588 bytes"


@pytest.mark.parametrize("setting", ["readings", "forecasts", "dead_letters"])
def test_a_topic_that_does_not_exist_is_a_problem_that_names_command_and_setting(setting):
    (problem,) = [finding for finding in check(**{setting: None}) if finding.level is not Level.OK]

    assert problem.level is Level.PROBLEM
    assert "forecaster topics create" in problem.hint
    assert f"topics.{setting}" in problem.hint


@pytest.mark.parametrize(("setting", "name"), [("forecasts", FORECASTS), ("dead_letters", DEAD_LETTERS)])
def test_fewer_partitions_than_readings_have_is_a_problem_and_the_hint_adds_to_the_answers(setting, name):
    (problem,) = [finding for finding in check(**{setting: {"partitions": 3}}) if finding.level is not Level.OK]

    assert (problem.level, problem.about) == (Level.PROBLEM, f"topic {name}")
    assert f"--topic {name} --partitions 4" in problem.hint


def test_more_partitions_than_readings_have_is_a_warning_and_the_hint_says_that_streams_move():
    (warning,) = [finding for finding in check(forecasts={"partitions": 6}) if finding.level is not Level.OK]

    assert warning.level is Level.WARNING
    assert f"--topic {READINGS} --partitions 6`; streams then move" in warning.hint


def test_partition_counts_are_not_compared_with_a_topic_that_is_not_there():
    assert troubles(check(readings=None, forecasts={"partitions": 3})) == [(Level.PROBLEM, f"topic {READINGS}")]


@pytest.mark.parametrize(
    ("changes", "level", "about", "words"),
    [
        ({"readings": {"leaderless": (1, 3)}}, Level.PROBLEM, READINGS, "[1, 3]"),
        ({"forecasts": {"lagging": (0,)}}, Level.WARNING, FORECASTS, "[0]"),
        ({"forecasts": {"replication": 1}}, Level.WARNING, FORECASTS, "1 replica on 3 brokers"),
        ({"readings": {"cleanup_policy": "compact,delete"}}, Level.WARNING, READINGS, "compact,delete"),
        ({"dead_letters": {"cleanup_policy": "compact"}}, Level.PROBLEM, DEAD_LETTERS, "without a key"),
        ({"readings": {"retention_seconds": 3600.0}}, Level.WARNING, READINGS, "1 h"),
        ({"readings": {"max_message_bytes": 2_000_000}}, Level.WARNING, READINGS, "2,000,000"),
        ({"forecasts": {"max_message_bytes": 200_000}}, Level.WARNING, FORECASTS, "262,144"),
        ({"dead_letters": {"max_message_bytes": None}}, Level.WARNING, DEAD_LETTERS, "cannot be read"),
        ({"dead_letters": {"retention_seconds": None}}, Level.WARNING, DEAD_LETTERS, "cannot be read"),
    ],
)
def test_each_fault_is_told_once_with_what_was_found_and_a_hint(changes, level, about, words):
    (finding,) = [finding for finding in check(**changes) if finding.level is not Level.OK]

    assert (finding.level, finding.about) == (level, f"topic {about}")
    assert words in finding.found
    assert finding.hint


@pytest.mark.parametrize(
    "changes",
    [
        {
            "forecasts": {"cleanup_policy": "compact"}
        },  # its records have keys; the newest forecast is a fair thing to keep
        {"forecasts": {"retention_seconds": 3600.0}},
        {"readings": {"retention_seconds": math.inf}},
    ],
)
def test_choices_that_do_no_harm_are_ok(changes):
    assert troubles(check(**changes)) == []


def test_one_replica_on_one_broker_is_ok():
    assert (
        troubles(check(brokers=1, **{s: {"replication": 1} for s in ("readings", "forecasts", "dead_letters")})) == []
    )


def test_a_topic_without_leader_is_not_also_said_to_have_replicas_behind():
    assert troubles(check(readings={"leaderless": (0,), "lagging": (0,)})) == [(Level.PROBLEM, f"topic {READINGS}")]


def test_a_state_topic_that_is_not_compacted_is_a_problem_and_one_that_is_absent_too():
    described = {name: dataclasses.replace(GOOD, name=name) for name in (READINGS, FORECASTS, DEAD_LETTERS)}
    arguments = {
        "readings": READINGS,
        "forecasts": FORECASTS,
        "dead_letters": DEAD_LETTERS,
        "state": "state",
        "brokers": 1,
        "answer_bytes": 1_000,
    }

    absent = check_topics(described, **arguments)
    kept_by_time = check_topics({**described, "state": dataclasses.replace(GOOD, name="state")}, **arguments)
    compacted = check_topics(
        {**described, "state": dataclasses.replace(GOOD, name="state", cleanup_policy="compact")}, **arguments
    )

    assert [finding.level for finding in absent if finding.about == "topic state"] == [Level.PROBLEM]
    assert [finding.level for finding in kept_by_time if finding.about == "topic state"] == [Level.PROBLEM]
    assert [finding.level for finding in compacted if finding.about == "topic state"] == [Level.OK]


def check_with_state(**changes: dict[str, object] | None) -> list[Finding]:
    """Findings of four good topics under exactly-once delivery, but for the changes of each."""
    topics = {"readings": READINGS, "forecasts": FORECASTS, "dead_letters": DEAD_LETTERS, "state": STATE}
    described = {}
    for argument, name in topics.items():
        change = changes.get(argument, {})
        policy = {"cleanup_policy": "compact"} if argument == "state" else {}
        if change is not None:
            described[name] = dataclasses.replace(GOOD, name=name, **{**policy, **change})
    return check_topics(described, **topics, brokers=3, answer_bytes=262_144)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (None, "does not exist"),
        ({"cleanup_policy": "delete"}, "state that is not written again is deleted some day"),
        ({"cleanup_policy": "compact,delete"}, "state that is not written again is deleted some day"),
        ({"partitions": 3}, "It has 3 partitions, readings has 4"),
    ],
)
def test_state_that_could_be_lost_or_has_no_place_is_a_problem(change, found):
    (problem,) = [finding for finding in check_with_state(state=change) if finding.level is not Level.OK]

    assert (problem.level, problem.about) == (Level.PROBLEM, f"topic {STATE}")
    assert found in problem.found
    assert problem.hint


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        (None, [(Level.PROBLEM, "topic labels")]),
        (dataclasses.replace(GOOD, name="labels", partitions=1), []),
        (dataclasses.replace(GOOD, name="labels", cleanup_policy="compact"), [(Level.WARNING, "topic labels")]),
    ],
    ids=["absent", "other partitions", "compacted"],
)
def test_feedback_needs_a_topic_of_any_partitions_that_keeps_every_record(topic, expected):
    described = {name: dataclasses.replace(GOOD, name=name) for name in (READINGS, FORECASTS, DEAD_LETTERS)}
    found = check_topics(
        described | ({"labels": topic} if topic else {}),
        readings=READINGS,
        forecasts=FORECASTS,
        dead_letters=DEAD_LETTERS,
        state=None,
        feedback="labels",
        brokers=3,
        answer_bytes=262_144,
    )

    assert troubles(found) == expected


def test_compacted_readings_are_a_problem_only_where_a_restart_takes_them_in_again():
    compacted = {"cleanup_policy": "compact"}

    assert troubles(check_with_state(readings=compacted)) == [(Level.PROBLEM, f"topic {READINGS}")]
    assert troubles(check(readings=compacted)) == [(Level.WARNING, f"topic {READINGS}")]


@pytest.mark.parametrize(
    ("replication", "in_sync", "expected"),
    [
        (3, 2, []),
        (3, 1, [(Level.WARNING, f"topic {FORECASTS}")]),
        (3, None, []),
    ],
)
def test_what_one_broker_alone_acknowledges_is_advised_against(replication, in_sync, expected):
    findings = check(forecasts={"replication": replication, "min_insync_replicas": in_sync})

    assert troubles(findings) == expected


def test_a_worker_starts_on_good_topics_without_a_word(caplog):
    refuse_unfit(check_with_state())

    assert not caplog.records


def test_a_worker_does_not_start_on_topics_that_break_a_promise_and_is_told_all_of_them():
    findings = check_with_state(state={"cleanup_policy": "delete"}, dead_letters=None)

    with pytest.raises(TransportError) as refused:
        refuse_unfit(findings)

    assert f"topic {DEAD_LETTERS}: It does not exist." in str(refused.value)
    assert f"topic {STATE}: Its cleanup.policy is delete" in str(refused.value)
    assert "forecaster topics create" in refused.value.hint
    assert "Set its cleanup.policy to compact." in refused.value.hint


def test_a_worker_takes_advice_to_its_log_and_starts(caplog):
    """In one line: repeats of a warning would be held back."""
    refuse_unfit(check_with_state(readings={"retention_seconds": 60.0}, forecasts={"replication": 1}))

    (advice,) = caplog.records
    assert advice.levelname == "WARNING"
    assert [found.partition(":")[0] for found in advice.found] == [f"topic {READINGS}", f"topic {FORECASTS}"]
    assert "retention.ms" in advice.hint
    assert "topics.replication" in advice.hint


def test_a_worker_waits_for_brokers_that_come_back_as_it_does_while_it_runs(caplog):
    findings = check_with_state(readings={"leaderless": (0,)})
    refuse_unfit(findings)

    assert troubles(findings) == [(Level.PROBLEM, f"topic {READINGS}")]
    assert caplog.records[0].found == [f"topic {READINGS}: Nobody serves its partitions [0]."]
