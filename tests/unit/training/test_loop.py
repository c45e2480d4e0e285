import math

import numpy as np
import pytest
import torch

from forecaster.errors import TrainingFailed
from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.losses import forecast_loss
from forecaster.models.network import RecurrentForecaster
from forecaster.training.dataset import Batch
from forecaster.training.loop import FitPlan, answers, choose_device, fit

HORIZON = 2


def make_network(seed=0):
    hp = HyperParameters(
        feature_names=("x",), used_features=("x",), hidden=6, head_width=8, horizon=HORIZON, dropout=0.1
    )
    return RecurrentForecaster.seeded(hp, seed)


class Copying:
    """Windows whose targets are the last input, times one and times minus one: a task that can be learnt."""

    def __init__(self, *, target_factor=1.0):
        self.factor = target_factor
        self.drawn = 0

    def draw(self, windows, rng):
        self.drawn += 1
        x = rng.normal(size=(windows, 12, 1)).astype(np.float32)
        origins = np.sort(rng.integers(4, 12, size=(windows, 5)), axis=1)
        last = np.take_along_axis(x[..., 0], origins, axis=1)[..., None]
        target = np.concatenate((last, -last), axis=-1) * self.factor
        return Batch(
            torch.from_numpy(x),
            torch.from_numpy(origins),
            torch.zeros(windows, 5, HORIZON),
            torch.from_numpy(target.astype(np.float32)),
            torch.ones(windows, 5, HORIZON, dtype=torch.bool),
        )


def copying_error(network):
    batch = Copying().draw(64, np.random.default_rng(99))
    with torch.inference_mode():
        tops, _ = network(batch.features)
        picked = batch.origins[..., None]
        top = tops.gather(1, picked.expand(-1, -1, tops.shape[-1]))
        inputs = batch.features.gather(1, picked)
        return (network.quantiles(top, inputs, batch.ahead)[..., 1] - batch.target).abs().mean().item()


def run(network=None, dataset=None, **overrides):
    network = network or make_network()
    of_plan = {k: overrides.pop(k) for k in list(overrides) if k in FitPlan.__struct_fields__}
    plan = FitPlan(**{"batch": 16, "validate_every": 10, "learning_rate": 3e-3, **of_plan})
    arguments = {"validate": copying_error, "seed": 1, "steps": 60, **overrides}
    return network, fit(network, dataset or Copying(), plan=plan, **arguments)


def test_fit_learns_what_can_be_learnt():
    network, result = run(steps=150, learning_rate=1e-2)

    assert result.best_validation < 0.35 * result.start_validation
    assert copying_error(network) == pytest.approx(result.best_validation)
    assert not network.training


def test_one_seed_gives_one_result_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)

    first, _ = run()
    assert torch.equal(torch.rand(2), expected)
    same, _ = run()  # from another state of the global generator
    other, _ = run(seed=2)

    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.head.enter.weight, other.head.enter.weight)


def test_weights_kept_are_those_that_validated_best():
    looks = iter([5.0, 4.0, 1.0, 3.0, 2.0, 2.0, 2.0])
    seen = []

    def validate(network):
        seen.append([p.detach().clone() for p in network.parameters()])
        return next(looks)

    network, result = run(validate=validate)

    assert (result.best_step, result.best_validation, result.start_validation) == (20, 1.0, 5.0)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), seen[2], strict=True))


def test_start_is_kept_when_nothing_validates_better():
    looks = iter(range(100))
    network, before = make_network(), make_network()

    _, result = run(network, validate=lambda _: float(next(looks)))

    assert result.best_step == 0
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize(("patience", "kept"), [(0, 60), (1_000, 20)])
def test_without_early_stopping_the_last_weights_are_kept_and_not_the_best(patience, kept):
    scores = iter([5.0, 4.0, 1.0, 2.0, 3.0, 4.0, 5.0])  # at the start, and at every tenth step

    _, result = run(dataset=Copying(), validate=lambda _: next(scores), patience=patience)

    assert (result.best_step, result.steps, result.stopped_by) == (kept, 60, "steps")


