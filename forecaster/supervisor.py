"""Several workers on one host: started, watched, started again, stopped together.

                start                 says its address
    (nobody) ─────────▶ starting ─────────────────────▶ up
        ▲                   │ ends                       │ ends
        └── back-off ───────┴────────────────────────────┘

Each worker is a process and a group member of its own; Kafka's group spreads the partitions over them. The supervisor
holds no connection to a broker and no state: a worker that is gone loses nothing but the time until it is back.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from forecaster.clock import Clock
from forecaster.telemetry.together import Place

log = logging.getLogger(__name__)

WRONG_SETTINGS = 2
"""Exit code of a worker that cannot run under its settings, however often it is started."""

_LOOK_SECONDS = 0.1
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 30.0
_STEADY_SECONDS = 60.0
"""A worker that was up for so long begins anew with the first back-off when it ends."""
_MOST_FAILURES = 8
"""In a row, of one worker. Whoever looks after the supervisor then has to look."""


class WorkerProcess(Protocol):
    """A running worker, as far as its supervisor deals with it."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; ``None`` while it runs."""

    def url(self) -> str:
        """Where its endpoint is; empty before it has said so. Never waits."""

    def send_signal(self, number: int) -> None:
        """Nothing happens where it has ended."""


@dataclass(slots=True)
class _Seat:
    """One worker's place."""

    number: int
    process: WorkerProcess | None = None
    lives: int = 0
    started_at: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    is_up: bool = False


class Supervisor:
    """Keeps ``count`` workers running until it is told to stop.

    `places`, `restarts` and `hang_up` may be called from any thread, `run` from one.

    Args:
        start: starts the worker of a number, from 0.
        clock: for back-off.
    """

    def __init__(self, count: int, start: Callable[[int], WorkerProcess], *, clock: Clock) -> None:
        self._seats = [_Seat(number) for number in range(count)]
        self._start = start
        self._clock = clock
        self._restarts = 0
        self._is_stopping = False
        self._lock = threading.Lock()  # around what other threads look at

    def places(self) -> Sequence[Place]:
        """The workers as they are now."""
        with self._lock:
            return [Place(seat.number, seat.lives, seat.process.url() if seat.process else "") for seat in self._seats]

    def restarts(self) -> int:
        """How often a worker was started again."""
        return self._restarts

    def hang_up(self) -> None:
        """Let every worker read its settings again."""
        self._signal_all(signal.SIGHUP)

    def run(self, stop: Event) -> int:
        """Keep the workers running until ``stop`` is set; then tell them to stop, and wait until they have.

        Returns:
            0 when told to stop; the exit code of the worker that cannot be kept running.

        Raises:
            KeyboardInterrupt: told to stop twice; the workers were told again, and have ended.
        """
        code = 0
        try:
            while not stop.is_set() and code == 0:
                code = self._look()
                stop.wait(_LOOK_SECONDS)
        finally:
            self._stop_all()
        return code

    def _look(self) -> int:
        """Start whoever is due, and take notice of who has ended; an exit code where that cannot be mended."""
        now = self._clock.monotonic()
        for seat in self._seats:
            code = 0
            if seat.process is None:
                if now >= seat.start_at:
                    code = self._seat_one(seat, now)
            elif (ended := seat.process.poll()) is not None:
                code = self._take_leave(seat, ended, now)
            elif not seat.is_up and seat.process.url():
                seat.is_up = True
                log.info("worker up", extra={"worker": seat.number, "pid": seat.process.pid})
            if code:
                return code
        return 0

    def _seat_one(self, seat: _Seat, now: float) -> int:
        """Start a worker; an exit code where that has failed too often."""
        try:
            process = self._start(seat.number)
        except OSError as error:
            log.error("worker cannot be started", extra={"worker": seat.number, "error": str(error)})
            return self._count_failure(seat, 1, now)
        with self._lock:
            seat.process, seat.lives = process, seat.lives + 1
        seat.started_at, seat.is_up = now, False
        self._restarts += seat.lives > 1
        log.info("worker started", extra={"worker": seat.number, "pid": process.pid, "life": seat.lives})
        return 0

    def _take_leave(self, seat: _Seat, ended: int, now: float) -> int:
        """A worker has ended that nobody told to; returns the exit code that ends all, or 0."""
        with self._lock:
            seat.process = None
        if seat.is_up and now - seat.started_at >= _STEADY_SECONDS:
            seat.failures = 0
        return self._count_failure(seat, ended, now)

    def _count_failure(self, seat: _Seat, ended: int, now: float) -> int:
        """When to start it again; returns the exit code that ends all, or 0."""
        seat.failures += 1
        backoff = min(_FIRST_BACKOFF_SECONDS * 2 ** (seat.failures - 1), _LONGEST_BACKOFF_SECONDS)
        seat.start_at = now + backoff
        known = {"worker": seat.number, "exit_code": ended, "failures": seat.failures}
        if ended == WRONG_SETTINGS:
            log.error("worker cannot run under its settings", extra={**known, "hint": "Its last lines say which."})
            return WRONG_SETTINGS
        if seat.failures >= _MOST_FAILURES:
            log.error("worker ends again and again", extra={**known, "hint": "Its last lines say why."})
            return max(ended, 1)
        log.warning("worker ended", extra={**known, "backoff_seconds": backoff})
        return 0

    def _stop_all(self) -> None:
        self._signal_all(signal.SIGTERM)
        try:
            self._wait_for_all()
        except KeyboardInterrupt:
            self._signal_all(signal.SIGTERM)  # the second one ends a worker's turn instead of waiting for it
            self._wait_for_all()
            raise

    def _wait_for_all(self) -> None:
        waiting = Event()  # never set: a pause that a signal may cut short
        while any(seat.process is not None and seat.process.poll() is None for seat in self._seats):
            waiting.wait(_LOOK_SECONDS)

    def _signal_all(self, number: int) -> None:
        with self._lock:
            running = [seat.process for seat in self._seats if seat.process is not None]
        for process in running:
            process.send_signal(number)


