"""Facts about what the engine did: the shell turns them into metrics and log lines, tests assert on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

from forecaster.records import Reason


@dataclass(slots=True)
class LeadScores:
    """Sums over settled forecasts, by anchor lead; errors are in units of each stream's own scale.

    Sums, not means, so that reports add up.
    """

    leads: tuple[int, ...]
    settled: npt.NDArray[np.float64]
    """Forecasts whose target arrived, ``[A]``."""
    abs_error: npt.NDArray[np.float64]
    """Of the published median, ``[A]``."""
    naive_abs_error: npt.NDArray[np.float64]
    """Of the last value, at the same origins, ``[A]``."""
    covered: npt.NDArray[np.float64]
    """Targets inside the outermost published interval, ``[A]``."""
    width: npt.NDArray[np.float64]
    """Of that interval, ``[A]``."""

    @classmethod
    def zero(cls, leads: tuple[int, ...]) -> LeadScores:
        return cls(leads, *(np.zeros(len(leads)) for _ in range(5)))

    def add(self, other: LeadScores) -> None:
        self.settled += other.settled
        self.abs_error += other.abs_error
        self.naive_abs_error += other.naive_abs_error
        self.covered += other.covered
        self.width += other.width


@dataclass(slots=True)
class GroupReport:
    """What happened to the readings of one group, as far as its trainings depend on it."""

    accepted: int = 0
    losses: float = 0.0
    """Sum of the pinball of the published median over settled forecasts, in units of each stream's scale."""
    settled: float = 0.0
    """Forecasts whose target arrived."""

    def add(self, other: GroupReport) -> None:
        self.accepted += other.accepted
        self.losses += other.losses
        self.settled += other.settled


@dataclass(slots=True)
class StepReport:
    """What happened to the readings of one or more waves."""

    scores: LeadScores
    accepted: int = 0
    """Readings answered by a forecast."""
    missing: int = 0
    """Of those, readings without a value."""
    gap_steps: int = 0
    """Absent steps the clocks passed over."""
    rebuilt: int = 0
    """Streams whose hidden state was replayed from the ring: after a long gap, or for a new model."""
    new_streams: int = 0
    evicted: int = 0
    """Streams forgotten: idle, or by tombstone."""
    dropped: int = 0
    """Duplicates only counted, by the setting."""
    withheld: int = 0
    """Forecasts made and not published, by the setting."""
    rejected: Counter[Reason] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    """Forecasts by the status they carry."""
    raised: Counter[str] = field(default_factory=Counter)
    """Anomalies by their direction."""
    cleared: int = 0
    """Anomalies that are over."""
    labels: Counter[str] = field(default_factory=Counter)
    """Labels of anomalies that moved a stream's thresholds: ``true`` and ``false``."""
    shares: dict[str, float] = field(default_factory=dict)
    """Sum over forecasts of the share each expert had in them; all experts together make the forecasts accepted."""
    groups: dict[str, GroupReport] = field(default_factory=dict)

    def add(self, other: StepReport) -> None:
        self.scores.add(other.scores)
        for name in ("accepted", "missing", "gap_steps", "rebuilt", "new_streams", "evicted", "dropped", "cleared"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.withheld += other.withheld
        self.rejected.update(other.rejected)
        self.statuses.update(other.statuses)
        self.raised.update(other.raised)
        self.labels.update(other.labels)
        for expert, share in other.shares.items():
            self.shares[expert] = self.shares.get(expert, 0.0) + share
        for group, part in other.groups.items():
            self.groups.setdefault(group, GroupReport()).add(part)


class Doubt(StrEnum):
    """Why a warm copy of a partition's state was not used, or is not held."""

    FULL = "full"
    """There is no room for it: ``recovery.standby_bytes``."""
    STALE = "stale"
    """It was last known to reach the end of the log too long ago."""
    FAILED = "failed"
    """The topic could not be followed; all copies were forgotten."""
    CHANGED = "changed"
    """The log does not go on behind it: made anew, cut, or compacted over."""
    REFUSED = "refused"
    """It did not belong to the committed offset, or its records could not be read."""


RestoreKind = Literal["standby", "cold", "fresh"]
"""From a warm copy; from the beginning of the state topic; without state."""


@dataclass(frozen=True, slots=True)
class Restoring:
    """One partition that is ours and not live yet."""

    partition: int
    stage: Literal["waiting", "reading", "replaying"]
    done: int = 0
    """Offsets of the state topic read, or readings taken in again."""
    total: int = 0
    """Of how many; 0 while that is not known."""

    def __str__(self) -> str:
        return f"{self.partition} ({self.stage}{f' {self.done:,} of {self.total:,}' if self.total else ''})"


@dataclass(frozen=True, slots=True)
class Restored:
    """One partition that has become live."""

    partition: int
    kind: RestoreKind
    seconds: float
    """Since its reading began."""
    state_records: int
    """Held when it was restored, one a key."""
    state_bytes: int
    replayed: int
    """Readings taken in a second time."""


@dataclass(frozen=True, slots=True)
class StandbyReport:
    """Copies held for partitions that are others'."""

    partitions: int = 0
    nbytes: int = 0
    doubts: Counter[Doubt] = field(default_factory=Counter)
    """Since the last report."""


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """Partitions on their way to being live."""

    restoring: tuple[Restoring, ...] = ()
    restored: tuple[Restored, ...] = ()
    """Since the last report."""
    standby: StandbyReport = field(default_factory=StandbyReport)


Failure = Literal["fenced", "rebalancing", "timeout", "undelivered", "unavailable", "other"]
"""What kept a commit or an answer from being confirmed."""

Move = Literal["assigned", "revoked", "lost"]
"""A partition that came, went in good order, or was taken away."""


@dataclass(frozen=True, slots=True)
class StreamSample:
    """The newest reading and forecast of one stream, in its own units."""

    stream_id: str
    time: float
    value: float
    step_seconds: float
    forecast: Mapping[tuple[int, float], float]
    """Published quantile by (anchor lead, level); empty before the first."""
    weights: Mapping[str, float]
    """Share of each expert in it."""
    error_vs_naive: float | None
    coverage: float | None
    is_anomalous: bool
    """It is in an anomaly now."""


@dataclass(slots=True)
class LoopReport:
    """One turn of the worker's loop: poll, decode, step, publish, commit."""

    step: StepReport
    records: int = 0
    """Raw records polled."""
    forecasts: int = 0
    dead_letters: int = 0
    committed: bool = False
    waves: list[tuple[int, float]] = field(default_factory=list)
    """(streams, seconds) of each wave."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage: poll, decode, step, publish, commit. Absent where the turn had none of it."""
    recovery: RecoveryReport = field(default_factory=RecoveryReport)
    failures: Counter[Failure] = field(default_factory=Counter)
    """Since the last report, as `moves`."""
    moves: Counter[Move] = field(default_factory=Counter)
    """Partitions."""
    starts_over: int = 0
    """Transactions thrown away; the worker went back to the last commit."""
