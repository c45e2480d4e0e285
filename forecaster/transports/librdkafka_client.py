"""How to reach a cluster with librdkafka (confluent-kafka), and every error of that client as one of ours."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._topic import TopicDescription
from kafka import errors as kafka_errors
from kafka.errors import KafkaError as KafkaPythonError

from forecaster.errors import ConfigurationError, TransportError, TransportUnavailable
from forecaster.transports.kafka_client import KafkaConnection, translate

log = logging.getLogger("librdkafka")

_E = kafka_errors
_LOCAL: dict[int, type[KafkaPythonError]] = {
    KafkaError._ALL_BROKERS_DOWN: _E.KafkaConnectionError,
    KafkaError._ASSIGNMENT_LOST: _E.UnknownMemberIdError,
    KafkaError._AUTHENTICATION: _E.SaslAuthenticationFailedError,
    KafkaError._BAD_COMPRESSION: _E.CorruptRecordError,
    KafkaError._BAD_MSG: _E.CorruptRecordError,
    KafkaError._FENCED: _E.ProducerFencedError,
    KafkaError._LOG_TRUNCATION: _E.LogTruncationError,
    KafkaError._MSG_TIMED_OUT: _E.KafkaTimeoutError,
    KafkaError._NOT_IMPLEMENTED: _E.UnsupportedCodecError,
    KafkaError._RESOLVE: _E.KafkaConnectionError,
    KafkaError._TIMED_OUT: _E.KafkaTimeoutError,
    KafkaError._TIMED_OUT_QUEUE: _E.KafkaTimeoutError,
    KafkaError._TRANSPORT: _E.KafkaConnectionError,
    KafkaError._UNKNOWN_TOPIC: _E.UnknownTopicOrPartitionError,
    KafkaError._UNKNOWN_PARTITION: _E.UnknownTopicOrPartitionError,
    KafkaError._WAIT_COORD: _E.CoordinatorNotAvailableError,
}
"""Errors that librdkafka makes itself, by the class of kafka-python that says the same; brokers' have their number."""

_LOG_LEVEL = 4  # of syslog: warnings and worse
_VIEW_SECONDS = 5.0


def client_settings(connection: KafkaConnection) -> dict[str, Any]:
    """Settings that consumer, producer and admin client of librdkafka share.

    Raises:
        ConfigurationError: a proxy is asked for, which librdkafka knows nothing of.
    """
    if connection.proxy_url:
        raise ConfigurationError(
            "kafka.proxy_url is set, and librdkafka cannot go through a proxy.",
            hint="Set kafka.client = kafka-python, or reach the brokers directly.",
        )
    settings: dict[str, Any] = {
        "bootstrap.servers": connection.bootstrap_servers,
        "client.id": connection.client_id,
        "socket.timeout.ms": round(connection.request_timeout_seconds * 1000),
        "reconnect.backoff.max.ms": 1_000,
        "security.protocol": connection.security_protocol,
        "log_level": _LOG_LEVEL,
        "logger": log,
    }
    optional = {
        "sasl.mechanism": connection.sasl_mechanism,
        "sasl.username": connection.sasl_username,
        "sasl.password": connection.sasl_password,
        "ssl.ca.location": connection.ssl_cafile,
        "ssl.certificate.location": connection.ssl_certfile,
        "ssl.key.location": connection.ssl_keyfile,
    }
    return settings | {name: value for name, value in optional.items() if value}


def open_consumer(connection: KafkaConnection, **settings: Any) -> Consumer:
    """A consumer that has reached a broker; names of settings with underscores for dots.

    Raises:
        TransportUnavailable: no broker answered within the request timeout.
        ConfigurationError: the client refuses its settings.
    """
    try:
        consumer = Consumer(client_settings(connection) | _dotted(settings))
    except KafkaException as error:
        raise _refused(error) from error
    _reach(consumer, connection)
    return consumer


