import numpy as np
import pytest

from forecaster.series.encoder import CLIP
from forecaster.series.standardising import standardise

NAN = np.nan


class ScalarInput:
    """One input of one stream, one number at a time."""

    def __init__(self):
        self.mean = self.spread = 0.0
        self.ticks = 0

    def tick(self, given):
        known = [float(np.float32(v)) for v in given if np.isfinite(v) and abs(v) <= 1e30]
        if known:
            self.ticks += 1
            weight = 1 / min(self.ticks, 1_344)
            self.mean += weight * (sum(known) / len(known) - self.mean)
            self.spread += weight * (sum(abs(v - self.mean) for v in known) / len(known) - self.spread)
        usual = max(1.2533 * self.spread, 1e-9 * abs(self.mean) + 1e-30)
        return [
            float(np.clip((np.float32(v) - self.mean) / usual, -CLIP, CLIP)) if abs(v) <= 1e30 else 0.0 for v in given
        ]


def run(ticks):
    """All ticks ``[T, B, N, V]`` one after the other: what was shown, and what is remembered at the end."""
    shape = ticks.shape[1:3]
    kept = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    shown = []
    for values in ticks:
        found, *kept = standardise(values, *kept, bound=CLIP)
        shown.append(found)
    return np.stack(shown), kept


@pytest.mark.parametrize("leads", [1, 2, 7])
def test_inputs_are_what_a_scalar_loop_makes_of_them(leads):
    """1,600 ticks: longer than the mean remembers. Some values are absent, some lists all, some beyond all bounds."""
    rng = np.random.default_rng(leads)
    ticks = 50.0 + 9.0 * rng.standard_normal((1_600, 3, 2, leads))
    ticks[:, 1, 1] *= 1e6
    ticks[rng.random(ticks.shape) < 0.2] = NAN
    ticks[rng.random(ticks.shape[:3]) < 0.1] = NAN
    ticks[rng.random(ticks.shape) < 0.01] = np.inf
    ticks[rng.random(ticks.shape) < 0.01] = 1e300

    shown, _ = run(ticks)

    for stream in range(3):
        for number in range(2):
            scalar = ScalarInput()
            expected = [scalar.tick(values) for values in ticks[:, stream, number]]
            np.testing.assert_allclose(shown[:, stream, number], expected, rtol=2e-3, atol=2e-3)


def test_the_first_list_is_measured_by_its_own_spread():
    """With one value at a time the second one would stand at the bound."""
    shown, _ = run(np.array([[[[10.0, 20.0, 30.0]]]]))

    np.testing.assert_allclose(shown[0, 0, 0], [-1.197, 0.0, 1.197], atol=1e-3)


def test_a_tick_without_a_value_leaves_what_is_remembered_alone():
    values = np.random.default_rng(0).normal(0, 1, (5, 2, 1, 3))

    _, before = run(values)
    _, after = run(np.concatenate((values, np.full((1, 2, 1, 3), NAN))))

    for mine, theirs in zip(after, before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_row_has_the_same_bits_alone_and_beside_others():
    rng = np.random.default_rng(1)
    ticks = rng.normal(3.0, 1.0, (40, 50, 2, 24))
    ticks[rng.random(ticks.shape) < 0.1] = NAN

    together, _ = run(ticks)

    for stream in (0, 17, 49):
        alone, _ = run(ticks[:, stream : stream + 1])
        np.testing.assert_array_equal(alone[:, 0], together[:, stream])


def test_a_constant_plan_says_nothing():
    shown, _ = run(np.full((50, 1, 1, 12), 0.1))

    assert not shown.any()
