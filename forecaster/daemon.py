"""The process: the loop, what surrounds it, and the order in which they start and stop.

One thread owns worker and state. Others (HTTP, the demo's table) ask through `Daemon.ask`, and are answered between
two turns of the loop.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol, TypeVar

import numpy as np

from forecaster.clock import Clock
from forecaster.codecs.timestamps import format_time
from forecaster.engine.inspection import Inspector
from forecaster.engine.report import LoopReport, RecoveryReport, StreamSample
from forecaster.engine.turns import Pace
from forecaster.engine.worker import Worker
from forecaster.errors import ModelError, TrainingFailed, TransportError
from forecaster.experts.recurrent import RecurrentExpert, team
from forecaster.models.artifact import ModelArtifact
from forecaster.models.decisions import Trial
from forecaster.ports import FeedbackLog, Sink, Source
from forecaster.series.groups import DEFAULT, group_label
from forecaster.stores.history_buffer import HistoryBuffer
from forecaster.telemetry.collectors import Collectors
from forecaster.telemetry.http import Health, StreamQuery
from forecaster.telemetry.watch import WatchList
from forecaster.trainer_child import TrainerChild, TrainingResult, observe_result
from forecaster.training.schedule import GroupSchedules
from forecaster.trial_desk import TrialDesk

log = logging.getLogger(__name__)

T = TypeVar("T")

_CHORES_SECONDS = 0.25
_SCORES_SECONDS = 2.0
_ANSWER_SECONDS = 2.0
_ALIVE_SECONDS = 60.0
_EVENTS = 100


class ChampionSource(Protocol):
    """The part of a model registry that serving needs."""

    def champions(self, group: str = DEFAULT) -> tuple[str | None, str | None]:
        """Version that serves a group and the one that did before, cheap to ask often."""

    def trial(self, group: str = DEFAULT) -> Trial | None:
        """Who is scored beside it, cheap to ask often."""

    def get(self, version: str) -> ModelArtifact:
        """The artifact of a version."""

    def close(self) -> None:
        """Release what it holds open. Idempotent."""


class TelemetryEndpoint(Protocol):
    """The HTTP server, as far as the daemon has to know it."""

    @property
    def url(self) -> str: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Training:
    """The child that trains, when it does, and on what."""

    child: TrainerChild
    schedules: GroupSchedules
    history: HistoryBuffer | None
    window_seconds: Mapping[str, float]
    """Event time of history that a training of each group looks at."""
    takes: Callable[[str], Callable[[str], bool]] = lambda group: lambda stream_id: True
    """Says of a group whether a stream is of it."""
    group: str = DEFAULT
    """Of the training under way."""


class Daemon:
    """Runs a worker until it is told to stop or its source has no more.

    Args:
        registry: whose champion serves; ``None`` where that was settled before.
        make_recurrent: a serving expert from an artifact and, where there was one, that of the champion before;
            raises `ArtifactMismatch` where a model does not fit the settings.
        keeps_former: the champion before answers beside the one that serves.
        training: ``None`` never trains.
        drift: notices drift where a trainer service trains; under ``training`` its own schedule does.
        feedback: closed at the end, where tasks hear labels of one.
        desk: takes what is seen of a trial, and asks the service for trainings; ``None`` does neither.
        serve: starts the HTTP endpoint on this daemon, ``None`` for none.
        watch: which streams metrics show one by one; ``None`` for none.
        pace: how long the loop waits for records and between turns.
        groups: of streams, each with a champion of its own.
    """

    def __init__(
        self,
        *,
        source: Source,
        sink: Sink,
        worker: Worker,
        inspector: Inspector,
        collectors: Collectors,
        registry: ChampionSource | None,
        make_recurrent: Callable[[ModelArtifact, ModelArtifact | None], RecurrentExpert],
        training: Training | None,
        drift: GroupSchedules | None = None,
        feedback: FeedbackLog | None = None,
        desk: TrialDesk | None = None,
        serve: Callable[[Daemon], TelemetryEndpoint] | None,
        clock: Clock,
        watch: WatchList | None = None,
        pace: Pace | None = None,
        groups: Sequence[str] = (DEFAULT,),
        keeps_former: bool = False,
    ) -> None:
        self.events: deque[dict[str, str]] = deque(maxlen=_EVENTS)
        """What happened, for people: ``{"time", "text"}``, newest last."""
        self.url = ""
        self._source = source
        self._sink = sink
        self._worker = worker
        self._inspector = inspector
        self._collectors = collectors
        self._registry = registry
        self._make_recurrent = make_recurrent
        self._training = training
        self._drift = training.schedules if training else drift
        self._desk = desk
        self._groups = groups
        self._trials: dict[str, Trial | None] = {}
        self._feedback = feedback
        self._scores_at = -np.inf
        self._serve = serve
        self._clock = clock
        self._watch = watch
        self._pace = pace or Pace()
        self._questions: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._keeps_former = keeps_former
        self._refused_versions: dict[str, str | None] = {}
        self._refused_formers: dict[str, str] = {}
        self._registry_troubles: set[str] = set()
        self._trial_trouble = ""
        self._started_at = clock.monotonic()
        self._turned_at = clock.monotonic()
        self._recovery = RecoveryReport()
        self._chores_at = -np.inf
        self._rate = _Rate(clock)
        self._is_stopping = False

    def run(self, stop: Event) -> None:
        """Answer readings until ``stop`` is set or the source is exhausted, then commit and close everything.

        Raises:
            ForecasterError: what ended the loop; everything is closed all the same.
        """
        endpoint = None
        try:
            endpoint = self._serve(self) if self._serve else None
            self.url = endpoint.url if endpoint else ""
            for group in self._groups:
                self._collectors.set_model("none", trained_at=None, group=group_label(group))
            self._follow_champions()
            self._worker.start()
            log.info("started", extra={"url": self.url, "topic": self._source.topic})
            while not stop.is_set() and (self._worker.has_backlog or not self._source.is_exhausted()):
                self._turn(stop)
            self._drain()
        finally:
            self._is_stopping = True
            self._close(endpoint)

    def ask(self, question: Callable[[], T], *, timeout_seconds: float = _ANSWER_SECONDS) -> T:
        """Let the loop's thread call ``question`` between two turns, and return what it returns.

        Raises:
            TimeoutError: the loop did not come to it in time.
        """
        future: Future[T] = Future()
        self._questions.put((question, future))
        try:
            return future.result(timeout_seconds)
        except TimeoutError:
            future.cancel()  # nobody waits for it any more
            raise

    def health(self) -> Health:
        """Whether the loop turns."""
        silent = self._clock.monotonic() - self._turned_at
        return Health(
            ok=silent < _ALIVE_SECONDS,
            reason="" if silent < _ALIVE_SECONDS else f"the loop has not turned for {silent:.0f} s",
            details={"summary": self.header(), "events": list(self.events)},
        )

    def ready(self) -> Health:
        """Whether readings are answered now."""
        if self._is_stopping:
            return Health(ok=False, reason="stopping")
        if self._worker.is_failing:
            return Health(ok=False, reason="the broker does not confirm answers")
        if self._worker.restoring:
            told = ", ".join(map(str, self._recovery.restoring))
            return Health(ok=False, reason=f"{self._worker.restoring} partitions are being restored: {told}")
        if not self._worker.tasks:
            return Health(ok=False, reason="no partition is assigned yet")
        return Health(ok=True)

    def header(self) -> dict[str, Any]:
        """The daemon in a few numbers, for the live page and the demo's table."""
        networks = self._worker.networks
        served = [f"{group}: {network.version}" for group, network in sorted(networks.items()) if group != DEFAULT]
        if DEFAULT in networks:
            served = [networks[DEFAULT].version, *served]
        training = self._training
        state = "off" if training is None else "running" if training.child.is_running else "waiting"
        return {
            "uptime_seconds": round(self._clock.monotonic() - self._started_at, 1),
            "readings": self._worker.accepted,
            "dead_letters": self._worker.refused,
            "readings_per_second": round(self._rate.per_second, 1),
            "model": ", ".join(served) or "none yet",
            "training": state,
            "url": self.url,
        }

    def streams(self, query: StreamQuery) -> Sequence[dict[str, Any]]:
        """Summaries for ``/streams``, asked of the loop."""
        return self.ask(lambda: self._summaries(query))

    def stream(self, stream_id: str) -> dict[str, Any] | None:
        """Everything about one stream for ``/streams/<id>``, asked of the loop; ``None`` where nobody knows it."""
        return self.ask(
            lambda: next((self._inspector.detail(task, stream_id) for task in self._worker.find(stream_id)), None)
        )

    def before_scrape(self) -> None:
        """Refresh the gauges that are read off the state."""
        self.ask(self._set_gauges)

    def _turn(self, stop: Event) -> None:
        began = self._clock.monotonic()
        worker = self._worker
        report = worker.run_once(self._pace.patience(restoring=worker.restoring, unconfirmed=worker.unconfirmed))
        self._observe(report)
        self._answer_questions()
        now = self._clock.monotonic()
        if now - self._chores_at >= _CHORES_SECONDS:
            self._chores_at = now
            self._follow_champions()
            self._follow_trials()
            self._train()
        took = self._clock.monotonic() - began
        rest = self._pace.rest(report.records, took_seconds=took, has_backlog=worker.has_backlog)
        if pause := worker.backoff_seconds or rest:
            stop.wait(pause)

    def _observe(self, report: LoopReport) -> None:
        self._turned_at = self._clock.monotonic()
        self._recovery = report.recovery
        self._collectors.observe(report)
        self._rate.add(report.step.accepted)
        if self._drift is not None:
            for group, told in report.step.groups.items():
                if self._drift[group].observe(told.losses, told.settled, self._worker.watermark):
                    noticed = {"group": group_label(group), "watermark": self._worker.watermark}
                    log.info("drift noticed, training asked for", extra=noticed)
                    if self._training is None and self._desk is not None:
                        self._desk.ask("live loss has risen for good", group=group, after_drift=True)

    def _answer_questions(self) -> None:
        while not self._questions.empty():
            question, future = self._questions.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(question())
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                future.set_exception(error)

    def _follow_champions(self) -> None:
        """Serve each group with its champion; a model that cannot serve here is refused once, loudly."""
        troubles = set()
        for group in self._groups if self._registry is not None else ():
            try:
                self._follow_champion(group)
            except TransportError as error:
                troubles.add(str(error))
                if str(error) not in self._registry_troubles:  # asked again with the next chores; said once
                    log.error("registry cannot be read", extra={"error": str(error), "hint": error.hint})
        self._registry_troubles = troubles

    def _follow_champion(self, group: str) -> None:
        """Serve one group with its champion.

        Raises:
            TransportError: the registry cannot be read.
        """
        assert self._registry is not None, "whoever calls has looked"
        try:
            version, former = self._registry.champions(group)
            current = self._worker.networks.get(group)
            if version is None or version == self._refused_versions.get(group):
                return
            if not self._keeps_former or former == self._refused_formers.get(group):
                former = None
            if current and current.team == team(version, former):
                return
            artifact = self._registry.get(version)
            recurrent = self._make_recurrent(artifact, None)
        except ModelError as error:
            self._refused_versions[group] = version
            log.error("champion cannot serve", extra={"error": str(error), "hint": error.hint, **_named(group)})
            return
        if former is not None:
            recurrent = self._with_former(artifact, former, group) or recurrent
        self._worker.adopt(recurrent, group=group)
        self._collectors.set_model(version, trained_at=artifact.manifest.created, group=group_label(group))
        of = f"group {group}: " if group else ""
        self._note(of + _took_over(artifact, current.version if current else None))
        log.info("model takes over", extra={"version": version, "parent": artifact.manifest.parent, **_named(group)})

    def _with_former(self, artifact: ModelArtifact, former: str, group: str) -> RecurrentExpert | None:
        """A champion and the one before it; ``None`` where that one cannot answer here.

        Raises:
            TransportError: the registry cannot be read.
        """
        assert self._registry is not None, "it told of both"
        try:
            return self._make_recurrent(artifact, self._registry.get(former))
        except ModelError as error:
            self._refused_formers[group] = former
            told = {"error": str(error), "hint": error.hint, **_named(group)}
            log.warning("former champion cannot answer beside its successor", extra=told)
            return None

    def _follow_trials(self) -> None:
        """Score the trials' second models beside the champions, and hand in what was seen, every two seconds."""
        if self._registry is None or self._desk is None or self._registry_troubles:
            return
        try:
            for group in self._groups:
                trial = self._registry.trial(group)
                if trial != self._trials.get(group):
                    self._try_out(trial, group)
            self._trial_trouble = ""
        except TransportError as error:
            if str(error) != self._trial_trouble:  # asked again with the next chores; said once
                log.error("registry cannot be read", extra={"error": str(error), "hint": error.hint})
            self._trial_trouble = str(error)
            return
        now = self._clock.monotonic()
        if any(self._trials.values()) and now - self._scores_at >= _SCORES_SECONDS:
            self._scores_at = now
            self._desk.hand_in(self._worker.live_scores())

    def _try_out(self, trial: Trial | None, group: str) -> None:
        """Begin a trial of a group, or end the one under way."""
        assert self._registry is not None, "it told of the trial"
        tried = None
        try:
            if trial is not None:
                former = self._registry.get(trial.former) if self._keeps_former and trial.former else None
                tried = trial, self._make_recurrent(self._registry.get(trial.beside), former)
                self._note(f"trial of {trial.beside} beside {trial.serving}")
            told = {"kind": trial.kind if trial else "none", "beside": trial and trial.beside}
            log.info("trial", extra={**told, **_named(group)})
        except ModelError as error:  # this worker has nothing to say about the trial; others may
            log.error("model cannot be tried out", extra={"error": str(error), "hint": error.hint})
        self._worker.try_out(tried, group=group)
        self._collectors.set_trial(began=trial.began if trial else None, group=group_label(group))
        self._trials[group] = trial

    def _train(self) -> None:
        training = self._training
        if training is None:
            return
        now, watermark = self._clock.monotonic(), self._worker.watermark
        group = training.schedules.next_due(
            readings=self._worker.accepted_of,
            watermark=watermark,
            now=now,
            # A challenger is weighed against who serves; another one has to wait.
            may_train=lambda group: self._trials.get(group) is None,
        )
        if training.child.is_running:
            result = training.child.poll()
            if result is not None:
                training.schedules.ended(training.group, now, cpu_seconds=training.child.cpu_seconds)
                self._report_training(result, training.group)
            return
        if group is None:
            return
        after_drift = training.schedules[group].is_after_drift
        training.schedules.started(group, watermark)
        training.group = group
        history = None
        if training.history is not None:
            history = training.history.history(training.window_seconds[group]).where(training.takes(group))
        try:
            training.child.start(history, group=group, after_drift=after_drift)
        except TrainingFailed as error:
            training.schedules.ended(group, now, cpu_seconds=0.0)
            self._report_training(TrainingResult(outcome="failed", reason=str(error)), group)

    def _report_training(self, result: TrainingResult, group: str) -> None:
        observe_result(self._collectors, result, ended_at=self._clock.now(), group=group)
        if result.outcome != "promoted":
            self._note(f"training{f' of group {group}' if group else ''}: {result.reason}")

    def _note(self, text: str) -> None:
        self.events.append({"time": format_time(round(self._clock.now())), "text": text})

    def _summaries(self, query: StreamQuery) -> list[dict[str, Any]]:
        found = [
            (task, stream_id)
            for task in self._worker.tasks.values()
            for stream_id in task.table
            if stream_id.startswith(query.prefix)
        ]
        found = _SORTS[query.sort](found)[: query.limit]
        return [self._inspector.summary(task, stream_id) for task, stream_id in found]

    def _set_gauges(self) -> None:
        self._collectors.set_streams(self._worker.stream_counts())
        self._collectors.set_state_bytes(self._worker.state_bytes())
        self._collectors.set_open_anomalies(self._worker.open_anomalies())
        self._collectors.set_lag(self._source.topic, self._source.lag())
        self._collectors.set_owned(len(self._worker.tasks))
        if self._drift is not None:
            for group in self._drift.groups:
                self._collectors.set_drift(self._drift[group].drift(), group=group_label(group))
        self._collectors.set_watched(self._samples())

    def _samples(self) -> Iterator[StreamSample]:
        tasks = self._worker.tasks
        chosen = self._watch.choose({p: task.table for p, task in tasks.items()}) if self._watch else []
        return (self._inspector.sample(tasks[partition], stream_id) for partition, stream_id in chosen)

    def _drain(self) -> None:
        """Confirm what was answered; an exhausted source waits until the sink has taken it."""
        self._worker.finish()
        self._answer_questions()

    def _close(self, endpoint: TelemetryEndpoint | None) -> None:
        began = time.perf_counter()
        with contextlib.ExitStack() as closing:  # the last one named is closed first; all are, whatever one raises
            if endpoint is not None:
                closing.callback(endpoint.close)
            closing.callback(self._worker.close)
            if self._feedback is not None:
                closing.callback(self._feedback.close)
            if self._desk is not None:
                closing.callback(self._desk.close)
            closing.callback(self._sink.close)
            closing.callback(self._source.close)
            if self._registry is not None:
                closing.callback(self._registry.close)
            if self._training is not None:
                closing.callback(self._training.child.stop)
        log.info("stopped", extra={"seconds": round(time.perf_counter() - began, 3)})


