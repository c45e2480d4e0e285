"""Whatever dies, whenever: each reading is answered once, byte for byte as if nothing had ever died."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

import kafka_broker
from fault.harness import (
    BOUNDARY_RECORDS,
    IS_LONG,
    PARTITIONS,
    STREAMS,
    Crew,
    MakeGround,
    Reader,
    assert_as_if_nothing_had_happened,
    assert_exactly_once,
    finish,
    make_registry,
)
from kafka_fixtures import require_broker

from forecaster.crash_points import PLACES
from forecaster.engine.switches import Switch, read_switches
from forecaster.transports.kafka_transaction import WATCHDOG_EXIT_CODE

WORKERS = 3
RATE = 100 if IS_LONG else 150
"""Readings a second; the long form takes half an hour, and all of them are read again several times."""
KILLS_AT_EACH_PLACE = 30 if IS_LONG else 2
KILLS_AT_A_SWITCH = 30 if IS_LONG else 2
KILLS_AT_RANDOM = 100 if IS_LONG else 6
KILL_SECONDS = 30.0
"""Patience for one kill and what follows it: a silent session, a start, a restore."""

PATIENCE = 180.0
"""Seconds for what takes a start or a session on a busy machine."""

MENDED_BY_A_START = (
    r"^1: forecaster run: .*(fenced|epoch|generation|transactional)",  # others took its place, or its name, twice
    r"^1: forecaster run: .*(within [\d.]+ s|failed: \w*Timeout)",  # nobody answered in time
    r"^2: forecaster run: Another process",  # a member of its name, killed just now, was still in the group
    rf"^{WATCHDOG_EXIT_CODE}: ",  # a commit did not come back
)
"""What ends a worker among kills, beside the kills: its supervisor starts it again."""

STEADY_PLACES = tuple(place for place in PLACES if place != "at_switch")
"""Those a worker passes without a promotion."""


def armed(places: tuple[str, ...], *, times: int, rng: random.Random) -> list[str]:
    """Each place this often, in random order, to be died at when it is reached for the n-th time."""
    counts = {"in_restore": 2, "in_replay": 2, "at_switch": 2}
    chosen = [f"{place}:{rng.randint(1, counts.get(place, 20))}" for place in places for _ in range(times)]
    rng.shuffle(chosen)
    return chosen


def write_switches(directory: Path, versions: Sequence[str]) -> Path:
    """The first model from the start; the second, the third, and the second again, later in every further partition."""
    plan = [(0, 0), (3, 1), (7, 2), (11, 1)]  # in boundaries, in tens of them for the long form
    scale = BOUNDARY_RECORDS * (10 if IS_LONG else 1)
    lines = [
        json.dumps(
            {"partition": partition, "offset": at and scale * at + partition * BOUNDARY_RECORDS, "version": versions[k]}
        )
        for partition in range(PARTITIONS)
        for at, k in plan
    ]
    path = directory / "switches.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def answered_by(crew: Crew, version: str) -> bool:
    """Whether a forecast names this model."""
    name = version.encode()
    return any(
        name in (value or b"")
        for (kind, _), answers in crew.answers().items()
        if kind == "forecasts"
        for _, value, _ in answers
    )


def test_two_undisturbed_crews_give_equal_bytes_however_many_workers_share_the_work(
    make_ground: MakeGround, tmp_path: Path, registry: Path
) -> None:
    """What the other tests compare with is worth comparing with."""
    ground = make_ground()
    ground.feed(35 * STREAMS)  # enough of each stream for some to have anomalies

    with Crew(ground, workers=2, directory=tmp_path / "two", registry=registry) as crew:
        finish(crew)
        assert_exactly_once(crew)

        assert sum(len(told) for (kind, _), told in crew.answers().items() if kind == "anomalies") > 0
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)


def test_workers_killed_at_every_place_and_at_random_leave_no_trace(make_ground: MakeGround, tmp_path: Path) -> None:
    """Two promotions and a roll-back come at offsets of their own in each partition, the same ones in both runs."""
    rng = random.Random(7)
    registry = tmp_path / "models"
    _, versions = make_registry(registry, models=3)
    settings = {"ENGINE__SWITCHES": str(write_switches(tmp_path, versions))}
    ground = make_ground()
    ground.feed(500)
    places = armed(STEADY_PLACES, times=KILLS_AT_EACH_PLACE, rng=rng)

    with Crew(
        ground, workers=WORKERS, directory=tmp_path / "crew", registry=registry, places=places, settings=settings
    ) as crew:
        reader = Reader(crew)
        ground.start_feeding(RATE)
        deadline = time.monotonic() + KILL_SECONDS * (len(places) + KILLS_AT_RANDOM)
        next_shot = time.monotonic() + rng.uniform(4, 8)
        while crew.places_left or crew.killed < KILLS_AT_RANDOM:
            assert time.monotonic() < deadline, crew.explain()
            if crew.killed < KILLS_AT_RANDOM and time.monotonic() > next_shot:
                crew.signal(rng.randrange(WORKERS), SIGKILL)
                next_shot = time.monotonic() + rng.uniform(4, 8)
            time.sleep(rng.uniform(0.05, 0.15))
        finish(crew, seconds=600)

        assert crew.died_at == dict.fromkeys(STEADY_PLACES, KILLS_AT_EACH_PLACE)
        assert_no_surprise(crew)
        assert_exactly_once(crew)
        reader.finish(crew.answers(), seconds=300)
        assert reader.seen == crew.answers(), "a committed answer was never changed or taken back"
        assert {version for version in versions if answered_by(crew, version)} == set(versions)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry, settings)


def test_promotions_and_a_rollback_among_kills_come_again_where_they_were_recorded(
    make_ground: MakeGround, tmp_path: Path
) -> None:
    """They come when they come; a run that follows what was recorded of them gives the same bytes."""
    rng = random.Random(8)
    registry, versions = make_registry(tmp_path / "models", models=2)
    ground = make_ground()
    ground.feed(500)
    places = armed(("after_flush", "after_commit"), times=2, rng=rng)
    places += armed(("at_switch",), times=KILLS_AT_A_SWITCH, rng=rng)

    with Crew(
        ground, workers=WORKERS, directory=tmp_path / "crew", registry=tmp_path / "models", places=places
    ) as crew:
        ground.start_feeding(2 * RATE)
        for turn in range(20 * KILLS_AT_A_SWITCH):
            if not crew.places_left:
                break
            if turn % 2:
                registry.rollback(now=time.time(), reason="test")
            else:
                registry.promote(versions[1], {"reason": "test"}, now=time.time())
            time.sleep(5.0)
        finish(crew)

        assert crew.died_at["at_switch"] == KILLS_AT_A_SWITCH, crew.explain()
        assert_no_surprise(crew)
        assert_exactly_once(crew)
        assert {version for version in versions if answered_by(crew, version)} == set(versions)
        recorded = tmp_path / "recorded.jsonl"
        recorded.write_text(crew.run("state", "switches").stdout)
        assert len(read_switches(recorded)) > PARTITIONS, "each partition begins with one, and some come later"
        follow = {"ENGINE__SWITCHES": str(recorded)}
        assert_as_if_nothing_had_happened(crew, tmp_path, tmp_path / "models", follow)


GROUPS = {"GROUPS": json.dumps([{"name": "even", "streams": ["site-[0246]/*"]}])}


def write_switches_of_groups(directory: Path, versions: Sequence[str]) -> Path:
    """Both groups switch at the same boundaries, to models of their own; the even one begins without any."""
    plan = [("", 0, 0), ("", 3, 1), ("even", 3, 2), ("", 7, 0), ("even", 7, 3), ("", 11, 1), ("even", 11, 2)]
    lines = []
    for partition in range(PARTITIONS):
        for group, at, k in plan:
            offset = at and BOUNDARY_RECORDS * (at + partition)
            switch = {"partition": partition, "offset": offset, "version": versions[k]}
            lines.append(json.dumps(switch | ({"group": group} if group else {})))
    path = directory / "switches.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_workers_killed_between_the_switches_of_two_groups_leave_no_trace(
    make_ground: MakeGround, tmp_path: Path
) -> None:
    """A switch of one group may be done and the other's not when the process dies: both are done again, or neither."""
    rng = random.Random(9)
    registry = tmp_path / "models"
    _, versions = make_registry(registry, models=4)
    settings = {"ENGINE__SWITCHES": str(write_switches_of_groups(tmp_path, versions)), **GROUPS}
    ground = make_ground()
    ground.feed(500)
    places = ["at_switch:1", "at_switch:2", "at_switch:3", "after_flush:5", "in_replay:1"]

    with Crew(
        ground, workers=2, directory=tmp_path / "crew", registry=registry, places=places, settings=settings
    ) as crew:
        ground.start_feeding(RATE)
        deadline = time.monotonic() + KILL_SECONDS * (len(places) + 4)
        while crew.places_left:
            assert time.monotonic() < deadline, crew.explain()
            time.sleep(rng.uniform(0.05, 0.15))
        ground.stop_feeding()
        ground.feed(max(16 * BOUNDARY_RECORDS * PARTITIONS - ground.sent, 1))  # past the last switch
        finish(crew, seconds=600)

        assert crew.died_at == {"at_switch": 3, "after_flush": 1, "in_replay": 1}
        assert_exactly_once(crew)
        assert {version for version in versions if answered_by(crew, version)} == set(versions)
        served = {
            (json.loads(value)["stream_id"].startswith(("site-0", "site-2", "site-4", "site-6")), version)
            for (kind, _), answers in crew.answers().items()
            if kind == "forecasts"
            for _, value, _ in answers
            if (version := json.loads(value or b"{}")["model"]) is not None
        }
        assert served == {(False, versions[0]), (False, versions[1]), (True, versions[2]), (True, versions[3])}
        recorded = read_switches_of(crew, tmp_path)
        assert {(switch.group, switch.version) for switch in recorded} == {
            ("", versions[0]),
            ("", versions[1]),
            ("even", versions[2]),
            ("even", versions[3]),
        }
        assert_as_if_nothing_had_happened(crew, tmp_path, registry, settings)


