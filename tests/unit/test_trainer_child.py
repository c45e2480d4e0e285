"""Trainings in a real child process: what it reports, and what is left when it dies."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from factories import START

from forecaster.errors import TrainingFailed
from forecaster.settings import load_settings, to_environment
from forecaster.stores.registry_directory import DirectoryRegistry
from forecaster.trainer_child import TrainerChild, TrainingResult
from forecaster.training.history import History, Series

PATIENCE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the child's files go, so that a test sees what is left of them."""
    for name in list(os.environ):
        if name.startswith("FORECASTER_"):
            monkeypatch.delenv(name)
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def children() -> Iterator[list[TrainerChild]]:
    made: list[TrainerChild] = []
    yield made
    for child in made:
        child.stop()


def make_history(readings: int = 600) -> History:
    rng = np.random.default_rng(7)
    steps = np.arange(readings)
    values = 20 + 5 * np.sin(steps / 8) + 0.2 * rng.standard_normal(readings)
    return History({"a": Series(START + 60.0 * steps, values)})


def make_child(tmp_path: Path, children: list[TrainerChild], **environment: str) -> TrainerChild:
    settings = load_settings(
        {
            "registry": {"directory": str(tmp_path / "models")},
            "training": {"steps": 10},
            "forecast": {"horizon": 4},
            "model": {"hidden": 8},
        }
    )
    child = TrainerChild(environment={**to_environment(settings), **environment}, from_topic=False)
    children.append(child)
    return child


def result_of(child: TrainerChild) -> TrainingResult:
    """Wait for the child's end, as the daemon does: by asking now and then."""
    pause, deadline = Event(), time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if (result := child.poll()) is not None:
            return result
        pause.wait(0.05)
    raise AssertionError(f"no result after {PATIENCE_SECONDS:g} s")


def pid_in(caplog: pytest.LogCaptureFixture) -> int:
    return next(record.pid for record in caplog.records if record.message == "training started")  # type: ignore[attr-defined]


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_training_promotes_its_model_in_the_registry_and_reports_it(tmp_path, children, scratch):
    child = make_child(tmp_path, children)

    child.start(make_history())
    assert child.is_running
    result = result_of(child)

    assert result.outcome == "promoted"
    assert DirectoryRegistry(tmp_path / "models").champion() == result.version
    assert result.seconds > 0
    assert result.challenger_loss is not None
    assert result.naive_loss is not None
    assert result.challenger_loss < result.naive_loss
    assert not child.is_running
    assert child.poll() is None
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_a_training_without_enough_to_learn_from_fails_and_says_why(tmp_path, children):
    child = make_child(tmp_path, children)

    child.start(make_history(readings=5))
    result = result_of(child)

    assert result.outcome == "failed"
    assert "5 values" in result.reason
    assert DirectoryRegistry(tmp_path / "models").champion() is None


def test_a_child_that_dies_without_a_result_is_told_by_its_last_words(tmp_path, children, scratch):
    child = make_child(tmp_path, children, FORECASTER_MODEL__CELL="transformer")

    child.start(make_history())
    result = result_of(child)

    assert result.outcome == "failed"
    assert "exit code 2" in result.reason
    assert "model.cell" in result.reason  # the error, not the hint below it
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_a_child_that_is_killed_midway_is_reported_and_the_next_one_runs(tmp_path, children, caplog):
    child = make_child(tmp_path, children)
    with caplog.at_level(logging.INFO):
        child.start(make_history())
    os.kill(pid_in(caplog), signal.SIGKILL)
    killed = result_of(child)
    child.start(make_history(readings=5))
    second = result_of(child)

    assert (killed.outcome, killed.reason) == (
        "failed",
        "the trainer ended with exit code -9: it printed nothing",
    )
    assert "5 values" in second.reason


def test_stop_ends_a_training_and_leaves_nothing(tmp_path, children, scratch, caplog):
    child = make_child(tmp_path, children, FORECASTER_TRAINING__STEPS="1000000")
    with caplog.at_level(logging.INFO):
        child.start(make_history())

    began = time.monotonic()
    child.stop()

    assert time.monotonic() - began < 5.0
    assert not exists(pid_in(caplog))
    assert not child.is_running
    assert child.poll() is None
    assert list(scratch.iterdir()) == []
    child.stop()  # again is no matter


def test_a_history_that_cannot_be_written_is_an_error_of_its_own(tmp_path, children, monkeypatch):
    child = make_child(tmp_path, children)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such directory"))

    with pytest.raises(TrainingFailed, match="cannot be started") as caught:
        child.start(make_history())

    assert caught.value.hint
    assert not child.is_running


@pytest.mark.slow
def test_settings_of_the_parents_environment_do_not_reach_the_child(tmp_path, children, monkeypatch):
    environment = to_environment(load_settings({"registry": {"directory": str(tmp_path / "models")}}))
    monkeypatch.setenv("FORECASTER_NO_SUCH_SETTING", "1")
    monkeypatch.setenv("FORECASTER_CONFIG", "/no/such/file.toml")
    child = TrainerChild(environment=environment, from_topic=False)
    children.append(child)

    child.start(make_history(readings=5))

    assert "FORECASTER_NO_SUCH_SETTING" not in result_of(child).reason
