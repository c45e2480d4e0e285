import numpy as np
import pytest

from forecaster.series.columns import Column
from forecaster.series.rows import Rows
from forecaster.state.pending import PendingForecasts, anchor_leads


@pytest.mark.parametrize(
    ("horizon", "leads"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (24, (1, 2, 4, 8, 16, 24))]
)
def test_anchor_leads_are_powers_of_two_and_the_horizon(horizon, leads):
    assert anchor_leads(horizon) == leads


def make_pending(leads, *, points=1, answers=1, levels=1):
    pending = PendingForecasts(leads=leads, points=tuple("abcd"[:points]), answers=answers, levels=levels)
    return pending, Rows((*pending.columns, Column("anchor", "f8"), Column("tick", "i8")), 4)


@pytest.mark.parametrize("horizon", [1, 2, 5, 12])
@pytest.mark.parametrize("seed", range(3))
def test_each_forecast_is_settled_once_at_its_own_lead_or_never(horizon, seed):
    """Against a dictionary of all forecasts ever made: (target tick, lead) -> forecast. Clocks jump over targets."""
    rng = np.random.default_rng(seed)
    leads = anchor_leads(horizon)
    pending, c = make_pending(leads, points=4, answers=2, levels=3)
    c["anchor"][:] = rng.normal(0, 1e6, 4)
    slots = np.array([1, 3])
    tick = np.array([0, 17])
    oracle = [{}, {}]

    for _ in range(200):
        anchor = c["anchor"][slots]
        points = np.round(rng.normal(0, 100, (2, len(leads), 4)), 2) + anchor[:, None, None]
        made = np.round(rng.normal(0, 100, (2, len(leads), 2, 3)), 2) + anchor[:, None, None, None]
        pending.add(c, slots, tick, points, made)
        for row in range(2):
            for a, lead in enumerate(leads):
                oracle[row][tick[row] + lead, lead] = points[row, a], made[row, a]
        # A skipped tick makes and settles nothing.
        tick = tick + rng.choice([1, 1, 1, 2, 3, horizon, horizon + 1, 10_000], size=2)

        due = pending.due(c, slots, tick)
        for row in range(2):
            for a, lead in enumerate(leads):
                expected = oracle[row].pop((tick[row], lead), None)
                assert due.settled[row, a] == (expected is not None)
                if expected is not None:
                    np.testing.assert_allclose(due.points[row, a] + anchor[row], expected[0], atol=1e-4)
                    np.testing.assert_allclose(due.quantiles[row, a] + anchor[row], expected[1], atol=1e-4)


def test_nothing_is_due_for_a_stream_that_was_never_answered():
    pending, c = make_pending((1, 2, 4))

    due = pending.due(c, np.array([1, 1, 1]), np.array([0, 1, 4]))

    assert not due.settled.any()


def test_what_was_made_last_can_be_read_again():
    pending, c = make_pending((1, 2, 4))
    for tick in range(7):
        made = 10.0 * tick + np.array([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1)
        pending.add(c, np.array([1]), np.array([tick]), made[..., 0] + 100, made)

    points, made = pending.made_at(c, 1, 6)

    assert made[:, 0, 0].tolist() == [61.0, 62.0, 64.0]
    assert points[:, 0].tolist() == [161.0, 162.0, 164.0]


def test_what_waits_keeps_its_own_units_when_the_anchor_of_its_stream_moves():
    pending, c = make_pending((1, 2), points=2, answers=1, levels=1)
    slots = np.array([1, 2])
    pending.add(c, slots, np.array([0, 0]), np.full((2, 2, 2), 50.0), np.full((2, 2, 1, 1), 60.0))
    before = c["anchor"][slots]
    c["anchor"][1] = 40.0

    pending.follow_anchor(c, slots, before)

    due = pending.due(c, slots, np.array([1, 1]))
    assert due.points[:, 0, 0].tolist() == [10.0, 50.0]
    assert due.quantiles[:, 0, 0, 0].tolist() == [20.0, 60.0]


def test_forecasts_that_wait_are_counted_by_lead():
    pending, c = make_pending((1, 2, 4))
    for tick in range(3):
        pending.add(c, np.array([1]), np.array([tick]), np.zeros((1, 3, 1)), np.zeros((1, 3, 1, 1)))
    c["tick"][1] = 3

    assert pending.waiting(c, 1).tolist() == [1, 2, 3]
    assert pending.waiting(c, 2).tolist() == [0, 0, 0]
