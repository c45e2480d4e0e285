"""Sending readings to Kafka from the command line: connection, progress, and an orderly stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from forecaster.clock import Clock, SystemClock
from forecaster.transports.feed import FeedReport, feed

if TYPE_CHECKING:
    from forecaster.ports import Sink
    from forecaster.records import OutRecord


def feed_with_progress(
    records: Iterable[tuple[float, OutRecord]],
    sink: Sink,
    *,
    topic: str,
    total: int | None,
    speed: float | None,
    stop: threading.Event,
    console: Console,
    clock: Clock | None = None,
) -> FeedReport:
    """Feeds ``records`` into ``sink`` behind a progress bar and says at the end what was sent.

    Args:
        records: event time and record.
        sink: where they go.
        topic: its name, for people.
        total: about how many there are; ``None`` where nobody knows.
        speed: event seconds in one second; ``None`` sends flat out.
        stop: ends the feed early once it is set.
        console: where progress and summary are written.
        clock: paces; the system's where it is ``None``.

    Raises:
        TransportError: a record was not delivered.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"to {topic}", total=total)
        report = feed(
            records,
            sink,
            clock=clock or SystemClock(),
            speed=speed,
            sleep=stop.wait,
            should_stop=stop.is_set,
            on_progress=lambda acknowledged: progress.update(task, completed=acknowledged),
        )
    console.print(
        f"{report.sent:,} readings to {topic} in {report.seconds:.1f} s ({report.records_per_second:,.0f}/s), "
        "all acknowledged."
    )
    return report


@contextmanager
def stop_on_terminate() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that what was sent is still acknowledged before the process ends."""
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


class _Rate(ProgressColumn):
    """Records a second, lately."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f}/s")
