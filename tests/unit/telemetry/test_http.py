"""The endpoint on a real socket: every route, every refusal, and a clean end."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from forecaster.engine.report import LeadScores, LoopReport, StepReport
from forecaster.errors import TransportError
from forecaster.telemetry.collectors import Collectors
from forecaster.telemetry.http import Health, StreamQuery, TelemetryServer

BED = {"stream_id": "ward-3/bed-12", "value": 72.0, "error_vs_naive": float("nan")}


@dataclass
class FakeEngine:
    """Answers from fields; `busy` makes every call time out, `broken` makes every call fail."""

    known: dict[str, Mapping[str, Any]] = field(default_factory=lambda: {"ward-3/bed-12": BED})
    state: Health = field(default_factory=lambda: Health(ok=True, details={"summary": {"streams": 1}}))
    prepared: Health = field(default_factory=lambda: Health(ok=False, reason="no partitions yet"))
    busy: bool = False
    broken: bool = False
    queries: list[StreamQuery] = field(default_factory=list)
    scrapes: int = 0

    def _check(self) -> None:
        if self.busy:
            raise TimeoutError
        if self.broken:
            raise KeyError("secret detail")

    def health(self) -> Health:
        self._check()
        return self.state

    def ready(self) -> Health:
        self._check()
        return self.prepared

    def streams(self, query: StreamQuery) -> list[Mapping[str, Any]]:
        self._check()
        self.queries.append(query)
        return list(self.known.values())

    def stream(self, stream_id: str) -> Mapping[str, Any] | None:
        self._check()
        return self.known.get(stream_id)

    def before_scrape(self) -> None:
        self._check()
        self.scrapes += 1


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def collectors() -> Collectors:
    return Collectors(build={})


def start(engine: FakeEngine, collectors: Collectors, *, host: str = "127.0.0.1", port: int = 0) -> TelemetryServer:
    return TelemetryServer(
        host,
        port,
        collectors=collectors,
        health=engine.health,
        ready=engine.ready,
        streams=engine.streams,
        stream=engine.stream,
        before_scrape=engine.before_scrape,
    )


@pytest.fixture
def server(engine: FakeEngine, collectors: Collectors) -> Iterator[TelemetryServer]:
    server = start(engine, collectors)
    yield server
    server.close()


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


Ask = Callable[..., Reply]


@pytest.fixture
def ask(server: TelemetryServer) -> Iterator[Ask]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)

    def ask(target: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request(method, target, body=body, headers=named)
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())

    yield ask
    connection.close()


def say(server: TelemetryServer, request: bytes) -> bytes:
    """Bytes as they are, for requests that no client library would send."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_health_is_200_with_details_while_ok(ask):
    reply = ask("/healthz")

    assert reply.status == 200
    assert reply.json == {"ok": True, "reason": "", "details": {"summary": {"streams": 1}}}


def test_not_ready_is_503_with_its_reason(ask):
    reply = ask("/readyz")

    assert reply.status == 503
    assert reply.json["reason"] == "no partitions yet"


def test_streams_come_with_defaults_and_numbers_that_json_has(ask, engine):
    reply = ask("/streams")

    assert reply.status == 200
    assert reply.json == {
        "streams": [{"stream_id": "ward-3/bed-12", "value": 72.0, "error_vs_naive": None}],
        "count": 1,
    }
    assert engine.queries == [StreamQuery(limit=100, prefix="", sort="id")]


def test_query_reaches_the_engine_decoded(ask, engine):
    ask("/streams?limit=7&prefix=ward%2D3%2Fb%C3%A9d&sort=error")

    assert engine.queries == [StreamQuery(limit=7, prefix="ward-3/béd", sort="error")]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("sort=colour", "sort"),
        ("order=id", "order"),
        ("prefix=%FF", "query"),
        ("&".join(f"limit={n}" for n in range(1, 40)), "query"),
    ],
)
def test_query_that_cannot_be_meant_is_400_and_names_the_parameter(ask, engine, query, named):
    reply = ask(f"/streams?{query}")

    assert reply.status == 400
    assert named in reply.json["error"]
    assert engine.queries == []


@pytest.mark.parametrize("target", ["/streams/ward-3/bed-12", "/streams/ward-3%2Fbed-12", "/streams/ward%2d3%2fbed-12"])
def test_stream_is_found_by_its_id_with_slashes_raw_or_encoded(ask, target):
    reply = ask(target)

    assert reply.status == 200
    assert reply.json["value"] == 72.0


def test_id_of_any_characters_is_found(ask, engine):
    engine.known["50 % ü?#/../+"] = {"value": 1.0}

    reply = ask("/streams/50%20%25%20%C3%BC%3F%23/%2E%2E/+")

    assert reply.json == {"value": 1.0}


@pytest.mark.parametrize(
    "target", ["/streams/nobody", "/streams/", "/nothing", "/app.js/", "/index.html", "/metrics/x"]
)
def test_what_is_not_there_is_404_as_json(ask, target):
    reply = ask(target)

    assert reply.status == 404
    assert reply.json["error"]


@pytest.mark.parametrize(
    "target",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/web/../logs.py",
        "/%2e%2e/logs.py",
        "/app.js%00",
        "/style.css/..",
    ],
)
def test_no_file_but_those_of_the_page_can_be_had(ask, target):
    assert ask(target).status == 404


