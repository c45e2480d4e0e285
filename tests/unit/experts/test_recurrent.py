import numpy as np
import pytest
import torch
from factories import START, make_pipeline, make_recurrent, make_table

from forecaster.experts.base import Origins
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.cells import WAVE_TILE
from forecaster.series.encoder import SeriesEncoder
from forecaster.series.rows import Rows
from forecaster.state.streams import SCRATCH

STEP = 60.0


def padded(slots):
    return np.array([*slots, *[SCRATCH] * (-len(slots) % WAVE_TILE)])


def fed_table(pipeline, ticks, *, seed=0, season=0):
    """A table whose stream k has taken in ``ticks[k]`` random ticks, one a minute, some missing, two skipped over."""
    rng = np.random.default_rng(seed)
    table = make_table(pipeline, len(ticks))
    c, encoder = table.arrays, pipeline.encoder
    for slot, count in enumerate(ticks, start=1):
        c["season"][slot] = season
        c["step"][slot] = STEP
        for tick in range(count):
            value = np.nan if rng.random() < 0.15 else 50.0 * slot + float(rng.standard_normal())
            covariates = rng.random((1, encoder.covariates)) if encoder.covariates else None
            if tick == count - 20:
                encoder.skip(c, slot, 2)
            encoder.tick(
                c, np.array([slot]), np.array([START + STEP * tick]), np.array([value]), np.ones(1), covariates
            )
    return table


def fresh_run(recurrent, pipeline, c, slot, last_tick):
    """The new network stepped tick by tick over what the ring of one stream holds, in plain scalar order.

    The stream starts where its oldest ring entry stood, with the scale it has now.
    """
    encoder: SeriesEncoder = pipeline.encoder
    own = Rows((*encoder.columns, *recurrent.columns(pipeline.hidden_shape)), 1)
    for name in ("season", "scale", "scale_long", "change", "seen"):
        own[name][0] = c[name][slot]
    count = min(int(c["tick"][slot]), encoder.ring_steps)
    places = [(int(c["tick"][slot]) - count + k) % encoder.ring_steps for k in range(count)]
    kept = [float(c["ring"][slot][place]) + float(c["anchor"][slot]) for place in places]
    elapsed = [float(c["ring_elapsed"][slot][place]) for place in places]
    for name in ("value", "level", "anchor"):
        own[name][0] = kept[0]
    hidden = torch.zeros(1, *pipeline.hidden_shape)
    for k in range(count):
        time = last_tick - STEP * sum(abs(later) for later in elapsed[k + 1 :])
        missing = np.signbit(elapsed[k])
        inputs = encoder.tick(
            own,
            np.array([0]),
            np.array([time]),
            np.array([np.nan if missing else kept[k]]),
            np.array([abs(elapsed[k])]),
            c["ring_covariates"][slot, places[k]][None].astype(np.float32) if encoder.covariates else None,
            standardised=True,
        )
        _, hidden = recurrent.network.step(torch.from_numpy(inputs.features), hidden)
    return hidden[0].detach().numpy(), own


@pytest.mark.parametrize(
    ("overrides", "cell"),
    [
        ({"hidden_shape": (1, 8)}, "gru"),
        ({"hidden_shape": (2, 12)}, "lstm"),
        ({"hidden_shape": (1, 5), "covariates": 2}, "rnn"),
    ],
)
@pytest.mark.parametrize("season", [0, 6])
def test_rebuilt_hidden_state_equals_a_fresh_run_of_the_network_over_the_ring(overrides, cell, season):
    """Rings that are nearly empty, not full, just full, and wrapped around, with missing ticks."""
    pipeline = make_pipeline(ring_steps=24, **overrides)
    recurrent = make_recurrent(pipeline, seed=4, model=7, cell=cell)
    ticks = (1, 5, 21, 22, 60)
    table = fed_table(pipeline, ticks, season=season)
    c = table.arrays
    slots = np.arange(1, len(ticks) + 1)
    last = START + STEP * (np.array(ticks) - 1.0)
    before = {name: array.copy() for name, array in c.items()}

    recurrent.rebuild(c, padded(slots), np.pad(last, (0, WAVE_TILE - len(ticks))), relearn_scale=False)

    for slot in slots:
        expected, _ = fresh_run(recurrent, pipeline, before, slot, last[slot - 1])
        np.testing.assert_allclose(c["hidden"][slot], expected, atol=2e-6)
        assert np.abs(expected).max() > 0.01
    assert (c["model"][slots] == 7).all()
    for name in set(c) - {"hidden", "model"}:
        np.testing.assert_array_equal(c[name][slots], before[name][slots], err_msg=name)


