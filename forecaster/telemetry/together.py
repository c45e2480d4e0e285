"""The HTTP endpoints of several workers as one: metrics, health, readiness and streams."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import msgspec
from prometheus_client import Metric

from forecaster.codecs.timestamps import parse_time
from forecaster.telemetry.collectors import MetricSpec
from forecaster.telemetry.http import Health, Sort, StreamQuery
from forecaster.telemetry.merging import ACCEPT, MergedMetrics

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 3.0
"""Longer than a busy worker takes to say that it is busy."""
_MOST_EVENTS = 100


SUPERVISOR_METRICS = (
    MetricSpec("forecaster_workers", "gauge", "Workers of this supervisor that are up."),
    MetricSpec("forecaster_worker_restarts_total", "counter", "Workers that this supervisor has started again."),
)


class Place(NamedTuple):
    """One worker's place, as its supervisor sees it."""

    number: int
    life: int
    """How many processes have taken it up, this one included."""
    url: str
    """Of its endpoint; empty while no process runs there that has said so."""


class _Reply(NamedTuple):
    status: int
    body: bytes


class Together:
    """Asks all workers, side by side, and puts their answers together. Any thread may call.

    Args:
        places: the workers as they are now.
        restarts: how often one has been started again.
    """

    def __init__(self, places: Callable[[], Sequence[Place]], *, restarts: Callable[[], int]) -> None:
        self._places = places
        self._restarts = restarts
        self._metrics = MergedMetrics()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Metrics of all workers, and of the supervisor; those of a worker that does not answer are as they were."""
        places = self._places()
        for place in places:
            if not place.url:
                self._metrics.gone(place.number)
        for place, reply in self._ask(places, "metrics", accept=ACCEPT):
            if reply is not None and reply.status == HTTPStatus.OK:
                try:
                    self._metrics.take(place.number, place.life, reply.body.decode())
                except ValueError as error:
                    log.warning("metrics of a worker cannot be read", extra={"worker": place.number, "error": error})
        return self._metrics.exposition(accept, self._own(places))

    def ready(self) -> Health:
        """Every worker answers readings now."""
        return self._health("readyz", starting="is starting")

    def health(self) -> Health:
        """No worker has come to a halt. One that is being started again is its supervisor's business."""
        return self._health("healthz", starting="")

    def streams(self, query: StreamQuery) -> Sequence[Mapping[str, Any]]:
        """Summaries of all workers' streams, ordered as one worker would.

        Raises:
            TimeoutError: a worker does not answer in time.
        """
        target = "streams?" + urlencode({"limit": query.limit, "prefix": query.prefix, "sort": query.sort})
        found: list[dict[str, Any]] = []
        for _, reply in self._ask(self._places(), target):
            if reply is None or reply.status != HTTPStatus.OK:
                raise TimeoutError
            found += msgspec.json.decode(reply.body)["streams"]
        return sorted(found, key=_ORDERS[query.sort])[: query.limit]

    def stream(self, stream_id: str) -> Mapping[str, Any] | None:
        """Everything about one stream, from the worker that has seen the newest of it.

        Raises:
            TimeoutError: a worker does not answer in time, and no other knows the stream.
        """
        replies = [reply for _, reply in self._ask(self._places(), "streams/" + quote(stream_id, safe=""))]
        known = [msgspec.json.decode(reply.body) for reply in replies if reply and reply.status == HTTPStatus.OK]
        if not known and any(reply is None or reply.status != HTTPStatus.NOT_FOUND for reply in replies):
            raise TimeoutError
        return max(known, key=lambda found: parse_time(found["time"]), default=None)

    def _health(self, route: str, *, starting: str) -> Health:
        places = self._places()
        reasons, details = [], []
        for place, reply in self._ask(places, route):
            if reply is None:
                reasons.append(f"worker {place.number} does not answer")
                continue
            told = msgspec.json.decode(reply.body)
            if not told["ok"]:
                reasons.append(f"worker {place.number}: {told['reason']}")
            details.append(told["details"])
        if starting:
            reasons += [f"worker {place.number} {starting}" for place in places if not place.url]
        summary = _summary([told["summary"] for told in details if "summary" in told])
        events = sorted((event for told in details for event in told.get("events", ())), key=lambda e: str(e["time"]))
        return Health(
            ok=not reasons,
            reason="; ".join(reasons),
            details={"summary": {"workers": len(places), **summary}, "events": events[-_MOST_EVENTS:]},
        )

    def _ask(
        self, places: Sequence[Place], target: str, *, accept: str = "application/json"
    ) -> list[tuple[Place, _Reply | None]]:
        """What each worker that runs replies; ``None`` where it does not."""
        asked = [place for place in places if place.url]
        if not asked:
            return []
        with ThreadPoolExecutor(len(asked)) as pool:
            replies = pool.map(lambda place: _get(place.url + target, accept), asked)
            return list(zip(asked, replies, strict=True))

    def _own(self, places: Sequence[Place]) -> list[Metric]:
        found = {
            "forecaster_workers": float(sum(bool(place.url) for place in places)),
            "forecaster_worker_restarts_total": float(self._restarts()),
        }
        families = []
        for spec in SUPERVISOR_METRICS:
            family = Metric(spec.name.removesuffix("_total"), spec.help, spec.kind)
            family.add_sample(spec.name, {}, found[spec.name])
            families.append(family)
        return families


def _get(url: str, accept: str) -> _Reply | None:
    try:
        with urlopen(Request(url, headers={"Accept": accept}), timeout=_TIMEOUT_SECONDS) as reply:
            return _Reply(reply.status, reply.read())
    except HTTPError as error:
        with error:
            return _Reply(error.code, error.read())
    except (URLError, HTTPException, OSError) as error:
        log.debug("worker does not answer", extra={"url": url, "error": str(error)})
        return None


def _summary(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The workers' numbers for the live page's header: sums, and what all say once."""
    if not told:
        return {}
    sums = {
        name: round(sum(one[name] for one in told), 1) for name in ("readings", "dead_letters", "readings_per_second")
    }
    said = {name: ", ".join(sorted({str(one[name]) for one in told})) for name in ("model", "training")}
    return {"uptime_seconds": max(one["uptime_seconds"] for one in told), **sums, **said}


_ORDERS: dict[Sort, Callable[[Mapping[str, Any]], Any]] = {
    "id": lambda found: found["stream_id"],
    "newest": lambda found: -parse_time(found["time"]),
    "error": lambda found: math.inf if found["error_vs_naive"] is None else -found["error_vs_naive"],
    "coverage": lambda found: math.inf if found["coverage"] is None else found["coverage"],
}
