"""The network a training begins with: new, the champion's, or the body of a named artifact."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import torch

from forecaster.errors import ArtifactMismatch, TrainingFailed
from forecaster.experts.linear import lag_inputs
from forecaster.models.artifact import ModelArtifact
from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.network import RecurrentForecaster
from forecaster.series.columns import BoolArray, Float32Array
from forecaster.series.encoder import SeriesEncoder
from forecaster.training.encoding import EncodedHistory

WARM_SHARE = 0.3
"""A training that starts from the champion takes this part of the steps of a cold one."""

WARM_RATE = 0.5
"""One that starts from known weights takes this part of the learning rate of a cold one."""

_DAY = 86_400.0
_CALENDAR_SPAN = {"day_sin": 2 * _DAY, "day_cos": 2 * _DAY, "week_sin": 21 * _DAY, "week_cos": 21 * _DAY}


class NetworkShape(msgspec.Struct, frozen=True, kw_only=True):
    """What a user chooses of a network; the rest of its hyperparameters follows from the data."""

    cell: str = "gru"
    activation: str = "tanh"
    layers: int = 1
    hidden: int = 64
    dropout: float = 0.1


class Start(NamedTuple):
    """Where a fit begins."""

    network: RecurrentForecaster
    steps_share: float
    """Of the steps of a cold fit."""
    rate_share: float
    """Of its learning rate."""
    parent: str
    """Version of the model whose weights it starts from; empty for new ones."""
    keeps_body: bool
    """Whether the body comes from elsewhere and may be held for the first steps."""


def servable(
    champion: ModelArtifact | None, encoder: SeriesEncoder, quantile_levels: tuple[float, ...], shape: NetworkShape
) -> ModelArtifact | None:
    """The champion if it could answer under the present arguments, else ``None``."""
    if champion is None:
        return None
    hp = champion.manifest.hyperparameters
    has = (hp.feature_names, hp.future_inputs, hp.horizon, hp.quantile_levels)
    needs = (encoder.feature_names, encoder.future_inputs, encoder.horizon, quantile_levels)
    has_state, needs_state = ((s.layers, _width(s.cell, s.hidden)) for s in (hp, shape))
    return champion if (has, has_state) == (needs, needs_state) else None


def new_network(
    shape: NetworkShape,
    encoder: SeriesEncoder,
    quantile_levels: tuple[float, ...],
    used: tuple[str, ...],
    *,
    naive: Float32Array,
    seed: int,
) -> RecurrentForecaster:
    """A network with new weights that answers about as the naive forecast does.

    Args:
        shape: of the network.
        encoder: whose features and horizon it has.
        quantile_levels: ``[Q]``.
        used: features it is shown.
        naive: quantiles of the naive forecast's residuals, ``[H, Q]``.
        seed: of the weights.

    Raises:
        TrainingFailed: the shape is impossible.
    """
    try:
        hp = HyperParameters(
            **msgspec.structs.asdict(shape),
            horizon=encoder.horizon,
            quantile_levels=quantile_levels,
            feature_names=encoder.feature_names,
            used_features=used,
            future_inputs=encoder.future_inputs,
            linear_inputs=lag_inputs(encoder).width,
        )
    except ValueError as error:
        raise TrainingFailed(
            f"No network of this shape can be made: {error}.", hint="Check the model settings."
        ) from error
    network = RecurrentForecaster.seeded(hp, seed)
    network.head.start_from(torch.from_numpy(np.ascontiguousarray(naive)))
    return network


def starting_point(new: RecurrentForecaster, champion: ModelArtifact | None, source: ModelArtifact | None) -> Start:
    """Begin with the champion, else with a named artifact, else with the new network.

    Args:
        new: network of the shape asked for.
        champion: one that can serve under the present arguments.
        source: artifact to start from where there is no such champion.

    Raises:
        TrainingFailed: the body of the source has another shape.
    """
    if champion is not None:
        known = RecurrentForecaster.seeded(new.hp, 0)
        try:
            # Its linear forecast is solved for anew, and a champion of an earlier program has none.
            unfitted = {name: value for name, value in known.state_dict().items() if name.startswith("linear.")}
            weights = champion.network().state_dict()
            learnt = {name: value for name, value in weights.items() if not name.startswith("linear.")}
            known.load_state_dict(learnt | unfitted)
            return Start(known, WARM_SHARE, WARM_RATE, champion.version, False)
        except (RuntimeError, ArtifactMismatch):  # of another shape than is asked for now: a cold start
            pass
    if source is not None:
        _transfer(source, new)
        return Start(new, 1.0, WARM_RATE, source.version, True)
    return Start(new, 1.0, 1.0, "", False)


def varying_features(data: EncodedHistory, train: BoolArray, names: tuple[str, ...]) -> tuple[str, ...]:
    """Features that vary in the training part, and calendar ones only where the span covers their cycle.

    On an input it has hardly seen change a network can only guess.
    """
    rows = np.flatnonzero(train)
    seen, times = data.features[rows], data.times[rows]
    span = float(times.max() - times.min())
    varies = (np.abs(seen - np.median(seen, axis=0)) > 1e-3).mean(axis=0) >= 1e-3
    used = tuple(n for n, varied in zip(names, varies, strict=True) if varied and span >= _CALENDAR_SPAN.get(n, 0.0))
    return used or names[:1]


def _transfer(source: ModelArtifact, target: RecurrentForecaster) -> None:
    """Copy the body, inputs matched by name, and the head too where it answers the same question.

    Source: Yosinski, Clune, Bengio & Lipson (2014), "How transferable are features in deep neural networks?",
    arXiv:1411.1792.
    """
    theirs, ours = source.manifest.hyperparameters, target.hp
    body_of = [(hp.cell, hp.activation, hp.layers, hp.hidden) for hp in (theirs, ours)]
    if body_of[0] != body_of[1]:
        raise TrainingFailed(
            f"Model {source.version} has a body of (cell, activation, layers, hidden) {body_of[0]}, the settings ask "
            f"for {body_of[1]}.",
            hint="Set cell, activation, layers and hidden under model to the source's, or train without a source.",
        )
    weights = source.network().state_dict()
    mine = target.state_dict()
    shared = [name for name in ours.feature_names if name in theirs.used_features]
    columns = [ours.feature_names.index(name) for name in shared]
    from_columns = [theirs.feature_names.index(name) for name in shared]
    for name in [name for name in mine if name.startswith("body.")]:
        if name.endswith("weight_ih_l0"):
            mine[name][:, columns] = weights[name][:, from_columns]
        else:
            mine[name] = weights[name]
    questions = [
        (hp.horizon, hp.quantile_levels, hp.feature_names, hp.future_inputs, hp.head_width) for hp in (theirs, ours)
    ]
    if questions[0] == questions[1]:
        mine |= {name: value for name, value in weights.items() if name.startswith("head.")}
    target.load_state_dict(mine)


def _width(cell: str, hidden: int) -> int:
    """W of the hidden state, which serving has reserved for every stream."""
    return 2 * hidden if cell == "lstm" else hidden
