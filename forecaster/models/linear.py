"""A linear forecast of all leads at once: what ridge regressions over the streams of a group have found."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from forecaster.series.columns import Float32Array, IntArray
from forecaster.series.compiled import compiled

MOST_OWN = 256
"""Streams with weights of their own: at horizon 12 these are 4 KB each, at 24 10 KB."""


class LinearForecast(nn.Module):
    """Medians as a product of lag inputs and weights: a stream's own, or those shared by all others.

    Buffers, not parameters: solved for, never descended to.

    Args:
        inputs: K, as `LagInputs` makes them.
        horizon: H.
        streams: R, streams with weights of their own.
    """

    weight: Tensor
    spread: Tensor
    own: Tensor
    identities: Tensor

    def __init__(self, inputs: int, horizon: int, streams: int = 0) -> None:
        super().__init__()
        self.streams = streams
        self.register_buffer("weight", torch.zeros(inputs, horizon))
        self.register_buffer("spread", torch.zeros(horizon))
        if streams:
            self.register_buffer("own", torch.zeros(streams, inputs, horizon))
            self.register_buffer("identities", torch.zeros(streams, dtype=torch.int64))

    def set(self, weight: Tensor, spread: Tensor, own: Tensor | None = None, identities: Tensor | None = None) -> None:
        """Take over what was fitted.

        Args:
            weight: shared, ``[K, H]``.
            spread: mean |error| that was left, in scales, ``[H]``.
            own: of single streams, ``[R, K, H]``.
            identities: of these streams, rising, ``[R]``.
        """
        self.weight.copy_(weight)
        self.spread.copy_(spread)
        if self.streams:
            assert own is not None, "streams of their own have weights"
            assert identities is not None, "and names"
            self.own.copy_(own)
            self.identities.copy_(identities)

    @property
    def is_fitted(self) -> bool:
        """Whether anything was set; before that it has nothing to say."""
        return bool(self.spread.any())

    def rows_of(self, identities: IntArray) -> IntArray:
        """Whose own weights serve streams of these `stream_identity` numbers, ``[B]``; -1 where the shared ones do."""
        if not self.streams:
            return np.full(len(identities), -1)
        known = self.identities.numpy()
        place = np.minimum(known.searchsorted(identities), self.streams - 1)
        return np.where(known[place] == identities, place, -1)

    def points(self, inputs: Float32Array, rows: IntArray) -> Float32Array:
        """``[B, K]`` to ``(y - x_t) / v``, ``[B, H]``; ``rows`` ``[B]`` as `rows_of` gives them."""
        made = np.zeros((len(rows), self.weight.shape[1]), np.float32)
        shared = self.weight.numpy()
        own = self.own.numpy() if self.streams else np.zeros((0, *shared.shape), np.float32)
        _multiply(inputs, rows, shared, own, made)
        return made


@compiled
def _multiply(
    inputs: Float32Array, rows: IntArray, shared: Float32Array, own: Float32Array, made: Float32Array
) -> None:
    """One product a stream, with weights of its own or the shared ones."""
    for row in range(len(rows)):
        weights = own[rows[row]] if rows[row] >= 0 else shared
        for k in range(inputs.shape[1]):
            x = inputs[row, k]
            for lead in range(made.shape[1]):
                made[row, lead] += x * weights[k, lead]
