"""Constructor calls for what touches the outside: brokers, topics, the bytes of readings. Quick to import: no torch."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecaster.codecs.avro_codec import AvroCodec
from forecaster.engine.withholding import PublishingRules
from forecaster.errors import ConfigurationError
from forecaster.settings import Settings, future_inputs, registry_kind
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_left_open import LeftOpenTransactions
from forecaster.transports.kafka_self_test import why_not_batched
from forecaster.transports.kafka_sink import KafkaSink
from forecaster.transports.kafka_source import KafkaSource
from forecaster.transports.kafka_standby import KafkaStateTail
from forecaster.transports.kafka_state import KafkaStateStore
from forecaster.transports.kafka_transaction import KafkaTransactionalSink

if TYPE_CHECKING:
    from forecaster.ports import ModelRegistry
    from forecaster.stores.history_cache import HistoryCache
    from forecaster.training.blocks import HistoryCollector
    from forecaster.transports.librdkafka_sink import LibrdkafkaSink, LibrdkafkaTransactionalSink
    from forecaster.transports.librdkafka_source import LibrdkafkaSource

log = logging.getLogger(__name__)


def build_codec(settings: Settings) -> AvroCodec:
    """The decoder of readings, in JSON or Avro."""
    readings = settings.readings
    return AvroCodec(
        schemas=[_read_schema(Path(name)) for name in readings.avro_schemas],
        id_field=readings.id_field,
        time_field=readings.time_field,
        fields=readings.fields,
        covariates=readings.covariates,
        known_ahead=readings.known_ahead,
        horizon=settings.forecast.horizon,
        time_unit=readings.time_unit,
        minimum=readings.minimum,
        maximum=readings.maximum,
        max_id_bytes=readings.max_id_bytes,
        max_payload_bytes=readings.max_payload_bytes,
        max_future_seconds=readings.max_future_seconds,
    )


def _read_schema(path: Path) -> Any:
    """What a schema file holds."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The Avro schema {path} cannot be read: {error}.", hint="Set readings.avro_schemas to files of JSON."
        ) from error


def build_history_collector(settings: Settings, takes: Callable[[str], bool]) -> HistoryCollector:
    """What gathers a training's readings, within its budget of memory."""
    from forecaster.training.blocks import HistoryCollector

    chosen = settings.training
    return HistoryCollector(
        len(settings.readings.covariates),
        future=future_inputs(settings),
        takes=takes,
        max_bytes=chosen.history_bytes,
        max_streams=chosen.max_streams,
        max_readings_per_stream=chosen.max_readings_per_stream,
        seed=chosen.seed,
    )


def build_history_cache(settings: Settings) -> Callable[[str], HistoryCache] | None:
    """Makes the cache of history of a topic by the topic's id; ``None`` where none is asked for."""
    if not settings.training.history_cache:
        return None
    from forecaster.stores.history_cache import HistoryCache

    try:
        code_version = version("forecaster")
    except PackageNotFoundError:  # run from a checkout that is not installed
        code_version = ""
    identity = {
        "topic": settings.topics.readings,
        # What is known ahead is decoded for as many leads as are forecast.
        "future": str(future_inputs(settings)),
        "decoder": hashlib.sha256(settings.readings.model_dump_json().encode()).hexdigest(),
        "code_version": code_version,
    }
    return lambda topic_id: HistoryCache(
        Path(settings.training.history_cache),
        identity={**identity, "topic_id": topic_id},
        max_bytes=settings.training.history_cache_bytes,
    )


def build_publishing(settings: Settings) -> PublishingRules | None:
    """Which forecasts are published; ``None`` where all are."""
    chosen = settings.publish
    if chosen.when == "every_reading":
        return None
    return PublishingRules(
        when=chosen.when,
        nth=chosen.nth,
        interval_seconds=chosen.interval,
        tolerance=chosen.tolerance,
        horizon=settings.forecast.horizon,
    )


def build_connection(settings: Settings) -> KafkaConnection:
    """How to reach the brokers."""
    kafka = settings.kafka
    return KafkaConnection(
        bootstrap_servers=kafka.bootstrap_servers,
        client_id=kafka.instance_id,
        request_timeout_seconds=kafka.request_timeout_seconds,
        security_protocol=kafka.security_protocol,
        sasl_mechanism=kafka.sasl_mechanism,
        sasl_username=kafka.sasl_username,
        sasl_password=kafka.sasl_password.get_secret_value(),
        ssl_cafile=kafka.ssl_cafile,
        ssl_certfile=kafka.ssl_certfile,
        ssl_keyfile=kafka.ssl_keyfile,
        proxy_url=kafka.proxy_url.get_secret_value(),
    )


def build_source(settings: Settings) -> KafkaSource | LibrdkafkaSource:
    """The readings topic, as a member of the group."""
    kafka = settings.kafka
    arguments: dict[str, Any] = {
        "topic": settings.topics.readings,
        "group_id": kafka.group_id,
        "start": kafka.start,
        "instance_id": kafka.instance_id if kafka.static_membership else None,
        "session_timeout_seconds": kafka.session_timeout_seconds,
        "max_poll_interval_seconds": kafka.max_poll_interval_seconds,
        "hold_new": settings.delivery == "exactly_once",
    }
    log.info("client", extra={"client": kafka.client, "batched": is_batched(settings)})
    if not _is_librdkafka(settings):
        return KafkaSource(build_connection(settings), batched=is_batched(settings), **arguments)
    from forecaster.transports.librdkafka_source import LibrdkafkaSource

    return LibrdkafkaSource(build_connection(settings), **arguments)


