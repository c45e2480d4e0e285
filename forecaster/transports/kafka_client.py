"""How to reach a cluster with kafka-python, and every error of that client as one of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from forecaster.errors import (
    ConfigurationError,
    Fenced,
    Rebalancing,
    TransportError,
    TransportTimeout,
    TransportUnavailable,
)
from forecaster.records import RawRecord

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class KafkaConnection:
    """How to reach a cluster and who we are there."""

    bootstrap_servers: str
    """host:port, comma separated."""
    client_id: str = "forecaster"
    request_timeout_seconds: float = 30.0
    """Longest wait for one answer, and for the first broker at start."""
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    proxy_url: str = field(default="", repr=False)
    """``socks5://``, ``socks5h://`` or ``http://``, with or without user and password; empty for none."""

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments that consumer, producer and admin client of kafka-python share."""
        request_timeout_ms = round(self.request_timeout_seconds * 1000)
        arguments: dict[str, Any] = {
            "bootstrap_servers": [server.strip() for server in self.bootstrap_servers.split(",")],
            "client_id": self.client_id,
            "request_timeout_ms": request_timeout_ms,
            "bootstrap_timeout_ms": request_timeout_ms,
            "connections_max_idle_ms": max(540_000, 2 * request_timeout_ms),
            # By default a client that was cut off waits up to 30 s after the broker is back.
            "reconnect_backoff_max_ms": 1_000,
            "security_protocol": self.security_protocol,
        }
        optional = {
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "ssl_cafile": self.ssl_cafile,
            "ssl_certfile": self.ssl_certfile,
            "ssl_keyfile": self.ssl_keyfile,
            "proxy_url": self.proxy_url,
        }
        return arguments | {name: value for name, value in optional.items() if value}


def open_client(client: Callable[..., T], connection: KafkaConnection, **arguments: Any) -> tuple[T, KafkaNetClient]:
    """One of kafka-python's clients, connected, and the network client inside it.

    Raises:
        TransportUnavailable: no broker answered within the request timeout.
        ConfigurationError: the client refuses its settings.
    """
    networks: list[KafkaNetClient] = []

    def remember(**network_arguments: Any) -> KafkaNetClient:
        networks.append(KafkaNetClient(**network_arguments))
        return networks[-1]

    try:
        opened = client(kafka_client=remember, **(connection.arguments() | arguments))
    except (KafkaError, OSError, ValueError, RuntimeError) as error:
        # A constructor that raises leaves its I/O thread behind, trying for ever.
        for network in networks:
            network.close()
        if isinstance(error, kafka_errors.KafkaTimeoutError):
            raise TransportUnavailable(
                f"No broker answered at {connection.bootstrap_servers} "
                f"within {connection.request_timeout_seconds:g} s.",
                hint="Is Kafka running there, and do kafka.bootstrap_servers, kafka.security_protocol, kafka.proxy_url "
                "and the credentials fit? The log of kafka-python names the cause of each attempt.",
            ) from error
        if isinstance(error, KafkaError) and not isinstance(error, kafka_errors.KafkaConfigurationError):
            raise translate(error, f"Connecting to {connection.bootstrap_servers}") from error
        raise ConfigurationError(
            f"The Kafka client cannot be made with these settings: {error}.", hint="Look at the kafka section."
        ) from error
    return opened, networks[0]


def tell_of_every_loss(consumer: KafkaConsumer) -> None:
    """Have a consumer's listener told that its partitions are lost, also where the client would keep it to itself.

    A member whose request to join again is held up may be dropped from the group meanwhile. The client then joins as a
    new member, but it has prepared for the request already and does not do so again: it goes on with the partitions it
    had, from where it was, although another member has answered and committed far beyond. Here it prepares again, sees
    that it has no generation any more, and tells the listener before it claims anything.
    """
    coordinator = consumer._coordinator  # not public, as is all of this
    reset = coordinator.reset_generation

    def reset_and_prepare_again(*arguments: Any, **named: Any) -> None:
        reset(*arguments, **named)
        coordinator.rejoining = False

    coordinator.reset_generation = reset_and_prepare_again


def finish_every_join(consumer: KafkaConsumer) -> None:
    """Have a consumer see each request to join through to its end.

    One that is sent because the topic's metadata changed is forgotten where the answer comes between two polls: the
    request itself made the reason go away, so the client thinks that there is nothing to do. Its heartbeats stay off,
    and the group drops it at the end of the session without a word. Here it goes on until it has joined.
    """
    coordinator = consumer._coordinator  # not public, as is all of this
    is_needed = coordinator.need_rejoin
    coordinator.need_rejoin = lambda: is_needed() or coordinator.rejoining


def forget_parked(consumer: KafkaConsumer, partition: TopicPartition) -> None:
    """Have a partition that is resumed fetched anew, from its position.

    The client keeps what it has fetched of a paused partition, and fetches none of it as long as it does. It takes it
    up again only where the slot of the records in hand is empty, and records that were read to their end stay in that
    slot: once others were read to the end, such a partition would never be heard of again.
    """
    fetcher = consumer._fetcher  # not public, as is all of this
    fetcher._paused_completed_fetches.pop(partition, None)
    if (parked := fetcher._paused_partition_records.pop(partition, None)) is not None:
        parked.drain()


_E = kafka_errors

_FENCED: tuple[type[KafkaError], ...] = (
    _E.CommitFailedError,
    _E.FencedInstanceIdError,
    _E.FencedMemberEpochError,
    _E.IllegalGenerationError,
    _E.InvalidProducerEpochError,
    _E.InvalidProducerIdMappingError,
    _E.ProducerFencedError,
    _E.StaleMemberEpochError,
    _E.TransactionCoordinatorFencedError,
    _E.UnknownMemberIdError,
    _E.UnreleasedInstanceIdError,
)
_TOLD_BY_THE_FIRST = (_E.AuthorizationError, _E.InvalidProducerEpochError, _E.ProducerFencedError)
_TIMEOUT: tuple[type[KafkaError], ...] = (_E.KafkaTimeoutError, _E.RequestTimedOutError)
AWAY: tuple[type[KafkaError], ...] = (
    _E.BrokerNotAvailableError,
    _E.Cancelled,
    _E.CoordinatorLoadInProgressError,
    _E.CoordinatorNotAvailableError,
    _E.KafkaConnectionError,
    _E.LeaderNotAvailableError,
    _E.MetadataEmptyBrokerList,
    _E.NetworkExceptionError,
    _E.NodeNotReadyError,
    _E.NotControllerError,
    _E.NotCoordinatorError,
    _E.NotEnoughReplicasAfterAppendError,
    _E.NotEnoughReplicasError,
    _E.NotLeaderForPartitionError,
    _E.ReplicaNotAvailableError,
    _E.UnknownBrokerIdError,
)
"""Nobody answers for the moment: a broker died, or a part that it plays is moving to another."""
_RETRIABLE_BY_US: tuple[type[KafkaError], ...] = (_E.QuotaViolationError,)
"""The client calls these final; patience mends them."""
_FINAL_BY_US: tuple[type[KafkaError], ...] = (_E.UnknownTopicOrPartitionError, _E.UnknownTopicIdError)
"""The client would ask again for ever; an operator has to do something."""

_NO_ANSWER = "Could not execute transactional request for unknown reasons: [Error 7] RequestTimedOutError"
"""How a transactional producer says that a request of its own was not answered in time."""

_HINTS: tuple[tuple[tuple[type[KafkaError], ...], str], ...] = (
    (
        _FENCED,
        "Another member has these partitions or this name, or this one was silent longer than the session. "
        "Give every worker its own kafka.instance_id; raise kafka.session_timeout_seconds if pauses are normal.",
    ),
    ((_E.AuthorizationError,), "Grant this user the right on the topic or group named, or use other credentials."),
    (
        (_E.SaslAuthenticationFailedError, _E.UnsupportedSaslMechanismError, _E.IllegalSaslStateError),
        "Look at kafka.security_protocol, kafka.sasl_mechanism and the credentials.",
    ),
    (_FINAL_BY_US, "Create it with `forecaster topics create`, or correct the name in the topics section."),
    (
        (_E.MessageSizeTooLargeError, _E.RecordListTooLargeError, _E.InvalidRecordError),
        "Raise max.message.bytes of the topic, or lower forecast.horizon or readings.max_payload_bytes.",
    ),
    (
        (_E.UnsupportedCodecError, _E.UnsupportedCompressionTypeError),
        "Install the codec's package, or change kafka.compression.",
    ),
    (
        (_E.InvalidSessionTimeoutError,),
        "Keep kafka.session_timeout_seconds inside the broker's group.min.session.timeout.ms and group.max….",
    ),
    (
        (_E.InconsistentGroupProtocolError,),
        "Members of this group use another assignor: choose another kafka.group_id.",
    ),
    (
        (_E.OffsetOutOfRangeError, _E.LogTruncationError, _E.NoOffsetForPartitionError),
        "The records are gone from the broker: choose where to go on with `kafka-consumer-groups.sh --reset-offsets`.",
    ),
    ((_E.CorruptRecordError,), "The topic holds a damaged batch: look at the broker's disks."),
    ((_E.RebalanceInProgressError,), "Poll, then commit again."),
    (_TIMEOUT + AWAY, "Is the broker up and reachable? kafka.request_timeout_seconds sets the wait."),
)


def translate(error: KafkaError, doing: str) -> TransportError:
    """One of our errors for one of the client's; ``doing`` begins the message, as in ``Committing readings``.

    >>> translate(kafka_errors.KafkaTimeoutError("30 s"), "Committing readings")
    TransportTimeout('Committing readings failed: KafkaTimeoutError: 30 s.')
    """
    if (
        isinstance(error, _E.CommitFailedError)
        and error.args
        and isinstance(error.args[0], _E.RebalanceInProgressError)
    ):
        error = error.args[0]  # the client calls it final, but this is still a member, with its partitions
    elif type(error) is KafkaError and _NO_ANSWER in str(error):
        error = _E.RequestTimedOutError(str(error))
    elif type(error) is KafkaError:  # a send after a failed one, which alone was told what happened
        error = next((cause for cause in error.args if isinstance(cause, _TOLD_BY_THE_FIRST)), error)
    message = f"{doing} failed: {str(error).rstrip('.')}."
    hint = next((hint for classes, hint in _HINTS if isinstance(error, classes)), "")
    if isinstance(error, _FENCED):
        return Fenced(message, hint=hint)
    if isinstance(error, _E.RebalanceInProgressError):
        return Rebalancing(message, hint=hint)
    if isinstance(error, _TIMEOUT):
        return TransportTimeout(message, hint=hint)
    if isinstance(error, AWAY):
        return TransportUnavailable(message, hint=hint)
    translated = TransportError(message, hint=hint or "The broker's log at this moment says more.")
    retriable = isinstance(error, _RETRIABLE_BY_US) or (error.retriable and not isinstance(error, _FINAL_BY_US))
    translated.retriable = retriable
    return translated


def raw_record(record: Any) -> RawRecord:
    return RawRecord(record.topic, record.partition, record.offset, record.timestamp / 1000, record.key, record.value)
