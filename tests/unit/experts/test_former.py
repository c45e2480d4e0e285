"""The champion before the present one answers beside it: as it would alone, and weighed like every expert."""

from __future__ import annotations

import numpy as np
import pytest
from factories import START, make_pipeline, make_recurrent, make_table, make_wave

from forecaster.engine.pipeline import Pipeline
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.state.streams import StreamTable

STREAMS = 3


def play(pipeline: Pipeline, recurrent: list[RecurrentExpert | None], *, skip: int = 0) -> StreamTable:
    """Streams of noise and a pattern, answered by one network after the other; ``skip`` steps are missed at the end."""
    table = make_table(pipeline, STREAMS)
    slots, rng = list(range(1, STREAMS + 1)), np.random.default_rng(0)
    for n, network in enumerate(recurrent):
        at = n + (skip if n == len(recurrent) - 1 else 0)
        values = 100.0 * np.arange(1, STREAMS + 1) + 10 * np.sin(n / 2) + rng.standard_normal(STREAMS)
        pipeline.step(table.arrays, make_wave(slots, [START + 60.0 * at] * STREAMS, values), network)
    return table


def said(table: StreamTable, pipeline: Pipeline, name: str) -> np.ndarray:
    """Last points of an expert at the anchor leads, ``[S, A]``."""
    place = pipeline.experts.index(name)
    return np.array(
        [
            pipeline.pending.made_at(table.arrays, slot, int(table.arrays["tick"][slot]) - 1)[0][:, place]
            for slot in range(1, STREAMS + 1)
        ]
    )


def median_alone(table: StreamTable, pipeline: Pipeline) -> np.ndarray:
    """Last medians of the network that serves at the anchor leads, ``[S, A]``."""
    return np.array(
        [
            pipeline.pending.made_at(table.arrays, slot, int(table.arrays["tick"][slot]) - 1)[1][:, 0, 1]
            for slot in range(1, STREAMS + 1)
        ]
    )


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("skip", [0, 3, 20])
def test_it_answers_with_the_medians_that_it_would_give_if_it_served(cell: str, skip: int) -> None:
    """Over missed steps that it is carried across, and over more than that, where its ring is replayed."""
    pipeline = make_pipeline(hidden_shape=(2, 8), keeps_former=True)
    first = make_recurrent(pipeline, seed=1, model=1, cell=cell)
    second = make_recurrent(pipeline, seed=2, model=2, cell=cell, former=first)
    alone = make_recurrent(pipeline, seed=1, model=9, cell=cell)  # taken over at the same reading

    beside = play(pipeline, [first] * 30 + [second] * 40, skip=skip)
    serving = play(pipeline, [first] * 30 + [alone] * 40, skip=skip)

    found = said(beside, pipeline, "former")
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, median_alone(serving, pipeline))


def test_a_stream_that_has_not_taken_the_model_over_is_not_answered_by_it() -> None:
    pipeline = make_pipeline(keeps_former=True)
    second = make_recurrent(pipeline, seed=2, model=2, former=make_recurrent(pipeline, seed=1, model=1))

    young = play(pipeline, [second] * 5)

    assert np.isnan(said(young, pipeline, "former")).all()


def test_it_takes_over_where_its_successor_has_lost_its_mind() -> None:
    """Weights go to it stream by stream, from the first settled forecasts on."""
    pipeline = make_pipeline(keeps_former=True)
    first = make_recurrent(pipeline, seed=1, model=1, linear_inputs=0)
    mad = make_recurrent(pipeline, seed=2, model=2, linear_inputs=0, former=first)
    for parameter in mad.network.parameters():
        parameter.data *= 8

    table = play(pipeline, [first] * 30 + [mad] * 60)

    shares = dict(zip(pipeline.experts, pipeline.shares(table.arrays, 1).mean(axis=0), strict=True))
    assert shares["former"] > 10 * shares["recurrent"]


def test_it_begins_with_the_spread_of_its_own_quantiles() -> None:
    pipeline = make_pipeline(keeps_former=True)
    first = make_recurrent(pipeline, seed=1, model=1)
    second = make_recurrent(pipeline, seed=2, model=2, former=first)

    table = play(pipeline, [first] * 30 + [second])

    c, place = table.arrays, pipeline.experts.index("former")
    tick = int(c["tick"][1]) - 1
    serving = play(pipeline, [first] * 30 + [make_recurrent(pipeline, seed=1, model=9)])
    quantiles = pipeline.pending.made_at(serving.arrays, 1, tick)[1][:, 0]
    width = (quantiles[:, -1] - quantiles[:, 0]) / c["scale"][1]
    np.testing.assert_allclose(c["spread"][1, :, place], width / (2 * 1.606), rtol=1e-3)


def test_without_room_for_it_nothing_of_it_is_kept() -> None:
    assert not [column.name for column in make_pipeline().columns if column.name.startswith("former")]
    assert "former" not in make_pipeline().experts


def test_what_was_learnt_of_it_goes_on_with_it_and_what_another_said_is_not_laid_to_its_charge() -> None:
    pipeline = make_pipeline(keeps_former=True)
    networks = [make_recurrent(pipeline, seed=seed, model=seed) for seed in (1, 2, 3)]
    networks[1] = make_recurrent(pipeline, seed=2, model=2, former=networks[0])
    networks[2] = make_recurrent(pipeline, seed=3, model=3, former=networks[1])
    slots, champion = np.arange(1, STREAMS + 1), pipeline.experts.index("recurrent")
    former = pipeline.experts.index("former")

    before = play(pipeline, [networks[0]] * 30 + [networks[1]] * 30).arrays
    after = play(pipeline, [networks[0]] * 30 + [networks[1]] * 30 + [networks[2]]).arrays

    waiting = [c["pending_points"][slots, :, former] for c in (before, after)]
    np.testing.assert_array_equal(after["regret"][slots, :, former], before["regret"][slots, :, champion])
    assert np.isfinite(waiting[0]).sum() > np.isfinite(waiting[1]).sum()
    assert np.isfinite(waiting[1]).sum() == STREAMS * len(pipeline.leads), "only what it has said itself"
