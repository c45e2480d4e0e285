import numpy as np
import pytest

from forecaster.experts.linear import lag_inputs
from forecaster.models.linear import LinearForecast
from forecaster.series.encoder import SeriesEncoder
from forecaster.training.encoding import encode
from forecaster.training.history import History, Series, lay_out_ticks
from forecaster.training.linear import LinearFit, fit_linear, linear_points

START, STEP, HORIZON = 1_767_225_600.0, 60.0, 3


def encoded(streams, encoder, season=0):
    history = History({f"s{k}": Series(START + STEP * np.arange(len(x)), np.asarray(x)) for k, x in enumerate(streams)})
    ticks = lay_out_ticks(list(history.streams.values()), max_gap_steps=24, step_seconds=STEP)
    return encode(encoder, ticks, np.full(len(streams), season))


def fitted(streams, season=0, **options):
    encoder = SeriesEncoder(ring_steps=64, horizon=HORIZON)
    inputs = lag_inputs(encoder)
    names = [f"s{k}" for k in range(len(streams))]
    return fit_linear(encoded(streams, encoder, season), inputs, np.full(len(streams), season), names, **options)


def autoregression(rng, length, *, scale=1.0):
    """x_t = 0.8 x_{t-1} + noise: the best forecast of lead h is 0.8^h of the last value."""
    noise, x = rng.standard_normal(length), np.zeros(length)
    for t in range(1, length):
        x[t] = 0.8 * x[t - 1] + noise[t]
    return scale * x


@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.0), (1e-4, 1.0, 1e6)])
def test_it_finds_the_best_forecast_of_an_autoregression_whatever_the_units(scales):
    """Mean |error| of the best forecast of lead h is 0.798 times the root of the sum of 0.64^k, k < h; within 8 %."""
    rng = np.random.default_rng(3)
    linear, rows = fitted([autoregression(rng, 4_000, scale=scale) for scale in scales])

    change = np.mean(np.abs(np.diff(autoregression(np.random.default_rng(3), 4_000))))  # the unit: scale of a stream
    best = 0.798 * np.sqrt(np.cumsum(0.64 ** np.arange(HORIZON))) / change

    assert rows > 10_000
    np.testing.assert_allclose(linear.spread.numpy(), best, rtol=0.08)


def test_what_is_left_out_gets_no_weight_and_the_rest_is_found_without_it():
    """Ten hours that rise by chance: the time of day would carry the rise on."""
    rng = np.random.default_rng(0)
    rising = [autoregression(rng, 600) + np.linspace(0, 6, 600) for _ in range(3)]
    calendar = range(5, 9)

    (linear, _), (every, _) = fitted(rising, left_out=calendar), fitted(rising)

    places = [lag_inputs(SeriesEncoder(ring_steps=64, horizon=HORIZON)).lags + k for k in calendar]
    assert not linear.weight.numpy()[places].any()
    assert np.abs(every.weight.numpy()[places]).max() > 0.1
    assert np.abs(linear.weight.numpy()).max() > 0.1, "the way back to the level"


def test_a_restless_stream_does_not_drown_the_others():
    """One stream jumps by thousands of its scales now and then; two that follow a rule are forecast all the same."""
    rng = np.random.default_rng(5)
    wild = np.where(rng.random(2_000) < 0.02, 1e4, 0.0) + 1e-3 * rng.standard_normal(2_000)
    calm = [autoregression(rng, 2_000) for _ in range(2)]
    alone, _ = fitted(calm)
    among, _ = fitted([*calm, wild])

    level = slice(0, 1)  # the weight of the value before
    np.testing.assert_allclose(among.weight.numpy()[level], alone.weight.numpy()[level], atol=0.15)


def test_a_history_too_short_to_fit_leaves_it_unfitted():
    assert fitted([np.arange(60.0)]) is None


def test_a_constant_history_is_fitted_to_nothing():
    found = fitted([np.full(500, 7.0)])

    assert found is None or not found.linear.weight.numpy().any()
    assert found is None or not found.linear.spread.numpy().any()


def test_the_future_teaches_only_through_targets():
    """Values after the last origin with all its targets are in no row."""
    rng = np.random.default_rng(7)
    x = autoregression(rng, 1_000)
    missing = x.copy()
    missing[-10:] = np.nan

    whole, rows = fitted([x])
    cut, fewer = fitted([missing])

    assert rows - fewer == 10
    assert not np.array_equal(whole.weight.numpy(), cut.weight.numpy())


def alternating(rng, length, share):
    """x_t = share * x_{t-1} + noise."""
    x = np.zeros(length)
    for t in range(1, length):
        x[t] = share * x[t - 1] + rng.standard_normal()
    return x


def error_of(found, streams, number):
    """Mean |error| of the forecast for one of the streams, over its last 500 rows."""
    encoder = SeriesEncoder(ring_steps=64, horizon=HORIZON)
    inputs, data = lag_inputs(encoder), encoded(streams, encoder)
    rows = data.starts[number] + np.arange(len(streams[number]) - 510, len(streams[number]) - 10)
    names = [f"s{k}" for k in range(len(streams))]
    made = linear_points(found.linear, data, inputs, rows, np.zeros(len(streams), np.int64), names)
    return np.abs(data.targets(rows, HORIZON)[0] - made).mean()


def test_streams_that_follow_different_rules_get_weights_of_their_own():
    """Half of the streams swing about, half drift: own weights are a sixth better than shared ones on them."""
    rng = np.random.default_rng(11)
    streams = [alternating(rng, 3_000, share) for share in (-0.9, 0.9) * 3]
    apart, alike = fitted(streams), fitted([alternating(rng, 3_000, 0.9) for _ in range(6)])
    only_shared = LinearFit(LinearForecast(*apart.linear.weight.shape), 0)
    only_shared.linear.set(apart.linear.weight, apart.linear.spread)

    assert apart.linear.streams == 6
    assert error_of(apart, streams, 0) < 0.85 * error_of(only_shared, streams, 0)
    assert alike.linear.streams < 6


def test_a_few_wild_targets_hardly_move_it():
    rng = np.random.default_rng(13)
    plain = alternating(rng, 3_000, 0.8)
    spiked = plain + np.where(rng.random(3_000) < 0.01, 40.0, 0.0)

    ours, theirs = fitted([plain]), fitted([spiked])

    np.testing.assert_allclose(theirs.linear.weight[0, 0], ours.linear.weight[0, 0], atol=0.2)


def test_most_streams_have_weights_of_their_own_up_to_a_limit(monkeypatch):
    monkeypatch.setattr("forecaster.training.linear.MOST_OWN", 2)
    rng = np.random.default_rng(17)

    found = fitted([alternating(rng, 1_500, share) for share in (-0.9, 0.9, -0.5, 0.5)])

    assert found.linear.streams == 2
    assert found.linear.identities.tolist() == sorted(found.linear.identities.tolist())
