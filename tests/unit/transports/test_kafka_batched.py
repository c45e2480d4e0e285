"""The client by the batch, in memory: what it reads, what it writes, and what becomes of a batch that is split."""

from __future__ import annotations

import ssl
import struct
from collections import deque

import kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.errors import (
    CorruptRecordError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaTimeoutError,
    RecordListTooLargeError,
)
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.record.util import calc_crc32c
from kafka.structs import TopicPartition

from forecaster.records import OutRecord
from forecaster.transports import kafka_batched, kafka_self_test
from forecaster.transports.kafka_batched import BatchedRecords, append
from forecaster.transports.kafka_self_test import batch, fetched, sample, why_not_batched

PLACE = TopicPartition("answers", 0)
LZ4 = 3

some_bytes = st.none() | st.binary(max_size=200)
some_headers = st.lists(st.tuples(st.text(max_size=10), st.none() | st.binary(max_size=10)), max_size=3)


@pytest.fixture(autouse=True)
def _asked_anew():
    why_not_batched.cache_clear()
    yield
    why_not_batched.cache_clear()


def test_the_pinned_client_passes_the_self_test():
    assert why_not_batched() == ""


def test_another_version_of_the_client_is_left_to_its_public_calls(monkeypatch):
    monkeypatch.setattr(kafka, "__version__", "3.0.13")

    assert why_not_batched() == "kafka-python 3.0.13 is installed, and it is made for 3.0.12"


@pytest.mark.parametrize("part", ["_is_for_us", "_due"])
def test_a_batch_that_is_read_otherwise_fails_the_self_test(monkeypatch, part):
    """Aborted transactions handed over; records before the offset that was asked for handed over."""
    wrong = {"_is_for_us": lambda self, batch: True, "_due": lambda self, found: found}
    monkeypatch.setattr(BatchedRecords, part, wrong[part])

    assert "reads a batch in none otherwise" in why_not_batched()


def test_a_batch_that_is_written_otherwise_fails_the_self_test(monkeypatch):
    monkeypatch.setattr(kafka_batched, "_headers", lambda headers: b"\x00")

    assert "writes a batch in none otherwise" in why_not_batched()


def test_a_client_without_the_parts_fails_the_self_test_and_nothing_else(monkeypatch):
    monkeypatch.delattr(RecordAccumulator, "_tp_lock")

    assert "self-test failed with AttributeError" in why_not_batched()


def test_the_sample_of_the_self_test_has_all_that_it_speaks_of():
    """A self-test on less would say nothing; 5 + 3 + 4 + 1 + 150 records of transactions that count, in 9 batches."""
    outcome = fetched(BatchedRecords, sample(LZ4), portion=None, start=0, committed=True)

    records = [record for taken in outcome.records for record in taken]
    assert len(records) == 162
    assert {record.offset for record in records}.isdisjoint({40, 41, 43, 45})
    assert (records[0].key, records[1].key) == (None, b"key")
    assert outcome.next_offsets[-1] == 1_161, "behind what compaction took"


@given(
    st.lists(
        st.tuples(st.integers(1, 200), st.integers(-(2**40), 2**40), some_bytes, some_bytes, some_headers), min_size=1
    ),
    st.sampled_from([0, 1, 2, 3, 4]),
    st.none() | st.integers(1, 7),
    st.integers(0, 300),
)
def test_any_batch_is_read_as_the_client_reads_it(records, codec, portion, start):
    offset = 0
    rows = []
    for step, since, key, value, headers in records:
        offset += step
        rows.append((offset, since, key, value, headers))
    data = batch(codec, rows, last=offset + 3)

    ours, theirs = (
        fetched(kind, data, portion=portion, start=start, committed=True)
        for kind in (BatchedRecords, Fetcher.PartitionRecords)
    )

    assert ours == theirs


