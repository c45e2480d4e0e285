"""Forecasts of a whole wave as JSON: the bytes of `encode_forecast`, without an object for each forecast.

`forecast_text` puts records together; msgspec writes names and what is no rounded number, a column at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from forecaster.codecs.forecast_text import RecordColumns, RecordTexts, write_records
from forecaster.series.columns import FloatArray, IntArray

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ForecastWave:
    """Fields of `Forecast` for ``B`` of them, by column; what is no column holds for all."""

    stream_ids: Sequence[str]
    times: FloatArray
    """Event times of the readings answered, ``[B]``, with at most microseconds."""
    values: FloatArray
    """``nan`` where missing, ``[B]``."""
    step_seconds: FloatArray
    quantile_levels: tuple[float, ...]
    quantiles: FloatArray
    """``[B, H, Q]``; ``nan`` for a stream that has never had a value."""
    statuses: IntArray
    """Of each, its place among the ``status_names``, ``[B]``."""
    status_names: tuple[str, ...]
    model: str | None
    experts: tuple[str, ...]
    shares: FloatArray
    """Of each expert, from 0 to 1 and rounded to four decimals, ``[B, E]``; those at 0 are left out."""
    network: str
    """The expert without a share of which a forecast names no model."""
    topic: str
    partition: int
    offsets: IntArray
    fields: Sequence[str]
    sequences: IntArray
    coverages: FloatArray
    """From 0 to 1 and rounded to four decimals, ``nan`` where unknown, ``[B]``."""
    withheld: IntArray | None = None
    """``None`` where the publishing policy withholds nothing."""


def encode_forecasts(wave: ForecastWave) -> list[bytes]:
    """One JSON text in UTF-8 for each row, byte for byte what `encode_forecast` makes of it."""
    rows = len(wave.stream_ids)
    if rows == 0:
        return []
    fields = list(dict.fromkeys(wave.fields))
    numbers = np.empty((rows, 2))
    numbers[:, 0], numbers[:, 1] = wave.values, wave.step_seconds
    seconds, microseconds = split_times(wave.times)
    records, holes = write_records(
        RecordTexts(
            shared=(
                b'{"stream_id":',
                b',"origin":"',
                b'","value":',
                b',"step_seconds":',
                b',"quantile_levels":' + _encode(wave.quantile_levels) + b',"quantiles":',
                b'},"source":{"topic":%b,"partition":%d,"offset":' % (_encode(wave.topic), wave.partition),
                b'},"seq":',
                b',"coverage":',
                b',"withheld":',
                b"}",
            ),
            kinds=[
                b',"status":%b,"model":%b,"experts":{' % (_encode(status), _encode(model))
                for status in wave.status_names
                for model in (None, wave.model)
            ],
            experts=[_encode(name) + b":" for name in wave.experts],
            fields=[b',"field":' + _encode(field) if field else b"" for field in fields],
        ),
        RecordColumns(
            names=_encode(wave.stream_ids),
            seconds=seconds,
            microseconds=microseconds,
            numbers=_encode(numbers.ravel().tolist()),
            quantiles=wave.quantiles,
            statuses=wave.statuses,
            network=wave.experts.index(wave.network) if wave.network in wave.experts else -1,
            shares=wave.shares,
            offsets=wave.offsets,
            fields=_places(wave.fields, fields),
            sequences=wave.sequences,
            coverages=wave.coverages,
            withheld=np.zeros(rows, np.int64) if wave.withheld is None else wave.withheld,
        ),
    )
    for row, hole in holes.items():
        record = records[row]
        records[row] = record[:hole] + _encode(wave.quantiles[row].tolist()) + record[hole:]
    return records


def _places(fields: Sequence[str], among: Sequence[str]) -> IntArray:
    """Of each field, its place."""
    if len(among) == 1:
        return np.zeros(len(fields), np.int64)
    place = {field: number for number, field in enumerate(among)}
    return np.array([place[field] for field in fields], np.int64)


def split_times(times: FloatArray) -> tuple[FloatArray, IntArray]:
    """Whole seconds and microseconds behind them of each time."""
    seconds = np.floor(times)
    # The part behind the point first: far from 1970 a product with the whole would round it once more.
    fractions = np.rint((times - seconds) * 1e6).astype(np.int64)
    return seconds + fractions // 1_000_000, fractions % 1_000_000
