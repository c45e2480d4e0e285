import pytest

from forecaster.engine.checkpoint import Checkpoint, TransactionalCheckpoint
from forecaster.errors import DeliveryFailed, TransportTimeout, TransportUnavailable
from forecaster.ports import Sink
from forecaster.records import OutRecord, StateRecord


def out(number):
    return OutRecord("forecasts", 0, b"a", str(number).encode())


class Diary(Sink):
    """Source and sink of a checkpoint that write down what is asked of them, and fail where they are told to."""

    def __init__(self):
        self.entries = []
        self.failures = {}

    def failing(self, action, *errors):
        self.failures[action] = list(errors)

    def _note(self, action, detail):
        self.entries.append((action, detail))
        if self.failures.get(action):
            error = self.failures[action].pop(0)
            if error is not None:
                raise error

    def send(self, record):
        self._note("send", int(record.value))

    def flush(self, timeout_seconds):
        self._note("flush", timeout_seconds)

    def commit(self, offsets):
        self._note("commit", dict(offsets))


def make_checkpoint():
    diary = Diary()
    return Checkpoint(diary, diary, flush_timeout_seconds=30.0), diary


def test_answers_are_sent_at_once_then_confirmed_then_their_offsets_stored():
    checkpoint, diary = make_checkpoint()

    checkpoint.add([out(1), out(2)])
    assert len(checkpoint) == 2
    checkpoint.commit({0: 7})

    assert diary.entries == [("send", 1), ("send", 2), ("flush", 30.0), ("commit", {0: 7})]
    assert len(checkpoint) == 0


def test_offsets_without_answers_are_stored_and_answers_without_offsets_confirmed():
    checkpoint, diary = make_checkpoint()

    checkpoint.commit({3: 1})
    checkpoint.add([out(1)])
    checkpoint.commit({})

    assert diary.entries == [("flush", 30.0), ("commit", {3: 1}), ("send", 1), ("flush", 30.0)]


def test_after_a_refused_delivery_nothing_is_committed_and_all_answers_are_sent_again_in_order():
    checkpoint, diary = make_checkpoint()
    checkpoint.add([out(1), out(2)])
    diary.failing("flush", DeliveryFailed("1 of 2 records were not delivered."))

    with pytest.raises(DeliveryFailed):
        checkpoint.commit({0: 7})
    assert len(checkpoint) == 2
    diary.entries.clear()
    checkpoint.add([out(3)])
    checkpoint.commit({0: 8})

    assert diary.entries == [("send", 1), ("send", 2), ("send", 3), ("flush", 30.0), ("commit", {0: 8})]


def test_after_a_flush_that_took_too_long_answers_are_waited_for_again_and_not_sent_twice():
    checkpoint, diary = make_checkpoint()
    checkpoint.add([out(1)])
    diary.failing("flush", TransportTimeout("1 record was not acknowledged."))

    with pytest.raises(TransportTimeout):
        checkpoint.commit({0: 7})
    assert len(checkpoint) == 1
    diary.entries.clear()
    checkpoint.commit({0: 7})

    assert diary.entries == [("flush", 30.0), ("commit", {0: 7})]


def test_what_the_sink_does_not_take_goes_out_with_the_next_call_in_order():
    checkpoint, diary = make_checkpoint()
    diary.failing("send", None, TransportUnavailable("nobody there"))

    with pytest.raises(TransportUnavailable):
        checkpoint.add([out(1), out(2), out(3)])
    assert len(checkpoint) == 3
    diary.entries.clear()
    checkpoint.commit({0: 9})

    assert diary.entries == [("send", 2), ("send", 3), ("flush", 30.0), ("commit", {0: 9})]


def test_an_offset_that_could_not_be_stored_is_stored_later_without_sending_answers_again():
    checkpoint, diary = make_checkpoint()
    checkpoint.add([out(1)])
    diary.failing("commit", TransportUnavailable("nobody there"))

    with pytest.raises(TransportUnavailable):
        checkpoint.commit({0: 7})
    assert len(checkpoint) == 0
    diary.entries.clear()
    checkpoint.commit({0: 7})

    assert diary.entries == [("flush", 30.0), ("commit", {0: 7})]


class Transaction:
    """A sink that writes down what is in a transaction when it is ended."""

    def __init__(self):
        self.under_way = []
        self.committed = []

    def send(self, record):
        self.under_way.append((record.topic, record.partition, record.value))

    def send_all(self, records):
        while records:
            self.send(records.popleft())

    def commit(self, offsets, *, flush_timeout_seconds):
        self.committed.append((self.under_way, dict(offsets)))
        self.under_way = []

    def start_over(self):
        self.under_way = []


def test_answers_state_and_offsets_are_in_one_transaction_and_nothing_is_left_for_the_next():
    sink = Transaction()
    checkpoint = TransactionalCheckpoint(sink, state="state", flush_timeout_seconds=30.0)

    checkpoint.add([out(1), out(2)])
    checkpoint.commit({0: 7, 1: 3}, {0: [StateRecord("page/0", b"p"), StateRecord("meta", b"m")], 1: []})

    assert sink.committed == [
        (
            [("forecasts", 0, b"1"), ("forecasts", 0, b"2"), ("state", 0, b"p"), ("state", 0, b"m")],
            {0: 7, 1: 3},
        )
    ]
    assert sink.under_way == []
    assert len(checkpoint) == 0


def test_what_a_lost_transaction_held_is_in_none_that_follows():
    sink = Transaction()
    checkpoint = TransactionalCheckpoint(sink, state="state", flush_timeout_seconds=30.0)
    checkpoint.add([out(1)])

    checkpoint.start_over()
    assert len(checkpoint) == 0
    checkpoint.add([out(2)])
    checkpoint.commit({0: 2}, {})

    assert sink.committed == [([("forecasts", 0, b"2")], {0: 2})]
