"""Forecasts as Avro: what `forecast_json` says, with types. The schema is ``schemas/forecast.avsc``.

Numbers are the doubles that the JSON form spells out: a forecast read from either is the same. Forecasts of a wave are
put together from columns, as fastavro would write each of them: what all rows share once, quantiles by numpy.
"""

from __future__ import annotations

import json
import struct
from importlib.resources import files

import msgspec
import numpy as np

from forecaster.codecs.avro import MARKER, AvroSchema
from forecaster.codecs.forecast_json import Forecast, decode_forecast
from forecaster.codecs.forecast_wave import ForecastWave, split_times
from forecaster.codecs.timestamps import format_time, parse_time
from forecaster.series.columns import FloatArray

SCHEMA = AvroSchema(json.loads(files("forecaster.codecs").joinpath("schemas/forecast.avsc").read_text("utf-8")))
_NULL, _SECOND = b"\x00", b"\x02"
"""Branches of a union of null and something."""
_END = b"\x00"
"""Of an array's or a map's blocks."""
_double = struct.Struct("<d").pack


def encode_forecast_avro(forecast: Forecast) -> bytes:
    """A forecast as Avro, by fastavro."""
    found = msgspec.to_builtins(forecast)
    seconds, fractions = split_times(np.array([parse_time(forecast.origin)]))
    found["origin"] = int(seconds[0]) * 1_000_000 + int(fractions[0])
    found.setdefault("coverage", None)
    return SCHEMA.write(found)


def decode_forecast_avro(value: bytes) -> Forecast:
    """A forecast from Avro.

    Raises:
        ValueError: the bytes are no forecast of this schema.
    """
    found = SCHEMA.read(value)
    try:
        found["origin"] = format_time(found["origin"] / 1e6)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"no time: {found['origin']} µs") from error
    if found["coverage"] is None:
        del found["coverage"]
    if not found["withheld"]:
        del found["withheld"]
    return msgspec.convert(found, Forecast)


def read_forecast(value: bytes) -> Forecast:
    """A forecast from JSON or Avro, whichever it is.

    Raises:
        ValueError: it is neither.
    """
    return decode_forecast_avro(value) if value.startswith(MARKER) else decode_forecast(value)


def encode_forecasts_avro(wave: ForecastWave) -> list[bytes]:
    """One record for each row, byte for byte what `encode_forecast_avro` makes of it."""
    if not wave.stream_ids:
        return []
    levels = _array(len(wave.quantile_levels)) + b"".join(map(_double, wave.quantile_levels)) + _END
    topic, partition = _text(wave.topic), _long(wave.partition)
    seconds, fractions = split_times(wave.times)
    columns = zip(
        wave.stream_ids,
        (seconds.astype(np.int64) * 1_000_000 + fractions).tolist(),
        _optional(wave.values),
        np.ascontiguousarray(wave.step_seconds, "<f8").view("V8").tolist(),
        _quantiles(wave.quantiles),
        [wave.status_names[status] for status in wave.statuses.tolist()],
        _experts(wave),
        wave.offsets.tolist(),
        wave.fields,
        wave.sequences.tolist(),
        _optional(wave.coverages),
        [0] * len(wave.stream_ids) if wave.withheld is None else wave.withheld.tolist(),
        strict=True,
    )
    return [
        b"".join(
            (
                *(SCHEMA.head, _text(name), _long(origin), value, step, levels, rows, _text(status), experts),
                *(topic, partition, _long(offset), _text(field) if field else _END),
                *(_long(sequence), coverage, _long(withheld)),
            )
        )
        for name, origin, value, step, rows, status, experts, offset, field, sequence, coverage, withheld in columns
    ]


def _long(number: int) -> bytes:
    """An int or long: zigzag, then seven bits a byte, lowest first.

    >>> [_long(number).hex() for number in (0, -1, 1, -64, 64)]
    ['00', '01', '02', '7f', '8001']
    """
    rest = number << 1 if number >= 0 else ~(number << 1)
    if rest < 128:
        return b"%c" % rest
    found = bytearray()
    while rest > 127:
        found.append(rest & 127 | 128)
        rest >>= 7
    found.append(rest)
    return bytes(found)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _long(len(encoded)) + encoded


def _array(items: int) -> bytes:
    """What stands before the items of an array or a map that has any, and ends it; nothing where it has none."""
    return _long(items) if items else b""


def _optional(column: FloatArray) -> list[bytes]:
    """Each number as a union of null and double, ``nan`` as null."""
    numbers = np.ascontiguousarray(column, "<f8").view("V8").tolist()
    known = np.logical_not(np.isnan(column)).tolist()
    return [_SECOND + number if is_known else _NULL for number, is_known in zip(numbers, known, strict=True)]


def _quantiles(quantiles: FloatArray) -> list[bytes]:
    """Each row as a union of null and rows of doubles, null where nothing is known."""
    rows, leads, levels = quantiles.shape
    before, begin, end = _SECOND + _array(leads), _array(levels), _END
    width = len(begin) + 8 * levels + len(end)
    whole = np.zeros((rows, len(before) + leads * width + 1), np.uint8)  # the last byte ends the outer array
    whole[:, : len(before)] = np.frombuffer(before, np.uint8)
    inner = whole[:, len(before) : -1].reshape(rows, leads, width)
    inner[:, :, : len(begin)] = np.frombuffer(begin, np.uint8)
    numbers = np.ascontiguousarray(quantiles, "<f8").view(np.uint8).reshape(rows, leads, 8 * levels)
    inner[:, :, len(begin) : len(begin) + 8 * levels] = numbers
    known = np.logical_not(np.isnan(quantiles[:, 0, 0])).tolist()
    texts = whole.view(f"V{whole.shape[1]}").ravel().tolist()
    return [text if is_known else _NULL for text, is_known in zip(texts, known, strict=True)]


def _experts(wave: ForecastWave) -> list[bytes]:
    """Of each row, the model and the shares of the experts that took part."""
    names = [_text(name) for name in wave.experts]
    network = wave.experts.index(wave.network) if wave.network in wave.experts else None
    model = _NULL if wave.model is None else _SECOND + _text(wave.model)
    found = []
    numbers = np.ascontiguousarray(wave.shares, "<f8").view("V8").reshape(wave.shares.shape).tolist()
    for shares, row in zip((wave.shares > 0).tolist(), numbers, strict=True):
        parts = [names[number] + row[number] for number, took_part in enumerate(shares) if took_part]
        serves = network is not None and shares[network]
        found.append(b"".join((model if serves else _NULL, _array(len(parts)), *parts, _END)))
    return found
