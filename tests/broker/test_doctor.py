"""``forecaster doctor`` as a person runs it, against a real broker."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka_fixtures import MakeTopic

Doctor = Callable[..., "subprocess.CompletedProcess[str]"]
Topics = tuple[str, str, str]


@pytest.fixture
def topics(make_topic: MakeTopic) -> Topics:
    readings, forecasts, dead_letters = (make_topic(name, partitions=3) for name in ("readings", "forecasts", "dlq"))
    return readings, forecasts, dead_letters


@pytest.fixture
def doctor(broker: str, topics: Topics, make_topic: MakeTopic, group_id: str, tmp_path: Path) -> Doctor:
    """Runs the command on the topics and one for the state, with further settings by name."""
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": broker,
        "KAFKA__GROUP_ID": group_id,
        "TOPICS__READINGS": topics[0],
        "TOPICS__FORECASTS": topics[1],
        "TOPICS__DEAD_LETTERS": topics[2],
        "TOPICS__STATE": make_topic("state", partitions=3, configs={"cleanup.policy": "compact"}),
        "REGISTRY__DIRECTORY": str(tmp_path / "models"),
        "ANOMALIES__ENABLED": "false",
    }

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
        environment |= {f"FORECASTER_{name}": value for name, value in {**settings, **more}.items()}
        command = [sys.executable, "-m", "forecaster", "doctor", *arguments]
        return subprocess.run(
            command, env={**environment, "COLUMNS": "400"}, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def levels(output: str) -> dict[str, str]:
    """What each finding is about, and its level (the last of several)."""
    rows = [line.split("  ") for line in output.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    return {row[1]: row[0] for row in cells if row and row[0] in ("ok", "warning", "problem")}


def produce(broker: str, topic: str, *values: bytes, key: bytes | None = None, partition: int | None = None) -> None:
    with contextlib.closing(KafkaProducer(bootstrap_servers=broker)) as producer:
        for value in values:
            producer.send(topic, key=key, value=value, partition=partition)
        producer.flush(timeout=10)


def test_a_good_setup_with_readings_is_ok_but_for_nobody_being_at_work(
    doctor: Doctor, broker: str, topics: Topics, group_id: str, tmp_path: Path
) -> None:
    good = [b'{"stream_id": "pump", "timestamp": "2026-01-01T00:00:0%dZ", "value": 1.5}' % n for n in range(5)]
    produce(broker, topics[0], *good, key=b"pump")

    done = doctor()

    assert done.returncode == 0, done.stdout + done.stderr
    found = levels(done.stdout)
    assert found.pop(f"group {group_id}") == "warning"
    assert "Nobody is at work, 5 records wait." in done.stdout
    assert set(found.values()) == {"ok"}
    assert {"python", "torch", "kafka-python", "registry", "brokers", f"topic {topics[0]}", "keys", "times"} <= set(
        found
    )
    assert "5 readings of 1 streams" in done.stdout
    assert not (tmp_path / "models").exists(), "it only looks"


def test_readings_that_cannot_be_read_are_a_problem_with_the_reason(
    doctor: Doctor, broker: str, topics: Topics
) -> None:
    produce(broker, topics[0], b'{"sensor": "pump", "temperature": 20}', key=b"pump")

    done = doctor()

    assert done.returncode == 1
    assert levels(done.stdout)["readings"] == "problem"
    assert "absent_value 1" in done.stdout
    assert levels(doctor(READINGS__FIELDS='["temperature"]').stdout)["readings"] == "ok"


def test_a_stream_in_two_partitions_is_a_problem(doctor: Doctor, broker: str, topics: Topics) -> None:
    for partition in (0, 1):
        produce(broker, topics[0], b'{"stream_id": "pump", "timestamp": 1767225600, "value": 1}', partition=partition)

    done = doctor()

    assert done.returncode == 1
    assert levels(done.stdout)["keys"] == "problem"


def test_the_size_of_the_sample_is_a_flag(doctor: Doctor, broker: str, topics: Topics) -> None:
    produce(broker, topics[0], *[b'{"stream_id": "pump", "value": %d}' % n for n in range(50)], key=b"pump")

    assert "6 readings of 1 streams" in doctor("--sample", "18").stdout


def test_topics_that_do_not_exist_are_a_problem_and_the_rest_is_checked_all_the_same(doctor: Doctor) -> None:
    done = doctor(TOPICS__FORECASTS="no-such-topic")

    assert done.returncode == 1
    found = levels(done.stdout)
    assert found["topic no-such-topic"] == "problem"
    assert "readings" in found


def test_a_broker_that_is_not_there_is_a_problem_and_the_rest_is_checked_all_the_same(doctor: Doctor) -> None:
    done = doctor("--bootstrap-servers", "127.0.0.1:1", KAFKA__REQUEST_TIMEOUT_SECONDS="1")

    assert done.returncode == 1
    found = levels(done.stdout)
    assert found["brokers"] == "problem"
    assert found["torch"] in ("ok", "warning")
    assert "Traceback" not in done.stderr


def test_settings_that_were_set_are_shown_and_secrets_are_not(doctor: Doctor, topics: Topics) -> None:
    done = doctor(KAFKA__SASL_PASSWORD="geheim", FORECAST__HORIZON="24")

    shown = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if "." in line.split("  ")[0]}
    assert shown["kafka.sasl_password"] == ["***"]
    assert shown["forecast.horizon"] == ["24"]
    assert shown["topics.readings"] == [topics[0]]
    assert "geheim" not in done.stdout + done.stderr
    assert "streams.ring_steps" not in shown
    assert "streams.ring_steps" in doctor("--settings").stdout


def test_a_wrong_setting_ends_with_2_before_anything_is_asked(doctor: Doctor) -> None:
    done = doctor(FORECAST__HORIZON="0")

    assert done.returncode == 2
    assert "forecast.horizon" in done.stderr
    assert done.stdout == ""
