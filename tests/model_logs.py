"""A `ModelLog` in memory, shared by any number of writers and readers, and models to put into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from forecaster.errors import Fenced, TransportTimeout
from forecaster.models.artifact import DataSpan, ModelArtifact
from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.network import RecurrentForecaster
from forecaster.ports import LogReading, LogRecord


def make_model(seed: int = 0, created: float = 1_767_225_600.0, **overrides: Any) -> ModelArtifact:
    """A tiny untrained model; another seed or second is another version."""
    hp = HyperParameters(feature_names=("change",), used_features=("change",), hidden=12, head_width=8, horizon=1)
    span = DataSpan(first=0.0, last=1.0, streams=1, readings=2)
    network = RecurrentForecaster.seeded(hp, seed)
    return ModelArtifact.create(network, **{"created": created, "data": span, "seed": seed, **overrides})


@dataclass
class Topic:
    """What the logs share: records with holes where compaction took some, and who may write."""

    records: list[LogRecord] = field(default_factory=list)
    end: int = 0
    generation: int = 0
    """Counts how often the topic was made anew."""
    epoch: int = 0

    def add(self, key: str, value: bytes | None) -> None:
        self.records.append(LogRecord(self.end, key, value))
        self.end += 1

    def compact(self) -> None:
        """Only the newest record of each key stays, at its offset; tombstones go."""
        newest = {record.key: record for record in self.records}
        self.records = [r for r in self.records if newest[r.key] is r and r.value is not None]

    def make_anew(self) -> None:
        self.records, self.end, self.generation = [], 0, self.generation + 1


class MemoryModelLog:
    """One process's view of a `Topic`. ``on_append`` stands for what happens in the middle of a write."""

    name = "models"

    def __init__(self, topic: Topic, *, max_value_bytes: int = 2_500) -> None:
        self._topic = topic
        self._max_value_bytes = max_value_bytes
        self._position = 0
        self._generation = -1
        self._epoch: int | None = None
        self.on_append: list[Callable[[], None]] = []
        """Called one by one, each at one append, before it takes place."""
        self.after_append: list[Callable[[], None]] = []
        """The same, after it took place."""
        self.is_closed = False
        self.fetched = 0

    @property
    def max_value_bytes(self) -> int:
        return self._max_value_bytes

    def read(self, *, wait: bool) -> LogReading:
        is_from_beginning = self._generation != self._topic.generation
        if is_from_beginning:
            self._position, self._generation = 0, self._topic.generation
        records = [record for record in self._topic.records if record.offset >= self._position]
        self._position = self._topic.end
        return LogReading(records, is_from_beginning)

    def fetch(self, offsets: Sequence[int]) -> dict[int, bytes]:
        self.fetched += 1
        return {r.offset: r.value for r in self._topic.records if r.offset in offsets and r.value is not None}

    def claim(self) -> None:
        self._topic.epoch += 1
        self._epoch = self._topic.epoch

    def append(self, entries: Sequence[tuple[str, bytes | None]]) -> None:
        if self.on_append:
            self.on_append.pop(0)()
        if self._epoch != self._topic.epoch:
            raise Fenced("Another has claimed.")
        for key, value in entries:
            assert value is None or len(value) <= self._max_value_bytes
            self._topic.add(key, value)
        if self.after_append:
            self.after_append.pop(0)()

    def publish(self, key: str, value: bytes) -> None:
        self._topic.add(key, value)

    def release(self) -> None:
        self._epoch = None

    def close(self) -> None:
        self.is_closed = True


def time_out() -> None:
    raise TransportTimeout("The commit did not come back.")
