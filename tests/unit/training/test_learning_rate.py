import pytest
import torch

from forecaster.training.learning_rate import pace


@pytest.mark.parametrize("steps", [2, 5, 10, 33, 400])
def test_one_cycle_is_torchs_bit_for_bit(steps):
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.3)
    expected = []
    for _ in range(steps):
        expected.append((optimiser.param_groups[0]["lr"], optimiser.param_groups[0]["betas"][0]))
        optimiser.step()
        if len(expected) < steps:
            schedule.step()

    found = [pace("one_cycle", step, steps=steps, peak=3e-3, momentum=0.9) for step in range(1, steps + 1)]

    assert found == expected


def test_cosine_is_torchs():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=50)
    expected = []
    for _ in range(50):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()

    found = [pace("cosine", step, steps=50, peak=0.1, momentum=0.9)[0] for step in range(1, 51)]

    assert found == pytest.approx(expected)


def test_a_single_step_has_a_rate():
    for schedule in ("one_cycle", "cosine", "constant"):
        rate, momentum = pace(schedule, 1, steps=1, peak=0.1, momentum=0.9)
        assert 0 < rate <= 0.1
        assert 0.8 < momentum < 1
