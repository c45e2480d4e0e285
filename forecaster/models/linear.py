"""A linear forecast of all leads at once: what ridge regressions over the streams of a group have found."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from forecaster.models.cells import linear
from forecaster.series.columns import Float32Array, IntArray

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
        """``[B, K]`` to ``(y - x_t) / v``, ``[B, H]``; ``rows`` ``[B]`` as `rows_of` gives them.

        The bits of a row are the same whatever else is in the wave, if B is a multiple of `WAVE_TILE`.
        """
        with_own = np.flatnonzero(rows >= 0)
        if len(with_own) == len(rows):
            made: Float32Array = np.matmul(inputs[:, None], self.own.numpy()[rows])[:, 0]
            return made
        with torch.inference_mode():
            made = linear(torch.from_numpy(inputs), self.weight.T).numpy()
        if len(with_own):
            # One product a stream, in a loop of numpy's: torch.bmm is twice as slow, and chooses by the number of rows.
            made[with_own] = np.matmul(inputs[with_own, None], self.own.numpy()[rows[with_own]])[:, 0]
        return made
