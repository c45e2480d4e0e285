import numpy as np
import pytest
from factories import START, make_pipeline, make_recurrent, make_table, make_wave

from forecaster.engine.pipeline import STATUSES
from forecaster.records import Reason, Status
from forecaster.state.streams import SCRATCH

STEP = 10.0


class Stream:
    """One stream at a pipeline, fed reading by reading; a tick is ten seconds."""

    def __init__(self, *, network=True, cell="gru", **overrides):
        self.pipeline = make_pipeline(**overrides)
        self.recurrent = make_recurrent(self.pipeline, cell=cell) if network else None
        self.table = make_table(self.pipeline, 1)
        self.tick = -1
        self.published = {}
        self.reports = []

    def read(self, value, *, after=1):
        """The next reading, ``after`` ticks on; its quantiles, ``[H, Q]``."""
        self.tick += after
        return self.read_at(START + STEP * self.tick, value)

    def read_at(self, time, value):
        result = self.pipeline.step(self.table.arrays, make_wave([1], [time], [value]), self.recurrent)
        self.reports.append(result.report)
        self.answers = result.answers
        self.status = STATUSES[result.answers.statuses[0]]
        self.published[self.tick] = result.answers.quantiles[0]
        return result.answers.quantiles[0]

    def column(self, name):
        return self.table.arrays[name][1].copy()


def walk(count, seed=0):
    return 50.0 + np.cumsum(np.random.default_rng(seed).standard_normal(count))


@pytest.mark.parametrize("surprise", [-500.0, 48.0, 61.25])
def test_a_value_is_scored_against_what_was_published_before_it_came(surprise):
    """By numbers: error, naive error, width and scale are all those of the origin, none knows the value."""
    stream = Stream()
    values = walk(60)
    for value in values:
        stream.read(value)
    scale, median = stream.column("scale"), stream.published[59][:, 1]
    low, high = stream.published[59][0, 0], stream.published[59][0, 2]

    stream.read(surprise)

    scores = stream.reports[-1].scores
    assert scores.settled.tolist() == [1, 1, 1]
    assert scores.abs_error[0] == pytest.approx(abs(surprise - median[0]) / scale, rel=1e-4)
    assert scores.naive_abs_error[0] == pytest.approx(abs(surprise - values[-1]) / scale, rel=1e-4)
    assert scores.abs_error[2] == pytest.approx(abs(surprise - stream.published[56][3, 1]) / scale, rel=1e-4)
    assert scores.width[0] == pytest.approx((high - low) / scale, rel=1e-4)
    assert scores.covered[0] == (low <= surprise <= high)


@pytest.mark.parametrize("seed", range(4))
def test_scores_count_what_a_reader_of_the_published_forecasts_would_count(seed):
    """A dictionary of published forecasts by target tick is the oracle, over gaps, long gaps and missing readings."""
    rng = np.random.default_rng(seed)
    stream = Stream(step_seconds=STEP, max_gap_steps=5)
    leads, settled, covered = (1, 2, 4), np.zeros(3), np.zeros(3)

    for value in walk(300, seed):
        reading = np.nan if rng.random() < 0.1 else value
        stream.read(reading, after=int(rng.choice([1, 2, 4, 9], p=[0.85, 0.08, 0.05, 0.02])))
        for a, lead in enumerate(leads):
            earlier = stream.published.get(stream.tick - lead)
            if earlier is not None and not np.isnan(reading) and not np.isnan(earlier).any():
                settled[a] += 1
                covered[a] += earlier[lead - 1, 0] <= reading <= earlier[lead - 1, 2]

    assert sum(report.scores.settled for report in stream.reports).tolist() == settled.tolist()
    assert sum(report.scores.covered for report in stream.reports).tolist() == covered.tolist()
    assert settled.min() > 100


@pytest.mark.parametrize(("factor", "shift"), [(1e6, 0.0), (2.0**-20, 0.0), (1.0, 1e6), (-1.0, 0.0)])
def test_forecasts_follow_a_stream_that_is_scaled_or_shifted(factor, shift):
    """Numbers kept in single precision and answers rounded to a thousandth of the scale allow for 2 % of it.

    Mirrored, only the baselines: a network need not be symmetric.
    """
    plain, other = (Stream(declared_season=12, network=factor > 0) for _ in range(2))
    day = 5 * np.sin(2 * np.pi * np.arange(200) / 12)

    for value in walk(200) + day:
        expected = plain.read(value)
        found = other.read(factor * value + shift)

        scale = plain.column("scale") + 1e-9
        np.testing.assert_allclose(
            (found - shift)[:, :: int(np.sign(factor))] / factor / scale, expected / scale, atol=0.02
        )
    assert other.column("scale") == pytest.approx(abs(factor) * plain.column("scale"), rel=1e-5)


