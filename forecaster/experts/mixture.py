"""One weight per expert, for each stream and anchor lead, from the experts' own record on that stream.

Most experts answer with a point and a spread about it, in a shape that all of them share; the network, the last one,
answers with quantiles. Mixtures of both are made of mixed points and mixed spreads: quantiles of each are never needed.

Source: Gaillard, Stoltz, van Erven (2014), "A Second-order Bound with Excess Losses", algorithm ML-Poly, with the
gradient of the loss at the mixture; in the paper's terms ``regret`` is R_k, ``inverse_rate`` is 1/η_k and ``bound``
is B_k. Here the loss is the mean pinball loss over the quantile levels in units of the stream's scale, one weight
vector serves all levels (so that mixed quantiles keep their order), targets arrive late, and old regret fades, so
that an expert that was right last month does not outvote one that is right today.
"""

from __future__ import annotations

import numpy as np

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray, chosen, gathered

_MEMORY = 4_096
_MOST = 8.0  # regret of one target, in units of the scale: one wild reading must not decide for thousands to come
_FARTHEST = 1e6  # scales; a stream that was constant so far has next to no scale


class MLPoly:
    """Expert weights per stream and anchor lead.

    Args:
        leads: anchor leads, ``A``.
        points: experts that answer with a point, ``P``; with the network there are ``E = P + 1``.
        quantile_levels: ``Q``.
        shape: quantiles about a point whose spread is 1, ``[Q]``.
        horizon: H; weights between anchors are interpolated.
    """

    def __init__(
        self,
        *,
        leads: tuple[int, ...],
        points: int,
        quantile_levels: tuple[float, ...],
        shape: Float32Array,
        horizon: int,
    ) -> None:
        self._levels = np.array(quantile_levels, np.float32)
        self._shape = shape
        experts = points + 1
        self.columns = (
            Column("regret", "f4", (len(leads), experts)),
            Column("inverse_rate", "f4", (len(leads), experts)),
            Column("regret_bound", "f4", (len(leads), experts)),
        )
        self._interpolation = LeadInterpolation(leads, horizon)

    def update(
        self,
        c: Columns,
        slots: IntArray,
        settled: BoolArray,
        points: FloatArray,
        spread: Float32Array,
        quantiles: FloatArray,
    ) -> None:
        """Learn from targets that arrived. Numbers are relative to the target and in units of the stream's scale.

        Args:
            settled: anchors with a forecast for this target, ``[B, A]``.
            points: ``[B, A, P]``; ``nan`` where an expert had no answer.
            spread: about the points, ``[B, A, P]``.
            quantiles: of the network, ``[B, A, Q]``; ``nan`` where it had no answer.
        """
        answered = ~np.isnan(np.concatenate((points, quantiles[..., :1]), axis=2))  # [B, A, E]
        weights = self._weights_at_anchors(c, slots, answered)
        own, made, spread = _bounded(points), _bounded(quantiles), np.asfortranarray(spread)  # as `gathered` does
        mixed = self.mix(weights, own, spread, made)
        gradient = (mixed > 0).astype(np.float32) - self._levels  # of the pinball loss, [B, A, Q]
        along, across = _sum_last(gradient), _sum_last(gradient * self._shape)  # [B, A]
        of_experts = np.concatenate(
            (own * along[..., None] + spread * across[..., None], _sum_last(gradient * made)[..., None]), axis=2
        )
        excess = (_sum_last(gradient * mixed)[..., None] - of_experts) / np.float32(len(self._levels))
        counts = settled[:, :, None] & answered
        instant = chosen(counts, np.clip(excess, -_MOST, _MOST), np.float32(0.0))

        square = instant * instant
        kept = np.float32(1 - 1 / _MEMORY)
        regret, inverse_rate, old_bound = (
            gathered(c[name], slots) for name in ("regret", "inverse_rate", "regret_bound")
        )
        bound = chosen(counts, np.maximum(old_bound, _largest_last(square)[..., None]), old_bound)
        c["regret"][slots] = chosen(counts, kept * regret + instant, regret)
        c["inverse_rate"][slots] = chosen(counts, kept * inverse_rate + square + (bound - old_bound), inverse_rate)
        c["regret_bound"][slots] = bound

    def mix(
        self, weights: Float32Array, points: Float32Array, spread: Float32Array, quantiles: Float32Array
    ) -> Float32Array:
        """Weighted mean of the experts' quantiles, ``[B, X, Q]``, at any leads X.

        Args:
            weights: ``[B, X, E]``.
            points, spread: ``[B, X, P]``, finite; of experts without an answer anything.
            quantiles: of the network, ``[B, X, Q]``, likewise.
        """
        shares = weights[..., :-1]
        center, width = _sum_last(shares * points), _sum_last(shares * spread)
        mixed: Float32Array = np.empty_like(quantiles, np.float32)
        # Told where to go: a product of two that are both broadcast would not be laid out as they are.
        np.multiply(width[..., None], self._shape, out=mixed)
        mixed += center[..., None]
        mixed += weights[..., -1:] * quantiles
        return mixed

    def weights(self, c: Columns, slots: IntArray, available: BoolArray) -> Float32Array:
        """Weights at every lead, ``[B, H, E]``, summing to 1 over the experts ``available`` ``[B, E]``."""
        return self._interpolation.apply(self._weights_at_anchors(c, slots, available[:, None, :]))

    def _weights_at_anchors(self, c: Columns, slots: IntArray, available: BoolArray) -> Float32Array:
        """``[B, A, E]``: in proportion to η_k·max(R_k, 0); equal shares while nobody is ahead. ``available`` is
        ``[B, A, E]``, or ``[B, 1, E]`` where it is the same at all anchors."""
        regret: Float32Array = gathered(c["regret"], slots)
        np.maximum(regret, 0, out=regret)
        np.copyto(regret, 0, where=np.logical_not(available))
        inverse_rate: Float32Array = gathered(c["inverse_rate"], slots)
        np.maximum(inverse_rate, np.float32(1e-12), out=inverse_rate)
        share = np.divide(regret, inverse_rate, out=regret)
        total = _sum_last(share)[..., None]
        ahead = total > 0
        if ahead.all():
            return np.divide(share, total, out=share)
        equal = available / np.maximum(_sum_last(available.astype(np.float32)), 1)[..., None]
        weights: Float32Array = np.where(ahead, share / np.where(ahead, total, 1), equal).astype(np.float32)
        return weights


