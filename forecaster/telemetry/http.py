"""The daemon's HTTP endpoint: metrics, health, streams as JSON, and the live page."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, Literal, Protocol, cast, get_args
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from prometheus_client.exposition import gzip_accepted

from forecaster.errors import TransportError

log = logging.getLogger(__name__)

Sort = Literal["id", "newest", "error", "coverage"]

MOST_STREAMS = 1_000
_MOST_CONNECTIONS = 128
_IDLE_SECONDS = 30.0
_RETRY_AFTER_SECONDS = 1
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Health:
    """An answer to ``/healthz`` or ``/readyz``: 200 where ``ok``, else 503 with the reason.

    The live page shows ``details["summary"]``, a mapping of label to text or number, in its header, and
    ``details["events"]``, a list of ``{"time": RFC 3339, "text": str}``, newest last, as what happened.
    """

    ok: bool
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamQuery:
    """Which streams ``/streams`` asks for: at most ``limit`` of those whose id begins with ``prefix``, in order.

    ``sort``: ``id`` ascending; ``newest`` last answered first; ``error`` worst against naive first; ``coverage``
    lowest first. Streams without that number come last.
    """

    limit: int = 100
    prefix: str = ""
    sort: Sort = "id"


class Exposing(Protocol):
    """What ``/metrics`` shows."""

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text in the format the ``Accept`` header asks for, and its content type."""


