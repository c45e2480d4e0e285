"""A backtest's report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from forecaster.backtest.pictures import (
    anomaly_picture,
    coverage_by_lead,
    coverage_by_stream,
    error_by_lead,
    pit_picture,
    rolling_picture,
    stream_fan,
)
from forecaster.backtest.result import Result
from forecaster.backtest.scoring import StreamScores
from forecaster.models.artifact import write_atomically
from forecaster.reports.html import image, number, page, table

_FANS = 4
_STREAM_ROWS = 500
_ANOMALY_ROWS = 100


def write_report(result: Result, path: Path) -> None:
    """Write the report; pictures are inside it."""
    write_atomically(path, render(result).encode())


def render(result: Result) -> str:
    """The report as HTML."""
    parts = [
        f"<p>{escape(_headline(result))}</p>",
        "<h2>All streams</h2>",
        _pooled_table(result),
    ]
    if result.streams:
        parts += [
            "<h2>Forecasts</h2>",
            "<p class=note>The last forecasts of some streams, from the best to the worst against naive.</p>",
            *(image(stream_fan(stream, result)) for stream in _examples(result.streams)),
            "<h2>Error by lead</h2>",
            image(error_by_lead(result)),
            "<h2>Calibration</h2>",
            image(coverage_by_lead(result)),
            image(coverage_by_stream(result)),
            "<p class=note>Red: most values are the commonest one or repeat the one before, so that any interval that "
            "holds the median covers more than it says. The band is two points wide on each side.</p>",
            image(pit_picture(result)),
            image(rolling_picture(result)),
        ]
    parts += ["<h2>Anomalies</h2>", *_anomalies(result)]
    parts += ["<h2>Trainings</h2>", _trainings_table(result), "<h2>Streams</h2>", _streams_table(result)]
    return page("Backtest", parts)


def _headline(result: Result) -> str:
    p = result.protocol
    warmup = f"{p.warmup:.0%} of the rows" if p.warmup < 1 else f"{p.warmup:.0f} rows"
    season = f"seasonal naive looks back {p.season_rows} rows" if p.season_rows else "no season"
    order = "by event time" if result.order == "time" else "side by side, each from its first row to its last"
    return (
        f"{result.readings:,} readings of {len(result.streams):,} streams, played {order}; horizon {p.horizon}; "
        f"{season}; the first {warmup} of every stream are not scored. Every forecast was made by the serving engine "
        f"from earlier readings alone. {result.dead_letters:,} rows were refused. Seed {result.seed}. "
        f"{result.timing.engine_microseconds_per_reading:.0f} µs a reading."
    )


def _pooled_table(result: Result) -> str:
    pooled, scores = result.pooled, result.pooled.all
    rows = [
        ("MAE against the last value, geometric mean", number(scores.relative_naive), number(pooled.p_naive)),
        ("MAE against seasonal naive", number(scores.relative_seasonal), number(pooled.p_seasonal)),
        ("MASE, mean over streams", number(scores.mase), ""),
        ("MASE, median", number(pooled.median_mase), ""),
        ("scaled quantile loss", number(scores.sql), ""),
        ("the same of seasonal naive", number(scores.sql_seasonal), ""),
        ("weighted quantile loss", number(scores.wql), ""),
        ("MAE after 1,000 readings against the better naive, median", number(pooled.median_relative_best_naive), ""),
        (
            f"the same, worst stream ({pooled.worst_relative_best_naive_stream or 'none is that long'})",
            number(pooled.worst_relative_best_naive),
            "",
        ),
    ]
    for k, interval in enumerate(scores.intervals):
        least, low, most, high = pooled.coverage_extremes[k]
        rows.append((f"coverage of {interval.nominal:.0%}", number(interval.coverage), ""))
        rows.append((f"least covered stream ({low})", number(least), ""))
        rows.append((f"most covered stream ({high})", number(most), ""))
        rows.append(
            (
                "mean deviation over 500 targets",
                number(pooled.local_deviation[k]) if pooled.local_deviation else "",
                "",
            )
        )
        rows.append((f"scaled interval score of {interval.nominal:.0%}", number(interval.scaled_interval_score), ""))
    return table(("score", "", "Diebold-Mariano p"), rows)


def _anomalies(result: Result) -> Iterable[str]:
    """What was raised: how often by which test, how right, a few streams as pictures, and a list."""
    scores = result.anomalies
    by_test = ", ".join(f"{count:,} by {cause}" for cause, count in sorted(scores.by_cause.items()))
    yield f"<p>{scores.raised:,} raised{': ' + by_test if by_test else ''}.</p>"
    if scores.profiles:
        yield f"<p class=note>Against {scores.windows:,} labelled windows, scored as the Numenta benchmark does it.</p>"
        yield table(
            ("profile", "as raised", "at the best threshold", "which is"),
            [(p.profile, number(p.score_as_raised), number(p.score), number(p.threshold)) for p in scores.profiles],
        )
    yield from (image(anomaly_picture(found)) for found in result.traces)
    raised = sorted((found for found in result.told if found.state == "raised"), key=lambda found: -found.score)
    if len(raised) > _ANOMALY_ROWS:
        yield f"<p class=note>The {_ANOMALY_ROWS} with the highest score; all are in anomalies.csv.</p>"
    if raised:
        yield table(
            ("stream", "raised", "severity", "score", "test", "direction", "value", "expected"),
            [
                (
                    *(a.stream_id, a.timestamp, a.severity, f"{a.score:.2f}", a.cause, a.direction),
                    *("–" if known is None else f"{known:g}" for known in (a.value, a.expected)),
                )
                for a in raised[:_ANOMALY_ROWS]
            ],
        )


def _trainings_table(result: Result) -> str:
    rows = [
        (f"{note.at:,}", note.outcome, note.version, f"{note.readings:,}", f"{note.seconds:.0f}", note.reason)
        for note in result.trainings
    ]
    return table(("after rows", "outcome", "model", "readings", "s", "reason"), rows)


def _streams_table(result: Result) -> str:
    streams = sorted(result.streams, key=lambda stream: -_or_zero(stream.all.relative_naive))[:_STREAM_ROWS]
    header = ["stream", "rows", "MAE", "MASE", "of naive", "p", "of seasonal", "p", "of better naive", "sql"]
    header += [f"{interval.nominal:.0%}" for interval in result.pooled.all.intervals]
    header += [f"{name} share" for name in result.experts]
    rows = []
    for stream in streams:
        s = stream.all
        numbers = [s.mae, s.mase, s.relative_naive, stream.p_naive, s.relative_seasonal, stream.p_seasonal]
        numbers += [stream.relative_best_naive, s.sql, *(interval.coverage for interval in s.intervals)]
        numbers += stream.experts
        rows.append((stream.stream_id, f"{stream.rows:,}", *map(number, numbers)))
    note = f"<p class=note>The {_STREAM_ROWS} worst of {len(result.streams):,}.</p>"
    return (note if len(result.streams) > _STREAM_ROWS else "") + table(header, rows)


def _examples(streams: Sequence[StreamScores]) -> Iterable[StreamScores]:
    """A few streams, spread evenly between the best and the worst against naive."""
    ranked = sorted((s for s in streams if s.fans is not None), key=lambda stream: _or_zero(stream.all.relative_naive))
    count = min(_FANS, len(ranked))
    return [ranked[round(k * (len(ranked) - 1) / max(count - 1, 1))] for k in range(count)]


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
