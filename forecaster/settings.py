"""Every setting of the program, its unit, default, bound and reason; the only reader of environment and files.

Order of precedence, highest first: command-line flags, environment (``FORECASTER_SECTION__FIELD``), secrets
directory, TOML file, the defaults below.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import socket
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from forecaster.codecs.timestamps import parse_time
from forecaster.errors import ConfigurationError
from forecaster.series.group_presets import GROUP_PRESETS
from forecaster.series.groups import DEFAULT, GroupRule, GroupRules, group_number

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|w)\s*")
_PROXY_URL = re.compile(r"(socks5h?|http)://[^/\s]+:\d{1,5}")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse_duration(value: object) -> object:
    """``"90s"``, ``"15m"``, ``"1h"``, ``"14d"`` or a bare number of seconds, to seconds.

    >>> parse_duration("1h"), parse_duration("250ms"), parse_duration("30")
    (3600.0, 0.25, 30.0)
    """
    if not isinstance(value, str):
        return value
    if match := _DURATION.fullmatch(value):
        return float(match[1]) * _UNIT_SECONDS[match[2]]
    try:
        return float(value)
    except ValueError:
        raise ValueError("a duration is a number of seconds (90) or has a unit (90s, 15m, 1h, 14d)") from None


def parse_season(value: object) -> object:
    """A season as a number of steps (``24``) or a duration (``"1d"``); durations become ``"<seconds>s"``.

    >>> parse_season("24"), parse_season("14d")
    (24, '1209600s')
    """
    if isinstance(value, str) and not value.isdecimal():
        if not (match := _DURATION.fullmatch(value)):
            raise ValueError("a season is a whole number of steps (24) or a duration (1d, 12h)")
        # no exponent: what is written here has to be readable here
        return f"{float(match[1]) * _UNIT_SECONDS[match[2]]:.3f}".rstrip("0").rstrip(".") + "s"
    steps = int(value) if isinstance(value, str) else value
    if isinstance(steps, int) and steps < 0:
        raise ValueError("a season is not below 0; 0 says that there is none")
    return steps


def parse_period(text: str) -> tuple[float, float]:
    """Two RFC 3339 times with a slash between, as seconds since the epoch.

    >>> parse_period("1970-01-01T00:00:00Z/1970-01-01T01:00:00Z")
    (0.0, 3600.0)
    """
    first, slash, last = text.partition("/")
    try:
        period = parse_time(first), parse_time(last)
    except ValueError:
        period = (math.nan, math.nan)
    if not slash or not period[0] <= period[1]:
        raise ValueError(f"a period is two times with a slash, 2026-01-01T00:00Z/2026-01-08T00:00Z; found {text!r}")
    return period


Duration = Annotated[float, BeforeValidator(parse_duration)]
Season = Annotated[int | str, BeforeValidator(parse_season)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Section):
    """How to reach the brokers and how to be known to them."""

    bootstrap_servers: str = Field("localhost:9092", description="Brokers to start from, host:port, comma separated.")
    client: Literal["kafka-python", "librdkafka"] = Field(
        "kafka-python",
        description="Client library for readings and answers; librdkafka needs the extra `forecaster[librdkafka]`. "
        "All workers of a group use the same.",
    )
    batched: bool = Field(
        True,
        description="kafka-python reads and writes whole batches through parts that are not public, after a self-test "
        "at the start; where that fails, or with false, record by record through its public calls.",
    )
    group_id: str = Field("forecaster", min_length=1, description="Consumer group.")
    instance_id: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-0", description="Stable name of this worker."
    )
    static_membership: bool = Field(
        False, description="Join under instance_id, so that a restart within the session keeps its partitions."
    )
    start: str = Field(
        "earliest", description="Where a group without offsets begins: earliest, latest, or an RFC 3339 time."
    )
    session_timeout_seconds: Duration = Field(
        10.0, ge=1, le=300, description="After this silence the group gives a worker's partitions away."
    )
    max_poll_interval_seconds: Duration = Field(
        300.0, ge=1, description="A worker that does not poll for this long loses its partitions."
    )
    request_timeout_seconds: Duration = Field(20.0, ge=1, description="Longest wait for one answer of a broker.")
    delivery_timeout_seconds: Duration = Field(30.0, ge=1, description="Longest wait for a forecast's acknowledgement.")
    transaction_timeout_seconds: Duration = Field(
        10.0, ge=1, le=900, description="After this the broker aborts a transaction that was not ended (exactly_once)."
    )
    watchdog_seconds: Duration = Field(
        60.0, ge=5, description="A commit that takes longer ends the process, for its supervisor to restart it."
    )
    max_in_flight: int = Field(
        20_000, ge=1, description="Records handed to the client and not yet acknowledged; kafka-python has no bound."
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field("lz4", description="Of produced batches.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Transport and authentication."
    )
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field("", description="With SASL_*.")
    sasl_username: str = Field("", description="With SASL_*.")
    sasl_password: SecretStr = Field(SecretStr(""), description="With SASL_*; from a file or the environment.")
    ssl_cafile: str = Field("", description="Certificate authorities, a PEM file.")
    ssl_certfile: str = Field("", description="This client's certificate, a PEM file.")
    ssl_keyfile: str = Field("", description="Its key, a PEM file.")
    proxy_url: SecretStr = Field(
        SecretStr(""),
        description="Proxy before the brokers: socks5://user:password@host:port (http:// too), or socks5h://, which "
        "leaves brokers' names to the proxy.",
    )

    @field_validator("proxy_url")
    @classmethod
    def _proxy(cls, url: SecretStr) -> SecretStr:
        if url and not _PROXY_URL.fullmatch(url.get_secret_value()):
            raise ValueError("expected socks5://, socks5h:// or http:// with host and port")
        return url

    @model_validator(mode="after")
    def _timeouts(self) -> KafkaSettings:
        if self.delivery_timeout_seconds < self.request_timeout_seconds + 1:
            raise ValueError(
                f"delivery_timeout_seconds {self.delivery_timeout_seconds:g} leaves no room for one request of "
                f"request_timeout_seconds {self.request_timeout_seconds:g}; it must be at least a second longer"
            )
        return self


class TopicSettings(_Section):
    """Names of the topics and what new ones look like."""

    readings: str = Field("readings", min_length=1, description="Input.")
    forecasts: str = Field("forecasts", min_length=1, description="One forecast a reading.")
    anomalies: str = Field("anomalies", min_length=1, description="Anomalies raised and cleared.")
    feedback: str = Field(
        "", description="Labels of anomalies, and periods to learn nothing from, as people give them; empty: none."
    )
    dead_letters: str = Field("readings.dlq", min_length=1, description="Refused readings with their reason.")
    state: str = Field("forecaster.state", min_length=1, description="State of the streams, compacted (exactly_once).")
    models: str = Field(
        "forecaster.models", min_length=1, description="Models and decisions, compacted, one partition (registry.kind)."
    )
    partitions: int = Field(4, ge=1, le=10_000, description="Of topics that `topics create` makes.")
    replication: int = Field(1, ge=1, le=10, description="Of topics that `topics create` makes.")


class ReadingSettings(_Section):
    """What a reading looks like and what is accepted as one."""

    id_field: str = Field("stream_id", min_length=1, description="JSON field that names the stream.")
    time_field: str = Field("timestamp", min_length=1, description="JSON field with the event time.")
    fields: tuple[str, ...] = Field(
        ("value",),
        min_length=1,
        description="JSON fields to forecast. With several, each is a stream of its own, named id/field.",
    )
    covariates: tuple[str, ...] = Field(
        (), description="JSON fields, and columns of files, fed to the network beside the value."
    )
    known_ahead: tuple[str, ...] = Field(
        (),
        description="JSON fields with a list of what is known of the next steps, the next one first (a tariff, a shift "
        "plan, a weather forecast); of files, columns whose value at the rows that follow is known.",
    )
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = Field(
        "auto", description="Of numeric timestamps; auto tells by magnitude."
    )
    minimum: float = Field(-1e30, ge=-1e30, description="Smallest value a sensor can send; below it is a dead letter.")
    maximum: float = Field(1e30, le=1e30, description="Largest value a sensor can send; above it is a dead letter.")
    max_id_bytes: int = Field(249, ge=1, le=4096, description="Longest stream id, UTF-8.")
    max_payload_bytes: int = Field(65_536, ge=16, description="Largest record value.")
    max_future_seconds: Duration = Field(
        86_400.0, ge=0, description="How far an event time may lie ahead of its Kafka record's own time."
    )
    avro_schemas: tuple[str, ...] = Field(
        (),
        description="Files (.avsc) of the Avro schemas that producers write readings with, where that is not the one "
        "that follows from the field names. Readings in JSON and in Avro may share the topic.",
    )
    duplicates: Literal["dead_letter", "drop"] = Field(
        "dead_letter", description="Where a repeated reading goes: to the dead-letter topic, or only counted."
    )
    max_lateness_seconds: Duration = Field(
        0.0, ge=0, description="Readings are held back this much event time and sorted; 0 answers at once."
    )

    @model_validator(mode="after")
    def _bounds(self) -> ReadingSettings:
        if self.minimum >= self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is not below maximum {self.maximum:g}")
        names = [self.id_field, self.time_field, *self.fields, *self.covariates, *self.known_ahead]
        if len(set(names)) != len(names):
            raise ValueError(f"a field name is used twice among {names}")
        return self


class StreamSettings(_Section):
    """What is remembered of each stream, and of how many."""

    ring_steps: int = Field(
        336,
        ge=32,
        le=20_000,
        description="Recent steps kept per stream, to warm a new model up and to look back a season.",
    )
    max_gap_steps: int = Field(
        24,
        ge=1,
        le=10_000,
        description="Missing steps the network is carried across; after more it restarts from the ring.",
    )
    flat_after_readings: int = Field(120, ge=2, description="Equal values in a row before the status says flat.")
    max_streams: int = Field(
        100_000, ge=1, description="Per partition. A reading of one more stream goes to the dead-letter topic."
    )
    idle_ttl: Duration = Field(30 * 86_400.0, ge=1, description="Event time after which a silent stream is forgotten.")
    step_seconds: Duration = Field(0.0, ge=0, description="Declared interval between readings; 0 learns it per stream.")


class StateSettings(_Section):
    """How the streams' state is kept in Kafka (exactly_once)."""

    flush_seconds: Duration = Field(
        10.0, ge=0, description="A changed page is written after this; what no page holds is replayed. 0: every commit."
    )
    bytes_per_commit: int = Field(
        1_000_000, ge=100_000, description="Most bytes of state in one commit, so that no transaction takes too long."
    )
    restore_seconds: Duration = Field(
        120.0, ge=1, description="Longest that reading a partition's state may take before the worker gives up."
    )


