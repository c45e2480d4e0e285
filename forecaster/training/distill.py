"""A teacher of several networks, and what a student minimises to come near it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor

from forecaster.models.losses import forecast_loss
from forecaster.models.network import RecurrentForecaster
from forecaster.training.dataset import Batch
from forecaster.training.loop import Objective, answers


class Ensemble(msgspec.Struct, frozen=True, kw_only=True):
    """A teacher of several members, from which the network that serves learns; the default is none."""

    members: int = 0
    """Networks of the teacher, each with a seed of its own; 0 trains without one."""
    hidden: int = 0
    """Width of a member's layers; 0 is that of the network that serves."""
    bootstrap: bool = True
    """Whether all members but the first learn from a block bootstrap of the streams."""
    teacher_weight: float = 0.5
    """Of the distance to the teacher in the student's loss."""


def distillation(teacher: Sequence[RecurrentForecaster], weight: float) -> Objective:
    """Mean pinball, plus ``weight`` times the mean absolute distance to the teacher's quantiles.

    The teacher's quantiles are the mean of its members' at the same window. Both terms count where the target was
    observed.

    Args:
        teacher: members; copies are kept, in evaluation mode, on the device of the batches.
        weight: of the second term.

    Source: Hinton, Vinyals & Dean (2015), "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, with
    quantiles in the place of class probabilities.
    """
    members = [copy.deepcopy(member).eval().requires_grad_(False) for member in teacher]

    def loss(batch: Batch, quantiles: Tensor, levels: Tensor) -> Tensor:
        with torch.no_grad():
            taught = torch.stack([answers(member.to(quantiles.device), batch) for member in members]).mean(0)
        distance = (quantiles - taught).abs().mean(-1) * batch.observed  # [B, K, H]
        towards_teacher = distance.sum() / batch.observed.sum().clamp_min(1)
        plain = forecast_loss(quantiles, batch.target, batch.observed, levels, huber_weight=0.0)
        return plain + weight * towards_teacher

    return loss
