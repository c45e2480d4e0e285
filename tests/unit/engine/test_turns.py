import pytest

from forecaster.engine.turns import Pace


@pytest.mark.parametrize(
    ("records", "took", "has_backlog", "rest"),
    [
        (3, 0.005, False, 0.015),
        (3, 0.5, False, 0.0),  # it has waited for them
        (0, 0.001, False, 0.0),  # the poll has waited
        (250, 0.005, False, 0.0),  # plenty
        (3, 0.005, True, 0.0),  # some wait already
    ],
)
def test_a_turn_that_brought_few_records_is_drawn_out_and_no_other(records, took, has_backlog, rest):
    pace = Pace(min_turn_seconds=0.02)

    assert pace.rest(records, took_seconds=took, has_backlog=has_backlog) == pytest.approx(rest)


def test_by_itself_a_pace_draws_nothing_out():
    assert Pace().rest(1, took_seconds=0.0, has_backlog=False) == 0.0


def test_polls_are_long_when_idle_shorter_when_a_commit_waits_and_shortest_when_partitions_are_restored():
    pace = Pace(idle_seconds=0.25)

    idle, uncommitted, restoring = (
        pace.patience(restoring=restoring, unconfirmed=unconfirmed)
        for restoring, unconfirmed in ((0, 0), (0, 5), (2, 5))
    )

    assert idle == 0.25
    assert restoring < uncommitted < idle
