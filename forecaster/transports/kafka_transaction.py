"""Answers, state and source offsets in one Kafka transaction: a read-committed reader sees all of it, or nothing.

kafka-python's transactions have traps (its version is pinned). Each has a guard here:

=============================================================  ======================================================
the client                                                     the guard
=============================================================  ======================================================
commits although a record was given up                         every future is looked at before offsets are added
takes up a new epoch by itself and calls the commit of an      epoch and producer id must be the same from the begin
aborted transaction a success                                  to the end of a transaction
carries offsets of an aborted transaction into the next        after any error the producer is thrown away
sends an evicted member's offsets without a fence              `KafkaSource.group_metadata` checks membership
keeps partitions over an eviction it did not prepare for       `tell_of_every_loss` makes it prepare again
forgets a join that was answered between two polls, and is     `finish_every_join` makes it go on until it has joined
dropped at the end of the session
waits for ever in a commit                                     a watchdog ends the process; its supervisor restarts it
takes records without end                                      `KafkaSink` bounds what is under way
=============================================================  ======================================================
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError
from kafka.structs import OffsetAndMetadata

from forecaster.crash_points import reach
from forecaster.errors import Fenced, TransportError
from forecaster.ports import KEPT
from forecaster.records import OutRecord
from forecaster.transports.kafka_client import KafkaConnection, translate
from forecaster.transports.kafka_sink import KafkaSink
from forecaster.transports.kafka_source import KafkaSource

log = logging.getLogger(__name__)

WATCHDOG_EXIT_CODE = 70


def _end_process() -> None:
    log.critical("a transaction did not end; the process does", extra={"hint": "The supervisor restarts the worker."})
    logging.shutdown()
    os._exit(WATCHDOG_EXIT_CODE)


class KafkaTransactionalSink(KafkaSink):
    """A `Sink` whose records appear together with the offsets they answer.

    The first record after a commit begins a transaction; `commit` ends it. After any error the transaction is lost and
    so is the producer: `start_over` makes a new one under the same transactional id, which ends what the old one left.

    Args:
        connection: where and who.
        source: whose offsets are committed.
        transactional_id: stable name of this worker: a restart under it ends the transaction that a crash left behind.
        transaction_timeout_seconds: after this the broker aborts a transaction by itself.
        watchdog_seconds: longest a commit or a start may take before the process is ended.
        end_process: what the watchdog does.
        sink_arguments: of `KafkaSink`.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        source: KafkaSource,
        *,
        transactional_id: str,
        transaction_timeout_seconds: float = 10.0,
        watchdog_seconds: float = 60.0,
        end_process: Callable[[], None] = _end_process,
        **sink_arguments: Any,
    ) -> None:
        self._source = source
        self._transaction = {
            "transactional_id": transactional_id,
            "transaction_timeout_ms": round(transaction_timeout_seconds * 1000),
            # A new transaction waits this long, each time, while the broker still ends the last one.
            "retry_backoff_ms": 10,
        }
        self._watchdog_seconds = watchdog_seconds
        self._end_process = end_process
        self._epoch: object = None  # of the transaction under way; None between transactions
        super().__init__(connection, **sink_arguments)

    def send(self, record: OutRecord) -> None:
        """Hand a record over, in the transaction under way or a new one.

        Raises:
            TransportError: the transaction is lost; `start_over`.
        """
        if self._epoch is None:
            self._begin()
        super().send(record)

    def send_all(self, records: deque[OutRecord]) -> None:
        """Hand records over, as `send` does."""
        if self._epoch is None and records:
            self._begin()
        super().send_all(records)

    def _handed_over(self, future: Any, count: int) -> None:
        super()._handed_over(future, count)
        reach("mid_send")

    def commit(self, offsets: Mapping[int, int], *, flush_timeout_seconds: float) -> None:
        """End the transaction with these next offsets of the source; return when it is durable.

        Raises:
            ConfigurationError: another process has this one's name in the group.
            Fenced: this worker's place in the group, or its transactions, are another's now.
            TransportError: it is not known to be committed; `start_over`, and read what is.
        """
        if self._epoch is None:
            self._begin()
        self.flush(flush_timeout_seconds)
        reach("after_flush")
        metadata = self._source.group_metadata(offsets)
        positions = {
            TopicPartition(self._source.topic, partition): OffsetAndMetadata(offset, KEPT, -1)
            for partition, offset in offsets.items()
        }
        producer = self._current()
        with self._watched("Committing a transaction"):
            producer.send_offsets_to_transaction(positions, metadata)
            reach("after_offsets")
            producer.commit_transaction()
        if self._identity(producer) != self._epoch:
            raise Fenced(
                "The producer took up a new epoch within a transaction; whether it was committed is not known.",
                hint="The transaction took longer than the broker allows, or another worker has this instance_id.",
            )
        self._epoch = None
        reach("after_commit")

    def start_over(self) -> None:
        """Throw away the transaction under way, and the producer with all it may still remember of it.

        Raises:
            TransportError: no new producer can be had now; calling again tries again.
        """
        self._discard_producer()
        self._forget()
        self._epoch = None
        self._producer = self._open()

    def _open(self) -> KafkaProducer:
        self._arguments |= self._transaction
        producer = super()._open()
        with self._watched("Taking up the transactional id"):
            producer.init_transactions()
        return producer

    def _begin(self) -> None:
        producer = self._current()
        with self._watched("Beginning a transaction"):
            producer.begin_transaction()
        self._epoch = self._identity(producer)

    def _current(self) -> KafkaProducer:
        if self._producer is None:
            raise TransportError(
                "The producer of a lost transaction is gone.", hint="The worker starts over by itself."
            )
        return self._producer

    def _identity(self, producer: KafkaProducer) -> object:
        # Not public, but the client says nowhere else that it has changed its epoch.
        found = producer._transaction_manager.producer_id_and_epoch
        return found.producer_id, found.epoch

    @contextmanager
    def _watched(self, doing: str) -> Iterator[None]:
        """Translate errors, and end the process where the client does not come back."""
        watchdog = threading.Timer(self._watchdog_seconds, self._end_process)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        except FencedInstanceIdError:
            self._source.refuse_namesake()
        except KafkaError as error:
            raise translate(error, doing) from error
        finally:
            watchdog.cancel()
