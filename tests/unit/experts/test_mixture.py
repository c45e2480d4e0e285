import numpy as np
import pytest

from forecaster.experts.mixture import LeadInterpolation, MLPoly
from forecaster.series.rows import Rows

LEVELS = (0.1, 0.5, 0.9)
LEADS = (1, 2, 4)
SHAPE = np.array([-1.5, 0.0, 1.5], np.float32)
EVERYBODY = np.ones((1, 3), bool)


def make_mixture():
    """Two experts that answer with points, and one with quantiles."""
    mixture = MLPoly(
        leads=LEADS, experts=("naive", "level", "recurrent"), quantile_levels=LEVELS, shape=SHAPE, horizon=4
    )
    return mixture, Rows(mixture.columns, 3)


class ScalarMLPoly:
    """Gaillard, Stoltz, van Erven (2014) for one stream and lead, number by number; regret fades with 1 in 4,096."""

    def __init__(self, experts):
        self.regret, self.inverse_rate, self.bound = ([0.0] * experts for _ in range(3))

    def weights(self, available):
        raw = [
            max(regret, 0.0) / max(inverse, 1e-12) if here else 0.0
            for regret, inverse, here in zip(self.regret, self.inverse_rate, available, strict=True)
        ]
        if sum(raw) > 0:
            return [w / sum(raw) for w in raw]
        return [here / sum(available) for here in available]

    def update(self, target, quantiles, scale):
        available = [not np.isnan(rows[0]) for rows in quantiles]
        weights = self.weights(available)
        mixed = [
            sum(w * rows[q] for w, rows, here in zip(weights, quantiles, available, strict=True) if here)
            for q in range(len(LEVELS))
        ]
        instant = [0.0] * len(quantiles)
        for k, rows in enumerate(quantiles):
            if available[k]:
                for q, level in enumerate(LEVELS):
                    gradient = (1.0 if target < mixed[q] else 0.0) - level
                    instant[k] += gradient * (mixed[q] - rows[q]) / scale / len(LEVELS)
        largest = max(r * r for r in instant)
        for k in range(len(quantiles)):
            if available[k]:
                bound = max(self.bound[k], largest)
                self.regret[k] = (1 - 1 / 4_096) * self.regret[k] + instant[k]
                self.inverse_rate[k] = (1 - 1 / 4_096) * self.inverse_rate[k] + instant[k] ** 2 + bound - self.bound[k]
                self.bound[k] = bound


