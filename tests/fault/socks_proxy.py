"""A SOCKS5 proxy between workers and brokers that reads the requests it forwards, and fails at the one it is told.

It runs on threads of the test's process. The worker's own client speaks to it through ``kafka.proxy_url``; the broker
is real and notices nothing. Two protocols are understood, each as far as needed::

    SOCKS5 (RFC 1928)   05 n methods…  ◀ 05 00     05 01 00 type address port  ◀ 05 00 00 01 0.0.0.0:0
    Kafka, a request    int32 size │ int16 api key │ int16 version │ int32 correlation id │ int16 n │ client id …
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum

LOOK_SECONDS = 0.05
ANSWER_SECONDS = 2.0
"""Longest wait for the broker's answer to a request after which a connection is to be cut."""


class Api(IntEnum):
    """Requests a fault can be aimed at, by their key."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    SYNC_GROUP = 14
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


class Mode(StrEnum):
    """What happens at the request, and to its client until the fault is over."""

    FREEZE = "freeze"
    """Nothing of this client passes, either way; its connections stay open. The request goes out when it is over."""
    CUT_BEFORE = "cut before"
    """The connection ends and the broker never sees the request; so with every such request until it is over."""
    CUT_AFTER = "cut after"
    """The connection ends when the broker has answered, and the answer is lost: the outcome is not known."""
    EAT_REPLIES = "eat replies"
    """The request goes out, the connection stays open, and no answer ever comes back on it."""
    REFUSE = "refuse"
    """All connections of all clients end, and new ones are refused."""


@dataclass(frozen=True)
class Fault:
    """A failure of the network at the n-th request of a kind, counted over all clients from when it was armed."""

    mode: Mode
    api: Api
    nth: int = 1
    seconds: float = 5.0
    """From the request until all is well again."""

    def __str__(self) -> str:
        return f"{self.mode.value} at {self.api.name.lower()}"


class SocksProxy:
    """Forwards connections, and commits one fault at a time."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._fault: Fault | None = None
        self._left = 0
        """Requests until the fault begins."""
        self._over_at: float | None = None
        """When it ends; None before it has begun."""
        self._victim: bytes | None = None
        self._pipes: set[_Pipe] = set()
        self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._accept, name="socks-accept", daemon=True).start()

    @property
    def url(self) -> str:
        """For ``kafka.proxy_url``."""
        return f"socks5h://127.0.0.1:{self._listener.getsockname()[1]}"

    def arm(self, fault: Fault) -> None:
        """Fail in this way when the request comes. An earlier fault has to be over."""
        with self._lock:
            assert self._fault is None or self._is_over(), f"{self._fault} is not over"
            self._fault, self._left, self._over_at, self._victim = fault, fault.nth, None, None

    def wait_until_struck(self, *, seconds: float) -> None:
        """Return when the request has come.

        Raises:
            AssertionError: it has not, in time.
        """
        with self._lock:
            struck = self._lock.wait_for(lambda: self._over_at is not None, timeout=seconds)
            assert struck, f"{self._fault}: no such request within {seconds:g} s"

    def wait_until_healed(self) -> None:
        """Return when the fault that has begun is over."""
        with self._lock:
            assert self._over_at is not None, "the fault has not begun"
            while not self._is_over():
                self._lock.wait(LOOK_SECONDS)

    def close(self) -> None:
        """End everything. Idempotent."""
        with self._lock:
            self._is_closed, self._fault = True, None
            pipes = list(self._pipes)
            self._lock.notify_all()
        self._listener.close()
        for pipe in pipes:
            pipe.end()

    def __enter__(self) -> SocksProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_over(self) -> bool:
        return self._over_at is not None and time.monotonic() >= self._over_at

    def _active(self) -> Fault | None:
        return self._fault if self._over_at is not None and not self._is_over() else None

    def _meets(self, api: int, client: bytes) -> Mode | None:
        """A request is about to be forwarded; what is to happen at it."""
        with self._lock:
            if self._fault is None or self._is_over():
                return None
            if self._over_at is None and api == self._fault.api:
                self._left -= 1
                if self._left == 0:
                    self._victim, self._over_at = client, time.monotonic() + self._fault.seconds
                    self._lock.notify_all()
            if self._over_at is None or client != self._victim:
                return None
            return self._fault.mode if api == self._fault.api else None

    def _wait_while_frozen(self, pipe: _Pipe) -> None:
        with self._lock:
            while (fault := self._active()) and fault.mode is Mode.FREEZE and pipe.client == self._victim:
                self._lock.wait(LOOK_SECONDS)

    def _is_refusing(self) -> bool:
        with self._lock:
            fault = self._active()
            return fault is not None and fault.mode is Mode.REFUSE

    def _end_all(self) -> None:
        with self._lock:
            pipes = list(self._pipes)
        for pipe in pipes:
            pipe.end()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # of a closed listener
            while True:
                client, _ = self._listener.accept()
                if self._is_refusing():
                    client.close()
                    continue
                threading.Thread(target=self._serve, args=(client,), name="socks-serve", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, EOFError):
            broker = socket.create_connection(_negotiate(client), timeout=10.0)
            with broker:
                broker.settimeout(None)
                for end in (client, broker):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.sendall(b"\x05\x00\x00\x01" + bytes(6))
                pipe = _Pipe(self, client, broker)
                with self._lock:
                    if self._is_closed:
                        return
                    self._pipes.add(pipe)
                try:
                    pipe.run()
                finally:
                    with self._lock:
                        self._pipes.discard(pipe)


