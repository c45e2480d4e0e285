"""Callbacks run on the thread that waits for the call, and nothing that is raised gets lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from forecaster.errors import TransportError
from forecaster.transports.callbacks import CallbackBridge


@pytest.fixture
def bridge() -> Iterator[CallbackBridge]:
    made = CallbackBridge("client")
    yield made
    made.close()


def calling_back(bridge: CallbackBridge, callback: Callable[[], None], value: str = "polled") -> Callable[[], str]:
    """A client's blocking call: has ``callback`` run elsewhere and waits for it."""

    def call() -> str:
        done = threading.Event()
        bridge.call_back(callback, done.set)
        assert done.wait(10.0)
        return value

    return call


def test_a_call_runs_beside_and_its_callback_on_the_calling_thread(bridge: CallbackBridge) -> None:
    threads: list[str] = []

    def call() -> str:
        threads.append(threading.current_thread().name)
        return calling_back(bridge, lambda: threads.append(threading.current_thread().name))()

    outcome = bridge.run(call, timeout_seconds=10.0)

    assert outcome.value == "polled"
    assert outcome.callback_error is None
    assert threads == ["client", threading.current_thread().name]


def test_what_the_call_raises_is_raised_to_the_caller(bridge: CallbackBridge) -> None:
    def call() -> None:
        raise LookupError("no such topic")

    with pytest.raises(LookupError, match="no such topic"):
        bridge.run(call, timeout_seconds=10.0)

    assert bridge.run(lambda: 1, timeout_seconds=10.0).value == 1


def test_an_exception_of_a_callback_comes_with_the_value_of_the_call(bridge: CallbackBridge) -> None:
    """The call goes on to its end, and what it brought must not be lost with the callback's exception."""

    def stumble() -> None:
        raise ZeroDivisionError("in the listener")

    outcome = bridge.run(calling_back(bridge, stumble), timeout_seconds=10.0)

    assert outcome.value == "polled"
    assert isinstance(outcome.callback_error, ZeroDivisionError)


def test_of_several_exceptions_of_callbacks_the_first_is_kept(bridge: CallbackBridge) -> None:
    def raising(error: Exception) -> Callable[[], None]:
        def callback() -> None:
            raise error

        return callback

    def call() -> None:
        calling_back(bridge, raising(KeyError("first")))()
        calling_back(bridge, raising(KeyError("second")))()

    assert str(bridge.run(call, timeout_seconds=10.0).callback_error) == "'first'"


def test_when_both_raise_the_callback_is_the_cause_of_the_trouble(bridge: CallbackBridge) -> None:
    def stumble() -> None:
        raise ZeroDivisionError("in the listener")

    def call() -> None:
        calling_back(bridge, stumble)()
        raise LookupError("the poll failed too")

    with pytest.raises(ZeroDivisionError, match="in the listener") as caught:
        bridge.run(call, timeout_seconds=10.0)

    assert isinstance(caught.value.__cause__, LookupError)


def test_a_call_that_does_not_come_back_is_an_error_and_its_late_end_is_not_taken_for_another_call(
    bridge: CallbackBridge,
) -> None:
    release = threading.Event()
    with pytest.raises(TransportError, match=r"did not come back within 0\.05 s") as caught:
        bridge.run(lambda: release.wait(10.0) and "late", timeout_seconds=0.05)

    release.set()

    assert bridge.run(lambda: "next", timeout_seconds=10.0).value == "next"
    assert caught.value.hint
    assert not caught.value.retriable


def test_the_same_function_abandoned_and_run_again_gives_its_second_value(bridge: CallbackBridge) -> None:
    release = threading.Event()
    values = iter(["abandoned", "second"])

    def call() -> str:
        release.wait(10.0)
        return next(values)

    with pytest.raises(TransportError):
        bridge.run(call, timeout_seconds=0.05)
    release.set()

    assert bridge.run(call, timeout_seconds=10.0).value == "second"


def test_close_ends_the_thread_and_may_be_called_twice() -> None:
    bridge = CallbackBridge("client-to-close")
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "client-to-close")

    bridge.close()
    bridge.close()
    thread.join(10.0)

    assert not thread.is_alive()
