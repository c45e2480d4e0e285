"""Windows drawn at random from an encoded history, and windows that lie between two of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from forecaster.models.heads import LOOK_AHEAD_CLIP
from forecaster.series.columns import BoolArray, FloatArray, IntArray
from forecaster.training.encoding import EncodedHistory

TARGET_CLIP = 64.0
"""Bound of targets in the loss, in units of the scale, seen from the look-ahead where that is large.

Pinball and Huber are linear out there, so the gradient is the same; the loss just cannot overflow.
"""


MIX_UP_SHAPE = 0.4
"""Both parameters of the beta distribution that weights are drawn from: mostly near one of the two windows."""


class Batch(NamedTuple):
    """Windows ready for the network. ``B`` windows, ``T`` ticks, ``K`` origins in each."""

    features: Tensor
    """``[B, T, F]``"""
    origins: Tensor
    """Positions within the window, ``[B, K]``."""
    ahead: Tensor
    """``[B, K, H]``"""
    target: Tensor
    """``[B, K, H]``"""
    observed: Tensor
    """``[B, K, H]``"""
    future: Tensor | None = None
    """What was known ahead at the origins, ``[B, K, N]``; ``None`` where nothing was."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch._make(None if tensor is None else tensor.to(device) for tensor in self)


class WindowDataset:
    """Windows drawn at random from given stretches of an encoded history.

    Args:
        data: the encoded history.
        usable: rows that may be seen, as inputs and as targets, ``[M]``; windows lie in unbroken runs of them.
        horizon: H.
        context_length: T, ticks of a window; shorter where no run is that long.
        burn_in: ticks at a window's start that bear no loss, at most a third of the window.
        origins: K, ticks of a window at which the head is evaluated, drawn at random; 0 takes every one behind the
            burn-in. Source: Wen, Torkkola, Narayanaswamy & Madeka (2017), "A Multi-Horizon Quantile Recurrent
            Forecaster", arXiv:1711.11053 (forking sequences).
        recent_share: part of the windows drawn with a preference for the newest rows; the others are drawn evenly.
        mix_up: part of the windows that lie between two of the history.
    """

    def __init__(
        self,
        data: EncodedHistory,
        usable: BoolArray,
        *,
        horizon: int,
        context_length: int = 264,
        burn_in: int = 96,
        origins: int = 24,
        recent_share: float = 0.7,
        mix_up: float = 0.0,
    ) -> None:
        self._data = data
        self._mix_up = mix_up
        self._horizon = horizon
        self._recent_share = recent_share
        boundary = np.ones(len(usable), bool)  # nothing leads from the row before to this one
        boundary[1:] = data.segment_end[:-1] == np.arange(1, len(usable))
        before = np.concatenate(([False], usable[:-1]))
        begins = usable & (boundary | ~before)
        first = np.flatnonzero(begins)
        length = np.bincount((np.cumsum(begins) - 1)[usable], minlength=len(first))
        long_enough = length > 1 + min(horizon, 8)
        self._first, self._length = first[long_enough], length[long_enough]
        longest = int(self._length.max(initial=0))
        self.context_length = min(context_length, longest)
        self.burn_in = min(burn_in, self.context_length // 3)
        most = max(1, self.context_length - self.burn_in - 1)
        self._is_forking = origins == 0
        self.origins = most if self._is_forking else min(origins, most)

    @property
    def rows(self) -> int:
        """Rows in runs long enough to draw from."""
        return int(self._length.sum())

    def draw(self, windows: int, rng: np.random.Generator) -> Batch:
        """A batch of windows; the same generator state gives the same batch."""
        start, end = self._places(windows, rng)
        context = self.context_length
        if self._is_forking:  # those without a target behind them bear no loss
            positions = np.broadcast_to(self.burn_in + np.arange(self.origins), (windows, self.origins)).copy()
        else:
            positions = np.sort(
                rng.integers(self.burn_in, np.maximum(self.burn_in + 1, context - 1), (windows, self.origins)), axis=1
            )
            last = np.minimum(end - start, context)[:, None] - 2  # an origin needs a target behind it
            positions = np.where(positions > last, rng.integers(0, np.maximum(last, 0) + 1, positions.shape), positions)
        batch = self._cut(start, end, positions)
        if self._mix_up == 0.0:
            return batch
        partner = self._cut(*self._places(windows, rng), positions)
        weight, chosen = rng.beta(MIX_UP_SHAPE, MIX_UP_SHAPE, windows), rng.random(windows) < self._mix_up
        return mix_up(batch, partner, np.where(chosen, weight, 1.0))

    def _places(self, windows: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """First row of each window, and the row after the run it lies in; both ``[B]``."""
        weights = self._length / self._length.sum()
        runs = rng.choice(len(self._first), windows, p=weights)
        free = np.maximum(self._length[runs] - self.context_length, 0)  # places a window can start, less one
        place = rng.random(windows)
        place = np.where(rng.random(windows) < self._recent_share, np.sqrt(place), place)
        start = self._first[runs] + np.floor(place * (free + 1)).astype(np.int64)
        return start, self._first[runs] + self._length[runs]

    def _cut(self, start: IntArray, end: IntArray, positions: IntArray) -> Batch:
        """The windows at these rows, with the head evaluated at these positions, ``[B, K]``."""
        data = self._data
        rows = start[:, None] + np.arange(self.context_length)  # [B, T]
        inside = rows < end[:, None]
        features = np.where(inside[..., None], data.features[np.minimum(rows, end[:, None] - 1)], 0.0)
        at = start[:, None] + positions  # [B, K]
        within = at < end[:, None]
        at = np.minimum(at, end[:, None] - 1)
        target, observed = data.targets(at, self._horizon)
        observed &= (at[..., None] + np.arange(1, self._horizon + 1)) < end[:, None, None]
        observed &= (data.warm[at] & within)[..., None]
        ahead = np.zeros(target.shape, np.float32) if data.ahead is None else data.ahead[at]
        beyond = ahead - np.clip(ahead, -LOOK_AHEAD_CLIP, LOOK_AHEAD_CLIP)  # the head adds it as it is
        target = beyond + np.clip(target - beyond, -TARGET_CLIP, TARGET_CLIP)
        return Batch(
            torch.from_numpy(features.astype(np.float32)),
            torch.from_numpy(positions),
            torch.from_numpy(ahead),
            torch.from_numpy(target),
            torch.from_numpy(observed),
            None if data.future is None else torch.from_numpy(data.future[at]),
        )


def mix_up(first: Batch, second: Batch, weight: FloatArray) -> Batch:
    """Windows that lie between those of two batches: inputs, look-ahead, what was known ahead and targets alike.

    A target is observed where both are, and where the weight is 1 as in the first batch.

    Args:
        first, second: batches with the same origins.
        weight: of each window of the first, 0 to 1, ``[B]``.

    Source: Zhang, Cisse, Dauphin & Lopez-Paz (2018), "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412.
    """
    share = torch.from_numpy(weight.astype(np.float32))[:, None, None]

    def between(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(share == 1.0, a, share * a + (1.0 - share) * b)

    return Batch(
        between(first.features, second.features),
        first.origins,
        between(first.ahead, second.ahead),
        between(first.target, second.target),
        first.observed & (second.observed | (share == 1.0)),
        None if first.future is None or second.future is None else between(first.future, second.future),
    )
