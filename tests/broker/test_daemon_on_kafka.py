"""The command line against a real broker: readings in, one answer each out, whatever stops and starts in between."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import msgspec
import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka_fixtures import MakeTopic

from forecaster.codecs.avro import AvroSchema
from forecaster.codecs.avro_codec import reading_schema
from forecaster.codecs.forecast_avro import read_forecast
from forecaster.records import OutRecord
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_sink import KafkaSink

PARTITIONS = 4
IS_LONG = bool(os.environ.get("LONG_TESTS"))
STOP_SECONDS = 5.0
"""Longest that SIGTERM may take, the commit of what was answered included; on a quiet machine it takes about one."""
PATIENCE_SECONDS = 2_700.0 if IS_LONG else 600.0
"""A file is one stream, whose readings are stepped one after the other: the waves of the whole corpus are small."""


class Topics:
    """The topics of one test, and an independent reader's view of them: committed records alone."""

    def __init__(self, broker: str, make_topic: MakeTopic) -> None:
        self.broker = broker
        self.readings, self.forecasts, self.dead_letters = (
            make_topic(name, partitions=PARTITIONS) for name in ("readings", "forecasts", "dlq")
        )
        self.anomalies = make_topic("anomalies", partitions=PARTITIONS)
        self.state = make_topic("state", partitions=PARTITIONS, configs={"cleanup.policy": "compact"})
        self._answered = 0
        self._reader = self._reader_of(self.forecasts, self.dead_letters)

    def environment(self, group_id: str, tmp_path: Path, **settings: str) -> dict[str, str]:
        ours = {
            "KAFKA__BOOTSTRAP_SERVERS": self.broker,
            "KAFKA__GROUP_ID": group_id,
            "TOPICS__READINGS": self.readings,
            "TOPICS__FORECASTS": self.forecasts,
            "TOPICS__DEAD_LETTERS": self.dead_letters,
            "TOPICS__ANOMALIES": self.anomalies,
            "TOPICS__STATE": self.state,
            "TRAINING__MODE": "off",
            "TELEMETRY__PORT": "0",
            "REGISTRY__DIRECTORY": str(tmp_path / "models"),
            **settings,
        }
        return {**os.environ, **{f"FORECASTER_{name}": value for name, value in ours.items()}}

    def sent(self) -> int:
        """Readings in the topic; they are sent without transactions, so that their offsets have no gaps."""
        partitions = [TopicPartition(self.readings, number) for number in range(PARTITIONS)]
        return sum(self._reader.end_offsets(partitions).values())

    def answered(self) -> int:
        """Answers committed so far."""
        while batches := self._reader.poll(timeout_ms=100):
            self._answered += sum(map(len, batches.values()))
        return self._answered

    def close(self) -> None:
        self._reader.close()

    def _reader_of(self, *topics: str) -> KafkaConsumer:
        reader = KafkaConsumer(
            bootstrap_servers=self.broker, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        reader.assign([TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)])
        return reader

    def answers(self) -> tuple[Counter[tuple[int, int]], Counter[str], list[dict]]:
        """How often each source position is answered; dead letters by reason; all forecasts in partition order."""
        consumer = self._reader_of(self.forecasts, self.dead_letters)
        try:
            left = consumer.end_offsets(consumer.assignment())
            positions: Counter[tuple[int, int]] = Counter()
            reasons: Counter[str] = Counter()
            forecasts = []
            while any(consumer.position(tp) < end for tp, end in left.items()):
                for records in consumer.poll(timeout_ms=500).values():
                    for record in records:
                        if record.topic == self.forecasts:
                            forecast = msgspec.to_builtins(read_forecast(record.value))
                            forecasts.append(forecast)
                            position = forecast["source"]["partition"], forecast["source"]["offset"]
                            assert record.key.decode() == forecast["stream_id"]
                        else:
                            headers = {name: value.decode() for name, value in record.headers}
                            reasons[headers["reason"]] += 1
                            position = int(headers["source.partition"]), int(headers["source.offset"])
                        assert position[0] == record.partition, "an answer stands in its reading's partition"
                        positions[position] += 1
            return positions, reasons, forecasts
        finally:
            consumer.close()


@pytest.fixture
def topics(broker: str, make_topic: MakeTopic) -> Iterator[Topics]:
    made = Topics(broker, make_topic)
    yield made
    made.close()


def replay(environment: dict[str, str], *paths: Path) -> None:
    command = [sys.executable, "-m", "forecaster", "replay", *map(str, paths)]
    command += ["--topic", environment["FORECASTER_TOPICS__READINGS"]]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)


