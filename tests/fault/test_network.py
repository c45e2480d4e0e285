"""The network between workers and brokers fails at the worst requests: time is lost, and nothing else."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from signal import SIGKILL

import pytest
from fault.harness import (
    IS_LONG,
    Crew,
    MakeGround,
    Reader,
    assert_as_if_nothing_had_happened,
    assert_exactly_once,
    finish,
)
from fault.socks_proxy import Api, Fault, Mode, SocksProxy

from forecaster.transports.kafka_transaction import WATCHDOG_EXIT_CODE

WORKERS = 2
RATE = 150
"""Readings a second."""
STRIKE_SECONDS = 120.0
"""Patience for a request to come: a restart and a restore may be on the way."""
UP_SECONDS = 120.0
PROGRESS_SECONDS = 120.0
"""From the end of a fault to commits of everything that was there then: a watchdog, a restart, a session, a restore."""

WATCHDOG_PATIENCE = 60.0
"""A commit that came back would do so within the fault's seconds."""

IMPATIENT = {
    "KAFKA__REQUEST_TIMEOUT_SECONDS": "3",
    "KAFKA__DELIVERY_TIMEOUT_SECONDS": "6",
    "KAFKA__TRANSACTION_TIMEOUT_SECONDS": "6",
    "KAFKA__WATCHDOG_SECONDS": "15",
}
"""Shorter than their defaults, so that each way out of a fault is taken in the time of a test."""

WORST = (
    Fault(Mode.EAT_REPLIES, Api.END_TXN, nth=3, seconds=4.0),
    Fault(Mode.CUT_AFTER, Api.TXN_OFFSET_COMMIT, nth=2, seconds=0.5),
    Fault(Mode.FREEZE, Api.PRODUCE, nth=3, seconds=5.0),
    Fault(Mode.REFUSE, Api.ADD_OFFSETS_TO_TXN, nth=2, seconds=2.0),
)
"""The outcome is not known; a retry of what was done; a zombie with a transaction open; a coordinator that is gone."""

AIMS = (
    Api.PRODUCE,
    Api.ADD_PARTITIONS_TO_TXN,
    Api.ADD_OFFSETS_TO_TXN,
    Api.TXN_OFFSET_COMMIT,
    Api.END_TXN,
    Api.INIT_PRODUCER_ID,
    Api.HEARTBEAT,
    Api.FETCH,
    Api.OFFSET_FETCH,
    Api.JOIN_GROUP,
)
AT_START = (Api.INIT_PRODUCER_ID, Api.OFFSET_FETCH, Api.JOIN_GROUP)
"""Requests that come when a worker starts or partitions move, and not by themselves."""


def all_faults(rng: random.Random) -> list[Fault]:
    """Every mode at every request, for times short and long, in random order."""
    faults = [
        Fault(mode, api, nth=1 if api in AT_START else rng.randint(1, 10), seconds=rng.choice((0.5, 4.0, 9.0)))
        for mode in Mode
        for api in AIMS
    ]
    rng.shuffle(faults)
    return faults


@pytest.fixture
def proxy() -> Iterator[SocksProxy]:
    with SocksProxy() as made:
        yield made


def test_a_failing_network_costs_time_and_nothing_else(
    make_ground: MakeGround, tmp_path: Path, registry: Path, proxy: SocksProxy
) -> None:
    rng = random.Random(11)
    ground = make_ground()
    ground.feed(500)
    settings = {**IMPATIENT, "KAFKA__PROXY_URL": proxy.url}

    with Crew(ground, workers=WORKERS, directory=tmp_path / "crew", registry=registry, settings=settings) as crew:
        reader = Reader(crew)
        ground.start_feeding(RATE)
        crew.wait_until(lambda: all(map(crew.is_up, range(WORKERS))), seconds=UP_SECONDS, what="all up")
        for fault in all_faults(rng) if IS_LONG else WORST:
            strike(crew, proxy, fault, rng)
        finish(crew)

        assert_exactly_once(crew)
        reader.finish(crew.answers())
        assert reader.seen == crew.answers(), "a committed answer was never changed or taken back"
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)


@pytest.mark.parametrize(
    "fault",
    [Fault(Mode.FREEZE, Api.END_TXN, nth=3, seconds=15.0), Fault(Mode.EAT_REPLIES, Api.END_TXN, nth=3, seconds=3.0)],
    ids=str,
)
def test_a_commit_that_does_not_come_back_ends_the_process_and_the_next_one_goes_on(
    make_ground: MakeGround, tmp_path: Path, registry: Path, proxy: SocksProxy, fault: Fault
) -> None:
    """The client waits as long as nobody answers; and where the answer was lost on the way, though all is well again.

    In the second case the transaction was committed, and only the broker knows.
    """
    ground = make_ground(partitions=2)
    ground.feed(300)
    settings = {
        "KAFKA__PROXY_URL": proxy.url,
        "KAFKA__WATCHDOG_SECONDS": "5",
        "KAFKA__REQUEST_TIMEOUT_SECONDS": "60",
        "KAFKA__DELIVERY_TIMEOUT_SECONDS": "120",
    }

    with Crew(ground, workers=1, directory=tmp_path / "crew", registry=registry, settings=settings) as crew:
        ground.start_feeding(RATE)
        crew.wait_until(lambda: min(crew.committed()) > 0, seconds=2 * UP_SECONDS, what="first commits")
        proxy.arm(fault)
        proxy.wait_until_struck(seconds=STRIKE_SECONDS)
        crew.wait_until(lambda: bool(crew.endings), seconds=WATCHDOG_PATIENCE, what="the watchdog ended the process")
        finish(crew)

        assert crew.endings == {f"{WATCHDOG_EXIT_CODE}": 1, "0": 1}
        assert_exactly_once(crew)
        assert_as_if_nothing_had_happened(crew, tmp_path, registry)


def strike(crew: Crew, proxy: SocksProxy, fault: Fault, rng: random.Random) -> None:
    """Let the fault happen and pass, and see that the crew gets over it."""
    proxy.arm(fault)
    if fault.api in AT_START:
        crew.signal(rng.randrange(WORKERS), SIGKILL)
    proxy.wait_until_struck(seconds=STRIKE_SECONDS)
    proxy.wait_until_healed()
    began = time.monotonic()
    ends = crew.ends()
    crew.wait_until(
        lambda: behind(crew.committed(), ends) == 0,
        seconds=PROGRESS_SECONDS,
        what=f"readings up to {ends} committed after {fault}",
    )
    print(f"{fault}, {fault.seconds:g} s: {time.monotonic() - began:.1f} s, endings {dict(crew.endings)}")


def behind(committed: Sequence[int], ends: Sequence[int]) -> int:
    """Readings below the ends that are not committed."""
    return sum(max(0, end - offset) for offset, end in zip(committed, ends, strict=True))
