"""The sum over pages shows every page that is gone, stale or added, and depends on nothing else."""

from __future__ import annotations

import random

import pytest

from forecaster.state.roll import PageRoll


def roll_of(pages: dict[int, int]) -> PageRoll:
    roll = PageRoll()
    for page, offset in pages.items():
        roll.write(page, offset)
    return roll


PAGES = {0: 10, 1: 10, 7: 25}


@pytest.mark.parametrize(
    "other",
    [{0: 10, 1: 10}, {**PAGES, 7: 24}, {**PAGES, 8: 25}, {0: 10, 1: 25, 7: 10}, {0: 10, 2: 10, 7: 25}],
    ids=["gone", "stale", "added", "swapped", "renamed"],
)
def test_other_pages_have_another_sum(other: dict[int, int]) -> None:
    assert roll_of(other).total() != roll_of(PAGES).total()


@pytest.mark.parametrize("seed", range(5))
def test_the_way_to_the_same_pages_does_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    roll, pages = PageRoll(), {}
    for offset in range(500):
        page = rng.randrange(20)
        if rng.random() < 0.2:
            roll.remove(page)
            pages.pop(page, None)
        else:
            roll.write(page, offset)
            pages[page] = offset

    assert roll.total() == roll_of(pages).total()
    assert roll.total()[0] == len(pages)


def test_no_pages_sum_to_nothing() -> None:
    roll = roll_of({3: 4})
    roll.remove(3)
    roll.remove(3)

    assert roll.total() == PageRoll().total() == (0, 0)
