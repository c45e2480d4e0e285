import numpy as np
import pytest
import torch
from factories import START, make_pipeline, make_recurrent, make_table, make_wave

from forecaster.experts.base import Origins
from forecaster.experts.linear import LinearExpert, lag_inputs
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.cells import WAVE_TILE
from forecaster.models.linear import LinearForecast
from forecaster.series.encoder import SeriesEncoder
from forecaster.state.streams import StreamTable
from forecaster.training.encoding import encode
from forecaster.training.history import Series, lay_out_ticks
from forecaster.training.linear import _lag_rows


def make_linear(encoder, seed=0):
    linear = LinearForecast(lag_inputs(encoder).width, encoder.horizon)
    weight = torch.from_numpy(np.random.default_rng(seed).normal(0, 0.1, linear.weight.shape).astype(np.float32))
    linear.set(weight, torch.full((encoder.horizon,), 0.5))
    return linear


@pytest.mark.parametrize("season", [0, 12])
def test_serving_shows_it_what_training_shows_it(season):
    """One stream of 150 ticks, some missing: the row made of the ring is the row made of the history."""
    encoder = SeriesEncoder(ring_steps=64, horizon=4)
    rng = np.random.default_rng(1)
    values = np.where(rng.random(150) < 0.1, np.nan, np.round(100 + np.cumsum(rng.standard_normal(150)), 3))
    values[0] = 100.0
    ticks = lay_out_ticks([Series(START + 60.0 * np.arange(150), values)], max_gap_steps=24, step_seconds=60.0)
    data = encode(encoder, ticks, np.array([season]))
    pipeline = make_pipeline(ring_steps=64, declared_season=season, step_seconds=60.0)
    c = make_table(pipeline, 1).arrays
    c["season"][1] = season
    inputs = lag_inputs(encoder)

    for row, value in enumerate(values):
        pipeline.step(c, make_wave([1], [START + 60.0 * row], [value]), None)
        slots = np.array([1])
        served = inputs.rows(
            pipeline.encoder.past(c, slots),
            ticks=c["tick"][slots],
            season=c["season"][slots].astype(np.int64),
            origin=data.origin[[row]],
            scale=data.scale[[row]],
            features=data.features[[row]],
            ahead=np.zeros((1, 4), np.float32) if data.ahead is None else data.ahead[[row]],
        )
        trained = _lag_rows(data, inputs, np.array([row]), np.array([season]))
        np.testing.assert_allclose(served, trained, atol=2e-3)


def test_it_answers_once_all_lags_are_there():
    pipeline = make_pipeline(ring_steps=64)
    recurrent = make_recurrent(pipeline)
    c = make_table(pipeline, 1).arrays
    linear = pipeline.experts.index("linear")
    answered = []

    for n in range(70):
        pipeline.step(c, make_wave([1], [START + n], [float(np.sin(n / 5) + n % 3)]), recurrent)
        points, _ = pipeline.pending.made_at(c, 1, n)
        answered.append(not np.isnan(points[:, linear]).any())

    assert answered == [False] * 48 + [True] * 22


def test_it_has_no_answer_where_its_product_is_out_of_reach_or_no_number():
    encoder = SeriesEncoder(ring_steps=64, horizon=4)
    pipeline = make_pipeline(ring_steps=64)
    c = make_table(pipeline, WAVE_TILE).arrays
    c["tick"][:] = 60
    linear = make_linear(encoder)
    features = np.zeros((WAVE_TILE, len(encoder.feature_names)), np.float32)
    features[1], features[2] = 1e30, np.nan
    blank = np.zeros(WAVE_TILE)
    at = Origins(
        np.arange(1, WAVE_TILE + 1), features, blank, blank + 1, blank, blank,
        np.zeros((WAVE_TILE, 4), np.float32), np.zeros(WAVE_TILE, bool),
    )  # fmt: skip

    points, available = LinearExpert(linear, encoder).forecast(c, at)

    assert np.isfinite(points).all()
    assert available.tolist() == [True, False, False, *[True] * (WAVE_TILE - 3)]


