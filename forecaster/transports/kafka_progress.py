"""How far a readings topic has come: how much it holds, and up to which event time; looked at beside every group."""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Event, Thread
from typing import NamedTuple

from forecaster.errors import ForecasterError, TransportError
from forecaster.records import Observation
from forecaster.transports.kafka_admin import newest_records
from forecaster.transports.kafka_audit import TopicAuditor
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_history import Decoder
from forecaster.transports.kafka_trainers import KafkaTrainers, Share

_NEWEST_PER_PARTITION = 20  # of a transactional producer some of them are markers, and some readings are refused


class Progress(NamedTuple):
    """What was seen at one look."""

    readings: int = 0
    """Records the topic holds."""
    watermark: float = -math.inf
    """Latest event time among the newest of them, in seconds; minus infinity before the first."""
    share: Share | None = None
    """Of the groups of streams, where trainers share them; ``None`` where this one trains all."""


class KafkaProgress:
    """Looks at a readings topic. One thread.

    Args:
        decoder: of its records.
        trainers: with whom groups of streams are shared; closed with this. ``None`` for a training of one's own.
    """

    def __init__(
        self, connection: KafkaConnection, *, topic: str, decoder: Decoder, trainers: KafkaTrainers | None = None
    ) -> None:
        self._connection = connection
        self._trainers = trainers
        self._topic = topic
        self._decoder = decoder
        self._auditor: TopicAuditor | None = None
        self._ends: dict[int, int] = {}
        self._watermark = -math.inf

    def look(self) -> Progress:
        """How it stands now. Records are read only where some have come since the last look.

        Raises:
            TransportError: the topic does not exist, or nobody answers.
        """
        try:
            if self._auditor is None:
                self._auditor = TopicAuditor(self._connection)
            extents = self._auditor.extents(self._topic)
            ends = {partition: extent.end for partition, extent in extents.items()}
            if ends != self._ends:
                count = _NEWEST_PER_PARTITION * len(ends)
                for raw in newest_records(self._connection, self._topic, count):
                    for item in self._decoder.decode(raw):
                        if isinstance(item, Observation):
                            self._watermark = max(self._watermark, item.time)
                self._ends = ends
            share = self._trainers.share() if self._trainers is not None else None
        except TransportError:
            self._release()
            raise
        return Progress(sum(extent.end - extent.first for extent in extents.values()), self._watermark, share)

    def close(self) -> None:
        """Release the connections, and leave the group of trainers. Idempotent."""
        self._release()
        if self._trainers is not None:
            self._trainers.close()

    def _release(self) -> None:
        if self._auditor is not None:
            self._auditor.close()
        self._auditor = None


class ProgressWatch:
    """Looks now and then on a thread of its own, so that whoever asks never waits for a broker.

    Args:
        look: tells how far the readings have come; may block.
        release: called on the thread when it ends.
        every_seconds: between two looks.
    """

    def __init__(self, look: Callable[[], Progress], *, release: Callable[[], None], every_seconds: float) -> None:
        self.latest: Progress | None = None
        """What the last look that succeeded saw; ``None`` before it."""
        self.trouble: ForecasterError | None = None
        """Why the last look failed; ``None`` where it did not."""
        self._look = look
        self._release = release
        self._every = every_seconds
        self._over = Event()
        self._thread = Thread(target=self._run, name="readings-progress", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self, timeout_seconds: float = 2.0) -> None:
        """End; a look that waits for a broker is left behind. Idempotent."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            while True:
                try:
                    self.latest, self.trouble = self._look(), None
                except ForecasterError as error:
                    self.trouble = error
                if self._over.wait(self._every):
                    return
        finally:
            self._release()
