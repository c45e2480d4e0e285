"""``forecaster topics`` as a person runs it, against a real broker."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable

import pytest
from kafka_fixtures import MakeTopic

from forecaster.transports.kafka_admin import ClusterAdmin
from forecaster.transports.kafka_client import KafkaConnection

Run = Callable[..., "subprocess.CompletedProcess[str]"]

NARROW = ("readings", "forecasts", "anomalies", "dlq", "state")
"""Topics with the partitions that are asked for; that of models has one."""


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def topics(broker: str, prefix: str) -> Run:
    """Runs the command on six topics whose names begin with ``prefix``."""
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": broker,
        "TOPICS__READINGS": f"{prefix}.readings",
        "TOPICS__FORECASTS": f"{prefix}.forecasts",
        "TOPICS__DEAD_LETTERS": f"{prefix}.dlq",
        "TOPICS__ANOMALIES": f"{prefix}.anomalies",
        "TOPICS__STATE": f"{prefix}.state",
        "TOPICS__MODELS": f"{prefix}.models",
    }

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
        environment |= {f"FORECASTER_{name}": value for name, value in {**settings, **more}.items()}
        command = [sys.executable, "-m", "forecaster", "topics", *arguments]
        return subprocess.run(
            command, env={**environment, "COLUMNS": "200"}, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def partitions(connection: KafkaConnection, prefix: str) -> dict[str, int]:
    names = (*NARROW, "models")
    with ClusterAdmin(connection) as admin:
        described = admin.describe_topics([f"{prefix}.{name}" for name in names])
    return {name.removeprefix(f"{prefix}."): topic.partitions for name, topic in described.items()}


def test_create_makes_all_of_them_and_check_is_then_content(
    topics: Run, connection: KafkaConnection, prefix: str
) -> None:
    created = topics("create", "--partitions", "3", "--retention", "2d")
    checked = topics("check")

    assert created.returncode == 0
    assert partitions(connection, prefix) == {**dict.fromkeys(NARROW, 3), "models": 1}
    assert checked.returncode == 0
    assert checked.stdout.count("3 partitions × 1 replicas, keeps 2 d") == 4
    assert "no problems" in checked.stdout


def test_create_twice_changes_nothing_and_is_no_error(topics: Run, connection: KafkaConnection, prefix: str) -> None:
    topics("create", "--partitions", "2")

    again = topics("create", "--partitions", "5")

    assert again.returncode == 0
    assert again.stdout.count("exists, left as it is") == 6
    assert partitions(connection, prefix) == {**dict.fromkeys(NARROW, 2), "models": 1}


def test_create_follows_the_partitions_of_readings_that_are_there_already(
    topics: Run, connection: KafkaConnection, make_topic: MakeTopic, prefix: str
) -> None:
    existing = make_topic(partitions=5)

    created = topics("create", TOPICS__READINGS=existing)

    assert created.returncode == 0
    assert partitions(connection, prefix) == {**dict.fromkeys(NARROW[1:], 5), "models": 1}


def test_check_of_topics_that_are_not_there_ends_with_1_and_the_command_to_make_them(topics: Run) -> None:
    checked = topics("check")

    assert checked.returncode == 1
    assert checked.stdout.count("It does not exist.") == 6
    assert "forecaster topics create" in checked.stdout


def test_check_finds_partition_counts_that_differ(topics: Run, make_topic: MakeTopic) -> None:
    topics("create", "--partitions", "2")
    wider = make_topic(partitions=4)

    checked = topics("check", TOPICS__READINGS=wider)

    assert checked.returncode == 1
    assert checked.stdout.count(f"It has 2 partitions, {wider} has 4") == 4


def test_describe_shows_what_is_there_and_what_is_not(topics: Run, make_topic: MakeTopic, prefix: str) -> None:
    existing = make_topic(partitions=4, configs={"retention.ms": "-1", "cleanup.policy": "compact"})

    described = topics("describe", TOPICS__READINGS=existing)

    assert described.returncode == 0
    rows = {line.split()[0]: line.split()[1:] for line in described.stdout.splitlines()}
    assert rows[existing] == ["4", "1", "for", "ever", "1,048,588", "bytes", "compact"]
    assert rows[f"{prefix}.forecasts"] == ["does", "not", "exist"]


def test_too_many_replicas_are_told_in_one_line_without_a_traceback(topics: Run) -> None:
    created = topics("create", "--replication", "9")

    assert created.returncode == 1
    assert "9 replicas failed" in created.stderr
    assert "Traceback" not in created.stderr


def test_partitions_out_of_bounds_are_a_wrong_setting(topics: Run) -> None:
    created = topics("create", "--partitions", "0")

    assert created.returncode == 2
    assert "topics.partitions" in created.stderr


def test_a_broker_that_is_not_there_is_told_with_a_hint(topics: Run) -> None:
    checked = topics("check", "--bootstrap-servers", "127.0.0.1:1", KAFKA__REQUEST_TIMEOUT_SECONDS="1")

    assert checked.returncode == 1
    assert "No broker answered at 127.0.0.1:1" in checked.stderr
    assert "kafka.bootstrap_servers" in checked.stderr
