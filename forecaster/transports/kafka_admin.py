"""What an operator asks of a cluster: topics made and compared, a group's progress, the newest records of a topic."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition, codec
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2
from kafka.record import util as record_util
from kafka.structs import OffsetAndMetadata

from forecaster.errors import TransportError, TransportTimeout, TransportUnavailable
from forecaster.records import RawRecord
from forecaster.transports.kafka_client import AWAY, KafkaConnection, open_client, translate
from forecaster.transports.kafka_namesakes import GroupMember

_POLL_SECONDS = 0.5
_RETRY_SECONDS = 0.1
_ARE_ALL_UP = "Are all brokers up? Try again."


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPlan:
    """A topic as it is to be made; what is not said here is the broker's default."""

    name: str
    partitions: int
    replication: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDescription:
    """A topic as it is."""

    name: str
    partitions: int
    replication: int
    """Fewest replicas of any partition."""
    leaderless: tuple[int, ...] = ()
    """Partitions nobody serves at this moment."""
    lagging: tuple[int, ...] = ()
    """Partitions some of whose replicas are not in sync."""
    max_message_bytes: int | None = None
    """``None`` where the settings of the topic cannot be read."""
    retention_seconds: float | None = None
    """``inf`` keeps everything; ``None`` as above."""
    cleanup_policy: str | None = None
    """``None`` as above."""
    min_insync_replicas: int | None = None
    """``None`` as above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionProgress:
    """Where a group stands in one partition."""

    first: int
    """Oldest offset the broker holds."""
    end: int
    """Offset of the next record to come."""
    committed: int | None
    """``None`` where the group has committed nothing."""

    @property
    def lag(self) -> int:
        """Records from the committed offset, or from the oldest one, to the end. Control markers count."""
        return self.end - max(self.first, self.first if self.committed is None else self.committed)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDescription:
    """A consumer group and its progress in one topic."""

    group_id: str
    state: str
    """As the broker says: Stable, Empty, Dead, PreparingRebalance, CompletingRebalance."""
    members: int
    progress: Mapping[int, PartitionProgress]
    """By partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDescription:
    """The brokers as they answer."""

    brokers: int
    version: tuple[int, ...]
    """Of the oldest that answers, as far as the requests it understands tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFacts:
    """What kafka-python found beside it."""

    has_crc32c: bool
    """False: checksums are computed in Python, at 2.5 MB/s."""
    codecs_absent: tuple[str, ...]
    """A batch in one of them makes the client's poll spin for ever."""


def client_facts() -> ClientFacts:
    """Looks at the client as it is loaded in this process."""
    codecs = {
        "gzip": codec.has_gzip,
        "snappy": codec.has_snappy,
        "lz4": codec.has_lz4,
        "zstd": codec.has_zstd,
    }
    return ClientFacts(
        has_crc32c=record_util.crc32c_c is not None,
        codecs_absent=tuple(name for name, is_there in codecs.items() if not is_there()),
    )


