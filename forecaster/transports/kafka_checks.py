"""What the topics of the daemon have to be, and what is found where they are not."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from forecaster.errors import TransportError
from forecaster.transports.kafka_admin import TopicDescription

log = logging.getLogger(__name__)

_SHORT_RETENTION_SECONDS = 86_400.0
_LARGEST_READING_BYTES = (
    1_048_588  # Kafka's default; a dead letter holds all of the reading, and our producer sends 1 MiB
)
_SMALLEST_MODEL_MESSAGE_BYTES = 65_536


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as one would want it to."""
    PROBLEM = "problem"
    """It will not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at, and what to do where it is not as it should be."""

    level: Level
    about: str
    found: str
    hint: str = ""
    may_pass: bool = False
    """Brokers that come back cure it: a worker that starts waits for them."""


class _Trouble(NamedTuple):
    level: Level
    found: str
    hint: str
    may_pass: bool = False


def check_topics(
    described: Mapping[str, TopicDescription],
    *,
    readings: str,
    forecasts: str,
    dead_letters: str,
    state: str | None,
    models: str | None = None,
    anomalies: str | None = None,
    feedback: str | None = None,
    brokers: int,
    answer_bytes: int,
) -> list[Finding]:
    """Compares the topics that exist with what the daemon needs of them.

    Args:
        described: those that exist, by name.
        readings: name of the input topic.
        forecasts: name of the topic of forecasts.
        dead_letters: name of the topic of refused readings.
        state: name of the topic of the streams' state; ``None`` where delivery keeps none there.
        models: name of the topic of models; ``None`` where a directory keeps them.
        anomalies: name of the topic of anomalies; ``None`` where nobody looks for any.
        feedback: name of the topic of people's labels; ``None`` where nobody reads any.
        brokers: how many there are; a single one cannot replicate.
        answer_bytes: largest message the daemon writes.

    Returns:
        At least one finding for each of the topics.
    """
    findings: list[Finding] = []
    needed = {"readings": readings, "forecasts": forecasts, "dead_letters": dead_letters}
    optional = (("anomalies", anomalies), ("feedback", feedback), ("state", state), ("models", models))
    needed |= {setting: name for setting, name in optional if name is not None}
    for setting, name in needed.items():
        about = f"topic {name}"
        if (topic := described.get(name)) is None:
            findings.append(
                Finding(
                    level=Level.PROBLEM,
                    about=about,
                    found="It does not exist.",
                    hint=f"Create it with `forecaster topics create`, or set topics.{setting}.",
                )
            )
            continue
        trouble = [*_trouble_of_any(topic, brokers)]
        if setting == "readings":
            trouble += _trouble_of_readings(topic, is_replayed=state is not None)
        elif setting == "feedback":
            trouble += _trouble_of_feedback(topic)
        elif setting == "models":
            trouble += _trouble_of_models(topic)
        else:
            trouble += _trouble_of_answers(topic, described.get(readings), answer_bytes)
        if setting == "dead_letters":
            trouble += _trouble_of_dead_letters(topic)
        if setting == "state":
            trouble += _trouble_of_state(topic)
        findings += [
            Finding(level=level, about=about, found=found, hint=hint, may_pass=may_pass)
            for level, found, hint, may_pass in trouble
        ]
        if not trouble:
            findings.append(Finding(level=Level.OK, about=about, found=_summary(topic)))
    return findings


def refuse_unfit(findings: Iterable[Finding]) -> None:
    """What a worker makes of the findings when it starts: advice goes to the log, what breaks a promise ends it.

    Raises:
        TransportError: at least one problem that does not pass by itself; the message holds all of them.
    """
    serious, advice = [], []
    for finding in findings:
        if finding.level is Level.PROBLEM and not finding.may_pass:
            serious.append(finding)
        elif finding.level is not Level.OK:
            advice.append(finding)
    if advice:  # in one line: repeats of a warning are held back
        log.warning(
            "topics are not as one would want them",
            extra={
                "found": [f"{finding.about}: {finding.found}" for finding in advice],
                "hint": " ".join(dict.fromkeys(finding.hint for finding in advice)),
            },
        )
    if serious:
        raise TransportError(
            "The topics are not as they have to be: "
            + " ".join(f"{finding.about}: {finding.found}" for finding in serious),
            hint=" ".join(dict.fromkeys(finding.hint for finding in serious if finding.hint)),
        )


def _trouble_of_any(topic: TopicDescription, brokers: int) -> Iterator[_Trouble]:
    if topic.max_message_bytes is None or topic.retention_seconds is None:
        yield _Trouble(Level.WARNING, "Its settings cannot be read.", "Grant this user DESCRIBE_CONFIGS on the topic.")
    if topic.leaderless:
        found = f"Nobody serves its partitions {list(topic.leaderless)}."
        yield _Trouble(Level.PROBLEM, found, "Are all brokers up?", may_pass=True)
    elif topic.lagging:
        yield _Trouble(
            Level.WARNING,
            f"Replicas of its partitions {list(topic.lagging)} are not in sync.",
            "Are all brokers up? Answers wait while fewer than min.insync.replicas are.",
        )
    if topic.replication < 2 <= brokers:
        yield _Trouble(
            Level.WARNING,
            f"It has {topic.replication} replica on {brokers} brokers: losing one broker loses records.",
            "Raise its replication with kafka-reassign-partitions.sh; set topics.replication for topics to be made.",
        )
    if topic.min_insync_replicas is not None and topic.replication > 1 and topic.min_insync_replicas < 2:
        yield _Trouble(
            Level.WARNING,
            f"Its min.insync.replicas is {topic.min_insync_replicas}: with {topic.replication} replicas, what one "
            "broker alone has acknowledged is lost with it.",
            "Set its min.insync.replicas to 2.",
        )