@pytest.mark.parametrize("first", [70.0, -9_999.0, 1e6, 2.0**31, 1e29])
def test_what_is_remembered_of_recent_values_is_exact_to_a_thousandth_of_the_scale(first):
    """Whatever the stream began with."""
    stream = Stream(network=False)
    values = 70 + np.random.default_rng(0).standard_normal(600)
    values[0] = first

    for n, value in enumerate(values):
        stream.read(value)

        if n >= 50:
            recent = stream.pipeline.encoder.recent(stream.table.arrays, 1, 40)[0]
            np.testing.assert_allclose(recent, values[n - 39 : n + 1], atol=1e-3 * stream.column("scale"))


@pytest.mark.parametrize("network", [False, True])
def test_what_waits_and_what_is_remembered_moves_with_the_anchor(network):
    """Once the scale has settled, the anchor leaves the wild reading the stream began with."""
    stream = Stream(network=network)
    stream.read(1e5)
    values = walk(60)
    for value in values[:40]:
        stream.read(value)
    assert stream.column("anchor") == 1e5
    stream.table.arrays["scale"][1] = 1.0  # as it is after some thousand readings

    for n in range(40, 60):
        medians = np.array([stream.published[stream.tick + 1 - lead][lead - 1, 1] for lead in (1, 2, 4)])
        scale = stream.column("scale")
        stream.read(values[n])

        np.testing.assert_allclose(stream.reports[-1].scores.abs_error, np.abs(values[n] - medians) / scale, atol=0.02)
    assert stream.column("anchor") == values[39]
    recent = stream.pipeline.encoder.recent(stream.table.arrays, 1, 48)[0]
    np.testing.assert_allclose(recent[-48:-20], values[12:40], atol=0.01)
    np.testing.assert_allclose(recent[-20:], values[40:], atol=1e-5)


def test_one_wild_reading_does_not_draw_the_anchor_away():
    stream = Stream(network=False)
    values = walk(100)
    values[60] = 1e15

    for value in values:
        stream.read(value)

    recent = stream.pipeline.encoder.recent(stream.table.arrays, 1, 39)[0]
    np.testing.assert_allclose(recent, values[61:], atol=1e-3)


@pytest.mark.parametrize("constant", [0.0, 5.0, -273.15, 1e29, 1e-12])
@pytest.mark.parametrize("network", [False, True])
def test_a_constant_stream_is_forecast_as_that_constant(constant, network):
    """To a millionth: what a network adds is in units of a scale that is next to nothing."""
    stream = Stream(network=network)

    for _ in range(80):
        quantiles = stream.read(constant)

        np.testing.assert_allclose(quantiles, constant, rtol=1e-6, atol=1e-25)
    assert stream.status is Status.FLAT
    assert stream.reports[-1].scores.naive_abs_error.tolist() == [0, 0, 0]


def test_a_constant_stream_that_comes_to_life_is_followed_and_does_not_swamp_the_scores():
    stream = Stream(network=False)
    for _ in range(50):
        stream.read(0.0)

    for value in 1e6 + 100 * walk(300):
        quantiles = stream.read(value)

    assert all(np.isfinite(report.scores.abs_error).all() for report in stream.reports)
    assert max(report.scores.abs_error.max() for report in stream.reports) <= 1e3
    assert abs(quantiles[0, 1] - value) < 1_000
    ratio, coverage = stream.pipeline.recent_score.summary(stream.table.arrays, 1)
    assert ratio == pytest.approx(1.0, abs=0.2)
    assert coverage > 0.5


@pytest.mark.parametrize("size", [1e29, 1e-25])
def test_huge_and_tiny_values_are_forecast_in_their_own_units(size):
    stream = Stream(declared_season=6)

    for value in walk(150):
        quantiles = stream.read(size * value)

    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles, axis=1) >= 0).all()
    np.testing.assert_allclose(quantiles[0] / size, value, atol=20)
    assert quantiles[0, 0] < quantiles[0, 2]