class _Pipe:
    """One connection of a client and the one to the broker that belongs to it."""

    def __init__(self, proxy: SocksProxy, client: socket.socket, broker: socket.socket) -> None:
        self.client = b""
        """Who it is, as the last request said."""
        self._proxy = proxy
        self._near, self._far = client, broker
        self._is_mute = False
        self._answered = threading.Event()
        """Since the pipe was made mute."""

    def run(self) -> None:
        """Forward until either side ends."""
        back = threading.Thread(target=self._answers, name="socks-answers", daemon=True)
        back.start()
        try:
            for api, client, request in _requests(self._near):
                self.client = client
                mode = self._proxy._meets(api, self.client)
                self._proxy._wait_while_frozen(self)
                if mode is Mode.REFUSE:
                    self._proxy._end_all()
                if mode in (Mode.REFUSE, Mode.CUT_BEFORE):
                    return
                if mode in (Mode.CUT_AFTER, Mode.EAT_REPLIES):
                    self._is_mute = True
                self._far.sendall(request)
                if mode is Mode.CUT_AFTER:
                    self._answered.wait(ANSWER_SECONDS)
                    return
        finally:
            self.end()
            back.join()

    def end(self) -> None:
        """Close both sides, whoever is waiting for them. Idempotent."""
        for side in (self._near, self._far):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _answers(self) -> None:
        with contextlib.suppress(OSError):
            while part := self._far.recv(65_536):
                self._proxy._wait_while_frozen(self)
                if self._is_mute:
                    self._answered.set()
                else:
                    self._near.sendall(part)
        self.end()


def _requests(client: socket.socket) -> Iterator[tuple[int, bytes, bytes]]:
    """Api key, client id and all bytes of each request, until the connection ends.

    Raises:
        EOFError: the connection ended.
    """
    while True:
        size = _read(client, 4)
        body = _read(client, struct.unpack(">i", size)[0])
        api, _, _, length = struct.unpack_from(">hhih", body)
        yield api, body[10 : 10 + max(length, 0)], size + body


def _negotiate(client: socket.socket) -> tuple[str, int]:
    """Where the client wants to go."""
    _, methods = _read(client, 2)
    _read(client, methods)
    client.sendall(b"\x05\x00")
    kind = _read(client, 4)[3]
    host = socket.inet_ntoa(_read(client, 4)) if kind == 1 else _read(client, _read(client, 1)[0]).decode()
    return host, struct.unpack(">H", _read(client, 2))[0]


def _read(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
