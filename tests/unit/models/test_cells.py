import numpy as np
import pytest
import torch
from torch import nn

from forecaster.models.cells import build_stack, linear

FEATURES, WIDTH = 5, 12

CELLS = [("rnn", "tanh"), ("rnn", "relu"), ("lstm", "tanh"), ("gru", "tanh")]


def make_stack(cell="gru", activation="tanh", layers=1, dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build_stack(cell, FEATURES, WIDTH, layers, activation=activation, dropout=dropout)


def reference(cell, activation, layers, stack):
    """torch's own module, holding copies of the stack's weights."""
    if cell == "rnn":
        module = nn.RNN(FEATURES, WIDTH, layers, nonlinearity=activation, batch_first=True)
    else:
        module = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](FEATURES, WIDTH, layers, batch_first=True)
    module.load_state_dict(stack.body.state_dict())
    return module


def step_through(stack, window, hidden):
    tops = []
    for tick in range(window.shape[1]):
        top, hidden = stack.step(window[:, tick], hidden)
        tops.append(top)
    return torch.stack(tops, dim=1), hidden


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("cell", "activation"), CELLS)
def test_stepping_equals_torch_over_a_whole_window(cell, activation, layers):
    stack = make_stack(cell, activation, layers)
    window = torch.randn(7, 120, FEATURES, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        tops, hidden = step_through(stack, window, stack.initial_hidden(7))
        expected_tops, expected = reference(cell, activation, layers, stack)(window)

    expected_hidden = torch.cat(expected, dim=-1) if cell == "lstm" else expected
    torch.testing.assert_close(tops, expected_tops, atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden, expected_hidden.transpose(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("cell", "activation"), CELLS)
def test_a_window_continued_from_stepped_hidden_state_equals_stepping_on(cell, activation):
    stack = make_stack(cell, activation, layers=2)
    window = torch.randn(4, 40, FEATURES, generator=torch.Generator().manual_seed(2))

    with torch.inference_mode():
        _, halfway = step_through(stack, window[:, :25], stack.initial_hidden(4))
        tops, hidden = stack(window[:, 25:], halfway)
        expected_tops, expected_hidden = step_through(stack, window[:, 25:], halfway)

    torch.testing.assert_close(tops, expected_tops, atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden, expected_hidden, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("cell", "width"), [("rnn", WIDTH), ("gru", WIDTH), ("lstm", 2 * WIDTH)])
def test_hidden_state_is_one_row_per_stream(cell, width):
    stack = make_stack(cell, layers=2)

    _, hidden = stack.step(torch.zeros(3, FEATURES), stack.initial_hidden(3))

    assert stack.hidden_shape == (2, width)
    assert hidden.shape == (3, 2, width)
    assert hidden.is_contiguous()


@pytest.mark.parametrize(("cell", "activation"), CELLS)
def test_step_leaves_the_hidden_state_it_was_given_alone(cell, activation):
    stack = make_stack(cell, activation, layers=2)
    hidden = torch.randn(16, *stack.hidden_shape, generator=torch.Generator().manual_seed(4))
    before = hidden.clone()

    with torch.inference_mode():
        stack.step(torch.ones(16, FEATURES), hidden)

    assert torch.equal(hidden, before)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("cell", "activation"), CELLS)
def test_a_row_has_the_same_bits_whatever_else_is_in_its_padded_wave(cell, activation, layers, seed):
    stack = make_stack(cell, activation, layers)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    x = torch.randn(1024, FEATURES, generator=generator)
    hidden = torch.randn(1024, *stack.hidden_shape, generator=generator)
    watched = 7

    answers = set()
    for size in (16, 1024, *(16 * rng.integers(1, 65, size=8))):
        others = rng.permutation(np.delete(np.arange(1024), watched))[: size - 1]
        position = int(rng.integers(size))
        rows = np.insert(others, position, watched)
        with torch.inference_mode():
            top, after = stack.step(x[rows], hidden[rows])
        answers.add((top[position].numpy().tobytes(), after[position].numpy().tobytes()))

    assert len(answers) == 1


def test_dropout_between_layers_acts_in_training_windows_only():
    stack = make_stack("gru", layers=2, dropout=0.5)
    window = torch.randn(3, 10, FEATURES, generator=torch.Generator().manual_seed(5))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        training, _ = stack.train()(window)
    evaluating, _ = stack.eval()(window)
    stepped, _ = step_through(stack.train(), window, stack.initial_hidden(3))

    assert not torch.allclose(training, evaluating)
    torch.testing.assert_close(stepped, evaluating, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("inputs", "outputs"), [(11, 7), (7, 7), (23, 5), (145, 11), (11, 1), (76, 15), (64, 90)])
def test_a_row_has_the_same_bits_wherever_it_stands_in_a_wave(inputs: int, outputs: int) -> None:
    """Else a stream's answer would depend on who came before it in the wave: horizon 5 has products with 5 outputs."""
    generator = torch.Generator().manual_seed(outputs)
    weight, bias = torch.randn(outputs, inputs, generator=generator), torch.randn(outputs, generator=generator)
    row = torch.randn(inputs, generator=generator)

    found = [linear(row.repeat(rows, 1), weight, bias) for rows in (16, 32, 48, 256, 1_024)]

    assert all(torch.equal(made, found[0][:1].expand_as(made)) for made in found)
    torch.testing.assert_close(found[0][0], weight @ row + bias)
