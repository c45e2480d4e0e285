from itertools import pairwise

import numpy as np
import pytest

from forecaster.records import DeadLetter, Observation, RawRecord, Reason, Tombstone
from forecaster.training.blocks import BlockBuilder, HistoryCollector
from forecaster.training.budget import STREAM_BYTES

NAN = float("nan")


def gathered(records, *, cut=(), partition=0, collector=None, covariates=0, future=0, **bounds):
    """The history of records at offsets 0, 1, …, given in blocks that end at the cuts, the newest first."""
    collector = collector or HistoryCollector(covariates, future=future, **bounds)
    edges = [0, *cut, len(records)]
    for first, end in reversed(list(pairwise(edges))):
        builder = BlockBuilder(covariates, future)
        for offset in range(first, end):
            builder.take(offset, records[offset])
        collector.add(builder.block(), partition=partition)
    return collector


CUTS = pytest.mark.parametrize("cut", [(), (1,), (2, 4)], ids=["one_block", "two_blocks", "three_blocks"])


@CUTS
def test_readings_are_gathered_by_stream_and_late_and_repeated_ones_passed_over(cut):
    records = [
        [Observation("a", time, value), Observation("b/x", time + 1, -value)]
        for time, value in ((1.0, 10.0), (2.0, NAN), (2.0, 99.0), (1.5, 99.0), (3.0, 30.0))
    ]

    history = gathered(records, cut=cut).history()

    assert history.streams["a"].times.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(history.streams["a"].values, [10.0, NAN, 30.0])
    assert history.streams["b/x"].times.tolist() == [2.0, 3.0, 4.0]


@CUTS
def test_tombstone_forgets_its_id_and_the_streams_below_it(cut):
    records = [
        [Observation(name, 1.0, 1.0) for name in ("pump", "pump/temp", "pumpkin", "hall")],
        [Tombstone("pump")],
        [Observation("pump/temp", 0.5, 2.0)],
        [Tombstone("hall"), Observation("pumpkin", 2.0, 1.0)],
        [Observation("pump/temp", 0.6, 3.0)],
    ]

    history = gathered(records, cut=cut).history()

    assert set(history.streams) == {"pumpkin", "pump/temp"}
    assert history.streams["pump/temp"].times.tolist() == [0.5, 0.6]
    assert history.streams["pumpkin"].times.tolist() == [1.0, 2.0]


def test_tombstone_says_nothing_of_another_partition():
    collector = gathered([[Tombstone("a")]], partition=1)

    history = gathered([[Observation("a", 1.0, 1.0)]], partition=0, collector=collector).history()

    assert set(history.streams) == {"a"}


def test_dead_letters_are_nothing_to_learn_from():
    dead = DeadLetter(RawRecord("t", 0, 0, 0.0, None, b"?"), Reason.NOT_JSON, "")

    assert gathered([[dead]]).history().streams == {}


@CUTS
def test_covariates_come_along_row_by_row(cut):
    records = [
        [Observation("a", 1.0, 1.0, covariates=(5.0, NAN))],
        [Observation("a", 1.0, 1.0, covariates=(9.0, 9.0)), Observation("a", 2.0, 1.0, covariates=(6.0, 7.0))],
        [Observation("a", 3.0, 1.0, covariates=(8.0, 1.0))],
        [],
        [],
    ]

    history = gathered(records, cut=cut, covariates=2).history()

    np.testing.assert_array_equal(history.streams["a"].covariates, [[5.0, NAN], [6.0, 7.0], [8.0, 1.0]])


def test_readings_before_the_first_offset_that_counts_are_left_out():
    builder, collector = BlockBuilder(), HistoryCollector()
    for offset in range(6):
        builder.take(offset, [Observation("a", float(offset), 0.0)])

    collector.add(builder.block(), since_offset=4)

    assert collector.history().streams["a"].times.tolist() == [4.0, 5.0]


@CUTS
def test_of_a_long_stream_the_newest_readings_stay(cut):
    records = [[Observation("a", float(k), 10.0 * k)] for k in range(9)]

    history = gathered(records, cut=cut, max_readings_per_stream=4).history()

    assert history.streams["a"].values.tolist() == [50.0, 60.0, 70.0, 80.0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@CUTS
def test_what_exceeds_the_memory_leaves_whole_streams_that_the_seed_names(cut, order):
    """Three partitions of 20 streams each, whichever is read first and however it is cut."""
    readings = 5
    room = 12 * (STREAM_BYTES + readings * 16)
    records = [
        [[Observation(f"p{p}-{k}", float(t), 1.0) for k in range(20)] for t in range(readings)] for p in range(3)
    ]

    collector = HistoryCollector(max_bytes=room, seed=3)
    for partition in order:
        gathered(records[partition], cut=cut, partition=partition, collector=collector)
    kept_bytes, history = collector.bytes, collector.history()

    assert kept_bytes <= room
    assert collector.has_refused
    assert collector.streams_seen == 60
    assert len(history.streams) == 12
    assert {len(series.times) for series in history.streams.values()} == {readings}
    other = HistoryCollector(max_streams=12, seed=3)
    for partition in range(3):
        gathered(records[partition], partition=partition, collector=other)
    assert list(other.history().streams) == list(history.streams)


def test_streams_not_wanted_take_no_room_and_are_not_counted():
    records = [[Observation(f"{kind}-{k}", 1.0, 1.0) for kind in ("mine", "other") for k in range(10)]]

    collector = gathered(records, takes=lambda name: name.startswith("mine"), max_streams=10)

    assert collector.streams_seen == 10
    assert not collector.has_refused
    assert len(collector.history().streams) == 10


@CUTS
@pytest.mark.parametrize("covariates", [0, 2])
def test_what_was_known_ahead_stays_with_its_reading(cut, covariates):
    records = [
        [Observation("a", float(k), 1.0, covariates=(-1.0 * k,) * covariates, future=(10.0 * k, NAN, 1.0 + k))]
        for k in range(6)
    ]

    history = gathered(records, cut=cut, covariates=covariates, future=3).history()

    series = history.streams["a"]
    np.testing.assert_array_equal(series.future, [[10.0 * k, NAN, 1.0 + k] for k in range(6)])
    assert (series.covariates is None) == (covariates == 0)
    assert history.covariates == covariates


def test_what_was_known_ahead_counts_towards_the_memory():
    records = [[Observation(f"s{k}", 1.0, 1.0, future=(1.0,) * 24)] for k in range(10)]
    room = 5 * (STREAM_BYTES + 8 * (2 + 24))

    collector = gathered(records, future=24, max_bytes=room)

    assert len(collector.history().streams) == 5