class SpawnedWorker:
    """A worker as a child process, with a line to it: the child says its address, and stops when the line is cut.

    Args:
        arguments: of ``forecaster``; the number of the line's descriptor is added behind them.
        environment: of the child, whole.

    Raises:
        OSError: the process cannot be made.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        self._said = b""
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "forecaster", *arguments, str(theirs.fileno())],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # Ctrl-C goes to the supervisor alone, which tells each worker once
            )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; ``None`` while it runs."""
        code = self._process.poll()
        if code is not None:
            self._line.close()
        return code

    def url(self) -> str:
        """Where its endpoint is; empty before it has said so. Never waits."""
        if not self._said.endswith(b"\n") and self._line.fileno() >= 0:
            try:
                self._said += self._line.recv(1024)
            except (BlockingIOError, ConnectionError):
                return ""
        return self._said.decode().strip() if self._said.endswith(b"\n") else ""

    def send_signal(self, number: int) -> None:
        """Nothing happens where it has ended."""
        self._process.send_signal(number)


class Line:
    """A worker's end of the line to its supervisor.

    Args:
        descriptor: as handed over on the command line.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)

    def say(self, url: str) -> None:
        """Where this worker's endpoint is; nobody hears where the supervisor is gone."""
        try:
            self._socket.sendall(url.encode() + b"\n")
        except OSError as error:
            log.debug("line to the supervisor broke", extra={"error": str(error)})

    def stop_when_cut(self, stop: Event) -> None:
        """Set ``stop`` when the supervisor is gone, however it went; waits on a thread of its own."""

        def wait() -> None:
            try:
                self._socket.recv(1)
            except OSError as error:
                log.debug("line to the supervisor broke", extra={"error": str(error)})
            self._socket.close()
            log.warning("the supervisor is gone; stopping")
            stop.set()

        threading.Thread(target=wait, name="supervised", daemon=True).start()
