import numpy as np
import pytest
import torch

from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.network import RecurrentForecaster
from forecaster.training.encoding import encode
from forecaster.training.evaluate import (
    Baselines,
    Stretch,
    forecast_stretch,
    held_back,
    mean_loss,
    pinball_losses,
    stream_weights,
)
from forecaster.training.history import lay_out_ticks

LEVELS = (0.1, 0.5, 0.9)


def encoded(history, encoder, season=0):
    ticks = lay_out_ticks(list(history.streams.values()), max_gap_steps=24)
    return encode(encoder, ticks, np.full(len(ticks), season))


def make_network(encoder, seed=0):
    hp = HyperParameters(
        feature_names=encoder.feature_names, used_features=encoder.feature_names, hidden=8, head_width=8, horizon=4
    )
    return RecurrentForecaster.seeded(hp, seed).eval()


def test_stepping_a_stretch_equals_reading_each_stream_as_a_window(make_history, encoder):
    data, network = encoded(make_history(3, 80), encoder, season=24), make_network(encoder)
    stretch = Stretch(np.array([50, 80 + 60, 160 + 50]), np.array([80, 80 + 75, 160 + 50]))

    rows, quantiles = forecast_stretch(network, data, stretch, run_in=20)

    assert rows.tolist() == [*range(50, 80), *range(140, 155)]
    for first, last in ((50, 80), (140, 155)):
        window = torch.from_numpy(data.features[first - 20 : last])[None]
        with torch.inference_mode():
            tops, _ = network(window)
            answers = network.quantiles(tops[0], window[0], torch.from_numpy(data.ahead[first - 20 : last]))[20:]
        mine = quantiles[(rows >= first) & (rows < last)]
        np.testing.assert_allclose(mine, answers.numpy(), atol=1e-5)


def test_run_in_does_not_reach_into_the_stream_before(make_history, encoder):
    data, network = encoded(make_history(2, 40), encoder), make_network(encoder)
    only = data._replace(
        **{name: getattr(data, name)[40:] for name in ("features", "origin", "scale", "values", "times", "warm")}
    )
    only = only._replace(segment_end=data.segment_end[40:] - 40, starts=np.array([0, 40]))

    _, together = forecast_stretch(network, data, Stretch(np.array([40, 45]), np.array([40, 80])), run_in=500)
    _, alone = forecast_stretch(network, only, Stretch(np.array([5]), np.array([40])), run_in=500)

    np.testing.assert_array_equal(together, alone)


def test_stride_counts_from_the_newest_origin(make_history, encoder):
    data = encoded(make_history(1, 60), encoder)

    rows = Stretch(np.array([40]), np.array([60])).origins(data, 7)

    assert rows.tolist() == [45, 52, 59]


def test_losses_are_the_mean_over_levels_and_nan_where_nothing_was_observed(make_history, encoder):
    data = encoded(make_history(1, 30), encoder)
    rows = np.array([10, 28])
    target, _ = data.targets(rows, 4)

    exact = pinball_losses(data, rows, np.repeat(target[..., None], 3, axis=2), LEVELS)
    over = pinball_losses(data, rows, np.repeat(target[..., None], 3, axis=2) + 1.0, LEVELS)

    np.testing.assert_allclose(exact[0], 0.0)
    np.testing.assert_allclose(over[0], (0.9 + 0.5 + 0.1) / 3, rtol=1e-5)
    assert np.isnan(exact[1]).tolist() == [False, True, True, True]


def test_baselines_cover_what_their_levels_promise(make_history, encoder):
    data = encoded(make_history(3, 1500), encoder, season=24)
    rows = np.concatenate([np.arange(k * 1500 + 100, k * 1500 + 1400) for k in range(3)])

    baselines = Baselines.learn(data, rows, 4, LEVELS)
    target, observed = data.targets(rows, 4)

    for forecast in (baselines.forecast_naive(rows), baselines.forecast_seasonal(data, rows)):
        inside = (target >= forecast[..., 0]) & (target <= forecast[..., 2])
        assert inside[observed].mean() == pytest.approx(0.8, abs=0.02)
    naive, seasonal = (
        mean_loss(pinball_losses(data, rows, made, LEVELS))
        for made in (baselines.forecast_naive(rows), baselines.forecast_seasonal(data, rows))
    )
    assert seasonal < 0.7 * naive


def test_every_moving_stream_counts_alike_and_one_at_rest_counts_little(make_history, encoder):
    data = encoded(make_history(2, 100), encoder)
    rows = np.array([50, 51, 150, 151])
    naive = np.array([[1.0, 1.0], [3.0, np.nan], [20.0, 20.0], [20.0, 20.0]])

    weights = stream_weights(data, rows, naive)
    resting = stream_weights(data, rows, np.array([[0.001] * 2] * 2 + [[0.0] * 2] * 2))

    np.testing.assert_allclose(weights, [0.6, 0.6, 0.05, 0.05])
    np.testing.assert_allclose(resting, [10.0, 10.0, 0.0, 0.0])


def test_nothing_observed_is_infinitely_bad():
    assert mean_loss(np.full((2, 2), np.nan)) == float("inf")


def test_a_stream_on_which_a_forecast_is_hopeless_counts_as_twice_as_bad_as_naive(make_history, encoder):
    """Losses of three streams: better than naive, a little worse, and thousands of times worse."""
    data = encoded(make_history(3, 80), encoder)
    rows = np.array([10, 20, 90, 100, 170, 180])
    naive = np.ones((6, 2))
    losses = np.array([[0.5, 0.6], [0.7, np.nan], [1.5, 1.5], [1.6, 1.4], [1.0, 9_000.0], [2.0, 997.0]])

    found = held_back(data, rows, losses, naive)

    np.testing.assert_array_equal(found[:4], losses[:4])
    assert found[4:].sum() == pytest.approx(2 * naive[4:].sum())
    np.testing.assert_allclose(found[4:] / losses[4:], 8 / 10_000)


def test_a_stream_that_never_moved_counts_for_nothing(make_history, encoder):
    data = encoded(make_history(2, 80), encoder)

    found = held_back(data, np.array([10, 90]), np.full((2, 1), 3.0), np.array([[2.0], [0.0]]))

    assert found.tolist() == [[3.0], [0.0]]
