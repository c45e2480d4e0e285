import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.models.heads import LOOK_AHEAD_CLIP, QuantileHead


def make_head(levels=9, horizon=6, hidden=8, features=4, *, seed=0, scale=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = QuantileHead(hidden=hidden, features=features, horizon=horizon, levels=levels, head_width=16)
        if scale:
            for parameter in head.parameters():
                torch.nn.init.normal_(parameter, std=scale)
        return head


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    weight_scale=st.sampled_from([0.1, 1.0, 30.0]),
    input_scale=st.sampled_from([0.0, 1.0, 1e3, 1e6]),
    levels=st.sampled_from([1, 3, 5, 9]),
)
def test_quantiles_never_cross_for_any_weights_and_extreme_inputs(seed, weight_scale, input_scale, levels):
    head = make_head(levels, seed=seed, scale=weight_scale)
    generator = torch.Generator().manual_seed(seed)
    top, inputs, ahead = (input_scale * torch.randn(5, width, generator=generator) for width in (8, 4, 6))

    with torch.inference_mode():
        quantiles = head(top, inputs, ahead)

    assert quantiles.shape == (5, 6, levels)
    assert torch.isfinite(quantiles).all()
    assert (quantiles.diff(dim=-1) >= 0).all()


def test_highway_starts_without_influence_and_then_is_linear_in_inputs_and_look_ahead():
    head = make_head(levels=3)
    top, inputs = torch.zeros(1, 8), torch.randn(1, 4, generator=torch.Generator().manual_seed(1))
    ahead = torch.zeros(1, 6)

    with torch.inference_mode():
        untouched = head(top, inputs, ahead) - head(top, torch.zeros(1, 4), ahead)
        head.highway.weight[2, 1] = 3.0
        moved = head(top, inputs, ahead) - head(top, torch.zeros(1, 4), ahead)

    assert untouched.abs().max() == 0.0
    expected = torch.zeros(6)
    expected[2] = 3.0 * inputs[0, 1]
    for level in range(3):
        torch.testing.assert_close(moved[0, :, level], expected, atol=1e-5, rtol=0)


def test_head_started_from_quantiles_answers_them_when_its_body_is_silent():
    head = make_head(levels=5, horizon=2)
    torch.nn.init.zeros_(head.leave.weight)
    wanted = torch.tensor([[-2.0, -1.0, 0.0, 0.5, 3.0], [-4.0, -1.5, 0.2, 1.0, 9.0]])

    head.start_from(wanted)
    with torch.inference_mode():
        answer = head(torch.zeros(8), torch.zeros(4), torch.zeros(2))

    torch.testing.assert_close(answer, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 7)])
def test_leading_axes_are_free(shape):
    head = make_head(levels=3)

    answer = head(torch.zeros(*shape, 8), torch.zeros(*shape, 4), torch.zeros(*shape, 6))

    assert answer.shape == (*shape, 6, 3)


def test_a_look_ahead_beyond_the_clip_moves_all_quantiles_by_what_exceeds_it():
    """A stream that repeats itself almost exactly has a tiny scale and an enormous look-ahead: it is the forecast."""
    head = make_head(levels=3)
    top, inputs = torch.zeros(1, 8), torch.zeros(1, 4)
    at_clip = torch.full((1, 6), LOOK_AHEAD_CLIP)
    beyond = torch.tensor([[0.0, 1.0, 50.0, 1000.0, 3.0, 7.0]])

    with torch.inference_mode():
        moved = head(top, inputs, at_clip + beyond) - head(top, inputs, at_clip)
        mirrored = head(top, inputs, -at_clip - beyond) - head(top, inputs, -at_clip)

    for level in range(3):
        torch.testing.assert_close(moved[..., level], beyond, atol=1e-3, rtol=1e-6)
        torch.testing.assert_close(mirrored[..., level], -beyond, atol=1e-3, rtol=1e-6)
