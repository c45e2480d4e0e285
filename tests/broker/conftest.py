"""Everything here needs a real broker."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_fixtures import admin, broker, connection, group_id, make_topic

__all__ = ["admin", "broker", "connection", "group_id", "make_topic"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kafka)
            # kafka-python leaves the socket of every refused connection to the garbage collector.
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))


@pytest.fixture(autouse=True)
def _sockets_collected() -> Iterator[None]:
    """So that the sockets of this test's refused connections are not found in a later one's time.

    Captured log records hold the exceptions, those their frames, and those the sockets.
    """
    log = logging.getLogger("kafka")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)
    gc.collect()