def open_producer(connection: KafkaConnection, **settings: Any) -> Producer:
    """A producer that has reached a broker; arguments and errors as of `open_consumer`."""
    try:
        producer = Producer(client_settings(connection) | _dotted(settings))
    except KafkaException as error:
        raise _refused(error) from error
    _reach(producer, connection)
    return producer


def translate_librdkafka(error: KafkaException | KafkaError, doing: str) -> TransportError:
    """One of our errors for one of librdkafka's; ``doing`` begins the message."""
    return translate(as_kafka_python(error), doing)


def as_kafka_python(error: KafkaException | KafkaError) -> KafkaPythonError:
    """The error of kafka-python that says the same, so that both clients' are told in the same words."""
    cause: KafkaError = error.args[0] if isinstance(error, KafkaException) else error
    text = f"{cause.name()}: {cause.str()}"
    if cause.code() in _LOCAL:
        return _LOCAL[cause.code()](text)
    found = _E.for_code(cause.code())(text) if cause.code() >= 0 else KafkaPythonError(text)
    assert isinstance(found, KafkaPythonError)
    if cause.retriable() and not found.retriable:
        found.retriable = True
    return found


class TopicView:
    """What the cluster says of one topic, asked anew every few seconds without waiting; a `ClusterView`."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._admin = AdminClient(client_settings(connection))
        self._topic = topic
        self._patience = connection.request_timeout_seconds
        self._asked_at = 0.0
        self._answer: Future[TopicDescription] | None = None
        self._id: object | None = None
        self._partitions: frozenset[int] = frozenset()
        self._ask()
        self._take(wait_seconds=2 * self._patience)

    def topic_id(self, topic_name: str) -> object | None:
        """Identity of the topic, as it was some seconds ago."""
        return self._id

    def partitions_for_topic(self, topic: str) -> Collection[int]:
        """Numbers of its partitions, as they were some seconds ago; none where there is no such topic."""
        if self._answer is not None and self._answer.done():
            self._take(wait_seconds=0.0)
        if self._answer is None and time.monotonic() - self._asked_at >= _VIEW_SECONDS:
            self._ask()
        return self._partitions

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        asked = self._admin.describe_topics(TopicCollection([self._topic]), request_timeout=self._patience)
        self._answer = asked[self._topic]

    def _take(self, *, wait_seconds: float) -> None:
        assert self._answer is not None, "it was asked for"
        try:
            found = self._answer.result(timeout=wait_seconds)
            self._id = str(found.topic_id) if found.topic_id else None
            self._partitions = frozenset(partition.id for partition in found.partitions)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                self._partitions = frozenset()
            else:  # an old view is as good as none; whether brokers answer is told by those who read and write
                log.info("topic could not be looked at", extra={"topic": self._topic, "error": str(error)})
        self._answer = None


def _dotted(settings: dict[str, Any]) -> dict[str, Any]:
    # Callbacks are the binding's own, with names as Python has them.
    return {name if callable(value) else name.replace("_", "."): value for name, value in settings.items()}


def _reach(client: Consumer | Producer, connection: KafkaConnection) -> None:
    try:
        client.list_topics(timeout=connection.request_timeout_seconds)
    except KafkaException as error:
        told = translate_librdkafka(error, f"Connecting to {connection.bootstrap_servers}")
        if not told.retriable:
            raise told from error
        raise TransportUnavailable(
            f"No broker answered at {connection.bootstrap_servers} within {connection.request_timeout_seconds:g} s.",
            hint="Is Kafka running there, and do kafka.bootstrap_servers, kafka.security_protocol and the credentials "
            "fit? The log of librdkafka names the cause of each attempt.",
        ) from error


def _refused(error: KafkaException) -> ConfigurationError:
    return ConfigurationError(
        f"The Kafka client cannot be made with these settings: {error.args[0].str()}.",
        hint="Look at the kafka section.",
    )
