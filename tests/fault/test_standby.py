"""Kills among workers that keep each other's state warm: as exactly once, and as equal, as without."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from signal import SIGKILL

from fault.harness import (
    IS_LONG,
    Crew,
    MakeGround,
    assert_as_if_nothing_had_happened,
    assert_exactly_once,
    finish,
)

WORKERS = 2
RATE = 300 if IS_LONG else 150
"""Readings a second."""
KILLS = 60 if IS_LONG else 0
"""Beside the last one, whose worker stays away until the other has taken over."""

PLACES = ("in_restore:2", "in_replay:2") * 10 if IS_LONG else ()
STANDBY = {"RECOVERY__STANDBY": "1"}
SECONDS = 120.0
"""Patience for what takes a start, a session or the end of a transaction that was left open."""


def restores(crew: Crew) -> Counter[str]:
    """How many partitions were restored, by what from, in all of the workers' logs."""
    kinds: Counter[str] = Counter()
    for number in range(len(crew.slots)):
        for line in (crew.directory / f"worker-{number}.log").read_text(errors="replace").splitlines():
            if '"partition restored"' in line:
                kinds[json.loads(line)["kind"]] += 1
    return kinds


def test_kills_among_standbys_leave_no_trace_and_partitions_come_back_from_memory(
    make_ground: MakeGround, tmp_path: Path, registry: Path
) -> None:
    rng = random.Random(11)
    ground = make_ground()
    ground.feed(500)

    with Crew(
        ground, workers=WORKERS, directory=tmp_path / "crew", registry=registry, places=PLACES, settings=STANDBY
    ) as crew:
        ground.start_feeding(RATE)
        deadline = time.monotonic() + SECONDS * (KILLS + len(PLACES) + 1)
        while crew.killed < KILLS or crew.places_left:
            assert time.monotonic() < deadline, crew.explain()
            patience = SECONDS + 30 * len(crew.places_left)  # each is a start that ends before anybody is up
            crew.wait_until(lambda: all(map(crew.is_up, range(WORKERS))), seconds=patience, what="all up")
            time.sleep(rng.uniform(2.0, 4.0))  # partitions move, and whoever stands by has what there is
            crew.signal(crew.killed % WORKERS, SIGKILL)
        crew.wait_until(lambda: all(map(crew.is_up, range(WORKERS))), seconds=SECONDS, what="all up")
        time.sleep(rng.uniform(2.0, 4.0))  # as above: what is to be taken over has to be there
        # Started again at once it might be given its partitions back, and nobody would take over.
        last = crew.killed % WORKERS
        crew.hold(last)
        crew.signal(last, SIGKILL)
        crew.wait_until(lambda: restores(crew)["standby"] > 0, seconds=SECONDS, what="restored from memory")
        crew.release(last)
        finish(crew)

        assert_exactly_once(crew)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)
