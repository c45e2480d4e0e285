"""Readings from Kafka: a member of a consumer group, on kafka-python."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError
from kafka.future import Future
from kafka.structs import ConsumerGroupMetadata, MemberState, OffsetAndMetadata

from forecaster.codecs.timestamps import parse_time
from forecaster.errors import (
    ConfigurationError,
    Fenced,
    TopicChanged,
    TransportError,
)
from forecaster.ports import FRESH, AssignmentListener
from forecaster.records import RawRecord
from forecaster.transports.callbacks import CallbackBridge, Outcome
from forecaster.transports.kafka_admin import ClusterAdmin
from forecaster.transports.kafka_batched import speed_up_consumer, speed_up_sockets
from forecaster.transports.kafka_client import (
    KafkaConnection,
    finish_every_join,
    forget_parked,
    open_client,
    raw_record,
    tell_of_every_loss,
    translate,
)
from forecaster.transports.kafka_namesakes import GroupMember, Namesakes
from forecaster.transports.kafka_topic_watch import TopicWatch

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0
_REBALANCE_SECONDS = 3.0
_REBALANCE_POLL_SECONDS = 0.5
_TOPIC_AGE_SECONDS = 5.0
"""How old our knowledge of the topic may become: after this a topic that was made anew or widened is noticed."""


class KafkaSource:
    """A `Source` over one topic, as a member of a consumer group (cooperative-sticky, read-committed).

    When members join or leave, only the partitions that move are revoked; but until all members have noticed, about two
    heartbeats, nothing is handed over and nothing can be committed. A partition without a committed offset begins where
    ``start`` says, and that place is committed before its first record is handed over, so that a restart before the
    first commit begins at the same record.

    Not thread-safe. The listener is called on the polling thread and may commit from inside ``revoked``.

    Args:
        connection: where and who.
        topic: to read.
        group_id: consumer group.
        start: ``earliest``, ``latest``, or an RFC 3339 time: the first record of that time or later.
        instance_id: joins as a static member of that name, which keeps its partitions over a restart shorter than the
            session; ``None`` joins as a new member each time.
        session_timeout_seconds: silence after which the group gives the partitions away.
        max_poll_interval_seconds: time between polls after which the member leaves by itself.
        hold_new: a new partition hands nothing over until `release`, so that its state can be restored first.
        batched: batches are decoded in one piece (`kafka_batched`); only where `kafka_self_test` approves.

    Raises:
        ConfigurationError: ``start`` cannot be read, or the client refuses a setting.
        TransportUnavailable: no broker answered within the request timeout.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        topic: str,
        group_id: str,
        start: str = "earliest",
        instance_id: str | None = None,
        session_timeout_seconds: float = 10.0,
        max_poll_interval_seconds: float = 300.0,
        hold_new: bool = False,
        batched: bool = False,
    ) -> None:
        self.topic = topic
        self._is_batched = batched
        self._hold_new = hold_new
        self._waiting: set[int] = set()
        """Placed and paused, until `release`."""
        self._connection = connection
        self._group_id = group_id
        self._start_ms = start_milliseconds(start)
        self._start = start
        self._timeout_seconds = connection.request_timeout_seconds
        self._timeout_ms = round(self._timeout_seconds * 1000)
        self._positions: dict[int, int] = {}
        """Next offset to hand over, of every assigned partition that has been placed."""
        self._assigned: set[int] = set()
        self._unplaced: set[int] = set()
        """Assigned and paused, until it is settled where they begin."""
        self._held: list[RawRecord] = []
        self._listener: AssignmentListener | None = None
        self._has_joined = False
        self._is_closed = False
        if batched:
            speed_up_sockets()
        self._consumer, self._network = open_client(
            KafkaConsumer,
            connection,
            group_id=group_id,
            group_instance_id=instance_id,
            session_timeout_ms=round(session_timeout_seconds * 1000),
            # A member learns of a rebalance from its heartbeat, and the group stands still until the last one has.
            heartbeat_interval_ms=round(min(1.0, session_timeout_seconds / 6) * 1000),
            max_poll_interval_ms=round(max_poll_interval_seconds * 1000),
            partition_assignment_strategy=[CooperativeStickyAssignor],
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            metadata_max_age_ms=round(_TOPIC_AGE_SECONDS * 1000),
        )
        if batched:
            speed_up_consumer(self._consumer)
        tell_of_every_loss(self._consumer)
        finish_every_join(self._consumer)
        self._bridge = CallbackBridge(f"kafka-poll-{topic}")
        self._watch = TopicWatch(self._network.cluster, topic, patience_seconds=self._timeout_seconds)
        self._change: TopicChanged | None = None
        """What became of the topic; nothing is committed any more."""
        self._namesakes = Namesakes(
            self._members,
            group_id=group_id,
            name=instance_id or connection.client_id,
            is_static=instance_id is not None,
            session_seconds=session_timeout_seconds,
        )

    def subscribe(self, listener: AssignmentListener) -> None:
        """Begin to take part.

        Raises:
            TransportError: subscribed already, closed, the topic does not exist, or this user may not look at the
                group.
        """
        if self._listener is not None:
            raise TransportError(f"Source {self.topic} has a subscriber already.", hint="Subscribe once.")
        self.partitions()
        self._watch.look()
        if self._hold_new:
            self._namesakes.begin()
        self._listener = listener

    def partitions(self) -> int:
        """How many partitions the topic has, assigned or not.

        Raises:
            TransportError: the topic does not exist, or nobody answers.
        """
        self._require_open()
        try:
            numbers = self._consumer.partitions_for_topic(self.topic)
        except KafkaError as error:
            self._raise(error, "Looking up")
        if not numbers:
            raise TransportError(
                f"Topic {self.topic} does not exist at {self._connection.bootstrap_servers}.",
                hint="Create it with `forecaster topics create`, or set topics.readings.",
            )
        return len(numbers)

    def poll(self, max_records: int, timeout_seconds: float) -> list[RawRecord]:
        """Records of assigned partitions. While the group rebalances it waits for the end of that, for some seconds.

        Raises:
            TransportError: a committed offset is out of the topic's range, or the broker refuses; not retriable then.
            TopicChanged: the topic is not the one it was at `subscribe`; nothing can be committed any more.
            ConfigurationError: another process of the group has our name, and we are the one to end.
            Exception: what the listener raised; the records of that poll come with the next.
        """
        self._require_open()
        if self._listener is None:
            raise TransportError(f"Source {self.topic} has no subscriber.", hint="Call subscribe before poll.")
        if not self._has_joined and not self._join():
            time.sleep(timeout_seconds)
            return []
        self._namesakes.check(self._consumer.group_metadata().member_id)
        if self._is_silenced():
            self._namesakes.suspect(self._consumer.group_metadata().member_id)
        if self._held:
            held, self._held = self._held[:max_records], self._held[max_records:]
            return held
        if self._unplaced:
            self._place()
        try:
            outcome = self._poll_past_rebalance(max_records, timeout_seconds)
        except kafka_errors.NoOffsetForPartitionError:
            return []  # new partitions, which the next poll places
        except KafkaError as error:
            self._raise(error, "Reading")
        # Before anything is handed over: records of another topic of that name are none of ours.
        self._look_at_topic()
        records: list[RawRecord] = []
        for tp, batch in outcome.value.items():
            self._positions[tp.partition] = batch[-1].offset + 1
            records += batch if self._is_batched else map(raw_record, batch)
        if outcome.callback_error is not None:
            self._held = records
            raise outcome.callback_error
        return records

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Store partition -> next offset, and return when that is durable.

        Raises:
            Fenced: this member is no longer in the group, or another has its name; its partitions are gone.
            TransportError: nothing is known to be stored. Retriable while the group rebalances: poll, commit again.
        """
        self._require_open()
        if foreign := sorted(set(offsets) - self._assigned):
            raise TransportError(
                f"Commit of partitions {foreign} of {self.topic}, not assigned; assigned are {sorted(self._assigned)}."
            )
        if not offsets:
            return
        self._require_same_topic()
        try:
            self._commit(offsets)
        except KafkaError as error:
            self._raise(error, f"Committing {dict(sorted(offsets.items()))}")

    def waiting(self) -> frozenset[int]:
        """Partitions that have a committed offset and hand nothing over until `release`."""
        return frozenset(self._waiting)

    def release(self, partition: int, offset: int) -> None:
        """Hand over a waiting partition's records from this offset on."""
        self._go_on(TopicPartition(self.topic, partition), offset)
        self._waiting.discard(partition)

    def hold(self) -> None:
        """Stop handing over records of every partition; each waits for `release` again. A transaction was lost.

        Raises:
            ConfigurationError: another process of the group has taken our name.
        """
        self._namesakes.suspect(self._consumer.group_metadata().member_id)
        self._consumer.pause(*self._of_topic(self._assigned))
        self._held.clear()
        self._waiting |= self._assigned - self._unplaced

    def refuse_namesake(self) -> NoReturn:
        """What an error of a fenced instance id means, in the group or in a transaction's offsets.

        Raises:
            ConfigurationError: another process has this one's name, and its place in the group.
        """
        self._namesakes.refuse()

    def group_metadata(self, partitions: Iterable[int]) -> ConsumerGroupMetadata:
        """Who we are in the group, for a transaction that commits offsets of these partitions.

        After an eviction the client's own metadata is accepted *unfenced* by the broker (generation -1, no member), so
        a commit with it would roll back the new owner's offsets.

        Raises:
            Fenced: this member is not in the group now, does not own all of the partitions, or the topic has changed.
        """
        self._require_same_topic()
        metadata = self._consumer.group_metadata()
        # Not the client's own assignment: while it revokes, that no longer holds what is to be committed one last time.
        owned = self._assigned
        if metadata.generation_id < 0 or not metadata.member_id or not set(partitions) <= owned:
            raise Fenced(
                f"Member {metadata.member_id or '(none)'} of group {self._group_id}, generation "
                f"{metadata.generation_id}, owns {sorted(owned)} and not all of {sorted(partitions)}.",
                hint="The group has moved on while this worker was silent; it takes part again by itself.",
            )
        return metadata

    def lag(self) -> Mapping[int, int]:
        """Records waiting, by assigned partition, as of the last fetch; 0 before the first. Never blocks.

        Control markers of transactions count as records.
        """
        return {partition: self._behind(partition) for partition in sorted(self._assigned)}

    def is_exhausted(self) -> bool:
        """False: a topic has no end."""
        return False

    def close(self) -> None:
        """Leave the group. Calls ``revoked`` for what is still assigned, which may commit. Idempotent.

        Raises:
            Exception: what the listener raised; the source is closed all the same.
        """
        if self._is_closed:
            return
        callback_error: BaseException | None = None
        try:
            callback_error = self._end_rebalance()
            outcome = self._bridge.run(
                lambda: self._consumer.close(autocommit=False, timeout_ms=round(_CLOSE_SECONDS * 1000)),
                timeout_seconds=self._timeout_seconds + _CLOSE_SECONDS,
            )
            callback_error = callback_error or outcome.callback_error
        except KafkaError as error:
            raise translate(error, f"Leaving the group of {self.topic}") from error
        finally:
            self._is_closed = True
            self._assigned.clear()
            self._bridge.close()
        if callback_error is not None:
            raise callback_error

    def _end_rebalance(self) -> BaseException | None:
        """In the middle of a rebalance a commit is refused, and a farewell waits behind the request to join."""
        self._consumer.pause(*self._consumer.assignment())
        deadline = time.monotonic() + _CLOSE_SECONDS
        callback_error: BaseException | None = None
        while self._is_rebalancing() and time.monotonic() < deadline:
            with contextlib.suppress(KafkaError):  # of the poll; what has to go right is the close that follows
                outcome = self._bridge.run(
                    lambda: self._consumer.poll(timeout_ms=100), timeout_seconds=self._timeout_seconds
                )
                callback_error = callback_error or outcome.callback_error
        return callback_error

    def _hand_over(self, event: str, partitions: Iterable[TopicPartition], done: Future) -> None:
        """On the client's I/O thread: have the polling thread tell the listener, and the client wait for it."""
        numbers = sorted(partition.partition for partition in partitions)
        tell = {"assigned": self._on_assigned, "revoked": self._on_revoked, "lost": self._on_lost}[event]

        def when_done() -> None:
            done.success(None)
            self._network.wakeup()

        self._bridge.call_back(lambda: tell(numbers), when_done)

    def _on_assigned(self, partitions: list[int]) -> None:
        self._look_at_topic()
        self._assigned.update(partitions)
        self._unplaced.update(partitions)
        # Their records must not come with this poll, and not before it is settled where they begin.
        self._consumer.pause(*self._of_topic(partitions))
        self._require_listener().assigned(partitions)

    def _on_revoked(self, partitions: list[int]) -> None:
        try:
            self._require_listener().revoked(partitions)
        finally:
            self._forget(partitions)

    def _on_lost(self, partitions: list[int]) -> None:
        self._forget(partitions)
        self._require_listener().lost(partitions)

    def _forget(self, partitions: list[int]) -> None:
        gone = set(partitions)
        self._assigned -= gone
        self._unplaced -= gone
        self._waiting -= gone
        self._held = [record for record in self._held if record.partition not in gone]
        for partition in partitions:
            self._positions.pop(partition, None)

    def _poll_past_rebalance(self, max_records: int, timeout_seconds: float) -> Outcome[dict[Any, list[Any]]]:
        """One poll; several while the group rebalances.

        The client throws an answer to its request to join away when it comes between two polls, and asks again, which
        may begin the rebalance anew: a caller that paused between polls could keep a whole group from settling.
        """
        deadline = time.monotonic() + _REBALANCE_SECONDS
        while True:
            # In long polls: each gap between two is a chance for the answer to get lost, more so on a busy machine.
            patience = max(timeout_seconds, _REBALANCE_POLL_SECONDS) if self._is_rebalancing() else timeout_seconds
            outcome = self._bridge.run(
                functools.partial(self._consumer.poll, timeout_ms=round(patience * 1000), max_records=max_records),
                timeout_seconds=patience + self._timeout_seconds,
            )
            if outcome.value or outcome.callback_error or not self._is_rebalancing() or time.monotonic() > deadline:
                return outcome

    def _join(self) -> bool:
        """Take part from now on, unless a process of our name does."""
        self._has_joined = self._namesakes.may_join()
        if self._has_joined:
            self._consumer.subscribe([self.topic], listener=_Forwarder(self._hand_over))
        return self._has_joined

    def _look_at_topic(self) -> None:
        try:
            self._watch.look()
        except TopicChanged as change:
            self._change = change
            raise

    def _require_same_topic(self) -> None:
        if self._change is not None:
            raise Fenced(str(self._change), hint=self._change.hint)

    def _members(self) -> list[GroupMember]:
        with ClusterAdmin(self._connection) as admin:
            return admin.group_members(self._group_id)

    def _is_silenced(self) -> bool:
        """The broker has told a static member that another has its place: the client just stops its heartbeats."""
        coordinator = self._consumer._coordinator  # not public, but the client says it nowhere else
        is_stable = coordinator.state is MemberState.STABLE
        return coordinator.group_instance_id is not None and is_stable and not coordinator._heartbeat_enabled

    def _is_rebalancing(self) -> bool:
        return bool(self._consumer.group_metadata().state == MemberState.REBALANCING)

    def _place(self) -> None:
        """Settle where new partitions begin: at the committed offset, else at ``start``, which is committed first."""
        partitions = self._of_topic(sorted(self._unplaced))
        try:
            committed = {tp: self._consumer.committed(tp, timeout_ms=self._timeout_ms) for tp in partitions}
            begin = {tp: offset for tp, offset in committed.items() if offset is not None}
            if fresh := [tp for tp in partitions if tp not in begin]:
                begin |= self._resolve_start(fresh)
                self._commit({tp.partition: begin[tp] for tp in fresh})
                log.info(
                    "partitions without an offset begin",
                    extra={"start": self._start, "offsets": {tp.partition: begin[tp] for tp in fresh}},
                )
        except (kafka_errors.RebalanceInProgressError, kafka_errors.CommitFailedError):
            return  # only the poll that follows can bring the rebalance to its end
        except KafkaError as error:
            self._raise(error, "Placing new partitions")
        self._unplaced.clear()
        if self._hold_new:
            self._waiting.update(tp.partition for tp in partitions)
            return
        for tp, offset in begin.items():
            self._go_on(tp, offset)

    def _go_on(self, tp: TopicPartition, offset: int) -> None:
        """Hand over a paused partition's records from this offset on."""
        self._consumer.seek(tp, offset)
        self._positions[tp.partition] = offset
        forget_parked(self._consumer, tp)
        self._consumer.resume(tp)

    def _resolve_start(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self._start == "earliest":
            return dict(self._consumer.beginning_offsets(partitions, timeout_ms=self._timeout_ms))
        ends = dict(self._consumer.end_offsets(partitions, timeout_ms=self._timeout_ms))
        if self._start_ms is None:
            return ends
        found = self._consumer.offsets_for_times(dict.fromkeys(partitions, self._start_ms), timeout_ms=self._timeout_ms)
        return {tp: ends[tp] if found.get(tp) is None else found[tp].offset for tp in partitions}

    def _commit(self, offsets: Mapping[int, int]) -> None:
        note = FRESH if self._hold_new else ""
        positions = {
            TopicPartition(self.topic, p): OffsetAndMetadata(offset, note, -1) for p, offset in offsets.items()
        }
        self._consumer.commit(positions, timeout_ms=self._timeout_ms)

    def _behind(self, partition: int) -> int:
        position = self._positions.get(partition)
        if position is None:
            return 0
        try:
            end = self._consumer.highwater(TopicPartition(self.topic, partition))
        except kafka_errors.IllegalStateError:  # taken away inside the client; the callback is still to come
            return 0
        return 0 if end is None else max(0, end - position)

    def _raise(self, error: KafkaError, doing: str) -> NoReturn:
        what = f"{doing} {self.topic} as group {self._group_id}"
        if isinstance(error, kafka_errors.FencedInstanceIdError):
            self.refuse_namesake()
        if isinstance(error, kafka_errors.OffsetOutOfRangeError):
            raise self._out_of_range(error) from error
        raise translate(error, what) from error

    def _out_of_range(self, error: KafkaError) -> TransportError:
        """Says what was asked for and what there is, since `error` only knows the former."""
        asked = {tp.partition: offset for tp, offset in error.args[0].items()}
        partitions = self._of_topic(asked)
        try:
            first = self._consumer.beginning_offsets(partitions, timeout_ms=self._timeout_ms)
            last = self._consumer.end_offsets(partitions, timeout_ms=self._timeout_ms)
            found = "; ".join(f"partition {tp.partition} holds {first[tp]} to {last[tp]}" for tp in partitions)
        except KafkaError as other:
            found = f"what it holds cannot be told ({other})"
        return out_of_range(self._group_id, self.topic, asked, found)

    def _of_topic(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic, partition) for partition in partitions]

    def _require_open(self) -> None:
        if self._is_closed:
            raise TransportError(f"Source {self.topic} is closed.")

    def _require_listener(self) -> AssignmentListener:
        assert self._listener is not None, "partitions are assigned to subscribers only"
        return self._listener


