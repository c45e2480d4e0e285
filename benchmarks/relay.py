"""The least that a program of this kind can do: decode each reading, encode an answer of the usual size, send it on.

usage: python benchmarks/relay.py --bootstrap HOST:PORT --readings TOPIC --answers TOPIC --group GROUP --partitions N

`bench_e2e.py` runs it beside the daemon, with the daemon's own settings of the client. It runs until it is ended.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from forecaster.codecs.forecast_json import Forecast, SourcePosition, encode_forecast
from forecaster.codecs.timestamps import format_time

_LEVELS = (0.1, 0.5, 0.9)
_EXPERTS = {"persistence": 0.1234, "seasonal_naive": 0.2345, "damped_level": 0.0421, "linear": 0.2, "recurrent": 0.4}
_QUANTILES = [[20.0 + lead / 7, 21.0 + lead / 7, 22.0 + lead / 7] for lead in range(12)]
_ANSWER_QUANTILES = [[round(value, 3) for value in lead] for lead in _QUANTILES]
_MODEL = "gru-20260101T000000-0a1b2c"
_POLL_SECONDS = 0.05


class Reading(msgspec.Struct):
    """What comes in."""

    stream_id: str
    timestamp: float
    value: float


class Client(Protocol):
    """A consumer and a producer of one library."""

    def poll(self, max_records: int) -> list[tuple[int, int, bytes]]:
        """Partition, offset and value of what came."""

    def send(self, partition: int, key: bytes, value: bytes) -> None:
        """Hand an answer over."""

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Wait for all answers, then store the offsets."""


class KafkaPython:
    """The stock calls of kafka-python."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._readings, self._answers = args.readings, args.answers
        self._consumer = KafkaConsumer(
            bootstrap_servers=args.bootstrap,
            group_id=args.group,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        self._consumer.assign([TopicPartition(args.readings, number) for number in range(args.partitions)])
        self._consumer.seek_to_beginning()
        transaction = {"transactional_id": args.group, "retry_backoff_ms": 10} if args.transactions else {}
        self._producer = KafkaProducer(
            bootstrap_servers=args.bootstrap,
            acks="all",
            linger_ms=20,
            batch_size=262_144,
            compression_type="lz4",
            enable_idempotence=True,
            **transaction,
        )
        self._transactions = args.transactions
        if self._transactions:
            self._producer.init_transactions()
            self._producer.begin_transaction()

    def poll(self, max_records: int) -> list[tuple[int, int, bytes]]:
        polled = self._consumer.poll(timeout_ms=round(_POLL_SECONDS * 1000), max_records=max_records)
        return [(tp.partition, record.offset, record.value) for tp, records in polled.items() for record in records]

    def send(self, partition: int, key: bytes, value: bytes) -> None:
        self._producer.send(self._answers, key=key, value=value, partition=partition)

    def commit(self, offsets: Mapping[int, int]) -> None:
        self._producer.flush()
        positions = {
            TopicPartition(self._readings, p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()
        }
        if self._transactions:
            self._producer.send_offsets_to_transaction(positions, self._consumer.group_metadata())
            self._producer.commit_transaction()
            self._producer.begin_transaction()
        else:
            self._consumer.commit(positions)


class Librdkafka:
    """The stock calls of confluent-kafka."""

    def __init__(self, args: argparse.Namespace) -> None:
        import confluent_kafka  # the extra `librdkafka`

        self._topic_partition = confluent_kafka.TopicPartition
        self._readings, self._answers = args.readings, args.answers
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": args.bootstrap,
                "group.id": args.group,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.queue.backoff.ms": 5,
            }
        )
        self._consumer.assign(
            [self._topic_partition(args.readings, n, confluent_kafka.OFFSET_BEGINNING) for n in range(args.partitions)]
        )
        settings: dict[str, Any] = {
            "bootstrap.servers": args.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.size": 262_144,
            "compression.type": "lz4",
        }
        if args.transactions:
            settings |= {"transactional.id": args.group, "retry.backoff.ms": 10}
        self._producer = confluent_kafka.Producer(settings)
        self._transactions = args.transactions
        if self._transactions:
            self._producer.init_transactions()
            self._producer.begin_transaction()

    def poll(self, max_records: int) -> list[tuple[int, int, bytes]]:
        first = self._consumer.poll(_POLL_SECONDS)
        if first is None:
            return []
        more = self._consumer.consume(max_records - 1, 0)
        return [(m.partition(), m.offset(), m.value()) for m in [first, *more] if m.error() is None]

    def send(self, partition: int, key: bytes, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(self._answers, value, key, partition)
                return
            except BufferError:
                self._producer.poll(0.01)

    def commit(self, offsets: Mapping[int, int]) -> None:
        self._producer.flush()
        positions = [self._topic_partition(self._readings, p, offset) for p, offset in offsets.items()]
        if self._transactions:
            self._producer.send_offsets_to_transaction(positions, self._consumer.consumer_group_metadata())
            self._producer.commit_transaction()
            self._producer.begin_transaction()
        else:
            self._consumer.commit(offsets=positions, asynchronous=False)


def relay(client: Client, *, readings: str, commit_seconds: float, max_poll_records: int) -> None:
    """Answer every reading, for ever."""
    decode = msgspec.json.Decoder(Reading).decode
    offsets: dict[int, int] = {}
    committed_at = time.monotonic()
    sequence = 0
    while True:
        for partition, offset, value in client.poll(max_poll_records):
            reading = decode(value)
            sequence += 1
            answer = Forecast(
                stream_id=reading.stream_id,
                origin=format_time(reading.timestamp),
                value=reading.value,
                step_seconds=1.0,
                quantile_levels=_LEVELS,
                quantiles=_ANSWER_QUANTILES,
                status="ok",
                model=_MODEL,
                experts=_EXPERTS,
                source=SourcePosition(readings, partition, offset),
                seq=sequence,
            )
            client.send(partition, reading.stream_id.encode(), encode_forecast(answer))
            offsets[partition] = offset + 1
        if offsets and time.monotonic() - committed_at >= commit_seconds:
            client.commit(offsets)
            offsets = {}
            committed_at = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--readings", required=True)
    parser.add_argument("--answers", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--client", choices=("kafka-python", "librdkafka"), default="kafka-python")
    parser.add_argument("--transactions", action="store_true")
    parser.add_argument("--commit-ms", type=int, default=200)
    args = parser.parse_args()
    client: Client = KafkaPython(args) if args.client == "kafka-python" else Librdkafka(args)
    relay(client, readings=args.readings, commit_seconds=args.commit_ms / 1000, max_poll_records=5_000)


if __name__ == "__main__":
    main()
