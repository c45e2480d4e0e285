"""A commit of the client that never comes back, played by a producer that stands still."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import FencedInstanceIdError

from forecaster.errors import ConfigurationError
from forecaster.transports import kafka_sink
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_namesakes import Namesakes
from forecaster.transports.kafka_transaction import WATCHDOG_EXIT_CODE, KafkaTransactionalSink


class Stuck:
    """A producer that ends no transaction until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self._transaction_manager = SimpleNamespace(producer_id_and_epoch=SimpleNamespace(producer_id=1, epoch=0))
        self.began = 0

    def init_transactions(self) -> None: ...

    def begin_transaction(self) -> None:
        self.began += 1

    def flush(self, timeout: float) -> None: ...

    def send_offsets_to_transaction(self, offsets: Any, metadata: Any) -> None: ...

    def commit_transaction(self) -> None:
        assert self.let_go.wait(10), "nobody ended the process"

    def close(self, timeout: float) -> None: ...


def make_sink(
    producer: Stuck, monkeypatch: pytest.MonkeyPatch, *, end_process: Any, watchdog_seconds: float
) -> KafkaTransactionalSink:
    monkeypatch.setattr(kafka_sink, "open_client", lambda *_, **__: (producer, None))
    namesakes = Namesakes(lambda: [], group_id="g", name="twin", is_static=True, session_seconds=10.0)
    source = SimpleNamespace(topic="readings", group_metadata=lambda offsets: None, refuse_namesake=namesakes.refuse)
    return KafkaTransactionalSink(
        KafkaConnection(bootstrap_servers="nowhere:1"),
        source,  # type: ignore[arg-type]
        transactional_id="worker",
        watchdog_seconds=watchdog_seconds,
        end_process=end_process,
    )


def test_a_commit_that_does_not_come_back_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that ends here is the stuck producer alone: it is let go, and the commit comes back."""
    producer = Stuck()
    sink = make_sink(producer, monkeypatch, end_process=producer.let_go.set, watchdog_seconds=0.02)

    sink.commit({0: 1}, flush_timeout_seconds=1.0)

    assert producer.let_go.is_set()
    assert producer.began == 1


def test_a_commit_that_comes_back_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    producer, ended = Stuck(), threading.Event()
    producer.let_go.set()
    sink = make_sink(producer, monkeypatch, end_process=ended.set, watchdog_seconds=30.0)

    sink.commit({0: 1}, flush_timeout_seconds=1.0)

    assert not ended.is_set()
    watchdogs = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for watchdog in watchdogs:
        watchdog.join(10)
    assert not any(watchdog.is_alive() for watchdog in watchdogs), "it was called off"


def test_the_process_ends_at_once_with_a_code_of_its_own() -> None:
    """Whatever its other threads are stuck in: no clean-up is waited for."""
    code = (
        "import threading; threading.Thread(target=threading.Event().wait).start();"
        "from forecaster.transports.kafka_transaction import KafkaTransactionalSink as sink;"
        "sink.__init__.__kwdefaults__['end_process']()"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)

    assert done.returncode == WATCHDOG_EXIT_CODE


def test_offsets_refused_as_those_of_a_namesake_end_the_process_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting over would take the name back, and the other process would take it back again."""

    class Fenced(Stuck):
        def send_offsets_to_transaction(self, offsets: Any, metadata: Any) -> None:
            raise FencedInstanceIdError

    sink = make_sink(Fenced(), monkeypatch, end_process=pytest.fail, watchdog_seconds=30.0)

    with pytest.raises(ConfigurationError, match="Another process is in group g as instance twin"):
        sink.commit({0: 1}, flush_timeout_seconds=1.0)
