import numpy as np

from forecaster.series.columns import Column, allocate, clear, row_bytes

COLUMNS = (Column("clock", "f8", (), -np.inf), Column("hidden", "f4", (2, 3)), Column("season", "i4", (), 7))


def test_rows_start_with_what_their_columns_say_and_can_be_cleared_to_it_again():
    c = allocate(COLUMNS, 3)
    fresh = {name: array.copy() for name, array in c.items()}
    for array in c.values():
        array[:] = 99

    clear(COLUMNS, c, np.array([0, 2]))

    for name, array in c.items():
        np.testing.assert_array_equal(array[[0, 2]], fresh[name][[0, 2]])
        assert (array[1] == 99).all()


def test_bytes_of_a_row_are_those_of_all_columns():
    assert row_bytes(COLUMNS) == 8 + 2 * 3 * 4 + 4
    assert row_bytes(COLUMNS) == sum(array.nbytes for array in allocate(COLUMNS, 1).values())
