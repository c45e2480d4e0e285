"""From collected forecasts to the scores of every stream, every lead, and all of them together."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from forecaster.backtest.collect import StreamForecasts
from forecaster.evaluation.calibration import local_deviation, pit_histogram, rolling_coverage
from forecaster.evaluation.fans import Fans
from forecaster.evaluation.naive import is_tied, last_value, seasonal_value, targets
from forecaster.evaluation.scores import Array, mae, naive_scale
from forecaster.evaluation.summary import Scores, central_intervals, pool, ratio, summarise
from forecaster.training.promotion import diebold_mariano

ROLLING_TARGETS = 500
"""Targets over which local coverage is taken."""

SETTLED_READINGS = 1_000
"""Readings after which a stream is held to be no worse than its best naive forecast."""

_ROLLING_POINTS = 200  # of a rolling coverage, kept for the picture
_FAN_ORIGINS = 3
_FAN_CONTEXT = 4  # horizons of actual values before the first fan, at most


class ScoringRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a backtest is scored."""

    horizon: int
    quantile_levels: tuple[float, ...]
    warmup: float
    """Beginning of every stream that is not scored: a share of its rows below 1, else rows."""
    season_rows: int
    """Of seasonal naive; 0 has none."""

    def warmup_rows(self, rows: int) -> int:
        """Rows of a stream of this length that are not scored."""
        return int(rows * self.warmup) if self.warmup < 1 else min(int(self.warmup), rows)


class StreamScores(msgspec.Struct, frozen=True, kw_only=True):
    """How the forecasts of one stream did."""

    stream_id: str
    rows: int
    first_scored_row: int
    is_tied: bool
    """Most values are the commonest one or repeat the one before: coverage says little, see the interval score."""
    all: Scores
    leads: tuple[Scores, ...]
    """By lead 1..H."""
    pit: tuple[float, ...]
    """Targets of lead 1 between neighbouring quantiles, as shares."""
    pit_all: tuple[float, ...]
    """The same of all leads."""
    local_deviation: tuple[float, ...]
    """Mean distance of the coverage of 500 successive targets from nominal, mean over leads; by interval."""
    p_naive: float
    """Diebold-Mariano, one-sided: of being no better than the last value in absolute error."""
    p_seasonal: float
    """The same against seasonal naive; ``nan`` without a season."""
    relative_best_naive: float
    """MAE after 1,000 readings over that of the better of both naive forecasts."""
    experts: tuple[float, ...]
    """Mean share of each expert."""
    rolling: tuple[list[float], ...] = ()
    """Coverage of 500 successive targets of lead 1, thinned out; by interval."""
    fans: Fans | None = None


class Pooled(msgspec.Struct, frozen=True, kw_only=True):
    """How all streams did together."""

    all: Scores
    leads: tuple[Scores, ...]
    pit: tuple[float, ...]
    pit_all: tuple[float, ...]
    local_deviation: tuple[float, ...]
    p_naive: float
    """Diebold-Mariano on the mean scaled error of all streams at a moment."""
    p_seasonal: float
    median_mase: float
    coverage_extremes: tuple[tuple[float, str, float, str], ...]
    """By interval: least covered stream that is not tied and its coverage, most covered one."""
    median_relative_best_naive: float
    worst_relative_best_naive: float
    worst_relative_best_naive_stream: str
    tied_streams: tuple[str, ...]


class _Differences:
    """Scaled errors saved against a naive forecast, by moment, over all streams."""

    def __init__(self) -> None:
        self._moments: list[Array] = []
        self._saved: list[Array] = []

    def add(self, moments: Array, saved: Array) -> None:
        self._moments.append(moments)
        self._saved.append(saved)

    def p_value(self, horizon: int) -> float:
        if not self._moments:
            return float("nan")
        _, group = np.unique(np.concatenate(self._moments), return_inverse=True)
        saved = np.concatenate(self._saved)
        if not len(saved):
            return float("nan")
        return diebold_mariano(np.bincount(group, saved) / np.bincount(group), horizon)


