"""Histories as a network sees them: the serving encoder run over all streams side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forecaster.series.columns import BoolArray, Float32Array, FloatArray, IntArray
from forecaster.series.encoder import SeriesEncoder
from forecaster.series.rows import Rows
from forecaster.training.history import Ticks


class EncodedHistory(NamedTuple):
    """All ticks of all streams in one row each, stream after stream. ``M`` rows, ``N`` streams."""

    features: Float32Array
    """``[M, F]``"""
    ahead: Float32Array | None
    """Seasonal look-ahead ``[M, H]``; ``None`` where no stream has a season."""
    origin: FloatArray
    """Last observed value x_t, ``[M]``."""
    scale: FloatArray
    """v_t, ``[M]``."""
    values: FloatArray
    """What was read, ``nan`` where nothing was, ``[M]``."""
    times: FloatArray
    """``[M]``"""
    starts: IntArray
    """First row of each stream, and M, ``[N + 1]``."""
    segment_end: IntArray
    """Row after the last one that can be reached from this row without a jump of the clock, ``[M]``."""
    warm: BoolArray
    """Rows with at least two values behind them: before that there is no scale, ``[M]``."""
    flagged: BoolArray | None = None
    """Rows whose value was flagged as an anomaly, ``[M]``; ``None`` where nobody has looked."""
    future: Float32Array | None = None
    """What was known ahead, ``[M, K·H]``; ``None`` where nothing was."""

    def targets(self, rows: IntArray, horizon: int) -> tuple[Float32Array, BoolArray]:
        """Normalised targets ``(y_{t+h} - x_t) / v_t`` of leads 1..H at these rows, and which were observed.

        Both ``[..., H]``; unobserved targets are 0.
        """
        future = rows[..., None] + np.arange(1, horizon + 1)
        reachable = future < self.segment_end[rows][..., None]
        y = self.values[np.where(reachable, future, 0)]
        observed = reachable & ~np.isnan(y)
        scaled = (y - self.origin[rows][..., None]) / self.scale[rows][..., None]
        return np.where(observed, scaled, 0.0).astype(np.float32), observed


def encode(encoder: SeriesEncoder, ticks: Sequence[Ticks], season_steps: IntArray) -> EncodedHistory:
    """Run the serving encoder over all streams side by side, one tick of each at a time.

    Args:
        encoder: the very one that serves, by its arguments.
        ticks: one per stream.
        season_steps: season of each stream in steps, 0 none, ``[N]``.

    Returns:
        Rows in the order of ``ticks``; training inputs equal serving inputs by construction.
    """
    lengths = np.array([len(t.times) for t in ticks], np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    total = int(starts[-1])
    values, times, elapsed, skipped = (
        np.concatenate([getattr(t, name) for t in ticks]) for name in ("values", "times", "elapsed", "skipped")
    )
    covariates = _beside([t.covariates for t in ticks], lengths, encoder.covariates)
    known = _beside([t.future for t in ticks], lengths, encoder.future_inputs)
    features = np.empty((total, len(encoder.feature_names)), np.float32)
    ahead = np.zeros((total, encoder.horizon), np.float32) if season_steps.any() else None
    future = np.empty((total, encoder.future_inputs), np.float32) if encoder.future_inputs else None
    origin, scale, seen = np.empty(total), np.empty(total), np.empty(total, np.int64)

    order = np.argsort(-lengths, kind="stable")
    columns = Rows(encoder.columns, len(ticks))
    columns["season"][:] = season_steps[order]
    ordered_starts, ordered_lengths = starts[:-1][order], lengths[order]
    for tick in range(int(lengths.max(initial=0))):
        slots = np.arange(int(np.searchsorted(-ordered_lengths, -tick)))  # the streams that have this many ticks
        rows = ordered_starts[slots] + tick
        for slot in slots[skipped[rows] > 0]:
            encoder.skip(columns, int(slot), int(skipped[rows[slot]]))
        inputs = encoder.tick(
            columns,
            slots,
            times[rows],
            values[rows],
            elapsed[rows],
            None if covariates is None else covariates[rows],
            future=None if known is None else known[rows],
        )
        features[rows], origin[rows], scale[rows] = inputs.features, inputs.origin, inputs.scale
        seen[rows] = columns["seen"][slots]
        if future is not None:
            future[rows] = inputs.future
        if ahead is not None:
            ahead[rows] = encoder.ahead(columns, slots, inputs.origin, inputs.scale)[0]

    begins = skipped > 0
    begins[starts[:-1][lengths > 0]] = True
    first_rows = np.flatnonzero(begins)
    segment_end = np.concatenate((first_rows[1:], [total]))[np.cumsum(begins) - 1] if total else np.zeros(0, np.int64)
    return EncodedHistory(
        features=features,
        ahead=ahead,
        origin=origin,
        scale=scale,
        values=values,
        times=times,
        starts=starts,
        segment_end=segment_end.astype(np.int64),
        warm=seen >= 2,
        flagged=_joined_flags([t.flagged for t in ticks], lengths.tolist()),
        future=future,
    )


def join(parts: Sequence[EncodedHistory]) -> EncodedHistory:
    """The streams of several encoded histories as one; all have a look-ahead or none, and know as much ahead."""
    rows = np.cumsum([0, *(len(part.values) for part in parts)])
    aheads = [part.ahead for part in parts if part.ahead is not None]
    futures = [part.future for part in parts if part.future is not None]
    return EncodedHistory(
        features=np.concatenate([part.features for part in parts]),
        ahead=np.concatenate(aheads) if aheads else None,
        origin=np.concatenate([part.origin for part in parts]),
        scale=np.concatenate([part.scale for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        times=np.concatenate([part.times for part in parts]),
        starts=np.concatenate(
            [[0], *(part.starts[1:] + before for part, before in zip(parts, rows[:-1], strict=True))]
        ).astype(np.int64),
        segment_end=np.concatenate([part.segment_end + before for part, before in zip(parts, rows[:-1], strict=True)]),
        warm=np.concatenate([part.warm for part in parts]),
        flagged=_joined_flags([part.flagged for part in parts], [len(part.values) for part in parts]),
        future=np.concatenate(futures) if futures else None,
    )


def _beside(parts: Sequence[FloatArray | None], lengths: IntArray, width: int) -> FloatArray | None:
    """What stands beside the values of all streams, ``[M, width]``, ``nan`` for a stream that has nothing there."""
    if not width:
        return None
    return np.concatenate(
        [np.full((rows, width), np.nan) if part is None else part for part, rows in zip(parts, lengths, strict=True)]
    )


def _joined_flags(parts: Sequence[BoolArray | None], lengths: Sequence[int]) -> BoolArray | None:
    if all(part is None for part in parts):
        return None
    return np.concatenate(
        [np.zeros(rows, bool) if part is None else part for part, rows in zip(parts, lengths, strict=True)]
    )


def hide(data: EncodedHistory, periods: Sequence[tuple[float, float]]) -> EncodedHistory:
    """The same history with nothing asked in these periods: no target and no origin lies in them.

    Inputs stay as serving made them, so that the recurrent state after a period is the one it will have.

    Args:
        data: encoded history.
        periods: event times, from and to, both included.
    """
    hidden = np.zeros(len(data.times), bool)
    for first, last in periods:
        hidden |= (data.times >= first) & (data.times <= last)
    if not hidden.any():
        return data
    return data._replace(values=np.where(hidden, np.nan, data.values), warm=data.warm & ~hidden)
