"""Everything here needs a real broker, and processes that are killed."""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from fault.harness import IS_LONG, PARTITIONS, STREAMS, Ground, MakeGround, make_registry, reported
from kafka_fixtures import broker

__all__ = ["broker"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kafka)
            item.add_marker(pytest.mark.slow)
            # kafka-python leaves the socket of every refused connection to the garbage collector.
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A line for docs/reliability.md of each test that passes, where somebody wants it."""
    report = yield
    path = os.environ.get("FAULT_REPORT")
    if path and report.when == "call" and report.passed:
        line = {
            "test": item.name,
            "file": item.path.name,
            "is_long": IS_LONG,
            "commit": _commit(),
            "date": time.strftime("%Y-%m-%d"),
            "seconds": round(report.duration, 1),
            **reported.pop(item.nodeid, {}),
        }
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return report


@functools.cache
def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "../../forecaster"], check=False).returncode
    return head.stdout.strip() + ("+" if changed else "")


@pytest.fixture(autouse=True)
def _sockets_collected() -> Iterator[None]:
    """In this test's time, and not in a later one's; captured log records would keep them alive."""
    log = logging.getLogger("kafka")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)
    gc.collect()


@pytest.fixture
def make_ground(broker: str) -> Iterator[MakeGround]:
    grounds: list[Ground] = []

    def make(bootstrap: str = broker, **overrides: int) -> Ground:
        grounds.append(Ground(bootstrap, **{"partitions": PARTITIONS, "streams": STREAMS, "seed": 1, **overrides}))
        return grounds[-1]

    yield make
    for ground in grounds:
        ground.close()


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    make_registry(tmp_path / "models")
    return tmp_path / "models"
