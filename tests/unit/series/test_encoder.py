import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forecaster.series.encoder import CLIP, SeriesEncoder, _remainder
from forecaster.series.rows import Rows

START = 1_767_225_600.0


class ScalarEncoder:
    """The formulas of the encoder for one stream, one number at a time, over its whole history."""

    def __init__(self, season=0, covariates=0):
        self.season = season
        self.history = []  # values, missing ones held
        self.seen = 0
        self.since = 0.0
        self.level = self.change = 0.0
        self.scale = self.long = 1e-30
        self.covariates = [[0.0, 0.0, 0] for _ in range(covariates)]  # mean, spread, count

    def lagged(self, lag):
        return self.history[-lag] if 0 < lag <= len(self.history) else None

    def tick(self, time, value, elapsed, covariates=()):
        missing = math.isnan(value)
        if missing:
            x = before = self.history[-1] if self.history else 0.0
            level = self.level
        elif self.seen == 0:
            x = before = level = self.level = value
            self.history = [x] * len(self.history)  # what came before the first value is read as that value
            self.scale = self.long = 1e-9 * abs(x) + 1e-30
            self.seen = 1
        else:
            x, before, level = value, self.history[-1], self.level
        at_season, at_week = self.lagged(self.season), self.lagged(7 * self.season)
        if not missing and before is not x:
            self.learn(x, before, before if at_season is None else at_season)
        scale = max(self.scale, self.floor(x))
        self.since += elapsed
        features = [
            clip((x - before) / scale),
            clip((x - level) / scale),
            0.0 if at_season is None else clip((x - at_season) / scale),
            0.0 if at_week is None else clip((x - at_week) / scale),
            clip(math.log(scale / self.long)),
            math.sin(2 * math.pi * time / 86_400),
            math.cos(2 * math.pi * time / 86_400),
            math.sin(2 * math.pi * time / 604_800),
            math.cos(2 * math.pi * time / 604_800),
            math.log(1 + self.since),
            float(missing),
            *(self.covariate(k, given) for k, given in enumerate(covariates)),
        ]
        self.history.append(x)
        if not missing:
            self.since = 0.0
        return features, x, scale

    def floor(self, x):
        before = self.history[-1:] or [x]
        return 1e-9 * sorted([abs(x), abs(before[0]), abs((self.history[-2:-1] or before)[0])])[1] + 1e-30

    def learn(self, x, before, reference):
        self.seen += 1
        n = self.seen - 1  # differences so far
        floor = self.floor(x)
        distance, old = abs(x - reference), self.scale
        asleep = old <= 10 * floor
        capped = distance if asleep or n <= 8 else min(distance, 5 * old)
        self.scale = old + (capped - old) / min(n, 168)
        self.long += (capped - self.long) / min(n, 1_344)
        if asleep and distance > 10 * floor:
            self.scale = self.long = distance / min(n, 8)
        self.scale, self.long = max(self.scale, floor), max(self.long, floor)
        step = abs(x - before)
        if n > 8:
            step = min(step, max(5 * self.change, capped))
        self.change += (step - self.change) / min(n, 168)
        middle = sorted([x, before, (self.history[-2:-1] or [before])[0]])[1]
        tame = x if asleep or n <= 8 else min(max(x, middle - CLIP * old), middle + CLIP * old)
        self.level += (tame - self.level) / min(self.seen, 48)

    def covariate(self, k, given):
        given = float(np.float32(given))
        mean, spread, count = self.covariates[k]
        if math.isnan(given):
            return 0.0
        count += 1
        mean += (given - mean) / min(count, 1_344)
        spread += (abs(given - mean) - spread) / min(count, 1_344)
        self.covariates[k] = [mean, spread, count]
        return clip((given - mean) / max(1.2533 * spread, 1e-9 * abs(mean) + 1e-30))

    def ahead(self, horizon, scale):
        last, m = len(self.history) - 1, self.season
        if m == 0 or last < m:
            return [0.0] * horizon
        return [
            (self.history[last + h - m * math.ceil(h / m)] - self.history[last]) / scale for h in range(1, horizon + 1)
        ]


def clip(x):
    return min(max(x, -CLIP), CLIP)


