import numpy as np
import pytest
import torch

from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.network import RecurrentForecaster

NAMES = ("change", "from_level", "day_sin", "missing")


def make_network(seed=0, **overrides):
    hp = {"feature_names": NAMES, "used_features": NAMES, "hidden": 8, "head_width": 16, "horizon": 5}
    return RecurrentForecaster.seeded(HyperParameters(**{**hp, **overrides}), seed).eval()


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_answers_from_stepping_equal_answers_from_a_window(cell):
    network = make_network(cell=cell, layers=2)
    generator = torch.Generator().manual_seed(1)
    window = torch.randn(3, 30, 4, generator=generator)
    ahead = torch.randn(3, 30, 5, generator=generator)

    with torch.inference_mode():
        tops, _ = network(window)
        expected = network.quantiles(tops, window, ahead)
        hidden, answers = network.initial_hidden(3), []
        for tick in range(30):
            top, hidden = network.step(window[:, tick], hidden)
            answers.append(network.quantiles(top, window[:, tick], ahead[:, tick]))

    torch.testing.assert_close(torch.stack(answers, dim=1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("horizon", [1, 5, 24])
@pytest.mark.parametrize("levels", [(0.5,), (0.1, 0.5, 0.9), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_stream_has_the_same_bits_alone_in_a_tile_and_anywhere_in_a_padded_wave(cell, levels, horizon):
    network = make_network(cell=cell, hidden=20, horizon=horizon, quantile_levels=levels, future_inputs=2 * horizon)
    torch.nn.init.normal_(network.head.highway.weight, generator=torch.Generator().manual_seed(2))
    rng, generator = np.random.default_rng(5), torch.Generator().manual_seed(5)
    x, ahead = torch.randn(1024, 4, generator=generator), torch.randn(1024, horizon, generator=generator)
    hidden = torch.randn(1024, *network.hidden_shape, generator=generator)
    future = torch.randn(1024, 2 * horizon, generator=generator)
    watched = 3

    answers = set()
    for size in (16, 32, 1024, *(16 * rng.integers(1, 65, size=6))):
        position = int(rng.integers(size))
        rows = np.insert(rng.permutation(np.arange(4, 1024))[: size - 1], position, watched)
        with torch.inference_mode():
            top, after = network.step(x[rows], hidden[rows])
            answer = network.quantiles(top, x[rows], ahead[rows], future[rows])
        answers.add((after[position].numpy().tobytes(), answer[position].numpy().tobytes()))

    assert len(answers) == 1


def test_a_feature_that_is_not_used_cannot_change_the_answer():
    network = make_network(used_features=("change", "missing"))
    torch.nn.init.ones_(network.head.highway.weight)
    x, other = torch.zeros(16, 4), torch.zeros(16, 4)
    other[:, NAMES.index("day_sin")] = 5.0
    other[:, NAMES.index("from_level")] = -7.0
    ahead = torch.zeros(16, 5)

    with torch.inference_mode():
        answers = []
        for inputs in (x, other):
            top, _ = network.step(inputs, network.initial_hidden(16))
            answers.append(network.quantiles(top, inputs, ahead))

    assert torch.equal(*answers)


def test_seeded_networks_agree_and_leave_the_global_generator_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)

    first, second, other = make_network(seed=1), make_network(seed=1), make_network(seed=2)

    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.head.enter.weight, other.head.enter.weight)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_gradient_of_a_late_answer_reaches_every_parameter(cell):
    network = make_network(cell=cell, layers=2).train()
    window = torch.randn(4, 12, 4, generator=torch.Generator().manual_seed(3))

    tops, _ = network(window)
    network.quantiles(tops[:, -1], window[:, -1], torch.ones(4, 5)).square().sum().backward()

    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_network_that_is_told_of_the_leads_has_the_body_of_one_that_is_not_and_a_highway_of_zeros():
    told, plain = make_network(seed=4, future_inputs=10), make_network(seed=4)

    assert all(torch.equal(a, b) for a, b in zip(told.body.parameters(), plain.body.parameters(), strict=True))
    assert told.head.enter.weight.shape[1] == plain.head.enter.weight.shape[1] + 10
    assert told.head.highway.weight.shape == (5, len(NAMES) + 5 + 10)
    assert not told.head.highway.weight.any()


def test_what_is_known_ahead_reaches_the_answer_through_the_layer_and_over_the_highway():
    network, top, inputs, ahead = (
        make_network(future_inputs=5),
        torch.zeros(16, 8),
        torch.zeros(16, 4),
        torch.zeros(16, 5),
    )
    one, other = torch.zeros(16, 5), torch.eye(5)[[2] * 16]

    def answered():
        with torch.inference_mode():
            return [network.quantiles(top, inputs, ahead, future)[0] for future in (one, other)]

    by_layer = answered()
    with torch.no_grad():
        network.head.enter.weight[:, -5:] = 0.0
        network.head.highway.weight[:, -5:] = 3.0 * torch.eye(5)
    without, by_highway = answered()

    assert not torch.equal(*by_layer)
    torch.testing.assert_close(by_highway - without, torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0])[:, None].expand(5, 3))


def test_a_number_known_ahead_for_some_leads_alone_is_no_network():
    with pytest.raises(ValueError, match="future_inputs is 7, expected a multiple of horizon 5"):
        make_network(future_inputs=7)
