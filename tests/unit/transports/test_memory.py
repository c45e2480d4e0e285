from collections.abc import Sequence

import pytest

from forecaster.errors import DeliveryFailed, TransportError, TransportTimeout
from forecaster.records import OutRecord, RawRecord
from forecaster.transports.memory import Abort, Assign, EndOfInput, Lose, Mark, MemorySink, MemorySource, Pause, Revoke


class ListenerLog:
    """Keeps what it was told; commits ``on_revoke`` from inside ``revoked``."""

    def __init__(self, source: MemorySource, on_revoke: dict[int, int] | None = None) -> None:
        self.events: list[tuple[str, list[int]]] = []
        self._source = source
        self._on_revoke = on_revoke

    def assigned(self, partitions: Sequence[int]) -> None:
        self.events.append(("assigned", list(partitions)))

    def revoked(self, partitions: Sequence[int]) -> None:
        self.events.append(("revoked", list(partitions)))
        if self._on_revoke:
            self._source.commit(self._on_revoke)

    def lost(self, partitions: Sequence[int]) -> None:
        self.events.append(("lost", list(partitions)))


def make_record(offset: int, partition: int = 0) -> RawRecord:
    return RawRecord("readings", partition, offset, -1.0, b"a", b"{}")


def make_source(
    *script: RawRecord | Mark, partitions: int = 1, on_revoke: dict[int, int] | None = None
) -> tuple[MemorySource, ListenerLog]:
    source = MemorySource(script, partitions=partitions)
    listener = ListenerLog(source, on_revoke)
    source.subscribe(listener)
    return source, listener


def drain(source: MemorySource, max_records: int = 100) -> list[tuple[int, int]]:
    """(partition, offset) of everything until the source is exhausted."""
    found = []
    for _ in range(100):
        found += [(record.partition, record.offset) for record in source.poll(max_records, 0)]
        if source.is_exhausted():
            return found
    raise AssertionError("the source never ended")


def test_first_poll_assigns_every_partition_and_brings_no_record() -> None:
    source, listener = make_source(make_record(0), partitions=2)

    assert source.poll(10, 0) == []
    assert listener.events == [("assigned", [0, 1])]
    assert source.poll(10, 0) == [make_record(0)]


def test_poll_brings_at_most_what_was_asked_and_in_order() -> None:
    source, _ = make_source(*map(make_record, range(5)))
    source.poll(2, 0)

    assert [len(source.poll(2, 0)) for _ in range(3)] == [2, 2, 1]


def test_source_is_exhausted_after_its_last_record_and_not_before() -> None:
    source, _ = make_source(make_record(0))

    assert not source.is_exhausted()
    source.poll(1, 0)
    assert not source.is_exhausted()
    source.poll(1, 0)
    assert source.is_exhausted()


def test_extended_source_goes_on() -> None:
    source, _ = make_source(make_record(0))
    drain(source)

    source.extend([make_record(1)])

    assert not source.is_exhausted()
    assert drain(source) == [(0, 1)]


def test_record_of_a_partition_the_source_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="partition 3"):
        MemorySource([make_record(0, partition=3)])


def test_pause_makes_polls_find_nothing_and_delays_what_follows() -> None:
    source, _ = make_source(make_record(0), Pause(2), make_record(1))
    source.poll(10, 0)

    assert [len(source.poll(10, 0)) for _ in range(4)] == [1, 0, 0, 1]


def test_abort_raises_once_between_the_records_it_stands_between() -> None:
    source, _ = make_source(make_record(0), Abort(TransportError("gone")), make_record(1))
    source.poll(10, 0)

    assert source.poll(10, 0) == [make_record(0)]
    with pytest.raises(TransportError, match="gone"):
        source.poll(10, 0)
    assert source.poll(10, 0) == [make_record(1)]


def test_end_of_input_is_where_a_run_ends_and_the_next_goes_on() -> None:
    source, _ = make_source(make_record(0), EndOfInput(), make_record(1))
    assert drain(source) == [(0, 0)]
    source.commit({0: 1})

    again = source.restarted()
    again.subscribe(ListenerLog(again))

    assert drain(again) == [(0, 1)]


