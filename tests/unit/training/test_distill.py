import numpy as np
import pytest
import torch

from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.losses import pinball
from forecaster.models.network import RecurrentForecaster
from forecaster.training.dataset import Batch
from forecaster.training.distill import distillation

HORIZON = 3


def network(seed, hidden=5):
    hp = HyperParameters(
        feature_names=("x", "y"), used_features=("x", "y"), hidden=hidden, head_width=7, horizon=HORIZON, dropout=0.5
    )
    return RecurrentForecaster.seeded(hp, seed)


def batch():
    g = torch.Generator().manual_seed(0)
    return Batch(
        torch.randn(4, 10, 2, generator=g),
        torch.tensor([[2, 5, 9]] * 4),
        torch.randn(4, 3, HORIZON, generator=g),
        torch.randn(4, 3, HORIZON, generator=g),
        torch.rand(4, 3, HORIZON, generator=g) < 0.7,
    )


def stepped(member, drawn):
    """A network's quantiles at the origins, one tick after the other as serving makes them."""
    hidden, made = member.initial_hidden(4), []
    for tick in range(10):
        top, hidden = member.step(drawn.features[:, tick], hidden)
        made.append(top)
    return torch.stack(
        [member.quantiles(made[at], drawn.features[:, at], drawn.ahead[:, k]) for k, at in enumerate((2, 5, 9))], dim=1
    )


def test_loss_is_pinball_plus_distance_to_the_mean_of_the_members_quantiles():
    drawn, members = batch(), [network(1), network(2, hidden=9)]
    quantiles, levels = torch.randn(4, 3, HORIZON, 3).sort(-1).values, torch.tensor([0.1, 0.5, 0.9])

    found = distillation(members, 0.5)(drawn, quantiles, levels)

    with torch.no_grad():
        teacher = (stepped(members[0].eval(), drawn) + stepped(members[1].eval(), drawn)) / 2
    each = pinball(quantiles, drawn.target, levels).mean(-1) + 0.5 * (quantiles - teacher).abs().mean(-1)
    torch.testing.assert_close(found, each[drawn.observed].mean())


def test_teacher_learns_nothing_and_is_not_changed():
    member = network(1)
    quantiles = torch.zeros(4, 3, HORIZON, 3, requires_grad=True)

    distillation([member], 1.0)(batch(), quantiles, torch.tensor([0.1, 0.5, 0.9])).backward()

    assert quantiles.grad is not None
    assert all(p.grad is None and p.requires_grad for p in member.parameters())


def test_without_weight_the_teacher_does_not_matter():
    quantiles, levels = torch.zeros(4, 3, HORIZON, 3), torch.tensor([0.1, 0.5, 0.9])

    one, other = (distillation([network(seed)], 0.0)(batch(), quantiles, levels) for seed in (1, 2))

    assert one.item() == other.item()
    assert np.isfinite(one.item())
    assert distillation([network(1)], 1.0)(batch(), quantiles, levels).item() != pytest.approx(one.item())