class _Forwarder(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """The client's listener: lets its event loop go on (heartbeats, commits) while another thread does the work."""

    def __init__(self, hand_over: Callable[[str, Iterable[TopicPartition], Future], None]) -> None:
        self._hand_over = hand_over

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._await("assigned", assigned)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._await("revoked", revoked)

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        await self._await("lost", lost)

    async def _await(self, event: str, partitions: Iterable[TopicPartition]) -> None:
        done = Future()
        self._hand_over(event, partitions, done)
        await done


def out_of_range(group_id: str, topic: str, asked: Mapping[int, int], found: str) -> TransportError:
    """The error for a group that is to go on where there are no records.

    Args:
        asked: offset by partition.
        found: what the partitions hold.
    """
    return TransportError(
        f"Group {group_id} is to go on at offsets {dict(asked)} (by partition) of {topic}, which are out of range: "
        f"{found}.",
        hint="Readings were deleted before they were answered, or the topic was made anew. Stop the workers, "
        f"choose where to go on, set it with `kafka-consumer-groups.sh --reset-offsets --group {group_id}`, "
        "and lengthen the topic's retention.",
    )


def start_milliseconds(start: str) -> int | None:
    """The time in a ``kafka.start`` that is one; ``None`` for earliest and latest.

    Raises:
        ConfigurationError: it is neither.
    """
    if start in ("earliest", "latest"):
        return None
    try:
        return round(parse_time(start) * 1000)
    except ValueError:
        raise ConfigurationError(
            f"Start {start!r} is no place in a topic; expected earliest, latest, or a time such as "
            "2026-01-01T00:00:00Z.",
            hint="Set kafka.start.",
        ) from None
