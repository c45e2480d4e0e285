"""The numbers that fix the shape of a network; saved with its weights."""

from __future__ import annotations

from typing import Literal

import msgspec


class HyperParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Everything needed to build a `RecurrentForecaster` that a set of weights fits.

    Raises:
        ValueError: a number is out of range, the quantile levels are not rising and symmetric around one half, or
            ``used_features`` names a feature that is not among ``feature_names``.
    """

    cell: Literal["rnn", "lstm", "gru"] = "gru"
    activation: Literal["tanh", "relu"] = "tanh"
    """Of the ``rnn`` cell; the others ignore it."""
    layers: int = 1
    hidden: int = 64
    """Width D of a layer."""
    head_width: int = 128
    dropout: float = 0.1
    """Between layers and before the head, in training only."""
    horizon: int = 12
    """Leads H that one call of the head emits."""
    quantile_levels: tuple[float, ...] = (0.1, 0.5, 0.9)
    feature_names: tuple[str, ...]
    """All F inputs in the order the series encoder makes them."""
    used_features: tuple[str, ...]
    """Those that reach the network; the others are held at zero, so that it never extrapolates on them."""
    future_inputs: int = 0
    """Numbers known ahead that the head is shown at every origin, K·H: each input's at every lead; 0 has none."""
    linear_inputs: int = 0
    """Inputs of the linear forecast that is shipped beside the network (`LagInputs.width`); 0 has none."""
    linear_streams: int = 0
    """Streams for which it has weights of their own."""

    def __post_init__(self) -> None:
        for name, value, low in (
            ("layers", self.layers, 1),
            ("hidden", self.hidden, 1),
            ("head_width", self.head_width, 1),
            ("horizon", self.horizon, 1),
        ):
            if value < low:
                raise ValueError(f"{name} is {value}, expected at least {low}")
        for name, value in (("linear_inputs", self.linear_inputs), ("linear_streams", self.linear_streams)):
            if value < 0:
                raise ValueError(f"{name} is {value}, expected 0 or more")
        if self.future_inputs < 0 or self.future_inputs % self.horizon:
            raise ValueError(f"future_inputs is {self.future_inputs}, expected a multiple of horizon {self.horizon}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}, expected 0 or more and below 1")
        if self.cell not in ("rnn", "lstm", "gru") or self.activation not in ("tanh", "relu"):
            raise ValueError(
                f"cell {self.cell!r} with activation {self.activation!r} is not rnn, lstm or gru, tanh or relu"
            )
        levels = self.quantile_levels
        if 0.5 not in levels or list(levels) != sorted(set(levels)) or levels[0] <= 0.0 or levels[-1] >= 1.0:
            raise ValueError(f"quantile_levels are {levels}, expected rising numbers inside (0, 1) with 0.5 among them")
        if any(abs(low + high - 1.0) > 1e-9 for low, high in zip(levels, reversed(levels), strict=True)):
            raise ValueError(f"quantile_levels are {levels}, expected symmetric around 0.5, as 0.1 and 0.9 are")
        if not self.feature_names or len(set(self.feature_names)) != len(self.feature_names):
            raise ValueError(f"feature_names are {self.feature_names}, expected at least one and none twice")
        strangers = [name for name in self.used_features if name not in self.feature_names]
        if strangers or not self.used_features:
            raise ValueError(f"used_features holds {strangers or 'nothing'}, expected some of {self.feature_names}")

    @property
    def median_index(self) -> int:
        """Position of level 0.5 among the quantile levels."""
        return len(self.quantile_levels) // 2
