"""One training at a time in a child process, so that a slow or crashing one never touches the hot path."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
from safetensors import SafetensorError

from forecaster.errors import TrainingFailed
from forecaster.series.groups import DEFAULT, group_label
from forecaster.telemetry.collectors import Collectors, TrainingEnd
from forecaster.training.history import History

log = logging.getLogger(__name__)

_STOP_SECONDS = 5.0


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a child reports of its training, as JSON."""

    outcome: str
    """``promoted``, ``challenged`` (on trial beside the champion), ``refused`` (not good enough) or ``failed``."""
    reason: str
    """One sentence for people."""
    version: str = ""
    seconds: float = 0.0
    challenger_loss: float | None = None
    champion_loss: float | None = None
    naive_loss: float | None = None


_RESULTS: dict[str, TrainingEnd] = {
    "promoted": "ok_promoted",
    "challenged": "ok_on_trial",
    "refused": "ok_rejected",
}


def observe_result(collectors: Collectors, result: TrainingResult, *, ended_at: float, group: str = DEFAULT) -> None:
    """Tell metrics and log of a training of a group that ended, ``ended_at`` in seconds since the epoch."""
    naive, champion, loss = result.naive_loss, result.champion_loss, result.challenger_loss
    collectors.observe_training(
        _RESULTS.get(result.outcome, "failed"),
        result.seconds,
        ended_at=ended_at,
        loss=loss,
        gain_vs_champion=1 - loss / champion if loss is not None and champion else None,
        gain_vs_naive=1 - loss / naive if loss is not None and naive else None,
        group=group_label(group),
    )
    level = logging.WARNING if result.outcome == "failed" else logging.INFO
    log.log(
        level, "training ended", extra={"group": group_label(group), "outcome": result.outcome, "reason": result.reason}
    )


def _seconds_of_children() -> float:
    """Processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class TrainerChild:
    """Runs ``forecaster train`` as a child: at low priority, on one thread, in its own session.

    The child writes model and decision into the registry by itself; the result here is for metrics and the log.

    Args:
        environment: settings of the child, as ``FORECASTER_…`` variables.
        from_topic: the child reads its history from Kafka; otherwise `start` is given one.
    """

    def __init__(self, *, environment: Mapping[str, str], from_topic: bool) -> None:
        self._environment = {**{k: v for k, v in os.environ.items() if not k.startswith("FORECASTER_")}, **environment}
        self._from_topic = from_topic
        self.cpu_seconds = 0.0
        """Processor time of the training whose end was told last."""
        self._children_seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a training was started whose result has not been taken."""
        return self._process is not None

    def start(self, history: History | None, *, group: str = DEFAULT, after_drift: bool = False) -> None:
        """Begin a training of a group, which drift may have asked for; one at a time.

        Raises:
            TrainingFailed: history or process cannot be made, as on a full disk.
        """
        assert self._process is None, "one training at a time"
        try:
            self._start(history, group, after_drift)
        except (OSError, SafetensorError) as error:
            self._clean_up()
            raise TrainingFailed(
                f"The trainer cannot be started: {error}", hint="Check the temporary directory and its free space."
            ) from error

    def _start(self, history: History | None, group: str, after_drift: bool) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="forecaster-training-")
        arguments = [sys.executable, "-m", "forecaster", "train", "--result", str(self._path("result.json"))]
        arguments += ["--parent", str(os.getpid()), "--group", group_label(group)]
        if after_drift:
            arguments.append("--drift")
        if self._from_topic:
            arguments.append("--from-topic")
        else:
            assert history is not None, "without a topic the history must be handed over"
            history.save(self._path("history"))
            arguments += ["--history", str(self._path("history"))]
        self._children_seconds = _seconds_of_children()
        with open(self._path("output"), "wb") as output:
            self._process = subprocess.Popen(
                arguments,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        log.info("training started", extra={"pid": self._process.pid, "group": group_label(group)})

    def poll(self) -> TrainingResult | None:
        """The result of a training that has ended, once; ``None`` while it runs or when there is none."""
        if self._process is None or self._process.poll() is None:
            return None
        code = self._process.returncode
        self.cpu_seconds = _seconds_of_children() - self._children_seconds
        try:
            result = msgspec.json.decode(self._path("result.json").read_bytes(), type=TrainingResult)
        except (OSError, msgspec.DecodeError):
            result = TrainingResult(outcome="failed", reason=f"the trainer ended with exit code {code}: {self._said()}")
        self._clean_up()
        return result

    def stop(self) -> None:
        """End a training that is running; its model is lost, the registry is not harmed."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._clean_up()

    def _said(self) -> str:
        """What the child said last; hints and stack frames are indented, the error is not."""
        try:
            output = self._path("output").read_text(errors="replace").splitlines()
        except OSError as error:
            return f"its output cannot be read: {error.strerror}"
        return next((line for line in reversed(output) if line and not line[0].isspace()), "it printed nothing")

    def _path(self, name: str) -> Path:
        assert self._directory is not None, "a training has a directory"
        return Path(self._directory.name) / name

    def _clean_up(self) -> None:
        self._process = None
        if self._directory is not None:
            with contextlib.suppress(OSError):  # a leftover in the temporary directory harms nobody
                self._directory.cleanup()
        self._directory = None
