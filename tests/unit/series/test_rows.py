import numpy as np
import pytest

from forecaster.series.columns import Column, clear, row_bytes
from forecaster.series.rows import Rows

COLUMNS = (
    Column("is_open", "i1"),
    Column("clock", "f8", (), -np.inf),
    Column("elapsed", "f2", (3,), np.nan),
    Column("ring", "f4", (5,), 1.5, apart=True),
    Column("hidden", "f4", (2, 3)),
    Column("season", "i4", (), 7),
)


def numbered(rows):
    """Rows in which every number is another one."""
    made = Rows(COLUMNS, rows)
    for place, array in enumerate(made.values()):
        array[...] = (10 * place + np.arange(array.size)).reshape(array.shape)
    return made


def test_rows_start_with_what_their_columns_say_and_can_be_cleared_to_it_again():
    c = Rows(COLUMNS, 3)
    for column in COLUMNS:
        assert c[column.name].shape == (3, *column.shape)
        assert c[column.name].dtype == column.dtype
        np.testing.assert_array_equal(c[column.name], np.full((3, *column.shape), column.fill, column.dtype))
    for array in c.values():
        array[...] = 99

    clear(COLUMNS, c, np.array([0, 2]))

    for column in COLUMNS:
        np.testing.assert_array_equal(c[column.name][[0, 2]], np.full((2, *column.shape), column.fill, column.dtype))
        assert (c[column.name][1] == 99).all()


def test_bytes_of_a_row_are_those_of_all_columns_and_what_is_held_is_whole_cache_lines():
    assert row_bytes(COLUMNS) == 1 + 8 + 3 * 2 + 5 * 4 + 2 * 3 * 4 + 4
    assert Rows(COLUMNS, 10).nbytes == 10 * (64 + 5 * 4)
    assert Rows((*COLUMNS, Column("more", "f8", (3,))), 10).nbytes == 10 * (128 + 5 * 4)


@pytest.mark.parametrize("rows", [0, 1, 2, 17])
def test_no_column_lies_in_another_and_each_is_where_its_type_may_lie(rows):
    c = numbered(rows)
    packed = [c[column.name] for column in COLUMNS if not column.apart]

    for place, (column, array) in enumerate(zip(COLUMNS, c.values(), strict=True)):
        assert array.ctypes.data % array.itemsize == 0
        assert array.strides[0] % array.itemsize == 0
        expected = (10 * place + np.arange(array.size)).astype(column.dtype).reshape(array.shape)
        np.testing.assert_array_equal(array, expected, column.name)
    if rows > 1:
        assert {array.strides[0] for array in packed} == {64}
        assert min(array.ctypes.data for array in packed) % 64 == 0
        assert c["ring"].flags.c_contiguous


def test_a_name_that_is_declared_twice_is_refused():
    with pytest.raises(ValueError, match="'clock' is declared twice"):
        Rows((Column("clock", "f8"), Column("clock", "f4", apart=True)), 2)


def test_rows_taken_are_copies():
    c = numbered(6)
    slots = np.array([4, 0, 4])
    before = {name: array.copy() for name, array in c.items()}

    taken = c.taken(slots)

    for name, array in taken.items():
        np.testing.assert_array_equal(array, before[name][slots])
        array[...] = 0
        np.testing.assert_array_equal(c[name], before[name])


def test_rows_that_grow_keep_what_they_hold_and_begin_anew_behind_it():
    c, fresh = numbered(3), Rows(COLUMNS, 5)

    grown = c.grown(5)

    for name, array in grown.items():
        np.testing.assert_array_equal(array[:3], c[name])
        np.testing.assert_array_equal(array[3:], fresh[name][3:])


def test_rows_are_brought_together_and_back_to_where_they_were():
    c, other = numbered(6), Rows(COLUMNS, 4)
    before = {name: array.copy() for name, array in c.items()}

    other.fill(1, c, np.array([5, 2]))
    for name, array in other.items():
        np.testing.assert_array_equal(array[1:3], before[name][[5, 2]])
        array[1:3] = 3
    c.put(np.array([5, 2]), other, 1)

    for name, array in c.items():
        assert (array[[5, 2]] == 3).all()
        np.testing.assert_array_equal(array[[0, 1, 3, 4]], before[name][[0, 1, 3, 4]])


def test_what_is_brought_near_is_as_it_was():
    c = numbered(6)
    before = {name: array.copy() for name, array in c.items()}

    c.bring(np.array([3, 1]))

    for name, array in c.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("rows", [1, 2, 17])
def test_a_single_row_is_laid_out_as_many_are(rows):
    """A kernel is compiled for a layout: of one stream it would be another than of two."""
    c = Rows(COLUMNS, rows)

    assert {column.name for column in COLUMNS if c[column.name].flags.c_contiguous} == {"ring"}