def test_rebuild_after_a_change_of_season_learns_the_scale_that_goes_with_it():
    pipeline = make_pipeline(ring_steps=24)
    recurrent = make_recurrent(pipeline)
    table = fed_table(pipeline, (60,))
    c = table.arrays
    c["season"][1] = 6
    before = {name: array.copy() for name, array in c.items()}
    last = START + STEP * 59

    recurrent.rebuild(c, padded([1]), np.full(WAVE_TILE, last), relearn_scale=True)

    _, own = fresh_run(recurrent, pipeline, before, 1, last)
    for name in ("scale", "scale_long", "change", "level"):
        assert c[name][1] == pytest.approx(own[name][0], rel=1e-12), name
    assert c["scale"][1] != before["scale"][1]


def test_streams_rebuilt_together_do_not_influence_each_other():
    pipeline = make_pipeline(ring_steps=24, covariates=1)
    recurrent = make_recurrent(pipeline)
    ticks = tuple(range(3, 43))
    together, alone = fed_table(pipeline, ticks), fed_table(pipeline, ticks)
    slots = np.arange(1, len(ticks) + 1)
    last = START + STEP * (np.array(ticks) - 1.0)
    together.arrays["tick"][SCRATCH] = 1_000  # padding has been used for long

    recurrent.rebuild(together.arrays, padded(slots), np.pad(last, (0, -len(ticks) % WAVE_TILE)), relearn_scale=True)
    for slot in slots:
        recurrent.rebuild(alone.arrays, padded([slot]), np.full(WAVE_TILE, last[slot - 1]), relearn_scale=True)

    for name in together.arrays:
        np.testing.assert_array_equal(together.arrays[name][slots], alone.arrays[name][slots], err_msg=name)


class CountingExpert(RecurrentExpert):
    """Counts the steps of its network."""

    steps = 0

    def step(self, c, slots, features):
        self.steps += 1
        return super().step(c, slots, features)


def test_rebuild_does_not_replay_what_only_the_padding_holds():
    """A new stream has a few ticks; the scratch row behind it may have thousands."""
    pipeline = make_pipeline(ring_steps=48)
    network = make_recurrent(pipeline).network
    recurrent = CountingExpert(network, model=1, version="counted", season=0, encoder=pipeline.encoder)
    table = fed_table(pipeline, (5,))
    table.arrays["tick"][SCRATCH] = 10_000

    recurrent.rebuild(table.arrays, padded([1]), np.full(WAVE_TILE, START), relearn_scale=False)

    assert recurrent.steps == 5


def origins(pipeline, ahead):
    rows = len(ahead)
    return Origins(
        np.arange(1, rows + 1),
        np.zeros((rows, len(pipeline.encoder.feature_names)), np.float32),
        np.zeros(rows),
        np.ones(rows),
        np.ones(rows),
        np.zeros(rows),
        np.array(ahead, np.float32),
        np.ones(rows, np.bool_),
    )


def test_the_network_is_asked_with_the_look_ahead_it_was_trained_with():
    """Training hands the whole look-ahead to the head, which adds what it does not weigh; so must serving."""
    pipeline = make_pipeline()
    recurrent = make_recurrent(pipeline)
    ahead = [[0.5, -3.0, 70.0, -4_000.0]] * WAVE_TILE
    at = origins(pipeline, ahead)
    top = np.zeros((WAVE_TILE, 8), np.float32)

    made, usable = recurrent.answer(top, at)

    with torch.inference_mode():
        expected = recurrent.network.quantiles(
            torch.from_numpy(top), torch.from_numpy(at.features), torch.from_numpy(at.ahead)
        )
    np.testing.assert_array_equal(made, expected.numpy())
    assert usable.all()
    assert made[0, 3, 1] == pytest.approx(-4_000, abs=15)


def test_an_answer_that_is_not_a_number_or_far_out_is_unusable_and_leaves_the_others_alone():
    pipeline = make_pipeline()
    recurrent = make_recurrent(pipeline)
    at = origins(pipeline, [[0.0] * 4] * WAVE_TILE)
    top = np.zeros((WAVE_TILE, 8), np.float32)
    top[1], top[2] = np.nan, 1e9

    made, usable = recurrent.answer(top, at)

    assert usable.tolist() == [True, False, False] + [True] * (WAVE_TILE - 3)
    assert np.isfinite(made).all()
