"""The trainer as a process of its own: looks how far readings have come, trains when it is time, follows the registry.

Workers under ``training.mode = service`` train nothing; they follow the registry, as they do under every mode. Each
training is a child process, so that one that grows, hangs or is killed takes nothing else with it.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable
from threading import Event
from typing import Any

from forecaster.clock import Clock
from forecaster.codecs.timestamps import format_time
from forecaster.errors import ForecasterError, ModelError, TrainingFailed
from forecaster.models.decisions import TrainingRequest, Trial
from forecaster.ports import ModelRegistry
from forecaster.series.groups import DEFAULT, group_label
from forecaster.telemetry.collectors import Collectors
from forecaster.telemetry.http import Health, TelemetryServer
from forecaster.trainer_child import TrainerChild, TrainingResult, observe_result
from forecaster.training.schedule import GroupSchedules
from forecaster.training.trials import TrialRules, settle_if_due
from forecaster.transports.kafka_progress import ProgressWatch

log = logging.getLogger(__name__)

_TURN_SECONDS = 0.25
_ALIVE_SECONDS = 120.0
"""A decision that waits for a broker which is away takes a turn this long at the most."""
_EVENTS = 100


class TrainerService:
    """Trains by its schedule until it is told to stop.

    Args:
        schedules: when each group is trained; one at a time.
        watch: tells how far the readings have come.
        registry: gets models and decisions from the child; closed with the service.
        rules: by which trials are decided.
        serve: starts the HTTP endpoint on this service, ``None`` for none.
    """

    def __init__(
        self,
        *,
        child: TrainerChild,
        schedules: GroupSchedules,
        watch: ProgressWatch,
        registry: ModelRegistry,
        rules: TrialRules,
        collectors: Collectors,
        serve: Callable[[TrainerService], TelemetryServer] | None,
        clock: Clock,
    ) -> None:
        self.events: deque[dict[str, str]] = deque(maxlen=_EVENTS)
        """What happened, for people: ``{"time", "text"}``, newest last."""
        self.url = ""
        self._child = child
        self._schedules = schedules
        self._watch = watch
        self._registry = registry
        self._rules = rules
        self._collectors = collectors
        self._serve = serve
        self._clock = clock
        self._endpoint: TelemetryServer | None = None
        self._champions: dict[str, str] = {}
        self._trials: dict[str, Trial | None] = {}
        self._asked: dict[str, TrainingRequest | None] = {}
        self._group = DEFAULT
        """Of the training under way."""
        self._owned: set[str] = set()
        """Groups that this trainer was to train when it last looked."""
        self._is_alone = False
        """It trains what it was told to, whoever else does."""
        self._knows_past = False
        self._trouble: ForecasterError | None = None
        self._started_at = self._turned_at = clock.monotonic()
        self._is_stopping = False

    def run(self, stop: Event) -> None:
        """Train when it is time until ``stop`` is set; then end a training under way and close everything."""
        self._open()
        try:
            while not stop.wait(_TURN_SECONDS):
                self._turn()
                group = self._next_due()
                if group is not None and not self._child.is_running:
                    self._start(group)
        finally:
            self._close()

    def run_once(self, stop: Event, *, group: str = DEFAULT) -> TrainingResult | None:
        """Train a group now, whatever its schedule says, without an endpoint; ``None`` where ``stop`` came before the
        end."""
        self._is_alone = True
        self._open(serve=False)
        try:
            result = self._start(group)
            while result is None and not stop.wait(_TURN_SECONDS):
                result = self._turn()
            return result
        finally:
            self._close()

    def ask(self) -> None:
        """Make a training of every group due as soon as the wall-clock floor allows. May be called by a signal
        handler."""
        for group in self._schedules.groups:
            self._schedules[group].ask()

    def health(self) -> Health:
        """Whether the loop turns."""
        silent = self._clock.monotonic() - self._turned_at
        reason = "" if silent < _ALIVE_SECONDS else f"the loop has not turned for {silent:.0f} s"
        return Health(ok=not reason, reason=reason, details={"summary": self.header(), "events": list(self.events)})

    def ready(self) -> Health:
        """Whether readings and registry can be looked at."""
        trouble = self._watch.trouble or self._trouble
        if self._is_stopping:
            return Health(ok=False, reason="stopping")
        if trouble is not None:
            return Health(ok=False, reason=str(trouble))
        if self._watch.latest is None:
            return Health(ok=False, reason="the readings have not been looked at yet")
        return Health(ok=True)

    def header(self) -> dict[str, Any]:
        """The service in a few numbers, under the names that the live page knows from the worker."""
        seen = self._watch.latest
        return {
            "uptime_seconds": round(self._clock.monotonic() - self._started_at, 1),
            "readings": seen.readings if seen else 0,
            "dead_letters": 0,
            "readings_per_second": 0.0,
            "model": ", ".join(_shown(group, version) for group, version in self._champions.items()) or "none yet",
            "training": "running"
            if self._child.is_running
            else "on trial"
            if any(self._trials.values())
            else "waiting",
            "url": self.url,
        }

    def _open(self, *, serve: bool = True) -> None:
        if serve and self._serve is not None:
            self._endpoint = self._serve(self)
            self.url = self._endpoint.url
        for group in self._schedules.groups:
            self._collectors.set_model("none", trained_at=None, group=group_label(group))
        self._watch.start()
        log.info("started", extra={"url": self.url, "registry": self._registry.place})

    def _turn(self) -> TrainingResult | None:
        """Look at the registry, and at the child; the result of a training that has ended."""
        self._turned_at = self._clock.monotonic()
        self._reach_for_registry(self._follow)
        result = self._child.poll() if self._child.is_running else None
        if result is None and self._child.is_running and not self._owns(self._group):
            self._child.stop()
            result = TrainingResult(outcome="failed", reason="given up: another trainer has this group of streams now")
        if result is not None:
            self._ended(result)
        return result

    def _owns(self, group: str) -> bool:
        """Whether it is this trainer that trains a group."""
        seen = self._watch.latest
        return self._is_alone or seen is None or seen.share is None or seen.share.owns(group)

    def _next_due(self) -> str | None:
        """The group to train now."""
        seen = self._watch.latest
        if seen is None or not self._knows_past:
            return None
        return self._schedules.next_due(
            readings=dict.fromkeys(self._schedules.groups, seen.readings),  # nobody looks at all of them to tell whose
            watermark=seen.watermark,
            now=self._clock.monotonic(),
            # A challenger on trial is weighed against who serves; another one has to wait.
            may_train=lambda group: self._owns(group) and self._trials.get(group) is None,
        )

    def _start(self, group: str) -> TrainingResult | None:
        """Begin a training; a result only where it cannot be begun."""
        seen = self._watch.latest
        after_drift = self._schedules[group].is_after_drift
        self._schedules.started(group, seen.watermark if seen else -math.inf)
        self._group = group
        try:
            self._child.start(None, group=group, after_drift=after_drift)
        except TrainingFailed as error:
            result = TrainingResult(outcome="failed", reason=str(error))
            self._ended(result)
            return result
        return None

    def _ended(self, result: TrainingResult) -> None:
        group = self._group
        self._schedules.ended(group, self._clock.monotonic(), cpu_seconds=self._child.cpu_seconds)
        observe_result(self._collectors, result, ended_at=self._clock.now(), group=group)
        self._note(_shown(group, f"training: {result.reason}"))
        if result.outcome == "failed" and self._owns(group):  # of all others the child has written, or another will
            seen = self._watch.latest
            until = {"until": seen.watermark} if seen and math.isfinite(seen.watermark) else {}
            decision = {"reason": result.reason, **until}
            self._reach_for_registry(lambda: self._registry.fail(decision, now=self._clock.now(), group=group))

    def _follow(self) -> None:
        """Who serves, for people; and what was trained on before this process began, or a group came to it."""
        owned = {group for group in self._schedules.groups if self._owns(group)}
        if not self._knows_past or owned - self._owned:
            history = self._registry.history()
            self._registry.champion()
            for group in self._schedules.groups if not self._knows_past else owned - self._owned:
                known = [record.decision.get("until") for record in history if record.group == group]
                last = max((until for until in known if isinstance(until, int | float)), default=-math.inf)
                # A restart, or one after the other, must not be a training each: the schedule counts event time.
                self._schedules.started(group, last)
                self._asked[group] = self._registry.requested(group)  # of before; it may have been met
            self._knows_past = True
        self._owned = owned
        trouble: ForecasterError | None = None
        for group in self._schedules.groups:
            try:
                self._follow_group(group)
            except ForecasterError as error:  # one group's damaged model keeps no other waiting
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    def _follow_group(self, group: str) -> None:
        named = {"group": group_label(group)}
        settled = settle_if_due(self._registry, self._rules, now=self._clock.now(), group=group)
        if settled is not None:
            self._collectors.observe_trial(settled)
            told = f"trial of {settled.version}: {settled.action}. {settled.decision['reason']}"
            self._note(_shown(group, told))
            ended = {"action": settled.action, "version": settled.version, **settled.decision}
            log.info("trial ended", extra={**ended, **named})
        trial = self._trials[group] = self._registry.trial(group)
        self._collectors.set_trial(began=trial.began if trial else None, group=group_label(group))
        version = self._registry.champion(group)
        wish = self._registry.requested(group)
        if wish != self._asked.get(group):
            self._asked[group] = wish
            if wish is not None:
                self._schedules[group].ask(after_drift=wish.drift)
                self._note(_shown(group, f"training asked for: {wish.reason}"))
                log.info("training asked for", extra={"reason": wish.reason, **named})
        before = self._champions.get(group)
        if version is not None and version != before:
            self._champions[group] = version
            trained_at = self._registry.get(version).manifest.created
            self._collectors.set_model(version, trained_at=trained_at, group=group_label(group))
            self._note(_shown(group, f"model {version} serves{f' after {before}' if before else ''}"))
            log.info("champion", extra={"version": version, "before": before, **named})

    def _reach_for_registry(self, call: Callable[[], object]) -> None:
        """The registry may be away, or hold a model that cannot be read: said once, asked again with the next turn."""
        try:
            call()
        except ForecasterError as error:
            if str(error) != str(self._trouble or ""):
                log.error("registry cannot be used", extra={"error": str(error), "hint": error.hint})
            self._trouble = None if isinstance(error, ModelError) else error
            return
        self._trouble = None

    def _note(self, text: str) -> None:
        self.events.append({"time": format_time(round(self._clock.now())), "text": text})

    def _close(self) -> None:
        self._is_stopping = True
        with contextlib.ExitStack() as closing:  # the last one named is closed first; all are, whatever one raises
            if self._endpoint is not None:
                closing.callback(self._endpoint.close)
            closing.callback(self._registry.close)
            closing.callback(self._watch.close)
            closing.callback(self._child.stop)
        log.info("stopped")


def _shown(group: str, text: str) -> str:
    """What is said of a group; of the default one without its name, as where there are no others."""
    return f"group {group}: {text}" if group else text