def read_switches_of(crew: Crew, directory: Path) -> list[Switch]:
    """Switches as `forecaster state switches` tells them."""
    path = directory / "recorded.jsonl"
    path.write_text(crew.run("state", "switches").stdout)
    return read_switches(path)


def assert_no_surprise(crew: Crew) -> None:
    """Whoever ended by itself said why, and it was a thing that a start mends, not something it had lost or misread."""
    surprises = [reason for reason in crew.reasons if not any(re.search(known, reason) for known in MENDED_BY_A_START)]
    assert not surprises, "\n".join(surprises)


def times_joined(crew: Crew, number: int) -> int:
    """How often processes in this slot were given partitions."""
    return (crew.directory / f"worker-{number}.log").read_text(errors="replace").count('"partitions assigned"')


def test_a_worker_stopped_beyond_its_session_comes_back_as_nobody(
    make_ground: MakeGround, tmp_path: Path, registry: Path
) -> None:
    """A zombie: its partitions are another's by then, and its transaction was aborted."""
    ground = make_ground()
    ground.feed(500)

    with Crew(ground, workers=2, directory=tmp_path / "crew", registry=registry) as crew:
        crew.wait_until(lambda: crew.is_up(0) and crew.is_up(1), seconds=PATIENCE, what="both up")
        ground.start_feeding(RATE)
        time.sleep(4.0)
        for number, seconds in [(0, 6.0), (1, 12.0)] * 15 if IS_LONG else [(0, 6.0)]:
            crew.wait_until(lambda number=number: crew.is_up(number), seconds=PATIENCE, what="up")
            before = times_joined(crew, number)
            crew.signal(number, SIGSTOP)
            time.sleep(seconds)
            crew.signal(number, SIGCONT)
            # Told to end before it has noticed, it would rightly say that its last commit was refused.
            crew.wait_until(
                lambda number=number, before=before: times_joined(crew, number) > before,
                seconds=PATIENCE,
                what=f"worker {number} in the group again",
            )
        finish(crew)

        assert_exactly_once(crew)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)


