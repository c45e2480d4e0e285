"""Several real endpoints asked as one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from forecaster.telemetry.collectors import Collectors
from forecaster.telemetry.http import Health, StreamQuery, TelemetryServer
from forecaster.telemetry.together import Place, Together

SUMMARY = {
    "uptime_seconds": 5.0,
    "readings": 10,
    "dead_letters": 1,
    "readings_per_second": 2.5,
    "model": "gru-1",
    "training": "off",
    "url": "",
}


def stream(stream_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "stream_id": stream_id,
        "time": "2026-01-01T00:00:05Z",
        "error_vs_naive": 1.0,
        "coverage": 0.8,
        **changes,
    }


class FakeWorker:
    """What a worker would say."""

    def __init__(self, *streams: Mapping[str, Any], is_busy: bool = False) -> None:
        self.known = {found["stream_id"]: found for found in streams}
        self.is_busy = is_busy
        self.is_ready = Health(ok=True)
        self.is_well = Health(ok=True, details={"summary": SUMMARY, "events": [{"time": "2026-01-01", "text": "a"}]})
        self.asked: list[StreamQuery] = []

    def streams(self, query: StreamQuery) -> Sequence[Mapping[str, Any]]:
        if self.is_busy:
            raise TimeoutError
        self.asked.append(query)
        return list(self.known.values())[: query.limit]

    def stream(self, stream_id: str) -> Mapping[str, Any] | None:
        if self.is_busy:
            raise TimeoutError
        return self.known.get(stream_id)


@contextlib.contextmanager
def serving(*workers: FakeWorker, absent: int = 0) -> Iterator[Together]:
    """The workers at addresses of their own, and some places behind them at which nobody runs."""
    servers = [
        TelemetryServer(
            "127.0.0.1",
            0,
            collectors=Collectors(build={}),
            health=lambda worker=worker: worker.is_well,
            ready=lambda worker=worker: worker.is_ready,
            streams=worker.streams,
            stream=worker.stream,
            before_scrape=lambda: None,
        )
        for worker in workers
    ]
    places = [Place(number, 1, server.url) for number, server in enumerate(servers)]
    places += [Place(len(servers) + number, 1, "") for number in range(absent)]
    try:
        yield Together(lambda: places, restarts=lambda: 3)
    finally:
        for server in servers:
            server.close()


def test_ready_is_who_has_all_workers_ready() -> None:
    workers = FakeWorker(), FakeWorker()
    with serving(*workers) as together:
        before = together.ready()
        workers[1].is_ready = Health(ok=False, reason="no partition is assigned yet")
        after = together.ready()

    assert before.ok
    assert (after.ok, after.reason) == (False, "worker 1: no partition is assigned yet")


def test_a_worker_that_is_started_again_makes_unready_and_not_unwell() -> None:
    with serving(FakeWorker(), absent=1) as together:
        ready, health = together.ready(), together.health()

    assert (ready.ok, ready.reason) == (False, "worker 1 is starting")
    assert health.ok


def test_a_worker_that_does_not_answer_is_unwell() -> None:
    with serving(FakeWorker()) as together:
        pass

    assert together.health().reason == "worker 0 does not answer"


def test_the_header_of_the_live_page_adds_up() -> None:
    with serving(FakeWorker(), FakeWorker()) as together:
        details = together.health().details

    assert details["summary"] == {
        "workers": 2,
        "uptime_seconds": 5.0,
        "readings": 20,
        "dead_letters": 2,
        "readings_per_second": 5.0,
        "model": "gru-1",
        "training": "off",
    }
    assert len(details["events"]) == 2


@pytest.mark.parametrize(
    ("sort", "order"),
    [("id", "abcd"), ("newest", "cbad"), ("error", "dcab"), ("coverage", "badc")],
)
def test_streams_of_all_workers_come_in_the_order_asked_for(sort: Any, order: str) -> None:
    first = FakeWorker(
        stream("a", time="2026-01-01T00:00:05Z", error_vs_naive=0.5, coverage=0.7),
        stream("c", time="2026-01-01T00:00:06Z", error_vs_naive=0.9, coverage=None),
    )
    second = FakeWorker(
        stream("b", time="2026-01-01T00:00:05.500000Z", error_vs_naive=None, coverage=0.6),
        stream("d", time="2026-01-01T00:00:04Z", error_vs_naive=1.5, coverage=0.9),
    )

    with serving(first, second) as together:
        found = together.streams(StreamQuery(limit=4, prefix="x/&", sort=sort))

    assert "".join(one["stream_id"] for one in found) == order
    assert first.asked == second.asked == [StreamQuery(limit=4, prefix="x/&", sort=sort)]


def test_a_stream_is_told_by_who_knows_the_newest_of_it_even_where_another_is_busy() -> None:
    old, new = stream("a/ b", time="2026-01-01T00:00:01Z"), stream("a/ b", time="2026-01-01T00:00:01.500000Z")
    with serving(FakeWorker(old), FakeWorker(new), FakeWorker(is_busy=True)) as together:
        assert together.stream("a/ b") == new
        with pytest.raises(TimeoutError):
            together.stream("elsewhere")
        with pytest.raises(TimeoutError):
            together.streams(StreamQuery())


def test_a_stream_nobody_knows_is_unknown() -> None:
    with serving(FakeWorker(), FakeWorker()) as together:
        assert together.stream("a") is None


def test_metrics_tell_of_the_workers_themselves() -> None:
    with serving(FakeWorker(), FakeWorker(), absent=1) as together:
        text = together.exposition("")[0].decode()

    assert "\nforecaster_workers 2.0\n" in text
    assert "\nforecaster_worker_restarts_total 3.0\n" in text
    assert text.count("forecaster_owned_partitions{") == 2