@pytest.mark.parametrize("seed", range(4))
def test_weights_follow_the_formulas_of_the_paper(seed):
    """Three streams and three leads beside each other; experts come and go, targets are missing now and then."""
    rng = np.random.default_rng(seed)
    mixture, c = make_mixture()
    scalars = [[ScalarMLPoly(3) for _ in LEADS] for _ in range(3)]
    slots, scale = np.arange(3), np.array([0.01, 1.0, 500.0])
    skill = rng.uniform(0.2, 2.0, (3, 3))

    for step in range(300):
        target = scale * rng.standard_normal(3)
        center = scale[:, None, None] * skill[:, None, :] * rng.standard_normal((3, 3, 3))
        center[rng.random((3, 3)) < 0.1, 1] = np.nan
        center[:, :, 2] = np.nan if step < 50 else center[:, :, 2]
        spread = rng.uniform(0.5, 2.0, (3, 3, 2)).astype(np.float32)
        made = center[:, :, 2, None] + scale[:, None, None] * np.array([-1.0, 0.0, 1.2])
        about_points = center[:, :, :2, None] + scale[:, None, None, None] * spread[..., None] * SHAPE
        quantiles = np.concatenate((about_points, made[:, :, None]), axis=2)
        settled = rng.random((3, 3)) < 0.7

        def relative(values, target=target):
            return ((values.T - target) / scale).T

        mixture.update(c, slots, settled, relative(center[:, :, :2]), spread, relative(made))
        for s in range(3):
            for a in range(3):
                if settled[s, a]:
                    scalars[s][a].update(float(target[s]), quantiles[s, a].tolist(), scale[s])

    found = mixture.weights(c, slots, np.ones((3, 3), bool))[:, [0, 1, 3]]
    expected = [[scalar.weights([True] * 3) for scalar in row] for row in scalars]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def learn(mixture, c, experts_at, steps=400, seed=0):
    """Let stream 1 settle ``steps`` targets; ``experts_at(rng, target)`` gives each expert's centre."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        target = rng.standard_normal()
        away = np.array(experts_at(rng, target), float) - target
        points = np.broadcast_to(away[:2], (1, len(LEADS), 2))
        made = np.broadcast_to(away[2] + np.array([-0.5, 0.0, 0.5]), (1, len(LEADS), 3))
        spread = np.full(points.shape, 1 / 3, np.float32)  # the same quantiles about the points
        mixture.update(c, np.array([1]), np.ones((1, 3), bool), points, spread, made)


def test_an_expert_that_is_always_right_gets_nearly_all_the_weight():
    mixture, c = make_mixture()

    learn(mixture, c, lambda rng, target: [rng.standard_normal(), target, rng.standard_normal()])

    weights = mixture.weights(c, np.array([1]), EVERYBODY)[0]
    assert (weights[:, 1] > 0.97).all()
    assert mixture.weights(c, np.array([0]), EVERYBODY)[0] == pytest.approx(1 / 3)


def test_an_expert_that_never_answers_gets_no_weight_and_no_record():
    mixture, c = make_mixture()

    learn(mixture, c, lambda rng, target: [rng.standard_normal(), target + 0.3, np.nan])

    assert not mixture.weights(c, np.array([1]), np.array([[True, True, False]]))[0, :, 2].any()
    assert not c["regret"][1, :, 2].any()


def test_when_the_leader_is_away_the_others_share_its_weight():
    mixture, c = make_mixture()
    learn(mixture, c, lambda rng, target: [rng.standard_normal(), target, rng.standard_normal()])

    weights = mixture.weights(c, np.array([1]), np.array([[True, False, True]]))[0]

    assert not weights[:, 1].any()
    assert weights.sum(axis=1) == pytest.approx(1.0)


def test_weights_move_to_the_expert_that_has_become_right():
    mixture, c = make_mixture()
    learn(mixture, c, lambda rng, target: [target, rng.standard_normal(), 3.0])

    learn(mixture, c, lambda rng, target: [rng.standard_normal(), target, 3.0], steps=1_500)

    assert (mixture.weights(c, np.array([1]), EVERYBODY)[0, :, 1] > 0.8).all()


@pytest.mark.parametrize("seed", range(10))
def test_weights_are_shares_of_one_whatever_happened(seed):
    rng = np.random.default_rng(seed)
    mixture, c = make_mixture()
    for name in c:
        c[name][:] = rng.normal(0, 10.0 ** rng.integers(-20, 8), c[name].shape)
    c["inverse_rate"][:] = np.abs(c["inverse_rate"])
    available = np.concatenate((EVERYBODY, rng.random((2, 3)) < 0.5))
    available[:, 0] = True

    weights = mixture.weights(c, np.arange(3), available)

    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=2), 1.0, atol=1e-6)
    assert not weights[~np.repeat(available[:, None], 4, axis=1)].any()


def test_a_target_that_did_not_arrive_teaches_nothing():
    mixture, c = make_mixture()
    before = {name: array.copy() for name, array in c.items()}

    spread = np.ones((1, 3, 2), np.float32)
    mixture.update(c, np.array([1]), np.zeros((1, 3), bool), np.full((1, 3, 2), 4.0), spread, np.full((1, 3, 3), 2.0))

    for name, array in c.items():
        np.testing.assert_array_equal(array, before[name])


def test_a_reading_without_scale_behind_it_teaches_within_bounds():
    """The first move of a stream that was constant: the error is next to infinite in units of its scale."""
    mixture, c = make_mixture()
    points, spread = np.full((1, 3, 2), -1e50), np.zeros((1, 3, 2), np.float32)
    points[:, :, 1] = 0.0

    mixture.update(c, np.array([1]), np.ones((1, 3), bool), points, spread, np.full((1, 3, 3), -1e50))

    assert all(np.isfinite(array).all() for array in c.values())
    assert (mixture.weights(c, np.array([1]), EVERYBODY)[0, :, 1] > 0.99).all()


def test_values_between_anchor_leads_are_on_the_line_between_them():
    between = LeadInterpolation((1, 2, 4, 8, 10), 10)

    found = between.apply(np.array([[[0.0], [10.0], [30.0], [-10.0], [5.0]]], np.float32))

    np.testing.assert_allclose(found[0, :, 0], [0, 10, 20, 30, 20, 10, 0, -10, -2.5, 5], atol=1e-5)


def test_a_mixture_is_the_weighted_mean_of_each_quantile():
    mixture, _ = make_mixture()
    weights = np.array([[[0.25, 0.25, 0.5]]], np.float32)
    points, spread = np.array([[[0.0, 4.0]]], np.float32), np.array([[[1.0, 3.0]]], np.float32)
    made = np.array([[[-2.0, 1.0, 8.0]]], np.float32)

    # quantiles about the points: -1.5, 0, 1.5 and -0.5, 4, 8.5
    assert mixture.mix(weights, points, spread, made).tolist() == [[[-1.5, 1.5, 6.5]]]


def test_mixed_quantiles_keep_their_order():
    mixture, _ = make_mixture()
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), (200, 4)).astype(np.float32)
    points, spread = rng.normal(0, 1e3, (200, 4, 2)), rng.exponential(1e-3, (200, 4, 2))
    made = np.sort(rng.normal(0, 1e-3, (200, 4, 3)), axis=2)

    mixed = mixture.mix(weights, *(part.astype(np.float32) for part in (points, spread, made)))

    assert (np.diff(mixed, axis=2) >= 0).all()


@pytest.mark.parametrize("rows", [1, 16, 48])
def test_shares_are_the_mean_over_all_leads_as_numpy_has_it_to_the_bit(rows):
    weights = np.random.default_rng(rows).dirichlet(np.ones(5), (rows, 12)).astype(np.float32)

    np.testing.assert_array_equal(MLPoly.shares(weights), weights.mean(axis=1))
