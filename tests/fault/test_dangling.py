"""Transactions that nobody ends, of producers of readings and of workers: waited for, never read, never counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import START
from fault.harness import (
    Crew,
    MakeGround,
    Reader,
    assert_as_if_nothing_had_happened,
    assert_exactly_once,
    finish,
)
from kafka import KafkaProducer

ABORTED_AFTER_MS = 5_000
RATE = 150
"""Readings a second."""
PATIENCE_SECONDS = 120.0
CLIENTS = pytest.mark.parametrize("client", ["kafka-python", "librdkafka"])
"""Of the crew under test; who is left undisturbed is on kafka-python, so that bytes are compared across the two."""


@CLIENTS
def test_readings_of_a_transaction_that_is_given_up_are_not_answered_and_those_behind_it_are(
    make_ground: MakeGround, tmp_path: Path, registry: Path, client: str
) -> None:
    ground = make_ground(partitions=2)
    ground.feed(200)
    producer = KafkaProducer(
        bootstrap_servers=ground.bootstrap, transactional_id="gone", transaction_timeout_ms=ABORTED_AFTER_MS
    )
    producer.init_transactions()

    with Crew(
        ground, workers=1, directory=tmp_path / "crew", registry=registry, settings={"KAFKA__CLIENT": client}
    ) as crew:
        crew.wait_until_done(seconds=PATIENCE_SECONDS)
        producer.begin_transaction()
        for number in range(20):
            value = b'{"stream_id": "never", "timestamp": %d, "value": 1.0}' % (START + number)
            producer.send(ground.readings, key=b"never", value=value, partition=0).get(10)
        held_back = crew.committed()[0]
        ground.feed(400)
        crew.wait_until(
            lambda: crew.committed()[0] > held_back, seconds=PATIENCE_SECONDS, what="the transaction given up"
        )
        ground.feed(100)  # the marker that ends the transaction is no reading: at the end it would look like one left
        finish(crew)

        assert_exactly_once(crew)
        assert not [key for records in crew.answers().values() for key, _, _ in records if key == b"never"]
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)
    producer.close(timeout=1)


@CLIENTS
def test_a_worker_that_dies_in_a_transaction_and_never_comes_back_holds_its_partitions_up_only_so_long(
    make_ground: MakeGround, tmp_path: Path, registry: Path, client: str
) -> None:
    """Its offsets and answers stand in a transaction that only the broker can end."""
    ground = make_ground()
    ground.feed(300)
    settings = {"KAFKA__TRANSACTION_TIMEOUT_SECONDS": str(ABORTED_AFTER_MS // 1000), "KAFKA__CLIENT": client}

    with Crew(
        ground,
        workers=2,
        directory=tmp_path / "crew",
        registry=registry,
        settings=settings,
        places=["after_offsets:20"],
    ) as crew:
        dying = crew.slots[0]
        crew.wait_until(lambda: bool(dying.place), seconds=PATIENCE_SECONDS, what="the first worker started")
        dying.is_held = True
        reader = Reader(crew)
        ground.start_feeding(RATE)
        crew.wait_until(
            lambda: crew.died_at["after_offsets"] == 1, seconds=PATIENCE_SECONDS, what="the first worker dead"
        )
        ends = crew.ends()
        crew.wait_until(
            lambda: all(offset >= end for offset, end in zip(crew.committed(), ends, strict=True)),
            seconds=PATIENCE_SECONDS,
            what="the other worker at the end of all partitions",
        )
        crew.release(0)
        finish(crew)

        assert_exactly_once(crew)
        reader.finish(crew.answers())
        assert reader.seen == crew.answers(), "a committed answer was never changed or taken back"
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)
