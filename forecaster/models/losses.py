"""What training minimises: pinball of all quantiles, Huber of the median, penalties on the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def pinball(forecast: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Quantile loss of each forecast, ``max(q·(y - f), (q - 1)·(y - f))``.

    Args:
        forecast: ``[..., H, Q]``.
        target: ``[..., H]``.
        levels: ``[Q]``.

    Returns:
        ``[..., H, Q]``, never negative.
    """
    error = target.unsqueeze(-1) - forecast
    return torch.maximum(levels * error, (levels - 1.0) * error)


def forecast_loss(
    forecast: Tensor, target: Tensor, observed: Tensor, levels: Tensor, *, huber_weight: float = 0.5
) -> Tensor:
    """Mean pinball plus a share of the median's Huber loss, over the targets that were observed.

    Args:
        forecast: ``[..., H, Q]``.
        target: ``[..., H]``; its numbers do not matter where it was not observed.
        observed: ``[..., H]``, true where the target is known.
        levels: ``[Q]``.
        huber_weight: of the Huber term (threshold 1, in units of the stream's scale).

    Returns:
        A scalar; zero, with a gradient of zero, where nothing was observed.
    """
    known = torch.where(observed, target, forecast.detach()[..., forecast.shape[-1] // 2])
    quantile_term = pinball(forecast, known, levels).mean(-1)  # [..., H]
    huber_term = F.huber_loss(forecast[..., forecast.shape[-1] // 2], known, reduction="none")  # [..., H]
    each = (quantile_term + huber_weight * huber_term) * observed
    return each.sum() / observed.sum().clamp_min(1)


def l1_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """Sum of absolute values of all parameters."""
    return torch.stack([parameter.abs().sum() for parameter in parameters]).sum()


def l2_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """Sum of squares of all parameters."""
    return torch.stack([parameter.square().sum() for parameter in parameters]).sum()
