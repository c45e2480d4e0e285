import numpy as np
import pytest
from factories import START, make_origins, make_pipeline, make_table, make_wave

from forecaster.experts.profile import SeasonalProfile
from forecaster.series.encoder import SeriesEncoder
from forecaster.series.rows import Rows

HORIZON = 8


def fed(values, season, *, ring_steps=64):
    """One stream that had these values, and what the expert is asked with."""
    encoder = SeriesEncoder(ring_steps=ring_steps, horizon=HORIZON)
    c, slot = Rows(encoder.columns, 2), np.array([1])
    c["season"][1] = season
    for row, value in enumerate(values):
        inputs = encoder.tick(c, slot, np.array([60.0 * row]), np.array([value]), np.ones(1))
    at = make_origins(slots=slot, value=inputs.origin, scale=inputs.scale, ahead=np.zeros((1, HORIZON), np.float32))
    return SeasonalProfile(encoder), c, at


def by_hand(values, season, ring_steps=64):
    """Number by number, in the stream's own units."""
    x = list(values[-ring_steps:])
    steps = min(season, 24)
    cycles = min((len(x) - steps) // season, 7)
    last = len(x) - 1

    def shape(place):  # mean of the phase of a place, over seasons that lie before it
        before = [p for p in range(place - season, -1, -season) if p <= last]
        return np.mean([x[p] for p in before[:cycles]])

    off = [x[last - back] - shape(last - back) for back in range(steps)]
    level = np.mean(off)
    return [
        shape(last + 1 + (lead - 1) % season) + level + 0.9**lead * (off[0] - level) for lead in range(1, HORIZON + 1)
    ]


@pytest.mark.parametrize("season", [3, 6, 20, 25])
@pytest.mark.parametrize("length", [63, 64, 65, 150])
def test_it_continues_the_mean_shape_of_past_seasons_from_where_the_stream_is(season, length):
    rng = np.random.default_rng(season)
    values = 50 + 5 * np.sin(2 * np.pi * np.arange(length) / season) + rng.standard_normal(length)
    expert, c, at = fed(values, season)

    points, answered = expert.forecast(c, at)

    if min(length, 64) - min(season, 24) < 2 * season:
        assert not answered.any()
        assert not points.any()
    else:
        assert answered.all()
        own = points[0] * at.scale[0] + at.value[0]
        np.testing.assert_allclose(own, by_hand(values, season), atol=1e-3)


@pytest.mark.parametrize(("season", "length"), [(0, 60), (6, 17), (25, 64), (300, 64)])
def test_without_two_seasons_that_are_remembered_it_has_no_answer(season, length):
    expert, c, at = fed(np.arange(length, dtype=float), season)

    points, answered = expert.forecast(c, at)

    assert not answered.any()
    assert not points.any()


def test_what_is_out_of_reach_is_no_answer():
    expert, c, at = fed(np.tile([1.0, 2.0, 3.0], 20), 3)

    points, answered = expert.forecast(c, at._replace(scale=np.array([1e-9])))

    assert not answered.any()
    assert not points.any()


def test_of_a_shape_that_wanders_it_gets_the_weight_that_repeating_one_season_had():
    """The value a season ago carries along what that season was off; here the stream is asked where it is now."""
    pipeline = make_pipeline(ring_steps=64, declared_season=6)
    c = make_table(pipeline, 1).arrays
    rng = np.random.default_rng(0)
    shape, off = np.array([10.0, 14.0, 9.0, 22.0, 11.0, 3.0]), 0.0

    for row in range(600):
        off = 0.9 * off + rng.standard_normal()
        answers = pipeline.step(c, make_wave([1], [START + 60.0 * row], [shape[row % 6] + off]), None).answers

    shares = dict(zip(pipeline.experts, answers.weights[0], strict=True))
    assert shares["profile"] > 0.7
    assert shares["seasonal"] < 0.2