def test_a_stream_that_has_never_had_a_value_is_answered_without_quantiles():
    stream = Stream()

    for _ in range(30):
        assert np.isnan(stream.read(np.nan)).all()

    assert stream.status is Status.WARMING
    assert sum(report.missing for report in stream.reports) == 30
    assert not any(report.scores.settled.any() for report in stream.reports)


@pytest.mark.parametrize("network", [False, True])
def test_a_stream_that_begins_with_missing_readings_is_forecast_from_its_first_value_on(network):
    stream = Stream(network=network)
    for _ in range(15):
        stream.read(np.nan)

    answers = [stream.read(value) for value in walk(40)]

    assert all(np.isfinite(quantiles).all() for quantiles in answers)
    assert not stream.reports[15].scores.settled.any()
    assert stream.reports[16].scores.settled.tolist() == [1, 0, 0]
    assert stream.answers.weights.sum() == pytest.approx(1.0)
    if network:
        assert stream.status is Status.OK


def test_missing_readings_are_answered_from_the_value_before_and_score_nothing():
    stream = Stream(network=False)
    for value in walk(30):
        last = stream.read(value)

    quantiles = stream.read(np.nan)

    assert quantiles[0, 1] == last[0, 1]
    assert stream.reports[-1].missing == 1
    assert not stream.reports[-1].scores.settled.any()


@pytest.mark.parametrize(
    ("after", "status", "gap_steps", "rebuilt"),
    [
        (1, Status.OK, 0, 0),
        (7, Status.OK, 6, 0),
        (8, Status.GAP, 7, 1),
        (48, Status.GAP, 47, 1),
        (49, Status.STALE, 48, 1),
    ],
)
def test_a_gap_is_bridged_or_makes_the_hidden_state_anew_and_shows_in_the_status(after, status, gap_steps, rebuilt):
    stream = Stream(max_gap_steps=6, ring_steps=48)
    for value in walk(60):
        stream.read(value)

    quantiles = stream.read(55.0, after=after)

    assert stream.status is status
    assert stream.reports[-1].gap_steps == gap_steps
    assert stream.reports[-1].rebuilt == rebuilt
    assert np.isfinite(quantiles).all()
    assert stream.column("tick") == 60 + after
    stream.read(56.0)
    assert stream.status is Status.OK


def test_a_bridged_gap_equals_missing_readings_in_its_place():
    """Ring, scale and hidden state; what was published in between can be settled only where it was published."""
    gap, told = Stream(step_seconds=STEP), Stream(step_seconds=STEP)
    for value in walk(60):
        gap.read(value)
        told.read(value)

    gap.read(48.0, after=4)
    for value in (np.nan, np.nan, np.nan, 48.0):
        told.read(value)

    for name in ("hidden", "ring", "ring_elapsed", "scale", "scale_long", "level", "change", "tick", "seen"):
        np.testing.assert_array_equal(gap.column(name), told.column(name), err_msg=name)


def test_a_clock_that_jumps_ahead_by_centuries_is_survived():
    stream = Stream()
    for value in walk(60):
        stream.read(value)

    quantiles = stream.read_at(7e9, 50.0)

    assert stream.status is Status.STALE
    assert np.isfinite(quantiles).all()
    assert np.isfinite(stream.read_at(7e9 + STEP, 51.0)).all()


def test_a_network_answers_from_the_tenth_reading_on():
    stream = Stream()

    statuses = []
    for value in walk(12):
        stream.read(value)
        statuses.append((stream.status, stream.answers.weights[0, -1] > 0))

    assert statuses[8] == (Status.WARMING, False)
    assert [status for status, _ in statuses[9:]] == [Status.OK] * 3
    assert stream.reports[9].rebuilt == 1


def test_a_network_that_answers_nonsense_is_left_out():
    stream = Stream()
    for value in walk(30):
        stream.read(value)
    stream.table.arrays["hidden"][1] = np.nan

    quantiles = stream.read(50.0)

    assert stream.status is Status.FALLBACK
    assert np.isfinite(quantiles).all()
    assert stream.answers.weights[0, -1] == 0
    assert stream.answers.weights.sum() == pytest.approx(1.0)