class RecoverySettings(_Section):
    """What a worker keeps ready for partitions that others may leave to it (exactly_once)."""

    standby: int = Field(
        0,
        ge=0,
        le=1,
        description="1: hold the state of partitions that others own in memory, for a quicker fail-over. Readings "
        "since a page was written are taken in again all the same: lower `state.flush_seconds` with it.",
    )
    standby_bytes: int = Field(
        1_000_000_000,
        ge=1_000_000,
        description="Most bytes of state held so; where there is more, the largest partitions are not held.",
    )


class ForecastSettings(_Section):
    """What is forecast."""

    horizon: int = Field(12, ge=1, le=512, description="Steps ahead.")
    quantiles: tuple[float, ...] = Field((0.1, 0.5, 0.9), description="Quantile levels, symmetric around 0.5.")
    seasons: tuple[Season, ...] = Field(
        (),
        max_length=4,
        description="Seasons as steps (24) or durations (1d); none: found from the data by training. Scales, network "
        "and linear forecast go by the first; of each further one, `[24, 168]`, the value a season ago is mixed in.",
    )
    find_seasons: int = Field(
        1,
        ge=1,
        le=2,
        description="How many to look for where none is declared. 2: also for a longer one in what the first leaves, a "
        "week over a day; streams.ring_steps has to hold it.",
    )

    @model_validator(mode="after")
    def _levels(self) -> ForecastSettings:
        levels = self.quantiles
        if list(levels) != sorted(set(levels)) or not all(0 < q < 1 for q in levels) or 0.5 not in levels:
            raise ValueError(f"quantiles must rise, lie inside (0, 1) and hold 0.5; found {list(levels)}")
        if any(abs(a + b - 1) > 1e-9 for a, b in zip(levels, reversed(levels), strict=True)):
            raise ValueError(f"quantiles must be symmetric around 0.5, as 0.1 and 0.9 are; found {list(levels)}")
        return self

    @model_validator(mode="after")
    def _several_seasons(self) -> ForecastSettings:
        seasons = self.seasons
        if len(seasons) > 1 and (0 in seasons or len(set(seasons)) != len(seasons)):
            raise ValueError(f"seasons must differ where there are several, and 0 stands alone; found {list(seasons)}")
        return self


