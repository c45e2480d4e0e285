import numpy as np
import pytest
import torch

from forecaster.models.cells import WAVE_TILE
from forecaster.models.linear import LinearForecast


def make_linear(inputs=120, horizon=30, streams=5):
    rng = np.random.default_rng(0)
    linear = LinearForecast(inputs, horizon, streams)
    draw = lambda *shape: torch.from_numpy(rng.standard_normal(shape).astype(np.float32))  # noqa: E731
    linear.set(draw(inputs, horizon), torch.ones(horizon), draw(streams, inputs, horizon), torch.arange(streams) * 10)
    return linear


def test_own_weights_serve_their_stream_and_shared_ones_all_others():
    linear = make_linear()
    inputs = np.random.default_rng(1).standard_normal((WAVE_TILE, 120)).astype(np.float32)
    rows = linear.rows_of(np.array([20, 7, 0, 999, *[-4] * 12], np.int64))

    points = linear.points(inputs, rows)

    assert rows[:5].tolist() == [2, -1, 0, -1, -1]
    np.testing.assert_allclose(points[0], inputs[0] @ linear.own[2].numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(points[2], inputs[2] @ linear.own[0].numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(points[1], inputs[1] @ linear.weight.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("inputs", "horizon"), [(84, 12), (108, 24), (120, 30), (61, 1), (350, 100)])
def test_a_row_has_the_same_bits_whatever_else_is_in_the_wave(inputs, horizon):
    """256 rows at once, and every tile of 16 alone and beginning with another row."""
    linear = make_linear(inputs, horizon)
    rng = np.random.default_rng(2)
    shown, rows = rng.standard_normal((256, inputs)).astype(np.float32), rng.integers(-1, 5, 256)

    whole = linear.points(shown, rows)

    for first in range(0, 256 - WAVE_TILE, 13):
        part = slice(first, first + WAVE_TILE)
        np.testing.assert_array_equal(linear.points(shown[part], rows[part]), whole[part])


def test_without_streams_of_its_own_it_has_the_weights_that_earlier_programs_wrote():
    assert set(LinearForecast(3, 2).state_dict()) == {"weight", "spread"}
