"""The champion's network with a linear forecast solved for anew: what a training is worth whose network is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from forecaster.models.artifact import ModelArtifact
from forecaster.models.linear import LinearForecast
from forecaster.models.network import RecurrentForecaster
from forecaster.series.columns import Float32Array, FloatArray, IntArray
from forecaster.series.lags import LagInputs
from forecaster.training.encoding import EncodedHistory
from forecaster.training.evaluate import Stretch, held_back, pinball_losses, stream_weights
from forecaster.training.judging import judged_rows, per_moment
from forecaster.training.linear import fit_linear, linear_points
from forecaster.training.promotion import Decision, decide
from forecaster.training.splits import before, unseen_since

LINEAR_UNTIL = "linear_until"
"""Name, among a manifest's numbers of the training, of the event time up to which its linear forecast has seen all."""


class Renewal(NamedTuple):
    """A champion with a new linear forecast, and what that was judged by."""

    network: RecurrentForecaster
    decision: Decision


def renew_linear(
    champion: ModelArtifact,
    refused: Decision,
    solved: LinearForecast,
    data: EncodedHistory,
    judged: Stretch,
    inputs: LagInputs,
    season_steps: IntArray,
    names: Sequence[str],
    *,
    left_out: Sequence[int] = (),
    step_seconds: float,
) -> Renewal | None:
    """Put a new linear forecast beside the champion's network, if it earns it.

    Judged by its like: one that is solved for without the judged stretch, against the champion's on the part of it
    that this has not seen either. It is the same regression on more readings, so being better is enough, without the
    network's test for chance.

    Args:
        champion: the model in service.
        refused: what was decided about the challenger's network.
        solved: on all of the history.
        data: encoded history, under the champion's season.
        judged: the stretch.
        inputs, season_steps, names, left_out: as in `fit_linear`.
        step_seconds: usual distance of readings.

    Returns:
        ``None`` where the champion's linear forecast is as good, or too little is there to tell.
    """
    stretch = unseen_since(data, judged, champion.manifest.training.get(LINEAR_UNTIL, champion.manifest.created))
    rows, stride = judged_rows(data, stretch)
    fresh = fit_linear(before(data, stretch.first), inputs, season_steps, names, left_out=left_out)
    if fresh is None or not len(rows):
        return None
    network = champion.network()
    naive = _errors(data, rows, np.zeros((len(rows), inputs.horizon), np.float32))
    weights = stream_weights(data, rows, naive)[:, None]

    def per_moment_of(linear: LinearForecast | None) -> FloatArray:
        usable = linear is not None and linear.weight.shape == solved.weight.shape
        made = linear_points(linear, data, inputs, rows, season_steps, names) if linear and usable else None
        losses = naive if made is None else held_back(data, rows, _errors(data, rows, made), naive)
        return per_moment(losses * weights, data, rows, step_seconds)

    tested = decide(
        per_moment_of(network.linear),
        per_moment_of(fresh.linear),
        per_moment(naive * weights, data, rows, step_seconds),
        horizon=-(-inputs.horizon // stride),
        level=0.5,
    )
    if not tested.is_promoted:
        return None
    network.take_linear(solved)
    reason = f"The network stays: {refused.reason} Its linear forecast is new: {tested.reason}"
    return Renewal(network, msgspec.structs.replace(tested, reason=reason))


def linear_scores(decision: Decision) -> dict[str, float]:
    """What a manifest keeps of the judgement of a linear forecast: mean |error|, scaled and weighted, by name."""
    losses = {"": decision.challenger_loss, "_champion": decision.champion_loss, "_naive": decision.naive_loss}
    return {f"linear_error{whose}": loss for whose, loss in losses.items() if loss is not None}


def _errors(data: EncodedHistory, rows: IntArray, points: Float32Array) -> FloatArray:
    """Twice the pinball of points at the median: their |error|, ``[K, H]``; ``nan`` where nothing was observed."""
    return 2.0 * pinball_losses(data, rows, points[..., None], (0.5,))
