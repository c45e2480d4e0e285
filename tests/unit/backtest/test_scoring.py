"""Scores of a backtest against plain loops over rows and leads."""

from __future__ import annotations

import math

import numpy as np
import pytest
from backtests import HOUR, START

from forecaster.backtest.collect import StreamForecasts
from forecaster.backtest.scoring import Scorer, ScoringRules

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def make_stream(rows: int = 60, *, seed: int = 0, stream_id: str = "a") -> StreamForecasts:
    """A walk with missing values, and forecasts around its last value."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.standard_normal(rows).cumsum(), 1)
    values[rng.random(rows) < 0.1] = np.nan
    center = np.where(np.isnan(values), 0.0, values)[:, None, None] + 0.3 * rng.standard_normal((rows, 3, 1))
    quantiles = center + np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    quantiles[:2] = np.nan
    times = START + HOUR * np.arange(rows)
    return StreamForecasts(
        stream_id,
        times,
        values,
        quantiles,
        np.full((rows, 2), 0.5, np.float32),
        np.zeros(rows, np.int64),
        np.zeros(rows),
    )


def protocol(**overrides) -> ScoringRules:
    given = {"horizon": 3, "quantile_levels": LEVELS, "warmup": 0.3, "season_rows": 4}
    return ScoringRules(**(given | overrides))


def by_loops(stream: StreamForecasts, p: ScoringRules, only_lead: int | None = None) -> dict[str, float]:
    """The same scores, one target at a time."""
    y = stream.values
    first = int(len(y) * p.warmup)
    errors, squares, squares_of_mean, naive, seasonal = ([] for _ in range(5))
    pinball, seasonal_pinball, inside, winkler, sizes = ([] for _ in range(5))
    for i in range(first, len(y) - 1):
        for h in range(1, p.horizon + 1):
            if i + h >= len(y) or math.isnan(y[i + h]) or only_lead not in (None, h):
                continue
            q, target = stream.quantiles[i, h - 1], y[i + h]
            seen = [value for value in y[: i + 1] if not math.isnan(value)]
            before = i + h - 4 * math.ceil(h / 4)
            known = [value for value in y[: before + 1] if not math.isnan(value)]
            errors.append(abs(target - q[2]))
            squares.append((target - q[2]) ** 2)
            expected = np.trapezoid([q[0], *q, q[4]], [0.0, *p.quantile_levels, 1.0])
            squares_of_mean.append((target - expected) ** 2)
            naive.append(abs(target - seen[-1]))
            seasonal.append(abs(target - known[-1]))
            pinball += [
                max(a * (target - v), (a - 1) * (target - v)) for a, v in zip(p.quantile_levels, q, strict=True)
            ]
            seasonal_pinball += [
                max(a * (target - known[-1]), (a - 1) * (target - known[-1])) for a in p.quantile_levels
            ]
            inside.append(q[0] <= target <= q[4])
            winkler.append(q[4] - q[0] + 10 * (max(q[0] - target, 0) + max(target - q[4], 0)))
            sizes.append(abs(target))
    warm = [value for value in y[:first] if not math.isnan(value)]
    scale = float(np.mean(np.abs(np.diff(warm))))
    return {
        "targets": len(errors),
        "mae": np.mean(errors),
        "mse": np.mean(squares),
        "mse_mean": np.mean(squares_of_mean),
        "mase": np.mean(errors) / scale,
        "wql": 2 * np.sum(pinball) / 5 / np.sum(sizes),
        "sql": 2 * np.mean(pinball) / scale,
        "sql_seasonal": 2 * np.mean(seasonal_pinball) / scale,
        "relative_naive": np.mean(errors) / np.mean(naive),
        "relative_seasonal": np.mean(errors) / np.mean(seasonal),
        "coverage": np.mean(inside),
        "interval_score": np.mean(winkler),
        "scaled_interval_score": np.mean(winkler) / scale,
    }


@pytest.mark.parametrize("lead", [None, 1, 3])
def test_scores_of_a_stream_and_of_a_lead_are_those_of_a_loop(lead):
    stream, p = make_stream(), protocol()
    scorer = Scorer(p, by_time=True)

    scorer.add(stream)

    (found,) = scorer.streams
    scores = found.all if lead is None else found.leads[lead - 1]
    for name, value in by_loops(stream, p, lead).items():
        ours = getattr(scores.intervals[0] if "coverage" in name or "interval" in name else scores, name)
        assert ours == pytest.approx(value), name
    assert [interval.nominal for interval in scores.intervals] == [0.8, 0.5]
    assert found.first_scored_row == 18
    assert sum(found.pit) == pytest.approx(1.0)


def test_streams_are_pooled_by_means_geometric_means_and_targets():
    scorer = Scorer(protocol(), by_time=True)
    for seed, rows in ((0, 60), (1, 200)):
        scorer.add(make_stream(rows, seed=seed, stream_id=str(seed)))

    pooled = scorer.pooled().all

    one, two = (stream.all for stream in scorer.streams)
    assert pooled.mae == pytest.approx((one.mae + two.mae) / 2)
    assert pooled.relative_naive == pytest.approx(math.sqrt(one.relative_naive * two.relative_naive))
    covered = one.targets * one.intervals[0].coverage + two.targets * two.intervals[0].coverage
    assert pooled.intervals[0].coverage == pytest.approx(covered / (one.targets + two.targets))
    least, low, most, high = scorer.pooled().coverage_extremes[0]
    assert {low, high} == {"0", "1"}
    assert least < most


def test_a_forecast_that_knows_the_target_beats_naive_significantly_and_one_that_adds_noise_does_not():
    stream = make_stream(400)
    truth = np.where(np.isnan(stream.values), 0.0, stream.values)
    ahead = np.stack([np.concatenate([truth[h:], np.zeros(h)]) for h in (1, 2, 3)], axis=1)
    good = stream._replace(quantiles=ahead[..., None] + np.array([-0.2, -0.1, 0.0, 0.1, 0.2]))
    bad = stream._replace(quantiles=stream.quantiles + 3.0)

    found = {}
    for name, forecasts in (("good", good), ("bad", bad)):
        scorer = Scorer(protocol(), by_time=True)
        scorer.add(forecasts)
        found[name] = (scorer.streams[0].p_naive, scorer.pooled().p_naive)

    assert max(found["good"]) < 1e-6
    assert min(found["bad"]) > 0.99


def test_the_relative_error_after_a_thousand_readings_is_against_the_better_naive():
    stream, p = make_stream(1_400), protocol()
    scorer = Scorer(p, by_time=True)

    scorer.add(stream)

    only = Scorer(protocol(warmup=1_000.0), by_time=True)
    only.add(stream)
    scores = only.streams[0].all
    assert scorer.streams[0].relative_best_naive == pytest.approx(max(scores.relative_naive, scores.relative_seasonal))
    assert only.streams[0].first_scored_row == 1_000


def test_a_tied_stream_is_set_apart_and_a_stream_without_targets_is_left_out():
    tied = make_stream(stream_id="tied")
    tied = tied._replace(values=np.where(np.arange(60) % 10 == 0, 1.0, 0.0))
    silent = make_stream(stream_id="silent")
    silent = silent._replace(values=np.full(60, np.nan))
    scorer = Scorer(protocol(), by_time=True)

    for stream in (make_stream(), tied, silent):
        scorer.add(stream)

    assert [stream.stream_id for stream in scorer.streams] == ["a", "tied"]
    assert scorer.pooled().tied_streams == ("tied",)
    assert {scorer.pooled().coverage_extremes[0][1], scorer.pooled().coverage_extremes[0][3]} == {"a"}


def test_a_constant_stream_has_no_scale_and_harms_no_mean():
    constant = make_stream(stream_id="constant")._replace(values=np.ones(60), quantiles=np.ones((60, 3, 5)))
    scorer = Scorer(protocol(), by_time=True)

    scorer.add(make_stream())
    alone = scorer.pooled().all
    scorer.add(constant)

    assert math.isnan(scorer.streams[1].all.mase)
    assert scorer.streams[1].all.relative_naive == 1.0
    assert scorer.pooled().all.mase == alone.mase
    assert scorer.pooled().p_naive == scorer.streams[0].p_naive


def test_nothing_to_score_has_empty_scores():
    scorer = Scorer(protocol(), by_time=True)

    pooled = scorer.pooled()

    assert pooled.all.targets == 0
    assert math.isnan(pooled.all.mae)
    assert pooled.coverage_extremes[0][1] == ""


def test_fans_show_forecasts_whose_targets_have_come():
    stream = make_stream()
    scorer = Scorer(protocol(), by_time=True)

    scorer.add(stream)

    fans = scorer.streams[0].fans
    assert fans is not None
    assert len(fans.origins) == 3
    assert fans.origins[-1] + 3 == len(fans.values) - 1
    for origin, quantiles in zip(fans.origins, fans.quantiles, strict=True):
        row = int(np.flatnonzero(stream.times == fans.times[origin])[0])
        assert quantiles == stream.quantiles[row].tolist()
