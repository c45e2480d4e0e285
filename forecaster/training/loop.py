"""Fitting a network to windows: optimiser, penalties, truncated back-propagation, early stopping, limits, resuming."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import msgspec
import numpy as np
import torch
from torch import Tensor

from forecaster.errors import TrainingFailed
from forecaster.models.losses import forecast_loss, l1_penalty
from forecaster.models.network import RecurrentForecaster
from forecaster.training.checkpoint import Counters, FitState
from forecaster.training.dataset import Batch
from forecaster.training.learning_rate import Schedule, pace


class FitPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How a network is fitted; the defaults are what serves."""

    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Schedule = "one_cycle"
    learning_rate: float = 2e-3
    """Highest of the schedule."""
    momentum: float = 0.9
    """First beta of Adam, momentum of SGD; ``one_cycle`` sets its own."""
    l1: float = 0.0
    """Weight of the sum of absolute weights in the loss."""
    l2: float = 1e-4
    """Weight decay: decoupled from the gradient in AdamW, half the gradient of the squared weights in Adam and SGD."""
    clip: float = 1.0
    """Longest gradient; 0 does not clip."""
    huber_weight: float = 0.5
    averaging: float = 0.98
    """The weights kept are an exponentially forgetting mean of those passed through, with this memory per step; 0
    keeps the last ones."""
    batch: int = 32
    backprop_steps: int = 0
    """Gradients flow back through this many ticks at most; 0 through the whole window."""
    freeze_steps: int = 0
    """First steps in which only the head learns and the recurrent body stays as it is."""
    validate_every: int = 25
    patience: int = 8
    """Looks at the early-stopping stretch without a new best after which to stop."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes CUDA where it is present."""


class Drawable(Protocol):
    """Whatever batches can be drawn from."""

    def draw(self, windows: int, rng: np.random.Generator) -> Batch:
        """A batch of windows."""


class Objective(Protocol):
    """What a fit minimises."""

    def __call__(self, batch: Batch, quantiles: Tensor, levels: Tensor) -> Tensor:
        """Loss of normalised quantiles ``[B, K, H, Q]`` for a batch, a scalar."""


class Progress(NamedTuple):
    """How far a fit has come."""

    step: int
    steps: int
    loss: float
    """Of the last batch."""
    validation: float
    """Of the last look at the early-stopping stretch; ``nan`` before the first."""


class FitResult(NamedTuple):
    """A finished fit; the network holds the best weights seen."""

    steps: int
    """Optimiser steps made."""
    best_step: int
    """Step after which the weights kept were reached; 0 keeps those it began with."""
    start_validation: float
    best_validation: float
    seconds: float
    stopped_by: str
    """``steps``, ``patience`` or ``time``."""


