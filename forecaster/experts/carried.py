"""A network over the hidden states of all streams of a task: one step a reading, and what it answers then."""

from __future__ import annotations

import numpy as np
import torch

from forecaster.experts.base import Origins
from forecaster.models.heads import LOOK_AHEAD_CLIP
from forecaster.models.network import RecurrentForecaster
from forecaster.series.columns import BoolArray, Columns, Float32Array, IntArray

_LIMIT = 1e3  # scaled units from the look-ahead; a network that answers beyond this has lost its mind


class CarriedNetwork:
    """A network and the column in which streams carry its hidden state.

    Args:
        network: never changed here.
        column: name of the column, ``[L, W]`` a stream.
    """

    def __init__(self, network: RecurrentForecaster, column: str) -> None:
        self.network = network.eval()
        self._column = column

    def step(self, c: Columns, slots: IntArray, features: Float32Array) -> Float32Array:
        """Carry hidden states over one tick; returns the top layer, ``[B, D]``. B is a multiple of `WAVE_TILE`."""
        with torch.inference_mode():
            top, hidden = self.network.step(torch.from_numpy(features), torch.from_numpy(c[self._column][slots]))
            c[self._column][slots] = hidden.numpy()
            return np.asarray(top.numpy())

    def top(self, c: Columns, slots: IntArray) -> Float32Array:
        """The top layer as the last `step` of these streams returned it, ``[B, D]``."""
        with torch.inference_mode():
            return np.asarray(self.network.body.top(torch.from_numpy(c[self._column][slots])).numpy())

    def answer(self, top: Float32Array, at: Origins) -> tuple[Float32Array, BoolArray]:
        """Quantiles from what `step` returned, relative to the origin and in units of the scale, never crossing,
        ``[B, H, Q]``; and whose are usable, ``[B]``."""
        with torch.inference_mode():
            made = self.network.quantiles(
                torch.from_numpy(top),
                torch.from_numpy(at.features),
                torch.from_numpy(at.ahead),
                None if at.future is None else torch.from_numpy(at.future),
            ).numpy()
        if np.abs(at.ahead).max() <= LOOK_AHEAD_CLIP and np.abs(made).max() < _LIMIT:  # neither holds a nan then
            return made, np.ones(len(made), np.bool_)
        # The head adds this part of the look-ahead as it is, however large.
        beyond = (at.ahead - np.clip(at.ahead, -LOOK_AHEAD_CLIP, LOOK_AHEAD_CLIP))[:, :, None]
        within = np.abs(made - beyond) < _LIMIT + 1e-6 * np.abs(beyond)  # false for nan too
        sane: BoolArray = np.logical_and.reduce(within, axis=(1, 2))
        return np.where(sane.reshape(-1, 1, 1), made, np.float32(0.0)), sane
