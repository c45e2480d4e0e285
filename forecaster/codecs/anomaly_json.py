"""Anomalies as JSON: what consumers of the topic read."""

from __future__ import annotations

import math

import msgspec

from forecaster.codecs.forecast_json import SourcePosition
from forecaster.codecs.timestamps import parse_time
from forecaster.records import DeadLetter, Observation, RawRecord, Tombstone


class Anomaly(msgspec.Struct, frozen=True, gc=False):
    """One record of the topic of anomalies, its fields in the order they are written."""

    stream_id: str
    timestamp: str
    """Event time of the reading that raised or cleared it, RFC 3339."""
    state: str
    """``raised`` or ``cleared``."""
    direction: str
    """``up``, ``down``, ``flat`` or ``gap``."""
    cause: str
    """Test that raised it: ``surprise``, ``drift``, ``extreme``, ``shift``, ``flat`` or ``gap``."""
    severity: str
    """``minor``, ``major`` or ``critical``, by the score."""
    score: float
    """Multiple of the test's threshold; of a cleared anomaly the highest it had."""
    since: str
    """Event time at which it was raised."""
    value: float | None
    """The reading; ``None`` when it was missing."""
    expected: float | None
    """Published median for this reading, and the outermost quantiles; ``None`` where nothing was published."""
    lower: float | None
    upper: float | None
    model_version: str | None
    """Network in service at this reading."""
    source: SourcePosition
    seq: int
    """Which accepted reading of its stream this is, from 1."""


MAJOR, CRITICAL = 1.5, 3.0
"""Scores from which an anomaly is major, and critical."""

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Anomaly)


def severity(score: float) -> str:
    """How bad a score is, in a word.

    >>> [severity(score) for score in (1.0, 1.5, 30.0)]
    ['minor', 'major', 'critical']
    """
    return "critical" if score >= CRITICAL else "major" if score >= MAJOR else "minor"


def encode_anomaly(anomaly: Anomaly) -> bytes:
    """An anomaly as JSON in UTF-8."""
    return _ENCODER.encode(anomaly)


def decode_anomaly(value: bytes) -> Anomaly:
    """An anomaly from JSON.

    Raises:
        msgspec.MsgspecError: the bytes are no anomaly.
    """
    return _DECODER.decode(value)


class AnomalyMarks:
    """Reads the topic of anomalies as a history of marks, one a record: of a raised anomaly the event time and ``nan``,
    of a cleared one its event time and when it was raised."""

    def decode(self, raw: RawRecord) -> list[Observation | DeadLetter | Tombstone]:
        """What one record says; what is no anomaly says nothing."""
        if raw.value is None:
            return []
        try:
            found = decode_anomaly(raw.value)
            since = parse_time(found.since) if found.state == "cleared" else math.nan
            return [Observation(found.stream_id, parse_time(found.timestamp), since)]
        except (msgspec.MsgspecError, ValueError):
            return []
