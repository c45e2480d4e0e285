"""Client errors as ours, the client's settings, and what is refused before any broker is asked."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from kafka import errors as kafka_errors
from kafka.errors import KafkaError

from forecaster.errors import (
    ConfigurationError,
    Fenced,
    Rebalancing,
    TransportError,
    TransportTimeout,
    TransportUnavailable,
)
from forecaster.transports.kafka_client import KafkaConnection, translate
from forecaster.transports.kafka_source import KafkaSource

# Every class of kafka.errors with what we make of it. A new version of the client that adds one fails the test below
# until somebody has decided.
FENCED = """
    CommitFailedError FencedInstanceIdError FencedMemberEpochError IllegalGenerationError
    InvalidProducerEpochError InvalidProducerIdMappingError ProducerFencedError StaleMemberEpochError
    TransactionCoordinatorFencedError UnknownMemberIdError UnreleasedInstanceIdError
"""
TIMEOUT = """
    KafkaTimeoutError RequestTimedOutError
"""
UNAVAILABLE = """
    BrokerNotAvailableError Cancelled CoordinatorLoadInProgressError CoordinatorNotAvailableError
    KafkaConnectionError LeaderNotAvailableError MetadataEmptyBrokerList NetworkExceptionError NodeNotReadyError
    NotControllerError NotCoordinatorError NotEnoughReplicasAfterAppendError NotEnoughReplicasError
    NotLeaderForPartitionError ReplicaNotAvailableError UnknownBrokerIdError
"""
TRY_AGAIN = """
    ConcurrentTransactionsError CorrelationIdError ElectionNotNeededError EligibleLeadersNotAvailableError
    FencedLeaderEpochError FetchSessionIdNotFoundError FetchSessionTopicIdError InconsistentTopicIdError
    InvalidFetchSessionEpochError InvalidMetadataError InvalidShareSessionEpochError KafkaStorageError
    ListenerNotFoundError OffsetNotAvailableError PreferredLeaderNotAvailableError QuotaViolationError
    RetriableError ShareSessionNotFoundError StaleMetadata ThrottlingQuotaExceededError TooManyInFlightRequests
    UnknownLeaderEpochError UnstableOffsetCommitError
"""
REBALANCING = """
    RebalanceInProgressError
"""
FINAL = """
    AuthorizationError BrokerIdNotRegisteredError BrokerResponseError ClusterAuthorizationFailedError
    CorruptRecordError DelegationTokenAuthDisabledError DelegationTokenAuthorizationFailedError
    DelegationTokenExpiredError DelegationTokenNotFoundError DelegationTokenOwnerMismatchError
    DelegationTokenRequestNotAllowedError DuplicateBrokerRegistrationError DuplicateResourceError
    DuplicateSequenceNumberError DuplicateVoterError FeatureUpdateFailedError FencedStateEpochError
    GroupAuthorizationFailedError GroupIdNotFoundError GroupMaxSizeReachedError GroupSubscribedToTopicError
    IllegalArgumentError IllegalSaslStateError IllegalStateError IncompatibleBrokerVersion
    InconsistentClusterIdError InconsistentGroupProtocolError InconsistentVoterSetError IneligibleReplicaError
    InvalidCommitOffsetSizeError InvalidConfigurationError InvalidFetchRequestError InvalidGroupIdError
    InvalidPartitionsError InvalidPrincipalTypeError InvalidReceiveError InvalidRecordError
    InvalidRecordStateError InvalidRegistrationError InvalidReplicationAssignmentError
    InvalidReplicationFactorError InvalidRequestError InvalidRequiredAcksError InvalidSessionTimeoutError
    InvalidTimestampError InvalidTopicError InvalidTransactionTimeoutError InvalidTxnStateError
    InvalidUpdateVersionError InvalidVoterKeyError KafkaConfigurationError KafkaError KafkaProtocolError
    LogDirNotFoundError LogTruncationError MemberIdRequiredError MessageSizeTooLargeError
    MismatchedEndpointTypeError NewLeaderElectedError NoError NoOffsetForPartitionError
    NoReassignmentInProgressError NonEmptyGroupError OffsetMetadataTooLargeError OffsetMovedToTieredStorageError
    OffsetOutOfRangeError OperationNotAttemptedError OutOfOrderSequenceNumberError PolicyViolationError
    PositionOutOfRangeError PrincipalDeserializationFailureError ReassignmentInProgressError
    RecordListTooLargeError ResourceNotFoundError SaslAuthenticationFailedError SecurityDisabledError
    SnapshotNotFoundError StaleBrokerEpochError StaleControllerEpochError TelemetryTooLargeError
    TopicAlreadyExistsError TopicAuthorizationFailedError TopicDeletionDisabledError TransactionAbortableError
    TransactionAbortedError TransactionalIdAuthorizationFailedError TransactionalIdNotFoundError
    UnacceptableCredentialError UnknownControllerIdError UnknownError UnknownProducerIdError
    UnknownSubscriptionIdError UnknownTopicIdError UnknownTopicOrPartitionError UnrecognizedBrokerVersion
    UnsupportedAssignorError UnsupportedCodecError UnsupportedCompressionTypeError UnsupportedEndpointTypeError
    UnsupportedForMessageFormatError UnsupportedSaslMechanismError UnsupportedVersionError VoterNotFoundError
