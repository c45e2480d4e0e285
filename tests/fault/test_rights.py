"""Rights are taken away and clients slowed down while workers are at work: a clear word, time lost, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import kafka_broker
import pytest
from fault.harness import (
    IS_LONG,
    Crew,
    MakeGround,
    assert_as_if_nothing_had_happened,
    assert_exactly_once,
    finish,
)
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka.protocol.admin.client_quotas import AlterClientQuotasRequest
from kafka_fixtures import require_broker

WORKERS = 2
RATE = 100
"""Readings a second."""
PATIENCE_SECONDS = 120.0
SLOW_BYTES = 4_000.0
"""A second, for each producer: far less than the answers of a second."""
AUTHORIZED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


HINT = "Grant this user the right"


@pytest.fixture
def guarded() -> Iterator[kafka_broker.Broker]:
    """A broker that asks what somebody may do; everything, until a rule says otherwise."""
    require_broker()
    with kafka_broker.Broker(overrides=AUTHORIZED) as node:
        yield node


@contextmanager
def denied(bootstrap: str, kind: ResourceType, name: str, operation: ACLOperation) -> Iterator[None]:
    """Nobody may do this for as long as the block lasts."""
    pattern = ResourcePattern(kind, name)
    rule = ACL("User:ANONYMOUS", "*", operation, ACLPermissionType.DENY, pattern)
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        assert not admin.create_acls([rule])["failed"]
        try:
            yield
        finally:
            admin.delete_acls([ACLFilter("User:ANONYMOUS", "*", operation, ACLPermissionType.DENY, pattern)])


def said(crew: Crew) -> list[str]:
    """Lines of the workers' logs, an error's message and its hint in one."""
    logs = "".join(path.read_text(errors="replace") for path in crew.directory.glob("*.log"))
    return logs.replace("\n  ", " ").splitlines()


@contextmanager
def slowed(bootstrap: str, bytes_per_second: float) -> Iterator[None]:
    """Every producer may send this much, and is made to wait beyond it, for as long as the block lasts."""
    entry = AlterClientQuotasRequest.EntryData
    everybody = [entry.EntityData(entity_type="client-id", entity_name=None)]

    def alter(value: float | None) -> None:
        op = entry.OpData(key="producer_byte_rate", value=value or 0.0, remove=value is None)
        request = AlterClientQuotasRequest(entries=[entry(entity=everybody, ops=[op])], validate_only=False)
        answer = admin._manager.run(admin._manager.send, request)
        assert [found.error_code for found in answer.entries] == [0]

    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        alter(bytes_per_second)
        try:
            yield
        finally:
            alter(None)


def test_rights_and_rates_that_are_taken_away_are_named_and_cost_time_alone(
    guarded: kafka_broker.Broker, make_ground: MakeGround, tmp_path: Path, registry: Path
) -> None:
    ground = make_ground(guarded.bootstrap, partitions=4)
    ground.feed(300)

    with Crew(ground, workers=WORKERS, directory=tmp_path / "crew", registry=registry) as crew:
        ground.start_feeding(RATE)
        crew.wait_until(lambda: min(crew.committed()) > 0, seconds=PATIENCE_SECONDS, what="first commits")
        for kind, name, operation in (
            (ResourceType.TOPIC, crew.forecasts, ACLOperation.WRITE),
            (ResourceType.GROUP, crew.group_id, ACLOperation.READ),
            (ResourceType.TOPIC, crew.state, ACLOperation.WRITE),
        )[: None if IS_LONG else 1]:
            with denied(ground.bootstrap, kind, name, operation):
                crew.wait_until(
                    lambda name=name: any(name in line and HINT in line for line in said(crew)),
                    seconds=PATIENCE_SECONDS,
                    what=f"a worker without {operation.name} on {name} says so",
                )
            catch_up(crew, f"the right to {operation.name} {name} was back")
        if IS_LONG:
            ground.stop_feeding()
            with slowed(ground.bootstrap, SLOW_BYTES):
                ground.feed(600)
                crew.wait_until(
                    lambda: (
                        any("broker does not confirm" in crew.log(number) for number in range(WORKERS))
                        or crew.lag() == 0
                    ),
                    seconds=PATIENCE_SECONDS,
                    what="workers slowed down",
                )
            catch_up(crew, "the quota was lifted")
        finish(crew)

        assert_exactly_once(crew)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)


def catch_up(crew: Crew, since: str) -> None:
    """Return when everything that is there now is committed."""
    ends = crew.ends()
    crew.wait_until(
        lambda: all(offset >= end for offset, end in zip(crew.committed(), ends, strict=True)),
        seconds=PATIENCE_SECONDS,
        what=f"readings up to {ends} committed after {since}",
    )
