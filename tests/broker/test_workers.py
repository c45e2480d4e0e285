"""`forecaster run --workers 2` on a real broker: one endpoint, a worker that is killed, a supervisor that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from factories import make_raw
from kafka import KafkaProducer
from kafka_fixtures import MakeTopic

PARTITIONS = 4
PATIENCE_SECONDS = 120.0
"""A busy machine takes long to load torch in two processes."""


class Group:
    """Topics, a supervisor over two workers, and readings for them."""

    def __init__(self, broker: str, make_topic: MakeTopic, group_id: str, directory: Path) -> None:
        names = {name: make_topic(name, partitions=PARTITIONS) for name in ("readings", "forecasts", "anomalies")}
        names["dead_letters"] = make_topic("dlq", partitions=PARTITIONS)
        names["state"] = make_topic("state", partitions=PARTITIONS, configs={"cleanup.policy": "compact"})
        ours = {
            **{f"TOPICS__{name.upper()}": topic for name, topic in names.items()},
            "KAFKA__BOOTSTRAP_SERVERS": broker,
            "KAFKA__GROUP_ID": group_id,
            "KAFKA__SESSION_TIMEOUT_SECONDS": "6",
            "TRAINING__MODE": "off",
            "TELEMETRY__PORT": "0",
            "PUBLISH__WHEN": "every_nth",
            "PUBLISH__NTH": "3",
            "REGISTRY__DIRECTORY": str(directory / "models"),
        }
        self.environment = {**os.environ, **{f"FORECASTER_{name}": value for name, value in ours.items()}}
        self.readings = names["readings"]
        self.log = directory / "log"
        self._sent = 0
        self._producer = KafkaProducer(bootstrap_servers=broker, acks="all")

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The supervisor until the block ends; killed where the test did not stop it."""
        command = [sys.executable, "-m", "forecaster", "run", "--workers", "2", "--log-format", "json"]
        with self.log.open("ab") as output:
            process = subprocess.Popen(command, env=self.environment, stderr=output)
        try:
            yield process
        except AssertionError as error:
            error.add_note("".join(self.log.read_text().splitlines(keepends=True)[-30:]))
            raise
        finally:
            process.kill()
            process.wait()

    def send(self, count: int) -> None:
        """So many readings of twelve streams, one in thirty broken."""
        for number in range(self._sent, self._sent + count):
            stream = number % 12
            value = "broken" if number % 30 == 7 else float(number % 17)
            made = make_raw(number, stream=f"s{stream}", value=value)
            self._producer.send(self.readings, key=made.key, value=made.value, partition=stream % PARTITIONS)
        self._sent += count
        self._producer.flush(timeout=60)

    def said(self, message: str) -> list[dict[str, object]]:
        """Lines of the supervisor's log with this message."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
        return [found for found in map(json.loads, lines) if found.get("message") == message]

    def get(self, route: str) -> str:
        """What the supervisor's endpoint answers; empty while it does not answer well."""
        found = self.said("supervising")
        if not found:
            return ""
        try:
            with urlopen(f"{found[0]['url']}{route}", timeout=10) as reply:
                return str(reply.read().decode())
        except (HTTPError, URLError, OSError):
            return ""

    def is_complete(self) -> bool:
        """Whether `forecaster verify --complete` finds nothing wrong; it prints what."""
        command = [sys.executable, "-m", "forecaster", "verify", "--complete"]
        found = subprocess.run(command, env=self.environment, capture_output=True, timeout=120, check=False)
        self.verified = found.stdout.decode()
        return found.returncode == 0

    def close(self) -> None:
        self._producer.close(timeout=10)


@pytest.fixture
def group(broker: str, make_topic: MakeTopic, group_id: str, tmp_path: Path) -> Iterator[Group]:
    made = Group(broker, make_topic, group_id, tmp_path)
    yield made
    made.close()


def wait_until(condition: Callable[[], object], what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert process is None or process.poll() is None, f"the supervisor ended before: {what}"
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:g} s: {what}"
        time.sleep(0.2)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_of_two_workers_one_is_killed_and_no_answer_is_lost_nor_one_withheld_that_should_not_be(group: Group) -> None:
    group.send(400)
    with group.running() as supervisor:
        wait_until(lambda: group.get("readyz"), "both workers are ready", supervisor)
        victim = int(str(group.said("worker started")[0]["pid"]))
        group.send(200)
        os.kill(victim, signal.SIGKILL)
        group.send(200)
        wait_until(lambda: len(group.said("worker up")) >= 3, "another worker is up in its place", supervisor)
        wait_until(lambda: group.get("readyz"), "both workers are ready again", supervisor)
        wait_until(group.is_complete, "every reading is answered", supervisor)

        metrics, stream = group.get("metrics"), json.loads(group.get("streams/s3"))
        workers = [int(str(found["pid"])) for found in group.said("worker up")]
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(60) == 0

    assert "\nforecaster_workers 2.0\n" in metrics
    assert "\nforecaster_worker_restarts_total 1.0\n" in metrics
    assert {line for line in metrics.splitlines() if line.startswith("forecaster_owned_partitions{")} == {
        f'forecaster_owned_partitions{{worker="{number}"}} 2.0' for number in range(2)
    }
    assert stream["stream_id"] == "s3"
    assert not any(is_running(pid) for pid in workers)
    withheld = next(line for line in group.verified.splitlines() if line.startswith("withheld"))
    assert int(withheld.split()[1]) > 400, group.verified


def test_workers_stop_when_their_supervisor_is_killed(group: Group) -> None:
    with group.running() as supervisor:
        wait_until(lambda: len(group.said("worker up")) == 2, "both workers are up", supervisor)
        workers = [int(str(found["pid"])) for found in group.said("worker up")]
        supervisor.kill()
        supervisor.wait()

        wait_until(lambda: not any(is_running(pid) for pid in workers), "the workers have ended")
    assert len(group.said("the supervisor is gone; stopping")) == 2
