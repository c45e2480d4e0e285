"""Readings from Kafka: a member of a consumer group, on librdkafka."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from forecaster.errors import Fenced, TopicChanged, TransportError
from forecaster.ports import FRESH, AssignmentListener
from forecaster.records import RawRecord
from forecaster.transports.kafka_admin import ClusterAdmin
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_namesakes import GroupMember, Namesakes
from forecaster.transports.kafka_source import out_of_range, start_milliseconds
from forecaster.transports.kafka_topic_watch import TopicWatch
from forecaster.transports.librdkafka_client import TopicView, open_consumer, translate_librdkafka

log = logging.getLogger(__name__)

_SEEK_SECONDS = 10.0
_SEEK_PAUSE_SECONDS = 0.005
_PASSING = (
    KafkaError._PARTITION_EOF,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._MAX_POLL_EXCEEDED,  # the listener is told of the loss
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # the watch on the topic has more patience
)
_NOT_THERE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


class LibrdkafkaSource:
    """What `KafkaSource` is, on librdkafka: the same arguments, promises and errors.

    The client calls back on the polling thread, and waits there for the rebalance to end; nothing of kafka-python's
    detours is needed. Workers of one group use one client: the two describe what they own to each other differently.
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
    ) -> None:
        self.topic = topic
        self._hold_new = hold_new
        self._connection = connection
        self._group_id = group_id
        self._start_ms = start_milliseconds(start)
        self._start = start
        self._timeout_seconds = connection.request_timeout_seconds
        self._positions: dict[int, int] = {}
        """Next offset to hand over, of every assigned partition that has been placed."""
        self._assigned: set[int] = set()
        self._unplaced: set[int] = set()
        """Assigned and paused, until it is settled where they begin."""
        self._waiting: set[int] = set()
        """Placed and paused, until `release`."""
        self._held: list[RawRecord] = []
        self._callback_error: BaseException | None = None
        self._listener: AssignmentListener | None = None
        self._has_joined = False
        self._is_closed = False
        static = {"group_instance_id": instance_id} if instance_id is not None else {}
        self._consumer: Consumer = open_consumer(
            connection,
            group_id=group_id,
            session_timeout_ms=round(session_timeout_seconds * 1000),
            heartbeat_interval_ms=round(min(1.0, session_timeout_seconds / 6) * 1000),
            max_poll_interval_ms=round(max(max_poll_interval_seconds, session_timeout_seconds) * 1000),
            partition_assignment_strategy="cooperative-sticky",
            isolation_level="read_committed",
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="error",
            allow_auto_create_topics=False,
            # By default it waits a second before it looks again at a queue that was full.
            fetch_queue_backoff_ms=5,
            **static,
        )
        self._watch: TopicWatch | None = None
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
        """Begin to take part; errors as of `KafkaSource.subscribe`."""
        if self._listener is not None:
            raise TransportError(f"Source {self.topic} has a subscriber already.", hint="Subscribe once.")
        self.partitions()
        view = TopicView(self._connection, self.topic)
        self._watch = TopicWatch(view, self.topic, patience_seconds=self._timeout_seconds)
        self._watch.look()
        if self._hold_new:
            self._namesakes.begin()
        self._listener = listener

    def partitions(self) -> int:
        """How many partitions the topic has, assigned or not; errors as of `KafkaSource.partitions`."""
        self._require_open()
        try:
            found = self._consumer.list_topics(self.topic, timeout=self._timeout_seconds).topics[self.topic]
        except KafkaException as error:
            self._raise(error, "Looking up")
        if found.error is not None and found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise translate_librdkafka(found.error, f"Looking up {self.topic}")
        if not found.partitions:
            raise TransportError(
                f"Topic {self.topic} does not exist at {self._connection.bootstrap_servers}.",
                hint="Create it with `forecaster topics create`, or set topics.readings.",
            )
        return len(found.partitions)

    def poll(self, max_records: int, timeout_seconds: float) -> list[RawRecord]:
        """Records of assigned partitions; errors as of `KafkaSource.poll`."""
        self._require_open()
        if self._listener is None:
            raise TransportError(f"Source {self.topic} has no subscriber.", hint="Call subscribe before poll.")
        if not self._has_joined and not self._join():
            time.sleep(timeout_seconds)
            return []
        self._namesakes.check(self._consumer.memberid() or "")
        if self._held:
            held, self._held = self._held[:max_records], self._held[max_records:]
            return held
        if self._unplaced:
            self._place()
        try:
            first = self._consumer.poll(timeout_seconds)
            # Not in one call: `consume` waits for as many as were asked for.
            more = self._consumer.consume(max_records - 1, 0) if first is not None and max_records > 1 else []
        except KafkaException as error:
            self._raise(error, "Reading")
        # Before anything is handed over: records of another topic of that name are none of ours.
        self._look_at_topic()
        records, failure = self._sort_out([first, *more] if first is not None else [])
        for record in records:
            self._positions[record.partition] = record.offset + 1
        trouble, self._callback_error = self._callback_error, None
        if trouble is not None or failure is not None:
            self._held = records
            if trouble is not None:
                raise trouble
            assert failure is not None
            self._raise(failure, "Reading")
        return records

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Store partition -> next offset, and return when that is durable; errors as of `KafkaSource.commit`."""
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
        except KafkaException as error:
            self._raise(error, f"Committing {dict(sorted(offsets.items()))}")

    def waiting(self) -> frozenset[int]:
        """Partitions that have a committed offset and hand nothing over until `release`."""
        return frozenset(self._waiting)

    def release(self, partition: int, offset: int) -> None:
        """Hand over a waiting partition's records from this offset on."""
        self._begin_at({partition: offset})
        self._waiting.discard(partition)

    def hold(self) -> None:
        """Stop handing over records of every partition; each waits for `release` again. A transaction was lost.

        Raises:
            ConfigurationError: another process of the group has taken our name.
        """
        self._namesakes.suspect(self._consumer.memberid() or "")
        self._consumer.pause(self._of_topic(self._assigned))
        self._held.clear()
        self._waiting |= self._assigned - self._unplaced

    def refuse_namesake(self) -> NoReturn:
        """What an error of a fenced instance id means, in the group or in a transaction's offsets.

        Raises:
            ConfigurationError: another process has this one's name, and its place in the group.
        """
        self._namesakes.refuse()

    def group_metadata(self, partitions: Iterable[int]) -> object:
        """Who we are in the group, for a transaction that commits offsets of these partitions.

        A member without an id is accepted *unfenced* by the broker; with one, its generation is looked at too.

        Raises:
            Fenced: this member is not in the group now, does not own all of the partitions, or the topic has changed.
        """
        self._require_same_topic()
        before = self._consumer.memberid()
        metadata = self._consumer.consumer_group_metadata()
        if not before or self._consumer.memberid() != before or not set(partitions) <= self._assigned:
            raise Fenced(
                f"Member {before or '(none)'} of group {self._group_id} owns {sorted(self._assigned)} and not all of "
                f"{sorted(partitions)}.",
                hint="The group has moved on while this worker was silent; it takes part again by itself.",
            )
        return metadata

    def lag(self) -> Mapping[int, int]:
        """Records waiting, by assigned partition, as of the last fetch; 0 before the first. Never blocks."""
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
        try:
            self._consumer.close()
        except KafkaException as error:
            raise translate_librdkafka(error, f"Leaving the group of {self.topic}") from error
        finally:
            self._is_closed = True
            self._assigned.clear()
        if self._callback_error is not None:
            raise self._callback_error

    def _join(self) -> bool:
        """Take part from now on, unless a process of our name does."""
        self._has_joined = self._namesakes.may_join()
        if self._has_joined:
            self._consumer.subscribe(
                [self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        return self._has_joined

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = sorted(partition.partition for partition in partitions)
        # Where they begin is settled later, by a seek; paused ones fetch nothing before that.
        consumer.incremental_assign([TopicPartition(self.topic, number, 0) for number in numbers])
        consumer.pause(self._of_topic(numbers))
        self._assigned.update(numbers)
        self._unplaced.update(numbers)
        self._tell(self._assigned_to_listener, numbers)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = sorted(partition.partition for partition in partitions)
        self._tell(self._require_listener().revoked, numbers)
        self._forget(numbers)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = sorted(partition.partition for partition in partitions)
        self._forget(numbers)
        self._tell(self._require_listener().lost, numbers)
        consumer.incremental_unassign(partitions)

    def _assigned_to_listener(self, numbers: Sequence[int]) -> None:
        self._look_at_topic()
        self._require_listener().assigned(numbers)

    def _tell(self, listener: Callable[[Sequence[int]], None], numbers: list[int]) -> None:
        if not numbers:
            return
        try:
            listener(numbers)
        except BaseException as error:  # noqa: BLE001 - raised by the poll or close that it came out of
            self._callback_error = self._callback_error or error

    def _forget(self, partitions: list[int]) -> None:
        gone = set(partitions)
        self._assigned -= gone
        self._unplaced -= gone
        self._waiting -= gone
        self._held = [record for record in self._held if record.partition not in gone]
        for partition in partitions:
            self._positions.pop(partition, None)

    def _sort_out(self, messages: Sequence[Message]) -> tuple[list[RawRecord], KafkaError | None]:
        """Records of partitions that hand over, and the first error that is none of a passing kind."""
        records, failure = [], None
        for message in messages:
            error, partition = message.error(), message.partition()
            if error is None and partition in self._positions and partition not in self._waiting:
                records.append(_raw_record(message))
            elif error is not None and error.code() not in _PASSING:
                if error.code() in _NOT_THERE and partition not in self._positions:
                    continue  # of the place it was assigned at, which counts for nothing
                failure = failure or error
        return records, failure

    def _place(self) -> None:
        """Settle where new partitions begin: at the committed offset, else at ``start``, which is committed first."""
        partitions = self._of_topic(sorted(self._unplaced))
        try:
            begin = {}
            for found in self._consumer.committed(partitions, timeout=self._timeout_seconds):
                if found.error is not None:
                    raise KafkaException(found.error)
                if found.offset != OFFSET_INVALID:
                    begin[found.partition] = found.offset
            if fresh := [tp.partition for tp in partitions if tp.partition not in begin]:
                resolved = self._resolve_start(fresh)
                self._commit(resolved)
                begin |= resolved
                log.info("partitions without an offset begin", extra={"start": self._start, "offsets": resolved})
        except KafkaException as error:
            if error.args[0].code() in (KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION):
                return  # only the poll that follows can bring the rebalance to its end
            self._raise(error, "Placing new partitions")
        self._unplaced.clear()
        if self._hold_new:
            self._waiting.update(begin)
        else:
            self._begin_at(begin)

    def _begin_at(self, offsets: Mapping[int, int]) -> None:
        """Go on from these offsets. A partition that was assigned a moment ago may not take a seek at once."""
        deadline = time.monotonic() + _SEEK_SECONDS
        for partition, offset in offsets.items():
            while True:
                try:
                    self._consumer.seek(TopicPartition(self.topic, partition, offset))
                    break
                except KafkaException as error:
                    if error.args[0].code() != KafkaError._STATE or time.monotonic() > deadline:
                        self._raise(error, f"Going to offset {offset} of partition {partition} of")
                time.sleep(_SEEK_PAUSE_SECONDS)
            self._positions[partition] = offset
        self._consumer.resume(self._of_topic(offsets))

    def _resolve_start(self, partitions: list[int]) -> dict[int, int]:
        ends = {partition: self._bounds(partition) for partition in partitions}
        if self._start == "earliest":
            return {partition: first for partition, (first, _) in ends.items()}
        if self._start_ms is None:
            return {partition: last for partition, (_, last) in ends.items()}
        asked = [TopicPartition(self.topic, partition, self._start_ms) for partition in partitions]
        found = self._consumer.offsets_for_times(asked, timeout=self._timeout_seconds)
        return {tp.partition: tp.offset if tp.offset >= 0 else ends[tp.partition][1] for tp in found}

    def _bounds(self, partition: int) -> tuple[int, int]:
        bounds = self._consumer.get_watermark_offsets(
            TopicPartition(self.topic, partition), timeout=self._timeout_seconds
        )
        if bounds is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "looking up where the partition begins and ends"))
        return bounds

    def _commit(self, offsets: Mapping[int, int]) -> None:
        note = FRESH if self._hold_new else ""
        positions = [TopicPartition(self.topic, number, offset, note) for number, offset in offsets.items()]
        for done in self._consumer.commit(offsets=positions, asynchronous=False) or ():
            if done.error is not None:
                raise KafkaException(done.error)

    def _behind(self, partition: int) -> int:
        position = self._positions.get(partition)
        if position is None:
            return 0
        try:
            bounds = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
        except KafkaException:  # taken away inside the client; the callback is still to come
            return 0
        return 0 if bounds is None else max(0, bounds[1] - position)

    def _look_at_topic(self) -> None:
        assert self._watch is not None, "it watches from `subscribe` on"
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

    def _raise(self, error: KafkaException | KafkaError, doing: str) -> NoReturn:
        cause = error.args[0] if isinstance(error, KafkaException) else error
        if cause.code() == KafkaError.FENCED_INSTANCE_ID:
            self.refuse_namesake()
        if cause.code() in _NOT_THERE:
            raise out_of_range(self._group_id, self.topic, self._positions, self._holds())
        raise translate_librdkafka(cause, f"{doing} {self.topic} as group {self._group_id}") from None

    def _holds(self) -> str:
        """What the partitions hold now, for people."""
        try:
            bounds = {partition: self._bounds(partition) for partition in sorted(self._positions)}
        except KafkaException as error:
            return f"what it holds cannot be told ({error})"
        return "; ".join(f"partition {number} holds {first} to {last}" for number, (first, last) in bounds.items())

    def _of_topic(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic, partition) for partition in partitions]

    def _require_open(self) -> None:
        if self._is_closed:
            raise TransportError(f"Source {self.topic} is closed.")

    def _require_listener(self) -> AssignmentListener:
        assert self._listener is not None, "partitions are assigned to subscribers only"
        return self._listener


def _raw_record(message: Message) -> RawRecord:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None, "a record stands somewhere"
    assert partition is not None
    assert offset is not None
    return RawRecord(topic, partition, offset, message.timestamp()[1] / 1000, message.key(), message.value())