def test_patience_ends_a_fit_that_no_longer_gains():
    dataset = Copying()

    _, result = run(dataset=dataset, validate=lambda _: 1.0, patience=3)

    assert (result.stopped_by, result.steps, dataset.drawn) == ("patience", 30, 30)


def test_time_limit_ends_a_fit_with_the_best_so_far():
    ticks = iter(range(1000))

    _, result = run(max_seconds=20.0, monotonic=lambda: float(next(ticks)))

    assert result.stopped_by == "time"
    assert 0 < result.steps < 60


def test_progress_is_told_of_every_step():
    told = []

    run(on_progress=told.append)

    assert [p.step for p in told] == list(range(1, 61))
    assert math.isfinite(told[-1].loss)
    assert math.isfinite(told[-1].validation)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_targets_that_are_no_numbers_end_in_training_failed(factor):
    with pytest.raises(TrainingFailed, match="diverged at step 1 of 60") as failure:
        run(dataset=Copying(target_factor=factor))

    assert failure.value.hint


def test_validation_that_is_no_number_ends_in_training_failed():
    with pytest.raises(TrainingFailed, match="no number after step 0"):
        run(validate=lambda _: float("nan"))


def weights_of(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"optimiser": "adamw", "learning_rate": 1e-2}, 0.45),
        ({"optimiser": "adam", "learning_rate": 1e-2, "schedule": "cosine"}, 0.45),
        ({"optimiser": "sgd", "learning_rate": 0.3, "schedule": "constant"}, 0.6),
    ],
    ids=["adamw", "adam", "sgd"],
)
def test_every_optimiser_learns(overrides, expected):
    _, result = run(steps=150, **overrides)

    assert result.best_validation < expected * result.start_validation


class Recorded:
    """One batch for ever, and the gradient it gives at the start."""

    def __init__(self):
        self.batch = Copying().draw(16, np.random.default_rng(0))

    def draw(self, windows, rng):
        return self.batch

    def gradients(self, network):
        network.eval()  # no dropout, as in the tests that use this
        quantiles = answers(network, self.batch)
        forecast_loss(quantiles, self.batch.target, self.batch.observed, network.levels).backward()
        return [p.grad.clone() for p in network.parameters()]


def without_dropout(seed=0):
    hp = HyperParameters(feature_names=("x",), used_features=("x",), hidden=6, head_width=8, horizon=HORIZON, dropout=0)
    return RecurrentForecaster.seeded(hp, seed)


def one_step(**plan):
    network = without_dropout()
    looks = iter([1.0, 0.0])  # what comes after the step is kept
    run(
        network,
        Recorded(),
        steps=1,
        validate=lambda _: next(looks),
        **{"schedule": "constant", "averaging": 0.0, "learning_rate": 0.1, "clip": 0.0, **plan},
    )
    return network


def test_one_step_of_sgd_is_the_gradient_times_the_rate_with_its_penalties():
    before, gradients = without_dropout(), Recorded().gradients(without_dropout())

    after = one_step(optimiser="sgd", l2=0.5, l1=0.01)

    for start, gradient, end in zip(before.parameters(), gradients, after.parameters(), strict=True):
        expected = start - 0.1 * (gradient + 0.5 * start + 0.01 * start.sign())
        torch.testing.assert_close(end, expected)


def test_one_step_of_adamw_moves_each_weight_by_the_rate_and_decays_it_apart():
    before, gradients = without_dropout(), Recorded().gradients(without_dropout())

    after = one_step(optimiser="adamw", l2=0.2)

    for start, gradient, end in zip(before.parameters(), gradients, after.parameters(), strict=True):
        expected = start * (1 - 0.1 * 0.2) - 0.1 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(end, expected)


def test_a_long_gradient_is_cut_to_the_length_allowed():
    before = weights_of(without_dropout())

    moved = weights_of(one_step(optimiser="sgd", l2=0.0, clip=0.01)) - before

    assert moved.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_l1_makes_weights_small_that_do_not_help():
    few, _ = run(steps=120, l1=3e-3, l2=0.0, validate=counting_down())
    many, _ = run(steps=120, l1=0.0, l2=0.0, validate=counting_down())

    assert (weights_of(few).abs() < 1e-2).float().mean() > 1.5 * (weights_of(many).abs() < 1e-2).float().mean()


