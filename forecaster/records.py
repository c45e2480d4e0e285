"""The values that travel between the rooms of the program: frozen, slotted, without behaviour.

Times are seconds since the epoch, UTC, as ``float``; milliseconds exist only in transports and codecs.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Why a reading was refused: header ``reason`` of a dead letter and label of the rejected counter."""

    NOT_JSON = "not_json"
    """The value is not a JSON object in UTF-8."""
    NOT_AVRO = "not_avro"
    """The value begins as Avro, and is not what its schema says, or names a schema that is not known."""
    WRONG_TYPE = "wrong_type"
    """A field is of another JSON type than it must be."""
    NOT_FINITE = "not_finite"
    """NaN, infinite, or too large for a double."""
    OUT_OF_RANGE = "out_of_range"
    """Outside the declared minimum and maximum."""
    ABSENT_ID = "absent_id"
    """Neither body nor key names the stream."""
    ID_CONFLICT = "id_conflict"
    """The id in the body contradicts the record's key."""
    OVERSIZED_ID = "oversized_id"
    """The stream id is longer than allowed."""
    OVERSIZED_PAYLOAD = "oversized_payload"
    """The record is larger than allowed."""
    ABSENT_VALUE = "absent_value"
    """None of the target fields is in the record."""
    BAD_TIME = "bad_time"
    """The timestamp cannot be read, is impossible, or lies too far ahead of the record's own."""
    DUPLICATE = "duplicate"
    """The stream has had this time already, with the same value."""
    CONFLICT = "conflict"
    """The stream has had this time already, with another value."""
    LATE = "late"
    """The stream's clock is past this time."""
    STREAM_LIMIT = "stream_limit"
    """The partition holds as many streams as it may; new ones are refused."""


class Status(StrEnum):
    """How much a forecast can be trusted, in every forecast record."""

    WARMING = "warming"
    """No network answers for this stream yet: the baselines do."""
    OK = "ok"
    GAP = "gap"
    """First answer after more missing steps than the network is carried across."""
    STALE = "stale"
    """First answer after a silence longer than all that is remembered."""
    FLAT = "flat"
    """The sensor has repeated one value for suspiciously long."""
    FALLBACK = "fallback"
    """The network's answer was unusable; the baselines answer."""


class Position(msgspec.Struct, frozen=True, gc=False):
    """Where a record stands in the source."""

    topic: str
    partition: int
    offset: int


class RawRecord(msgspec.Struct, frozen=True, gc=False):
    """One record as a transport hands it over: bytes and where they came from."""

    topic: str
    partition: int
    offset: int
    timestamp: float
    """The record's own time (the broker's or the producer's), in seconds; negative when it has none."""
    key: bytes | None
    value: bytes | None


class Observation(msgspec.Struct, frozen=True, gc=False):
    """One value of one stream at one event time."""

    stream_id: str
    time: float
    value: float
    """``nan`` is a missing reading: known to have been due, without a value."""
    field: str = ""
    """Name of the target field where a record holds several, else empty."""
    covariates: tuple[float, ...] = ()
    """Past covariates in the order of the setting; ``nan`` where absent."""
    future: tuple[float, ...] = ()
    """What is known of each lead 1..H, field after field in the order of the setting, K·H; ``nan`` where it is not."""


class Feedback(msgspec.Struct, frozen=True, gc=False):
    """What people say of one stream."""

    stream_id: str
    label: tuple[bool, float] | None
    """Whether an anomaly was one, and its event time."""
    excluded: tuple[float, float] | None
    """Event times, from and to, of which no model is to learn."""


class Tombstone(msgspec.Struct, frozen=True, gc=False):
    """A null Kafka value: forget this record id and every stream below it."""

    record_id: str


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A reading that was refused, with the bytes it came in."""

    raw: RawRecord
    reason: Reason
    detail: str
    field: str = ""


class OutRecord(msgspec.Struct, frozen=True, gc=False):
    """One record on its way out."""

    topic: str
    partition: int | None
    """``None`` lets the client choose by key."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: float | None = None
    """Record time in seconds; ``None`` lets the broker stamp it."""


class StateRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of the state topic."""

    key: str
    """``meta``, or ``page/<number>``."""
    value: bytes | None
    """``None`` is a tombstone: the key is gone."""
