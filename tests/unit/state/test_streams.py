import numpy as np
import pytest

from forecaster.errors import UnknownSlot
from forecaster.series.columns import Column
from forecaster.state.streams import SCRATCH, StreamTable

COLUMNS = (Column("level", "f8", (), 7.0), Column("ring", "f4", (3,), np.nan))


def make_table(**overrides):
    return StreamTable(COLUMNS, **{"max_streams": 100, "rows": 4, **overrides})


def test_streams_keep_their_slots_and_no_two_share_one_nor_the_scratch_row():
    table = make_table()

    slots = {name: table.slot(name) for name in map(str, range(50))}

    assert sorted(slots.values()) == list(range(1, 51))
    assert {name: table.slot(name) for name in slots} == slots
    assert all(table.name(slot) == name for name, slot in slots.items())
    assert SCRATCH not in slots.values()
    assert table.occupied().tolist() == list(range(1, 51))


def test_growing_keeps_what_streams_remember_and_starts_new_ones_afresh():
    table = make_table()
    for k in range(3):
        slot = table.slot(f"s{k}")
        table.arrays["level"][slot], table.arrays["ring"][slot] = k, k

    late = table.slot("late")

    assert [table.arrays["level"][table.find(f"s{k}")] for k in range(3)] == [0, 1, 2]
    assert table.arrays["level"][late] == 7.0
    assert np.isnan(table.arrays["ring"][late]).all()
    assert all(len(array) >= 5 for array in table.arrays.values())


def test_a_freed_slot_is_given_again_lowest_first_and_cleared():
    table = make_table()
    for k in range(6):
        slot = table.slot(f"s{k}")
        table.arrays["level"][slot], table.arrays["ring"][slot] = -1.0, -1.0

    released = table.release(["s4", "s1", "nobody"])
    slots = [table.slot("first"), table.slot("second"), table.slot("third")]

    assert released == 2
    assert slots == [2, 5, 7]
    assert table.arrays["level"][[2, 5, 7]].tolist() == [7.0, 7.0, 7.0]
    assert np.isnan(table.arrays["ring"][[2, 5, 7]]).all()
    assert "s1" not in table
    assert len(table) == 7


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 64])
def test_a_full_table_refuses_new_streams_and_serves_the_known_ones(limit):
    table = make_table(max_streams=limit)
    known = [table.slot(f"s{k}") for k in range(limit)]

    assert table.slot("one too many") is None
    assert [table.slot(f"s{k}") for k in range(limit)] == known
    table.release(["s0"])
    assert table.slot("one too many") == known[0]


@pytest.mark.parametrize("slot", [SCRATCH, 2, 3, 99, -1])
def test_the_name_of_a_slot_that_nobody_owns_is_an_error(slot):
    table = make_table()
    table.slot("a"), table.slot("b")
    table.release(["b"])

    with pytest.raises(UnknownSlot, match=f"Slot {slot} belongs to no stream"):
        table.name(slot)


def test_bytes_and_schema_follow_the_columns():
    table = make_table()

    assert table.row_bytes == 8 + 3 * 4
    assert table.nbytes == 4 * 64  # with the identity of each, a cache line a row
    assert table.schema == make_table(rows=9).schema
    assert table.schema != StreamTable((COLUMNS[0], Column("ring", "f4", (4,), np.nan)), max_streams=1).schema
    assert table.schema != StreamTable((Column("level", "f4"), COLUMNS[1]), max_streams=1).schema


def test_a_column_declared_twice_is_refused():
    with pytest.raises(ValueError, match="'level' is declared twice"):
        StreamTable((COLUMNS[0], COLUMNS[0]), max_streams=1)
