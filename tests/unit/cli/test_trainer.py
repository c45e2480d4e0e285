"""``forecaster trainer``: what it refuses to be, and what its exit code says."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from forecaster.cli import trainer
from forecaster.errors import ConfigurationError
from forecaster.settings import Settings, load_settings
from forecaster.telemetry import logs
from forecaster.trainer_child import TrainingResult


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Handlers are the process's own; the test gives them back."""
    before = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass
class FakeService:
    result: TrainingResult | None = None
    runs: int = 0
    asks: int = 0

    def run(self, stop: Event) -> None:
        self.runs += 1
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()

    def run_once(self, stop: Event, *, group: str) -> TrainingResult | None:
        return self.result

    def ask(self) -> None:
        self.asks += 1


def main(*words: str, config: Path | None = None) -> int:
    parser = argparse.ArgumentParser()
    trainer.add_arguments(parser)
    parser.set_defaults(config=config, secrets_dir=None)
    return trainer.main(parser.parse_args(words))


@pytest.mark.parametrize(("mode", "why"), [("child", "workers train by themselves"), ("off", "keep the model")])
def test_it_does_not_run_beside_workers_that_train_or_are_not_to(mode: str, why: str):
    with pytest.raises(ConfigurationError, match=why) as refusal:
        trainer.open_service(load_settings({"training": {"mode": mode}}))

    assert "FORECASTER_TRAINING__MODE=service" in refusal.value.hint


def test_signals_ask_for_a_training_and_for_the_end(monkeypatch: pytest.MonkeyPatch):
    service, given = FakeService(), list[Settings]()

    def open_service(settings: Settings, *, shares: bool) -> FakeService:
        given.append(settings)
        return service

    monkeypatch.setattr(trainer, "open_service", open_service)

    code = main("--port", "0", "--bootstrap-servers", "kafka:9092", "--set", "training.every=2h")

    assert (code, service.runs, service.asks) == (0, 1, 1)
    assert (given[0].telemetry.port, given[0].kafka.bootstrap_servers, given[0].training.every) == (
        0,
        "kafka:9092",
        7_200.0,
    )


def test_a_hangup_reads_the_settings_again_and_does_not_end_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file = tmp_path / "forecaster.toml"
    file.write_text('[telemetry]\nlog_level = "INFO"\n')
    changed, levels = Event(), list[str]()

    def configure(level: str, form: str) -> None:
        levels.append(level)
        if level == "DEBUG":
            changed.set()

    class HungUp(FakeService):
        def run(self, stop: Event) -> None:
            file.write_text('[telemetry]\nlog_level = "DEBUG"\n')
            signal.raise_signal(signal.SIGHUP)
            assert changed.wait(10)

    monkeypatch.setattr(logs, "configure", configure)
    monkeypatch.setattr(trainer, "open_service", lambda settings, *, shares: HungUp())

    assert main(config=file) == 0
    assert levels == ["INFO", "DEBUG"]


@pytest.mark.parametrize(("outcome", "code"), [("promoted", 0), ("challenged", 0), ("refused", 0), ("failed", 1)])
def test_once_says_what_came_of_it(monkeypatch: pytest.MonkeyPatch, capsys, outcome: str, code: int):
    service = FakeService(TrainingResult(outcome=outcome, reason="The reason.", version="gru-20260101T000000-ab12cd"))
    monkeypatch.setattr(trainer, "open_service", lambda settings, *, shares: service)

    assert main("--once") == code
    assert capsys.readouterr().out == f"gru-20260101T000000-ab12cd {outcome}: The reason.\n"


def test_once_that_was_stopped_did_not_succeed(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(trainer, "open_service", lambda settings, *, shares: FakeService(None))

    assert main("--once") == 1
    assert "stopped" in capsys.readouterr().err