def counting_down():
    """A validation that is better at every look, so that the last weights are kept."""
    looks = iter(range(1_000, 0, -1))
    return lambda _: float(next(looks))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_truncation_changes_no_answer_and_lets_no_gradient_past_its_reach(cell):
    hp = HyperParameters(
        cell=cell, layers=2, dropout=0.0, feature_names=("x",), used_features=("x",), hidden=6, horizon=HORIZON
    )
    network, batch = RecurrentForecaster.seeded(hp, 0), Copying().draw(3, np.random.default_rng(0))
    batch = batch._replace(features=batch.features.requires_grad_(True), origins=torch.full((3, 1), 11))
    batch = batch._replace(ahead=torch.zeros(3, 1, HORIZON))

    whole, truncated = answers(network, batch), answers(network, batch, backprop_steps=5)  # ticks 0-4, 5-9, 10-11

    torch.testing.assert_close(truncated, whole)
    (reach,) = torch.autograd.grad(truncated.sum(), batch.features)
    assert (reach[:, :10] == 0).all()
    assert (reach[:, 10:] != 0).all()
    (everything,) = torch.autograd.grad(whole.sum(), batch.features)
    assert (everything != 0).all()


def test_frozen_body_stays_as_it_was_and_moves_afterwards():
    start = make_network()
    frozen, _ = run(steps=20, freeze_steps=20, validate=counting_down())
    thawed, _ = run(steps=20, freeze_steps=10, validate=counting_down())

    for before, held, moved in zip(
        start.body.parameters(), frozen.body.parameters(), thawed.body.parameters(), strict=True
    ):
        assert torch.equal(before, held)
        assert not torch.equal(before, moved)
    assert not torch.equal(start.head.enter.weight, frozen.head.enter.weight)
    assert all(p.requires_grad for p in frozen.parameters())


class Interrupted(Exception):
    """Stands for a killed process."""


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("at", [5, 34, 60], ids=["before_a_look", "between_looks", "after_the_end"])
def test_a_fit_that_was_killed_and_resumed_ends_with_the_same_bits(tmp_path, optimiser, at):
    def killed(progress):
        if progress.step == at:
            raise Interrupted

    arguments = {"optimiser": optimiser, "checkpoint": tmp_path / "a.fit", "freeze_steps": 15}
    whole, expected = run(optimiser=optimiser, freeze_steps=15)

    with pytest.raises(Interrupted):
        run(on_progress=killed, **arguments)
    resumed, found = run(**arguments)

    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert found._replace(seconds=0.0) == expected._replace(seconds=0.0)


def test_resuming_makes_only_the_steps_that_are_left(tmp_path):
    dataset = Copying()
    run(checkpoint=tmp_path / "a.fit")

    run(dataset=dataset, checkpoint=tmp_path / "a.fit")

    assert dataset.drawn == 0


@pytest.mark.parametrize(
    "other", [{"seed": 2}, {"learning_rate": 1e-2}, {"steps": 61}, {"data_identity": "x"}], ids=lambda o: next(iter(o))
)
def test_checkpoint_of_another_training_is_refused(tmp_path, other):
    run(checkpoint=tmp_path / "a.fit")

    with pytest.raises(TrainingFailed, match="belongs to training") as failure:
        run(checkpoint=tmp_path / "a.fit", **other)

    assert "same data, seed and settings" in failure.value.hint


def test_checkpoint_that_was_cut_is_a_clear_failure(tmp_path):
    run(checkpoint=tmp_path / "a.fit")
    content = (tmp_path / "a.fit").read_bytes()
    (tmp_path / "a.fit").write_bytes(content[: len(content) // 2])

    with pytest.raises(TrainingFailed, match="cannot be read"):
        run(checkpoint=tmp_path / "a.fit")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_auto_is_the_cpu_and_asking_for_one_says_so():
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(TrainingFailed, match="no such device"):
        run(device="cuda")
