"""What a rehearsal leaves for the first readings to wait for: nothing."""

import numpy as np
import pytest
from factories import START, make_pipeline, make_recurrent, make_table

from forecaster.anomaly.detector import AnomalyRules
from forecaster.engine.rehearsal import publish, rehearse
from forecaster.engine.together import step_as_one
from forecaster.engine.wave import Wave
from forecaster.series.compiled import compilations

STREAMS = 40


def live(pipeline, networks, *, rng):
    """Readings of all kinds: gaps, missing values, spikes, late ones, waves of one and of many, another model."""
    c = make_table(pipeline, STREAMS).arrays
    clock = np.full(STREAMS, START)
    beside = pipeline.encoder.covariates, pipeline.encoder.future_inputs
    for turn in range(60):
        rows = rng.permutation(STREAMS)[: rng.integers(1, STREAMS + 1)]
        clock[rows] += np.where(rng.random(len(rows)) < 0.1, 60.0 * rng.integers(2, 60, len(rows)), 60.0)
        values = np.where(rng.random(len(rows)) < 0.1, np.nan, rng.normal(0, 1, len(rows)).round(2))
        values[rng.random(len(rows)) < 0.05] = 1e20
        late = np.where(rng.random(len(rows)) < 0.02, 600.0, 0.0)
        covariates, future = (rng.normal(0, 1, (len(rows), width)) if width else None for width in beside)
        wave = Wave(rows + 1, clock[rows] - late, values, covariates, np.arange(len(rows)), future=future)
        result = pipeline.step(c, wave, networks[turn * len(networks) // 60], keep_losses=True)
        publish(pipeline, result.answers)
    return c


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"quantile_levels": (0.05, 0.25, 0.5, 0.75, 0.95), "declared_season": 12, "further_seasons": (24, 36)},
        {"covariates": 2, "known_ahead": 1, "declared_season": 600.0, "step_seconds": 60.0},
        {"anomalies": AnomalyRules(min_deviation=1.0, min_relative_deviation=0.1), "horizon": 1},
    ],
    ids=["default", "seasons", "covariates", "one lead"],
)
def test_after_a_rehearsal_no_reading_of_any_kind_waits_for_the_compiler(overrides):
    """An array of another type or layout would be compiled for: seconds, in the middle of a turn."""
    pipeline = make_pipeline(**overrides)
    networks = [None, *(make_recurrent(pipeline, model=k, seed=k, own_linear=("s1",), season=12) for k in (1, 2))]
    rehearse(pipeline, networks[1])
    ready = compilations()

    live(pipeline, networks, rng=np.random.default_rng(0))

    assert compilations() == ready


def test_waves_of_partitions_stepped_as_one_need_nothing_else():
    pipeline = make_pipeline()
    network = make_recurrent(pipeline)
    rehearse(pipeline, network)
    ready = compilations()
    tables = [make_table(pipeline, 3).arrays for _ in range(2)]

    for reading in range(20):
        times, values = np.full(3, START + 60.0 * reading), np.arange(3.0) + reading
        parts = [(c, Wave(np.arange(1, 4), times, values, None, np.arange(3))) for c in tables]
        step_as_one(pipeline, network, parts)

    assert compilations() == ready


def test_a_rehearsal_changes_no_forecast_that_comes_after_it():
    with_one, without = make_pipeline(declared_season=12), make_pipeline(declared_season=12)
    network = make_recurrent(with_one, season=12)
    rehearse(with_one, network)

    after = live(with_one, [network], rng=np.random.default_rng(3))
    expected = live(without, [make_recurrent(without, season=12)], rng=np.random.default_rng(3))

    for name, column in expected.items():
        np.testing.assert_array_equal(after[name][1:], column[1:], err_msg=name)
