"""The network that serves and is trained: one recurrent body, one quantile head, one mask over the inputs."""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor, nn

from forecaster.models.cells import RecurrentStack, build_stack
from forecaster.models.heads import QuantileHead
from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.linear import LinearForecast


class RecurrentForecaster(nn.Module):
    """Global recurrent network over many streams: `step` for serving, `forward` for training, `quantiles` for both.

    Everything is in normalised units: features as the series encoder makes them, answers as ``(y - x_t) / v``.
    Features that are not among ``used_features`` are held at zero. Build one with `seeded` for reproducible weights.
    """

    feature_mask: Tensor
    levels: Tensor
    linear: LinearForecast | None
    """Fitted beside the network, not with it; ``None`` where ``hp.linear_inputs`` is 0."""

    def __init__(self, hp: HyperParameters) -> None:
        super().__init__()
        self.hp = hp
        features = len(hp.feature_names)
        self.body: RecurrentStack = build_stack(
            hp.cell, features, hp.hidden, hp.layers, activation=hp.activation, dropout=hp.dropout
        )
        self.dropout = nn.Dropout(hp.dropout)
        self.head = QuantileHead(
            hidden=hp.hidden,
            features=features,
            horizon=hp.horizon,
            levels=len(hp.quantile_levels),
            head_width=hp.head_width,
            future=hp.future_inputs,
        )
        self.linear = LinearForecast(hp.linear_inputs, hp.horizon, hp.linear_streams) if hp.linear_inputs else None
        used = [float(name in hp.used_features) for name in hp.feature_names]
        self.register_buffer("feature_mask", torch.tensor(used), persistent=False)
        self._sees_all = all(used)
        self.register_buffer("levels", torch.tensor(hp.quantile_levels), persistent=False)

    @classmethod
    def seeded(cls, hp: HyperParameters, seed: int) -> RecurrentForecaster:
        """A new network whose weights depend on ``hp`` and ``seed`` alone; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(hp)

    def take_linear(self, linear: LinearForecast) -> None:
        """Have this linear forecast beside the network, whatever was there before."""
        inputs, horizon = linear.weight.shape
        assert horizon == self.hp.horizon, "both answer the same leads"
        self.linear = linear
        self.hp = msgspec.structs.replace(self.hp, linear_inputs=inputs, linear_streams=linear.streams)

    @property
    def hidden_shape(self) -> tuple[int, int]:
        """(L, W): what one stream carries from tick to tick."""
        return self.body.hidden_shape

    def initial_hidden(self, streams: int) -> Tensor:
        """Zeros ``[B, L, W]``."""
        return self.body.initial_hidden(streams)

    def step(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One tick: inputs ``[B, F]`` and hidden state ``[B, L, W]`` -> top ``[B, D]`` and new hidden ``[B, L, W]``."""
        top, after = self.body.step(self._shown(x), hidden)
        return top, after

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A window: inputs ``[B, T, F]`` -> tops ``[B, T, D]`` and the hidden state after it ``[B, L, W]``."""
        tops, after = self.body(self._shown(x), hidden)
        return tops, after

    def quantiles(self, top: Tensor, inputs: Tensor, ahead: Tensor, future: Tensor | None = None) -> Tensor:
        """Quantiles of all leads from what `step` or `forward` gave at the same ticks.

        Args:
            top: ``[..., D]``.
            inputs: the same features that were stepped, unmasked, ``[..., F]``.
            ahead: seasonal look-ahead as the encoder gives it, not clipped, ``[..., H]``.
            future: what is known ahead, likewise, ``[..., K·H]``; ``None`` where ``hp.future_inputs`` is 0.

        Returns:
            ``[..., H, Q]`` in units of ``(y - x_t) / v``, rising along the last axis.
        """
        answer: Tensor = self.head(self.dropout(top), self._shown(inputs), ahead, future)
        return answer

    def _shown(self, features: Tensor) -> Tensor:
        """Features without those it is not to see."""
        return features if self._sees_all else features * self.feature_mask