class TelemetryServer:
    """Serves from threads of its own, from construction until `close`. Answers GET and HEAD only.

    Routes: ``/`` the live page, ``/metrics``, ``/healthz``, ``/readyz``, ``/streams?limit=&prefix=&sort=``,
    ``/streams/<id>`` with the id percent-encoded; slashes may stay as they are.

    The callables are called on request threads, several at once. One that raises ``TimeoutError`` (the engine is busy)
    makes the answer 503 with ``Retry-After``; only ``/metrics`` then answers all the same, with gauges a little old,
    because a busy engine is what one wants to see.

    Args:
        host: address to listen at; ``0.0.0.0`` or ``::`` for all.
        port: its port; 0 takes a free one, see ``port`` of the built server.
        collectors: what ``/metrics`` shows.
        health: whether the process works. Asked by the orchestrator, which restarts it if not.
        ready: whether it answers readings now.
        streams: summaries for a query.
        stream: everything about one stream, or ``None`` where it is unknown.
        before_scrape: refreshes gauges.

    Raises:
        TransportError: the address cannot be listened at.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        collectors: Exposing,
        health: Callable[[], Health],
        ready: Callable[[], Health],
        streams: Callable[[StreamQuery], Sequence[Mapping[str, Any]]],
        stream: Callable[[str], Mapping[str, Any] | None],
        before_scrape: Callable[[], None],
    ) -> None:
        self._routes = _Routes(collectors, health, ready, streams, stream, before_scrape)
        try:
            self._server = _Server(host, port, self._routes)
        except (OSError, OverflowError, UnicodeError) as error:
            raise TransportError(
                f"Telemetry cannot listen at {host}:{port}: {error}.",
                hint="Stop what holds the port, or set telemetry.host and telemetry.port (0 takes a free port).",
            ) from error
        self.host = host
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="telemetry-http", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the live page."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}/"

    def close(self) -> None:
        """Stop listening and end connections that are open; answers under way may be cut. Idempotent."""
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"),)


class _BadRequest(Exception):
    """The request cannot be understood; the message says why."""


@dataclass(frozen=True, slots=True)
class _Routes:
    """From a request target to an answer; knows nothing of sockets."""

    collectors: Exposing
    health: Callable[[], Health]
    ready: Callable[[], Health]
    streams: Callable[[StreamQuery], Sequence[Mapping[str, Any]]]
    stream: Callable[[str], Mapping[str, Any] | None]
    before_scrape: Callable[[], None]

    def answer(self, target: str, accept: str) -> _Answer:
        """The answer to GET ``target``; never raises."""
        try:
            return self._answer(target, accept)
        except _BadRequest as error:
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        except TimeoutError:
            busy = _error(HTTPStatus.SERVICE_UNAVAILABLE, "the engine is busy; ask again")
            retry = ("Retry-After", str(_RETRY_AFTER_SECONDS))
            return _Answer(busy.status, busy.body, headers=(*busy.headers, retry))
        except Exception:  # top of the request's thread: one bad answer must not hide the others
            log.exception("request failed", extra={"target": target[:200]})
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "the answer could not be made; the log has the reason")

    def _answer(self, target: str, accept: str) -> _Answer:
        try:
            url = urlsplit(target)
            path = unquote(url.path, errors="strict")
        except ValueError as error:
            raise _BadRequest(f"the request target cannot be read: {error}") from error
        if path.startswith("/streams/"):
            return self._stream(path.removeprefix("/streams/"))
        if path == "/streams":
            found = list(self.streams(_query(url.query)))
            return _json(HTTPStatus.OK, {"streams": found, "count": len(found)})
        if path == "/metrics":
            return self._metrics(accept)
        if path == "/healthz":
            return _health(self.health())
        if path == "/readyz":
            return _health(self.ready())
        if path in _PAGE:
            name, content_type = _PAGE[path]
            return _Answer(HTTPStatus.OK, _page_file(name), content_type, (("Cache-Control", "no-cache"),))
        return _error(HTTPStatus.NOT_FOUND, f"nothing is at {path[:200]}; try / or /metrics or /streams")

    def _stream(self, stream_id: str) -> _Answer:
        found = self.stream(stream_id) if stream_id else None
        if found is None:
            return _error(HTTPStatus.NOT_FOUND, f"stream {stream_id[:200]!r} is not known here")
        return _json(HTTPStatus.OK, found)

    def _metrics(self, accept: str) -> _Answer:
        try:
            self.before_scrape()
        except TimeoutError:
            log.debug("gauges not refreshed before a scrape; the engine is busy")
        body, content_type = self.collectors.exposition(accept)
        return _Answer(HTTPStatus.OK, body, content_type)


def _query(text: str) -> StreamQuery:
    try:
        given = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=16)
    except ValueError as error:
        raise _BadRequest(f"the query cannot be read: {error}") from error
    unknown = set(given) - {"limit", "prefix", "sort"}
    if unknown:
        raise _BadRequest(f"unknown parameter {sorted(unknown)[0]!r}; expected limit, prefix or sort")
    limit = given.get("limit", ["100"])[-1]
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 9 and 1 <= int(limit) <= MOST_STREAMS):
        raise _BadRequest(f"limit is {limit[:50]!r}, expected a whole number from 1 to {MOST_STREAMS}")
    sort = given.get("sort", ["id"])[-1]
    if sort not in get_args(Sort):
        raise _BadRequest(f"sort is {sort[:50]!r}, expected one of {', '.join(get_args(Sort))}")
    return StreamQuery(limit=int(limit), prefix=given.get("prefix", [""])[-1], sort=cast(Sort, sort))


def _health(health: Health) -> _Answer:
    body = {"ok": health.ok, "reason": health.reason, "details": health.details}
    return _json(HTTPStatus.OK if health.ok else HTTPStatus.SERVICE_UNAVAILABLE, body)


def _json(status: HTTPStatus, value: object) -> _Answer:
    return _Answer(status, msgspec.json.encode(value))  # numbers that are not finite become null


def _error(status: HTTPStatus, message: str) -> _Answer:
    text = message.encode("utf-8", "replace").decode()
    return _json(status, {"error": text})


@cache
def _page_file(name: str) -> bytes:
    return resources.files("forecaster.telemetry").joinpath("web", name).read_bytes()


class _Server(ThreadingHTTPServer):
    """Remembers its connections, so that closing ends those a browser keeps alive."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, routes: _Routes) -> None:
        self.routes = routes
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, address = found[0][0], found[0][4]
        super().__init__((str(address[0]), int(address[1])), _Handler)

    def server_bind(self) -> None:
        """Bind without the base class's reverse look-up of the host name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._lock:
            if len(self._open) >= _MOST_CONNECTIONS:
                return False
            self._open.add(request)
            return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError as error:
                    log.debug("connection had ended", extra={"error": str(error)})

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("connection broke", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # where the request line cannot be read; answers to 0.9 have no status
    timeout = _IDLE_SECONDS
    server: _Server

    def do_GET(self) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body is not read, so what follows cannot be told apart
        self._send(self.server.routes.answer(self.path, self.headers.get("Accept", "")))

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class calls where it refuses a request: unreadable, too long, or of another method."""
        self.close_connection = True
        if code == HTTPStatus.NOT_IMPLEMENTED:
            refused = _error(
                HTTPStatus.METHOD_NOT_ALLOWED, f"{self.command[:20]} is not answered; only GET and HEAD are"
            )
            self._send(_Answer(refused.status, refused.body, headers=(*refused.headers, ("Allow", "GET, HEAD"))))
        else:
            self._send(_error(HTTPStatus(code), message or HTTPStatus(code).phrase))

    def version_string(self) -> str:
        return "forecaster"

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("request served", extra={"request": (format % args)[:300], "client": self.client_address[0]})

    def _send(self, answer: _Answer) -> None:
        body = answer.body
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        for name, value in (*answer.headers, *_HEADERS.items()):
            self.send_header(name, value)
        headers = getattr(self, "headers", None)  # absent where the request line itself was refused
        if headers is not None and len(body) > 1_000 and gzip_accepted(headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, compresslevel=1)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Vary", "Accept-Encoding")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
