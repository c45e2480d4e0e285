"""The watch list: few streams, the right ones, and the same ones from look to look."""

from __future__ import annotations

import pytest

from forecaster.clock import ManualClock
from forecaster.telemetry.watch import WatchList

MINUTE = 60.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(0.0)


def make_list(clock: ManualClock, *patterns: str, most: int = 10) -> WatchList:
    return WatchList(patterns, most=most, clock=clock)


def test_streams_are_found_by_name_and_by_pattern_in_every_partition(clock):
    watch = make_list(clock, "pump", "ward-3/*")

    chosen = watch.choose({0: {"ward-3/bed-2", "ward-4/bed-1"}, 1: {"pump", "ward-3/bed-1", "pump-2"}})

    assert chosen == [(1, "pump"), (1, "ward-3/bed-1"), (0, "ward-3/bed-2")]


def test_there_are_never_more_than_the_bound(clock):
    watch = make_list(clock, "*", most=3)

    assert watch.choose({0: {f"s{n}" for n in range(50)}}) == [(0, "s0"), (0, "s1"), (0, "s10")]


def test_without_patterns_nothing_is_watched(clock):
    assert make_list(clock).choose({0: {"a"}}) == []


def test_a_stream_once_watched_stays_while_others_come_before_it_by_name(clock):
    watch = make_list(clock, "*", most=1)
    assert watch.choose({0: ["m"]}) == [(0, "m")]

    clock.advance(MINUTE)

    assert watch.choose({0: ["a", "m"]}) == [(0, "m")]


def test_room_that_a_stream_leaves_goes_to_another(clock):
    watch = make_list(clock, "*", most=1)
    watch.choose({0: ["a", "b"]})

    clock.advance(MINUTE)

    assert watch.choose({0: ["b"]}) == [(0, "b")]


def test_a_new_stream_is_found_by_its_name_at_once_and_by_a_pattern_within_half_a_minute(clock):
    watch = make_list(clock, "by-name", "pattern-*")
    watch.choose({0: ["other"]})

    clock.advance(1.0)
    at_once = list(watch.choose({0: ["other", "by-name", "pattern-1"]}))
    clock.advance(30.0)

    assert at_once == [(0, "by-name")]
    assert watch.choose({0: ["other", "by-name", "pattern-1"]}) == [(0, "by-name"), (0, "pattern-1")]


def test_patterns_are_not_held_against_streams_that_did_not_change(clock):
    class Counted(dict[str, int]):
        walks = 0

        def __iter__(self):
            self.walks += 1
            return super().__iter__()

    streams = Counted(a=0, b=0)
    watch = make_list(clock, "nothing-like-it-*")
    for _ in range(5):
        watch.choose({0: streams})
        clock.advance(MINUTE)

    assert streams.walks == 1


def test_a_stream_that_moved_to_another_partition_is_shown_from_there(clock):
    watch = make_list(clock, "a")
    watch.choose({0: ["a"]})

    assert watch.choose({1: ["a"]}) == [(1, "a")]


def test_other_patterns_are_taken_up_at_the_next_choice_and_streams_that_still_match_stay(clock):
    watch = make_list(clock, "*", most=2)
    watch.choose({0: {"a-1", "b-1", "b-2"}})

    watch.change(["b-*"], most=2)

    assert watch.choose({0: {"a-1", "b-0", "b-1", "b-2"}}) == [(0, "b-1"), (0, "b-0")]


def test_a_smaller_bound_holds_from_the_next_choice_on(clock):
    watch = make_list(clock, "*", most=3)
    watch.choose({0: {"a", "b", "c"}})

    watch.change(["*"], most=1)
    assert watch.choose({0: {"a", "b", "c"}}) == [(0, "a")]

    watch.change([], most=3)
    assert watch.choose({0: {"a", "b", "c"}}) == []
