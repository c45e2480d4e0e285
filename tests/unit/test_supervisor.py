"""The supervisor's decisions on processes of a test's own; the processes themselves: tests/broker/test_workers.py."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from threading import Event

import pytest

from forecaster.clock import ManualClock
from forecaster.supervisor import Line, SpawnedWorker, Supervisor


class FakeWorker:
    """Runs until it is told to stop or a test lets it end."""

    def __init__(self, number: int, life: int) -> None:
        self.pid = 100 * life + number
        self.code: int | None = None
        self.address = f"http://w{number}/"
        self.signals: list[int] = []

    def poll(self) -> int | None:
        return self.code

    def url(self) -> str:
        return self.address

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        if number == signal.SIGTERM and self.code is None:
            self.code = 0


class Scene:
    """A supervisor on a clock of its own: at each of its looks a test's next action happens, then it has to stop."""

    def __init__(self, count: int) -> None:
        self.clock = ManualClock()
        self.started: list[FakeWorker] = []
        self.refuse = 0
        self.supervisor = Supervisor(count, self._start, clock=self.clock)

    def _start(self, number: int) -> FakeWorker:
        if self.refuse:
            self.refuse -= 1
            raise OSError("no process left")
        worker = FakeWorker(number, 1 + sum(w.pid % 100 == number for w in self.started))
        self.started.append(worker)
        return worker

    def play(self, *actions: Callable[[], object]) -> int:
        return self.supervisor.run(Script(actions))


class Script(Event):
    """A stop event that does the next thing at every pause, and is set when there is nothing left to do."""

    def __init__(self, actions: tuple[Callable[[], object], ...]) -> None:
        super().__init__()
        self._actions = list(actions)

    def wait(self, timeout: float | None = None) -> bool:
        if self._actions:
            self._actions.pop(0)()
        else:
            self.set()
        return self.is_set()


def test_all_workers_are_started_and_told_to_stop() -> None:
    scene = Scene(3)

    code = scene.play()

    assert code == 0
    assert [worker.signals for worker in scene.started] == [[signal.SIGTERM]] * 3


def test_a_worker_that_dies_is_started_again_after_a_pause_that_grows() -> None:
    scene = Scene(2)
    pauses = []

    def die() -> None:
        scene.started[-1].code = -9

    def wait_for_the_next(known: int) -> Callable[[], None]:
        def wait() -> None:
            before = scene.clock.monotonic()
            while len(scene.started) == known:
                scene.clock.advance(0.25)
                scene.supervisor._look()
            pauses.append(scene.clock.monotonic() - before)

        return wait

    code = scene.play(die, wait_for_the_next(2), die, wait_for_the_next(3), die, wait_for_the_next(4))

    assert code == 0
    assert pauses == [1.0, 2.0, 4.0]
    assert scene.supervisor.restarts() == 3
    assert [place.life for place in scene.supervisor.places()] == [1, 4]


def test_a_worker_that_was_steady_begins_with_the_first_pause_again() -> None:
    scene = Scene(1)

    def live_and_die(seconds: float) -> Callable[[], None]:
        def act() -> None:
            scene.clock.advance(seconds)
            scene.started[-1].code = 1

        return act

    def come_back() -> None:
        scene.clock.advance(30.0)

    script = [action for _ in range(12) for action in (live_and_die(61.0), lambda: None, come_back, lambda: None)]

    assert scene.play(*script) == 0
    assert len(scene.started) == 13


@pytest.mark.parametrize(("ends_with", "code"), [(1, 1), (-9, 1), (70, 70)])
def test_a_worker_that_never_holds_out_ends_them_all(ends_with: int, code: int) -> None:
    scene = Scene(2)

    def fail() -> None:
        scene.clock.advance(31.0)
        newest = max(range(len(scene.started)), key=lambda at: (scene.started[at].pid % 100, at))
        scene.started[newest].code = ends_with

    ended = scene.play(*[action for _ in range(30) for action in (fail, lambda: scene.clock.advance(31.0))])

    assert ended == code
    assert scene.started[0].signals == [signal.SIGTERM], "the other one is told to stop"
    assert sum(worker.pid % 100 == 1 for worker in scene.started) == 8


def test_wrong_settings_end_them_all_at_once() -> None:
    scene = Scene(2)

    def refuse() -> None:
        scene.started[1].code = 2

    assert scene.play(refuse, lambda: None) == 2
    assert len(scene.started) == 2
    assert scene.started[0].signals == [signal.SIGTERM]


def test_a_machine_that_has_no_process_left_is_asked_again_later() -> None:
    scene = Scene(1)
    scene.refuse = 2

    code = scene.play(*[lambda: scene.clock.advance(2.0)] * 4)

    assert (code, len(scene.started)) == (0, 1)


def test_a_hang_up_reaches_every_worker() -> None:
    scene = Scene(2)

    scene.play(scene.supervisor.hang_up)

    assert [worker.signals for worker in scene.started] == [[signal.SIGHUP, signal.SIGTERM]] * 2


def test_told_twice_workers_are_told_twice_and_waited_for() -> None:
    """As by a second Ctrl-C while a worker commits."""
    scene = Scene(1)
    looks = []

    class Stubborn(FakeWorker):
        def poll(self) -> int | None:
            looks.append(len(self.signals))
            if self.signals == [signal.SIGTERM]:
                raise KeyboardInterrupt
            return self.code

        def send_signal(self, number: int) -> None:
            self.signals.append(number)
            self.code = -15 if len(self.signals) == 2 else None

    worker = Stubborn(0, 1)
    scene.supervisor._start = lambda number: worker

    with pytest.raises(KeyboardInterrupt):
        scene.play()

    assert worker.signals == [signal.SIGTERM, signal.SIGTERM]
    assert worker.code == -15


def test_a_place_has_no_address_while_nobody_runs_there() -> None:
    scene = Scene(2)
    seen = []

    def die() -> None:
        scene.started[1].code = 1

    scene.play(die, lambda: seen.extend(scene.supervisor.places()))

    assert [place.url for place in seen] == ["http://w0/", ""]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "in time"
        time.sleep(0.01)


def test_a_child_says_its_address_and_its_end_is_seen() -> None:
    """A child that is no worker and ends with a complaint: what is looked at is the process and its line."""
    child = SpawnedWorker(["run", "--workers", "0"], dict(os.environ))

    wait_for(lambda: child.poll() is not None)

    assert child.poll() == 2, "argparse refuses its arguments"
    assert child.url() == ""
    child.send_signal(signal.SIGTERM)  # nothing happens


def test_over_the_line_a_worker_tells_its_address_and_learns_that_its_supervisor_is_gone() -> None:
    ours, theirs = socket.socketpair()
    line, stop = Line(theirs.detach()), Event()

    line.say("http://127.0.0.1:8123/")
    line.stop_when_cut(stop)
    said = ours.recv(100)
    is_running = not stop.is_set()
    ours.close()

    assert said == b"http://127.0.0.1:8123/\n"
    assert is_running
    assert stop.wait(60)
    line.say("to nobody")
