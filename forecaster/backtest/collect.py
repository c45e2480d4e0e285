"""Forecasts kept as arrays instead of being written as records."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from forecaster.codecs.anomaly_json import Anomaly, decode_anomaly
from forecaster.engine.pipeline import Answers
from forecaster.engine.publisher import Publisher
from forecaster.records import Observation, OutRecord, RawRecord
from forecaster.series.columns import FloatArray, IntArray


class StreamForecasts(NamedTuple):
    """Everything one stream was told. ``n`` readings, ``H`` leads, ``Q`` levels, ``E`` experts.

    A row is an accepted reading of the stream, with a value or without: its place is what origins and targets are
    counted by, so that lead h of row i is about row i + h.
    """

    stream_id: str
    times: FloatArray
    """In the files' own time, ``[n]``."""
    values: FloatArray
    """``nan`` where missing, ``[n]``."""
    quantiles: FloatArray
    """``[n, H, Q]``; ``nan`` before the stream's first value."""
    weights: npt.NDArray[np.float32]
    """Share of each expert, ``[n, E]``."""
    serving: IntArray
    """Which network was in service, its place in `ForecastCollector.networks`, ``[n]``; -1 for none."""
    fresh: FloatArray
    """Score of each reading where it would have been a new anomaly (`Verdicts.fresh`), else 0, ``[n]``."""


class ForecastCollector(Publisher):
    """A `Publisher` that keeps the numbers of every forecast, and publishes an empty record in its place.

    Quantiles go to a temporary file, so that memory holds those of one stream at a time.

    Args:
        directory: where the temporary file is made; it is gone when the process ends.
        horizon: H.
    """

    def __init__(
        self,
        directory: Path,
        *,
        forecasts: str,
        dead_letters: str,
        quantile_levels: tuple[float, ...],
        experts: tuple[str, ...],
        horizon: int,
    ) -> None:
        super().__init__(
            forecasts=forecasts, dead_letters=dead_letters, quantile_levels=quantile_levels, experts=experts
        )
        self.quantile_levels = quantile_levels
        self.experts = experts
        self.horizon = horizon
        self.networks: list[str] = []
        """Versions that served, in turn."""
        self._spool = tempfile.TemporaryFile(dir=directory, prefix=".forecasts-")  # noqa: SIM115 - lives as long as this
        self._streams: dict[str, int] = {}
        self._owners: list[int] = []
        self._times: list[FloatArray] = []
        self._values: list[FloatArray] = []
        self._weights: list[npt.NDArray[np.float32]] = []
        self._serving: list[IntArray] = []
        self._fresh: list[FloatArray] = []
        self.anomalies_found: list[Anomaly] = []
        """All that were raised or cleared, in turn, their times moved as the recording's are."""
        self._placeholder = OutRecord(forecasts, None, None, None)

    def forecasts(
        self, answers: Answers, readings: Sequence[tuple[RawRecord, Observation]], model: str | None
    ) -> list[OutRecord]:
        """Keep one wave's answers."""
        known = self._streams
        self._owners.extend(known.setdefault(reading.stream_id, len(known)) for _, reading in readings)
        self._times.append(answers.times)
        self._values.append(answers.values)
        self._weights.append(answers.weights)
        if model is not None and model not in self.networks:
            self.networks.append(model)
        self._serving.append(np.full(len(readings), -1 if model is None else self.networks.index(model)))
        self._fresh.append(np.zeros(len(readings)) if answers.verdicts is None else answers.verdicts.fresh)
        self._spool.write(np.ascontiguousarray(answers.quantiles, np.float64).data)
        return [self._placeholder] * len(readings)

    def anomalies(
        self, answers: Answers, readings: Sequence[tuple[RawRecord, Observation]], model: str | None
    ) -> Iterator[tuple[int, OutRecord]]:
        """Keep what was raised or cleared, and publish nothing."""
        self.anomalies_found.extend(
            decode_anomaly(record.value or b"") for _, record in super().anomalies(answers, readings, model)
        )
        return iter(())

    def __len__(self) -> int:
        return len(self._owners)

    def streams(self, shift: dict[str, float]) -> Iterator[StreamForecasts]:
        """Every stream's forecasts, by name; ``shift`` is what its times were moved by."""
        if not self._owners:
            return
        self._spool.flush()
        shape = (len(self._owners), self.horizon, len(self.quantile_levels))
        quantiles = np.memmap(self._spool, np.float64, mode="r", shape=shape)
        owners = np.array(self._owners, np.int64)
        times, values = np.concatenate(self._times), np.concatenate(self._values)
        weights, serving = np.concatenate(self._weights), np.concatenate(self._serving)
        fresh = np.concatenate(self._fresh)
        by_stream = np.argsort(owners, kind="stable")
        starts = np.searchsorted(owners[by_stream], np.arange(len(self._streams) + 1))
        for stream_id, k in sorted(self._streams.items()):
            rows: IntArray = by_stream[starts[k] : starts[k + 1]]
            yield StreamForecasts(
                stream_id,
                times[rows] - shift.get(stream_id, 0.0),
                values[rows],
                np.array(quantiles[rows]),
                weights[rows],
                serving[rows],
                fresh[rows],
            )

    def close(self) -> None:
        """Give the temporary file back."""
        self._spool.close()
