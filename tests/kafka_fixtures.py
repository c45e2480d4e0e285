"""Fixtures for tests on a real broker. A ``conftest.py`` takes them with ``from kafka_fixtures import broker, …``.

One broker serves all tests of a run; each test makes its own topics and groups. ``KAFKA_BOOTSTRAP=host:port`` uses a
running one instead. Tests that stop or kill a broker start their own (`kafka_broker.Broker`).
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator

import kafka_broker
import pytest
from kafka import KafkaAdminClient

from forecaster.transports.kafka_client import KafkaConnection

MakeTopic = Callable[..., str]


def require_broker() -> None:
    """Skip, with the reason and the remedy in one line, where no broker of our own can run."""
    if reason := kafka_broker.why_unavailable():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def broker() -> str:
    """``host:port`` of a running broker that the test must leave running."""
    if named := os.environ.get("KAFKA_BOOTSTRAP"):
        return named
    require_broker()
    return kafka_broker.shared_broker().bootstrap


@pytest.fixture(scope="session")
def connection(broker: str) -> KafkaConnection:
    """Of that broker, with a timeout short enough for a test that waits for it."""
    return KafkaConnection(bootstrap_servers=broker, request_timeout_seconds=10.0)


@pytest.fixture(scope="session")
def admin(broker: str) -> Iterator[KafkaAdminClient]:
    """A client to arrange topics and groups with."""
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker)) as client:
        yield client


@pytest.fixture
def make_topic(admin: KafkaAdminClient) -> MakeTopic:
    """Make a topic of a new name: ``make_topic(partitions=3, configs={"retention.ms": "1000"})``."""

    def make(name: str = "readings", *, partitions: int = 1, configs: dict[str, str] | None = None) -> str:
        topic = f"{name}-{uuid.uuid4().hex[:8]}"
        options = {"num_partitions": partitions, "replication_factor": 1, "configs": configs or {}}
        admin.create_topics({topic: options}, wait_for_metadata=True)
        return topic

    return make


@pytest.fixture
def group_id() -> str:
    """A consumer group nobody has used."""
    return f"group-{uuid.uuid4().hex[:8]}"
