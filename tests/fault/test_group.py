"""Membership: workers that come and go at any moment, one name for two, a member that is stopped within a commit."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM

import pytest
from fault.harness import (
    IS_LONG,
    Crew,
    MakeGround,
    assert_as_if_nothing_had_happened,
    assert_exactly_once,
    finish,
)

RATE = 300 if IS_LONG else 150
"""Readings a second."""
STORM = 120 if IS_LONG else 8
"""Comings and goings."""
PATIENCE = 180.0
"""Seconds; a busy machine takes long to start four processes at once."""
TWIN = {"KAFKA__INSTANCE_ID": "twin"}
STATIC = {"KAFKA__STATIC_MEMBERSHIP": "true"}
PLACES_IN_A_COMMIT = ("mid_send", "after_flush", "after_offsets")


def test_a_storm_of_workers_that_come_and_go_loses_nothing_and_doubles_nothing(
    make_ground: MakeGround, tmp_path: Path, registry: Path
) -> None:
    """Restores and commits run all the while; most rebalances begin within another one."""
    rng = random.Random(5)
    ground = make_ground()
    ground.feed(1_000)

    with Crew(ground, workers=4, directory=tmp_path / "crew", registry=registry) as crew:
        crew.wait_until(lambda: crew.is_up(0), seconds=PATIENCE, what="one up")
        ground.start_feeding(RATE)
        for _ in range(STORM):
            number = rng.randrange(4)
            crew.wait_until(lambda number=number: crew.is_up(number), seconds=PATIENCE, what=f"worker {number} up")
            crew.signal(number, rng.choice([SIGTERM, SIGTERM, SIGKILL]))
            time.sleep(rng.uniform(0.0, 1.0))
        finish(crew, seconds=PATIENCE)

        assert {"0", "-9"} <= set(crew.endings), "some were told to end, some were killed"
        # A second SIGTERM while a worker stops ends it at once: 130, or -15 where Python was closing down already.
        assert set(crew.endings) <= {"0", "-9", "130", "-15"}, "nobody ended in an error"
        assert_exactly_once(crew)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)


@pytest.mark.parametrize(("membership", "loser"), [({}, 1), (STATIC, 0)], ids=["dynamic", "static"])
def test_of_two_processes_under_one_name_one_ends_and_says_why(
    make_ground: MakeGround, tmp_path: Path, registry: Path, membership: dict[str, str], loser: int
) -> None:
    """They have one transactional id too. Dynamic members: the newcomer ends; static ones: the elder."""
    ground = make_ground()
    ground.feed(300)
    settings = {**TWIN, **membership}

    with crew_with_one_begun(ground, tmp_path, registry, settings) as crew:
        crew.wait_until_done(seconds=PATIENCE)
        ground.start_feeding(RATE)
        crew.release(1)
        code, log = crew.end_of(loser, seconds=PATIENCE)
        finish_what_is_left(crew, [1 - loser])

        assert code == 2, log
        assert re.search(r"Another process.* is in group crew-\w+ as instance twin", log), log
        assert "FORECASTER_KAFKA__INSTANCE_ID" in log
        assert crew.endings == {"2": 1, "0": 1}, "the other one went on to the end"
        assert_exactly_once(crew)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)


@pytest.mark.parametrize("client", ["kafka-python", "librdkafka"])
def test_members_stopped_within_a_commit_beyond_every_timeout_come_back_as_nobody(
    make_ground: MakeGround, tmp_path: Path, registry: Path, client: str
) -> None:
    """Their sessions are over, their transactions aborted, their partitions another's before they go on."""
    ground = make_ground()
    ground.feed(500)
    places = [f"{place}:{count}:stop" for place, count in zip(PLACES_IN_A_COMMIT, (40, 3, 3), strict=True)]
    settings = {
        "KAFKA__TRANSACTION_TIMEOUT_SECONDS": "4",
        "KAFKA__MAX_POLL_INTERVAL_SECONDS": "4",
        "KAFKA__CLIENT": client,
    }

    with Crew(
        ground, workers=4, directory=tmp_path / "crew", registry=registry, places=places, settings=settings
    ) as crew:
        ground.start_feeding(RATE)
        crew.wait_until(lambda: all(map(crew.is_stopped, range(3))), seconds=PATIENCE, what="three stopped in a commit")
        ground.stop_feeding()
        crew.wait_until_done(seconds=PATIENCE)  # by the fourth
        for number in range(3):
            crew.signal(number, SIGCONT)
        ground.feed(300)
        finish(crew, seconds=PATIENCE)

        assert_exactly_once(crew)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)


@pytest.mark.parametrize("how", [SIGKILL, SIGTERM] if IS_LONG else [SIGKILL])
def test_a_static_member_that_restarts_within_its_session_keeps_its_partitions_and_disturbs_nobody(
    make_ground: MakeGround, tmp_path: Path, registry: Path, how: int
) -> None:
    ground = make_ground()
    ground.feed(300)
    settings = {**STATIC, "KAFKA__SESSION_TIMEOUT_SECONDS": "60"}

    with Crew(ground, workers=2, directory=tmp_path / "crew", registry=registry, settings=settings) as crew:
        crew.wait_until_done(seconds=PATIENCE)
        crew.wait_until(lambda: len(owned(crew, 0)) == len(owned(crew, 1)) == 4, seconds=PATIENCE, what="shared evenly")
        before, moves = owned(crew, 0), crew.log(1).count("partitions assigned")
        ground.start_feeding(RATE)
        crew.signal(0, how)
        crew.wait_until(lambda: crew.slots[0].endings != [], seconds=PATIENCE, what="ended")
        crew.wait_until(lambda: crew.is_up(0) and len(owned(crew, 0)) == 4, seconds=PATIENCE, what="back in its place")
        after = owned(crew, 0)
        finish(crew, seconds=PATIENCE)

        assert after == before
        assert crew.log(1).count("partitions assigned") == moves, "the other one was not asked to move"
        assert_exactly_once(crew)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)


def crew_with_one_begun(ground, tmp_path: Path, registry: Path, settings: dict[str, str]) -> Crew:
    """Two slots, the second of them empty."""
    crew = Crew(ground, workers=2, directory=tmp_path / "crew", registry=registry, settings=settings)
    crew.slots[1].is_held = True
    return crew


def finish_what_is_left(crew: Crew, numbers: Sequence[int]) -> None:
    """As `finish`, where the other slots are empty."""
    crew.ground.stop_feeding()
    crew.wait_until_done(seconds=PATIENCE)
    for number in numbers:
        assert crew.stop(number, seconds=PATIENCE) == 0, crew.explain()


def owned(crew: Crew, number: int) -> list[int]:
    """Partitions that the process of the moment has restored and not given up since, as its log tells."""
    held: set[int] = set()
    for line in crew.log(number).splitlines():
        if restored := re.search(r'"partition restored".*?"partition": ?(\d+)', line):
            held.add(int(restored[1]))
        elif given := re.search(r'"partitions (?:revoked|lost)", "partitions": ?\[([\d, ]*)\]', line):
            held -= {int(partition) for partition in given[1].split(",") if partition.strip()}
    return sorted(held)
