"""Forecasts as JSON: the answer that consumers of the topic read."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType


class SourcePosition(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The reading that a forecast answers; ``field`` where a record holds several."""

    topic: str
    partition: int
    offset: int
    field: str = ""


class Forecast(msgspec.Struct, frozen=True, gc=False):
    """One forecast record, its fields in the order they are written."""

    stream_id: str
    origin: str
    """Event time of the reading answered, RFC 3339."""
    value: float | None
    """The reading; ``None`` when it was missing."""
    step_seconds: float
    """What one lead is, in seconds; 0 while the stream's step is not known."""
    quantile_levels: tuple[float, ...]
    quantiles: list[list[float]] | None
    """One row per lead 1..H, one column per level; ``None`` for a stream that has never had a value."""
    status: str
    model: str | None
    """Version of the network that took part, ``None`` where none did."""
    experts: dict[str, float]
    """Share of each expert in the answer, over all leads."""
    source: SourcePosition
    seq: int
    """Which accepted reading of its stream this is, from 1."""
    coverage: float | UnsetType = UNSET
    """Recent share of the stream's targets inside its outermost published interval; absent before the first target."""
    withheld: int | UnsetType = UNSET
    """How many readings before it were answered by no record, as the publishing policy wants; absent for none."""


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Forecast)


def encode_forecast(forecast: Forecast) -> bytes:
    """A forecast as JSON in UTF-8."""
    return _ENCODER.encode(forecast)


def decode_forecast(value: bytes) -> Forecast:
    """A forecast from JSON.

    Raises:
        msgspec.MsgspecError: the bytes are no forecast.
    """
    return _DECODER.decode(value)
