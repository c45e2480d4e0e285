"""Workers on librdkafka: the same promise, and the same bytes as a worker on kafka-python."""

from __future__ import annotations

import time
from pathlib import Path
from signal import SIGKILL

from fault.harness import Crew, MakeGround, assert_as_if_nothing_had_happened, assert_exactly_once, finish

RATE = 150
"""Readings a second."""
PATIENCE = 180.0
PLACES = ("mid_send:20", "after_flush:3", "after_offsets:3", "after_commit:3", "in_restore:2")


def test_workers_on_librdkafka_killed_within_commits_leave_no_trace(
    make_ground: MakeGround, tmp_path: Path, registry: Path
) -> None:
    """The run that nobody disturbed is one on kafka-python."""
    ground = make_ground()
    ground.feed(300)

    with Crew(
        ground,
        workers=2,
        directory=tmp_path / "crew",
        registry=registry,
        places=list(PLACES),
        settings={"KAFKA__CLIENT": "librdkafka"},
    ) as crew:
        ground.start_feeding(RATE)
        crew.wait_until(lambda: not crew.places_left, seconds=PATIENCE, what="killed at every place")
        crew.wait_until(lambda: crew.is_up(0), seconds=PATIENCE, what="up")
        crew.signal(0, SIGKILL)
        time.sleep(1.0)
        finish(crew, seconds=PATIENCE)

        assert sum(crew.died_at.values()) == len(PLACES)
        assert_exactly_once(crew)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry, {"KAFKA__CLIENT": "kafka-python"})
