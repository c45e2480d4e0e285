import logging
import os

import numpy as np
import pytest

from forecaster.records import Observation, Tombstone
from forecaster.stores.history_cache import HistoryCache
from forecaster.training.blocks import BlockBuilder

IDENTITY = {"topic": "readings", "topic_id": "one", "decoder": "d"}


def make_block(first=100, readings=50, covariates=1):
    builder = BlockBuilder(covariates, future=2)
    for k in range(readings):
        value, known = k if k % 7 else np.nan, (2.0 * k, np.nan)
        builder.take(first + k, [Observation(f"s{k % 3}", float(k), value, covariates=(-1.0 * k,), future=known)])
    builder.take(first + readings, [Tombstone("s1/ä")])
    return builder.block()


def make_cache(directory, max_bytes=10**9, **identity):
    return HistoryCache(directory, identity={**IDENTITY, **identity}, max_bytes=max_bytes)


def only_file(directory):
    (path,) = directory.glob("*/*.block")
    return path


def as_lists(block):
    return [column if isinstance(column, tuple) else np.nan_to_num(column, nan=-7.0).tolist() for column in block]


def test_block_comes_back_as_it_was(tmp_path):
    block = make_block()

    make_cache(tmp_path).put(2, 100, 151, block)
    found = make_cache(tmp_path).get(2, 100, 151)

    assert as_lists(found) == as_lists(block)


def test_what_was_not_kept_is_not_there(tmp_path):
    cache = make_cache(tmp_path / "not made yet")

    assert cache.get(2, 100, 151) is None
    cache.put(2, 100, 151, make_block())
    assert cache.get(2, 200, 251) is None
    assert cache.get(1, 100, 151) is None


def damaged(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        damaged,
        lambda content: content[:-5],
        lambda content: b"",
        lambda content: b"x" * 500,
        lambda content: content[:45],
    ],
    ids=["one_bit", "cut", "empty", "other_file", "head_alone"],
)
def test_damaged_block_is_deleted_with_a_warning(tmp_path, caplog, spoil):
    cache = make_cache(tmp_path)
    cache.put(2, 100, 151, make_block())
    path = only_file(tmp_path)
    path.write_bytes(spoil(path.read_bytes()))

    with caplog.at_level(logging.WARNING):
        assert cache.get(2, 100, 151) is None

    assert "damaged" in caplog.records[0].reason
    assert not path.exists()


def test_block_put_here_from_another_topic_is_deleted_with_a_warning(tmp_path, caplog):
    make_cache(tmp_path / "theirs", topic_id="another").put(2, 100, 151, make_block())
    cache = make_cache(tmp_path / "ours")
    cache.put(2, 100, 151, make_block())
    place = only_file(tmp_path / "ours")
    place.write_bytes(only_file(tmp_path / "theirs").read_bytes())

    with caplog.at_level(logging.WARNING):
        assert cache.get(2, 100, 151) is None

    assert "from elsewhere" in caplog.records[0].reason
    assert not place.exists()


@pytest.mark.parametrize("changed", [{"topic_id": "two"}, {"decoder": "e"}, {"topic": "other"}])
def test_another_identity_does_not_see_it(tmp_path, changed):
    make_cache(tmp_path).put(2, 100, 151, make_block())

    assert make_cache(tmp_path, **changed).get(2, 100, 151) is None
    assert make_cache(tmp_path).get(2, 100, 151) is not None


def test_another_span_under_the_same_name_is_not_used(tmp_path):
    cache = make_cache(tmp_path)
    cache.put(2, 100, 151, make_block())

    assert cache.get(2, 100, 400) is None


def test_blocks_used_longest_ago_make_room(tmp_path):
    cache = make_cache(tmp_path)
    for first in (0, 100, 200):
        cache.put(0, first, first + 51, make_block(first))
        os.utime(next(tmp_path.glob(f"*/0-{first}.block")), (first, first))
    size = sum(path.stat().st_size for path in tmp_path.glob("*/*.block"))
    os.utime(next(tmp_path.glob("*/0-0.block")), (150, 150))  # used after the second was

    make_cache(tmp_path, max_bytes=size).put(0, 300, 351, make_block(300))

    assert sorted(path.name for path in tmp_path.glob("*/*.block")) == ["0-0.block", "0-200.block", "0-300.block"]


def test_a_place_that_cannot_be_written_is_said_once_and_is_no_failure(tmp_path, caplog):
    (tmp_path / "file").write_text("no directory")
    cache = make_cache(tmp_path / "file")

    with caplog.at_level(logging.WARNING):
        cache.put(0, 0, 51, make_block(0))
        cache.put(0, 100, 151, make_block(100))
        assert cache.get(0, 0, 51) is None

    assert [record.getMessage() for record in caplog.records] == ["history cannot be cached"]