class PublishSettings(_Section):
    """Which forecasts are published. All are made, judged and looked at for anomalies, whatever is said here."""

    format: Literal["json", "avro"] = Field(
        "json",
        description="Of forecasts in Kafka; avro is the single-object encoding of forecaster/codecs/schemas/"
        "forecast.avsc. Anomalies are JSON, dead letters the bytes refused; what is embedded writes JSON.",
    )
    when: Literal["every_reading", "every_nth", "interval", "change"] = Field(
        "every_reading",
        description="every_nth: one reading in so many; interval: at most once in so much event time; change: when it "
        "differs from what was published, or half of that lies in the past. Of each stream by itself.",
    )
    nth: int = Field(10, ge=2, description="Of every_nth: readings of a stream to each forecast published.")
    interval: Duration = Field(60.0, gt=0, description="Of interval: event time between two forecasts of a stream.")
    tolerance: float = Field(
        0.25,
        ge=0,
        description="Of change: how far a median or an outermost quantile may move from what was published for the "
        "same time, as a share of the outermost interval's width.",
    )


class AnomalySettings(_Section):
    """What counts as an anomaly."""

    enabled: bool = Field(True, description="Look for anomalies and publish them to topics.anomalies.")
    preset: Literal["general", "heart-rate", "sensor", "server-metrics"] = Field(
        "general", description="Kind of streams: gives the settings below that are not set a value."
    )
    threshold: float = Field(1.0, gt=0, le=100, description="Score that raises one; higher is fewer.")
    risk: float = Field(
        1e-3,
        ge=1e-6,
        le=1e-2,
        description="Share of readings that may exceed the threshold a stream's own peaks set, where it is the higher.",
    )
    min_readings: int | None = Field(
        None, ge=1, le=10_000, description="Readings in a row that have to reach the threshold."
    )
    min_deviation: float = Field(0.0, ge=0, description="Least distance from the forecast, in the stream's own units.")
    min_relative_deviation: float | None = Field(
        None, ge=0, description="Least distance from the forecast, as a share of it."
    )
    clear_below: float = Field(
        0.5, gt=0, le=1, description="Scores below this share of the threshold are quiet: an anomaly may be over."
    )
    clear_after: int | None = Field(
        None, ge=1, le=100_000, description="Quiet readings in a row after which an anomaly is over."
    )
    repeat_after: int = Field(
        250, ge=0, le=1_000_000, description="Readings for which only a higher score than the last raises again."
    )
    flat_readings: int | None = Field(
        None, ge=0, le=1_000_000, description="Equal values in a row that make a stuck sensor; 0 for never."
    )
    gap_steps: int | None = Field(
        None, ge=0, le=1_000_000, description="Missing steps that make a silent sensor; 0 for never."
    )


