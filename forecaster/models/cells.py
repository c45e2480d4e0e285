"""Recurrent stacks that step one tick for a whole wave, and read a whole window with the same parameters.

Hidden state is slot-major, ``[B, L, W]``: one stream is one contiguous row. W is D, or 2D for an LSTM, which keeps
h in the first half of the last axis and c in the second.

Rows do not influence each other, and do so bit for bit when the wave has a multiple of 16 rows: below that the
matrix product takes another path, whose sums round differently. It takes other paths too for rows at some places of a
wave where it has fewer than 12 outputs: `linear` fills these up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WAVE_TILE = 16
"""Waves padded to a multiple of this many rows give each row the same bits whatever else is in them."""


_FEWEST_OUTPUTS = 16


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, each row of whose result has the same bits wherever it stands in a wave."""
    outputs = weight.shape[0]
    missing = _FEWEST_OUTPUTS - outputs
    if missing <= 0:
        return F.linear(x, weight, bias)
    weight = F.pad(weight, (0, 0, 0, missing))
    return F.linear(x, weight, None if bias is None else F.pad(bias, (0, missing)))[..., :outputs]


class RecurrentStack(nn.Module):
    """What the three stacks share: one `torch.nn` recurrent module, whose parameters `step` uses too."""

    states_per_layer = 1

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__()
        self.body = body

    @property
    def hidden_shape(self) -> tuple[int, int]:
        """(L, W): what one stream carries from tick to tick."""
        return self.body.num_layers, self.body.hidden_size * self.states_per_layer

    def initial_hidden(self, streams: int) -> Tensor:
        """Zeros ``[B, L, W]``: nothing seen yet."""
        weight = self.body.weight_ih_l0
        assert isinstance(weight, Tensor)
        return torch.zeros(streams, *self.hidden_shape, dtype=weight.dtype, device=weight.device)

    def step(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One tick of every stream of a wave.

        Args:
            x: inputs, ``[B, F]``.
            hidden: what the streams carry, ``[B, L, W]``; it is read, never written.

        Returns:
            Output of the top layer ``[B, D]`` and the new hidden state ``[B, L, W]``. No dropout is applied.
        """
        layers = []
        below = x
        for layer, weights in enumerate(self.body.all_weights):
            carried = self._advance(below, hidden[:, layer], weights)
            layers.append(carried)
            below = self._output(carried)
        return below, (layers[0].unsqueeze(1) if len(layers) == 1 else torch.stack(layers, dim=1))

    def top(self, hidden: Tensor) -> Tensor:
        """Output of the top layer ``[B, D]`` after the tick that left this hidden state, ``[B, L, W]``."""
        return self._output(hidden[:, -1])

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A whole window of every stream.

        Args:
            x: inputs, ``[B, T, F]``.
            hidden: state before the window, ``[B, L, W]``; zeros when ``None``.

        Returns:
            Outputs of the top layer ``[B, T, D]`` and the hidden state after the window ``[B, L, W]``. Dropout acts
            between layers in training mode.
        """
        before = self.initial_hidden(x.shape[0]) if hidden is None else hidden
        tops, after = self.body(x, self._unpack(before.transpose(0, 1)))
        return tops, self._pack(after).transpose(0, 1)

    def _advance(self, below: Tensor, carried: Tensor, weights: list[nn.Parameter]) -> Tensor:
        """One layer, one tick: its input ``[B, F]`` and what was carried ``[B, W]`` -> ``[B, W]``.

        ``weights`` of input and carried state, ``[G·D, F]`` and ``[G·D, D]``, and the biases of both.
        """
        raise NotImplementedError

    def _output(self, carried: Tensor) -> Tensor:
        return carried

    def _unpack(self, hidden: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return hidden.contiguous()

    def _pack(self, hidden: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        assert isinstance(hidden, Tensor)
        return hidden


class RNNStack(RecurrentStack):
    """Elman layers: ``h = activation(W x + b + U h + c)``."""

    def __init__(self, features: int, hidden: int, layers: int, *, activation: str, dropout: float) -> None:
        inner_dropout = dropout if layers > 1 else 0.0
        super().__init__(
            nn.RNN(features, hidden, layers, nonlinearity=activation, dropout=inner_dropout, batch_first=True)
        )
        self._activate = torch.tanh_ if activation == "tanh" else torch.relu_

    def _advance(self, below: Tensor, carried: Tensor, weights: list[nn.Parameter]) -> Tensor:
        w_ih, w_hh, b_ih, b_hh = weights
        # Not `torch.rnn_tanh_cell`: its products have as few outputs as the layer is wide.
        return self._activate(linear(carried, w_hh, b_hh) + linear(below, w_ih, b_ih))


class GRUStack(RecurrentStack):
    """Gated recurrent units in torch's form: the reset gate acts after the recurrent product."""

    def __init__(self, features: int, hidden: int, layers: int, *, dropout: float) -> None:
        super().__init__(nn.GRU(features, hidden, layers, dropout=dropout if layers > 1 else 0.0, batch_first=True))

    def _advance(self, below: Tensor, carried: Tensor, weights: list[nn.Parameter]) -> Tensor:
        return torch.gru_cell(below, carried, *weights)


class LSTMStack(RecurrentStack):
    """Long short-term memory; a row of hidden state is h beside c."""

    states_per_layer = 2

    def __init__(self, features: int, hidden: int, layers: int, *, dropout: float) -> None:
        super().__init__(nn.LSTM(features, hidden, layers, dropout=dropout if layers > 1 else 0.0, batch_first=True))

    def _advance(self, below: Tensor, carried: Tensor, weights: list[nn.Parameter]) -> Tensor:
        top, memory = torch.lstm_cell(below, carried.chunk(2, dim=1), *weights)
        return torch.cat((top, memory), dim=1)  # [B, 2D]

    def _output(self, carried: Tensor) -> Tensor:
        return carried[:, : carried.shape[1] // 2]

    def _unpack(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        top, memory = hidden.chunk(2, dim=-1)  # [L, B, D] each
        return top.contiguous(), memory.contiguous()

    def _pack(self, hidden: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return torch.cat(tuple(hidden), dim=-1)  # [L, B, 2D]


def build_stack(
    cell: str, features: int, hidden: int, layers: int, *, activation: str = "tanh", dropout: float = 0.0
) -> RecurrentStack:
    """The stack of the cell named: ``rnn``, ``lstm`` or ``gru``."""
    if cell == "rnn":
        return RNNStack(features, hidden, layers, activation=activation, dropout=dropout)
    if cell == "lstm":
        return LSTMStack(features, hidden, layers, dropout=dropout)
    return GRUStack(features, hidden, layers, dropout=dropout)
