"""State pages: laid out as drawn, read back as written, refused by name when they are not."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from old_state import format_1_page

from forecaster.errors import PageCorrupt
from forecaster.series.columns import Column
from forecaster.state.pages import PAGE_SLOTS, decode_page, encode_page, page_key, restore_page
from forecaster.state.streams import StreamTable

COLUMNS = (Column("clock", "f8", fill=-np.inf), Column("ring", "f4", (3,)), Column("model", "i4"))


def make_table(*streams: str, columns: tuple[Column, ...] = COLUMNS) -> StreamTable:
    """Streams in slots 1, 2, …, each with numbers of its own in every column."""
    table = StreamTable(columns, max_streams=1_000)
    for stream in streams:
        slot = table.slot(stream)
        for place, column in enumerate(columns):
            table.arrays[column.name][slot] = 100 * slot + place
    return table


def encoded(table: StreamTable, number: int = 0, *, offset: int = 12, model: str | None = "gru-1") -> bytes:
    page = encode_page(table, number, offset, model=model)
    assert page is not None
    return page


def resealed(page: bytes) -> bytes:
    """With the checksum that fits whatever was changed."""
    return page[:44] + struct.pack("<I", zlib.crc32(page[48:], zlib.crc32(page[:44]))) + page[48:]


def test_a_page_is_laid_out_as_drawn() -> None:
    table = make_table("a", "b")

    page = encoded(table, offset=77, model="gru-20260101T000000-ab12cd")

    magic, version, slots, number, offset, schema, text, rows, _ = struct.unpack_from("<4sHHIq16sIII", page)
    assert (magic, version, slots, number, offset) == (b"FCSP", 4, PAGE_SLOTS, 0, 77)
    assert schema.decode() == table.schema
    assert json.loads(page[48 : 48 + text]) == {
        "names": [None, "a", "b", *[None] * (PAGE_SLOTS - 3)],
        "model": "gru-20260101T000000-ab12cd",
        "columns": [["clock", "<f8", []], ["ring", "<f4", [3]], ["model", "<i4", []]],
        "labels": {},
    }
    assert rows == 2 * table.row_bytes == len(page) - 48 - text
    assert page[48 + text :] == struct.pack("<2d6f2i", 100, 200, 101, 101, 101, 201, 201, 201, 102, 202)


def test_rows_come_back_as_they_were_and_free_slots_are_not_in_the_page() -> None:
    table = make_table(*"abcd")
    table.release(["b"])
    restored = StreamTable(COLUMNS, max_streams=1_000)

    page = decode_page(encoded(table), restored)
    slots = restore_page(restored, page)

    assert slots == [1, 3, 4]
    assert sorted(restored) == ["a", "c", "d"]
    for column in COLUMNS:
        np.testing.assert_array_equal(restored.arrays[column.name][slots], table.arrays[column.name][slots])
        assert len(page.rows[column.name]) == 3
    assert (page.offset, page.model, page.format) == (12, "gru-1", 4)


def test_a_page_of_no_streams_is_none() -> None:
    table = make_table("a")
    table.release(["a"])

    assert encode_page(table, 0, 5, model=None) is None
    assert page_key(0) == "page/0"


def test_a_stream_that_a_newer_page_has_restored_stays_there() -> None:
    older, newer = make_table("a", "b"), make_table(*[f"s{n}" for n in range(40)], "a")
    restored = StreamTable(COLUMNS, max_streams=1_000)

    restore_page(restored, decode_page(encoded(newer, 1), restored))
    slots = restore_page(restored, decode_page(encoded(older, 0), restored))

    assert slots == [2]
    assert restored.find("a") == 41
    assert restored.arrays["clock"][2] == 200, "b's row, not the one before it"


def test_a_column_that_came_later_begins_as_a_new_stream_has_it() -> None:
    wider = (*COLUMNS[:1], Column("drift", "f4", (2,), 0.5), *COLUMNS[1:])
    restored = StreamTable(wider, max_streams=1_000)
    restored.arrays["drift"][:] = 9.0

    slots = restore_page(restored, decode_page(encoded(make_table("a", "b")), restored))

    np.testing.assert_array_equal(restored.arrays["drift"][slots], np.full((2, 2), 0.5, np.float32))
    np.testing.assert_array_equal(restored.arrays["ring"][slots], [[101] * 3, [201] * 3])


def test_columns_in_another_order_find_their_places() -> None:
    restored = StreamTable(COLUMNS[::-1], max_streams=1_000)

    slots = restore_page(restored, decode_page(encoded(make_table("a")), restored))

    assert restored.arrays["clock"][slots] == 100
    assert restored.arrays["model"][slots] == 102


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (COLUMNS[1:], "holds column 'clock', which this program does not know"),
        ((Column("clock", "f4"), *COLUMNS[1:]), "'clock' as <f8 of shape (), this program keeps <f4 of shape ()"),
        ((*COLUMNS[:1], Column("ring", "f4", (4,)), COLUMNS[2]), "'ring' as <f4 of shape (3,), this program keeps"),
    ],
    ids=["unknown", "type", "shape"],
)
def test_what_the_table_has_no_place_for_is_refused_by_name(columns: tuple[Column, ...], found: str) -> None:
    with pytest.raises(PageCorrupt) as caught:
        decode_page(encoded(make_table("a")), StreamTable(columns, max_streams=10))

    assert found in str(caught.value)
    assert "streams.ring_steps" in caught.value.hint


def test_a_page_of_format_1_is_read_also_by_a_program_that_remembers_more() -> None:
    table = make_table(*"abc")
    table.release(["b"])
    restored = StreamTable((*COLUMNS, Column("drift", "f4", (2,), 0.5)), max_streams=1_000)

    page = decode_page(format_1_page(table, 0, 31), restored)
    slots = restore_page(restored, page)

    assert (page.format, page.offset, page.model, slots) == (1, 31, None, [1, 3])
    np.testing.assert_array_equal(restored.arrays["clock"][slots], [100, 300])
    np.testing.assert_array_equal(restored.arrays["ring"][slots], [[101] * 3, [301] * 3])
    np.testing.assert_array_equal(restored.arrays["drift"][slots], np.full((2, 2), 0.5, np.float32))


def test_a_page_of_format_1_without_streams_is_read_as_one() -> None:
    table = make_table("a")
    table.release(["a"])

    page = decode_page(format_1_page(table, 0, 31), table)

    assert page.names == [None] * PAGE_SLOTS
    assert restore_page(table, page) == []


def test_a_page_of_format_1_under_other_settings_is_refused() -> None:
    other = StreamTable((*COLUMNS[:1], Column("ring", "f4", (4,)), COLUMNS[2]), max_streams=10)

    with pytest.raises(PageCorrupt, match="format 1, was written under schema"):
        decode_page(format_1_page(make_table("a"), 0, 31), other)


@pytest.mark.parametrize("version", [0, 5, 65_535])
def test_a_format_of_another_time_is_refused(version: int) -> None:
    page = encoded(make_table("a"))
    page = resealed(page[:4] + struct.pack("<H", version) + page[6:])

    with pytest.raises(PageCorrupt, match=f"has format {version}; this program reads 1 to 4"):
        decode_page(page, make_table())


@pytest.mark.parametrize("make", [encoded, lambda table: format_1_page(table, 0, 12)], ids=["4", "1"])
def test_no_flipped_bit_and_no_cut_goes_unnoticed(make: Callable[[StreamTable], bytes]) -> None:
    """Every bit of every byte, every length: refused by name, never another error, never another state."""
    table = make_table("a", "β")
    whole = make(table)

    for at in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            with pytest.raises(PageCorrupt, match=r"State page \d+|are no state page"):
                decode_page(bytes(damaged), table)
        with pytest.raises(PageCorrupt):
            decode_page(whole[:at], table)
    with pytest.raises(PageCorrupt):
        decode_page(whole + b"\0", table)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b'{"names":[1],"model":null,"columns":[]}', b'{"names":["a"],"model":null}', b"\xff\xfe", b"{" * 2000],
    ids=["empty", "array", "types", "absent", "utf-8", "depth"],
)
def test_a_description_that_makes_no_sense_is_refused_though_its_checksum_fits(text: bytes) -> None:
    head = struct.pack("<4sHHIq16sIII", b"FCSP", 2, 1, 0, 5, b"x" * 16, len(text), 0, 0)

    with pytest.raises(PageCorrupt, match=r"State page 0|description of state page 0"):
        decode_page(resealed(head + text), make_table())


def test_a_page_with_fewer_rows_than_names_or_with_an_owner_of_the_scratch_row_is_refused() -> None:
    page = encoded(make_table("a"))
    length = struct.unpack_from("<I", page, 36)[0]
    text = json.loads(page[48 : 48 + length])
    for names in (["a", "b"], ["a", None], [None, "a", "b"]):
        changed = json.dumps({**text, "names": names}).encode()
        head = page[:6] + struct.pack("<H", len(names)) + page[8:36] + struct.pack("<I", len(changed)) + page[40:48]

        with pytest.raises(PageCorrupt, match="not what its head says"):
            decode_page(resealed(head + changed + page[48 + length :]), make_table())


def test_what_a_publishing_policy_remembered_is_given_up_with_it_and_nothing_else_is() -> None:
    with_policy = (*COLUMNS, Column("told_reading", "i8"), Column("told_forecast", "f4", (4, 3)))
    kept, other = encoded(make_table("a", columns=with_policy)), (*COLUMNS, Column("tolled", "i8"))
    table = make_table(columns=COLUMNS)

    restore_page(table, decode_page(kept, table))

    assert table.arrays["ring"][1].tolist() == [101.0, 101.0, 101.0]
    with pytest.raises(PageCorrupt, match="tolled"):
        decode_page(encoded(make_table("a", columns=other)), table)


def test_a_policy_that_comes_into_force_finds_nothing_remembered() -> None:
    with_policy = (*COLUMNS, Column("told_reading", "i8"), Column("told_time", "f8", fill=-np.inf))
    table = make_table(columns=with_policy)

    restore_page(table, decode_page(encoded(make_table("a")), table))

    assert (table.arrays["told_reading"][1], table.arrays["told_time"][1]) == (0, -np.inf)
