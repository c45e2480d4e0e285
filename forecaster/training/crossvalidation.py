"""What a recipe would have scored: one fit and one score for a fold of the rolling origin."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from forecaster.series.encoder import SeriesEncoder
from forecaster.training.evaluate import Baselines, Stretch
from forecaster.training.judging import StoppingScore
from forecaster.training.loop import fit
from forecaster.training.material import Material
from forecaster.training.preparation import Prepared, check_worth_training, origins_among
from forecaster.training.recipe import Recipe
from forecaster.training.splits import Fold
from forecaster.training.starting import NetworkShape, new_network

_STOPPING_SHARE = 0.15


def fold_loss(
    prepared: Prepared,
    fold: Fold,
    *,
    encoder: SeriesEncoder,
    quantile_levels: tuple[float, ...],
    shape: NetworkShape,
    recipe: Recipe,
    steps: int,
    seed: int,
) -> float:
    """Mean pinball of a new network on a fold's scored stretch, in units of each stream's scale, every stream alike.

    Early stopping looks at the newest part of the fold's own training rows, with a gap of the horizon: what is scored
    decides nothing.

    Raises:
        TrainingFailed: the fold's training part teaches nothing, or the fit diverged.
    """
    data, horizon = prepared.data, encoder.horizon
    counts = np.array([fold.train[start:stop].sum() for start, stop in pairwise(data.starts)], np.int64)
    end = data.starts[:-1] + counts  # the training part is the oldest of each stream
    first = end - np.round(_STOPPING_SHARE * counts).astype(np.int64)
    row = np.arange(len(data.values))
    train = fold.train & (row < np.repeat(first, np.diff(data.starts)))
    gap_end = np.minimum(first + horizon, end)
    stopping = Stretch(gap_end, np.maximum(end - horizon, gap_end))

    material = Material(prepared, encoder, train, recipe, seed=seed)
    check_worth_training(data, train, drawable_rows=material.dataset.rows, horizon=horizon)
    baselines = Baselines.learn(data, origins_among(data, train), horizon, quantile_levels)
    network = new_network(shape, encoder, quantile_levels, material.used_features(), naive=baselines.naive, seed=seed)
    run_in = encoder.ring_steps
    validate = StoppingScore(data, stopping, end, quantile_levels, baselines, run_in=run_in)
    fit(network, material.dataset, validate=validate, seed=seed, steps=steps, plan=recipe.fit)
    return StoppingScore(data, fold.scored, fold.ends, quantile_levels, baselines, run_in=run_in)(network)