class ClusterAdmin:
    """Questions to a cluster, each answered or raised as one of our errors.

    A broker that is away does not matter while others can answer: a question is asked again until the request timeout
    is over. The longest wait is twice that, or the 10 s that the client gives a new connection where they are longer.

    Args:
        connection: where and who.

    Raises:
        TransportUnavailable: no broker answered within the request timeout.
        ConfigurationError: the client refuses a setting.
    """

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._timeout_ms = round(connection.request_timeout_seconds * 1000)
        self._client, _ = open_client(KafkaAdminClient, connection)

    def close(self) -> None:
        """Leave. Idempotent."""
        self._client.close()

    def __enter__(self) -> ClusterAdmin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def describe_cluster(self) -> ClusterDescription:
        """How many brokers there are and what version they speak.

        Raises:
            TransportError: nobody answers, or this user may not ask.
        """
        doing = "Describing the cluster"
        with _translated(doing):
            brokers = self._ask(lambda: [broker["broker_id"] for broker in self._client.describe_cluster()["brokers"]])
            versions = []
            for broker in brokers:
                try:
                    versions.append(tuple(self._client.get_broker_version_data(broker).broker_version))
                except AWAY:  # it died lately; what the others say has to do
                    continue
        if not versions:
            raise TransportUnavailable(f"{doing} failed: none of {len(brokers)} brokers answers.", hint=_ARE_ALL_UP)
        return ClusterDescription(brokers=len(brokers), version=min(versions))

    def count_brokers(self) -> int:
        """How many brokers there are, as far as the cluster knows at this moment.

        Raises:
            TransportError: nobody answers, or this user may not ask.
        """
        with _translated("Counting the brokers"):
            return len(self._ask(lambda: self._client.describe_cluster()["brokers"]))

    def describe_topics(self, names: Sequence[str]) -> dict[str, TopicDescription]:
        """Those of the topics that exist, by name.

        Raises:
            TransportError: nobody answers, or this user may not look at one of them.
        """
        found: dict[str, Any] = {}
        with _translated(f"Describing topics {', '.join(names)}"):
            for topic in self._ask(lambda: self._client.describe_topics(list(names))):
                if topic["error_code"] == kafka_errors.UnknownTopicOrPartitionError.errno:
                    continue
                if topic["error_code"]:
                    raise translate(kafka_errors.for_code(topic["error_code"])(), f"Describing topic {topic['name']}")
                found[topic["name"]] = topic["partitions"]
            configs = self._configs(list(found))
        return {name: describe(name, partitions, configs.get(name, {})) for name, partitions in found.items()}

    def ensure_topics(self, plans: Sequence[TopicPlan]) -> list[str]:
        """Make those that do not exist, and return their names once each of their partitions is served.

        An existing topic is left as it is, whatever its plan says. Calling again, or from two places at once, does no
        harm.

        Raises:
            TransportError: a topic was refused: replication beyond the number of brokers, no right to create, ….
        """
        existing = self.describe_topics([plan.name for plan in plans])
        created = []
        for plan in plans:
            if plan.name in existing:
                continue
            options = {
                "num_partitions": plan.partitions,
                "replication_factor": plan.replication,
                "configs": dict(plan.configs),
            }
            with _translated(f"Creating topic {plan.name}, {plan.partitions} partitions × {plan.replication} replicas"):
                answer = self._client.create_topics({plan.name: options}, raise_errors=False)["topics"][0]
                error = kafka_errors.for_code(answer["error_code"])
                if error is kafka_errors.TopicAlreadyExistsError:
                    continue  # somebody was quicker
                if error is not kafka_errors.NoError:
                    raise error(answer.get("error_message") or "")
            created.append(plan.name)
        if created:
            with _translated(f"Waiting for the leaders of {', '.join(created)}"):
                self._client.wait_for_topics(created, timeout_ms=self._timeout_ms)
        return created

    def group_members(self, group_id: str) -> list[GroupMember]:
        """Who is in a consumer group, members that died within their session included; nobody in one never used.

        Raises:
            TransportError: nobody answers, or this user may not look.
        """
        with _translated(f"Looking at the members of group {group_id}"):
            group = self._ask(lambda: self._client.describe_groups([group_id]))[group_id]
        return [
            GroupMember(
                member_id=member["member_id"],
                name=member.get("group_instance_id") or member["client_id"],
                host=member["client_host"],
            )
            for member in group["members"]
        ]

    def describe_group(self, group_id: str, topic: str, partitions: int) -> GroupDescription:
        """State of a consumer group and where it stands in ``topic``.

        A group nobody has used is ``Dead`` and has committed nothing.

        Raises:
            TransportError: nobody answers, or this user may not look.
        """
        numbers = [TopicPartition(topic, number) for number in range(partitions)]
        with _translated(f"Describing group {group_id}"):
            # First the offsets: that call raises where this user may not look, the other one only says so in text.
            offsets = self._ask(lambda: self._client.list_group_offsets({group_id: numbers}))[group_id]
            group = self._ask(lambda: self._client.describe_groups([group_id]))[group_id]
        with _translated(f"Looking up the offsets of {topic}"):
            first, end = self._offsets(numbers, OffsetSpec.EARLIEST), self._offsets(numbers, OffsetSpec.LATEST)
        committed = {tp: known.offset for tp, known in offsets.items() if known.offset >= 0}
        return GroupDescription(
            group_id=group_id,
            state=group["group_state"],
            members=len(group["members"]),
            progress={
                tp.partition: PartitionProgress(first=first[tp], end=end[tp], committed=committed.get(tp))
                for tp in numbers
            },
        )

    def forget_offsets(self, group_id: str, topic: str, partitions: Sequence[int]) -> None:
        """Delete what a group without members has committed in these partitions; nothing there is nothing to delete.

        Raises:
            TransportError: the group has members, nobody answers, or this user may not.
        """
        numbers = [TopicPartition(topic, number) for number in partitions]
        with _translated(f"Deleting offsets of group {group_id} in {topic}"):
            try:
                answers = self._ask(lambda: self._client.delete_group_offsets(group_id, numbers))
            except kafka_errors.GroupIdNotFoundError:
                return
            _raise_first(answers.values())

    def set_offsets(self, group_id: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Commit next offsets by partition, without a note, for a group without members.

        Raises:
            TransportError: the group has members, nobody answers, or this user may not.
        """
        wanted = {TopicPartition(topic, number): OffsetAndMetadata(at, "", -1) for number, at in offsets.items()}
        with _translated(f"Setting offsets of group {group_id} in {topic}"):
            _raise_first(self._ask(lambda: self._client.alter_group_offsets(group_id, wanted)).values())

    def add_partitions(self, topic: str, total: int) -> None:
        """Make a topic ``total`` partitions wide, and return when each of them is served.

        Raises:
            TransportError: it is that wide already, nobody answers, or this user may not.
        """
        with _translated(f"Adding partitions to {topic}, to {total}"):
            self._client.create_partitions({topic: total}, timeout_ms=self._timeout_ms)
            self._client.wait_for_topics([topic], timeout_ms=self._timeout_ms)

    def _ask(self, ask: Callable[[], Any]) -> Any:
        """The answer to a question that does no harm when it is asked again.

        A broker that was asked may have died, and the first question about groups makes a cluster set up who answers.
        """
        deadline = time.monotonic() + self._timeout_ms / 1000
        while True:
            try:
                return ask()
            except AWAY:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)

    def _offsets(self, partitions: Sequence[TopicPartition], which: OffsetSpec) -> dict[TopicPartition, int]:
        wanted = dict.fromkeys(partitions, which)
        found = self._ask(lambda: self._client.list_partition_offsets(wanted, timeout_ms=self._timeout_ms))
        return {tp: known.offset for tp, known in found.items()}

    def _configs(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str | None]]:
        """Settings of topics by name; none where this user may not read them, which is no error."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        answer = self._ask(lambda: self._client.describe_configs(resources, config_filter="all")).get("topic", {})
        return {topic: {name: entry["value"] for name, entry in entries.items()} for topic, entries in answer.items()}


def describe(name: str, partitions: Sequence[Mapping[str, Any]], configs: Mapping[str, str | None]) -> TopicDescription:
    """A topic from the broker's metadata of its partitions and its settings as text."""
    size, retention = configs.get("max.message.bytes"), configs.get("retention.ms")
    in_sync = configs.get("min.insync.replicas")
    return TopicDescription(
        name=name,
        partitions=len(partitions),
        replication=min((len(partition["replica_nodes"]) for partition in partitions), default=0),
        leaderless=tuple(sorted(p["partition_index"] for p in partitions if p["leader_id"] < 0)),
        lagging=tuple(
            sorted(p["partition_index"] for p in partitions if len(p["isr_nodes"]) < len(p["replica_nodes"]))
        ),
        max_message_bytes=None if size is None else int(size),
        retention_seconds=None if retention is None else math.inf if int(retention) < 0 else int(retention) / 1000,
        cleanup_policy=configs.get("cleanup.policy"),
        min_insync_replicas=None if in_sync is None else int(in_sync),
    )


def partition_of(key: bytes, partitions: int) -> int:
    """Where a record of this key goes under Kafka's default partitioner.

    >>> partition_of(b"ward-3/bed-12", 4)
    2
    """
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def newest_records(connection: KafkaConnection, topic: str, count: int) -> list[RawRecord]:
    """The newest records of a topic, about ``count`` spread evenly over its partitions, each partition's in order.

    Joins no group and commits nothing. Fewer come where partitions hold fewer, or hold records of open or aborted
    transactions.

    Raises:
        TransportError: the topic does not exist, or the broker refuses.
        TransportTimeout: nothing came for a request timeout though there is more to read.
    """
    timeout_ms = round(connection.request_timeout_seconds * 1000)
    with _translated(f"Reading the newest records of {topic}"):
        consumer, _ = open_client(
            KafkaConsumer,
            connection,
            group_id=None,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # a record that retention took while we looked is simply gone
            allow_auto_create_topics=False,
        )
        with contextlib.closing(consumer):
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                raise TransportError(
                    f"Topic {topic} does not exist at {connection.bootstrap_servers}.",
                    hint="Create it with `forecaster topics create`, or set topics.readings.",
                )
            partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            share = max(1, count // len(partitions))
            first = consumer.beginning_offsets(partitions, timeout_ms=timeout_ms)
            end = consumer.end_offsets(partitions, timeout_ms=timeout_ms)
            consumer.assign([tp for tp in partitions if end[tp] > first[tp]])
            for tp in consumer.assignment():
                consumer.seek(tp, max(first[tp], end[tp] - share))
            return [
                RawRecord(
                    record.topic, record.partition, record.offset, record.timestamp / 1000, record.key, record.value
                )
                for record in _read_to(consumer, end, connection.request_timeout_seconds)
            ]


def _read_to(consumer: Any, end: Mapping[TopicPartition, int], timeout_seconds: float) -> Iterator[Any]:
    """Records of all assigned partitions before their ``end``."""
    left = set(consumer.assignment())
    last_progress = time.monotonic()
    while left:
        batches = consumer.poll(timeout_ms=round(_POLL_SECONDS * 1000))
        for tp, records in batches.items():
            yield from (record for record in records if record.offset < end[tp])
        # Positions, not records: control records and aborted ones move the former only.
        finished = {tp for tp in left if consumer.position(tp) >= end[tp]}
        left -= finished
        if finished:
            consumer.pause(*finished)
        if batches or finished:
            last_progress = time.monotonic()
        elif time.monotonic() - last_progress > timeout_seconds:
            raise TransportTimeout(
                f"Nothing more came for {timeout_seconds:g} s, though partitions "
                f"{sorted(tp.partition for tp in left)} have more.",
                hint="Look at the broker's log; or lengthen kafka.request_timeout_seconds.",
            )


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    """What the client raises, as one of our errors."""
    try:
        yield
    except KafkaError as error:
        raise translate(error, doing) from error
    except RuntimeError as error:  # what the client raises when the controller moves twice
        raise TransportUnavailable(f"{doing} failed: {error}", hint=_ARE_ALL_UP) from error


def write_tombstones(connection: KafkaConnection, topic: str, keys: Mapping[int, Iterable[str]]) -> int:
    """Put a tombstone on each key of each partition of a compacted topic; returns how many, once all are acknowledged.

    Raises:
        TransportError: one of them was not acknowledged within the request timeout.
    """
    timeout = connection.request_timeout_seconds
    with _translated(f"Writing tombstones to {topic}"):
        producer, _ = open_client(KafkaProducer, connection, acks="all", allow_auto_create_topics=False)
        try:
            sent = [
                producer.send(topic, key=key.encode(), value=None, partition=partition)
                for partition, names in keys.items()
                for key in names
            ]
            producer.flush(timeout)
            for future in sent:
                future.get(timeout)
        finally:
            producer.close(timeout)
    return len(sent)


def _raise_first(answers: Iterable[type[KafkaError]]) -> None:
    """The first of a request's answers that is an error."""
    for answer in answers:
        if answer is not kafka_errors.NoError:
            raise answer()