def build_transactional_sink(
    settings: Settings, source: KafkaSource | LibrdkafkaSource
) -> KafkaTransactionalSink | LibrdkafkaTransactionalSink:
    """Forecasts, dead letters and state, in transactions with the offsets of ``source``; of the client it is of."""
    kafka = settings.kafka
    arguments: dict[str, Any] = {
        "transactional_id": _transactional_id(settings),
        "transaction_timeout_seconds": kafka.transaction_timeout_seconds,
        "watchdog_seconds": kafka.watchdog_seconds,
        **_sink_arguments(settings),
    }
    if isinstance(source, KafkaSource):
        return KafkaTransactionalSink(build_connection(settings), source, batched=is_batched(settings), **arguments)
    from forecaster.transports.librdkafka_sink import LibrdkafkaTransactionalSink

    return LibrdkafkaTransactionalSink(build_connection(settings), source, **arguments)


def build_feedback_tail(settings: Settings) -> KafkaStateTail:
    """A reader of all that people have said of streams.

    Raises:
        TransportUnavailable: no broker answered within the request timeout.
    """
    return KafkaStateTail(build_connection(settings), topic=settings.topics.feedback)


def build_state_store(settings: Settings) -> KafkaStateStore:
    """What partitions are restored from."""
    return KafkaStateStore(
        build_connection(settings),
        readings=settings.topics.readings,
        state=settings.topics.state,
        group_id=settings.kafka.group_id,
        deadline_seconds=settings.state.restore_seconds,
        left_open=LeftOpenTransactions(
            build_connection(settings),
            prefix=f"{settings.kafka.group_id}-",
            ours=_transactional_id(settings),
            topics=(
                settings.topics.forecasts,
                settings.topics.dead_letters,
                settings.topics.state,
                *((settings.topics.anomalies,) if settings.anomalies.enabled else ()),
            ),
            timeout_ms=round(settings.kafka.transaction_timeout_seconds * 1000),
        ),
    )


def _transactional_id(settings: Settings) -> str:
    return f"{settings.kafka.group_id}-{settings.kafka.instance_id}"


def build_sink(settings: Settings) -> KafkaSink | LibrdkafkaSink:
    """The topics of forecasts and dead letters."""
    if not _is_librdkafka(settings):
        return KafkaSink(build_connection(settings), batched=is_batched(settings), **_sink_arguments(settings))
    from forecaster.transports.librdkafka_sink import LibrdkafkaSink

    return LibrdkafkaSink(build_connection(settings), **_sink_arguments(settings))


def is_batched(settings: Settings) -> bool:
    """Whether kafka-python reads and writes whole batches; where it should and cannot, a warning says why, once."""
    if settings.kafka.client != "kafka-python" or not settings.kafka.batched:
        return False
    reason = why_not_batched()
    _warn_unbatched(reason)
    return not reason


@functools.cache
def _warn_unbatched(reason: str) -> None:
    if reason:
        log.warning(
            "readings and answers go record by record, several times slower",
            extra={"reason": reason, "hint": "Install the pinned kafka-python, or set kafka.batched = false."},
        )


def _sink_arguments(settings: Settings) -> dict[str, Any]:
    return {
        "max_in_flight": settings.kafka.max_in_flight,
        "delivery_timeout_seconds": settings.kafka.delivery_timeout_seconds,
        "compression": settings.kafka.compression,
    }


def _is_librdkafka(settings: Settings) -> bool:
    """Whether readings and answers go through librdkafka.

    Raises:
        ConfigurationError: they are to, and it is not installed.
    """
    if settings.kafka.client != "librdkafka":
        return False
    if find_spec("confluent_kafka") is None:
        raise ConfigurationError(
            "kafka.client = librdkafka needs the package confluent-kafka, which is not installed.",
            hint="Install the extra: pip install 'forecaster[librdkafka]'; or set kafka.client = kafka-python.",
        )
    return True


def build_registry(settings: Settings, *, on_kafka: bool) -> ModelRegistry:
    """Where models are kept. Nothing is opened before it is asked for.

    Args:
        on_kafka: a broker is at work, as it is not in the demo and in trainings on files.
    """
    # Here, not above: they load torch, which commands that only move bytes do without.
    from forecaster.stores.registry_directory import DirectoryRegistry
    from forecaster.stores.registry_topic import TopicRegistry
    from forecaster.transports.kafka_registry import KafkaModelLog

    if registry_kind(settings, on_kafka=on_kafka) == "directory":
        return DirectoryRegistry(settings.registry.directory)
    return TopicRegistry(
        KafkaModelLog(
            build_connection(settings),
            topic=settings.topics.models,
            transactional_id=f"{settings.kafka.group_id}-models",
        )
    )
