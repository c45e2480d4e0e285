"""What a judged stretch shows beside its losses: where values fell among the quantiles, and some forecasts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from forecaster.evaluation.fans import Fans
from forecaster.series.columns import Float32Array, FloatArray, IntArray
from forecaster.training.encoding import EncodedHistory

_EXAMPLES = 4
_FAN_ORIGINS = 3
_FAN_CONTEXT = 4  # horizons of actual values before the first fan, at most


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """The newest forecasts of one stream, in its own units."""

    stream: int
    """Its place among the streams trained on."""
    relative_naive: float
    """Loss of the challenger over that of the last value on this stream."""
    fans: Fans


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The challenger on the judged stretch."""

    below: tuple[tuple[float, ...], ...]
    """Share of values at or below each quantile, by lead and level, ``[H][Q]``; ``nan`` where nothing was observed."""
    examples: tuple[Example, ...]
    """Of a few streams, from the best to the worst against naive."""


def gather_evidence(
    data: EncodedHistory, rows: IntArray, quantiles: Float32Array, losses: FloatArray, naive_losses: FloatArray
) -> Evidence:
    """Evidence of forecasts made at some rows.

    Args:
        data: encoded history.
        rows: origins, rising, ``[K]``.
        quantiles: normalised, ``[K, H, Q]``.
        losses, naive_losses: of the forecasts and of the last value, ``[K, H]``, ``nan`` where unobserved.
    """
    horizon = quantiles.shape[1]
    target, observed = data.targets(rows, horizon)
    held = (target[..., None] <= quantiles) & observed[..., None]  # [K, H, Q]
    counts = observed.sum(axis=0)[:, None]  # [H, 1]
    below = np.divide(held.sum(axis=0), counts, out=np.full(held.shape[1:], np.nan), where=counts > 0)

    stream = np.searchsorted(data.starts, rows, side="right") - 1
    ranked = sorted(
        (_relative(losses[stream == number], naive_losses[stream == number]), int(number))
        for number in np.unique(stream)
    )
    with_fans = [
        Example(stream=number, relative_naive=relative, fans=fans)
        for relative, number in _spread_out([pair for pair in ranked if not np.isnan(pair[0])])
        if (fans := _fans(data, rows[stream == number], quantiles[stream == number])) is not None
    ]
    return Evidence(below=tuple(tuple(row) for row in below.tolist()), examples=tuple(with_fans))


def _relative(losses: FloatArray, naive_losses: FloatArray) -> float:
    known = ~np.isnan(losses) & ~np.isnan(naive_losses)
    naive = float(naive_losses[known].sum())
    return float(losses[known].sum()) / naive if naive > 0 else float("nan")


def _spread_out(ranked: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """A few, spread evenly between the first and the last."""
    count = min(_EXAMPLES, len(ranked))
    return [ranked[round(k * (len(ranked) - 1) / max(count - 1, 1))] for k in range(count)]


def _fans(data: EncodedHistory, rows: IntArray, quantiles: Float32Array) -> Fans | None:
    """The last forecasts of one stream that do not overlap and whose targets lie before the end of their segment."""
    horizon = quantiles.shape[1]
    chosen: list[int] = []
    for place in np.flatnonzero(rows + horizon < data.segment_end[rows])[::-1]:
        if len(chosen) < _FAN_ORIGINS and (not chosen or rows[chosen[-1]] - rows[place] >= horizon):
            chosen.append(int(place))
    if not chosen:
        return None
    picked = rows[chosen[::-1]]
    own_first = int(data.starts[np.searchsorted(data.starts, picked[0], side="right") - 1])
    begin, end = max(int(picked[0]) - _FAN_CONTEXT * horizon, own_first), int(picked[-1]) + horizon + 1
    units = data.origin[picked][:, None, None] + data.scale[picked][:, None, None] * quantiles[chosen[::-1]]
    return Fans(
        times=data.times[begin:end].tolist(),
        values=data.values[begin:end].tolist(),
        origins=(picked - begin).tolist(),
        quantiles=units.tolist(),
    )
