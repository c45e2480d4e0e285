"""The metrics of several workers as one exposition.

Counters and histograms add up. What a worker had counted when it ended stays in the sum, so that the sum never falls
while the parent lives; what it counted after the last scrape is not known. Gauges and infos of several workers are no
sum: each keeps the worker's number as the label ``worker``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

ACCEPT = "application/openmetrics-text; version=1.0.0"
"""How a worker has to be asked: this form names the kinds of metrics exactly."""

_ADD_UP = frozenset({"counter", "histogram"})

_Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class _Worker:
    """What one worker has told."""

    life: int
    families: list[Metric] = field(default_factory=list)
    counted: dict[_Key, float] = field(default_factory=dict)
    before: dict[_Key, float] = field(default_factory=dict)
    """Counts of its earlier lives."""


class MergedMetrics:
    """Takes what workers expose, and exposes it together. Any thread may call."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}
        self._lock = threading.Lock()

    def take(self, number: int, life: int, text: str) -> None:
        """What a worker exposes now, asked for with `ACCEPT`.

        Args:
            life: another number for every process that takes up the worker's place.

        Raises:
            ValueError: it is no such text.
        """
        families: list[Metric] = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
        counted = {
            _key(sample): float(sample.value)
            for family in families
            if family.type in _ADD_UP
            for sample in family.samples
        }
        with self._lock:
            worker = self._workers.setdefault(number, _Worker(life))
            if worker.life != life:
                worker.life = life
                for key, value in worker.counted.items():
                    worker.before[key] = worker.before.get(key, 0.0) + value
            worker.families, worker.counted = families, counted

    def gone(self, number: int) -> None:
        """A worker does not run: its gauges are no longer shown, its counts stay."""
        with self._lock:
            worker = self._workers.get(number)
            if worker is not None:
                worker.families = [family for family in worker.families if family.type in _ADD_UP]

    def exposition(self, accept: str, own: Iterable[Metric] = ()) -> tuple[bytes, str]:
        """All of it as text, with metrics of the caller's own, in the format the ``Accept`` header asks for."""
        with self._lock:
            merged = _Families([*own, *_merge(self._workers)])
        encode, content_type = choose_encoder(accept)
        return encode(merged), content_type


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _merge(workers: Mapping[int, _Worker]) -> Iterable[Metric]:
    merged: dict[str, Metric] = {}
    sums: dict[_Key, float] = {}
    for worker in workers.values():
        for counts in (worker.before, worker.counted):
            for key, value in counts.items():
                sums[key] = sums.get(key, 0.0) + value
    placed: set[_Key] = set()
    for number, worker in sorted(workers.items()):
        for family in worker.families:
            into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type, family.unit))
            for sample in family.samples:
                if family.type not in _ADD_UP:
                    into.samples.append(Sample(sample.name, {**sample.labels, "worker": str(number)}, sample.value))
                elif _key(sample) not in placed:
                    placed.add(_key(sample))
                    into.samples.append(Sample(sample.name, sample.labels, sums[_key(sample)]))
    return merged.values()


def _key(sample: Sample) -> _Key:
    return sample.name, tuple(sorted(sample.labels.items()))
