"""Which covariates a network is shown: those that tell most of what comes, by the training folds alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from forecaster.series.columns import BoolArray, Float32Array, FloatArray, IntArray
from forecaster.training.encoding import EncodedHistory

_MOST_ROWS, _LEAST_ROWS = 5_000, 10
_PREFIX = "covariate_"


class CovariateChoice(msgspec.Struct, frozen=True, kw_only=True):
    """How covariates are chosen; the default keeps them all."""

    keep: int = 0
    """At most so many; 0 keeps all."""
    score: Literal["f_regression", "mutual_information"] = "f_regression"
    lags: tuple[int, ...] = (0, 1, 2, 4)
    """Ticks back at which a covariate is looked at."""
    folds: int = 3
    """Training stretches, each longer than the one before, over which scores are averaged."""


def choose_covariates(
    data: EncodedHistory,
    train: BoolArray,
    names: Sequence[str],
    choice: CovariateChoice,
    *,
    leads: Sequence[int],
    seed: int = 0,
) -> tuple[str, ...]:
    """Names of the features to show: all that are no covariates, and the best covariates, in their order.

    A covariate's score is its best one over lags and leads, each as a share of the best of all covariates at that lead,
    averaged over the folds.

    Args:
        data: encoded history.
        train: rows of the training part, ``[M]``; nothing else is looked at.
        names: of the features, in their order.
        choice: how many, and by what.
        leads: steps ahead whose targets are to be told.
        seed: of mutual information, which adds noise to break ties.

    Source: scikit-learn, `SelectKBest`; Kraskov, Stögbauer & Grassberger (2004), "Estimating Mutual Information".
    """
    covariates = [column for column, name in enumerate(names) if name.startswith(_PREFIX)]
    if not choice.keep or len(covariates) <= choice.keep:
        return tuple(names)
    row = np.flatnonzero(train & data.warm)
    stream = np.searchsorted(data.starts, row, side="right") - 1
    counts = np.bincount(stream, minlength=len(data.starts) - 1)
    rank = np.arange(len(row)) - (np.cumsum(counts) - counts)[stream]
    place = (rank + 1) / counts[stream]  # how far into its stream's training part a row lies
    totals = np.zeros(len(covariates))
    for fold in range(1, choice.folds + 1):
        totals += _scores(data, train, row[place <= fold / choice.folds], covariates, choice, leads, seed)
    best = np.sort(np.argsort(-totals, kind="stable")[: choice.keep])
    kept = {covariates[k] for k in best}
    return tuple(name for column, name in enumerate(names) if column in kept or column not in covariates)


def _scores(
    data: EncodedHistory,
    train: BoolArray,
    rows: IntArray,
    covariates: Sequence[int],
    choice: CovariateChoice,
    leads: Sequence[int],
    seed: int,
) -> FloatArray:
    """Best score of each covariate on these rows, as a share of the best covariate's, ``[C]``."""
    stream_start = data.starts[np.searchsorted(data.starts, rows, side="right") - 1]
    rows = rows[rows - max(choice.lags) >= stream_start]
    best = np.zeros(len(covariates))
    target, observed = data.targets(rows, max(leads))
    lagged = np.concatenate([data.features[rows - lag][:, covariates] for lag in choice.lags], axis=1)  # [n, lags·C]
    for lead in leads:
        usable = np.flatnonzero(observed[:, lead - 1])
        usable = usable[train[rows[usable] + lead]]  # a target outside the training part tells of the future
        usable = usable[:: max(1, len(usable) // _MOST_ROWS)]
        if len(usable) < _LEAST_ROWS:
            continue
        found, varies = np.zeros(lagged.shape[1]), lagged[usable].std(axis=0) > 0
        if not varies.any() or target[usable, lead - 1].std() == 0:
            continue
        found[varies] = _score_columns(lagged[usable][:, varies], target[usable, lead - 1], choice.score, seed)
        by_covariate = np.nan_to_num(found).reshape(len(choice.lags), len(covariates)).max(axis=0)
        if by_covariate.max() > 0:
            best = np.maximum(best, by_covariate / by_covariate.max())
    return best


def _score_columns(columns: Float32Array, target: Float32Array, score: str, seed: int) -> FloatArray:
    # Imported here: it takes seconds, and only a training that chooses among covariates needs it.
    from sklearn.feature_selection import SelectKBest, f_regression, mutual_info_regression

    def mutual_information(x: Float32Array, y: Float32Array) -> FloatArray:
        return np.asarray(mutual_info_regression(x, y, random_state=seed))

    scorer = SelectKBest(f_regression if score == "f_regression" else mutual_information, k="all")
    return np.asarray(scorer.fit(columns.astype(np.float64), target.astype(np.float64)).scores_)
