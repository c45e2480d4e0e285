"""The edits of `make test-mutations` fit the code as it stands: one that fits nothing says nothing about its guard."""

from __future__ import annotations

import pytest
from fault.mutations import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_what_it_takes_out_is_there_once_and_its_tests_are_too(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8")
