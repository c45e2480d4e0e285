"""The command line: quick help with examples, and exit codes that mean something."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from forecaster.cli import main as command_line
from forecaster.errors import ConfigurationError, TransportUnavailable

HEAVY = ("torch", "kafka", "numpy", "matplotlib", "prometheus_client", "forecaster.app", "forecaster.daemon")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, with no settings but these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
    return subprocess.run(
        [sys.executable, "-m", "forecaster", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**inherited, **environment},
        check=False,
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """Makes ``demo`` do what the test says, so that only the command line around it is looked at."""

    def install(does) -> None:
        from forecaster.cli import demo

        monkeypatch.setattr(demo, "main", does)

    return install


def test_help_of_every_command_loads_nothing_heavy_and_shows_examples():
    script = f"""
import contextlib, io, json, sys
from forecaster.cli.main import COMMANDS, main
shown = {{}}
for command in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        main([command, "--help"])
    shown[command] = text.getvalue()
print(json.dumps([shown, sorted(set({HEAVY!r}) & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    shown, loaded = json.loads(done.stdout)

    assert loaded == []
    assert set(shown) == set(command_line.COMMANDS)
    for command, text in shown.items():
        examples = text.partition("examples:\n")[2]
        assert f"  forecaster {command}" in examples or f"forecaster {command}" in examples
        assert "--config" in text
        assert "--secrets-dir" in text


@pytest.mark.parametrize("module", sorted(Path(command_line.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_every_module_that_is_a_command_is_one_of_the_commands(module):
    is_command = "\nHELP" in module.read_text(encoding="utf-8")

    assert is_command == (module.stem.replace("_", "-") in command_line.COMMANDS)


def test_every_example_is_understood_by_the_parser():
    import importlib
    import shlex

    parser = command_line.build_parser()
    for command in command_line.COMMANDS:
        examples = importlib.import_module(f"forecaster.cli.{command.replace('-', '_')}").EXAMPLES
        lines = [line for line in examples.splitlines() if "forecaster " in line]
        assert lines, command
        for line in lines:
            words = shlex.split(line, comments=True)
            words = words[words.index("forecaster") + 1 :]
            assert parser.parse_args(words).command == command


def test_a_command_that_is_done_ends_with_0(command):
    command(lambda args: 0)

    assert command_line.main(["demo"]) == 0


def test_an_error_ends_with_1_and_is_told_with_its_hint(command, capsys):
    def fail(args: argparse.Namespace) -> int:
        raise TransportUnavailable("Nobody answers at kafka:9092.", hint="Is it running?")

    command(fail)

    assert command_line.main(["demo"]) == 1
    assert capsys.readouterr().err == "forecaster demo: Nobody answers at kafka:9092.\n  Is it running?\n"


def test_a_wrong_setting_ends_with_2(command, capsys):
    def fail(args: argparse.Namespace) -> int:
        raise ConfigurationError("Setting forecast.horizon is 0.")

    command(fail)

    assert command_line.main(["demo"]) == 2
    assert capsys.readouterr().err == "forecaster demo: Setting forecast.horizon is 0.\n"


def test_an_interrupt_ends_with_130_and_no_traceback(command, capsys):
    def interrupt(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    command(interrupt)

    assert command_line.main(["demo"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["demo", "--no-such-flag"], ["demo", "--port", "x"]])
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)

    assert ended.value.code == 2
    assert "usage: forecaster" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys):
    from importlib.metadata import version

    with pytest.raises(SystemExit) as ended:
        command_line.main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"forecaster {version('forecaster')}\n"


def test_a_reader_that_has_gone_is_no_traceback():
    """As in ``forecaster … | head -1``: nobody is left to be told anything."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTER_")}
    script = (
        "import sys; from forecaster.cli import demo, main\n"
        "demo.main = lambda args: [print('x' * 1000, flush=True) for _ in range(1000)] and 0\n"
        "sys.exit(main.main(['demo']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=inherited
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()

    assert process.wait(30) == 1
    assert "Traceback" not in errors


@pytest.mark.parametrize("command", ["run", "demo", "train"])
def test_a_wrong_setting_is_told_without_a_traceback(command, tmp_path):
    flags = ["--from-topic"] if command == "train" else []

    done = run(command, *flags, FORECASTER_FORECAST__HORIZON="0")

    assert done.returncode == 2
    assert "forecast.horizon" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (None, r"The Avro schema \S+/reading.avsc cannot be read"),
        ({"type": "array", "items": "double"}, "A reading's Avro schema is not of a record"),
    ],
    ids=["not there", "not of readings"],
)
def test_a_schema_of_readings_that_is_none_ends_the_daemon_before_a_broker_is_asked(tmp_path, schema, said):
    path = tmp_path / "reading.avsc"
    if schema is not None:
        path.write_text(json.dumps(schema))

    done = run(
        "run",
        FORECASTER_READINGS__AVRO_SCHEMAS=json.dumps([str(path)]),
        FORECASTER_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
    )

    assert done.returncode == 2
    assert re.search(said, done.stderr)
    assert "readings.avro_schemas" in done.stderr