def damaged(change) -> bytes:
    """Two records of 9 bytes and the change made to them, under a checksum that is right."""
    made = bytearray(batch(0, [(5, 0, b"a", b"1", []), (6, 0, b"b", b"2", [])]))
    body = bytearray(made[61:])
    change(body)
    made[61:] = body
    struct.pack_into(">i", made, 8, len(made) - 12)
    struct.pack_into(">I", made, 17, calc_crc32c(memoryview(made)[21:]))
    return bytes(made)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.__setitem__(9 + 6, 40),  # the second's value is said to be longer than its record
        lambda body: body.__setitem__(9, 100),  # the second is said to be longer than the batch
        lambda body: body.__setitem__(9 + 8, 1),  # a negative number of headers
        lambda body: body.append(0),  # something behind the last
        lambda body: body.__delitem__(slice(11, None)),  # cut off
        lambda body: body.__setitem__(slice(9, None), b"\xff" * 12),  # a number without end
    ],
    ids=["value", "length", "headers", "behind", "cut", "number"],
)
def test_a_damaged_record_is_an_error_and_those_before_it_are_handed_over(change):
    data = damaged(change)

    ours, theirs = (
        fetched(kind, data, portion=1, start=0, committed=False) for kind in (BatchedRecords, Fetcher.PartitionRecords)
    )

    assert ours.failure == theirs.failure == "CorruptRecordError"
    assert ours.records == theirs.records
    assert ours.records[0][0].value == b"1"


def test_after_an_error_there_is_nothing_left_to_ask_for_ever():
    """The client's own class stays true, and a poll never comes back from it."""
    data = sample(0)
    part = BatchedRecords(0, PLACE, kafka_self_test.MemoryRecords(data[:-1] + b"\xff"))

    while len(part.take(50)) == 50:
        pass
    with pytest.raises(CorruptRecordError):
        part.take(50)

    assert not part


# -- what is written


def out(number: int, size: int = 10) -> OutRecord:
    return OutRecord(PLACE.topic, 0, b"key", b"%d" % number + b"x" * size)


def accumulator(batch_size: int = 1_000) -> RecordAccumulator:
    return RecordAccumulator(batch_size=batch_size)


def values(batches) -> list[bytes]:
    found = []
    for one in batches:
        one.records.close()
        found += [record.value for made in one.records.records() for record in made]
    return found


def test_records_fill_the_batch_that_waits_before_a_new_one_is_begun():
    waiting = accumulator()

    first = list(append(waiting, PLACE, [out(1), out(2)]))
    second = list(append(waiting, PLACE, [out(number) for number in range(3, 60)]))

    batches = waiting._batches[PLACE]
    assert [count for _, count in first] == [2]
    assert sum(count for _, count in second) == 57
    assert len(second) == len(batches) > 1
    assert {len(batch._record_futures) for batch in batches} == {batch.record_count for batch in batches}
    assert [value.rstrip(b"x") for value in values(batches)] == [b"%d" % number for number in range(1, 60)]
    assert set(waiting._incomplete.all()) == set(batches)


def test_a_batch_on_its_way_back_to_the_broker_takes_nothing_more():
    waiting = accumulator()
    list(append(waiting, PLACE, [out(1)]))
    waiting._batches[PLACE][0].records.close()

    list(append(waiting, PLACE, [out(2)]))

    assert [batch.record_count for batch in waiting._batches[PLACE]] == [1, 1]


def test_a_record_larger_than_a_batch_has_one_of_its_own():
    waiting = accumulator(batch_size=200)

    list(append(waiting, PLACE, [out(1), out(2, 5_000), out(3)]))

    assert [batch.record_count for batch in waiting._batches[PLACE]] == [1, 1, 1]


def test_a_closed_producer_takes_nothing():
    waiting = accumulator()
    waiting.close()

    with pytest.raises(IllegalStateError):
        append(waiting, PLACE, [out(1)])
    assert not waiting._incomplete


