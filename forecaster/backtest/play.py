"""A recording played to the worker that serves, with trainings at set readings."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from forecaster.backtest.collect import ForecastCollector
from forecaster.backtest.recording import Recording
from forecaster.backtest.source import RecordingSource
from forecaster.engine.worker import Worker
from forecaster.errors import TrainingFailed
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.artifact import ModelArtifact
from forecaster.ports import Sink
from forecaster.series.groups import DEFAULT
from forecaster.stores.history_buffer import HistoryBuffer
from forecaster.training.history import History
from forecaster.training.train import TrainingOutcome


class TrainingNote(msgspec.Struct, frozen=True, kw_only=True):
    """One training of a backtest."""

    at: int
    """Readings of all streams before it; a promoted model answers from the next one on."""
    outcome: str
    """``promoted``, ``refused`` or ``failed``."""
    reason: str
    version: str = ""
    readings: int = 0
    """It learnt from."""
    season_seconds: float = 0.0
    """Season found or declared as a duration."""
    seconds: float = 0.0
    group: str = DEFAULT


class Trainer(Protocol):
    """One training, as the daemon's child does it."""

    def __call__(
        self, history: History, *, champion: ModelArtifact | None, now: float, group: str = DEFAULT
    ) -> TrainingOutcome:
        """Train on the streams of a group in a history, at event time ``now``.

        Raises:
            TrainingFailed: nothing to learn from, or the fit diverged.
        """


@dataclass(slots=True)
class Playback:
    """What became of a recording."""

    trainings: list[TrainingNote] = field(default_factory=list)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Wall-clock time by stage: poll, decode, step, publish, commit, and train."""
    cpu_seconds: float = 0.0
    """Processor time of all of it."""
    readings: int = 0
    """Answered by a forecast."""
    dead_letters: int = 0
    champions: list[ModelArtifact] = field(default_factory=list)
    """Those that served, in turn."""


@dataclass(slots=True)
class Backtest:
    """A worker, what it reads, where its forecasts are kept, and who trains.

    Attributes:
        boundary_records: a model switches at offsets that are multiples of this, so trainings are at these too.
        history: readings so far; ``None`` never trains.
        window_seconds: event time of history that a training of each group looks at.
        champions: serve from the first reading on, by group; of those that later win their place, these are kept.
        groups: all there are; at each training point all are trained, one after the other.
    """

    recording: Recording
    source: RecordingSource
    sink: Sink
    worker: Worker
    collector: ForecastCollector
    boundary_records: int
    make_recurrent: Callable[[ModelArtifact, ModelArtifact | None], RecurrentExpert]
    """Of a model and, where there was one, the champion before it."""
    train: Trainer
    history: HistoryBuffer | None
    window_seconds: Mapping[str, float]
    champions: dict[str, ModelArtifact] = field(default_factory=dict)
    groups: Sequence[str] = (DEFAULT,)

    def play(
        self,
        training_points: Sequence[int],
        *,
        on_progress: Callable[[int], None] = lambda done: None,
        on_training: Callable[[TrainingNote], None] = lambda note: None,
    ) -> Playback:
        """Answer every reading in turn; train whenever so many have been answered.

        Args:
            training_points: rising offsets; each is moved down to a boundary, where the model then switches.
            on_progress: told the number of readings played, often.
            on_training: told of every training.
        """
        result = Playback()
        began = time.process_time()
        for group, champion in list(self.champions.items()):
            self._promote(champion, None, group, result)
        self.worker.start()
        for point in self._stops(training_points):
            self._play_until(point, result, on_progress)
            if point < len(self.recording):
                for group in self.groups:
                    note = self._train(point, group, result)
                    result.trainings.append(note)
                    result.seconds["train"] += note.seconds
                    on_training(note)
        self.worker.finish()
        result.readings, result.dead_letters = self.worker.accepted, self.worker.refused
        result.cpu_seconds = time.process_time() - began
        return result

    def close(self) -> None:
        """Release files, the collected forecasts too. Idempotent."""
        self.source.close()
        self.sink.close()
        self.collector.close()

    def _stops(self, training_points: Sequence[int]) -> list[int]:
        """Where to stop playing: at every training, and at the end."""
        total = len(self.recording)
        at_boundaries = {point - point % self.boundary_records for point in training_points}
        trainings = at_boundaries if self.history is not None else set()
        return [*sorted(point for point in trainings if 0 < point < total), total]

    def _play_until(self, offset: int, result: Playback, on_progress: Callable[[int], None]) -> None:
        self.source.until = offset
        while self.source.position < offset or self.worker.has_backlog:
            report = self.worker.run_once(0.0)
            for stage, seconds in report.seconds.items():
                result.seconds[stage] += seconds
            on_progress(self.source.position)

    def _train(self, offset: int, group: str, result: Playback) -> TrainingNote:
        """One training of a group on what was answered so far, and the switch if it earned it."""
        assert self.history is not None, "without a history there are no training points"
        history = self.history.history(self.window_seconds[group])
        began = time.monotonic()
        try:
            outcome = self.train(history, champion=self.champions.get(group), now=self.worker.watermark, group=group)
        except TrainingFailed as error:
            seconds = time.monotonic() - began
            return TrainingNote(at=offset, outcome="failed", reason=str(error), seconds=seconds, group=group)
        if outcome.decision.is_promoted:
            self._promote(outcome.artifact, self.champions.get(group), group, result)
        return TrainingNote(
            at=offset,
            outcome=outcome.decision.outcome,
            reason=outcome.decision.reason,
            version=outcome.artifact.version,
            readings=outcome.artifact.manifest.data.readings,
            season_seconds=outcome.season_seconds,
            seconds=time.monotonic() - began,
            group=group,
        )

    def _promote(self, artifact: ModelArtifact, before: ModelArtifact | None, group: str, result: Playback) -> None:
        self.worker.adopt(self.make_recurrent(artifact, before), group=group)
        self.champions[group] = artifact
        result.champions.append(artifact)
