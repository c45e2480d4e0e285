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

from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.compiled import compiled

_MEMORY = 4_096
_MOST = 8.0  # regret of one target, in units of the scale: one wild reading must not decide for thousands to come
_FARTHEST = 1e6  # scales; a stream that was constant so far has next to no scale


class MLPoly:
    """Expert weights per stream and anchor lead.

    Args:
        leads: anchor leads, ``A``.
        experts: their names, ``E``; the network is the last, the others answer with a point.
        quantile_levels: ``Q``.
        shape: quantiles about a point whose spread is 1, ``[Q]``.
        horizon: H; weights between anchors are interpolated.
    """

    def __init__(
        self,
        *,
        leads: tuple[int, ...],
        experts: tuple[str, ...],
        quantile_levels: tuple[float, ...],
        shape: Float32Array,
        horizon: int,
    ) -> None:
        self._levels = np.array(quantile_levels)
        self._shape = shape.astype(np.float64)
        shape_of_one = (len(leads), len(experts))
        self.columns = tuple(
            Column(name, "f4", shape_of_one, labels=experts) for name in ("regret", "inverse_rate", "regret_bound")
        )
        self._interpolation = LeadInterpolation(leads, horizon)

    def update(
        self,
        c: Columns,
        slots: IntArray,
        settled: BoolArray,
        points: Float32Array,
        spread: Float32Array,
        quantiles: Float32Array,
    ) -> None:
        """Learn from targets that arrived. Numbers are relative to the target and in units of the stream's scale.

        Args:
            settled: anchors with a forecast for this target, ``[B, A]``.
            points: ``[B, A, P]``; ``nan`` where an expert had no answer.
            spread: about the points, ``[B, A, P]``.
            quantiles: of the network, ``[B, A, Q]``; ``nan`` where it had no answer.
        """
        _learn(
            slots,
            settled,
            points,
            spread,
            quantiles,
            self._levels,
            self._shape,
            c["regret"],
            c["inverse_rate"],
            c["regret_bound"],
        )

    def mix(
        self, weights: Float32Array, points: Float32Array, spread: Float32Array, quantiles: Float32Array
    ) -> Float32Array:
        """Weighted mean of the experts' quantiles, ``[B, X, Q]``, at any leads X.

        Args:
            weights: ``[B, X, E]``.
            points, spread: ``[B, X, P]``, finite; of experts without an answer anything.
            quantiles: of the network, ``[B, X, Q]``, likewise.
        """
        mixed = np.empty_like(quantiles)
        _mix(weights, points, spread, quantiles, self._shape, mixed)
        return mixed

    def weights(self, c: Columns, slots: IntArray, available: BoolArray) -> Float32Array:
        """Weights at every lead, ``[B, H, E]``, summing to 1 over the experts ``available`` ``[B, E]``."""
        at_anchors = np.empty((len(slots), *c["regret"].shape[1:]), np.float32)
        _weigh(slots, c["regret"], c["inverse_rate"], available, at_anchors)
        return self._interpolation.apply(at_anchors)

    @staticmethod
    def shares(weights: Float32Array) -> Float32Array:
        """Mean of ``weights``, ``[B, H, E]``, over all leads, ``[B, E]``."""
        shares = np.zeros((weights.shape[0], weights.shape[2]), np.float32)
        _average(weights, shares)
        return shares


class LeadInterpolation:
    """Values known at anchor leads, spread linearly over all leads 1..H."""

    def __init__(self, leads: tuple[int, ...], horizon: int) -> None:
        every = np.arange(1, horizon + 1)
        self._upper = np.searchsorted(leads, every)
        self._lower = np.maximum(self._upper - 1, 0)
        low, high = np.array(leads)[self._lower], np.array(leads)[self._upper]
        self._fraction = (every - low) / np.maximum(high - low, 1)  # [H]

    def apply(self, at_anchors: Float32Array) -> Float32Array:
        """``[B, A, X]`` to ``[B, H, X]``."""
        rows, _, width = at_anchors.shape
        at_leads = np.empty((rows, len(self._fraction), width), np.float32)
        _interpolate(at_anchors, self._lower, self._upper, self._fraction, at_leads)
        return at_leads