def test_an_acknowledged_batch_is_done_and_a_refused_one_has_failed():
    """The client calls the future of a batch a success whatever became of it: the error is in its value."""
    waiting = accumulator()
    [(good, _)] = append(waiting, PLACE, [out(1), out(2)])
    waiting._batches[PLACE].popleft().complete(100, -1)
    [(bad, _)] = append(waiting, PLACE, [out(3), out(4)])
    refusal = RecordListTooLargeError()
    waiting._batches[PLACE].popleft().complete_exceptionally(refusal, lambda index: refusal)

    assert good.succeeded()
    assert bad.failed()
    assert bad.exception is refusal
    with pytest.raises(RecordListTooLargeError):
        bad.get(0)


def test_a_batch_thrown_away_with_its_producer_has_failed():
    waiting = accumulator()
    [(future, _)] = append(waiting, PLACE, [out(1)])
    waiting.close()
    waiting.abort_incomplete_batches()

    assert future.failed()


def test_waiting_for_a_batch_under_way_ends_in_time():
    [(future, _)] = append(accumulator(), PLACE, [out(1)])

    with pytest.raises(KafkaTimeoutError):
        future.get(0.001)
    assert not future.is_done


def split(waiting: RecordAccumulator) -> None:
    """What the client does with the batch in front when the broker finds it too large."""
    large = waiting._batches[PLACE].popleft()
    large.records.close()
    waiting.split_and_reenqueue(large)
    waiting.deallocate(large)


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_of_a_batch_that_was_split_every_part_is_looked_at(refused):
    """One future for all would be that of the last part: the failure of any other would be a silent loss."""
    waiting = accumulator()
    [(future, _)] = append(waiting, PLACE, [out(number) for number in range(8)])
    split(waiting)
    split(waiting)  # the first half once more: 2, 2 and 4 records
    parts = deque(waiting._batches[PLACE])
    assert [part.record_count for part in parts] == [2, 2, 4]
    assert [value.rstrip(b"x") for value in values(parts)] == [b"%d" % number for number in range(8)]

    told = []
    for number, part in enumerate(parts):
        told.append(future.is_done)
        refusal = RecordListTooLargeError()
        if number == refused:
            part.complete_exceptionally(refusal, lambda index, refusal=refusal: refusal)
        else:
            part.complete(number, -1)

    assert told == [False, False, False]
    assert isinstance(future.exception, RecordListTooLargeError)
    with pytest.raises(RecordListTooLargeError):
        future.get(0)


def test_a_batch_that_was_split_and_delivered_is_done_when_its_last_part_is():
    waiting = accumulator()
    [(future, _)] = append(waiting, PLACE, [out(number) for number in range(3)])
    split(waiting)
    for part in reversed(waiting._batches[PLACE]):
        assert not future.is_done
        part.complete(0, -1)

    assert future.succeeded()
    assert future.get(0) is None


# -- sockets


class Socket:
    """Hands out what it is given, call by call; an exception is raised."""

    def __init__(self, *answers):
        self._answers = deque(answers)
        self.asked = []

    def recv(self, size):
        self.asked.append(size)
        answer = self._answers.popleft()
        if isinstance(answer, BaseException):
            raise answer
        return answer


def test_a_read_that_is_not_full_was_the_last():
    socket = Socket(b"x" * 10, b"abc")

    assert kafka_batched._receive(socket, 10, until_short=True) == (b"x" * 10 + b"abc", None)
    assert socket.asked == [10, 10]


@pytest.mark.parametrize("nothing", [BlockingIOError(), ssl.SSLWantReadError()])
def test_what_tls_holds_is_read_to_its_end(nothing):
    socket = Socket(b"abc", b"def", nothing)

    assert kafka_batched._receive(socket, 10, until_short=False) == (b"abcdef", None)


@pytest.mark.parametrize("end", [b"", ConnectionResetError("reset")])
def test_the_end_of_a_connection_is_told_with_what_came_before(end):
    received, error = kafka_batched._receive(Socket(b"x" * 10, end), 10, until_short=True)

    assert received == b"x" * 10
    assert isinstance(error, KafkaConnectionError)