class _Rate:
    """Readings per second over about the last five seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque([(clock.monotonic(), 0)])
        self._total = 0

    def add(self, count: int) -> None:
        self._total += count
        now = self._clock.monotonic()
        if now - self._marks[-1][0] >= 0.25:
            self._marks.append((now, self._total))
            while len(self._marks) > 2 and now - self._marks[0][0] > 5.0:
                self._marks.popleft()

    @property
    def per_second(self) -> float:
        began, before = self._marks[0]
        seconds = self._clock.monotonic() - began
        return (self._total - before) / seconds if seconds > 0 else 0.0


def _named(group: str) -> dict[str, str]:
    return {"group": group_label(group)}


def _took_over(artifact: ModelArtifact, before: str | None) -> str:
    """One sentence on why this model serves now."""
    scores = artifact.manifest.scores
    loss, naive, champion = (scores.get(name) for name in ("pinball", "pinball_naive", "pinball_champion"))
    gains = [
        f"{100 * (1 - loss / rival):.1f} % better than {name}"
        for rival, name in ((champion, "the champion"), (naive, "naive"))
        if loss is not None and rival
    ]
    judged = f": pinball {', '.join(gains)}" if gains else ""
    return f"model {artifact.version} took over{f' from {before}' if before else ''}{judged}"


def _by(name: str, *, largest_first: bool) -> Callable[[list[Any]], list[Any]]:
    """Order streams by a column of their task."""

    def order(found: list[Any]) -> list[Any]:
        def key(entry: Any) -> float:
            task, stream_id = entry
            c, slot = task.table.arrays, task.table.find(stream_id)
            if name == "clock":
                value = float(c["clock"][slot])
            elif not c["recent_settled"][slot]:
                return np.inf
            elif name == "error":
                value = float(c["recent_error"][slot]) / max(float(c["recent_naive_error"][slot]), 1e-30)
            else:
                value = float(c["recent_covered"][slot])
            return -value if largest_first else value

        return sorted(found, key=key)

    return order


_SORTS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "id": lambda found: sorted(found, key=lambda entry: str(entry[1])),
    "newest": _by("clock", largest_first=True),
    "error": _by("error", largest_first=True),
    "coverage": _by("covered", largest_first=False),
}
