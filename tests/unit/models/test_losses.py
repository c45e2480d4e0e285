import pytest
import torch

from forecaster.models.losses import forecast_loss, l1_penalty, l2_penalty, pinball

LEVELS = torch.tensor([0.1, 0.5, 0.9])


def test_pinball_charges_each_side_by_its_level():
    forecast = torch.tensor([[1.0, 2.0, 3.0]])
    target = torch.tensor([5.0])

    loss = pinball(forecast, target, LEVELS)
    mirrored = pinball(-forecast, -target, LEVELS)

    torch.testing.assert_close(loss, torch.tensor([[0.4, 1.5, 1.8]]))
    torch.testing.assert_close(mirrored, torch.tensor([[3.6, 1.5, 0.2]]))


def test_forecast_loss_equals_the_hand_computed_case():
    forecast = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    target = torch.tensor([[5.0, 0.5]])
    observed = torch.tensor([[True, True]])

    loss = forecast_loss(forecast, target, observed, LEVELS, huber_weight=0.5)

    first = (0.4 + 1.5 + 1.8) / 3 + 0.5 * (3.0 - 0.5)
    second = (0.05 + 0.25 + 0.45) / 3 + 0.5 * (0.5 * 0.25)
    assert loss.item() == pytest.approx((first + second) / 2)


def test_unobserved_targets_change_neither_loss_nor_gradient():
    observed = torch.tensor([[True, False]])
    losses, gradients = [], []
    for absent in (0.0, 1e9, float("nan")):
        forecast = torch.ones(1, 2, 3, requires_grad=True)
        loss = forecast_loss(forecast, torch.tensor([[2.0, absent]]), observed, LEVELS)
        loss.backward()
        losses.append(loss.item())
        gradients.append(forecast.grad)

    assert losses[0] == losses[1] == losses[2]
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    assert gradients[0][0, 1].abs().max() == 0.0


def test_loss_of_nothing_observed_is_zero_with_a_finite_gradient():
    forecast = torch.ones(1, 2, 3, requires_grad=True)

    loss = forecast_loss(forecast, torch.full((1, 2), float("nan")), torch.zeros(1, 2, dtype=torch.bool), LEVELS)
    loss.backward()

    assert loss.item() == 0.0
    assert forecast.grad.abs().max() == 0.0


def test_penalties_sum_over_all_parameters():
    parameters = [torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])]

    assert l1_penalty(parameters).item() == 6.0
    assert l2_penalty(parameters).item() == 14.0