class Scorer:
    """Takes streams one by one, and tells at the end how all did.

    Args:
        by_time: streams run side by side in time: what they have in common at a moment counts once in tests.
    """

    def __init__(self, protocol: ScoringRules, *, by_time: bool) -> None:
        self.protocol = protocol
        self.streams: list[StreamScores] = []
        self._by_time = by_time
        self._naive, self._seasonal = _Differences(), _Differences()

    def add(self, stream: StreamForecasts) -> None:
        """Score a stream; one without a single target after the warm-up is left out."""
        p = self.protocol
        rows = len(stream.values)
        first = p.warmup_rows(rows)
        origins = np.arange(first, max(rows - 1, first))
        origins = origins[~np.isnan(stream.quantiles[origins, 0, 0])]
        target = targets(stream.values, p.horizon)[origins]
        if np.isnan(target).all():
            return
        quantiles, levels = stream.quantiles[origins], np.array(p.quantile_levels)
        naive = np.repeat(last_value(stream.values)[origins, None], p.horizon, axis=1)
        seasonal = seasonal_value(stream.values, p.season_rows, p.horizon)[origins] if p.season_rows else None
        warm = stream.values[:first]
        scale = naive_scale(warm[~np.isnan(warm)])
        error = np.abs(target - quantiles[..., len(levels) // 2])

        def test(reference: Array | None, differences: _Differences) -> float:
            if reference is None:
                return float("nan")
            known = ~np.isnan(target).all(axis=1)
            saved = np.nanmean((np.abs(target - reference) - error)[known], axis=1)
            moments = stream.times[origins] if self._by_time else (origins - first).astype(np.float64)
            if scale > 0:
                differences.add(moments[known], saved / scale)
            return diebold_mariano(saved, p.horizon)

        def score(part: slice | int) -> Scores:
            return summarise(
                target[:, part],
                quantiles[:, part],
                levels=levels,
                naive=naive[:, part],
                seasonal=None if seasonal is None else seasonal[:, part],
                scale=scale,
            )

        inside = _inside(target, quantiles, p.quantile_levels)
        self.streams.append(
            StreamScores(
                stream_id=stream.stream_id,
                rows=rows,
                first_scored_row=first,
                is_tied=is_tied(stream.values),
                all=score(slice(None)),
                leads=tuple(score(lead) for lead in range(p.horizon)),
                pit=_shares(pit_histogram(target[:, 0], quantiles[:, 0])),
                pit_all=_shares(pit_histogram(target.ravel(), quantiles.reshape(-1, len(levels)))),
                local_deviation=tuple(_mean_deviation(held, nominal) for held, nominal in inside),
                p_naive=test(naive, self._naive),
                p_seasonal=test(seasonal, self._seasonal),
                relative_best_naive=_relative_best_naive(target, error, naive, seasonal, origins),
                experts=tuple(stream.weights[origins].mean(axis=0, dtype=np.float64).tolist()),
                rolling=tuple(_thinned(rolling_coverage(held[0], ROLLING_TARGETS)) for held, _ in inside),
                fans=_fans(stream, origins, p.horizon),
            )
        )

    def pooled(self) -> Pooled:
        """All streams together."""
        p, streams = self.protocol, self.streams
        fair = [stream for stream in streams if not stream.is_tied]
        relative = [(s.relative_best_naive, s.stream_id) for s in streams if not np.isnan(s.relative_best_naive)]
        worst = max(relative, default=(float("nan"), ""))
        counts = [stream.all.targets for stream in streams]
        return Pooled(
            all=pool([stream.all for stream in streams]),
            leads=tuple(pool([stream.leads[lead] for stream in streams]) for lead in range(p.horizon)),
            pit=_averaged([stream.pit for stream in streams], counts),
            pit_all=_averaged([stream.pit_all for stream in streams], counts),
            local_deviation=_averaged([stream.local_deviation for stream in fair], [1] * len(fair)),
            p_naive=self._naive.p_value(p.horizon),
            p_seasonal=self._seasonal.p_value(p.horizon),
            median_mase=_median(stream.all.mase for stream in streams),
            coverage_extremes=tuple(
                _extremes([(s.all.intervals[k].coverage, s.stream_id) for s in fair])
                for k in range(len(central_intervals(p.quantile_levels)))
            ),
            median_relative_best_naive=_median(value for value, _ in relative),
            worst_relative_best_naive=worst[0],
            worst_relative_best_naive_stream=worst[1],
            tied_streams=tuple(stream.stream_id for stream in streams if stream.is_tied),
        )


def _inside(target: Array, quantiles: Array, levels: tuple[float, ...]) -> list[tuple[list[Array], float]]:
    """Per central interval: for each lead, whether its targets lay inside, without missing ones; and the nominal."""
    found = []
    for low, high, nominal in central_intervals(levels):
        held = ((target >= quantiles[..., low]) & (target <= quantiles[..., high])).astype(np.float64)
        found.append(([held[~np.isnan(target[:, h]), h] for h in range(target.shape[1])], nominal))
    return found


def _mean_deviation(by_lead: list[Array], nominal: float) -> float:
    found = [local_deviation(held, nominal, ROLLING_TARGETS) for held in by_lead]
    known = [value for value in found if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _relative_best_naive(target: Array, error: Array, naive: Array, seasonal: Array | None, origins: Array) -> float:
    late = origins >= SETTLED_READINGS
    if np.isnan(target[late]).all():
        return float("nan")
    rivals = [naive] if seasonal is None else [naive, seasonal]
    best = min(mae(target[late], rival[late]) for rival in rivals)
    return ratio(mae(error[late], np.zeros_like(error[late])), best)


def _fans(stream: StreamForecasts, origins: Array, horizon: int) -> Fans | None:
    """The last forecasts whose targets have all come, one after the other."""
    whole = origins[origins + horizon < len(stream.values)]
    if not len(whole):
        return None
    chosen = np.sort(whole[::-1][: 1 + (_FAN_ORIGINS - 1) * horizon : horizon])
    begin = max(int(chosen[0]) - _FAN_CONTEXT * horizon, 0)
    end = int(chosen[-1]) + horizon + 1
    return Fans(
        times=stream.times[begin:end].tolist(),
        values=stream.values[begin:end].tolist(),
        origins=(chosen - begin).tolist(),
        quantiles=stream.quantiles[chosen].tolist(),
    )


def _thinned(values: Array) -> list[float]:
    if not len(values):
        return []
    places = np.linspace(0, len(values) - 1, min(_ROLLING_POINTS, len(values))).astype(np.int64)
    return [round(float(value), 4) for value in values[places]]


def _shares(counts: Array) -> tuple[float, ...]:
    return tuple((counts / max(counts.sum(), 1e-300)).tolist())


def _averaged(parts: list[tuple[float, ...]], counts: list[int]) -> tuple[float, ...]:
    """Weighted mean of rows, column by column, without ``nan``."""
    if not parts:
        return ()
    rows, weights = np.array(parts, np.float64), np.array(counts, np.float64)[:, None]
    known = ~np.isnan(rows)
    total = np.where(known, weights, 0.0).sum(axis=0)
    sums = np.where(known, rows * weights, 0.0).sum(axis=0)
    return tuple(np.where(total > 0, sums / np.maximum(total, 1e-300), np.nan).tolist())


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.median(known)) if known else float("nan")


def _extremes(found: list[tuple[float, str]]) -> tuple[float, str, float, str]:
    known = [pair for pair in found if not np.isnan(pair[0])]
    if not known:
        return float("nan"), "", float("nan"), ""
    return *min(known), *max(known)
