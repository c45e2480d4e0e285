"""Where a task hears what people say of its streams: a topic that is followed beside the loop, or a recording.

    followed from the beginning ─▶ held in memory ─▶ taken by tasks at their boundaries
       │ the topic cannot be read: begun again after a pause; tasks go on without

Every worker follows the whole topic, whatever its partitions and keys: it is written by people, a few records a day. A
task says itself up to where it has heard, so that what was read twice is told once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing

from forecaster.codecs.feedback_json import decode_feedback
from forecaster.errors import ForecasterError, TransportTimeout
from forecaster.ports import FeedbackRecord, StateTail
from forecaster.records import Feedback, RawRecord

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_MOST_HELD = 100_000
_CLOSE_SECONDS = 5.0


class RecordedFeedback:
    """Feedback that was given before the readings are played: each label is heard once they have reached its time."""

    def __init__(self, feedback: Iterable[Feedback]) -> None:
        labels = [said for said in feedback if said.label is not None]
        self._records = [
            (said.label[1], FeedbackRecord(0, number, said))
            for number, said in enumerate(sorted(labels, key=lambda said: said.label[1] if said.label else 0.0))
            if said.label is not None
        ]

    def take(self, begin: Mapping[int, int], watermark: float) -> list[FeedbackRecord]:
        """Labels of times up to ``watermark``, in the order of their times."""
        return [record for time, record in self._records[begin.get(0, 0) :] if time <= watermark]

    def close(self) -> None:
        """Nothing to release."""


class FollowedFeedback:
    """A topic, followed on a thread of its own from the first `take` on.

    Args:
        open_tail: a new reader of the topic; called on the thread, again after each failure.
        retry_seconds: pause after a failure.
    """

    def __init__(self, open_tail: Callable[[], StateTail], *, retry_seconds: float = 5.0) -> None:
        self._open_tail = open_tail
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._records: dict[int, deque[FeedbackRecord]] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, begin: Mapping[int, int], watermark: float) -> list[FeedbackRecord]:
        """What has come, from these offsets of the topic's partitions on; never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
            self._thread.start()
        with self._lock:
            return [
                record
                for partition, records in sorted(self._records.items())
                for record in records
                if record.offset >= begin.get(partition, 0)
            ]

    def turn(self, tail: StateTail) -> None:
        """Take in what has come; on the thread.

        Raises:
            ForecasterError: the topic cannot be followed.
        """
        there = tail.partitions()
        with self._lock:
            anew = there - set(self._records)
            self._records |= {partition: deque(maxlen=_MOST_HELD) for partition in anew}
        tail.follow(there, anew=anew)
        for record in read_records(tail.poll(_POLL_SECONDS)):
            with self._lock:
                self._records[record.partition].append(record)

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)  # a daemon: where no broker answers, the process does not wait for it

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with self._lock:
                    self._records.clear()
                with closing(self._open_tail()) as tail:
                    while not self._over.is_set():
                        self.turn(tail)
            except Exception as error:  # noqa: BLE001 - the top of a thread without which the worker goes on as well
                hint = error.hint if isinstance(error, ForecasterError) else "This is a mistake of the program."
                log.warning("feedback cannot be read; trying again", extra={"error": str(error), "hint": hint})
                self._over.wait(self._retry_seconds)


def read_all(
    tail: StateTail, *, give_up_seconds: float, monotonic: Callable[[], float] = time.monotonic
) -> list[Feedback]:
    """All there is in a topic now, for a training.

    Raises:
        TransportTimeout: its end was not reached in time.
        TransportError: it cannot be read.
    """
    there, found = tail.partitions(), list[Feedback]()
    deadline = monotonic() + give_up_seconds
    tail.follow(there, anew=there)
    while True:
        found += [record.feedback for record in read_records(tail.poll(_POLL_SECONDS))]
        if tail.current() >= there:
            return found
        if monotonic() > deadline:
            raise TransportTimeout(
                f"The topic of feedback was not read to its end within {give_up_seconds:g} s.",
                hint="Is the broker slow? A training without the periods to leave out would learn from them.",
            )


def read_records(raws: Sequence[RawRecord]) -> list[FeedbackRecord]:
    """What records say; those that are no feedback are told of in the log, and passed over."""
    found = []
    for raw in raws:
        try:
            found.append(FeedbackRecord(raw.partition, raw.offset, decode_feedback(raw.value or b"")))
        except ValueError as error:
            place = {"partition": raw.partition, "offset": raw.offset}
            log.warning("record is no feedback", extra={**place, "error": str(error), "hint": "See docs/formats.md."})
    return found