def test_restarted_source_repeats_what_was_not_committed() -> None:
    source, _ = make_source(*map(make_record, range(4)))
    drain(source)
    source.commit({0: 2})

    again = source.restarted()
    again.subscribe(ListenerLog(again))

    assert drain(again) == [(0, 2), (0, 3)]


def test_revoked_partition_comes_back_at_its_committed_offset() -> None:
    source, listener = make_source(
        make_record(0, 1),
        make_record(1, 1),
        Revoke((1,)),
        make_record(2, 1),
        make_record(0, 0),
        Assign((1,)),
        partitions=2,
    )
    source.poll(10, 0)
    source.poll(10, 0)
    source.commit({1: 1})

    assert drain(source) == [(0, 0), (1, 1), (1, 2)]
    assert listener.events == [("assigned", [0, 1]), ("revoked", [1]), ("assigned", [1])]


def test_listener_may_commit_inside_revoked() -> None:
    source, _ = make_source(make_record(0), Revoke((0,)), on_revoke={0: 1})

    drain(source)

    assert source.committed == {0: 1}


def test_commit_of_a_lost_partition_is_refused() -> None:
    source, listener = make_source(make_record(0), Lose((0,)))
    source.poll(10, 0)
    source.poll(10, 0)
    source.poll(10, 0)

    assert listener.events[-1] == ("lost", [0])
    with pytest.raises(TransportError, match="not assigned"):
        source.commit({0: 1})
    assert source.committed == {}


def test_script_may_begin_with_part_of_the_partitions() -> None:
    source, listener = make_source(Assign((1,)), make_record(0, 0), make_record(0, 1), partitions=2)

    assert drain(source) == [(1, 0)]
    assert listener.events == [("assigned", [1])]


def test_lag_counts_what_waits_in_assigned_partitions() -> None:
    source, _ = make_source(*map(make_record, range(5)), partitions=2)
    source.poll(2, 0)
    source.poll(2, 0)

    assert source.lag() == {0: 3, 1: 0}


def test_close_revokes_once_and_ends_polling() -> None:
    source, listener = make_source(make_record(0))
    source.poll(1, 0)

    source.close()
    source.close()

    assert listener.events == [("assigned", [0]), ("revoked", [0])]
    with pytest.raises(TransportError, match="closed"):
        source.poll(1, 0)


def test_polling_without_subscribing_is_an_error() -> None:
    with pytest.raises(TransportError, match="no subscriber"):
        MemorySource().poll(1, 0)


# -- sink


def make_out(number: int, topic: str = "forecasts") -> OutRecord:
    return OutRecord(topic, 0, b"a", str(number).encode())


def test_records_count_as_delivered_only_after_a_flush() -> None:
    sink = MemorySink()

    sink.send(make_out(1))
    assert sink.records == []
    sink.flush(1)

    assert sink.records == [make_out(1)]


def test_refused_records_are_counted_by_the_flush_and_not_delivered() -> None:
    sink = MemorySink()
    sink.refuse(2)
    for number in range(5):
        sink.send(make_out(number))

    with pytest.raises(DeliveryFailed, match="2 of 5"):
        sink.flush(1)

    assert sink.records == [make_out(2), make_out(3), make_out(4)]
    sink.flush(1)


def test_delayed_flush_times_out_and_a_later_one_delivers() -> None:
    sink = MemorySink()
    sink.delay_flushes(1)
    sink.send(make_out(1))

    with pytest.raises(TransportTimeout):
        sink.flush(0.5)
    sink.flush(0.5)

    assert sink.records == [make_out(1)]


def test_records_can_be_asked_for_by_topic() -> None:
    sink = MemorySink()
    sink.send(make_out(1))
    sink.send(make_out(2, "anomalies"))
    sink.flush(1)

    assert sink.of_topic("anomalies") == [make_out(2, "anomalies")]


def test_closed_sink_takes_nothing() -> None:
    sink = MemorySink()
    sink.close()

    with pytest.raises(TransportError, match="closed"):
        sink.send(make_out(1))
