"""Recent readings kept in memory for the trainer, where there is no topic to read them from again."""

from __future__ import annotations

import logging
import math
from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from forecaster.series.columns import FloatArray
from forecaster.training.budget import StreamBudget
from forecaster.training.history import History, Series

log = logging.getLogger(__name__)

_CHARGED_READINGS = 64
"""Readings that are counted towards the memory at once."""

Periods = Mapping[str, Sequence[tuple[float, float]]]


class HistoryBuffer:
    """The newest accepted readings of every stream, columnar, bounded.

    Args:
        max_readings_per_stream: older ones are forgotten.
        covariates: C per reading.
        future: K·H, numbers known ahead at each reading.
        excluded: by stream, event times from and to that are no trainer's to see.
        max_bytes: of readings kept; of more streams than fit a choice drawn from the seed is kept (`StreamBudget`).
        seed: of the choice.
    """

    def __init__(
        self,
        *,
        max_readings_per_stream: int,
        covariates: int = 0,
        future: int = 0,
        excluded: Periods | None = None,
        max_bytes: int = 2**40,
        seed: int = 0,
    ) -> None:
        self._excluded = excluded or {}
        self._budget = StreamBudget(max_bytes=max_bytes, reading_bytes=8 * (2 + covariates + future), seed=seed)
        self._trimmed: set[str] = set()
        """Streams that were as long as they become: they take no more memory than is counted."""
        self._anomalies: dict[str, list[tuple[float, float]]] = {}
        """By stream, event times from and, not included, to; endless while an anomaly is open."""
        self._limit = max_readings_per_stream
        self._covariates, self._beside = covariates, covariates + future
        self._streams: dict[str, tuple[array[float], array[float], array[float]]] = {}
        """By stream times, values, and what stands beside each: covariates, then what is known ahead."""

    def add(
        self,
        stream_ids: Sequence[str],
        times: Sequence[float] | FloatArray,
        values: Sequence[float] | FloatArray,
        covariates: Sequence[tuple[float, ...]],
        future: Sequence[tuple[float, ...]] | None = None,
    ) -> None:
        """One wave of accepted readings; ``nan`` is missing."""
        known = [()] * len(stream_ids) if future is None else future
        rows = zip(stream_ids, np.asarray(times).tolist(), np.asarray(values).tolist(), covariates, known, strict=True)
        for stream_id, time, value, *beside in rows:
            columns = self._streams.get(stream_id)
            if columns is None:
                if not self._budget.admits(stream_id):
                    continue
                columns = self._streams[stream_id] = (array("d"), array("d"), array("d"))
            columns[0].append(time)
            columns[1].append(value)
            for numbers in beside:
                columns[2].extend(numbers)
            if len(columns[0]) % _CHARGED_READINGS == 1 and stream_id not in self._trimmed:
                self._charge(stream_id)
            if len(columns[0]) >= 2 * self._limit:
                del columns[0][: self._limit], columns[1][: self._limit], columns[2][: self._limit * self._beside]
                self._trimmed.add(stream_id)

    def _charge(self, stream_id: str) -> None:
        had_refused = self._budget.has_refused
        for refused in self._budget.grow(stream_id, _CHARGED_READINGS):
            del self._streams[refused]
            self._anomalies.pop(refused, None)
            self._trimmed.discard(refused)
        if self._budget.has_refused and not had_refused:
            log.warning("not all streams fit into a training's memory", extra={"streams": len(self._streams)})

    def flag(self, stream_id: str, since: float, until: float | None) -> None:
        """An anomaly was raised at ``since``, or one raised then was cleared at ``until``."""
        if stream_id not in self._streams:
            return
        of_stream = self._anomalies.setdefault(stream_id, [])
        if of_stream and of_stream[-1][0] == since:
            del of_stream[-1]
        of_stream.append((since, math.inf if until is None else until))

    def history(self, window_seconds: float) -> History:
        """The readings of the newest ``window_seconds`` of event time, as the trainer takes them."""
        newest = max((columns[0][-1] for columns in self._streams.values()), default=0.0)
        series = {}
        for stream_id, (times, values, beside) in self._streams.items():
            keep = slice(-self._limit, None)
            numbers = np.array(beside).reshape(len(times), self._beside)[keep]
            series[stream_id] = Series.with_beside(
                np.array(times)[keep], np.array(values)[keep], numbers, covariates=self._covariates
            )
        self._forget_anomalies(series)
        found = History(series).between(newest - window_seconds, newest)
        return found.without(self._excluded).flag(self._anomalies)

    def _forget_anomalies(self, kept: Mapping[str, Series]) -> None:
        """Those that ended before anything that is remembered of their stream."""
        for stream_id, periods in list(self._anomalies.items()):
            oldest = kept[stream_id].times[0] if stream_id in kept else math.inf
            self._anomalies[stream_id] = [period for period in periods if period[1] > oldest]
            if not self._anomalies[stream_id]:
                del self._anomalies[stream_id]
