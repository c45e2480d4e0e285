"""The checks of ``forecaster doctor``: each looks at one thing and returns findings, none changes anything."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import requires, version
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, SecretStr

from forecaster.codecs.timestamps import format_time
from forecaster.errors import ForecasterError
from forecaster.records import DeadLetter, Observation, RawRecord, Tombstone
from forecaster.settings import Settings
from forecaster.transports.kafka_admin import ClientFacts, ClusterDescription, GroupDescription, partition_of
from forecaster.transports.kafka_checks import Finding, Level, format_duration

OLDEST_BROKER = (2, 5)
PACKAGES = ("numpy", "msgspec", "pydantic-settings", "safetensors", "prometheus-client")

_CLOCK_SECONDS = 60.0


class Decoder(Protocol):
    """The codec of the readings topic."""

    def decode(self, raw: RawRecord) -> list[Observation | DeadLetter | Tombstone]:
        """What one record says."""


def problem_from(error: ForecasterError, about: str) -> Finding:
    """A check that could not be made because of ``error``."""
    return Finding(level=Level.PROBLEM, about=about, found=str(error), hint=error.hint)


def check_installation(client: ClientFacts) -> list[Finding]:
    """Python, torch, the packages numbers depend on, and what kafka-python found beside it."""
    found = f"{platform.python_version()} on {platform.machine()}; forecaster {version('forecaster')}"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        Finding(level=Level.OK, about="python", found=found),
        Finding(level=Level.OK, about="packages", found=packages),
        check_torch(),
        check_client(client, version("kafka-python"), tested=_pinned("kafka-python")),
    ]


def check_torch() -> Finding:
    """Whether torch loads, and what it and its training child have to run on."""
    try:
        import torch
    except (ImportError, OSError) as error:
        hint = "Install it anew, with `make setup`."
        return Finding(level=Level.PROBLEM, about="torch", found=f"It does not load: {error}", hint=hint)
    cores = len(os.sched_getaffinity(0))
    found = (
        f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}; serving takes one thread, a training "
        f"another; {cores} to be had"
    )
    if cores > 1:
        return Finding(level=Level.OK, about="torch", found=found)
    hint = "Give it a second core, or set training.mode to off here and train elsewhere."
    return Finding(level=Level.WARNING, about="torch", found=found, hint=hint)


def check_client(facts: ClientFacts, installed: str, *, tested: str) -> Finding:
    """Whether kafka-python is the version the transports were tested with, quick, and safe from unknown codecs."""
    about = "kafka-python"
    if facts.codecs_absent:
        names = ", ".join(facts.codecs_absent)
        return Finding(
            level=Level.PROBLEM,
            about=about,
            found=f"Codecs absent: {names}. A batch in one of them makes it spin for ever.",
            hint="Install lz4, zstandard and python-snappy, as `make setup` does.",
        )
    if installed != tested:
        return Finding(
            level=Level.PROBLEM,
            about=about,
            found=f"{installed} is installed; the transports are made for {tested} and its faults.",
            hint=f"Install kafka-python=={tested}.",
        )
    if not facts.has_crc32c:
        return Finding(
            level=Level.WARNING,
            about=about,
            found="It computes checksums in Python: about 2.5 MB/s.",
            hint="Install crc32c, as `make setup` does.",
        )
    return Finding(level=Level.OK, about=about, found=f"{installed}, with crc32c and all codecs")


def check_path(*, wanted: bool, obstacle: str) -> Finding:
    """Whether kafka-python works by whole batches.

    Args:
        wanted: by the settings.
        obstacle: what its self-test found, empty where it passes.
    """
    about = "kafka-python's path"
    if not wanted:
        found = "Record by record, as kafka.batched = false asks"
        return Finding(level=Level.OK, about=about, found=found)
    if not obstacle:
        return Finding(level=Level.OK, about=about, found="by whole batches; the self-test passes")
    return Finding(
        level=Level.WARNING,
        about=about,
        found=f"Record by record, several times slower: {obstacle}.",
        hint="Install the pinned kafka-python, or set kafka.batched = false to have it said no more.",
    )


def check_registry(directory: Path) -> Finding:
    """Whether models can be kept: the directory is there, or can be made, and takes a file."""
    about = "registry"
    try:
        existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"x" * 4096)
            probe.flush()
    except OSError as error:
        hint = "Set registry.directory to a place this user can write to."
        found = f"{directory} cannot be written: {error.strerror or error}."
        return Finding(level=Level.PROBLEM, about=about, found=found, hint=hint)
    state = "can be written" if existing == directory else "does not exist yet and can be made"
    return Finding(level=Level.OK, about=about, found=f"{directory} {state}")


def check_brokers(cluster: ClusterDescription) -> Finding:
    """How many there are, and whether they are young enough."""
    found = f"{cluster.brokers}, of version {'.'.join(map(str, cluster.version))} or later"
    if cluster.version >= OLDEST_BROKER:
        return Finding(level=Level.OK, about="brokers", found=found)
    return Finding(
        level=Level.WARNING,
        about="brokers",
        found=f"{found}; the transports are tested from {'.'.join(map(str, OLDEST_BROKER))} on.",
        hint="Cooperative rebalancing and idempotent producers may not work; update the brokers.",
    )


def check_group(group: GroupDescription) -> list[Finding]:
    """Where the group stands in the readings topic, and whether somebody is at work."""
    about = f"group {group.group_id}"
    lag = sum(progress.lag for progress in group.progress.values())
    begun = sum(progress.committed is not None for progress in group.progress.values())
    standing = f"{group.state}, {group.members} members, {lag:,} records behind"
    findings = []
    lost = {
        number: f"{progress.committed} of {progress.first} to {progress.end}"
        for number, progress in sorted(group.progress.items())
        if progress.committed is not None and not progress.first <= progress.committed <= progress.end
    }
    if lost:
        findings.append(
            Finding(
                level=Level.PROBLEM,
                about=about,
                found=f"Committed offsets are out of range, by partition: {lost}. A worker will not start there.",
                hint="Stop the workers, choose where to go on, and set it with "
                f"`kafka-consumer-groups.sh --reset-offsets --group {group.group_id}`.",
            )
        )
    if group.members > len(group.progress):
        findings.append(
            Finding(
                level=Level.WARNING,
                about=about,
                found=f"{group.members} members for {len(group.progress)} partitions: some stand by.",
                hint="That is fine as a reserve; more partitions would spread the work further.",
            )
        )
    if group.members == 0 and lag:
        hint = "Start one with `forecaster run`."
        found = f"Nobody is at work, {lag:,} records wait."
        findings.append(Finding(level=Level.WARNING, about=about, found=found, hint=hint))
    if not findings:
        found = standing if begun else f"{standing}; nothing committed yet, kafka.start says where it begins"
        findings.append(Finding(level=Level.OK, about=about, found=found))
    return findings


def check_sample(
    records: Sequence[RawRecord], decoder: Decoder, *, partitions: int, max_lateness_seconds: float
) -> list[Finding]:
    """What the newest readings look like: can they be read, how are they keyed, are their times sane.

    Args:
        records: each partition's in order of offset.
        decoder: the codec that serves.
        partitions: of the readings topic.
        max_lateness_seconds: within which serving sorts readings.
    """
    if not records:
        return [
            Finding(
                level=Level.WARNING,
                about="readings",
                found="There are none.",
                hint="`forecaster simulate` makes some up, `forecaster replay` sends files.",
            )
        ]
    answers = [(raw, item) for raw in records for item in decoder.decode(raw)]
    letters = [item for _, item in answers if isinstance(item, DeadLetter)]
    readings = [(raw, item) for raw, item in answers if isinstance(item, Observation)]
    findings = [_check_decoding(len(records), readings, letters)]
    if readings:
        findings += [_check_keys(readings, partitions), *_check_times(readings, max_lateness_seconds)]
    return findings


def check_ages(records: Sequence[RawRecord], *, retention_seconds: float | None, now: float) -> list[Finding]:
    """Whether the broker is about to delete readings that have just come.

    It counts a record's age from the record's own time. A producer that gives records the time of a reading of long ago
    writes what is deleted at the broker's next look, answered or not.

    Args:
        records: the newest.
        retention_seconds: of the readings topic; ``None`` where it is not known.
        now: seconds since the epoch.
    """
    if retention_seconds is None:
        return []
    old = [now - raw.timestamp for raw in records if 0 <= raw.timestamp < now - retention_seconds]
    if not old:
        return []
    return [
        Finding(
            level=Level.WARNING,
            about="retention",
            found=f"{len(old)} of {len(records)} records carry a time up to {max(old) / 86_400:,.1f} days back, and "
            f"the topic keeps {format_duration(retention_seconds)}: the broker deletes them at its next look.",
            hint="Let the producer leave the record's time to the client, as `forecaster replay` does, or set "
            "message.timestamp.type of the topic to LogAppendTime; the reading's own time is in its body.",
        )
    ]


def _check_decoding(
    records: int, readings: Sequence[tuple[RawRecord, Observation]], letters: Sequence[DeadLetter]
) -> Finding:
    streams = len({observation.stream_id for _, observation in readings})
    found = f"{len(readings)} readings of {streams} streams in the newest {records} records"
    if not letters:
        return Finding(level=Level.OK, about="readings", found=found)
    reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(item.reason for item in letters).most_common())
    first = letters[0]
    return Finding(
        level=Level.WARNING if readings else Level.PROBLEM,
        about="readings",
        found=f"{found}; refused are {len(letters)}: {reasons}. "
        f"Partition {first.raw.partition}, offset {first.raw.offset}: {first.detail}",
        hint="docs/runbook.md has what to do for each reason; the readings section of the settings names the fields.",
    )


def _check_keys(readings: Sequence[tuple[RawRecord, Observation]], partitions: int) -> Finding:
    about = "keys"
    places: dict[str, set[int]] = {}
    for raw, observation in readings:
        places.setdefault(observation.stream_id, set()).add(raw.partition)
    if split := sorted(stream for stream, where in places.items() if len(where) > 1):
        return Finding(
            level=Level.PROBLEM,
            about=about,
            found=f"{len(split)} of {len(places)} streams come in several partitions, {split[0]!r} for one: each "
            "partition takes it for a stream of its own.",
            hint="Key records by the id of their stream, and give all producers the same partitioner.",
        )
    keyless = sum(raw.key is None for raw, _ in readings)
    if keyless:
        return Finding(
            level=Level.WARNING,
            about=about,
            found=f"{keyless} of {len(readings)} readings have no key.",
            hint="Key records by the id of their stream, so that all of a stream comes in one partition.",
        )
    elsewhere = sum(partition_of(raw.key or b"", partitions) != raw.partition for raw, _ in readings)
    if elsewhere:
        return Finding(
            level=Level.WARNING,
            about=about,
            found=f"{elsewhere} of {len(readings)} readings are not in the partition Kafka's default partitioner "
            "(murmur2) chooses for their key.",
            hint="Fine while all producers agree. librdkafka does with partitioner=murmur2_random. If partitions were "
            "added lately, streams have moved and begin anew.",
        )
    return Finding(level=Level.OK, about=about, found="by stream, in the partition of murmur2")


def _check_times(readings: Sequence[tuple[RawRecord, Observation]], max_lateness_seconds: float) -> list[Finding]:
    about = "times"
    findings = []
    ahead = [o.time - raw.timestamp for raw, o in readings if 0 <= raw.timestamp < o.time - _CLOCK_SECONDS]
    if ahead:
        findings.append(
            Finding(
                level=Level.WARNING,
                about=about,
                found=f"{len(ahead)} of {len(readings)} readings lie up to {max(ahead):.0f} s ahead of their record.",
                hint="Are the clocks of producers right, and do their times name a zone? Without one they are UTC.",
            )
        )
    newest: dict[str, float] = {}
    behind = []
    for _, observation in readings:
        before = newest.get(observation.stream_id, observation.time)
        if observation.time < before - max_lateness_seconds:
            behind.append(before - observation.time)
        newest[observation.stream_id] = max(before, observation.time)
    if behind:
        findings.append(
            Finding(
                level=Level.WARNING,
                about=about,
                found=f"{len(behind)} of {len(readings)} readings are up to {max(behind):.0f} s older than one of "
                "their stream before them; they become dead letters, `late`.",
                hint="readings.max_lateness_seconds holds readings back and sorts them.",
            )
        )
    if not findings:
        first, last = (format_time(f(o.time for _, o in readings)) for f in (min, max))
        findings.append(Finding(level=Level.OK, about=about, found=f"{first} to {last}, rising in each stream"))
    return findings


def _pinned(package: str) -> str:
    """The version of a package that ours is pinned to.

    >>> _pinned("kafka-python")
    '3.0.12'
    """
    pins = (requirement.partition("==") for requirement in requires("forecaster") or ())
    return next(pin for name, _, pin in pins if name.strip() == package)


def setting_rows(settings: Settings, *, with_defaults: bool) -> list[tuple[str, str]]:
    """Settings by name as they are in force, secrets as ``***``; those that are as they come only on demand."""
    rows = [("delivery", str(settings.delivery))] if with_defaults else []
    for section in (name for name in Settings.model_fields if name != "delivery"):
        values = getattr(settings, section)
        if not isinstance(values, BaseModel):
            if with_defaults or values:
                rows.append((section, json.dumps([group.model_dump(mode="json") for group in values])))
            continue
        plain = type(values)()
        for name in type(values).model_fields:
            value = getattr(values, name)
            if with_defaults or value != getattr(plain, name):
                rows.append((f"{section}.{name}", "***" if isinstance(value, SecretStr) and value else str(value)))
    return rows
