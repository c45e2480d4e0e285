"""A real Apache Kafka broker as a child process: fetched by Maven, started in about three seconds, killed at will.

Everything that can be made once is kept in ``.kafka/`` beside the tests: the jars, a class-data archive of the JVM,
and a formatted log directory that each broker copies. ``python tests/kafka_broker.py`` runs one in the foreground.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import contextlib
import fcntl
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".kafka"
LIBS = CACHE / "libs"
ARCHIVE = CACHE / "broker.jsa"
FORMATTED = CACHE / "formatted"
POM = HERE / "kafka-broker.pom.xml"
CLUSTER_ID = "Zm9yZWNhc3Rlci10ZXN0cw"

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class BrokerError(RuntimeError):
    """The broker could not be made to run; the message holds the end of what the JVM said."""


def why_unavailable() -> str | None:
    """One line that says why no broker can run here and how to change that; ``None`` when one can."""
    if shutil.which("java") is None:
        return "No broker: `java` is not installed. Install a JRE 17 or newer, or set KAFKA_BOOTSTRAP=host:port."
    if not _jars() and shutil.which("mvn") is None:
        return "No broker: `mvn` is not installed. Install Maven 3.8 or newer, or set KAFKA_BOOTSTRAP=host:port."
    return None


class Broker:
    """One node of Kafka with a life of its own: start, stop, kill, pause, restart on the same port and data.

    Args:
        node_id: of this node.
        voters: controller port by node id, the same on all nodes of a cluster; ``None`` is a cluster of one.
        port: for clients; a free one where ``None``.
        overrides: further lines of ``server.properties``.

    A new broker has empty data in a temporary directory, which `close` removes.
    """

    def __init__(
        self,
        *,
        node_id: int = 1,
        voters: Mapping[int, int] | None = None,
        port: int | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> None:
        self.node_id = node_id
        self.port = free_port() if port is None else port
        self.voters = dict(voters) if voters is not None else {node_id: free_port()}
        self.directory = Path(tempfile.mkdtemp(prefix="kafka-broker-"))
        self._overrides = dict(overrides or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._paused = False
        atexit.register(self.close)

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """True while the process lives, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the JVM."""
        if self._process is None:
            raise BrokerError("The broker has not been started.")
        return self._process.pid

    def start(self, *, wait: bool = True) -> Broker:
        """Start on the data of last time, and return when clients are answered (unless ``wait`` is false).

        Raises:
            BrokerError: the process ended, or did not answer within a minute.
        """
        if self.is_running:
            return self
        self._end(signal.SIGKILL)  # of one that died by itself, what is left
        prepare()
        data = self.directory / "data"
        if not data.exists():
            _copy_formatted(data, self.node_id)
        (self.directory / "server.properties").write_text(_properties(self._settings(data)))
        self._process = _spawn(self.directory, jvm=[f"-XX:SharedArchiveFile={ARCHIVE}", "-Xshare:auto"])
        self._guard = _guard(self._process.pid)
        self._paused = False
        if wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self, *, nodes: int = 1) -> None:
        """Return when this broker answers clients and knows at least ``nodes`` brokers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.is_running:
                raise BrokerError(f"The broker ended while starting: {self._last_words()}")
            if _answers(self.port) and _brokers_known(self.bootstrap) >= nodes:
                return
            time.sleep(0.05)
        raise BrokerError(f"The broker did not answer on {self.bootstrap} in {START_SECONDS:g} s: {self._last_words()}")

    def stop(self) -> None:
        """Orderly end (SIGTERM); SIGKILL when it takes too long. Data stays. Idempotent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: the machine lost power. Data stays. Idempotent."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Orderly end and start on the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        os.kill(self.pid, signal.SIGCONT)
        self._paused = False

    def close(self) -> None:
        """Kill and remove the data. Idempotent."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> Broker:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, how: signal.Signals) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        if self._process is None or not self.is_running:
            return
        if self._paused:
            self.resume()
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def _last_words(self) -> str:
        text = (self.directory / "output.log").read_text(errors="replace")
        return text[-2000:] or "it said nothing"

    def _settings(self, data: Path) -> dict[str, str]:
        replicas = str(min(3, len(self.voters)))
        return {
            "process.roles": "broker,controller",
            "node.id": str(self.node_id),
            "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{p}" for n, p in sorted(self.voters.items())),
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.voters[self.node_id]}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(data),
            "auto.create.topics.enable": "false",
            "num.partitions": "1",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": str(max(1, len(self.voters) - 1)),
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": "1",
            # A suite starts hundreds of groups: nothing is gained by waiting for members that will not come.
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "500",
            # A killed broker may register again when its old session is over: by default after 9 s.
            "broker.heartbeat.interval.ms": "100",
            "broker.session.timeout.ms": "2000",
            # Tests send readings of years ago, which the default of seven days would take away under their hands.
            # Those that are about retention set it on their topic, and it is looked after every second.
            "log.retention.ms": "-1",
            "log.retention.check.interval.ms": "1000",
            "log.segment.delete.delay.ms": "100",
            **self._overrides,
        }


