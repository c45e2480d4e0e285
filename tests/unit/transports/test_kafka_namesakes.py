"""Of two processes under one name exactly one ends; a predecessor that is dead ends nobody."""

from __future__ import annotations

import pytest

from forecaster.clock import ManualClock
from forecaster.errors import ConfigurationError, TransportUnavailable
from forecaster.transports.kafka_namesakes import GroupMember, Namesakes

SESSION = 10.0
LONG_ENOUGH = 2 * SESSION + 2


class Group:
    """A coordinator's list of members."""

    def __init__(self) -> None:
        self.members: list[GroupMember] = [member("stranger", name="worker-9")]
        self.looks = 0
        self.is_away = False

    def __call__(self) -> list[GroupMember]:
        self.looks += 1
        if self.is_away:
            raise TransportUnavailable("Nobody answers.")
        return self.members


def member(member_id: str, *, name: str = "worker-0") -> GroupMember:
    return GroupMember(member_id=member_id, name=name, host="/10.0.0.7")


@pytest.fixture
def group() -> Group:
    return Group()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def make_namesakes(group: Group, clock: ManualClock, *, is_static: bool = False) -> Namesakes:
    return Namesakes(
        group,
        group_id="forecaster",
        name="worker-0",
        is_static=is_static,
        session_seconds=SESSION,
        monotonic=clock.monotonic,
    )


def test_a_newcomer_does_not_join_beside_its_elder_and_ends_when_that_one_outlives_a_session(
    group: Group, clock: ManualClock
) -> None:
    group.members.append(member("elder"))
    newcomer = make_namesakes(group, clock)
    newcomer.begin()

    for _ in range(round(2 * SESSION)):
        assert not newcomer.may_join()
        clock.advance(1.0)
    clock.advance(2.0)

    with pytest.raises(ConfigurationError, match=r"Another process at 10\.0\.0\.7 is in group forecaster as instance"):
        newcomer.may_join()


def test_a_broker_that_is_away_lets_nobody_in_and_accuses_nobody(group: Group, clock: ManualClock) -> None:
    group.members.append(member("elder"))
    newcomer = make_namesakes(group, clock)
    newcomer.begin()
    group.is_away = True
    clock.advance(LONG_ENOUGH)

    assert not newcomer.may_join()


def test_the_elder_goes_on(group: Group, clock: ManualClock) -> None:
    elder = make_namesakes(group, clock)
    elder.begin()
    group.members += [member("elder"), member("newcomer")]

    elder.suspect("elder")  # the newcomer has thrown its transaction away
    group.members.pop()  # and has ended since
    clock.advance(LONG_ENOUGH)

    elder.check("elder")


def test_a_predecessor_that_was_killed_is_waited_for_until_its_session_ends(group: Group, clock: ManualClock) -> None:
    group.members.append(member("dead"))
    restarted = make_namesakes(group, clock)
    restarted.begin()

    assert not restarted.may_join()
    group.members = [member("stranger", name="worker-9")]
    clock.advance(1.0)
    assert restarted.may_join()

    group.members.append(member("restarted"))
    restarted.suspect("restarted")
    clock.advance(LONG_ENOUGH)
    restarted.check("restarted")


def test_who_finds_nobody_joins_at_once(group: Group, clock: ManualClock) -> None:
    first = make_namesakes(group, clock)
    first.begin()

    assert first.may_join()


def test_of_two_that_began_at_the_same_moment_one_ends(group: Group, clock: ManualClock) -> None:
    twins = {name: make_namesakes(group, clock) for name in ("a", "b")}
    for twin in twins.values():
        twin.begin()
    group.members += [member("a"), member("b")]

    ended = []
    for name, twin in twins.items():
        twin.suspect(name)
    clock.advance(LONG_ENOUGH)
    for name, twin in twins.items():
        try:
            twin.check(name)
        except ConfigurationError:
            ended.append(name)

    assert ended == ["b"]


def test_our_own_former_membership_is_no_namesake(group: Group, clock: ManualClock) -> None:
    """After an eviction we join under another id; the old one is listed for a while."""
    ours = make_namesakes(group, clock)
    ours.begin()
    group.members += [member("before"), member("now")]
    ours.suspect("now")
    group.members.remove(member("before"))

    clock.advance(LONG_ENOUGH)

    ours.check("now")


def test_a_static_member_whose_place_was_taken_ends_at_once(group: Group, clock: ManualClock) -> None:
    elder = make_namesakes(group, clock, is_static=True)
    elder.begin()
    group.members.append(member("newcomer"))

    with pytest.raises(ConfigurationError, match="as instance worker-0, the name of this one") as told:
        elder.suspect("elder")

    assert "FORECASTER_KAFKA__INSTANCE_ID" in told.value.hint


def test_a_static_member_that_restarts_within_its_session_does_not_mind_its_predecessor(
    group: Group, clock: ManualClock
) -> None:
    group.members.append(member("before"))
    restarted = make_namesakes(group, clock, is_static=True)
    restarted.begin()
    group.members = [member("now")]

    restarted.suspect("now")
    clock.advance(LONG_ENOUGH)
    restarted.check("now")


def test_nobody_is_asked_while_nobody_was_seen(group: Group, clock: ManualClock) -> None:
    ours = make_namesakes(group, clock)
    ours.begin()

    for _ in range(100):
        clock.advance(LONG_ENOUGH)
        ours.check("ours")

    assert group.looks == 1


def test_a_broker_that_is_away_accuses_nobody(group: Group, clock: ManualClock) -> None:
    ours = make_namesakes(group, clock)
    ours.begin()
    group.members.append(member("other"))
    ours.suspect("zz")
    group.is_away = True
    clock.advance(LONG_ENOUGH)

    ours.check("zz")
    ours.suspect("zz")