def test_a_rolling_restart_disturbs_nothing(make_ground: MakeGround, tmp_path: Path, registry: Path) -> None:
    ground = make_ground()
    ground.feed(500)

    with Crew(ground, workers=WORKERS, directory=tmp_path / "crew", registry=registry) as crew:
        crew.wait_until(lambda: all(map(crew.is_up, range(WORKERS))), seconds=60, what="all up")
        ground.start_feeding(RATE)
        for number in list(range(WORKERS)) * (10 if IS_LONG else 1):
            assert crew.stop(number) == 0, crew.explain()
            crew.release(number)
            time.sleep(1.0)
        while_running = crew.verify()
        finish(crew)

        assert while_running.returncode == 0, while_running.stdout + while_running.stderr
        assert set(crew.endings) == {"0"}, "nobody ended in an error"
        assert_exactly_once(crew)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)


def test_a_broker_killed_and_started_again_costs_time_and_nothing_else(
    make_ground: MakeGround, tmp_path: Path, registry: Path
) -> None:
    require_broker()
    with kafka_broker.Broker() as node:
        ground = make_ground(node.bootstrap)
        ground.feed(500)
        with Crew(ground, workers=2, directory=tmp_path / "crew", registry=registry) as crew:
            crew.wait_until(lambda: crew.is_up(0) and crew.is_up(1), seconds=60, what="both up")
            ground.start_feeding(RATE)
            for _ in range(10 if IS_LONG else 1):
                time.sleep(5.0)
                node.kill()
                time.sleep(3.0)
                node.start()
            finish(crew, seconds=180)

            assert_exactly_once(crew)
            assert_as_if_nothing_had_happened(crew, tmp_path, registry)
        ground.close()
