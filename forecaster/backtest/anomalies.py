"""Anomalies of a backtest: a table of them, and their scores where it is known what was anomalous."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from forecaster.backtest.recording import Recording
from forecaster.codecs.anomaly_json import Anomaly
from forecaster.codecs.timestamps import format_time, parse_time
from forecaster.errors import ConfigurationError
from forecaster.evaluation.nab import (
    PROFILES,
    FileScore,
    Profile,
    ScoredFile,
    normalised,
    score_corpus,
    score_file,
    windows_of,
)
from forecaster.series.columns import FloatArray

COLUMNS = (
    "stream_id",
    "timestamp",
    "state",
    "direction",
    "cause",
    "severity",
    "score",
    "since",
    "value",
    "expected",
    "lower",
    "upper",
)

_MOST_POINTS = 2_000  # of a trace

Labels = Mapping[str, Sequence[tuple[float, float]]]
"""First and last event time of what was anomalous, by stream."""


class FreshScores(NamedTuple):
    """Scores of one stream's accepted readings, in the files' own time; ``n`` readings."""

    times: FloatArray
    scores: FloatArray
    """Where a reading would have raised an anomaly, had it reached the threshold; else 0, ``[n]``."""


class Trace(NamedTuple):
    """One stream with its anomalies, for a picture."""

    stream_id: str
    times: FloatArray
    """In the files' own time; of a long stream, of the least and the largest value of each stretch, ``[n]``."""
    values: FloatArray
    raised: tuple[Anomaly, ...]
    windows: tuple[tuple[float, float], ...]
    """What was labelled anomalous: first and last time."""


class ProfileScore(msgspec.Struct, frozen=True, kw_only=True):
    """Scores by one profile of the benchmark, 0 for detecting nothing and 100 for perfection."""

    profile: str
    score: float
    """At the best single threshold over all streams, as the benchmark has it."""
    threshold: float
    score_as_raised: float
    """Of the anomalies as they were raised."""
    streams: tuple[FileScore, ...]
    """At the best threshold, not normalised."""


class AnomalyScores(msgspec.Struct, frozen=True, kw_only=True):
    """What was raised, and how right that was."""

    raised: int
    by_cause: dict[str, int]
    windows: int
    """Labelled, after the probationary rows; 0 where nothing is labelled."""
    profiles: tuple[ProfileScore, ...]


def read_labels(path: Path) -> Labels:
    """Labels from a JSON object: name of a stream, or of its file, to pairs of times.

    Raises:
        ConfigurationError: the file cannot be read, or says something else.
    """
    try:
        found = json.loads(path.read_bytes())
        return {
            Path(name).name.removesuffix(".gz").removesuffix(".csv"): [
                (parse_time(begin), parse_time(end)) for begin, end in windows
            ]
            for name, windows in found.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"Labels cannot be read from {path}: {error}.",
            hint='They are a JSON object such as {"stream": [["2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z"]]}.',
        ) from error


def score_anomalies(
    anomalies: Sequence[Anomaly],
    recording: Recording,
    fresh: Mapping[str, FreshScores],
    labels: Labels | None,
    *,
    threshold: float,
) -> AnomalyScores:
    """Count what was raised, and score it where there are labels.

    Args:
        fresh: by stream.
        labels: every stream of the recording is scored, those without a label for their false alarms.
        threshold: score that raises.

    Raises:
        ConfigurationError: no label is of a stream of the recording.
    """
    causes = Counter(anomaly.cause for anomaly in anomalies if anomaly.state == "raised")
    profiles: tuple[ProfileScore, ...] = ()
    if labels is not None:
        if not set(labels) & set(recording.streams):
            raise ConfigurationError(
                f"None of the {len(labels)} labelled streams is among the {len(recording.streams)} played.",
                hint=f"Labels name streams, as {recording.streams[0]!r}.",
            )
        files = [_scored(name, recording.times_of(name), fresh.get(name), labels) for name in recording.streams]
        profiles = tuple(_by_profile(files, profile, threshold) for profile in PROFILES)
    return AnomalyScores(
        raised=causes.total(),
        by_cause=dict(causes),
        windows=sum(stream.windows for stream in profiles[0].streams) if profiles else 0,
        profiles=profiles,
    )


def worth_a_picture(anomalies: Sequence[Anomaly], labels: Labels | None, most: int) -> list[str]:
    """Names of a few streams: labelled ones first, then those with most anomalies raised."""
    raised = Counter(anomaly.stream_id for anomaly in anomalies if anomaly.state == "raised")
    labelled = [name for name, windows in (labels or {}).items() if windows]
    named = dict.fromkeys(
        [*sorted(labelled, key=lambda name: -raised[name]), *(name for name, _ in raised.most_common())]
    )
    return list(named)[:most]


def trace(
    stream_id: str, times: FloatArray, values: FloatArray, anomalies: Sequence[Anomaly], labels: Labels | None
) -> Trace:
    """A stream as a picture shows it: thinned out so that no peak is lost."""
    known = np.flatnonzero(~np.isnan(values))
    kept = known
    if len(known) > _MOST_POINTS:
        stretches = np.array_split(known, _MOST_POINTS // 2)
        ends = [(rows[values[rows].argmin()], rows[values[rows].argmax()]) for rows in stretches]
        kept = np.unique(np.array(ends).ravel())
    raised = tuple(found for found in anomalies if found.stream_id == stream_id and found.state == "raised")
    return Trace(stream_id, times[kept], values[kept], raised, tuple((labels or {}).get(stream_id, ())))


def write_anomalies(anomalies: Iterable[Anomaly], path: Path) -> None:
    """Write ``anomalies.csv``: a row for each that was raised or cleared, in the order in which that happened."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for anomaly in anomalies:
            cells = (getattr(anomaly, name) for name in COLUMNS)
            table.writerow(["" if cell is None else cell for cell in cells])


def in_own_time(anomaly: Anomaly, shift: float) -> Anomaly:
    """The anomaly with its times as the files have them; ``shift`` is what they were moved by."""
    if not shift:
        return anomaly
    moved = {name: format_time(parse_time(getattr(anomaly, name)) - shift) for name in ("timestamp", "since")}
    return msgspec.structs.replace(anomaly, **moved)


def _scored(name: str, times: FloatArray, found: FreshScores | None, labels: Labels) -> ScoredFile:
    """Scores of all rows of a stream: a row that was refused has none."""
    scores = dict(zip(found.times.tolist(), found.scores.tolist(), strict=True)) if found else {}
    rows = times.copy()
    for row, time in enumerate(times.tolist()):
        rows[row] = scores.pop(round(time, 6), 0.0)  # the first row of a time is the one that was answered
    return ScoredFile(name, rows, tuple(windows_of(times, labels.get(name, ()))))


def _by_profile(files: Sequence[ScoredFile], profile: Profile, threshold: float) -> ProfileScore:
    best = score_corpus(files, profile)
    raised = [score_file(file, threshold, profile) for file in files]
    return ProfileScore(
        profile=profile.name,
        score=best.score,
        threshold=best.threshold if math.isfinite(best.threshold) else math.nan,
        score_as_raised=normalised(raised, profile),
        streams=best.files,
    )