def test_another_network_rebuilds_the_stream_at_its_next_reading():
    stream = Stream()
    for value in walk(30):
        stream.read(value)
    stream.recurrent = make_recurrent(stream.pipeline, seed=2, model=2, season=6)

    stream.read(50.0)
    stream.read(51.0)

    assert [report.rebuilt for report in stream.reports[-2:]] == [1, 0]
    assert stream.column("model") == 2
    assert stream.column("season") == 6


@pytest.mark.parametrize(("declared", "expected"), [(12, 12), (120.0, 12), (None, 0), (95.0, 0), (0, 0)])
def test_a_declared_season_is_in_steps_or_in_seconds_and_holds_from_the_tenth_reading(declared, expected):
    stream = Stream(network=False, declared_season=declared)

    seasons = []
    for value in walk(12):
        stream.read(value)
        seasons.append(int(stream.column("season")))

    assert seasons == [0] * 9 + [expected] * 3


@pytest.mark.parametrize(("declared", "expected"), [(12, 12), (120.0, 12), (95.0, 0), (None, 0)])
def test_a_further_season_is_in_steps_or_in_seconds_and_holds_from_the_tenth_reading(declared, expected):
    stream = Stream(network=False, declared_season=6, further_seasons=(declared,))

    steps = []
    for value in walk(12):
        stream.read(value)
        steps.append(stream.pipeline.further_steps(stream.table.arrays, np.array([1]), None).tolist())

    assert steps == [[[0]]] * 9 + [[[expected]]] * 3


@pytest.mark.parametrize(("declared", "found"), [(86_400.0, None), (None, 86_400.0)], ids=["declared", "found"])
def test_a_week_is_as_many_steps_at_every_reading_of_a_stream_whose_step_wavers(declared, found):
    stream = Stream(network=found is not None, ring_steps=700, declared_season=declared, further_seasons=(604_800.0,))
    if found:
        stream.recurrent = make_recurrent(stream.pipeline, season=found)
    rng = np.random.default_rng(0)

    steps, learnt = set(), set()
    for tick, value in enumerate(walk(60)):
        stream.read_at(START + 900.0 * tick + 5.0 * rng.standard_normal(), value)
        if tick >= 10:
            steps.add(int(stream.pipeline.further_steps(stream.table.arrays, np.array([1]), stream.recurrent)[0, 0]))
            learnt.add(round(604_800 / float(stream.column("step"))))

    assert len(learnt) > 3, "by its step alone the week would waver"
    assert steps == {672}


def test_a_further_season_that_training_found_comes_with_the_model():
    stream = Stream(further_seasons=(None,))
    arrays, slot = stream.table.arrays, np.array([1])
    for value in walk(20):
        stream.read(value)
    assert stream.pipeline.further_steps(arrays, slot, stream.recurrent).tolist() == [[0]]

    stream.recurrent = make_recurrent(stream.pipeline, seed=2, model=2, season=60.0, further_seasons=(120.0,))
    before = stream.pipeline.further_steps(arrays, slot, stream.recurrent).tolist()
    stream.read(51.0)

    assert before == [[0]], "the stream has not taken the model over"
    assert stream.pipeline.further_steps(arrays, slot, stream.recurrent).tolist() == [[12]]


def test_a_further_season_lets_a_baseline_of_its_own_repeat_it():
    """Days of four steps, of which every third is another one: the day before misleads, three days before do not."""
    stream = Stream(network=False, declared_season=4, further_seasons=(12,))
    days = [10.0, 14.0, 9.0, 22.0] * 2 + [40.0, 33.0, 35.0, 30.0]
    rng = np.random.default_rng(0)
    values = [days[n % 12] + 0.1 * rng.standard_normal() for n in range(240)]

    for value in values:
        quantiles = stream.read(value)

    place = stream.pipeline.experts.index("seasonal_2")
    points, _ = stream.pipeline.pending.made_at(stream.table.arrays, 1, 239)
    said = points[:, place] + stream.column("anchor")
    np.testing.assert_allclose(said, [values[239 + lead - 12] for lead in (1, 2, 4)], rtol=1e-6)
    assert stream.answers.weights[0, place] > 0.9
    np.testing.assert_allclose(quantiles[:, 1], days[:4], atol=0.5)