"""


DECIDED: dict[str, tuple[type[TransportError], bool]] = {
    name: decision
    for names, decision in [
        (FENCED, (Fenced, False)),
        (TIMEOUT, (TransportTimeout, True)),
        (UNAVAILABLE, (TransportUnavailable, True)),
        (REBALANCING, (Rebalancing, True)),
        (TRY_AGAIN, (TransportError, True)),
        (FINAL, (TransportError, False)),
    ]
    for name in names.split()
}


def client_errors() -> dict[str, type[KafkaError]]:
    classes = (found for _, found in inspect.getmembers(kafka_errors, inspect.isclass))
    return {found.__name__: found for found in classes if issubclass(found, KafkaError)}


def instance(name: str) -> KafkaError:
    error_class = client_errors()[name]
    return error_class({}) if name == "LogTruncationError" else error_class()


def test_every_error_of_the_client_has_been_decided_on() -> None:
    assert set(DECIDED) == set(client_errors())


@pytest.mark.parametrize("name", sorted(DECIDED))
def test_a_client_error_becomes_the_error_decided_on(name: str) -> None:
    expected, retriable = DECIDED[name]

    translated = translate(instance(name), "Committing readings")

    assert type(translated) is expected
    assert translated.retriable is retriable
    assert str(translated).startswith("Committing readings failed: ")
    assert name in str(translated)
    assert translated.hint


def test_what_the_client_may_retry_we_may_retry_but_for_topics_that_do_not_exist() -> None:
    """The client would ask for an unknown topic for ever; an operator has to make it."""
    stricter = {name for name in DECIDED if instance(name).retriable and not DECIDED[name][1]}
    looser = {name for name in DECIDED if DECIDED[name][1] and not instance(name).retriable}

    assert stricter == {"UnknownTopicIdError", "UnknownTopicOrPartitionError"}
    assert looser == {
        "BrokerNotAvailableError",
        "QuotaViolationError",
        "RebalanceInProgressError",
        "UnknownBrokerIdError",
    }


def test_a_commit_that_meets_a_rebalance_is_not_fenced() -> None:
    """The client raises the same class for both; here the member keeps its partitions and may commit later."""
    error = kafka_errors.CommitFailedError(kafka_errors.RebalanceInProgressError())

    translated = translate(error, "Committing")

    assert type(translated) is Rebalancing
    assert translated.hint == "Poll, then commit again."


def test_a_transaction_that_the_broker_did_not_answer_is_a_timeout() -> None:
    """The client wraps it in an error without a class of its own, and cannot be used any more."""
    wrapped = kafka_errors.KafkaError(
        f"Could not execute transactional request for unknown reasons: {kafka_errors.RequestTimedOutError('3 s')}"
    )

    translated = translate(wrapped, "Committing a transaction")

    assert type(translated) is TransportTimeout
    assert "kafka.request_timeout_seconds" in translated.hint


def test_retriable_errors_do_not_change_their_class() -> None:
    translate(kafka_errors.ConcurrentTransactionsError(), "Committing")

    assert TransportError("x").retriable is False


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("TopicAuthorizationFailedError", "Grant"),
        ("SaslAuthenticationFailedError", "kafka.sasl_mechanism"),
        ("UnknownTopicOrPartitionError", "forecaster topics create"),
        ("MessageSizeTooLargeError", "max.message.bytes"),
        ("UnsupportedCodecError", "kafka.compression"),
        ("InvalidSessionTimeoutError", "kafka.session_timeout_seconds"),
        ("FencedInstanceIdError", "kafka.instance_id"),
        ("LogTruncationError", "--reset-offsets"),
        ("KafkaConnectionError", "kafka.request_timeout_seconds"),
    ],
)
def test_the_hint_names_what_to_change(name: str, hint: str) -> None:
    assert hint in translate(instance(name), "Reading").hint


def test_a_connection_gives_what_all_clients_share() -> None:
    connection = KafkaConnection(
        bootstrap_servers="a:9092, b:9092",
        client_id="worker-3",
        request_timeout_seconds=2.5,
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="forecaster",
        sasl_password="secret",
        ssl_cafile="/etc/ca.pem",
        proxy_url="socks5://user:word@bastion:1080",
    )

    arguments = connection.arguments()

    assert arguments["bootstrap_servers"] == ["a:9092", "b:9092"]
    assert arguments["client_id"] == "worker-3"
    assert arguments["request_timeout_ms"] == arguments["bootstrap_timeout_ms"] == 2500
    assert arguments["security_protocol"] == "SASL_SSL"
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert arguments["sasl_plain_username"] == "forecaster"
    assert arguments["sasl_plain_password"] == "secret"
    assert arguments["ssl_cafile"] == "/etc/ca.pem"
    assert arguments["proxy_url"] == "socks5://user:word@bastion:1080"


def test_what_is_not_set_is_left_to_the_client() -> None:
    arguments = KafkaConnection(bootstrap_servers="a:9092").arguments()

    assert not {name for name in arguments if name.startswith(("sasl_", "ssl_", "proxy_"))}


def test_a_request_may_take_longer_than_an_idle_connection_lives_by_default() -> None:
    """The client refuses to start unless connections outlive requests."""
    arguments = KafkaConnection(bootstrap_servers="a:9092", request_timeout_seconds=600).arguments()

    assert arguments["connections_max_idle_ms"] > arguments["request_timeout_ms"]


def test_a_connection_does_not_show_its_passwords() -> None:
    connection = KafkaConnection(bootstrap_servers="a:9092", sasl_password="secret", proxy_url="socks5://u:secret@b:1")

    assert "secret" not in repr(connection)


@pytest.mark.parametrize("start", ["yesterday", "", "2026-13-01T00:00:00Z", "Earliest"])
def test_a_start_that_is_no_place_is_refused_before_any_broker_is_asked(start: str) -> None:
    with pytest.raises(ConfigurationError, match="expected earliest, latest, or a time") as caught:
        KafkaSource(KafkaConnection(bootstrap_servers="nowhere.invalid:9"), topic="t", group_id="g", start=start)

    assert caught.value.hint == "Set kafka.start."


def test_settings_the_client_refuses_are_a_configuration_error() -> None:
    """The client wants requests to outlast its fetches, which wait half a second."""
    connection = KafkaConnection(bootstrap_servers="127.0.0.1:9", request_timeout_seconds=0.1)

    with pytest.raises(ConfigurationError, match="request_timeout_ms"):
        KafkaSource(connection, topic="t", group_id="g")


def test_a_send_after_one_that_was_not_allowed_names_the_right_that_is_missing() -> None:
    refused = kafka_errors.TopicAuthorizationFailedError({"forecasts"})

    translated = translate(kafka_errors.KafkaError("Cannot perform send", refused), "Sending a record to dlq")

    assert "'forecasts'" in str(translated)
    assert translated.hint.startswith("Grant this user the right")


@pytest.mark.parametrize("told", [kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError])
def test_a_send_after_the_producer_was_fenced_is_fenced_too(told: type[KafkaError]) -> None:
    """The first to meet it is a request of the client's own; its alert is the one for a name that is taken."""
    translated = translate(kafka_errors.KafkaError("Cannot perform send", told("epoch")), "Sending 10 records")

    assert isinstance(translated, Fenced)


@pytest.mark.parametrize("word", ["key_deserializer", "value_deserializer", "DeserializingConsumer"])
def test_no_consumer_decodes_within_the_client(word: str) -> None:
    """After an error in a deserializer the next poll of kafka-python spins for ever and ignores its time-out."""
    package = Path(inspect.getfile(KafkaConnection)).parents[1]
    found = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in sorted(package.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if word in (getattr(node, "arg", None), getattr(node, "id", None), getattr(node, "attr", None))
        or (isinstance(node, ast.Constant) and node.value == word)
        or (isinstance(node, ast.alias) and node.name == word)
    ]

    assert found == []
