"""Challenger, champion, naive and whoever else trained, side by side on the stretch that none of them saw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from forecaster.models.artifact import ModelArtifact
from forecaster.models.network import RecurrentForecaster
from forecaster.series.columns import Float32Array, FloatArray, IntArray
from forecaster.training.encoding import EncodedHistory
from forecaster.training.evaluate import (
    Baselines,
    Stretch,
    forecast_stretch,
    held_back,
    mean_loss,
    pinball_losses,
    stream_weights,
)
from forecaster.training.evidence import Evidence, gather_evidence
from forecaster.training.promotion import Decision, decide
from forecaster.training.splits import before

_JUDGED_ORIGINS = 40_000
_STOPPING_ORIGINS = 6_000


class LeadTable(msgspec.Struct, frozen=True, kw_only=True):
    """Mean pinball per lead 1..H on the judged stretch, in units of each stream's scale, every stream alike."""

    challenger: tuple[float, ...]
    champion: tuple[float, ...] | None
    naive: tuple[float, ...]
    seasonal: tuple[float, ...] | None
    """``None`` where there is no season."""
    companions: dict[str, tuple[float, ...]] = {}
    """Others that were trained along the way: the teacher of a student, and the plain model beside it."""


class StoppingScore:
    """Loss of a network on a stretch, every stream alike: what early stopping and folds look at.

    Args:
        data: encoded history.
        stretch: origins.
        end: row of each stream before which every target lies, ``[N]``.
        levels: ``[Q]``.
        baselines: naive forecasts, by which streams are weighed.
        run_in: ticks stepped before the first origin.
    """

    def __init__(
        self,
        data: EncodedHistory,
        stretch: Stretch,
        end: IntArray,
        levels: tuple[float, ...],
        baselines: Baselines,
        *,
        run_in: int,
    ) -> None:
        self._data = before(data, end)
        self._stretch, self._levels, self._run_in = stretch, levels, run_in
        total = int((stretch.last - stretch.first).sum())
        self._stride = max(1, -(-total // _STOPPING_ORIGINS))
        rows = self._stretch.origins(self._data, self._stride)
        naive = pinball_losses(self._data, rows, baselines.forecast_naive(rows), levels)
        self._weights = stream_weights(self._data, rows, naive)[:, None]
        self._naive = naive
        self.naive = mean_loss(naive * self._weights)
        """The same score of the last value."""

    def __call__(self, network: RecurrentForecaster) -> float:
        rows, quantiles = forecast_stretch(network, self._data, self._stretch, stride=self._stride, run_in=self._run_in)
        losses = pinball_losses(self._data, rows, quantiles, self._levels)
        return mean_loss(held_back(self._data, rows, losses, self._naive) * self._weights)


def judge(
    data: EncodedHistory,
    judged: Stretch,
    network: RecurrentForecaster,
    parent: ModelArtifact | None,
    parent_data: EncodedHistory,
    baselines: Baselines,
    *,
    step_seconds: float,
    run_in: int,
    companions: Mapping[str, Sequence[RecurrentForecaster]] | None = None,
    after_drift: bool = False,
) -> tuple[Decision, LeadTable, Evidence]:
    """Score everybody on one stretch and decide about the challenger.

    Args:
        data: encoded history.
        judged: the stretch.
        network: the challenger.
        parent: the champion, ``None`` where there is none.
        parent_data: the same history, encoded with the champion's season.
        baselines: the naive forecasts.
        step_seconds: usual distance of readings, by which origins of all streams are put into moments.
        run_in: ticks stepped before the first origin.
        companions: networks by name; of several the quantiles are averaged.
        after_drift: it is enough that the challenger is not worse than the champion.
    """
    levels, horizon = network.hp.quantile_levels, network.hp.horizon
    _, stride = judged_rows(data, judged)
    rows, quantiles = forecast_stretch(network, data, judged, stride=stride, run_in=run_in)
    naive = pinball_losses(data, rows, baselines.forecast_naive(rows), levels)
    evidence = gather_evidence(data, rows, quantiles, pinball_losses(data, rows, quantiles, levels), naive)
    weights = stream_weights(data, rows, naive)[:, None]

    def weighted(made: Float32Array) -> FloatArray:
        return held_back(data, rows, pinball_losses(data, rows, made, levels), naive) * weights

    challenger = weighted(quantiles)
    champion = None
    if parent is not None:
        rows_of_parent, made = forecast_stretch(parent.network(), parent_data, judged, stride=stride, run_in=run_in)
        # Another season means another scale: the champion's answers are put into the challenger's units.
        units = (parent_data.scale[rows_of_parent] / data.scale[rows]).astype(np.float32)
        champion = weighted(made * units[:, None, None])
    seasonal = None if data.ahead is None else weighted(baselines.forecast_seasonal(data, rows))
    weighted_naive = naive * weights

    rivals = (champion, challenger, weighted_naive)
    moments = [None if losses is None else per_moment(losses, data, rows, step_seconds) for losses in rivals]
    assert moments[1] is not None
    assert moments[2] is not None
    decision = decide(moments[0], moments[1], moments[2], horizon=-(-horizon // stride), after_drift=after_drift)
    leads = LeadTable(
        challenger=_per_lead(challenger),
        champion=None if champion is None else _per_lead(champion),
        naive=_per_lead(weighted_naive),
        seasonal=None if seasonal is None else _per_lead(seasonal),
        companions={
            name: _per_lead(weighted(averaged_forecasts(networks, data, judged, stride=stride, run_in=run_in)))
            for name, networks in (companions or {}).items()
        },
    )
    return decision, leads, evidence


def averaged_forecasts(
    networks: Sequence[RecurrentForecaster], data: EncodedHistory, stretch: Stretch, *, stride: int, run_in: int
) -> Float32Array:
    """Mean of each quantile over several networks, ``[K, H, Q]``; order among quantiles is kept.

    Source: Vincent (1912), "The Function of the Vibrissae in the Behavior of the White Rat" (averaging quantiles);
    Lichtendahl, Grushka-Cockayne & Winkler (2013), "Is It Better to Average Probabilities or Quantiles?".
    """
    made = [forecast_stretch(network, data, stretch, stride=stride, run_in=run_in)[1] for network in networks]
    return np.asarray(np.mean(made, axis=0, dtype=np.float32))


def judged_rows(data: EncodedHistory, judged: Stretch) -> tuple[IntArray, int]:
    """Origins at which a stretch is judged, at most 40,000, and every how manieth of each stream they are."""
    stride = max(1, -(-int((judged.last - judged.first).sum()) // _JUDGED_ORIGINS))
    return judged.origins(data, stride), stride


def per_moment(losses: FloatArray, data: EncodedHistory, rows: IntArray, step_seconds: float) -> FloatArray:
    """Mean over streams and leads at each moment, in order of time; moments without a target are left out."""
    moment = np.round(data.times[rows] / max(step_seconds, 1e-9)).astype(np.int64)
    _, group = np.unique(moment, return_inverse=True)
    observed = ~np.isnan(losses)
    sums = np.bincount(group, np.where(observed, losses, 0.0).sum(axis=1))
    counts = np.bincount(group, observed.sum(axis=1))
    return np.asarray(sums[counts > 0] / counts[counts > 0])


def _per_lead(losses: FloatArray) -> tuple[float, ...]:
    return tuple(mean_loss(losses[:, lead]) for lead in range(losses.shape[1]))


def scores_of(decision: Decision, leads: LeadTable) -> dict[str, float]:
    """What a manifest keeps of a judgement: mean losses by name, and the p-value against the champion."""
    scores = {"pinball": decision.challenger_loss, "pinball_naive": decision.naive_loss}
    if decision.champion_loss is not None:
        scores["pinball_champion"] = decision.champion_loss
    if decision.p_value is not None:
        scores["p_value"] = decision.p_value
    if leads.seasonal is not None:
        scores["pinball_seasonal"] = float(np.mean(leads.seasonal))
    scores |= {f"pinball_{name}": float(np.mean(losses)) for name, losses in leads.companions.items()}
    return {name: score for name, score in scores.items() if math.isfinite(score)}
