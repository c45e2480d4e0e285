"""Makers with defaults, so that a test shows only the value that matters to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from forecaster.anomaly.detector import AnomalyDetector, AnomalyRules
from forecaster.clock import ManualClock
from forecaster.codecs.anomaly_json import Anomaly, encode_anomaly
from forecaster.codecs.forecast_json import SourcePosition
from forecaster.codecs.forecast_wave import ForecastWave
from forecaster.codecs.json_codec import JsonCodec
from forecaster.codecs.timestamps import format_time
from forecaster.engine.pipeline import Pipeline
from forecaster.engine.publisher import Publisher
from forecaster.engine.task import PartitionTask, TaskResult, TaskRules
from forecaster.engine.wave import Wave
from forecaster.engine.withholding import PublishingRules, Withholding
from forecaster.experts.base import Origins
from forecaster.experts.former import FormerChampion
from forecaster.experts.linear import lag_inputs
from forecaster.experts.naive import DampedLevel, Persistence, SeasonalNaive
from forecaster.experts.profile import SeasonalProfile
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.network import RecurrentForecaster
from forecaster.records import OutRecord, RawRecord
from forecaster.series.encoder import SeriesEncoder
from forecaster.series.groups import DEFAULT
from forecaster.series.identity import stream_identity
from forecaster.state.event_clock import EventClock
from forecaster.state.recent_score import RecentScore
from forecaster.state.streams import StreamTable

LEVELS = (0.1, 0.5, 0.9)
START = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""


def make_pipeline(**overrides: Any) -> Pipeline:
    """A small pipeline: horizon 4, ring of 48, GRU of 8."""
    chosen: dict[str, Any] = {
        "horizon": 4,
        "quantile_levels": LEVELS,
        "ring_steps": 48,
        "covariates": 0,
        "known_ahead": 0,
        "step_seconds": 0.0,
        "declared_season": None,
        "further_seasons": (),
        "max_gap_steps": 6,
        "flat_after_readings": 50,
        "hidden_shape": (1, 8),
        "anomalies": AnomalyRules(flat_readings=40, gap_steps=10),
        "detects": True,
        "publishing": None,
        "keeps_former": False,
        **overrides,
    }
    publishing = chosen["publishing"]
    encoder = SeriesEncoder(
        ring_steps=chosen["ring_steps"],
        horizon=chosen["horizon"],
        covariates=chosen["covariates"],
        known_ahead=chosen["known_ahead"],
    )
    return Pipeline(
        clock=EventClock(step_seconds=chosen["step_seconds"]),
        encoder=encoder,
        recent_score=RecentScore(),
        baselines=(
            Persistence(horizon=chosen["horizon"]),
            SeasonalNaive(),
            DampedLevel(horizon=chosen["horizon"]),
            SeasonalProfile(encoder),
            *(SeasonalNaive(place) for place, _ in enumerate(chosen["further_seasons"], start=1)),
        ),
        hidden_shape=chosen["hidden_shape"],
        horizon=chosen["horizon"],
        quantile_levels=chosen["quantile_levels"],
        declared_season=chosen["declared_season"],
        max_gap_steps=chosen["max_gap_steps"],
        flat_after_readings=chosen["flat_after_readings"],
        detector=AnomalyDetector(chosen["anomalies"], quantile_levels=chosen["quantile_levels"]),
        detects=chosen["detects"],
        withholding=Withholding(
            PublishingRules(**publishing, horizon=chosen["horizon"]), median=chosen["quantile_levels"].index(0.5)
        )
        if publishing
        else None,
        further_seasons=chosen["further_seasons"],
        keeps_former=chosen["keeps_former"],
    )


def make_recurrent(pipeline: Pipeline, *, seed: int = 1, model: int = 1, **overrides: Any) -> RecurrentExpert:
    """An untrained network and linear forecast that fit the pipeline; answers are arbitrary, the same for a seed.

    Streams named by ``own_linear`` have linear weights of their own; ``former`` answers beside it.
    """
    former: RecurrentExpert | None = overrides.pop("former", None)
    season, own_linear = overrides.pop("season", 0), overrides.pop("own_linear", ())
    further_seasons = overrides.pop("further_seasons", ())
    hp = HyperParameters(
        **{
            "hidden": pipeline.hidden_shape[1] // (2 if overrides.get("cell") == "lstm" else 1),
            "layers": pipeline.hidden_shape[0],
            "head_width": 16,
            "horizon": pipeline.horizon,
            "quantile_levels": pipeline.quantile_levels,
            "feature_names": pipeline.encoder.feature_names,
            "used_features": pipeline.encoder.feature_names,
            "future_inputs": pipeline.encoder.future_inputs,
            "linear_inputs": lag_inputs(pipeline.encoder).width,
            "linear_streams": len(own_linear),
            **overrides,
        }
    )
    network = RecurrentForecaster.seeded(hp, seed)
    if network.linear is not None:
        weight = np.random.default_rng(seed).normal(0, 0.1, network.linear.weight.shape).astype(np.float32)
        own = np.random.default_rng([seed, 1]).normal(0, 0.1, (len(own_linear), *weight.shape)).astype(np.float32)
        names = sorted(stream_identity(name) for name in own_linear)
        network.linear.set(
            torch.from_numpy(weight), torch.full((pipeline.horizon,), 0.5), torch.from_numpy(own), torch.tensor(names)
        )
    return RecurrentExpert(
        network,
        model=model,
        version=f"gru-test-{seed}",
        season=season,
        encoder=pipeline.encoder,
        further_seasons=further_seasons,
        former=former and FormerChampion(former.network, version=former.version),
    )


def make_origins(**overrides: Any) -> Origins:
    """Two streams at horizon 4: the first with a season and below its level, the second with neither."""
    return Origins(
        **{
            "slots": np.array([1, 2]),
            "features": np.zeros((2, 3), np.float32),
            "value": np.array([5.0, 6.0]),
            "scale": np.array([2.0, 4.0]),
            "change": np.array([1.0, 0.0]),
            "level": np.array([9.0, 6.0]),
            "ahead": np.array([[0.5, -1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32),
            "seasonal": np.array([True, False]),
            **overrides,
        }
    )


def make_table(pipeline: Pipeline, streams: int) -> StreamTable:
    """A table that holds streams s0, s1, … in slots 1, 2, …"""
    table = StreamTable(pipeline.columns, max_streams=10_000)
    for k in range(streams):
        table.slot(f"s{k}")
    return table


def make_wave(slots: Sequence[int], times: Sequence[float], values: Sequence[float]) -> Wave:
    """One reading of each slot."""
    return Wave(
        np.array(slots, np.int64),
        np.array(times, np.float64),
        np.array(values, np.float64),
        None,
        np.arange(len(slots)),
    )


def make_task(pipeline: Pipeline | None = None, **overrides: Any) -> PartitionTask:
    """A task for partition 0 of topic ``readings`` that decodes the default fields."""
    pipeline = pipeline or make_pipeline()
    recurrent = overrides.pop("recurrent", None)
    networks = overrides.pop("networks", {} if recurrent is None else {DEFAULT: recurrent})
    groups, pipelines = overrides.pop("groups", None), overrides.pop("pipelines", {})
    plan = overrides.pop("plan", None)
    history = overrides.pop("history", None)
    feedback = overrides.pop("feedback", None)
    keep_state = overrides.pop("keep_state", None)
    codec = overrides.pop("codec", None) or JsonCodec()
    rules = TaskRules(
        **{
            "boundary_records": 64,
            "max_wave": 32,
            "max_streams": 1_000,
            "max_lateness_seconds": 0.0,
            "idle_ttl_seconds": 1e9,
            "drop_duplicates": False,
            **overrides,
        }
    )
    publisher = Publisher(
        forecasts="forecasts",
        dead_letters="readings.dlq",
        quantile_levels=pipeline.quantile_levels,
        experts=pipeline.experts,
    )
    return PartitionTask(
        0,
        codec=codec,
        pipeline=pipeline,
        publisher=publisher,
        rules=rules,
        networks=networks,
        plan=plan,
        history=history,
        feedback=feedback,
        keep_state=keep_state,
        groups=groups,
        pipelines=pipelines,
    )


def make_raw(offset: int, stream: str = "a", time: float | None = None, value: Any = 1.0, **fields: Any) -> RawRecord:
    """A reading as the transport hands it over; without a time, one second after the offset before."""
    at = START + offset if time is None else time
    body = {"stream_id": stream, "timestamp": at, "value": value, **fields}
    return RawRecord("readings", 0, offset, -1.0, stream.encode(), json.dumps(body).encode())


def make_anomaly(stream: str, state: str, second: float, since: float | None = None) -> bytes:
    """What workers publish of an anomaly, at seconds after `START`; raised then, where not said otherwise."""
    anomaly = Anomaly(
        stream_id=stream,
        timestamp=format_time(START + second),
        state=state,
        direction="up",
        cause="surprise",
        severity="minor",
        score=1.2,
        since=format_time(START + (second if since is None else since)),
        value=1.0,
        expected=None,
        lower=None,
        upper=None,
        model_version=None,
        source=SourcePosition("readings", 0, 1, ""),
        seq=1,
    )
    return encode_anomaly(anomaly)


def process(task: PartitionTask, records: Sequence[RawRecord]) -> TaskResult:
    """Let a task answer records; time stands still."""
    return task.process(records, ManualClock())


def forecasts_of(records: Iterable[OutRecord]) -> list[bytes]:
    """The values of all forecast records, in order."""
    return [record.value for record in records if record.topic == "forecasts" and record.value is not None]


def headers_of(record: OutRecord) -> dict[str, str]:
    """Headers of a dead letter as text."""
    return {name: value.decode() for name, value in record.headers}


def make_messy_records(rng: np.random.Generator, *, streams: int = 40, readings: int = 60) -> list[RawRecord]:
    """What a partition really holds, in offset order: about ``streams * readings`` records of many kinds of streams.

    Regular and irregular steps, jitter, short and long gaps, nulls, streams that begin with nulls or never have a
    value, constant ones, seasonal ones, jumps, wide scales; duplicates, conflicts, late readings, bad JSON, tombstones.
    Every reading has the covariates ``load`` and ``steps``, sometimes null, and known ahead ``plan``, sometimes absent,
    short, too long, or with nulls.
    """
    queues = [_messy_readings(rng, f"m{k}" if k % 5 else f"site-{k}/sensor", k, readings) for k in range(streams)]
    records: list[RawRecord] = []
    while queues:
        # A burst of one stream now and then: several readings of it then fall into one poll.
        k = int(rng.integers(len(queues)))
        for _ in range(1 + int(rng.integers(6)) * int(rng.random() < 0.2)):
            if queues[k]:
                key, value = queues[k].pop(0)
                records.append(RawRecord("readings", 0, len(records), -1.0, key, value))
        if not queues[k]:
            del queues[k]
    return records


def _plan(kind: int, n: int) -> dict[str, Any]:
    """What is known of the readings after the nth; without a generator, which is for what cannot be known."""
    if (kind + n) % 11 == 0:
        return {}
    length = (4, 2, 9, 0)[(kind + n // 7) % 4]
    known = [round(50.0 * np.sin((n + lead) / 3 + kind), 3) for lead in range(1, length + 1)]
    return {"plan": [None if (n + lead) % 6 == 0 else value for lead, value in enumerate(known)]}


def _messy_readings(rng: np.random.Generator, stream: str, kind: int, count: int) -> list[tuple[bytes, bytes | None]]:
    """Key and value of one stream's records, in the order they were sent."""
    step = float(rng.choice([0.5, 1.0, 2.5, 60.0, 3600.0]))
    scale, offset = 10.0 ** float(rng.integers(-3, 7)), 10.0 ** float(rng.integers(0, 6))
    time, walk, sent = START + float(rng.integers(100)), 0.0, []
    body: dict[str, Any] = {}
    for n in range(count):
        jitter = 0.2 * (rng.random() - 0.5) if kind % 3 == 0 else 0.0
        skipped = int(rng.choice([0, 1, 3, 9, 60], p=[0.9, 0.04, 0.03, 0.02, 0.01]))
        time = round(time + step * (1 + skipped + jitter), 6)
        walk += float(rng.standard_normal())
        shape = [walk, 5.0 * np.sin(2 * np.pi * n / 12) + 0.3 * walk, 1.0, float(n > count // 2), round(walk)][kind % 5]
        is_missing = rng.random() < 0.06 or (kind % 7 == 6 and n < 5) or kind == 13
        body = {
            "stream_id": stream,
            "timestamp": time,
            "value": None if is_missing else offset + scale * float(shape),
            "load": None if rng.random() < 0.1 else float(rng.random()),
            "steps": int(rng.integers(1000)),
            **_plan(kind, n),
        }
        sent.append((stream.encode(), json.dumps(body).encode()))
        accident = rng.random()
        if accident < 0.02:
            sent.append(sent[-1])
        elif accident < 0.04:
            sent.append((stream.encode(), json.dumps({**body, "value": 77.5}).encode()))
        elif accident < 0.06:
            sent.append((stream.encode(), json.dumps({**body, "timestamp": time - 2.3 * step}).encode()))
        elif accident < 0.07:
            sent.append((stream.encode(), b'{"stream_id": '))
        elif accident < 0.073:
            sent.append((stream.encode(), None))
    return sent


def make_forecast_wave(quantiles: np.ndarray) -> ForecastWave:
    """Forecasts to be written, of streams about which nothing else is remarkable; ``[B, H, Q]``."""
    rows, _, levels = quantiles.shape
    return ForecastWave(
        stream_ids=[f"s{row}" for row in range(rows)],
        times=np.zeros(rows),
        values=np.ones(rows),
        step_seconds=np.ones(rows),
        quantile_levels=tuple((np.arange(1, levels + 1) / (levels + 1)).tolist()),
        quantiles=quantiles,
        statuses=np.zeros(rows, np.int64),
        status_names=("ok",),
        model=None,
        experts=("naive",),
        shares=np.ones((rows, 1)),
        network="recurrent",
        topic="readings",
        partition=0,
        offsets=np.arange(rows),
        fields=[""] * rows,
        sequences=np.arange(rows),
        coverages=np.full(rows, 0.8),
    )