def make_cluster(nodes: int = 3, *, overrides: Mapping[str, str] | None = None) -> list[Broker]:
    """Brokers of one cluster, started and all known to each other. Close each when done."""
    voters = {node_id: free_port() for node_id in range(1, nodes + 1)}
    brokers = [Broker(node_id=node_id, voters=voters, overrides=overrides) for node_id in voters]
    for broker in brokers:
        broker.start(wait=False)
    for broker in brokers:
        broker.wait_until_ready(nodes=nodes)
    return brokers


@functools.cache
def shared_broker() -> Broker:
    """The one broker of this process, for tests that leave it running; it is closed when the process ends."""
    return Broker().start()


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare() -> None:
    """Fill ``.kafka/`` where it is not: jars, a formatted directory, the class-data archive. Safe beside other runs."""
    CACHE.mkdir(exist_ok=True)
    with _lock(CACHE / "lock"):
        if not _jars():
            _fetch_jars()
        if not FORMATTED.exists():
            _format()
        if not ARCHIVE.exists():
            _archive_classes()


def _jars() -> list[Path]:
    return sorted(LIBS.glob("*.jar")) if (LIBS / "complete").exists() else []


def _fetch_jars() -> None:
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-f", str(POM)]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={LIBS}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CACHE, check=False)
    if done.returncode != 0:
        raise BrokerError(f"Maven could not fetch the broker: {(done.stdout + done.stderr)[-2000:]}")
    (LIBS / "complete").touch()


def _format() -> None:
    """One formatted log directory; only ``meta.properties`` differs from node to node."""
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        data = Path(scratch) / "data"
        broker = Broker(port=1, voters={1: 2})
        config = Path(scratch) / "server.properties"
        config.write_text(_properties(broker._settings(data)))
        broker.close()
        command = [*_java(), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BrokerError(f"The log directory could not be formatted: {(done.stdout + done.stderr)[-2000:]}")
        data.rename(FORMATTED)


def _archive_classes() -> None:
    """Run a broker once and keep its loaded classes: later ones start in half the time."""
    broker = Broker()
    _copy_formatted(broker.directory / "data", broker.node_id)
    (broker.directory / "server.properties").write_text(_properties(broker._settings(broker.directory / "data")))
    partial = ARCHIVE.with_suffix(".partial")
    broker._process = _spawn(broker.directory, jvm=[f"-XX:ArchiveClassesAtExit={partial}"])
    broker.wait_until_ready()
    broker.stop()
    broker.close()
    if not partial.exists():
        raise BrokerError("The JVM left no class-data archive.")
    partial.rename(ARCHIVE)


def _copy_formatted(data: Path, node_id: int) -> None:
    shutil.copytree(FORMATTED, data)
    # Two directories with one directory.id are one directory to the controller.
    directory_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    lines = ("version=1", f"cluster.id={CLUSTER_ID}", f"node.id={node_id}", f"directory.id={directory_id}")
    (data / "meta.properties").write_text("\n".join(lines) + "\n")


def _properties(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _java() -> list[str]:
    # An archive of classes is only used with the very class path it was made with, so the order is fixed.
    return ["java", "-cp", ":".join(str(jar) for jar in _jars())]


def _spawn(directory: Path, *, jvm: list[str]) -> subprocess.Popen[bytes]:
    java, *class_path = _java()
    quick = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xms64m", "-Xmx256m"]
    command = [java, *quick, *jvm, *class_path, "kafka.Kafka", str(directory / "server.properties")]
    with (directory / "output.log").open("ab") as output:
        # Its own session: Ctrl-C in the terminal ends the tests first, and they end the broker.
        return subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def _guard(pid: int) -> subprocess.Popen[bytes]:
    """Kills the broker when this process is gone without a farewell: the pipe then ends, and with it the reading."""
    command = ["sh", "-c", f"read _; kill -KILL {pid}"]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _brokers_known(bootstrap: str) -> int:
    try:
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=2000)) as admin:
            return len(admin.describe_cluster()["brokers"])
    except KafkaError:
        return 0


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Run one broker in the foreground until interrupted."""
    parser = argparse.ArgumentParser(description="Run one Apache Kafka broker for development; its data is temporary.")
    parser.add_argument("--port", type=int, default=9092, help="port for clients on 127.0.0.1 (default 9092)")
    options = parser.parse_args(arguments)
    if reason := why_unavailable():
        print(reason, file=sys.stderr)
        return 1
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with Broker(port=options.port) as broker:
        print(f"Kafka answers on {broker.bootstrap}. Ctrl-C ends it.", flush=True)
        while broker.is_running and not stopped.wait(0.5):
            pass
    return 0 if stopped.is_set() else 1


if __name__ == "__main__":
    sys.exit(main())
