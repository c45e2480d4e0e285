"""When the next training is due."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from forecaster.training.drift import DriftStatistics, DriftTrigger


class TrainingSchedule:
    """By event time, with a floor in wall-clock time, so that a replay of years in minutes does not train all the time.

    The first training is due as soon as there are enough readings.

    Args:
        every_seconds: event time from one training to the next.
        min_wall_seconds: wall-clock time from the end of one to the start of the next.
        min_readings: readings accepted before the first.
        drift: asks for a training when the live loss has risen; ``None`` never does.
        drift_span_seconds: event time over which live losses are averaged before it sees them.
    """

    def __init__(
        self,
        *,
        every_seconds: float,
        min_wall_seconds: float,
        min_readings: int,
        drift: DriftTrigger | None = None,
        drift_span_seconds: float = 3_600.0,
    ) -> None:
        self._every = every_seconds
        self._min_wall = min_wall_seconds
        self._min_readings = min_readings
        self._started_at_event_time = -math.inf
        self._ended_at = -math.inf
        self._is_asked_for = False
        self._is_after_drift = False
        self._drift, self._drift_span = drift, drift_span_seconds
        self._losses, self._settled, self._span_began = 0.0, 0.0, -math.inf

    def observe(self, losses: float, settled: float, watermark: float) -> bool:
        """Take live losses in; whether they have risen so that a training was asked for.

        Args:
            losses: sum over forecasts whose target has arrived, in units of each stream's scale.
            settled: how many those are.
            watermark: latest event time.
        """
        if self._drift is None or settled == 0:
            return False
        if self._settled == 0:
            self._span_began = watermark
        self._losses, self._settled = self._losses + losses, self._settled + settled
        if watermark - self._span_began < self._drift_span:
            return False
        mean, self._losses, self._settled = self._losses / self._settled, 0.0, 0.0
        if not self._drift.update(mean, watermark):
            return False
        self.ask(after_drift=True)
        return True

    def drift(self) -> DriftStatistics | None:
        """Where the detectors of drift stand; ``None`` where there are none."""
        return self._drift.statistics() if self._drift else None

    def ask(self, *, after_drift: bool = False) -> None:
        """Make a training due as soon as the wall-clock floor allows; ``after_drift`` where drift is the reason."""
        self._is_asked_for = True
        self._is_after_drift |= after_drift

    @property
    def is_after_drift(self) -> bool:
        """Whether drift was noticed since the last training began; the next one asks less of a challenger."""
        return self._is_after_drift

    def is_due(self, *, readings: int, watermark: float, now: float) -> bool:
        """Whether to begin now.

        Args:
            readings: accepted since the start.
            watermark: latest event time.
            now: seconds of a clock that never goes back.
        """
        return self.has_rested(now) and self.is_wanted(readings=readings, watermark=watermark)

    def is_wanted(self, *, readings: int, watermark: float) -> bool:
        """Whether it is time by the readings; `has_rested` may still say to wait."""
        if readings < self._min_readings:
            return False
        return self._is_asked_for or watermark - self._started_at_event_time >= self._every

    def has_rested(self, now: float) -> bool:
        """Whether the last training ended long enough ago."""
        return now - self._ended_at >= self._min_wall

    def started(self, watermark: float) -> None:
        """A training begins on what was known up to ``watermark``."""
        self._started_at_event_time = watermark
        self._is_asked_for = False
        self._is_after_drift = False

    def ended(self, now: float) -> None:
        """It ended, well or not."""
        self._ended_at = now


class GroupSchedules:
    """The schedules of groups that share one trainer, which trains one group at a time.

    Of groups that are due the one that has used the least processor time begins; of equals the one that has waited
    longest. So a group whose trainings are long or many does not keep the others from theirs.
    """

    def __init__(self, schedules: Mapping[str, TrainingSchedule]) -> None:
        self._schedules = dict(schedules)
        self._used = dict.fromkeys(schedules, 0.0)
        self._wanted_since: dict[str, float] = {}

    def __getitem__(self, group: str) -> TrainingSchedule:
        """The schedule of one group."""
        return self._schedules[group]

    @property
    def groups(self) -> tuple[str, ...]:
        """All that are trained."""
        return tuple(self._schedules)

    def next_due(
        self, *, readings: Mapping[str, int], watermark: float, now: float, may_train: Callable[[str], bool]
    ) -> str | None:
        """The group to train now, ``None`` where none is due. Asked while another trains, it notes who begins to wait.

        Args:
            readings: accepted since the start, by group.
            watermark, now: as for `TrainingSchedule.is_due`.
            may_train: says of a group that is due whether it may begin; one that may not goes on waiting.
        """
        for group, schedule in self._schedules.items():
            if schedule.is_wanted(readings=readings.get(group, 0), watermark=watermark):
                self._wanted_since.setdefault(group, now)
            else:
                self._wanted_since.pop(group, None)
        ready = [group for group in self._wanted_since if self._schedules[group].has_rested(now) and may_train(group)]
        return min(ready, key=lambda group: (self._used[group], self._wanted_since[group]), default=None)

    def started(self, group: str, watermark: float) -> None:
        """A training of this group begins on what was known up to ``watermark``."""
        self._wanted_since.pop(group, None)
        self._schedules[group].started(watermark)

    def ended(self, group: str, now: float, *, cpu_seconds: float) -> None:
        """It ended, well or not, and has taken so much processor time.

        The wall-clock floor between trainings is of all groups together: it is there to leave the machine time.
        """
        self._used[group] += cpu_seconds
        for schedule in self._schedules.values():
            schedule.ended(now)
