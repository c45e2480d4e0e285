"""From what the recurrent body knows to quantiles of every lead at once, never crossing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forecaster.models.cells import linear

LOOK_AHEAD_CLIP = 8.0
"""Bound within which the head weighs the seasonal look-ahead; what exceeds it is added to the medians as it is.

The scale is the usual change from season to season: a look-ahead of many times that means that the stream repeats
itself almost exactly, and then the season before is the forecast.
"""


class QuantileHead(nn.Module):
    """Quantiles of ``(y - x_t) / v`` for H leads in one pass.

    A SiLU layer over the body's output, the seasonal look-ahead and what is known ahead gives a median and non-negative
    distances between neighbouring quantiles, which are summed outwards from it: order holds for any weights. A linear
    highway from the inputs, the look-ahead and what is known ahead to the medians starts at zero, so that a seasonal
    pattern that merely repeats, or a plan, need not pass through the cell.
    """

    def __init__(
        self, *, hidden: int, features: int, horizon: int, levels: int, head_width: int, future: int = 0
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.levels = levels
        self.enter = nn.Linear(hidden + horizon + future, head_width)
        self.leave = nn.Linear(head_width, horizon * levels)
        self.highway = nn.Linear(features + horizon + future, horizon, bias=False)
        nn.init.zeros_(self.highway.weight)

    def forward(self, top: Tensor, inputs: Tensor, ahead: Tensor, future: Tensor | None = None) -> Tensor:
        """Quantiles in units of each stream's scale, relative to its last value.

        Args:
            top: output of the body, ``[..., D]``.
            inputs: what the body was fed at the same tick, ``[..., F]``.
            ahead: seasonal look-ahead per lead, not clipped, ``[..., H]``; zeros where there is no season.
            future: what is known ahead, as the encoder gives it, ``[..., K·H]``; ``None`` for a head that is shown
                none.

        Returns:
            ``[..., H, Q]``, rising along the last axis.
        """
        near = ahead.clamp(-LOOK_AHEAD_CLIP, LOOK_AHEAD_CLIP)
        told = (near,) if future is None else (near, future)
        entered = F.silu(linear(torch.cat((top, *told), dim=-1), self.enter.weight, self.enter.bias))
        raw = linear(entered, self.leave.weight, self.leave.bias)
        raw = raw.reshape(*raw.shape[:-1], self.horizon, self.levels)  # [..., H, Q]
        middle = self.levels // 2
        highway = linear(torch.cat((inputs, *told), dim=-1), self.highway.weight)  # [..., H]
        median: Tensor = raw[..., middle] + highway + (ahead - near)
        if self.levels == 1:
            return median.unsqueeze(-1)
        grown = F.softplus(raw)  # of all at once: torch is slow where numbers do not lie side by side
        below, above = grown[..., :middle], grown[..., middle + 1 :]
        if middle > 1:
            below, above = below.flip(-1).cumsum(-1).flip(-1), above.cumsum(-1)
        median = median.unsqueeze(-1)
        return torch.cat((median - below, median, median + above), dim=-1)

    @torch.no_grad()
    def start_from(self, quantiles: Tensor) -> None:
        """Set the biases so that an untrained head answers about these quantiles, ``[H, Q]`` rising.

        Learning then begins at the climatology of the data instead of at nothing.
        """
        middle = self.levels // 2
        bias = self.leave.bias.view(self.horizon, self.levels)
        bias[:, middle] = quantiles[:, middle]
        steps = quantiles.diff(dim=-1).clamp_min(1e-3)  # [H, Q-1]
        inverse_softplus = steps + torch.log(-torch.expm1(-steps))
        bias[:, :middle] = inverse_softplus[:, :middle]
        bias[:, middle + 1 :] = inverse_softplus[:, middle:]
