import numpy as np
import pytest

from forecaster.series.encoder import CLIP, SeriesEncoder
from forecaster.series.lags import LagInputs
from forecaster.series.rows import Rows

START, STEP = 1_767_225_600.0, 60.0
RING, HORIZON, LAGS = 40, 5, 6


def by_hand(values, season, scale):
    """The row of a stream whose values are these, oldest first, number by number."""
    now, row = values[-1], []

    def relative(back):
        known = back < min(len(values), RING)
        return (values[-1 - back] - now) / scale if known else None

    row += [relative(back) or 0.0 for back in range(1, LAGS + 1)]
    row += [0.25, -0.5]  # the network's inputs
    row += [0.125] * HORIZON  # the look-ahead
    repeats = season > 0 and 2 * season <= min(len(values), RING)
    for lead in range(1, HORIZON + 1):
        phase = (lead - 1) % season + 1 if season else 1
        found = [relative(k * season - phase) for k in range(2, 8)] if repeats else []
        known = [value for value in found if value is not None]
        row.append(sum(known) / len(known) if known else 0.0)
    found = [relative(k * season) for k in range(1, 8)] if repeats else []
    known = [value for value in found if value is not None]
    row.append(sum(known) / len(known) if known else 0.0)
    return np.clip(row, -CLIP, CLIP)


def rows_of(histories, seasons, scale=2.0, future=None):
    """What `LagInputs` makes of streams that a ring remembers."""
    encoder = SeriesEncoder(ring_steps=RING, horizon=HORIZON)
    c = Rows(encoder.columns, len(histories))
    for slot, values in enumerate(histories):
        for tick, value in enumerate(values):
            encoder.tick(c, np.array([slot]), np.array([START + STEP * tick]), np.array([value]), np.ones(1))
    slots = np.arange(len(histories))
    width = 0 if future is None else future.shape[1]
    inputs = LagInputs(lags=LAGS, horizon=HORIZON, features=2, ring_steps=RING, future=width)
    return inputs.rows(
        encoder.past(c, slots),
        ticks=c["tick"],
        season=np.array(seasons),
        origin=c["value"],
        scale=np.full(len(slots), scale),
        features=np.tile(np.array([[0.25, -0.5]], np.float32), (len(slots), 1)),
        ahead=np.full((len(slots), HORIZON), 0.125, np.float32),
        future=future,
    )


@pytest.mark.parametrize("season", [0, 3, 7, 12, 25])
@pytest.mark.parametrize("length", [1, 5, 13, 39, 40, 41, 90])
def test_a_row_is_what_a_walk_through_the_values_finds(season, length):
    """Rings that are nearly empty, full, and wrapped around; seasons that fit many times, once, and not at all."""
    values = np.round(np.random.default_rng(length).normal(0, 3, length), 3)

    found = rows_of([values], [season])

    np.testing.assert_allclose(found[0], by_hand(values, season, 2.0), atol=1e-5)


def test_a_row_does_not_depend_on_the_streams_beside_it():
    rng = np.random.default_rng(0)
    histories = [rng.normal(0, 1, length) for length in (3, 50, 90, 20)]
    seasons = [0, 7, 12, 5]

    together = rows_of(histories, seasons)

    for k, (values, season) in enumerate(zip(histories, seasons, strict=True)):
        np.testing.assert_array_equal(together[k], rows_of([values], [season])[0])


@pytest.mark.parametrize("season", [0, 3, 7, 12, 25])
@pytest.mark.parametrize("length", [5, 39, 90])
def test_streams_of_one_season_and_age_look_back_together_as_they_do_alone(season, length):
    """One mask for all of them, where a stream of another season has each looked up with its own."""
    rng = np.random.default_rng(length)
    histories = [rng.normal(0, 1, length) for _ in range(4)]

    together = rows_of(histories, [season] * 4)
    beside_another = rows_of([*histories, rng.normal(0, 1, 60)], [season] * 4 + [9])[:4]

    np.testing.assert_array_equal(together, beside_another)


def test_differences_beyond_eight_scales_are_cut():
    found = rows_of([[0.0, 1e9, 0.0]], [0])

    assert found[0, :2].tolist() == [CLIP, 0.0]


@pytest.mark.parametrize("seasons", [[0, 0], [7, 7], [7, 3], [0, 12]])
def test_what_is_known_ahead_stands_behind_a_row_that_is_otherwise_the_same(seasons):
    rng = np.random.default_rng(0)
    histories = [rng.normal(0, 1, 60) for _ in seasons]
    future = rng.normal(0, 1, (2, 2 * HORIZON)).astype(np.float32)

    plain, told = rows_of(histories, seasons), rows_of(histories, seasons, future=future)

    np.testing.assert_array_equal(told[:, : plain.shape[1]], plain)
    np.testing.assert_array_equal(told[:, plain.shape[1] :], future)
