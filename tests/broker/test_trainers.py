"""Trainers divide groups of streams among them as a consumer group divides partitions."""

from __future__ import annotations

import time
from collections.abc import Callable

from kafka_fixtures import MakeTopic

from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_trainers import KafkaTrainers, Share

GROUPS = [f"group-{number}" for number in range(40)]
SEEN_SECONDS = 60.0


def wait_for(look: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SEEN_SECONDS
    while not look():
        assert time.monotonic() < deadline, what


def owned(share: Share) -> set[str]:
    return {group for group in GROUPS if share.owns(group)}


def test_each_group_is_of_one_trainer_and_goes_to_another_when_it_leaves(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = make_topic("readings", partitions=4)

    def member() -> KafkaTrainers:
        return KafkaTrainers(connection, topic=topic, group_id=f"{topic}-trainer", session_timeout_seconds=6.0)

    first, second = member(), member()
    try:
        wait_for(lambda: owned(first.share()) == set(GROUPS), "alone it has all")

        def is_divided() -> bool:
            shares = first.share(), second.share()
            return all(share.held for share in shares) and not shares[0].held & shares[1].held

        wait_for(is_divided, "two divide them")
        shares = owned(first.share()), owned(second.share())
        assert shares[0] | shares[1] == set(GROUPS)
        assert not shares[0] & shares[1]

        first.close()
        wait_for(lambda: owned(second.share()) == set(GROUPS), "who is left has all")
    finally:
        first.close()
        second.close()
