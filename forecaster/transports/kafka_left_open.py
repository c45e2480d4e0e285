"""Ends transactions that a worker which is gone has left open, so that nobody waits for the broker to time them out.

While one is open, read-committed readers of its partitions stand before it, and so does whoever asks for the group's
offsets. A restart under the same name ends it; where another worker takes the partitions over, that one has to.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from forecaster.errors import TransportError
from forecaster.transports.kafka_client import KafkaConnection, open_client, translate

log = logging.getLogger(__name__)


class LeftOpenTransactions:
    """Finds and ends transactions of our group's workers on partitions that are ours now. For several threads.

    Only one whose partition has been given to us is ended, so its owner's commit would be refused by the group anyway:
    a worker that lives and is fenced by this starts over from the last commit, as it has to.

    Args:
        connection: where and who.
        prefix: of the transactional ids of the group's workers.
        ours: the transactional id of this worker.
        topics: that these transactions write to, partition by partition.
        timeout_ms: of the transactions, for the client's request.
    """

    def __init__(
        self, connection: KafkaConnection, *, prefix: str, ours: str, topics: Iterable[str], timeout_ms: int
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._ours = ours
        self._topics = tuple(topics)
        self._timeout_ms = timeout_ms
        self._lock = threading.Lock()
        self._asked: dict[object, int] = {}
        """Partitions that threads ask for and nobody has looked at since, by asker."""
        self._admin: KafkaAdminClient | None = None

    def end(self, partition: int) -> list[str]:
        """End those on this partition, and return the transactional ids of what this call ended.

        Partitions come several at a time, and the broker is asked of all transactions at once: whoever looks does it
        for all that wait for their turn.

        Raises:
            TransportError: the broker does not say which there are, or does not let us end one.
        """
        asker = object()
        self._asked[asker] = partition
        with self._lock:
            asked = dict(self._asked)
            if asker not in asked:
                return []  # another's look began after we asked, and is over
            try:
                left = self._left_open(set(asked.values()))
                for transactional_id in left:
                    self._fence(transactional_id)
            except KafkaError as error:
                asked = {asker: partition}  # the others look for themselves
                self._close()
                raise translate(error, "Ending transactions that were left open") from error
            finally:
                for done in asked:
                    del self._asked[done]
        for transactional_id, partitions in left.items():
            log.info("transaction left open was ended", extra={"partitions": partitions, "of": transactional_id})
        return list(left)

    def keep_warm(self) -> None:
        """Open connections to all brokers, or see that they are open, so that `end` finds them so.

        Raises:
            TransportError: no broker answers.
        """
        with self._lock:
            try:
                self._ongoing()
            except KafkaError as error:
                self._close()
                raise translate(error, "Looking for transactions that were left open") from error

    def close(self) -> None:
        """Release the connection. Idempotent."""
        with self._lock:
            self._close()

    def _left_open(self, partitions: set[int]) -> dict[str, list[int]]:
        """Transactional ids, and which of the partitions each has written to."""
        admin, candidates = self._ongoing()
        if not candidates:
            return {}
        concerned = {TopicPartition(topic, partition) for topic in self._topics for partition in partitions}
        described = admin.describe_transactions(sorted(candidates))
        touched = {name: concerned & found.topic_partitions for name, found in described.items()}
        return {name: sorted({tp.partition for tp in found}) for name, found in touched.items() if found}

    def _ongoing(self) -> tuple[KafkaAdminClient, set[str]]:
        """The client, opened where it was not, and the transactions under way of the group's other workers."""
        if self._admin is None:
            self._admin, _ = open_client(KafkaAdminClient, self._connection)
        admin: KafkaAdminClient = self._admin
        listed = admin.list_transactions(state_filters=["Ongoing"])
        return admin, {
            found.transactional_id
            for on_broker in listed.values()
            for found in on_broker
            if found.transactional_id.startswith(self._prefix) and found.transactional_id != self._ours
        }

    def _fence(self, transactional_id: str) -> None:
        producer, _ = open_client(
            KafkaProducer,
            self._connection,
            transactional_id=transactional_id,
            transaction_timeout_ms=self._timeout_ms,
            # It waits this long, each time, while the broker ends the transaction; other partitions wait behind it.
            retry_backoff_ms=10,
        )
        try:
            producer.init_transactions()
        finally:
            producer.close(timeout=0)

    def _close(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None


def end_or_wait(transactions: LeftOpenTransactions, partition: int) -> None:
    """End what was left open on a partition; where that is not allowed or not possible, the broker's time-out does."""
    try:
        transactions.end(partition)
    except TransportError as error:
        log.warning(
            "transactions left open cannot be ended; waiting for their time-out",
            extra={"partition": partition, "error": str(error), "hint": error.hint},
        )