def test_a_network_without_a_fitted_linear_forecast_serves_without_one():
    pipeline = make_pipeline()
    fitted = make_recurrent(pipeline)
    fitted.network.linear.set(torch.zeros_like(fitted.network.linear.weight), torch.zeros(pipeline.horizon))
    unfitted = RecurrentExpert(fitted.network, model=2, version="unfitted", season=0, encoder=pipeline.encoder)

    assert fitted.linear is not None
    assert unfitted.linear is None
    assert make_recurrent(pipeline, linear_inputs=0).linear is None


@pytest.mark.parametrize("own_linear", [(), ("s3", "s32", "s9"), tuple(f"s{k}" for k in range(33))])
def test_a_stream_is_answered_by_the_same_bits_alone_and_among_others(own_linear):
    """33 streams for 70 readings, with seasons of 7 and 12 steps and none: a wave is padded to 48 rows, alone to 16."""
    pipeline = make_pipeline(ring_steps=64)
    recurrent = make_recurrent(pipeline, own_linear=own_linear)
    values = np.cumsum(np.random.default_rng(4).standard_normal((70, 34)), axis=0)

    def answered(streams):
        c = make_table(pipeline, 33).arrays
        c["season"][1:34] = np.resize([0, 7, 12], 33)
        found = []
        for n in range(70):
            wave = make_wave(streams, [START + n] * len(streams), values[n, streams])
            answers = pipeline.step(c, wave, recurrent).answers
            found.append((answers.quantiles[-1], answers.weights[-1]))
        return found

    among = answered(list(range(1, 34)))
    alone = answered([33])

    assert among[-1][1][pipeline.experts.index("linear")] > 0
    for (quantiles, weights), (own_quantiles, own_weights) in zip(among, alone, strict=True):
        np.testing.assert_array_equal(quantiles, own_quantiles)
        np.testing.assert_array_equal(weights, own_weights)


def test_a_stream_that_was_trained_on_is_answered_by_its_own_weights_wherever_it_stands():
    """Streams are known by name: the slot of s1 is another one in the second table, and the wave another."""
    pipeline = make_pipeline(ring_steps=64)
    shared, own = (make_recurrent(pipeline, own_linear=names) for names in ((), ("s1", "s7")))
    values = np.cumsum(np.random.default_rng(4).standard_normal((60, 3)), axis=0)

    def answered(recurrent, streams):
        table = StreamTable(pipeline.columns, max_streams=10)
        slots = [table.slot(name) for name in streams]
        for n, row in enumerate(values):
            pipeline.step(table.arrays, make_wave(slots, [START + n] * len(slots), row[: len(slots)]), recurrent)
        linear = pipeline.experts.index("linear")
        return {name: pipeline.pending.made_at(table.arrays, slot, 59)[0][:, linear].tolist()
                for name, slot in zip(streams, slots, strict=True)}  # fmt: skip

    by_all, by_own = answered(shared, ["s1", "s2", "s3"]), answered(own, ["s1", "s2", "s3"])
    elsewhere = answered(own, ["s1"])
    as_another = answered(own, ["s5"])

    assert by_own["s1"] != by_all["s1"]
    assert by_own["s2"] == by_all["s2"]
    assert elsewhere["s1"] == by_own["s1"]
    assert as_another["s5"] == by_all["s1"]


def test_its_first_spread_is_what_it_left_in_training():
    encoder = SeriesEncoder(ring_steps=64, horizon=4)
    blank = np.zeros(2)
    at = Origins(np.array([1, 2]), np.zeros((2, 11), np.float32), blank, blank, blank, blank,
                 np.zeros((2, 4), np.float32), np.zeros(2, bool))  # fmt: skip

    assert LinearExpert(make_linear(encoder), encoder).first_spread({}, at).tolist() == [[0.5] * 4] * 2
