"""`forecaster state` beside a running worker, and `forecaster reset` behind it, on a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka_fixtures import MakeTopic

from forecaster.cli import main as command_line

PARTITIONS = 2
STREAMS = [f"ward/{number}" for number in range(6)]


class Ward:
    """Topics, settings and readings of six streams; commands run in this process, workers in their own."""

    def __init__(
        self, broker: str, make_topic: MakeTopic, group_id: str, directory: Path, patch: pytest.MonkeyPatch
    ) -> None:
        self.broker, self.group_id, self.log = broker, group_id, directory / "log"
        self.readings, self.forecasts, self.dead_letters = (
            make_topic(name, partitions=PARTITIONS) for name in ("readings", "forecasts", "dlq")
        )
        self.state = make_topic("state", partitions=PARTITIONS, configs={"cleanup.policy": "compact"})
        self.sent = 0
        settings = {
            "DELIVERY": "exactly_once",
            "KAFKA__BOOTSTRAP_SERVERS": broker,
            "KAFKA__GROUP_ID": group_id,
            "KAFKA__INSTANCE_ID": "bed-side",
            "TOPICS__READINGS": self.readings,
            "TOPICS__FORECASTS": self.forecasts,
            "TOPICS__DEAD_LETTERS": self.dead_letters,
            "TOPICS__STATE": self.state,
            "STATE__FLUSH_SECONDS": "0",
            "TRAINING__MODE": "off",
            "TELEMETRY__PORT": "0",
            "REGISTRY__DIRECTORY": str(directory / "models"),
            "ANOMALIES__ENABLED": "false",
        }
        for name, value in settings.items():
            patch.setenv(f"FORECASTER_{name}", value)

    def send(self, turns: int) -> None:
        """Readings of every stream, in the partitions that Kafka's default partitioner chooses."""
        with closing(KafkaProducer(bootstrap_servers=self.broker, acks="all")) as producer:
            for _ in range(turns):
                for stream in STREAMS:
                    at = 1_767_225_600 + self.sent // len(STREAMS)
                    body = {"stream_id": stream, "timestamp": at, "value": float(self.sent % 17)}
                    producer.send(self.readings, key=stream.encode(), value=json.dumps(body).encode())
                    self.sent += 1
            producer.flush(10)

    @contextmanager
    def worker(self, *, answers: int) -> Iterator[None]:
        """A worker that has given this many answers in all; stopped in good order at the end."""
        with self.log.open("ab") as output:
            process = subprocess.Popen([sys.executable, "-m", "forecaster", "run"], env=os.environ, stderr=output)
        try:
            deadline = time.monotonic() + 120
            while (found := len(self.answers())) < answers:
                assert process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, f"{found} of {answers} answers\n{self.log.read_text()}"
                time.sleep(0.2)
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.wait()

    def records(self, topic: str) -> list[Any]:
        """All committed records of a topic."""
        with closing(KafkaConsumer(bootstrap_servers=self.broker, isolation_level="read_committed")) as consumer:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            ends = consumer.end_offsets(partitions)
            consumer.assign(partitions)
            consumer.seek_to_beginning()
            records = []
            while any(consumer.position(tp) < end for tp, end in ends.items()):
                records += [record for batch in consumer.poll(timeout_ms=200).values() for record in batch]
            return records

    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in self.records(self.forecasts)]

    def kept_keys(self) -> set[tuple[int, str]]:
        """What the state topic holds once it is compacted."""
        newest = {(record.partition, record.key.decode()): record.value for record in self.records(self.state)}
        return {key for key, value in newest.items() if value is not None}


@pytest.fixture
def ward(broker: str, make_topic: MakeTopic, group_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    return Ward(broker, make_topic, group_id, tmp_path, monkeypatch)


def test_state_is_shown_beside_a_running_worker(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    ward.send(turns=5)
    with ward.worker(answers=30):
        assert command_line.main(["state", "show", "--stream", "ward/3", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert command_line.main(["state", "summary", "--json"]) == 0
        partitions = json.loads(capsys.readouterr().out)
        assert command_line.main(["state", "show", "--stream", "ward/three"]) == 1
        unknown = capsys.readouterr().err

    last = [answer for answer in ward.answers() if answer["stream_id"] == "ward/3"][-1]
    assert (shown["seq"], shown["value"], shown["status"]) == (5, last["value"], last["status"])
    assert shown["partition"] == last["source"]["partition"]
    assert shown["kept"]["offset"] > last["source"]["offset"]
    assert [row["partition"] for row in partitions] == [0, 1]
    assert sum(row["streams"] for row in partitions) == len(STREAMS)
    assert "holds no stream 'ward/three'; it holds" in unknown


def test_a_reset_is_refused_while_somebody_is_in_the_group(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    ward.send(turns=2)
    with ward.worker(answers=12):
        assert command_line.main(["reset", "--yes"]) == 1
        told = capsys.readouterr().err

    assert "has 1 member: bed-side" in told
    assert ward.kept_keys(), "nothing was touched"


def test_after_a_reset_everything_is_answered_anew_also_in_added_partitions(
    ward: Ward, admin: KafkaAdminClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ward.send(turns=3)
    with ward.worker(answers=18):
        pass
    admin.create_partitions(dict.fromkeys((ward.readings, ward.forecasts, ward.dead_letters), 3))

    monkeypatch.setattr("builtins.input", lambda _: "no")
    assert command_line.main(["reset"]) == 1
    assert ward.kept_keys()
    assert command_line.main(["reset", "--yes"]) == 0
    told = capsys.readouterr().out

    assert "Nothing was changed." in told
    assert "with up to 18 readings to answer anew" in told
    assert "1 partitions added" in told
    assert ward.kept_keys() == set()
    assert len(ward.answers()) == 18, "answers are left alone"
    with ward.worker(answers=36):
        pass
    answers = ward.answers()
    assert set(Counter((a["source"]["partition"], a["source"]["offset"]) for a in answers).values()) == {2}
    for stream in STREAMS:
        assert [answer["seq"] for answer in answers if answer["stream_id"] == stream] == [1, 2, 3, 1, 2, 3]
    assert {partition for partition, key in ward.kept_keys() if key == "meta"} == {0, 1, 2}


def test_a_reset_that_keeps_offsets_goes_on_with_nothing_learnt(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    ward.send(turns=3)
    with ward.worker(answers=18):
        pass

    assert command_line.main(["reset", "--keep-offsets", "--yes"]) == 0
    assert "no reading is answered a second time" in capsys.readouterr().out
    ward.send(turns=1)
    with ward.worker(answers=24):
        pass

    for stream in STREAMS:
        assert [answer["seq"] for answer in ward.answers() if answer["stream_id"] == stream] == [1, 2, 3, 1]


def test_a_group_that_never_was_is_reset_without_harm(ward: Ward) -> None:
    assert command_line.main(["reset", "--yes"]) == 0
    assert command_line.main(["reset", "--yes", "--keep-offsets"]) == 0


def test_without_a_state_topic_it_says_so(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORECASTER_TOPICS__STATE", "never-made")

    assert command_line.main(["state", "summary"]) == 1

    told = capsys.readouterr().err
    assert "Topic never-made does not exist" in told
    assert "`forecaster topics create`" in told
