"""Outputs and offsets confirmed together: nothing is committed that was not delivered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from forecaster.errors import DeliveryFailed
from forecaster.ports import Sink, Source, TransactionalSink
from forecaster.records import OutRecord, StateRecord


class Checkpoint:
    """At-least-once: answers are delivered first, then the offsets they answer are committed.

    Answers stay here until they are confirmed. Where a delivery failed, the next `commit` sends all of them again, so
    that streams keep what they have learnt while a broker is away; some answers may then stand twice in their topic.

    Args:
        flush_timeout_seconds: longest wait for acknowledgements.
    """

    def __init__(self, source: Source, sink: Sink, *, flush_timeout_seconds: float) -> None:
        self._source = source
        self._sink = sink
        self._flush_timeout = flush_timeout_seconds
        self._unsent: deque[OutRecord] = deque()
        self._handed_over: list[OutRecord] = []

    def __len__(self) -> int:
        """Answers that are not confirmed yet."""
        return len(self._unsent) + len(self._handed_over)

    def add(self, records: Iterable[OutRecord]) -> None:
        """Take answers and hand them to the sink.

        Raises:
            TransportError: the sink takes no more now; what it did not take goes out with the next call.
        """
        self._unsent.extend(records)
        offered = list(self._unsent)
        try:
            self._sink.send_all(self._unsent)
        finally:
            self._handed_over += offered[: len(offered) - len(self._unsent)]

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Confirm all answers so far and the offsets they answer.

        1. Hand over what the sink has not taken yet.
        2. Wait for every acknowledgement.
        3. Store the offsets.

        Raises:
            TransportError: the step that failed; nothing is lost, and calling again goes on from there.
        """
        # Step 1.
        self.add(())
        # Step 2.
        try:
            self._sink.flush(self._flush_timeout)
        except DeliveryFailed:
            self._unsent.extend(self._handed_over)
            self._handed_over.clear()
            raise
        self._handed_over.clear()
        # Step 3.
        if offsets:
            self._source.commit(offsets)


class TransactionalCheckpoint:
    """Exactly once: answers, state and offsets become visible together, or not at all.

    After a `TransportError` from any call the transaction is lost, and what tasks have learnt since the last commit
    with it: `start_over`, then restore them.

    Args:
        state: topic of the state records; None of its keys is shared between partitions.
        flush_timeout_seconds: longest wait for acknowledgements.
    """

    def __init__(self, sink: TransactionalSink, *, state: str, flush_timeout_seconds: float) -> None:
        self._sink = sink
        self._state = state
        self._flush_timeout = flush_timeout_seconds
        self._handed_over = 0

    def __len__(self) -> int:
        """Answers that are not confirmed yet."""
        return self._handed_over

    def add(self, records: Iterable[OutRecord]) -> None:
        """Hand answers to the sink, in the transaction under way.

        Raises:
            TransportError: the transaction is lost.
        """
        offered = deque(records)
        count = len(offered)
        self._sink.send_all(offered)
        self._handed_over += count

    def commit(self, offsets: Mapping[int, int], state: Mapping[int, Sequence[StateRecord]]) -> None:
        """Confirm all answers so far, the state that goes with them, and the offsets they answer.

        1. Hand over state records, by partition; outputs were handed over as they were made.
        2. Wait for every acknowledgement and look at each.
        3. Check that the partitions are still ours, add the offsets, end the transaction.

        Raises:
            TransportError: the transaction is lost, or its outcome is not known.
        """
        # Step 1.
        self._sink.send_all(
            deque(
                OutRecord(self._state, partition, record.key.encode(), record.value)
                for partition, records in state.items()
                for record in records
            )
        )
        # Steps 2 and 3.
        self._sink.commit(offsets, flush_timeout_seconds=self._flush_timeout)
        self._handed_over = 0

    def start_over(self) -> None:
        """Throw the transaction under way away.

        Raises:
            TransportError: not possible yet; calling again tries again.
        """
        self._handed_over = 0
        self._sink.start_over()
