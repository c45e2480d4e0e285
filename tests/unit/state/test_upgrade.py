import numpy as np
import pytest
from factories import make_pipeline
from old_state import as_format_3

from forecaster.series.columns import Column
from forecaster.series.rows import Rows
from forecaster.state.pages import decode_page, encode_page, restore_page
from forecaster.state.streams import StreamTable
from forecaster.state.upgrade import former_columns, upgraded

CELLS, POINTS, LEVELS, ANCHORS = 7, 4, 3, 3
PRESENT = (
    Column("tick", "i8"),
    Column("pending_made", "i4", (CELLS,), -1_000_000),
    Column("pending_points", "f4", (CELLS, POINTS)),
    Column("pending_quantiles", "f4", (CELLS, 2, LEVELS)),
    Column("spread", "f4", (ANCHORS, POINTS)),
    Column("regret", "f4", (ANCHORS, POINTS + 1)),
    Column("inverse_rate", "f4", (ANCHORS, POINTS + 1)),
    Column("regret_bound", "f4", (ANCHORS, POINTS + 1)),
)


def former_rows(rows=2):
    """Rows of a program of format 2, every number another one."""
    arrays = Rows(former_columns(PRESENT), rows)
    for k, array in enumerate(arrays.values()):
        array[:] = 1_000 * k + np.arange(array.size).reshape(array.shape)
    return arrays


def test_a_program_of_format_2_kept_all_quantiles_of_four_answers_and_a_record_of_three_experts():
    found = [(column.name, column.dtype, column.shape) for column in former_columns(PRESENT)]

    assert found == [
        ("tick", "i8", ()),
        ("pending_tick", "i8", (CELLS,)),
        ("pending", "f4", (CELLS, 4, LEVELS)),
        ("regret", "f4", (ANCHORS, 3)),
        ("inverse_rate", "f4", (ANCHORS, 3)),
        ("regret_bound", "f4", (ANCHORS, 3)),
    ]


def test_what_waits_goes_on_waiting_with_medians_of_the_baselines_and_all_of_the_network():
    former = former_rows()

    found = upgraded(former, PRESENT)

    np.testing.assert_array_equal(found["pending_made"], former["pending_tick"])
    np.testing.assert_array_equal(found["pending_points"][:, :, 0], former["pending"][:, :, 0, 1])
    np.testing.assert_array_equal(found["pending_points"][:, :, 1], former["pending"][:, :, 1, 1])
    assert np.isnan(found["pending_points"][:, :, 2:]).all(), "experts that were not there had no answer"
    np.testing.assert_array_equal(found["pending_quantiles"][:, :, 0], former["pending"][:, :, 2])
    np.testing.assert_array_equal(found["pending_quantiles"][:, :, 1], former["pending"][:, :, 3])


def test_the_records_of_naive_seasonal_and_network_are_kept_and_newcomers_have_none():
    former = former_rows()

    found = upgraded(former, PRESENT)

    for name in ("regret", "inverse_rate", "regret_bound"):
        np.testing.assert_array_equal(found[name][:, :, [0, 1, 4]], former[name])
        assert not found[name][:, :, [2, 3]].any()


def test_rows_fit_the_columns_they_are_for_and_what_is_new_is_absent():
    found = upgraded(former_rows(), PRESENT)

    shapes = {column.name: (column.shape, np.dtype(column.dtype)) for column in PRESENT}
    assert set(shapes) - set(found) == {"spread"}
    assert {name: (array.shape[1:], array.dtype) for name, array in found.items()} == {
        name: shapes[name] for name in found
    }


def test_a_table_without_forecasts_is_left_as_it_is():
    columns = (Column("clock", "f8"), Column("ring", "f2", (3,)))
    rows = Rows(columns, 2)

    assert former_columns(columns) == list(columns)
    assert upgraded(rows, columns) == rows


BY_EXPERT = ("regret", "inverse_rate", "regret_bound", "spread", "pending_points")


@pytest.mark.parametrize(("before", "after"), [((), (12,)), ((12,), ()), ((12,), (12, 24)), ((12, 24), (12,))])
def test_a_page_of_another_number_of_seasons_keeps_what_both_know_by_the_name_of_the_expert(before, after):
    """Every expert's numbers are its own: whoever stands in another's place now would show them."""
    old, new = (make_pipeline(further_seasons=seasons) for seasons in (before, after))
    written, read = (StreamTable(pipeline.columns, max_streams=10) for pipeline in (old, new))
    slot = written.slot("a")
    for k, column in enumerate(written.columns):
        written.arrays[column.name][slot] = k
    for name in BY_EXPERT:
        written.arrays[name][slot] = 10 + np.arange(written.arrays[name].shape[-1])

    page = encode_page(written, 0, 5, model=None)
    [restored] = restore_page(read, decode_page(page, read))

    for column in read.columns:
        found, kept = read.arrays[column.name][restored], written.arrays[column.name][slot]
        if column.name not in BY_EXPERT:
            np.testing.assert_array_equal(found, kept)
            continue
        for place, expert in enumerate(new.experts[: found.shape[-1]]):
            if expert in old.experts:
                np.testing.assert_array_equal(found[:, place], kept[:, old.experts.index(expert)])
            else:
                assert (np.isnan(found[:, place]) if column.name == "pending_points" else found[:, place] == 0).all()


@pytest.mark.parametrize(("before", "after"), [((), ()), ((12,), (12,)), ((12,), ()), ((), (12,)), ((12, 24), (24,))])
def test_a_page_of_format_3_is_read_by_the_experts_it_had(before, after):
    """All but the profile; who they were followed from how many there were, even where there are as many again now."""
    new = make_pipeline(further_seasons=after)
    known = [name for name in make_pipeline(further_seasons=before).experts if name != "profile"]
    columns = []
    for column in new.columns:
        labels = tuple(known[:-1] if column.name in ("spread", "pending_points") else known) if column.labels else ()
        shape = (*column.shape[:-1], len(labels)) if labels else column.shape
        columns.append(column._replace(shape=shape, labels=labels))
    written, read = (StreamTable(columns, max_streams=10) for columns in (columns, new.columns))
    slot = written.slot("a")
    for name in BY_EXPERT:
        written.arrays[name][slot] = 10 + np.arange(written.arrays[name].shape[-1])

    page = decode_page(as_format_3(encode_page(written, 0, 5, model=None)), read)
    [restored] = restore_page(read, page)

    assert page.format == 3
    for name in BY_EXPERT:
        found = read.arrays[name][restored]
        for place, expert in enumerate(new.experts[: found.shape[-1]]):
            if expert in known:
                assert (found[:, place] == 10 + known.index(expert)).all()
            else:
                assert (np.isnan(found[:, place]) if name == "pending_points" else found[:, place] == 0).all()
