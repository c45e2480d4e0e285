"""SIGHUP changes what is safe to change, names what is not, and never ends a worker."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forecaster.cli.reloading import SAFE, Reloader, reload_on_hangup
from forecaster.settings import Settings, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "forecaster.toml"
    file.write_text('[telemetry]\nlog_level = "INFO"\n')
    return file


@pytest.fixture
def _hangup_as_it_was() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def make_reloader(file: Path) -> tuple[Callable[[], None], list[Settings]]:
    applied: list[Settings] = []
    return Reloader(
        load_settings(config_file=file), load=lambda: load_settings(config_file=file), apply=applied.append
    ), applied


def told(caplog: pytest.LogCaptureFixture, message: str) -> logging.LogRecord | None:
    return next((record for record in caplog.records if record.message == message), None)


def test_a_changed_log_level_takes_effect(file, caplog):
    reload, applied = make_reloader(file)

    file.write_text('[telemetry]\nlog_level = "DEBUG"\n')
    reload()

    assert [settings.telemetry.log_level for settings in applied] == ["DEBUG"]
    assert vars(told(caplog, "settings read again"))["changed"] == ["telemetry.log_level"]
    assert told(caplog, "changed settings take a restart") is None


def test_settings_that_take_a_restart_are_named_and_nothing_more(file, caplog):
    reload, _ = make_reloader(file)

    file.write_text('[forecast]\nhorizon = 24\n[kafka]\ngroup_id = "other"\nsasl_password = "hunter2"\n')
    reload()

    later = vars(told(caplog, "changed settings take a restart"))["settings"]
    assert later == ["kafka.group_id", "kafka.sasl_password", "forecast.horizon"]
    assert "hunter2" not in caplog.text


def test_a_mistake_changes_nothing_and_is_told(file, caplog):
    reload, applied = make_reloader(file)

    file.write_text('[telemetry]\nlog_level = "LOUD"\n')
    reload()

    assert applied == []
    assert "log_level" in vars(told(caplog, "settings not read again"))["error"]


@pytest.mark.usefixtures("_hangup_as_it_was")
def test_the_signal_calls_and_does_not_end_the_process():
    called = threading.Event()

    reload_on_hangup(called.set)
    os.kill(os.getpid(), signal.SIGHUP)

    assert called.wait(10)


def test_what_is_safe_is_a_setting():
    for name in SAFE:
        section, field = name.split(".")
        assert hasattr(getattr(Settings(), section), field)
