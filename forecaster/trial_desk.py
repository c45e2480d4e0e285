"""A thread beside the loop that tells the registry what the worker has seen and, where no service does, decides trials.

A write may wait for a broker for seconds; the loop must not.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Sequence
from threading import Thread

from forecaster.clock import Clock
from forecaster.errors import ForecasterError
from forecaster.models.decisions import LiveScore, RegistryRecord, TrainingRequest
from forecaster.ports import ModelRegistry
from forecaster.series.groups import DEFAULT
from forecaster.training.trials import TrialRules, settle_if_due

log = logging.getLogger(__name__)

_WAITING = 4
"""Batches of scores that may wait; each holds all there is, so that a lost one is made up for by the next."""


class TrialDesk:
    """Takes scores from the loop's thread, never holding it up.

    Args:
        open_registry: for a registry of this thread's own; opened at the first score.
        rules: by which trials are decided; ``None`` leaves that to the trainer service.
        on_settled: told of every trial this thread has ended, on this thread.
        groups: whose trials are decided.
    """

    def __init__(
        self,
        open_registry: Callable[[], ModelRegistry],
        *,
        rules: TrialRules | None,
        on_settled: Callable[[RegistryRecord], None],
        clock: Clock,
        groups: Sequence[str] = (DEFAULT,),
    ) -> None:
        self._open_registry = open_registry
        self._rules = rules
        self._on_settled = on_settled
        self._clock = clock
        self._groups = groups
        self._batches: queue.Queue[Sequence[LiveScore] | TrainingRequest | None] = queue.Queue(_WAITING)
        self._thread: Thread | None = None
        self._trouble = ""

    def hand_in(self, scores: Sequence[LiveScore]) -> None:
        """What the tasks have seen of the trials under way; dropped where the thread has fallen behind."""
        self._put(scores)

    def ask(self, reason: str, *, group: str = DEFAULT, after_drift: bool = False) -> None:
        """Ask the trainer service for a training of a group; dropped where the thread has fallen behind."""
        self._put(TrainingRequest(time=self._clock.now(), reason=reason, group=group, drift=after_drift))

    def close(self, timeout_seconds: float = 2.0) -> None:
        """End the thread; a write that waits for a broker is left behind. Idempotent."""
        if self._thread is None:
            return
        try:
            self._batches.put_nowait(None)
        except queue.Full:
            return  # it waits for a broker, and ends with the process
        self._thread.join(timeout_seconds)

    def _put(self, batch: Sequence[LiveScore] | TrainingRequest) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._run, name="trials", daemon=True)
            self._thread.start()
        try:
            self._batches.put_nowait(batch)
        except queue.Full:
            log.debug("dropped, the registry is slow")

    def _run(self) -> None:
        registry = self._open_registry()
        try:
            while (batch := self._batches.get()) is not None:
                self._work(registry, batch)
        finally:
            registry.close()

    def _work(self, registry: ModelRegistry, batch: Sequence[LiveScore] | TrainingRequest) -> None:
        try:
            if isinstance(batch, TrainingRequest):
                registry.request(batch)
                return
            for score in batch:
                registry.report(score)
            if self._rules is not None:
                self._settle(registry, self._rules)
        except ForecasterError as error:
            if str(error) != self._trouble:  # tried again with the next scores; said once
                log.error("registry cannot be told", extra={"error": str(error), "hint": error.hint})
            self._trouble = str(error)
            return
        self._trouble = ""

    def _settle(self, registry: ModelRegistry, rules: TrialRules) -> None:
        """End trials whose time has come.

        Raises:
            ForecasterError: that of the first group whose trial could not be ended; the others' were looked at.
        """
        trouble: ForecasterError | None = None
        for group in self._groups:
            try:
                record = settle_if_due(registry, rules, now=self._clock.now(), group=group)
            except ForecasterError as error:
                trouble = trouble or error
                continue
            if record is not None:
                self._on_settled(record)
                log.info("trial ended", extra={"action": record.action, "version": record.version, **record.decision})
        if trouble is not None:
            raise trouble