def _trouble_of_readings(topic: TopicDescription, *, is_replayed: bool) -> Iterator[_Trouble]:
    if "compact" in (topic.cleanup_policy or ""):
        yield _Trouble(
            Level.PROBLEM if is_replayed else Level.WARNING,
            f"Its cleanup.policy is {topic.cleanup_policy}: of each stream old readings vanish"
            + (", and a restart takes readings in again." if is_replayed else "."),
            "Set its cleanup.policy to delete; nothing to train on is left otherwise.",
        )
    if topic.retention_seconds is not None and topic.retention_seconds < _SHORT_RETENTION_SECONDS:
        yield _Trouble(
            Level.WARNING,
            f"It keeps readings for {format_duration(topic.retention_seconds)}: a worker that is away longer misses "
            "some, and does not start again by itself.",
            f"Raise its retention.ms to at least {format_duration(_SHORT_RETENTION_SECONDS)}.",
        )
    if topic.max_message_bytes is not None and topic.max_message_bytes > _LARGEST_READING_BYTES:
        yield _Trouble(
            Level.WARNING,
            f"Its max.message.bytes is {topic.max_message_bytes:,}: a refused reading of more than 1 MiB cannot be "
            "written to the dead-letter topic.",
            f"Lower its max.message.bytes to {_LARGEST_READING_BYTES}.",
        )


def _trouble_of_answers(
    topic: TopicDescription, readings: TopicDescription | None, answer_bytes: int
) -> Iterator[_Trouble]:
    if readings is not None and topic.partitions != readings.partitions:
        yield _Trouble(
            Level.PROBLEM if topic.partitions < readings.partitions else Level.WARNING,
            f"It has {topic.partitions} partitions, {readings.name} has {readings.partitions}: an answer goes to the "
            "partition its reading came from.",
            "Add partitions to the smaller one with "
            f"`kafka-topics.sh --alter --topic {min(topic, readings, key=lambda t: t.partitions).name} "
            f"--partitions {max(topic.partitions, readings.partitions)}`"
            + ("." if topic.partitions < readings.partitions else "; streams then move between partitions."),
        )
    if topic.max_message_bytes is not None and topic.max_message_bytes < answer_bytes:
        yield _Trouble(
            Level.WARNING,
            f"Its max.message.bytes is {topic.max_message_bytes:,}; messages of up to {answer_bytes:,} bytes may be "
            "written.",
            f"Raise its max.message.bytes to {answer_bytes}, or lower forecast.horizon.",
        )


def _trouble_of_dead_letters(topic: TopicDescription) -> Iterator[_Trouble]:
    if "compact" in (topic.cleanup_policy or ""):
        yield _Trouble(
            Level.PROBLEM,
            f"Its cleanup.policy is {topic.cleanup_policy}: a refused reading without a key cannot be written.",
            "Set its cleanup.policy to delete.",
        )


def _trouble_of_feedback(topic: TopicDescription) -> Iterator[_Trouble]:
    if "compact" in (topic.cleanup_policy or ""):
        yield _Trouble(
            Level.WARNING,
            f"Its cleanup.policy is {topic.cleanup_policy}: of each key only the newest label or period is kept.",
            "Set its cleanup.policy to delete, or write records without a key.",
        )


def _trouble_of_models(topic: TopicDescription) -> Iterator[_Trouble]:
    if topic.partitions != 1:
        yield _Trouble(
            Level.PROBLEM,
            f"It has {topic.partitions} partitions, expected 1: decisions about models need one order.",
            "Delete it, or set topics.models; then `forecaster topics create`.",
        )
    if topic.cleanup_policy is not None and topic.cleanup_policy != "compact":
        yield _Trouble(
            Level.PROBLEM,
            f"Its cleanup.policy is {topic.cleanup_policy}: models and decisions are deleted some day.",
            "Set its cleanup.policy to compact.",
        )
    if topic.max_message_bytes is not None and topic.max_message_bytes < _SMALLEST_MODEL_MESSAGE_BYTES:
        yield _Trouble(
            Level.WARNING,
            f"Its max.message.bytes is {topic.max_message_bytes:,}: a model is cut into many records, and its manifest "
            "may not fit into one.",
            f"Raise its max.message.bytes to {_SMALLEST_MODEL_MESSAGE_BYTES} or more.",
        )


def _trouble_of_state(topic: TopicDescription) -> Iterator[_Trouble]:
    if topic.cleanup_policy is not None and topic.cleanup_policy != "compact":
        yield _Trouble(
            Level.PROBLEM,
            f"Its cleanup.policy is {topic.cleanup_policy}: state that is not written again is deleted some day.",
            "Set its cleanup.policy to compact.",
        )


def _summary(topic: TopicDescription) -> str:
    keeps, size = format_duration(topic.retention_seconds), topic.max_message_bytes
    return f"{topic.partitions} partitions × {topic.replication} replicas, keeps {keeps}, messages up to {size:,} bytes"


def format_duration(seconds: float | None) -> str:
    """Of a retention, for people.

    >>> format_duration(604800.0), format_duration(90.0), format_duration(math.inf), format_duration(None)
    ('7 d', '90 s', 'for ever', 'unknown')
    """
    if seconds is None:
        return "unknown"
    if seconds == math.inf:
        return "for ever"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"
