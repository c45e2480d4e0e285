"""Copies of a compacted log."""

from __future__ import annotations

import msgspec
import pytest

from forecaster.errors import StateGap
from forecaster.records import RawRecord, StateRecord
from forecaster.state.copy import StateCopy


def record(offset: int, key: str, value: bytes | None) -> RawRecord:
    return RawRecord("state", 0, offset, 1.0, key.encode(), value)


LOG = [
    record(0, "page/1", b"old"),
    record(1, "meta", b"1"),
    record(3, "page/0", b"zero"),
    record(4, "page/1", b"newer"),
    record(5, "page/2", b"gone soon"),
    record(6, "meta", b"2"),
    record(8, "page/2", None),
    record(9, "meta", b"three"),
]


def read(log: list[RawRecord]) -> StateCopy:
    copy = StateCopy()
    for found in log:
        copy.take(found)
    return copy


def test_it_holds_the_newest_record_of_every_key_and_nothing_of_keys_that_are_gone() -> None:
    copy = read(LOG)

    assert copy.records() == [
        StateRecord("meta", b"three"),
        StateRecord("page/0", b"zero"),
        StateRecord("page/1", b"newer"),
    ]
    assert copy.get("meta") == b"three"
    assert copy.get("page/2") is None


def test_a_compacted_log_gives_the_same_records_in_the_same_order() -> None:
    newest = {found.key: found for found in LOG}
    compacted = sorted((found for found in newest.values()), key=lambda found: found.offset)

    assert read(compacted).records() == read(LOG).records()


def test_it_counts_the_bytes_it_holds_and_no_others() -> None:
    copy = StateCopy()

    for found in LOG:
        copy.take(found)
        assert copy.nbytes == sum(len(held.key) + len(held.value or b"") for held in copy.records())


@pytest.mark.parametrize("offset", [0, 9])
def test_a_record_that_does_not_stand_behind_the_last_is_refused(offset: int) -> None:
    copy = read(LOG)

    with pytest.raises(StateGap, match="wrong order"):
        copy.take(record(offset, "meta", b"four"))


@pytest.mark.parametrize("field", ["offset", "timestamp", "key", "value"])
def test_only_the_very_record_it_ends_with_is_recognised(field: str) -> None:
    copy = read(LOG)
    other = msgspec.structs.replace(LOG[-1], **{field: {"offset": 10, "timestamp": 2.0}.get(field, b"other")})

    assert copy.ends_with(LOG[-1])
    assert not copy.ends_with(other)
