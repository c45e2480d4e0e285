"""Lets a client library call back on the thread that waits for it, when the library would do so on a thread of its own.

kafka-python runs rebalance callbacks on its I/O thread, where every blocking call of the same client, a commit above
all, raises. Here the blocking call goes to a thread beside the caller, and the caller, while it waits, runs what comes
back::

    caller              thread beside         the client's I/O thread
    run(poll) ────────▶ poll() ─────────────▶ rebalance: call_back(revoked, …)
    revoked() ◀──────────────────────────────── (awaits, heartbeats go on)
    commit()  ───────────────────────────────▶ answered
    …done     ────────────────────────────────▶ goes on
    records   ◀──────── records ◀─────────────
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from forecaster.errors import TransportError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How a call ended: its value, and the first exception of a callback that ran meanwhile."""

    value: T
    callback_error: BaseException | None


@dataclass(frozen=True, slots=True)
class _Callback:
    call: Callable[[], None]
    when_done: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Ended:
    call: Callable[[], object]
    value: object
    error: BaseException | None


class CallbackBridge:
    """Runs blocking calls on one thread of its own, one after the other, and their callbacks on the caller's.

    Args:
        name: of the thread, for people reading a stack dump.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[_Callback | _Ended] = queue.SimpleQueue()
        # A daemon: a call that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def run(self, call: Callable[[], T], *, timeout_seconds: float) -> Outcome[T]:
        """Run ``call`` beside, and what it calls back here, until it ends.

        Not to be called from inside a callback.

        Raises:
            TransportError: neither an end nor a callback within ``timeout_seconds``; the call may still be running.
            Exception: what ``call`` raised, when no callback raised before it; a callback's exception otherwise.
        """

        def entry() -> T:  # a name of its own for every run, so that the end of an abandoned one is not taken for it
            return call()

        callback_error: BaseException | None = None
        self._calls.put(entry)
        while True:
            try:
                event = self._events.get(timeout=timeout_seconds)
            except queue.Empty:
                raise TransportError(
                    f"The client did not come back within {timeout_seconds:g} s from a call that should end sooner.",
                    hint="Restart the process; if it happens again, look at the broker's log and the network.",
                ) from None
            if isinstance(event, _Callback):
                try:
                    event.call()
                except BaseException as error:  # noqa: BLE001 - carried to the caller's own frame, never dropped
                    callback_error = callback_error or error
                finally:
                    event.when_done()
            elif event.call is entry:
                if event.error is not None:
                    raise (callback_error or event.error) from (event.error if callback_error else None)
                return Outcome(event.value, callback_error)  # type: ignore[arg-type]  # the value is entry's

    def call_back(self, call: Callable[[], None], when_done: Callable[[], None]) -> None:
        """Have ``call`` run on the thread in `run`, then ``when_done``, whatever became of ``call``. Never blocks."""
        self._events.put(_Callback(call, when_done))

    def close(self) -> None:
        """End the thread when its present call ends. Idempotent; does not wait."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                self._events.put(_Ended(call, call(), None))
            except BaseException as error:  # noqa: BLE001 - the top of this thread; raised on the caller's
                self._events.put(_Ended(call, None, error))