class ModelSettings(_Section):
    """Shape of the network."""

    cell: Literal["rnn", "lstm", "gru"] = Field("gru", description="Recurrent cell.")
    activation: Literal["tanh", "relu"] = Field("tanh", description="Of the rnn cell.")
    layers: int = Field(1, ge=1, le=8, description="Stacked layers.")
    hidden: int = Field(64, ge=4, le=1024, description="Width of a layer.")


class TrainingSettings(_Section):
    """When and on what the network is trained."""

    mode: Literal["child", "service", "off"] = Field(
        "child", description="By a child process of the worker; by `forecaster trainer`; or never."
    )
    every: Duration = Field(3600.0, ge=1, description="Event time between trainings.")
    window: Duration = Field(14 * 86_400.0, ge=1, description="Event time of history a training reads.")
    min_wall_seconds: Duration = Field(20.0, ge=0, description="Wall-clock time between trainings, at the least.")
    min_readings: int = Field(
        1_000, ge=100, description="Readings of history, all streams together, for a training to begin."
    )
    max_readings_per_stream: int = Field(
        30_000, ge=300, description="Newest readings of each stream that a training looks at."
    )
    max_streams: int = Field(512, ge=1, description="Streams that a training looks at, drawn at random.")
    history_bytes: int = Field(
        268_435_456,
        ge=1_000_000,
        description="Memory of readings gathered for a training, eight bytes a number; of more streams than fit, a "
        "choice drawn from the seed is kept whole.",
    )
    history_seconds: Duration = Field(
        300.0,
        ge=1,
        description="Wall-clock time to read the window from the topic, the newest first; what is older is left out.",
    )
    history_cache: str = Field(
        "", description="Directory that keeps what was read of the topic, for the next training; empty: none."
    )
    history_cache_bytes: int = Field(
        1_073_741_824, ge=1_000_000, description="Most bytes of it; what was used longest ago is deleted."
    )
    steps: int = Field(400, ge=1, description="Optimiser steps of a cold training; a warm one takes three tenths.")
    max_seconds: Duration = Field(600.0, ge=1, description="A training is stopped and its best model kept after this.")
    seed: int = Field(0, ge=0, description="Of everything random in training.")
    optimiser: Literal["adamw", "adam", "sgd"] = Field("adamw", description="sgd has momentum.")
    schedule: Literal["one_cycle", "cosine", "constant"] = Field(
        "one_cycle", description="Of the learning rate over the steps."
    )
    learning_rate: float = Field(
        2e-3, gt=0, le=1, description="Highest of a cold training; one from known weights takes half."
    )
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Of sgd, first beta of adam and adamw; one_cycle sets its own, 0.85 to 0.95."
    )
    batch: int = Field(32, ge=1, le=4_096, description="Windows of one optimiser step.")
    l1: float = Field(0.0, ge=0, description="Weight of the sum of absolute weights in the loss.")
    l2: float = Field(1e-4, ge=0, description="Weight decay; decoupled from the gradient under adamw.")
    clip: float = Field(1.0, ge=0, description="Longest gradient; 0 does not clip.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Between layers and before the head.")
    averaging: float = Field(
        0.98, ge=0, lt=1, description="Memory per step of the mean of weights that is kept; 0 keeps the last."
    )
    patience: int = Field(
        8,
        ge=0,
        description="Looks at the early-stopping stretch, one every 25 steps, without a gain until the end; the best "
        "weights are kept. 0: no early stopping, the last weights are kept.",
    )
    context_length: int = Field(264, ge=8, le=20_000, description="Ticks of a training window.")
    burn_in: int = Field(96, ge=0, description="Ticks at a window's start without loss, at most a third of it.")
    origins: int = Field(
        24, ge=0, description="Ticks of a window from which forecasts are learnt; 0 for all behind the burn-in."
    )
    backprop_steps: int = Field(
        0, ge=0, description="Gradients flow back through this many ticks; 0 through the whole window."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes CUDA where it is present.")
    missing: Literal["drop", "last", "interpolate", "model"] = Field(
        "drop",
        description="A missing target bears no loss, or is filled (model: interpolated about the stream's seasonal "
        "profile); inputs are as serving makes them.",
    )
    fill_steps: int = Field(3, ge=1, description="Longest gap that is filled.")
    outliers: Literal["none", "hampel", "z_score", "range"] = Field(
        "none", description="How outliers among targets are found; inputs are as serving makes them."
    )
    outlier_treatment: Literal["cap", "mask"] = Field("cap", description="Moved to the nearest bound, or missing.")
    outlier_threshold: float = Field(5.0, gt=0, description="Deviations from the middle, of hampel and z_score.")
    outlier_window: int = Field(48, ge=8, le=2_000, description="Values before each that it is compared with.")
    outlier_minimum: float = Field(-1e30, description="Below it a target is an outlier, of range.")
    outlier_maximum: float = Field(1e30, description="Above it a target is an outlier, of range.")
    anomalies: Literal["keep", "cap", "mask"] = Field(
        "keep",
        description="Targets in an anomaly that was raised: as they came; moved to the nearest bound of Hampel's rule, "
        "with outlier_threshold and outlier_window over values that were not flagged; or missing.",
    )
    exclude: tuple[str, ...] = Field(
        (), description="Periods no target is taken from, as 2026-01-01T00:00Z/2026-01-08T00:00Z."
    )
    augment_copies: int = Field(0, ge=0, le=20, description="Altered copies of each stream to train on as well.")
    augment_bootstrap: bool = Field(True, description="Draws a copy's remainder anew, in blocks.")
    augment_warp: float = Field(0.1, ge=0, le=2, description="Deviation of the factor on a copy's swings.")
    augment_jitter: float = Field(0.03, ge=0, le=2, description="Noise of a copy, in the stream's deviations.")
    mix_up: float = Field(0.0, ge=0, le=1, description="Part of the windows that lie between two.")
    teacher_members: int = Field(
        0, ge=0, le=32, description="Networks of a teacher that the one that serves learns from; 0 for none."
    )
    teacher_hidden: int = Field(0, ge=0, le=1024, description="Width of theirs; 0 is model.hidden.")
    teacher_bootstrap: bool = Field(True, description="All but the first learn from a block bootstrap.")
    teacher_weight: float = Field(0.5, ge=0, description="Of the distance to the teacher in the loss.")
    start_from: str = Field("", description="Model a first training starts from: a version in the registry, or a file.")
    freeze_steps: int = Field(50, ge=0, description="First steps after start_from in which the body is held.")
    covariates_kept: int = Field(0, ge=0, description="Best covariates a network is shown; 0 shows all.")
    covariate_score: Literal["f_regression", "mutual_information"] = Field(
        "f_regression", description="By which they are the best, on lagged values of the training part."
    )

    drift: Literal["off", "adwin", "page_hinkley", "both"] = Field(
        "off", description="What asks for a training between two when the live loss has risen for good."
    )
    drift_span: Duration = Field(
        3600.0, ge=1, description="Event time over which live losses are averaged before they are judged."
    )
    drift_pause: Duration = Field(86_400.0, ge=0, description="Event time of silence after drift was noticed.")

    @model_validator(mode="after")
    def _training(self) -> TrainingSettings:
        if self.outlier_minimum >= self.outlier_maximum:
            raise ValueError(f"outlier_minimum {self.outlier_minimum:g} is not below {self.outlier_maximum:g}")
        for period in self.exclude:
            parse_period(period)
        return self


class PromotionSettings(_Section):
    """Trials on live readings: a challenger before it serves, the former champion after."""

    shadow_steps: int = Field(
        0,
        ge=0,
        description="Live readings of each stream on which a challenger is scored beside the champion before it "
        "serves; 0 promotes by the held-out data alone.",
    )
    guard_steps: int = Field(
        240,
        ge=0,
        description="Live readings of each stream on which the former champion is scored beside its successor, and "
        "comes back where it is better by the margin; 0 never.",
    )
    margin: float = Field(0.02, ge=0, le=1, description="Share of the live loss that a former champion must save.")
    keep_former: bool = Field(
        False,
        description="After a promotion the former champion answers beside its successor, as one of the experts that "
        "are weighed for each stream.",
    )
    streams: int = Field(
        64, ge=1, description="Most streams of a partition that are scored side by side; each is stepped twice."
    )
    patience: Duration = Field(
        3600.0,
        ge=1,
        description="Wall-clock time after which a trial ends with what there is: a shadow's challenger is "
        "refused, a guard's champion stays.",
    )


class RegistrySettings(_Section):
    """Where models live, and how many."""

    kind: Literal["auto", "topic", "directory"] = Field(
        "auto",
        description="The topic topics.models, or registry.directory. auto: the directory where it is set to other than "
        "its default, and where no broker is at work (demo, train on files); else the topic.",
    )
    directory: Path = Field(Path("var/models"), description="Artifacts and decisions, without a topic.")
    keep: int = Field(
        50,
        ge=1,
        le=100_000,
        description="A training deletes models beyond this many that served last and this many newest others.",
    )


class GroupSettings(_Section):
    """Streams with a champion of their own; `[[groups]]` in TOML, a JSON list in `FORECASTER_GROUPS`.

    The first group whose patterns and fields fit a stream takes it; streams that none takes are of the group
    ``default``. A change of names, patterns, fields or order needs `forecaster reset --keep-offsets`."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Of the group: small letters, digits and dashes."
    )
    streams: tuple[str, ...] = Field(
        (), description='Names, or patterns as of a shell, `["ward-3/*"]`; without any, every name fits.'
    )
    fields: tuple[str, ...] = Field((), description="Those of readings.fields that it takes; without any, all.")
    topic: str = Field("", description="Only where this is topics.readings, for settings shared by several topics.")
    preset: Literal["", "heart-rate", "sensor", "server-metrics"] = Field(
        "", description="Kind of streams: gives season, anomalies.preset and some training settings a value."
    )
    season: Season | None = Field(None, description="Instead of forecast.seasons: steps, a duration, or 0 for none.")
    step_seconds: Duration | None = Field(None, ge=0, description="Instead of streams.step_seconds.")
    start_from: str = Field("", description="Instead of training.start_from: the model its first training starts from.")
    training: dict[str, Any] = Field({}, description="Other training settings of its own, `{window = '3d'}`.")

    @model_validator(mode="before")
    @classmethod
    def _shared(cls, given: Any) -> Any:
        shared = [name for name in _SHARED_BY_GROUPS if isinstance(given, Mapping) and name in given]
        if shared:
            raise ValueError(
                f"{', '.join(shared)}: all groups share {', '.join(_SHARED_BY_GROUPS[name] for name in shared)}, "
                "because their streams lie in the same tables; set it there"
            )
        return given

    @field_validator("name")
    @classmethod
    def _not_default(cls, name: str) -> str:
        if name == "default":
            raise ValueError("default is the group of streams that no other takes; name this one otherwise")
        return name


_SHARED_BY_GROUPS = {
    "horizon": "forecast.horizon",
    "quantiles": "forecast.quantiles",
    "covariates": "readings.covariates",
    "known_ahead": "readings.known_ahead",
    "cell": "model.cell",
    "layers": "model.layers",
    "hidden": "model.hidden",
}
_NOT_OF_A_GROUP = ("mode", "start_from")


class EngineSettings(_Section):
    """How records become waves."""

    max_wave: int = Field(1_024, ge=16, le=65_536, description="Streams stepped at once.")
    max_poll_records: int = Field(5_000, ge=1, description="Records taken from the client at once.")
    min_turn_ms: int = Field(
        20,
        ge=0,
        le=1_000,
        description="A turn of the loop that brought few records takes at least this long, for more to come in: each "
        "turn costs some milliseconds of processor time. 0 answers each reading as soon as it comes.",
    )
    boundary_records: int = Field(
        1_024, ge=1, description="A model switch takes effect at source offsets that are multiples of this."
    )
    switches: str = Field(
        "",
        description="File of recorded switches (`state switches`) to follow instead of the champion: makes a run again "
        "bit for bit. Needs training.mode = off.",
    )


class CommitSettings(_Section):
    """How often answers and offsets are made durable."""

    interval_ms: int = Field(
        200, ge=0, le=60_000, description="From one commit to the next; 0 commits after every poll."
    )
    max_records: int = Field(10_000, ge=1, description="Answers after which a commit comes early.")


class TelemetrySettings(_Section):
    """How the daemon is watched."""

    host: str = Field("127.0.0.1", description="Address of the HTTP endpoint.")
    port: int = Field(8000, ge=0, le=65_535, description="Its port; 0 takes a free one.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level written.")
    log_format: Literal["json", "text"] = Field("json", description="One JSON object a line, or text for people.")
    watch: tuple[str, ...] = Field(
        (), description='Streams that metrics show one by one: names, or patterns as of a shell, `["ward-3/*"]`.'
    )
    watch_streams: int = Field(
        20, ge=0, le=500, description="Most streams shown so by one worker, each in some 25 time series."
    )


class Settings(BaseSettings):
    """All settings of the program. Build one with `load_settings`, which turns mistakes into clear errors."""

    model_config = SettingsConfigDict(
        env_prefix="FORECASTER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    delivery: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once", description="What a crash may do: nothing at all, or repeat an answer. Neither loses one."
    )
    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    readings: ReadingSettings = ReadingSettings()
    streams: StreamSettings = StreamSettings()
    state: StateSettings = StateSettings()
    recovery: RecoverySettings = RecoverySettings()
    forecast: ForecastSettings = ForecastSettings()
    publish: PublishSettings = PublishSettings()
    anomalies: AnomalySettings = AnomalySettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    promotion: PromotionSettings = PromotionSettings()
    registry: RegistrySettings = RegistrySettings()
    groups: tuple[GroupSettings, ...] = Field((), description="Streams with a champion of their own, in order.")
    engine: EngineSettings = EngineSettings()
    commit: CommitSettings = CommitSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if self.engine.switches and self.training.mode != "off":
            raise ValueError("engine.switches fixes which network serves; training.mode has to be off with it")
        for season in self.forecast.seasons:
            if isinstance(season, int) and season + 1 > self.streams.ring_steps:
                raise ValueError(
                    f"forecast.seasons {season} does not fit streams.ring_steps {self.streams.ring_steps}; "
                    f"set streams.ring_steps to at least {season + 1}"
                )
        _check_further_seasons(self)
        _check_groups(self)
        topics = self.topics
        names = [
            topics.readings,
            topics.forecasts,
            topics.anomalies,
            topics.dead_letters,
            topics.state,
            topics.models,
            *((topics.feedback,) if topics.feedback else ()),
        ]
        if len(set(names)) != len(names):
            raise ValueError(
                "topics.readings, .forecasts, .anomalies, .feedback, .dead_letters, .state and .models must differ, "
                f"found {names}"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, toml_file=cls._toml_file)
        defaults = InitSettingsSource(settings_cls, init_kwargs=dict(cls._defaults))
        secrets = NestedSecretsSettingsSource(file_secret_settings)
        return init_settings, env_settings, secrets, toml, defaults

    _toml_file: ClassVar[Path | None] = None
    _defaults: ClassVar[Mapping[str, Any]] = {}


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    config_file: Path | None = None,
    secrets_dir: Path | None = None,
) -> Settings:
    """Settings from flags, environment, secrets directory and TOML file.

    Args:
        overrides: nested values of the command line, as ``{"telemetry": {"port": 9000}}``.
        defaults: nested values that take the place of the defaults, below every other source.
        config_file: TOML file; ``FORECASTER_CONFIG`` names one where this is ``None``.
        secrets_dir: directory with one file a setting, named as its environment variable is;
            ``FORECASTER_SECRETS_DIR`` names one where this is ``None``.

    Raises:
        ConfigurationError: a file is absent or unreadable, or a value is wrong; the message names field, value and
            expectation, one line for each.
    """
    config_file = config_file or _path_from_environment("FORECASTER_CONFIG")
    secrets_dir = secrets_dir or _path_from_environment("FORECASTER_SECRETS_DIR")
    if config_file is not None and not config_file.is_file():
        raise ConfigurationError(f"Settings file {config_file} is no file.", hint="Give --config a TOML file.")
    if secrets_dir is not None and not secrets_dir.is_dir():
        raise ConfigurationError(
            f"Secrets directory {secrets_dir} is no directory.",
            hint="Give --secrets-dir, or FORECASTER_SECRETS_DIR, a directory with one file a setting.",
        )
    known = {f"FORECASTER_{name.upper()}" for name in Settings.model_fields} | {
        "FORECASTER_CONFIG",
        "FORECASTER_SECRETS_DIR",
    }
    for name in os.environ:
        if name.startswith("FORECASTER_") and name.split("__")[0] not in known:
            path = name.removeprefix("FORECASTER_").lower().split("__")
            raise ConfigurationError(
                f"Environment variable {name} names no setting{_nearest(path) or '.'}",
                hint="docs/settings.md lists them all.",
            )

    class _Located(Settings):
        _toml_file: ClassVar[Path | None] = config_file
        _defaults: ClassVar[Mapping[str, Any]] = defaults or {}

    try:
        located = _Located(_secrets_dir=secrets_dir, **dict(overrides or {}))
    except ValidationError as error:
        raise ConfigurationError(_explain(error), hint="docs/settings.md lists every setting.") from error
    except ValueError as error:  # a TOML file that cannot be parsed, an environment value that is not JSON
        raise ConfigurationError(
            f"Settings cannot be read: {_unreadable(error, config_file)}", hint="docs/settings.md lists every setting."
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"Settings cannot be read: {error.filename}: {error.strerror}.", hint="Check the file and its permissions."
        ) from error
    # Where the values came from is no part of them: two loads that agree are equal.
    return Settings.model_construct(**{name: getattr(located, name) for name in Settings.model_fields})


def declared_season(settings: Settings) -> int | float | None:
    """The season that is declared: steps as ``int``, seconds as ``float``, ``None`` where training is to find it."""
    return _declared(settings.forecast.seasons[0]) if settings.forecast.seasons else None


def further_seasons(settings: Settings) -> tuple[int | float | None, ...]:
    """Those beyond the first, declared likewise, or ``None`` for each that training is to look for."""
    forecast = settings.forecast
    if not forecast.seasons:
        return (None,) * (forecast.find_seasons - 1)
    return tuple(map(_declared, forecast.seasons[1:]))


def _declared(season: int | str) -> int | float:
    return season if isinstance(season, int) else float(season.removesuffix("s"))


def future_inputs(settings: Settings) -> int:
    """K·H, numbers that are known ahead at every reading."""
    return len(settings.readings.known_ahead) * settings.forecast.horizon


def _check_further_seasons(settings: Settings) -> None:
    """A further season as a duration, under a declared step, has to be remembered: nobody would notice that it is not.

    Raises:
        ValueError: names the season and the ring it needs.
    """
    step, ring = settings.streams.step_seconds, settings.streams.ring_steps
    for season in settings.forecast.seasons[1:]:
        steps = 0 if isinstance(season, int) or not step else round(_declared(season) / step)
        if steps + 1 > ring:
            raise ValueError(
                f"forecast.seasons {season} is {steps} steps of streams.step_seconds {step:g} and does not fit "
                f"streams.ring_steps {ring}; set streams.ring_steps to at least {steps + 1}"
            )


def build_groups(settings: Settings) -> GroupRules:
    """Which group a stream belongs to."""
    fields = settings.readings.fields
    return GroupRules(
        # A stream is named after its field only where there are several.
        GroupRule(group.name, group.streams, group.fields if len(fields) > 1 else ())
        for group in settings.groups
        if group.topic in ("", settings.topics.readings)
    )


def group_settings(settings: Settings, name: str) -> Settings:
    """The settings as they are for one group: preset, then what the group says itself, over those of all."""
    found = [group for group in settings.groups if group.name == name]
    if not found:
        return settings
    group = found[0]
    preset = GROUP_PRESETS.get(group.preset)
    season = group.season if group.season is not None else parse_season(preset.season) if preset else None
    changes: dict[str, Any] = {"training": _training_of(settings, group)}
    if season is not None:
        # All groups have as many seasons, because their streams lie in the same tables; 0 says that there is none.
        seasons = (season, *(0 for _ in further_seasons(settings)))
        changes["forecast"] = settings.forecast.model_copy(update={"seasons": seasons})
    if group.step_seconds is not None:
        changes["streams"] = settings.streams.model_copy(update={"step_seconds": group.step_seconds})
    if preset is not None:
        changes["anomalies"] = settings.anomalies.model_copy(update={"preset": preset.anomalies})
    return settings.model_copy(update=changes)


def _training_of(settings: Settings, group: GroupSettings) -> TrainingSettings:
    preset = GROUP_PRESETS.get(group.preset)
    own = {**(preset.training if preset else {}), **group.training}
    if group.start_from:
        own["start_from"] = group.start_from
    return TrainingSettings.model_validate({**settings.training.model_dump(), **own})


def _check_groups(settings: Settings) -> None:
    """Groups that could not be told apart, or whose settings would not load.

    Raises:
        ValueError: names the group.
    """
    names = [group.name for group in settings.groups]
    if len({group_number(name) for name in (*names, DEFAULT)}) != len(names) + 1:
        raise ValueError(f"groups need names of their own that differ, found {names}; where they do, choose another")
    for group in settings.groups:
        unknown = [field for field in group.fields if field not in settings.readings.fields]
        if unknown:
            raise ValueError(
                f"groups: {group.name} takes fields {unknown}, readings.fields are {list(settings.readings.fields)}"
            )
        common = [field for field in group.training if field in _NOT_OF_A_GROUP]
        if common:
            raise ValueError(
                f"groups: training of {group.name} cannot hold {common[0]}: mode is common to all, start_from stands "
                "beside training"
            )
        try:
            effective = group_settings(settings, group.name)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))
            raise ValueError(f"groups: training of {group.name}: {where} {problem['msg']}") from None
        for season in effective.forecast.seasons:
            if isinstance(season, int) and season + 1 > settings.streams.ring_steps:
                raise ValueError(f"groups: season {season} of {group.name} does not fit streams.ring_steps")
        try:
            _check_further_seasons(effective)
        except ValueError as error:
            raise ValueError(f"groups: {group.name}: {error}") from None


def training_settings(settings: Settings) -> dict[str, Any]:
    """Every setting that a training's result depends on, by name, as JSON has it: for a model's lineage."""
    return {
        f"{section}.{name}": value
        for section in ("readings", "streams", "forecast", "model", "training")
        for name, value in getattr(settings, section).model_dump(mode="json").items()
    }


def registry_kind(settings: Settings, *, on_kafka: bool) -> Literal["topic", "directory"]:
    """Where models are kept, with ``registry.kind`` = auto resolved.

    Args:
        on_kafka: a broker is at work, as it is not in the demo and in trainings on files.
    """
    registry = settings.registry
    if registry.kind != "auto":
        return registry.kind
    has_own_directory = registry.directory != RegistrySettings.model_fields["directory"].default
    return "topic" if on_kafka and not has_own_directory else "directory"


def to_environment(settings: Settings) -> dict[str, str]:
    """All settings that have a value as environment variables, for a child process that is to have the very same."""
    environment = {"FORECASTER_DELIVERY": str(settings.delivery)}
    for section_name in Settings.model_fields:
        section = getattr(settings, section_name)
        if section_name == "groups":
            environment["FORECASTER_GROUPS"] = json.dumps([group.model_dump(mode="json") for group in section])
        if not isinstance(section, BaseModel):
            continue
        for name in type(section).model_fields:
            value = getattr(section, name)
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            if value is None:
                continue
            text = json.dumps(value) if isinstance(value, tuple) else str(value)
            environment[f"FORECASTER_{section_name.upper()}__{name.upper()}"] = text
    return environment


def _path_from_environment(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None


def _unreadable(error: ValueError, config_file: Path | None) -> str:
    """Names the file or the environment variable that is not TOML or JSON; the library only names the section."""
    if isinstance(error, tomllib.TOMLDecodeError | UnicodeDecodeError):
        return f"{config_file} is not TOML: {error}"
    found = []
    for name, value in os.environ.items():
        section, _, field = name.removeprefix("FORECASTER_").lower().partition("__")
        info = Settings.model_fields["groups"] if section == "groups" else _fields_of(section).get(field)
        if info is not None and typing.get_origin(info.annotation) is tuple:
            try:
                json.loads(value)
            except ValueError:
                example = json.dumps(info.default or ["a", "b"])
                found.append(f"{name} is {value!r}, expected a JSON list such as {example}")
    return "; ".join(found) or str(error)


def _explain(error: ValidationError) -> str:
    """One line for each mistake: setting, environment variable, what is expected, what was found."""
    lines = []
    for problem in error.errors(include_url=False):
        path = [part for part in problem["loc"] if isinstance(part, str)]
        where = ".".join(str(part) for part in problem["loc"])
        variable = "FORECASTER_" + "__".join(path).upper()
        if problem["type"] == "extra_forbidden":
            lines.append(f"Setting {where} ({variable}) does not exist{_nearest(path) or '.'}")
            continue
        message, found = problem["msg"].removeprefix("Value error, "), problem["input"]
        named = f"Setting {where} ({variable}): " if where else ""
        if _is_secret(path):
            shown = "; found ***"
        elif isinstance(found, Mapping | BaseModel):  # a whole section, secrets and all
            shown = ""
        else:
            shown = f"; found {found!r:.120}"
        lines.append(f"{named}{message}{shown}.")
    return "\n".join(lines)


def _fields_of(section: str) -> Mapping[str, FieldInfo]:
    """Fields of a section, by its name; none where there is no such section."""
    info = Settings.model_fields.get(section)
    annotation = info.annotation if info is not None else None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_fields
    return {}


def _is_secret(path: Sequence[str]) -> bool:
    info = _fields_of(path[0]).get(path[1]) if len(path) > 1 else None
    return info is not None and info.annotation is SecretStr


def _nearest(path: Sequence[str]) -> str:
    """``; did you mean …?`` for a setting that does not exist, where one is close."""
    section, name = path[0], path[-1]
    fields = _fields_of(section)
    if fields and len(path) > 1:
        near = [f"{section}.{field}" for field in difflib.get_close_matches(name, fields, n=1)]
    else:
        near = [f"{other}.{name}" for other in Settings.model_fields if name in _fields_of(other)]
        near = near or difflib.get_close_matches(section, Settings.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else ""