def fit(
    network: RecurrentForecaster,
    dataset: Drawable,
    *,
    validate: Callable[[RecurrentForecaster], float],
    seed: int,
    steps: int = 400,
    plan: FitPlan | None = None,
    objective: Objective | None = None,
    max_seconds: float = math.inf,
    checkpoint: Path | None = None,
    data_identity: str = "",
    on_progress: Callable[[Progress], None] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> FitResult:
    """Train in place and keep the weights that validate best.

    Args:
        network: is left with the best weights, on the CPU, in evaluation mode.
        dataset: gives batches.
        validate: loss on the early-stopping stretch, lower is better; it is handed a network on the CPU.
        seed: the same seed, data and start give the same weights on one device, unless time runs out; the global
            generator is left as it was.
        steps: optimiser steps, over which the schedule is laid.
        plan: how; ``None`` is the default plan.
        objective: what is minimised; ``None`` is `forecast_loss`.
        max_seconds: stop after this long, earlier parts of a resumed fit included, and keep the best so far.
        checkpoint: file written at each look at the early-stopping stretch; where it exists the fit goes on from it,
            and ends with the bits of a fit that was never interrupted.
        data_identity: names what the dataset draws from, for the checkpoint.
        monotonic: clock for ``max_seconds``.

    Raises:
        TrainingFailed: loss or validation stopped being a finite number, the device is not there, or the checkpoint is
            of another fit.
    """
    plan = plan or FitPlan()
    device = choose_device(plan.device)
    objective = objective or _plain_objective(plan.huber_weight)
    network.to(device)
    state = FitState(
        network=network,
        averaged=copy.deepcopy(network),
        optimiser=_optimiser(plan, network),
        rng=np.random.default_rng(seed),
        best_weights=_weights(network),
    )
    identity = _identity(network, plan, steps=steps, seed=seed, data_identity=data_identity)
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if checkpoint is None or not state.restore(checkpoint, identity):
            start = _validated(validate, network, 0)
            state.counters = Counters(start=start, last=start, best=start)
        started = monotonic() - state.counters.seconds
        while not state.counters.stopped_by:
            loss = _make_step(state, dataset, objective, plan, steps)
            counters = state.counters
            counters.seconds = monotonic() - started
            out_of_time = counters.seconds >= max_seconds
            keeps_last = plan.patience == 0
            looks = counters.step % plan.validate_every == 0 or counters.step == steps or out_of_time
            if looks:
                _look(state, validate, keeps_last=keeps_last)
            out_of_patience = not keeps_last and counters.looks_without_gain >= plan.patience
            if out_of_time or out_of_patience or counters.step == steps:
                counters.stopped_by = _reason(out_of_time, out_of_patience)
            if looks and checkpoint is not None:
                state.save(checkpoint, identity)
            if on_progress is not None:
                on_progress(Progress(counters.step, steps, loss, counters.last))
    network.load_state_dict(state.best_weights)
    network.requires_grad_(True).to("cpu").eval()
    done = state.counters
    return FitResult(done.step, done.best_step, done.start, done.best, done.seconds, done.stopped_by)


def choose_device(wanted: str) -> torch.device:
    """The device asked for; ``auto`` is CUDA where it is present, else the CPU.

    Raises:
        TrainingFailed: CUDA was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainingFailed(
            "Training is to run on CUDA, and there is no such device here.", hint="Set training.device to auto or cpu."
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def answers(network: RecurrentForecaster, batch: Batch, *, backprop_steps: int = 0) -> Tensor:
    """Quantiles at a batch's origins, ``[B, K, H, Q]``.

    Args:
        network: whatever mode it is in.
        batch: windows.
        backprop_steps: the hidden state is passed on without its gradient after each so many ticks; 0 never.

    Source: Williams & Peng (1990), "An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network
    Trajectories" (truncated back-propagation through time).
    """
    if backprop_steps:
        tops, hidden = [], None
        for first in range(0, batch.features.shape[1], backprop_steps):
            top, after = network(batch.features[:, first : first + backprop_steps], hidden)
            tops.append(top)
            hidden = after.detach()
        run = torch.cat(tops, dim=1)
    else:
        run, _ = network(batch.features)
    pick = batch.origins[..., None]
    top = run.gather(1, pick.expand(-1, -1, run.shape[-1]))  # [B, K, D]
    inputs = batch.features.gather(1, pick.expand(-1, -1, batch.features.shape[-1]))  # [B, K, F]
    return network.quantiles(top, inputs, batch.ahead, batch.future)


def _make_step(state: FitState, dataset: Drawable, objective: Objective, plan: FitPlan, steps: int) -> float:
    """One batch, one step of the optimiser; returns the batch's loss."""
    network, counters = state.network, state.counters
    step = counters.step + 1
    network.train()
    network.body.requires_grad_(step > plan.freeze_steps)
    rate, momentum = pace(plan.schedule, step, steps=steps, peak=plan.learning_rate, momentum=plan.momentum)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum
    device = next(network.parameters()).device
    batch = dataset.draw(plan.batch, state.rng).to(device)
    quantiles = answers(network, batch, backprop_steps=plan.backprop_steps)
    loss = objective(batch, quantiles, network.levels)
    if plan.l1:
        loss = loss + plan.l1 * l1_penalty(network.parameters())
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), plan.clip or math.inf)
    if not math.isfinite(loss.item()) or not math.isfinite(norm.item()):
        raise TrainingFailed(
            f"Training diverged at step {step} of {steps}: loss {loss.item()}, gradient norm {norm.item()}.",
            hint="Look for extreme values in the training window, or lower the learning rate.",
        )
    state.optimiser.step()
    # A short memory at first, or the mean would drag the untrained start along.
    _average(state.averaged, network, min(plan.averaging, step / (step + 10.0)))
    counters.step = step
    return loss.item()


def _look(state: FitState, validate: Callable[[RecurrentForecaster], float], *, keeps_last: bool) -> None:
    """Score the averaged weights on the early-stopping stretch and keep them if they are the best yet, or always."""
    counters = state.counters
    counters.last = _validated(validate, state.averaged, counters.step)
    if counters.last < counters.best or keeps_last:
        counters.best, counters.best_step, counters.looks_without_gain = counters.last, counters.step, 0
        state.best_weights = _weights(state.averaged)
    else:
        counters.looks_without_gain += 1


def _reason(out_of_time: bool, out_of_patience: bool) -> str:
    return "time" if out_of_time else "patience" if out_of_patience else "steps"


def _optimiser(plan: FitPlan, network: RecurrentForecaster) -> torch.optim.Optimizer:
    """Source: Kingma & Ba (2015), arXiv:1412.6980 (Adam); Loshchilov & Hutter (2019), arXiv:1711.05101 (AdamW)."""
    if plan.optimiser == "sgd":
        return torch.optim.SGD(
            network.parameters(), lr=plan.learning_rate, momentum=plan.momentum, weight_decay=plan.l2
        )
    kind = torch.optim.AdamW if plan.optimiser == "adamw" else torch.optim.Adam
    return kind(network.parameters(), lr=plan.learning_rate, betas=(plan.momentum, 0.999), weight_decay=plan.l2)


def _plain_objective(huber_weight: float) -> Objective:
    def loss(batch: Batch, quantiles: Tensor, levels: Tensor) -> Tensor:
        return forecast_loss(quantiles, batch.target, batch.observed, levels, huber_weight=huber_weight)

    return loss


def _identity(network: RecurrentForecaster, plan: FitPlan, *, steps: int, seed: int, data_identity: str) -> str:
    """Digest of everything that decides the result: plan, shape, starting weights, seed, data."""
    digest = hashlib.sha256(msgspec.json.encode((plan, network.hp, steps, seed, data_identity)))
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _average(averaged: RecurrentForecaster, network: RecurrentForecaster, memory: float) -> None:
    """Move the mean a little towards the network's present weights."""
    for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1.0 - memory)


def _weights(network: RecurrentForecaster) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _validated(validate: Callable[[RecurrentForecaster], float], network: RecurrentForecaster, step: int) -> float:
    network.eval()
    on_cpu = next(network.parameters()).device.type == "cpu"
    loss = validate(network if on_cpu else copy.deepcopy(network).cpu())
    if math.isnan(loss):
        raise TrainingFailed(
            f"Validation gave no number after step {step}.",
            hint="Look for extreme values in the training window, or lower the learning rate.",
        )
    return loss
