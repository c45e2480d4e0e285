"""Forecasts of a whole wave as JSON: the bytes of `encode_forecast`, without an object for each forecast.

Quantiles are written by `number_text`, other numbers a column at a time by msgspec, whose text is cut at the commas;
what all rows share is written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import msgspec
import numpy as np

from forecaster.codecs.number_text import matrices
from forecaster.series.columns import FloatArray, IntArray

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ForecastWave:
    """Fields of `Forecast` for ``B`` of them, by column; what is no list holds for all."""

    stream_ids: Sequence[str]
    times: FloatArray
    """Event times of the readings answered, ``[B]``, with at most microseconds."""
    values: FloatArray
    """``nan`` where missing, ``[B]``."""
    step_seconds: FloatArray
    quantile_levels: tuple[float, ...]
    quantiles: FloatArray
    """``[B, H, Q]``; ``nan`` for a stream that has never had a value."""
    statuses: Sequence[str]
    model: str | None
    experts: tuple[str, ...]
    shares: FloatArray
    """Of each expert, as they are to be written, ``[B, E]``; those at 0 are left out."""
    network: str
    """The expert without a share of which a forecast names no model."""
    topic: str
    partition: int
    offsets: Sequence[int]
    fields: Sequence[str]
    sequences: Sequence[int]
    coverages: FloatArray
    """As they are to be written, ``nan`` where unknown, ``[B]``."""
    withheld: Sequence[int] | None = None
    """``None`` where the publishing policy withholds nothing."""


def encode_forecasts(wave: ForecastWave) -> list[bytes]:
    """One JSON text in UTF-8 for each row, byte for byte what `encode_forecast` makes of it."""
    if not wave.stream_ids:
        return []
    levels = b',"quantile_levels":' + _encode(wave.quantile_levels) + b',"quantiles":'
    source = b'},"source":{"topic":' + _encode(wave.topic) + b',"partition":' + _encode(wave.partition) + b',"offset":'
    columns = zip(
        _encode(list(wave.stream_ids))[2:-2].split(b'","'),  # no quote inside a JSON string stands behind a comma
        _origins(wave.times),
        _numbers(wave.values),
        _numbers(wave.step_seconds),
        matrices(wave.quantiles),
        wave.statuses,
        _experts(wave),
        wave.offsets,
        wave.fields,
        wave.sequences,
        [b"" if share == b"null" else b',"coverage":' + share for share in _numbers(wave.coverages)],
        [0] * len(wave.stream_ids) if wave.withheld is None else wave.withheld,
        strict=True,
    )
    return [
        b'{"stream_id":"%b","origin":"%b","value":%b,"step_seconds":%b%b%b,"status":"%b","model":%b%b%d%b},"seq":%d%b%b}'
        % (
            name,
            origin,
            value,
            step,
            levels,
            rows,
            status.encode(),
            experts,
            source,
            offset,
            b',"field":' + _encode(field) if field else b"",
            sequence,
            coverage,
            b',"withheld":%d' % withheld if withheld else b"",
        )
        for name, origin, value, step, rows, status, experts, offset, field, sequence, coverage, withheld in columns
    ]


def _numbers(column: FloatArray) -> list[bytes]:
    """Each number as JSON, ``nan`` as null."""
    return _encode(column.tolist())[1:-1].split(b",")


def split_times(times: FloatArray) -> tuple[FloatArray, IntArray]:
    """Whole seconds and microseconds behind them of each time."""
    seconds = np.floor(times)
    # The part behind the point first: far from 1970 a product with the whole would round it once more.
    fractions = np.rint((times - seconds) * 1e6).astype(np.int64)
    return seconds + fractions // 1_000_000, fractions % 1_000_000


def _origins(times: FloatArray) -> list[bytes]:
    """What `format_time` makes of each time."""
    seconds, fractions = split_times(times)
    whole = np.datetime_as_string(seconds.astype(np.int64).astype("datetime64[s]")).tolist()
    if not fractions.any():
        return [second.encode() + b"Z" for second in whole]
    return [
        b"%b.%06dZ" % (second.encode(), fraction) if fraction else second.encode() + b"Z"
        for second, fraction in zip(whole, fractions.tolist(), strict=True)
    ]


def _experts(wave: ForecastWave) -> list[bytes]:
    """Of each row, the model and the shares of the experts that took part."""
    kinds = (wave.shares > 0) @ (1 << np.arange(len(wave.experts)))
    columns = [_numbers(wave.shares[:, expert]) for expert in range(len(wave.experts))]
    found = [b""] * len(wave.stream_ids)
    for kind in np.unique(kinds).tolist():
        rows = np.flatnonzero(kinds == kind).tolist()
        took_part = [number for number in range(len(wave.experts)) if kind >> number & 1]
        names = [wave.experts[number] for number in took_part]
        shares = b",".join(_encode(name).replace(b"%", b"%%") + b":%b" for name in names)
        model = _encode(wave.model if wave.network in names else None).replace(b"%", b"%%")
        text = model + b',"experts":{' + shares
        picked = [[columns[number][row] for row in rows] for number in took_part]
        for row, parts in zip(rows, zip(*picked, strict=True) if picked else repeat(()), strict=False):
            found[row] = text % parts
    return found