@compiled
def _learn(
    slots: IntArray,
    settled: BoolArray,
    points: Float32Array,
    spread: Float32Array,
    quantiles: Float32Array,
    levels: FloatArray,
    shape: FloatArray,
    regret: Float32Array,
    inverse_rate: Float32Array,
    regret_bound: Float32Array,
) -> None:
    """One step of ML-Poly at every anchor that was settled."""
    anchors, experts = regret.shape[1:]
    last = experts - 1
    kept = 1.0 - 1.0 / _MEMORY
    answered, weights, said = np.empty(experts, np.bool_), np.empty(experts), np.empty(experts)
    for row in range(len(slots)):
        slot = slots[row]
        for anchor in range(anchors):
            if not settled[row, anchor]:
                continue
            for k in range(last):
                answered[k] = not np.isnan(points[row, anchor, k])
                said[k] = _bounded(points[row, anchor, k])
            answered[last] = not np.isnan(quantiles[row, anchor, 0])
            _share_out(regret[slot, anchor], inverse_rate[slot, anchor], answered, weights)

            center = width = 0.0
            for k in range(last):
                center += weights[k] * said[k]
                width += weights[k] * spread[row, anchor, k]
            # The gradient of the pinball loss at the mixture, level by level: along points, across their spreads.
            along = across = of_mixture = of_network = 0.0
            for level in range(len(levels)):
                made = _bounded(quantiles[row, anchor, level])
                mixed = center + width * shape[level] + weights[last] * made
                gradient = (1.0 if mixed > 0 else 0.0) - levels[level]
                along += gradient
                across += gradient * shape[level]
                of_mixture += gradient * mixed
                of_network += gradient * made

            most = 0.0  # the largest square
            for k in range(experts):
                of_expert = of_network if k == last else said[k] * along + spread[row, anchor, k] * across
                excess = (of_mixture - of_expert) / len(levels)
                said[k] = min(max(excess, -_MOST), _MOST) if answered[k] else 0.0  # from here on its regret
                most = max(most, said[k] * said[k])
            for k in range(experts):
                if answered[k]:
                    bound = max(regret_bound[slot, anchor, k], most)
                    risen = bound - regret_bound[slot, anchor, k]
                    regret[slot, anchor, k] = kept * regret[slot, anchor, k] + said[k]
                    inverse_rate[slot, anchor, k] = kept * inverse_rate[slot, anchor, k] + said[k] * said[k] + risen
                    regret_bound[slot, anchor, k] = bound


@compiled
def _weigh(
    slots: IntArray,
    regret: Float32Array,
    inverse_rate: Float32Array,
    available: BoolArray,
    weights: Float32Array,
) -> None:
    """Weights at the anchors, ``[B, A, E]``, among those ``available`` ``[B, E]``."""
    of_experts = np.empty(regret.shape[2])
    for row in range(len(slots)):
        for anchor in range(regret.shape[1]):
            _share_out(regret[slots[row], anchor], inverse_rate[slots[row], anchor], available[row], of_experts)
            weights[row, anchor] = of_experts


@compiled
def _average(weights: Float32Array, shares: Float32Array) -> None:
    rows, leads, experts = weights.shape
    for row in range(rows):
        for lead in range(leads):
            for k in range(experts):
                shares[row, k] += weights[row, lead, k]
        for k in range(experts):
            shares[row, k] /= np.float32(leads)


@compiled
def _share_out(regret: Float32Array, inverse_rate: Float32Array, available: BoolArray, weights: FloatArray) -> None:
    """In proportion to η_k·max(R_k, 0); equal shares while nobody is ahead. All ``[E]``."""
    total = 0.0
    for k in range(len(weights)):
        weights[k] = regret[k] / max(inverse_rate[k], 1e-12) if available[k] and regret[k] > 0 else 0.0
        total += weights[k]
    if total > 0:
        weights /= total
    else:
        equal = 1.0 / max(available.sum(), 1)
        for k in range(len(weights)):
            weights[k] = equal if available[k] else 0.0


@compiled
def _mix(
    weights: Float32Array,
    points: Float32Array,
    spread: Float32Array,
    quantiles: Float32Array,
    shape: FloatArray,
    mixed: Float32Array,
) -> None:
    rows, leads, levels = mixed.shape
    last = weights.shape[2] - 1
    for row in range(rows):
        for lead in range(leads):
            center = width = 0.0
            for k in range(last):
                center += weights[row, lead, k] * points[row, lead, k]
                width += weights[row, lead, k] * spread[row, lead, k]
            for level in range(levels):
                mixed[row, lead, level] = (
                    center + width * shape[level] + weights[row, lead, last] * quantiles[row, lead, level]
                )


@compiled
def _interpolate(
    at_anchors: Float32Array, lower: IntArray, upper: IntArray, fraction: FloatArray, at_leads: Float32Array
) -> None:
    rows, leads, width = at_leads.shape
    for row in range(rows):
        for lead in range(leads):
            for k in range(width):
                low = at_anchors[row, lower[lead], k]
                at_leads[row, lead, k] = low + fraction[lead] * (at_anchors[row, upper[lead], k] - low)


@compiled
def _bounded(relative: float) -> float:
    """0 where nothing was answered. What is out of reach is all the same distance away."""
    return 0.0 if np.isnan(relative) else min(max(relative, -_FARTHEST), _FARTHEST)
