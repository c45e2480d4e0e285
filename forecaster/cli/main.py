"""The command line: one parser, one command a module, and what the exit codes mean.

0 done, 1 failed, 2 wrong usage or settings, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from forecaster.errors import ConfigurationError, ForecasterError

COMMANDS = (
    "demo",
    "run",
    "train",
    "trainer",
    "tune",
    "replay",
    "simulate",
    "topics",
    "models",
    "doctor",
    "verify",
    "state",
    "reset",
    "backtest",
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. Modules of commands keep heavy imports inside ``main``, so that this is quick."""
    parser = argparse.ArgumentParser(
        prog="forecaster",
        description="A daemon that answers every reading of every stream with a calibrated multi-horizon forecast.",
        epilog="Settings come from flags, FORECASTER_… variables, a secrets directory and a TOML file; "
        "docs/settings.md lists them all.",
    )
    parser.add_argument("--version", action="version", version=f"forecaster {version('forecaster')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"forecaster.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"examples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--config", type=Path, metavar="FILE", help="settings, a TOML file")
        command.add_argument("--secrets-dir", type=Path, metavar="DIR", help="directory with one file a secret setting")
        module.add_arguments(command)
        command.set_defaults(run=module.main)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = build_parser().parse_args(arguments)
    try:
        return int(args.run(args))
    except ForecasterError as error:
        print(f"forecaster {args.command}: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; nothing more can be said
        return 1


def entry() -> None:
    """The console script."""
    sys.exit(main())
