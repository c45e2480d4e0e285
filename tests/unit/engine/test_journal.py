"""The task's own record: written and read, older formats too, refused when it is not what was written."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from old_state import sealed_meta

from forecaster.engine.journal import Mark, TaskJournal, TaskMeta, decode_meta, encode_meta
from forecaster.errors import PageCorrupt, StateGap

META = TaskMeta(
    schema="e11dc99459851b52",
    next_offset=350,
    replay_from=300,
    watermark=1767473769.841406,
    block=4,
    version="gru-1",
    switches=[(320, "gru-2")],
    labels=[(330, "ward/a", False, 1767225605.25)],
    heard=[(0, 12), (3, 7)],
    refused=[(338, ""), (348, "temp")],
    pages=(3, 77),
    terms={"forecast.quantiles": "[0.1,0.5,0.9]"},
)


def fields(**changes: Any) -> dict[str, object]:
    return {**json.loads(encode_meta(META)[8:]), **changes}


def test_a_meta_record_is_read_as_it_was_written() -> None:
    assert decode_meta(encode_meta(META)) == META
    assert fields()["format"] == 3


def test_format_1_is_read_as_one_without_terms_and_pages() -> None:
    older = fields(format=1)
    del older["terms"], older["pages"], older["labels"], older["heard"]

    meta = decode_meta(sealed_meta(older))

    assert (meta.terms, meta.pages) == ({}, None)
    assert (meta.next_offset, meta.switches) == (350, [(320, "gru-2")])


def test_format_2_is_read_as_one_that_has_heard_no_label() -> None:
    older = fields(format=2)
    del older["labels"], older["heard"]

    meta = decode_meta(sealed_meta(older))

    assert (meta.labels, meta.heard) == ([], [])
    assert meta.pages == (3, 77)


@pytest.mark.parametrize("format_", [0, 4])
def test_a_format_of_another_time_is_refused_whatever_else_it_says(format_: int) -> None:
    for content in (fields(format=format_), {"format": format_}, {"format": format_, "next_offset": "many"}):
        with pytest.raises(PageCorrupt, match=f"has format {format_}; this program reads 1 to 3"):
            decode_meta(sealed_meta(content))


def test_no_flipped_bit_and_no_cut_goes_unnoticed() -> None:
    whole = encode_meta(META)

    for at in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            with pytest.raises(PageCorrupt, match="does not match its checksum"):
                decode_meta(bytes(damaged))
        with pytest.raises(PageCorrupt, match=f"of {at} bytes does not match"):
            decode_meta(whole[:at])
    with pytest.raises(PageCorrupt):
        decode_meta(whole + b" ")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, "`format`"),
        ({"format": 2}, "`schema`"),
        (fields(next_offset="350"), "Expected `int`"),
        (fields(replay_from=351), "at offset 350 and would replay from 351"),
        (fields(replay_from=-1), "would replay from -1"),
    ],
    ids=["empty", "absent", "type", "beyond", "negative"],
)
def test_what_makes_no_sense_is_refused_though_its_checksum_fits(content: dict[str, object], found: str) -> None:
    with pytest.raises(PageCorrupt, match=found):
        decode_meta(sealed_meta(content))


def test_meta_begins_at_the_last_mark_at_or_before_what_is_asked_and_forgets_what_came_before() -> None:
    journal = TaskJournal()
    for offset, watermark in ((0, -math.inf), (10, 5.0), (20, 6.0)):
        journal.mark(Mark(offset, watermark, offset // 8, "gru-1"))
    journal.switched(8, "gru-1")
    journal.switched(16, "gru-2")
    journal.refused(9, "")
    journal.refused(12, "temp")

    meta = journal.meta(schema="s", next_offset=25, replay_from=15, terms={})

    assert (meta.replay_from, meta.watermark, meta.block) == (10, 5.0, 1)
    assert (meta.switches, meta.refused) == ([(16, "gru-2")], [(12, "temp")])
    with pytest.raises(StateGap, match="No mark at or before offset 9"):
        journal.meta(schema="s", next_offset=25, replay_from=9, terms={})


def test_networks_of_groups_are_noted_in_a_format_that_a_program_without_groups_refuses() -> None:
    journal = TaskJournal()
    journal.mark(Mark(0, 1.0, 0, "gru-1", {"pumps": "gru-2"}))
    journal.switched(8, "gru-3")
    journal.switched(8, "gru-4", "pumps")

    meta = decode_meta(encode_meta(journal.meta(schema="s", next_offset=25, replay_from=0, terms={})))

    assert (meta.format, meta.version, meta.group_versions) == (3, "gru-1", {"pumps": "gru-2"})
    assert (meta.switches, meta.group_switches) == ([(8, "gru-3")], [(8, "pumps", "gru-4")])