@pytest.mark.parametrize("declared", [0, None], ids=["declared as none", "none found"])
def test_a_season_that_a_stream_does_not_have_changes_no_forecast(declared):
    """Of the same readings, beside one season: the forecasts are those of a pipeline that looks for no other."""
    one, two = Stream(declared_season=6), Stream(declared_season=6, further_seasons=(declared,))

    for value in walk(80):
        np.testing.assert_array_equal(one.read(value), two.read(value))

    assert two.answers.weights[0, two.pipeline.experts.index("seasonal_2")] == 0


def test_a_season_lets_the_baseline_repeat_it():
    stream = Stream(network=False, declared_season=6)
    pattern = [10.0, 14.0, 9.0, 22.0, 11.0, 3.0]
    rng = np.random.default_rng(0)

    for n in range(240):
        quantiles = stream.read(pattern[n % 6] + 0.1 * rng.standard_normal())

    shares = dict(zip(stream.pipeline.experts, stream.answers.weights[0], strict=True))
    assert shares["seasonal"] + shares["profile"] > 0.9
    np.testing.assert_allclose(quantiles[:, 1], pattern[:4], atol=0.5)


@pytest.mark.parametrize(
    ("time", "value", "reason"),
    [
        (START + 290.0, 7.0, Reason.DUPLICATE),
        (START + 290.0, 8.0, Reason.CONFLICT),
        (START + 289.0, 7.0, Reason.LATE),
        (START, 7.0, Reason.LATE),
    ],
)
def test_a_reading_behind_its_stream_s_clock_is_refused_and_changes_nothing(time, value, reason):
    stream = Stream()
    for n in range(30):
        stream.read(7.0 if n == 29 else float(n))
    before = {name: array.copy() for name, array in stream.table.arrays.items()}

    result = stream.pipeline.step(stream.table.arrays, make_wave([1], [time], [value]), stream.recurrent)

    [(tag, found, detail)] = result.refused
    assert (tag, found) == (0, reason)
    assert f"{START + 290 - time:.6f} s behind" in detail
    assert len(result.answers.tags) == 0
    assert result.answers.quantiles.shape == (0, 4, 3)
    assert (result.report.accepted, result.report.rejected) == (0, {reason: 1})
    for name, array in stream.table.arrays.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_padding_is_in_no_count_and_no_answer():
    pipeline = make_pipeline()
    recurrent = make_recurrent(pipeline)
    table = make_table(pipeline, 3)

    for n in range(30):
        result = pipeline.step(
            table.arrays, make_wave([1, 2, 3], [START + n] * 3, [float(n), -float(n), np.nan]), recurrent
        )

        assert result.answers.slots.tolist() == [1, 2, 3]
        assert sum(result.report.statuses.values()) == result.report.accepted == 3
        assert result.report.gap_steps == 0
        assert (result.report.scores.settled <= 2).all()
    assert SCRATCH not in result.answers.slots


def test_a_step_change_is_caught_up_with():
    stream = Stream()
    rng = np.random.default_rng(0)
    for _ in range(200):
        stream.read(10 + rng.standard_normal())

    for _ in range(100):
        quantiles = stream.read(500 + rng.standard_normal())

    assert 490 < quantiles[0, 1] < 510
    assert stream.column("scale") < 10


def test_published_intervals_cover_what_they_promise():
    """Nominal 80 %: 0.80 ± 0.02 at every anchor lead over 64 random walks of 500 steps, seed 3."""
    pipeline = make_pipeline()
    table = make_table(pipeline, 64)
    walks = np.cumsum(np.random.default_rng(3).standard_normal((600, 64)), axis=0)
    covered, settled = np.zeros(3), np.zeros(3)

    for n, values in enumerate(walks):
        scores = pipeline.step(table.arrays, make_wave(range(1, 65), [START + n] * 64, values), None).report.scores
        if n >= 100:
            covered += scores.covered
            settled += scores.settled

    assert settled.tolist() == [32_000] * 3
    assert covered / settled == pytest.approx([0.8] * 3, abs=0.02)


def test_what_was_published_last_can_be_read_from_the_columns():
    stream = Stream()
    for value in 1e5 + walk(40):
        quantiles = stream.read(value)

    np.testing.assert_allclose(stream.pipeline.published(stream.table.arrays, 1), quantiles[[0, 1, 3]], atol=1e-3)
    shares = stream.pipeline.shares(stream.table.arrays, 1).mean(axis=0)
    np.testing.assert_allclose(shares, stream.answers.weights[0], atol=1e-5)
