"""The pictures of a backtest's report, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from forecaster.backtest.anomalies import Trace
from forecaster.backtest.result import Result
from forecaster.backtest.scoring import ROLLING_TARGETS, StreamScores
from forecaster.codecs.timestamps import parse_time
from forecaster.evaluation.scores import Array
from forecaster.evaluation.summary import Scores
from forecaster.reports.drawing import ACTUAL, NAIVE, OURS, SEASONAL, fan_picture, plain

_MOST_STREAMS = 60


def stream_fan(stream: StreamScores, result: Result) -> Figure | None:
    """Forecasts of one stream over what came; ``None`` for a stream too short to have one."""
    if stream.fans is None:
        return None
    title = f"{stream.stream_id}: MAE {stream.all.relative_naive:.2f} of naive"
    return fan_picture(stream.fans, result.protocol.quantile_levels, title)


def anomaly_picture(trace: Trace) -> Figure:
    """One stream, where it was anomalous by its labels and where that was raised."""
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    axes = figure.subplots()
    for number, (first, last) in enumerate(trace.windows):
        begin, end = np.array([first, last]).astype("datetime64[s]")
        axes.axvspan(begin, end, color=SEASONAL, alpha=0.25, lw=0, label="labelled" if number == 0 else None)
    axes.plot(trace.times.astype("datetime64[s]"), trace.values, color=ACTUAL, linewidth=0.7)
    times = np.array([parse_time(found.timestamp) for found in trace.raised]).astype("datetime64[s]")
    values = [np.nan if found.value is None else found.value for found in trace.raised]
    axes.plot(times, values, "o", color=NAIVE, markersize=4, label="raised")
    for time in times[np.isnan(values)]:  # raised by a reading without a value
        axes.axvline(time, color=NAIVE, linewidth=0.8)
    axes.set_title(f"{trace.stream_id}: {len(trace.raised)} raised", fontsize=10, loc="left")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.tick_params(labelsize=8)
    return plain(figure)


def error_by_lead(result: Result) -> Figure:
    """MASE of every lead, beside both naive forecasts; geometric means of ratios put them on one scale."""
    leads = result.pooled.leads
    x = np.arange(1, len(leads) + 1)
    ours = np.array([scores.mase for scores in leads])
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, _reference(ours, leads, "relative_naive"), color=NAIVE, label="last value")
    if result.protocol.season_rows:
        axes.plot(x, _reference(ours, leads, "relative_seasonal"), color=SEASONAL, label="seasonal naive")
    axes.plot(x, ours, color=OURS, linewidth=2, label="forecaster")
    axes.set(xlabel="lead", ylabel="MASE", ylim=(0, None))
    axes.legend(fontsize=8, frameon=False)
    return plain(figure)


def coverage_by_lead(result: Result) -> Figure:
    """Coverage of every central interval at every lead, beside what it promises."""
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    x = np.arange(1, len(result.pooled.leads) + 1)
    for k, interval in enumerate(result.pooled.all.intervals):
        covered = [scores.intervals[k].coverage for scores in result.pooled.leads]
        axes.axhline(interval.nominal, color=ACTUAL, linewidth=0.7, linestyle=":")
        axes.plot(x, covered, color=OURS, alpha=1 - 0.2 * k if k < 4 else 0.3, label=f"{interval.nominal:.0%}")
    axes.set(xlabel="lead", ylabel="coverage", ylim=(0, 1))
    axes.legend(fontsize=8, frameon=False, ncols=4)
    return plain(figure)


def coverage_by_stream(result: Result) -> Figure | None:
    """Coverage of the widest interval for each stream; ``None`` where the levels have no interval."""
    if not result.pooled.all.intervals:
        return None
    nominal = result.pooled.all.intervals[0].nominal
    streams = sorted(result.streams, key=lambda stream: stream.all.intervals[0].coverage)
    if len(streams) > _MOST_STREAMS:
        streams = [*streams[: _MOST_STREAMS // 2], *streams[-_MOST_STREAMS // 2 :]]
    figure = Figure(figsize=(max(5.5, 0.22 * len(streams)), 3.8), layout="constrained")
    axes = figure.subplots()
    axes.axhspan(nominal - 0.02, nominal + 0.02, color=OURS, alpha=0.12, lw=0)
    axes.axhline(nominal, color=ACTUAL, linewidth=0.7, linestyle=":")
    for k, stream in enumerate(streams):
        axes.plot(k, stream.all.intervals[0].coverage, "o", color=NAIVE if stream.is_tied else OURS, markersize=4)
    axes.set_xticks(range(len(streams)), [_short(stream.stream_id) for stream in streams], rotation=90, fontsize=6)
    axes.set_ylabel(f"coverage of {nominal:.0%}")
    return plain(figure)


def pit_picture(result: Result) -> Figure:
    """Where targets fall among the quantiles, over what calibrated forecasts would show: 1 everywhere."""
    edges = np.array([0.0, *result.protocol.quantile_levels, 1.0])
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, shares, title in zip(
        figure.subplots(1, 2, sharey=True),
        (result.pooled.pit, result.pooled.pit_all),
        ("lead 1", "all leads"),
        strict=True,
    ):
        widths = np.diff(edges)
        axes.bar(edges[:-1], np.array(shares) / widths, widths, align="edge", color=OURS, alpha=0.5, edgecolor="white")
        axes.axhline(1.0, color=ACTUAL, linewidth=0.7, linestyle=":")
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("probability integral transform")
    return plain(figure)


def rolling_picture(result: Result) -> Figure | None:
    """Coverage of the widest interval over the last 500 targets of lead 1, stream by stream."""
    streams = [stream for stream in result.streams if stream.rolling and stream.rolling[0] and not stream.is_tied]
    if not streams:
        return None
    nominal = result.pooled.all.intervals[0].nominal
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    for stream in streams[:_MOST_STREAMS]:
        axes.plot(np.linspace(0, 1, len(stream.rolling[0])), stream.rolling[0], color=OURS, alpha=0.35, linewidth=0.8)
    axes.axhline(nominal, color=ACTUAL, linewidth=0.7, linestyle=":")
    axes.set(xlabel="part of the scored rows", ylabel=f"coverage of {ROLLING_TARGETS} targets", ylim=(None, 1))
    return plain(figure)


def _reference(ours: Array, leads: Sequence[Scores], name: str) -> Array:
    ratios: Array = np.array([getattr(scores, name) for scores in leads])
    return np.asarray(ours / ratios)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"…{name[-23:]}"
