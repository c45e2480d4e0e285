"""A small stack for one fault: broker, workers, trainer, readings and a Prometheus that scrapes them with the rules."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "deploy" / "grafana"), str(HERE)]

from ask import RULES, Prometheus  # noqa: E402 - folders of scripts, no packages
from kafka_broker import Broker, free_port  # noqa: E402
from quicker import quicker  # noqa: E402

PATIENCE_SECONDS = 180.0
QUICK_SECONDS = 3.0
"""Between scrapes and evaluations of quicker rules: more than a worker may take to answer a scrape in good health."""
WORKERS, TRAINER = "forecaster", "forecaster-trainer"
"""Jobs, as in deploy/prometheus/prometheus.yml."""


class SceneError(RuntimeError):
    """Something did not come up or come about; the message holds the ends of the logs."""


class Scene:
    """One broker and whoever works on it, scraped; all of it ends with the ``with`` block.

    Args:
        factor: the rules' durations are divided by this; 1 takes the rules as they are.
        settings: environment of workers and trainer, without ``FORECASTER_``.
    """

    def __init__(self, *, factor: float = 1.0, settings: Mapping[str, str] | None = None) -> None:
        self.broker = Broker()
        self.directory = Path(tempfile.mkdtemp(prefix="forecaster-alerts-"))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}
        self.factor = factor
        self._settings = dict(settings or {})
        self._targets: dict[str, str] = {}
        self._last: list[Callable[[], object]] = []
        self._watchers: dict[str, Prometheus] = {}

    def __enter__(self) -> Scene:
        try:
            self.broker.start()
            self.command("topics", "create")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in self.processes.values():
            process.wait()
        self.broker.close()
        for call in self._last:
            call()
        shutil.rmtree(self.directory, ignore_errors=True)

    def environment(self, name: str) -> dict[str, str]:
        """Of the process of this name, and of any command about this stack."""
        ours = {
            "KAFKA__BOOTSTRAP_SERVERS": self.broker.bootstrap,
            "KAFKA__INSTANCE_ID": name,
            "REGISTRY__KIND": "topic",
            "TOPICS__PARTITIONS": "2",
            "TRAINING__MODE": "service",
            "TELEMETRY__PORT": str(self.ports.get(name, 0)),
            **self._settings,
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FORECASTER_")}
        return {**inherited, "OMP_NUM_THREADS": "1", **{f"FORECASTER_{key}": value for key, value in ours.items()}}

    def command(self, *words: str) -> str:
        """Run a command of the program to its end; what it printed.

        Raises:
            SceneError: its exit code is not 0.
        """
        whole = [sys.executable, "-m", "forecaster", *words]
        done = subprocess.run(
            whole, env=self.environment("command"), cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SceneError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def start(self, name: str, *words: str, job: str | None = None, prefix: tuple[str, ...] = (), **more: str) -> None:
        """Start a command of the program under this name; with a job it is scraped, at the port it keeps for good.

        Args:
            prefix: a command before the command, as ``nice``.
            more: further settings of this process alone.
        """
        if job is not None and name not in self.ports:
            self.ports[name] = free_port()
        environment = self.environment(name) | {f"FORECASTER_{key}": value for key, value in more.items()}
        with (self.directory / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [*prefix, sys.executable, "-m", "forecaster", *words],
                env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        if job is not None:
            self._targets[name] = job
            self._tell_targets()

    def worker(self, name: str = "worker-0", **more: Any) -> None:
        """Start a worker."""
        self.start(name, "run", job=WORKERS, **more)

    def trainer(self, **more: Any) -> None:
        """Start the training service."""
        self.start("trainer", "trainer", job=TRAINER, **more)

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """A signal to the process, and its end awaited where the signal means one."""
        self.processes[name].send_signal(how)
        if how in (signal.SIGKILL, signal.SIGTERM):
            self.processes[name].wait(60)

    def at_the_end(self, call: Callable[[], object]) -> None:
        """To be called when all processes have ended."""
        self._last.append(call)

    def forget(self, name: str) -> None:
        """Service discovery no longer knows this process."""
        del self._targets[name]
        self._tell_targets()

    def watch(self, name: str = "prometheus", *, factor: float | None = None) -> None:
        """Start Prometheus, with the rules made quicker, and wait until it answers.

        Args:
            name: of this one, where there are several.
            factor: the scene's own where it is ``None``.
        """
        factor = self.factor if factor is None else factor
        home = self.directory / f"{name}-files"
        rules = home / "rules"
        rules.mkdir(parents=True)
        for file in RULES.glob("*.yml"):
            text = file.read_text("utf-8")
            if factor != 1.0:
                text = yaml.safe_dump(quicker(yaml.safe_load(text), factor, interval_seconds=QUICK_SECONDS))
            (rules / file.name).write_text(text)
        configuration = yaml.safe_load((RULES.parent / "prometheus.yml").read_text("utf-8"))
        del configuration["alerting"]
        configuration["rule_files"] = [f"{rules}/*.yml"]
        if factor != 1.0:
            quick = f"{QUICK_SECONDS:g}s"
            configuration["global"] = {"scrape_interval": quick, "scrape_timeout": quick, "evaluation_interval": quick}
        configuration["scrape_configs"] = [
            {
                "job_name": job,
                "file_sd_configs": [{"files": [f"{self.directory}/{job}.json"], "refresh_interval": "1s"}],
            }
            for job in (WORKERS, TRAINER)
        ]
        file = home / "prometheus.yml"
        file.write_text(yaml.safe_dump(configuration))
        program = shutil.which("prometheus")
        if program is None:
            raise SceneError("prometheus is not installed; Debian has it in the package of this name.")
        port = free_port()
        with (self.directory / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [
                    program,
                    f"--config.file={file}",
                    f"--storage.tsdb.path={home}/tsdb",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self._watchers[name] = Prometheus(f"http://127.0.0.1:{port}")
        self.until(lambda: bool(self.ask("vector(1)", of=name)), what=f"{name} answers")

    def ask(self, expression: str, *, of: str = "prometheus") -> list[float]:
        """Values of an expression now; none while Prometheus does not answer."""
        try:
            return [one.points[0][1] for one in self._watchers[of].instant(expression)]
        except OSError:
            return []

    def alerts(self, state: str, *, within: float, of: str = "prometheus") -> list[str]:
        """Names of alerts that were in this state at any moment of the last seconds."""
        query = f'max by (alertname) (max_over_time(ALERTS{{alertstate="{state}"}}[{max(round(within), 1)}s]))'
        return sorted(one.labels["alertname"] for one in self._watchers[of].instant(query))

    def until(self, condition: Callable[[], bool], *, what: str, seconds: float = PATIENCE_SECONDS) -> float:
        """Wait until the condition holds; how long that took.

        Raises:
            SceneError: it does not in time.
        """
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                raise SceneError(f"Not within {seconds:g} s: {what}\n{self.explain()}")
            time.sleep(0.2)
        return time.monotonic() - began

    def above(self, expression: str, bound: float) -> bool:
        """The expression has a value, and it is above the bound."""
        return any(value > bound for value in self.ask(expression))

    def explain(self) -> str:
        """Who runs, which alerts there are, and the ends of the logs."""
        lines = [f"{name}: {'runs' if p.poll() is None else p.returncode}" for name, p in self.processes.items()]
        for log in sorted(self.directory.glob("*.log")):
            lines += [f"--- {log.stem}", *log.read_text(errors="replace").splitlines()[-8:]]
        return "\n".join(lines)

    def _tell_targets(self) -> None:
        for job in (WORKERS, TRAINER):
            addresses = [f"127.0.0.1:{self.ports[name]}" for name, its in self._targets.items() if its == job]
            file = self.directory / f"{job}.json"
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps([{"targets": addresses}] if addresses else []))
            partial.rename(file)


class Feed:
    """Readings on a thread: ``make(stream, count)`` gives the value of a stream's reading, or the record's bytes.

    Args:
        rate: readings a second, all streams together.
        make: may be replaced while the feed runs.
    """

    def __init__(self, bootstrap: str, *, streams: int, rate: float, make: Callable[[int, int], float | bytes]) -> None:
        from kafka import KafkaProducer

        self.streams, self.rate, self.make = streams, rate, make
        self._producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, max_block_ms=5_000)
        self._began = (
            time.time() - 30 * 86_400
        )  # a stream takes a second of event time a reading, however fast it sends
        self._counts: dict[int, int] = {}
        self._next = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        from kafka.errors import KafkaTimeoutError

        self._over.set()
        self._thread.join(30)
        with contextlib.suppress(KafkaTimeoutError):  # the fault may have been the broker's death
            self._producer.close(timeout=1)

    def send(self, count: int) -> None:
        """So many further readings, the streams in turn."""
        for _ in range(count):
            stream = self._next % self.streams
            self._next += 1
            at = self._counts[stream] = self._counts.get(stream, 0) + 1
            made = self.make(stream, at)
            name = f"sensor-{stream}"
            body = {"stream_id": name, "timestamp": self._began + at, "value": made}
            value = made if isinstance(made, bytes) else json.dumps(body).encode()
            self._producer.send("readings", key=name.encode(), value=value)

    def _run(self) -> None:
        due, at = 0.0, time.monotonic()
        while not self._over.wait(0.1):
            now = time.monotonic()
            due, at = min(due + (now - at) * self.rate, 2 * self.rate), now
            self.send(int(due))
            due -= int(due)