@pytest.mark.parametrize("target", ["/streams/%FF", "/%C3%28"])
def test_target_that_is_not_utf8_is_400(ask, target):
    assert ask(target).status == 400


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css")],
)
def test_page_and_its_parts_are_served_with_their_type(ask, path, content_type):
    reply = ask(path)

    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith(content_type)
    assert len(reply.body) > 500


def test_page_may_load_nothing_from_elsewhere(ask):
    policy = ask("/").headers["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("path", ["/", "/metrics", "/streams", "/nothing"])
def test_every_answer_forbids_guessing_its_type(ask, path):
    assert ask(path).headers["X-Content-Type-Options"] == "nosniff"


def test_metrics_refresh_gauges_first_and_show_what_was_observed(ask, engine, collectors):
    collectors.observe(LoopReport(step=StepReport(scores=LeadScores.zero(())), records=3))

    reply = ask("/metrics")

    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"\nforecaster_records_total 3.0\n" in reply.body
    assert engine.scrapes == 1


def test_metrics_come_as_openmetrics_where_asked(ask):
    reply = ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")

    assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
    assert reply.body.endswith(b"# EOF\n")


def test_long_answers_are_compressed_where_asked(ask):
    reply = ask("/metrics", Accept_Encoding="gzip")

    assert reply.headers["Content-Encoding"] == "gzip"
    assert b"forecaster_records_total" in gzip.decompress(reply.body)


@pytest.mark.parametrize("path", ["/streams", "/streams/a", "/healthz", "/readyz"])
def test_busy_engine_is_503_with_a_time_to_retry(ask, engine, path):
    engine.busy = True

    reply = ask(path)

    assert reply.status == 503
    assert reply.headers["Retry-After"] == "1"
    assert "busy" in reply.json["error"]


def test_metrics_are_answered_while_the_engine_is_busy(ask, engine):
    engine.busy = True

    reply = ask("/metrics")

    assert reply.status == 200
    assert b"forecaster_records_total" in reply.body


def test_failure_inside_is_500_logged_and_not_told_to_the_client(ask, engine, caplog):
    engine.broken = True

    reply = ask("/streams")

    assert reply.status == 500
    assert b"secret" not in reply.body
    assert "request failed" in caplog.messages


def test_endpoint_goes_on_after_a_failure(ask, engine):
    engine.broken = True
    ask("/streams")
    engine.broken = False

    assert ask("/streams").status == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/streams", "/metrics", "/nothing"])
def test_head_is_get_without_the_body(ask, path):
    head = ask(path, "HEAD")
    get = ask(path)

    assert head.body == b""
    assert head.status == get.status
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert int(head.headers["Content-Length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"])
def test_other_methods_are_405_and_named(ask, method):
    reply = ask("/streams", method)

    assert reply.status == 405
    assert reply.headers["Allow"] == "GET, HEAD"
    assert method in reply.json["error"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/x\r\n\r\n",
        b"\x16\x03\x01\x02\x00 \x01 \x00 x\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
    ],
)
def test_malformed_request_is_400_as_json(server, request_bytes):
    head, _, body = say(server, request_bytes).partition(b"\r\n\r\n")

    assert head.split(b" ", 2)[1] == b"400"
    assert json.loads(body)["error"]


def test_request_line_without_end_is_refused(server):
    head, _, body = say(server, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")

    assert head.split(b" ", 2)[1] == b"414"
    assert json.loads(body)["error"]


def test_body_of_a_request_is_not_taken_for_the_next_one(server):
    smuggled = b"GET /healthz HTTP/1.1\r\n\r\n"
    head = b"GET /readyz HTTP/1.1\r\nContent-Length: " + str(len(smuggled)).encode() + b"\r\n\r\n"

    answer = say(server, head + smuggled)

    assert answer.count(b"HTTP/1.1 ") == 1


def test_absolute_form_of_a_target_is_understood(server):
    answer = say(server, b"GET http://host/healthz HTTP/1.1\r\nConnection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")


def test_port_that_is_taken_is_an_error_with_the_knob(server, engine, collectors):
    with pytest.raises(TransportError, match=f"127.0.0.1:{server.port}") as caught:
        start(engine, collectors, port=server.port)

    assert "telemetry.port" in caught.value.hint


@pytest.mark.parametrize(("host", "port"), [("203.0.113.1", 0), ("x" * 70, 0)])
def test_address_that_cannot_be_is_an_error(engine, collectors, host, port):
    with pytest.raises(TransportError):
        start(engine, collectors, host=host, port=port)


def test_close_ends_kept_connections_and_frees_the_port(engine, collectors):
    server = start(engine, collectors)
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    kept.request("GET", "/healthz")
    kept.getresponse().read()

    server.close()
    server.close()

    assert kept.sock is not None
    assert kept.sock.recv(1) == b""
    kept.close()
    again = start(engine, collectors, port=server.port)
    again.close()


def test_url_names_an_address_a_browser_can_open(engine, collectors):
    server = start(engine, collectors, host="0.0.0.0")

    assert server.url == f"http://127.0.0.1:{server.port}/"
    server.close()


def test_connections_beyond_the_limit_are_turned_away(server):
    crowd = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(128)]

    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as late:
        assert late.recv(1) == b""

    for connection in crowd:
        connection.close()


def test_connections_that_ended_free_their_places(server):
    for _ in range(300):
        assert say(server, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