class LeadInterpolation:
    """Values known at anchor leads, spread linearly over all leads 1..H."""

    def __init__(self, leads: tuple[int, ...], horizon: int) -> None:
        every = np.arange(1, horizon + 1)
        self._upper = np.searchsorted(leads, every)
        self._lower = np.maximum(self._upper - 1, 0)
        low, high = np.array(leads)[self._lower], np.array(leads)[self._upper]
        self._fraction = ((every - low) / np.maximum(high - low, 1)).astype(np.float32)[:, None]  # [H, 1]

    def apply(self, at_anchors: Float32Array) -> Float32Array:
        """``[B, A, X]`` to ``[B, H, X]``."""
        low, spread = at_anchors[:, self._lower], at_anchors[:, self._upper]  # unlike `take` these keep the layout
        spread -= low
        spread *= self._fraction
        spread += low
        return spread


def _bounded(relative: FloatArray) -> Float32Array:
    """In single precision; 0 where nothing was answered. What is out of reach is all the same distance away."""
    bounded = np.clip(relative, -_FARTHEST, _FARTHEST).astype(np.float32)
    return chosen(~np.isnan(bounded), bounded, np.float32(0.0))


def _sum_last(values: Float32Array) -> Float32Array:
    # A plain loop over the few: its order of summation never depends on the shape of the wave.
    total = values[..., 0].copy(order="K")
    for k in range(1, values.shape[-1]):
        total += values[..., k]
    return total


def _largest_last(values: Float32Array) -> Float32Array:
    largest = values[..., 0].copy(order="K")
    for k in range(1, values.shape[-1]):
        np.maximum(largest, values[..., k], out=largest)
    return largest
