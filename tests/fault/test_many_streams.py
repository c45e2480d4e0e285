"""So many streams that their state is many times what one commit may hold."""

from __future__ import annotations

from pathlib import Path
from signal import SIGKILL

from fault.harness import IS_LONG, Crew, MakeGround, assert_as_if_nothing_had_happened, assert_exactly_once, finish

STREAMS = 100_000 if IS_LONG else 1_500
PATIENCE = 1_200.0 if IS_LONG else 180.0
FEED_AT_ONCE = 20_000


def test_no_commit_outgrows_its_time_out_however_many_streams_there_are(
    make_ground: MakeGround, tmp_path: Path, registry: Path
) -> None:
    """All pages are dirty at once; a commit takes as many as it may hold, and a kill in the middle loses none."""
    ground = make_ground(streams=STREAMS)
    settings = {"KAFKA__TRANSACTION_TIMEOUT_SECONDS": "5", "STATE__BYTES_PER_COMMIT": "200000"}

    with Crew(ground, workers=1, directory=tmp_path / "crew", registry=registry, settings=settings) as crew:
        for _ in range(0, 2 * STREAMS, FEED_AT_ONCE):
            ground.feed(min(FEED_AT_ONCE, 2 * STREAMS))
        crew.wait_until_done(seconds=PATIENCE)
        ground.feed(STREAMS // 2)
        crew.signal(0, SIGKILL)
        finish(crew, seconds=PATIENCE)

        assert "starting over" not in crew.log(0), "no transaction was lost: none took too long"
        assert_exactly_once(crew)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)