def messy_series(rng, ticks, *, starts_missing=False, starts_constant=False, missing=0.15):
    """Times, values and elapsed steps of an irregular series with holes, a jump and a day-like shape."""
    elapsed = np.round(rng.uniform(0.3, 1.7, ticks), 2)
    values = 100.0 + np.cumsum(rng.standard_normal(ticks)) + 4 * np.sin(np.arange(ticks) / 2)
    values[ticks // 2 :] += 300.0
    if starts_constant:
        values[: ticks // 3] = 5.0
    values[rng.random(ticks) < missing] = np.nan
    if starts_missing:
        values[:4] = np.nan
    return START + 60.0 * np.cumsum(elapsed), values, elapsed


@pytest.mark.parametrize(
    "shape", [{}, {"starts_missing": True}, {"starts_constant": True}, {"missing": 0.0}, {"missing": 0.7}]
)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("season", [0, 5, 24])
def test_features_equal_a_scalar_loop_over_the_whole_history(season, shape, seed):
    """250 ticks through a ring of 40: it wraps around six times. The ring is in single precision."""
    rng = np.random.default_rng(seed)
    times, values, elapsed = messy_series(rng, 250, **shape)
    covariates = np.where(rng.random((250, 2)) < 0.2, np.nan, rng.normal(50, 9, (250, 2)))
    encoder = SeriesEncoder(ring_steps=40, horizon=7, covariates=2)
    c = Rows(encoder.columns, 3)
    c["season"][1] = season
    scalar = ScalarEncoder(season, covariates=2)
    if 7 * season > 40:
        week = 7 * season
        scalar.lagged = lambda lag: None if lag == week else ScalarEncoder.lagged(scalar, lag)

    slots = np.array([1])
    for t in range(250):
        inputs = encoder.tick(c, slots, times[t : t + 1], values[t : t + 1], elapsed[t : t + 1], covariates[t : t + 1])
        features, x, scale = scalar.tick(times[t], values[t], elapsed[t], covariates[t])
        ahead, known = encoder.ahead(c, slots, inputs.origin, inputs.scale)

        np.testing.assert_allclose(inputs.features[0], features, rtol=2e-3, atol=2e-3, err_msg=f"tick {t}")
        assert inputs.origin[0] == x
        assert inputs.scale[0] == pytest.approx(scale, rel=1e-4)
        assert known[0] == (0 < season <= t)
        if scalar.seen:
            np.testing.assert_allclose(ahead[0], scalar.ahead(7, scale), rtol=1e-3, atol=1e-3 + 4e-5 / scale)
    assert c["tick"].tolist() == [0, 250, 0]


@pytest.mark.parametrize(("season", "horizon"), [(3, 8), (8, 3), (5, 5), (1, 4), (40, 6)])
def test_look_ahead_is_the_value_a_whole_number_of_seasons_before_each_lead(season, horizon):
    encoder = SeriesEncoder(ring_steps=40, horizon=horizon)
    c = Rows(encoder.columns, 1)
    c["season"][0] = season
    values = [float(tick % season) for tick in range(97)]

    for tick, value in enumerate(values):
        inputs = encoder.tick(c, np.array([0]), np.array([START + tick]), np.array([value]), np.ones(1))
    ahead, known = encoder.ahead(c, np.array([0]), inputs.origin, inputs.scale)

    assert known.all()
    found = inputs.origin[0] + ahead[0] * inputs.scale[0]
    np.testing.assert_allclose(found, [(len(values) - 1 + h) % season for h in range(1, horizon + 1)], atol=1e-5)


def test_a_season_longer_than_the_ring_is_no_season():
    encoder = SeriesEncoder(ring_steps=10, horizon=2)
    c = Rows(encoder.columns, 1)
    c["season"][0] = 11

    for tick in range(30):
        inputs = encoder.tick(c, np.array([0]), np.array([START + tick]), np.array([float(tick % 11)]), np.ones(1))
    ahead, known = encoder.ahead(c, np.array([0]), inputs.origin, inputs.scale)

    assert not known.any()
    assert not ahead.any()
    assert inputs.features[0, 2] == 0


@pytest.mark.parametrize("steps", [1, 7, 16, 17, 50])
@pytest.mark.parametrize("before", [0, 3, 20])
def test_skipping_leaves_the_ring_and_the_clock_that_empty_ticks_leave(before, steps):
    encoder = SeriesEncoder(ring_steps=16, horizon=4, covariates=1)
    ticked, skipped = Rows(encoder.columns, 1), Rows(encoder.columns, 1)
    slot = np.array([0])
    for c in (ticked, skipped):
        c["season"][0] = 5
        for tick in range(before):
            encoder.tick(c, slot, np.array([START + tick]), np.array([10.0 + tick % 5]), np.ones(1), np.ones((1, 1)))

    for tick in range(steps):
        encoder.tick(
            ticked, slot, np.array([START + before + tick]), np.array([np.nan]), np.ones(1), np.full((1, 1), np.nan)
        )
    encoder.skip(skipped, 0, steps)

    for name in ticked:
        np.testing.assert_array_equal(skipped[name], ticked[name], err_msg=name)


def test_recent_gives_the_last_ticks_oldest_first_with_missing_ones_as_nan():
    encoder = SeriesEncoder(ring_steps=4, horizon=1)
    c = Rows(encoder.columns, 2)
    for value, elapsed in [(5.0, 1.0), (6.0, 1.5), (np.nan, 1.0), (8.0, 0.5), (9.0, 0.0), (np.nan, 0.0)]:
        encoder.tick(c, np.array([1]), np.array([START]), np.array([value]), np.array([elapsed]))

    values, elapsed = encoder.recent(c, 1, 10)

    np.testing.assert_array_equal(values, [np.nan, 8.0, 9.0, np.nan])
    np.testing.assert_array_equal(elapsed, [1.0, 0.5, 0.0, 0.0])
    assert encoder.recent(c, 1, 2)[0].tolist()[0] == 9.0
    assert encoder.recent(c, 0, 3)[0].size == 0


@pytest.mark.parametrize(("factor", "shift"), [(1e6, 0.0), (-1.0, 0.0), (1.0, 1e6), (1e-6, -40.0)])
def test_scaling_and_shifting_a_stream_leaves_its_inputs_alike(factor, shift):
    """From the first tick on. What differs is the rounding of the sum of value and shift, about 1e-10 of the scale."""
    times, values, elapsed = messy_series(np.random.default_rng(3), 300, missing=0.1)
    encoder = SeriesEncoder(ring_steps=64, horizon=4)
    c = Rows(encoder.columns, 2)
    c["season"][:] = 6
    sign = np.sign(factor)

    for t in range(300):
        inputs = encoder.tick(
            c,
            np.array([0, 1]),
            np.repeat(times[t], 2),
            np.array([values[t], factor * values[t] + shift]),
            np.repeat(elapsed[t], 2),
        )
        plain, other = inputs.features
        np.testing.assert_allclose(other[:4], sign * plain[:4], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(other[4:], plain[4:], atol=1e-4)


def test_a_constant_stream_has_a_scale_and_quiet_inputs():
    encoder = SeriesEncoder(ring_steps=8, horizon=2)
    c = Rows(encoder.columns, 1)

    for tick in range(200):
        inputs = encoder.tick(c, np.array([0]), np.array([START + tick]), np.array([-273.15]), np.ones(1))

    assert inputs.scale[0] == pytest.approx(2.7315e-7)
    assert not inputs.features[0, :5].any()


@pytest.mark.parametrize("wild", [1e3, 2.0**31, 1e29])
def test_one_wild_value_moves_the_scale_of_a_settled_stream_by_five_changes_at_most(wild):
    encoder = SeriesEncoder(ring_steps=8, horizon=2)
    c = Rows(encoder.columns, 1)
    for tick in range(400):
        encoder.tick(c, np.array([0]), np.array([START + tick]), np.array([float(tick % 2)]), np.ones(1))
    before = c["scale"][0]

    encoder.tick(c, np.array([0]), np.array([START + 400]), np.array([wild]), np.ones(1))
    encoder.tick(c, np.array([0]), np.array([START + 401]), np.array([1.0]), np.ones(1))

    assert c["scale"][0] == pytest.approx(before * (1 + 4 / 168) ** 2)


@pytest.mark.parametrize(("constant", "then"), [(0.0, 50.0), (50.0, 0.0), (20.0, 20.5), (-1e6, 3e9)])
def test_a_stream_that_was_constant_is_scaled_by_its_first_move(constant, then):
    encoder = SeriesEncoder(ring_steps=8, horizon=2)
    c = Rows(encoder.columns, 1)

    for tick, value in enumerate([constant] * 100 + [then]):
        inputs = encoder.tick(c, np.array([0]), np.array([START + tick]), np.array([value]), np.ones(1))

    assert inputs.scale[0] == pytest.approx(abs(then - constant) / 8)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_covariate_that_cannot_be_used_counts_as_absent(bad):
    encoder = SeriesEncoder(ring_steps=8, horizon=2, covariates=1)
    c = Rows(encoder.columns, 2)
    features = []

    for tick, (one, other) in enumerate([(3.0, 3.0), (5.0, 5.0), (bad, np.nan), (9.0, 9.0)]):
        inputs = encoder.tick(
            c,
            np.array([0, 1]),
            np.full(2, START + tick),
            np.zeros(2),
            np.ones(2),
            np.array([[one], [other]]),
        )
        features.append(inputs.features[:, 11])

    assert features[2].tolist() == [0.0, 0.0]
    assert features[3][0] == features[3][1] != 0


def test_a_constant_covariate_says_nothing():
    encoder = SeriesEncoder(ring_steps=8, horizon=2, covariates=1)
    c = Rows(encoder.columns, 1)

    for tick in range(20):
        inputs = encoder.tick(c, np.array([0]), np.array([START + tick]), np.zeros(1), np.ones(1), np.array([[0.1]]))
        assert inputs.features[0, 11] == 0.0


def test_a_stream_without_a_value_has_finite_inputs():
    encoder = SeriesEncoder(ring_steps=8, horizon=2)
    c = Rows(encoder.columns, 1)

    for tick in range(3):
        inputs = encoder.tick(c, np.array([0]), np.array([START + tick]), np.array([np.nan]), np.ones(1))

    assert inputs.features[0, :5].tolist() == [0.0] * 5
    assert inputs.features[0, 9:].tolist() == [pytest.approx(math.log(4)), 1.0]
    assert inputs.scale[0] > 0


def announced(ticks, encoder, *, slot=1):
    """Inputs of one stream among three, given what is known ahead tick after tick; ``None`` for nothing."""
    c = Rows(encoder.columns, 3)
    for tick, known in enumerate(ticks):
        inputs = encoder.tick(
            c,
            np.array([slot]),
            np.array([START + tick]),
            np.array([float(tick % 3)]),
            np.ones(1),
            future=None if known is None else np.array([known]),
        )
    return inputs, c


def test_nothing_is_remembered_of_what_is_known_ahead_where_nothing_is():
    plain, ahead = SeriesEncoder(ring_steps=8, horizon=3), SeriesEncoder(ring_steps=8, horizon=3, known_ahead=2)

    assert plain.columns == ahead.columns[: len(plain.columns)]
    assert [column.name for column in ahead.columns[len(plain.columns) :]] == [
        "known_ahead_mean",
        "known_ahead_spread",
        "known_ahead_seen",
    ]
    assert ahead.feature_names == plain.feature_names
    assert (plain.future_inputs, ahead.future_inputs) == (0, 6)
    assert announced([None], plain)[0].future is None


def test_what_is_known_ahead_is_measured_input_by_input_over_all_leads():
    """Two inputs, three leads: the second is a thousand times the first, and is shown alike."""
    encoder = SeriesEncoder(ring_steps=8, horizon=3, known_ahead=2)
    lists = np.random.default_rng(0).normal(5.0, 1.0, (20, 3))

    inputs, _ = announced([[*known, *(1_000.0 * known)] for known in lists], encoder)

    assert inputs.future.shape == (1, 6)
    np.testing.assert_allclose(inputs.future[0, :3], inputs.future[0, 3:], rtol=1e-3)
    assert np.ptp(inputs.future[0, :3]) > 0.5
    assert np.argsort(inputs.future[0, :3]).tolist() == np.argsort(lists[-1]).tolist()


def test_a_step_at_which_nothing_is_known_shows_zeros_and_teaches_nothing():
    encoder = SeriesEncoder(ring_steps=8, horizon=3, known_ahead=1)
    lists = [[1.0, 2.0, 4.0], [2.0, 4.0, 3.0]]

    _, before = announced(lists, encoder)
    carried, after = announced([*lists, None, [math.nan] * 3], encoder)

    assert carried.future.tolist() == [[0.0, 0.0, 0.0]]
    for name in ("known_ahead_mean", "known_ahead_spread", "known_ahead_seen"):
        np.testing.assert_array_equal(after[name], before[name])
        assert after[name][1].any()


@given(st.floats(-1e9, 1e10) | st.integers(0, 10**10).map(float), st.sampled_from([86_400.0, 604_800.0]))
@example(np.nextafter(20_454 * 86_400.0, 0), 86_400.0)
@example(20_454 * 86_400.0, 86_400.0)
@example(-86_400.0, 86_400.0)
def test_what_is_left_of_a_time_by_day_and_week_is_that_of_python_to_the_bit(time, period):
    assert _remainder(time, period) == time % period