@contextmanager
def running(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``forecaster run`` until the block ends; killed where the test did not stop it."""
    with log.open("ab") as output:
        worker = subprocess.Popen([sys.executable, "-m", "forecaster", "run"], env=environment, stderr=output)
        try:
            yield worker
        except AssertionError as error:
            error.add_note("".join(log.read_text().splitlines(keepends=True)[-20:]))
            raise
        finally:
            worker.kill()
            worker.wait()


def stop(worker: subprocess.Popen[bytes]) -> float:
    """SIGTERM; how long it took to end well."""
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=30) == 0
    return time.monotonic() - began


def wait_for(topics: Topics, answers: int, worker: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (found := topics.answered()) < answers:
        assert worker.poll() is None, "the worker ended"
        assert time.monotonic() < deadline, f"{found} of {answers} answers after {seconds} s"
        time.sleep(0.2)


def assert_each_answered_once(topics: Topics) -> tuple[Counter[str], list[dict]]:
    readings = topics.sent()
    positions, reasons, forecasts = topics.answers()
    assert len(positions) == readings, f"{readings - len(positions)} of {readings} readings have no answer"
    assert positions.total() == readings, f"{positions.total() - readings} answers too many"
    sequences: dict[str, int] = {}
    for forecast in forecasts:
        stream = forecast["stream_id"]
        assert forecast["source"]["offset"] > sequences.get(stream, -1), f"{stream} is answered out of order"
        sequences[stream] = forecast["source"]["offset"]
    return reasons, forecasts


def write_streams(directory: Path, *, streams: int, rows: int, seed: int) -> list[Path]:
    """CSV files of random walks, some of whose rows are repeated, late, missing or no numbers."""
    rng, chooser = np.random.default_rng(seed), random.Random(seed)
    paths = []
    for number in range(streams):
        values = rng.normal(size=rows).cumsum()
        lines = [f"2026-01-01 {k // 3600:02}:{k // 60 % 60:02}:{k % 60:02},{values[k]:.4f}" for k in range(rows)]
        for _ in range(rows // 50):
            at = chooser.randrange(5, rows)
            time_text, _ = lines[at].split(",")
            lines[at] = chooser.choice([lines[at - 1], lines[at - 4], f"{time_text},", f"{time_text},broken"])
        path = directory / f"walk-{number}.csv"
        path.write_text("\n".join(["timestamp,value", *lines]) + "\n")
        paths.append(path)
    return paths


def test_each_reading_is_answered_once_over_a_stop_and_a_restart(topics: Topics, group_id: str, tmp_path: Path) -> None:
    environment = topics.environment(group_id, tmp_path)
    replay(environment, *write_streams(tmp_path, streams=12, rows=1_500, seed=4))
    readings = topics.sent()

    with running(environment, tmp_path / "log") as worker:
        wait_for(topics, readings // 3, worker, 60)
        assert stop(worker) < STOP_SECONDS
    answered_at_stop = topics.answered()
    with running(environment, tmp_path / "log") as worker:
        wait_for(topics, readings, worker, 120)
        assert stop(worker) < STOP_SECONDS

    assert answered_at_stop < readings, "the stop came before the end, or it shows nothing"
    reasons, _ = assert_each_answered_once(topics)
    assert {"duplicate", "late", "wrong_type"} <= set(reasons) <= {"duplicate", "conflict", "late", "wrong_type"}


def test_avro_in_and_avro_out_is_answered_once_and_audited(topics: Topics, group_id: str, tmp_path: Path) -> None:
    environment = topics.environment(group_id, tmp_path, PUBLISH__FORMAT="avro")
    schema = AvroSchema(reading_schema())
    with closing(KafkaProducer(bootstrap_servers=topics.broker)) as producer:
        for number in range(900):
            lap, stream = divmod(number, 9)
            record = {
                "stream_id": f"s{stream}",
                "timestamp": 1_767_225_600_000_000 + lap * 1_000_000,
                "value": lap % 7.0,
            }
            body = schema.write(record) if number % 100 else schema.write(record)[:-1]
            producer.send(topics.readings, key=f"s{stream}".encode(), value=body)
        producer.flush()

    with running(environment, tmp_path / "log") as worker:
        wait_for(topics, 900, worker, 60)
        assert stop(worker) < STOP_SECONDS

    reasons, forecasts = assert_each_answered_once(topics)
    assert reasons == {"not_avro": 9}
    assert len(forecasts) == 891
    audit = [sys.executable, "-m", "forecaster", "verify", "--complete"]
    found = subprocess.run(audit, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_delivered_at_least_once_a_kill_repeats_answers_but_loses_none(
    topics: Topics, group_id: str, tmp_path: Path
) -> None:
    environment = topics.environment(group_id, tmp_path, DELIVERY="at_least_once")
    replay(environment, *write_streams(tmp_path, streams=8, rows=1_500, seed=5))
    readings = topics.sent()

    with running(environment, tmp_path / "log") as worker:
        wait_for(topics, readings // 2, worker, 60)
        worker.kill()
    with running(environment, tmp_path / "log") as worker:
        deadline = time.monotonic() + 120
        while len(topics.answers()[0]) < readings:
            assert time.monotonic() < deadline
            assert worker.poll() is None
            time.sleep(1.0)
        stop(worker)

    positions, _, _ = topics.answers()
    assert set(positions) == {
        (partition, offset) for partition in range(PARTITIONS) for offset in range(_end(topics, partition))
    }


def test_a_refused_reading_as_large_as_a_broker_takes_ends_nothing(
    topics: Topics, group_id: str, connection: KafkaConnection, tmp_path: Path
) -> None:
    """With its headers the dead letter would be larger than the broker takes: it is cut."""
    environment = topics.environment(group_id, tmp_path)
    sink = KafkaSink(connection, compression="none")
    sink.send(OutRecord(topics.readings, 0, b"a", b"x" * 1_048_000))
    sink.send(OutRecord(topics.readings, 0, b"a", b'{"timestamp": "2026-01-01T00:00:00Z", "value": 1.0}'))
    sink.flush(10.0)
    sink.close()

    with running(environment, tmp_path / "log") as worker:
        wait_for(topics, 2, worker, 60)
        stop(worker)

    reasons, forecasts = assert_each_answered_once(topics)
    assert reasons == {"oversized_payload": 1}
    assert len(forecasts) == 1


def test_worker_trains_from_the_topic_and_the_model_answers(topics: Topics, group_id: str, tmp_path: Path) -> None:
    """The child reads the readings back from Kafka; its model takes over at a boundary, without a restart."""
    environment = topics.environment(
        group_id,
        tmp_path,
        TRAINING__MODE="child",
        TRAINING__STEPS="40",
        TRAINING__EVERY="1h",
        TRAINING__MIN_READINGS="3000",
        ENGINE__BOUNDARY_RECORDS="64",
        MODEL__HIDDEN="16",
    )
    directory = tmp_path / "waves"
    directory.mkdir()
    steps = np.arange(1_500)
    for number in range(4):
        noise = np.random.default_rng(number).normal(size=len(steps))
        values = np.sin(2 * np.pi * steps / 30 + number) + 0.05 * noise
        rows = [f"{1_767_225_600 + 10 * k},{value:.5f}" for k, value in zip(steps, values, strict=True)]
        (directory / f"wave-{number}.csv").write_text("\n".join(["timestamp,value", *rows]) + "\n")
    replay(environment, directory)

    with running(environment, tmp_path / "log") as worker:
        url = _telemetry_url(tmp_path / "log", worker)
        deadline = time.monotonic() + 120
        while 'forecaster_training_runs_total{group="default",result="ok_promoted"} 1.0' not in _get(f"{url}metrics"):
            assert time.monotonic() < deadline, _get(f"{url}metrics")
            assert worker.poll() is None
            time.sleep(0.5)
        more = directory / "more"
        more.mkdir()
        for number in range(4):
            later = [f"{1_767_225_600 + 10 * k},{np.sin(2 * np.pi * k / 30 + number):.5f}" for k in range(1_500, 1_700)]
            (more / f"wave-{number}.csv").write_text("\n".join(["timestamp,value", *later]) + "\n")
        replay(environment, more)
        wait_for(topics, topics.sent(), worker, 60)
        stop(worker)

    _, forecasts = assert_each_answered_once(topics)
    last = {forecast["stream_id"]: forecast for forecast in forecasts}
    assert len(last) == 4
    assert {forecast["status"] for forecast in last.values()} == {"ok"}
    assert len({forecast["model"] for forecast in last.values()}) == 1


@pytest.mark.data
@pytest.mark.slow
def test_all_of_nab_and_twenty_heart_rates_are_answered_once(
    topics: Topics, group_id: str, tmp_path: Path, data_directory: Path
) -> None:
    """Real files with their repeated stamps, clock changes and gaps, replayed flat out; in short, one with a clock
    change, one that stands still for hours, and a heart rate."""
    environment = topics.environment(group_id, tmp_path)
    heart_rates = sorted((data_directory / "heart/stress_predict").glob("S*/HR.csv"))[:20]
    assert len(heart_rates) == 20
    files = [*sorted((data_directory / "nab/data").glob("*/*.csv")), *heart_rates]
    if not IS_LONG:
        files = [*(f for f in files if f.stem in {"ec2_network_in_5abac7", "rogue_agent_key_hold"}), heart_rates[0]]
    replay(environment, *files)
    readings = topics.sent()
    heads = sum(2 if file.name == "HR.csv" else 1 for file in files)  # start and rate; names of the columns
    assert readings == sum(len(file.read_text().splitlines()) for file in files) - heads

    with running(environment, tmp_path / "log") as worker:
        wait_for(topics, readings // 2, worker, PATIENCE_SECONDS)
        assert stop(worker) < STOP_SECONDS
    with running(environment, tmp_path / "log") as worker:
        wait_for(topics, readings, worker, PATIENCE_SECONDS)
        assert stop(worker) < STOP_SECONDS

    reasons, forecasts = assert_each_answered_once(topics)
    assert reasons["conflict"] >= 1, "the clock change"
    assert {"gap", "flat"} <= {forecast["status"] for forecast in forecasts}


def _end(topics: Topics, partition: int) -> int:
    consumer = KafkaConsumer(bootstrap_servers=topics.broker)
    try:
        tp = TopicPartition(topics.readings, partition)
        return int(consumer.end_offsets([tp])[tp])
    finally:
        consumer.close()


def _telemetry_url(log: Path, worker: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if entry["message"] == "started":
                return str(entry["url"])
        assert worker.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def _get(url: str) -> str:
    with urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())
