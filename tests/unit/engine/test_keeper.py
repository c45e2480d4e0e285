"""What a commit writes of the state, and what is taken back of it: tombstones, stale copies, terms, wrong places."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from old_state import as_format_1

from forecaster.engine.journal import Mark, decode_meta
from forecaster.engine.keeper import META_KEY, StateKeeper
from forecaster.errors import PageCorrupt, StateError, StateGap
from forecaster.records import StateRecord
from forecaster.series.columns import Column
from forecaster.state.pages import PAGE_SLOTS, decode_page
from forecaster.state.streams import StreamTable


class Kept:
    """A table, its keeper, and the state topic as it stands after the last commit."""

    def __init__(self, *, flush_seconds: float = 0.0, max_pages: int = 100, terms: dict[str, object] | None = None):
        self.table = StreamTable((Column("clock", "f8"), Column("model", "i4")), max_streams=1_000)
        self.keeper = StateKeeper(self.table, flush_seconds=flush_seconds, max_pages=max_pages, terms=terms)
        self.topic: dict[str, bytes] = {}

    def put(self, streams: Iterable[str], offset: int) -> None:
        """Readings of these streams."""
        for stream in streams:
            slot = self.table.slot(stream)
            assert slot is not None
            self.table.arrays["clock"][slot] = offset
            self.keeper.changed([slot], offset, now=float(offset))

    def release(self, streams: Iterable[str], offset: int) -> None:
        slots = [self.table.find(stream) for stream in streams]
        self.keeper.changed([slot for slot in slots if slot is not None], offset, now=float(offset))
        self.table.release(streams)

    def commit(self, offset: int) -> list[StateRecord]:
        records = self.keeper.export(Mark(offset, 0.0, 0, "gru-1"), oldest_held=None, now=1e9)
        for record in records:
            self.topic.pop(record.key, None)
            if record.value is not None:
                self.topic[record.key] = record.value
        return records

    def restarted(self, committed: int, **options: object) -> Kept:
        fresh = Kept(**options)  # type: ignore[arg-type]
        fresh.topic = dict(self.topic)
        fresh.keeper.restore([StateRecord(*item) for item in self.topic.items()], committed=committed)
        return fresh


def begun(streams: Iterable[str], **options: object) -> Kept:
    kept = Kept(**options)  # type: ignore[arg-type]
    kept.keeper.begin(Mark(0, -np.inf, None, None))
    kept.put(streams, 5)
    kept.commit(10)
    return kept


NAMES = [f"s{number}" for number in range(PAGE_SLOTS + 8)]  # slots 1 to 40: page 0 and some of page 1


def test_a_page_without_streams_gets_a_tombstone_and_a_partly_empty_one_holds_the_rest() -> None:
    kept = begun(NAMES)
    assert set(kept.topic) == {"page/0", "page/1", META_KEY}

    kept.release([*NAMES[PAGE_SLOTS - 1 :], "s3"], 12)  # all of page 1, one of page 0
    records = kept.commit(20)

    assert {record.key: record.value is None for record in records} == {
        "page/0": False,
        "page/1": True,
        META_KEY: False,
    }
    assert set(kept.topic) == {"page/0", META_KEY}
    names = decode_page(kept.topic["page/0"], kept.table).names
    assert [name for name in names if name is not None] == [n for n in NAMES[: PAGE_SLOTS - 1] if n != "s3"]
    restarted = kept.restarted(20)
    assert set(restarted.table) == set(kept.table)
    assert restarted.table.slot("new") == kept.table.slot("new") == 4, "the freed slot, in both"


def test_a_page_that_was_empty_holds_streams_again_later() -> None:
    kept = begun(NAMES)
    kept.release(NAMES, 12)
    kept.commit(20)
    assert set(kept.topic) == {META_KEY}

    kept.put(["again"], 25)
    kept.commit(30)

    assert set(kept.restarted(30).table) == {"again"}


def test_the_older_of_two_copies_of_a_stream_is_written_over_before_it_can_be_taken_for_the_stream() -> None:
    """A stream moved from page 1 to page 0, and only page 0 was written before the crash."""
    kept = begun(NAMES, max_pages=1)
    kept.commit(11)  # page 1 too
    moving = NAMES[-1]
    kept.release([moving, "s0"], 12)
    kept.put([moving], 13)  # takes the slot of s0, in page 0
    kept.commit(20)
    assert moving in decode_page(kept.topic["page/0"], kept.table).names
    assert moving in decode_page(kept.topic["page/1"], kept.table).names, "as it stood before"

    restarted = kept.restarted(20, max_pages=1)
    restarted.keeper.finish_replay()
    assert restarted.table.find(moving) == 1
    restarted.commit(21)
    restarted.release([moving], 22)
    restarted.commit(30)

    again = restarted.restarted(30)
    assert moving not in again.table


def test_until_the_older_copy_is_gone_a_replay_begins_before_the_stream_moved() -> None:
    kept = begun(NAMES, max_pages=1)
    kept.commit(11)
    kept.release([NAMES[-1], "s0"], 12)
    kept.put([NAMES[-1]], 13)
    kept.commit(20)

    restarted = kept.restarted(20, max_pages=0)
    restarted.keeper.finish_replay()
    restarted.keeper.begin(Mark(20, 0.0, 0, "gru-1"))
    restarted.commit(21)

    assert decode_meta(restarted.topic[META_KEY]).replay_from <= 12


def test_refusals_outlive_a_replay_that_does_not_make_them_again() -> None:
    kept = begun(NAMES).restarted(10, max_pages=0)
    kept.keeper.finish_replay()
    kept.put(["s0"], 10)
    kept.keeper.refused(11, "temp")
    kept.commit(20)

    restarted = kept.restarted(20, max_pages=0)
    assert restarted.keeper.was_refused(11, "temp")
    restarted.put(["s0"], 10)  # replayed
    restarted.keeper.finish_replay()
    restarted.commit(21)

    meta = decode_meta(restarted.topic[META_KEY])
    assert meta.replay_from <= 11
    assert meta.refused == [(11, "temp")]


def test_state_kept_under_other_terms_is_refused() -> None:
    kept = begun(NAMES, terms={"forecast.quantiles": (0.1, 0.5, 0.9), "readings.max_lateness_seconds": 30.0})

    kept.restarted(10, terms={"forecast.quantiles": (0.1, 0.5, 0.9)})
    with pytest.raises(StateError) as caught:
        kept.restarted(10, terms={"forecast.quantiles": (0.1, 0.5, 0.9), "readings.max_lateness_seconds": 0.0})

    assert "readings.max_lateness_seconds 30.0, this program runs 0.0" in str(caught.value)
    assert "`forecaster reset`" in caught.value.hint


def test_state_of_format_1_does_not_say_its_terms_and_has_them_from_the_first_commit_on() -> None:
    kept = begun(NAMES)
    kept.topic = {
        record.key: record.value
        for record in (as_format_1(StateRecord(key, value), kept.table, 10) for key, value in kept.topic.items())
        if record.value is not None
    }

    restarted = kept.restarted(10, terms={"forecast.quantiles": (0.5,)})
    restarted.keeper.finish_replay()
    restarted.commit(20)

    assert set(restarted.table) == set(NAMES)
    assert decode_meta(restarted.topic[META_KEY]).terms == {"forecast.quantiles": "[0.5]"}


def test_a_page_under_the_key_of_another_is_refused() -> None:
    kept = begun(NAMES)
    kept.topic["page/7"] = kept.topic["page/1"]

    with pytest.raises(PageCorrupt, match="'page/7' holds page 1"):
        kept.restarted(10)


def test_state_without_meta_or_of_another_offset_points_to_reset() -> None:
    kept = begun(NAMES)
    with pytest.raises(StateGap, match="at offset 10, the group's committed offset is 9") as caught:
        kept.restarted(9)
    assert "`forecaster reset --keep-offsets`" in caught.value.hint

    del kept.topic[META_KEY]
    with pytest.raises(StateGap, match="no meta record"):
        kept.restarted(10)


def test_pages_that_are_gone_or_older_than_the_last_ones_written_are_noticed() -> None:
    """As after the state topic was made anew under running workers, or restored from a copy."""
    kept = begun([f"s{k}" for k in range(3 * PAGE_SLOTS)])
    before = dict(kept.topic)
    kept.put(["s0"], 15)
    kept.commit(20)

    whole = dict(kept.topic)
    for damaged in (
        {key: value for key, value in whole.items() if key != "page/1"},
        {**whole, "page/0": before["page/0"]},
    ):
        kept.topic = damaged
        with pytest.raises(StateGap, match="not all of them as they were written") as refused:
            kept.restarted(20)
        assert "forecaster reset" in refused.value.hint

    kept.topic = whole
    kept.restarted(20)
