"""What a backtest comes to, and its scores.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from forecaster.backtest.anomalies import (
    AnomalyScores,
    FreshScores,
    Labels,
    Trace,
    in_own_time,
    score_anomalies,
    trace,
    worth_a_picture,
    write_anomalies,
)
from forecaster.backtest.play import Backtest, Playback, TrainingNote
from forecaster.backtest.scoring import Pooled, Scorer, ScoringRules, StreamScores
from forecaster.backtest.write import open_table
from forecaster.codecs.anomaly_json import Anomaly
from forecaster.models.artifact import write_atomically

_FOR_PICTURES = ("rolling", "fans")
_TRACES = 4


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What it cost; the only part that differs between two runs of the same backtest."""

    engine_microseconds_per_reading: float
    """Decoding, judging, learning, forecasting, keeping: wall-clock time without trainings and files."""
    training_seconds: float
    cpu_seconds: float
    """Of playing and training."""
    by_stage: dict[str, float]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a backtest found."""

    protocol: ScoringRules
    order: str
    """In which order streams were played: ``time`` or ``progress``."""
    readings: int
    dead_letters: int
    origin_stride: int
    written_origins: int
    seed: int
    experts: tuple[str, ...]
    trainings: tuple[TrainingNote, ...]
    pooled: Pooled
    streams: tuple[StreamScores, ...]
    anomalies: AnomalyScores
    timing: Timing
    told: tuple[Anomaly, ...]
    """Anomalies as they were raised and cleared, in the files' own time."""
    traces: tuple[Trace, ...]
    """Of a few streams that had some."""

    def scores(self) -> dict[str, Any]:
        """The content of scores.json: all of it but what is kept for pictures."""
        found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, told=(), traces=()))
        del found["told"], found["traces"]
        for stream in found["streams"]:
            for name in _FOR_PICTURES:
                del stream[name]
        return found


def conclude(
    backtest: Backtest,
    playback: Playback,
    *,
    protocol: ScoringRules,
    seed: int,
    table: Path,
    origin_stride: int,
    labels: Labels | None = None,
    threshold: float = 1.0,
) -> Result:
    """Score what was played, and write forecasts and anomalies.

    Args:
        table: file of forecasts, its form by its suffix.
        origin_stride: write forecasts only at rows whose place in their stream is a multiple of it; all are scored.
        labels: what was anomalous, where that is known.
        threshold: score that raised anomalies.
    """
    recording = backtest.recording
    shift = dict(zip(recording.streams, recording.shift.tolist(), strict=True))
    scorer = Scorer(protocol, by_time=recording.alignment == "time")
    anomalies = [in_own_time(found, shift[found.stream_id]) for found in backtest.collector.anomalies_found]
    shown = worth_a_picture(anomalies, labels, _TRACES)
    written, fresh, traces = 0, {}, {}
    with open_table(table, protocol.quantile_levels) as forecasts:
        for stream in backtest.collector.streams(shift):
            written += forecasts.write(stream, stride=origin_stride)
            scorer.add(stream)
            fresh[stream.stream_id] = FreshScores(np.round(stream.times, 6), stream.fresh)
            if stream.stream_id in shown:
                traces[stream.stream_id] = trace(stream.stream_id, stream.times, stream.values, anomalies, labels)
    write_anomalies(anomalies, table.parent / "anomalies.csv")
    seconds = playback.seconds
    engine = sum(value for stage, value in seconds.items() if stage not in ("poll", "commit", "train"))
    return Result(
        protocol=protocol,
        order=recording.alignment,
        readings=playback.readings,
        dead_letters=playback.dead_letters,
        origin_stride=origin_stride,
        written_origins=written,
        seed=seed,
        experts=backtest.collector.experts,
        trainings=tuple(playback.trainings),
        pooled=scorer.pooled(),
        streams=tuple(scorer.streams),
        anomalies=score_anomalies(anomalies, recording, fresh, labels, threshold=threshold),
        timing=Timing(
            engine_microseconds_per_reading=1e6 * engine / max(playback.readings, 1),
            training_seconds=seconds["train"],
            cpu_seconds=playback.cpu_seconds,
            by_stage={stage: round(value, 3) for stage, value in sorted(seconds.items())},
        ),
        told=tuple(anomalies),
        traces=tuple(traces[name] for name in shown if name in traces),
    )


def training_points(backtest: Backtest, *, warmup: float, every_rows: float | None) -> Sequence[int]:
    """Where to train: at the end of the warm-up, then whenever every stream, on average, has come so many rows on.

    Args:
        warmup: a share of all rows below 1, else rows of every stream.
        every_rows: ``None`` is as many as the warm-up has; 0 never again.
    """
    recording = backtest.recording
    first = recording.rows_within(warmup) if warmup < 1 else recording.rows_of_steps(warmup)
    every = first if every_rows is None else recording.rows_of_steps(every_rows) if every_rows else len(recording)
    return range(first, len(recording), max(every, 1)) if first else ()


def season_rows(declared: int | float | None, playback: Playback, step_seconds: float) -> int:
    """The season of seasonal naive in rows: the one declared, else the one that training found last; 0 for none."""
    if isinstance(declared, int):
        return declared
    seconds = (
        declared
        if declared is not None
        else next((note.season_seconds for note in reversed(playback.trainings) if note.outcome != "failed"), 0.0)
    )
    return round(seconds / step_seconds) if step_seconds > 0 else 0


def write_scores(result: Result, path: Path) -> None:
    """Write scores.json; ``nan`` is null."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(result.scores()), indent=1) + b"\n")
