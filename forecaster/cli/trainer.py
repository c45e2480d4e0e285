"""``forecaster trainer``: the training service, beside workers that only serve."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING, Any

from forecaster.cli.reloading import Reloader, reload_on_hangup
from forecaster.cli.run import stop_on_signals
from forecaster.cli.setting_flags import add_setting_flags, merge_settings
from forecaster.series.groups import group_label, group_named

if TYPE_CHECKING:
    from forecaster.settings import Settings
    from forecaster.trainer_service import TrainerService

HELP = (
    "Train on the readings topic by schedule and decide who serves, for workers under training.mode = service; "
    "SIGHUP reads the settings again."
)
EXAMPLES = """  forecaster trainer                       # until SIGTERM; SIGUSR1 asks for a training now
  forecaster trainer --once                # one training, then the end: 0 unless it failed
  forecaster trainer --port 8001           # metrics and health"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--once", action="store_true", help="train now, once")
    parser.add_argument("--group", default="default", metavar="NAME", help="of settings groups, which --once trains")
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="brokers (kafka.bootstrap_servers)")
    parser.add_argument("--port", type=int, help="of the HTTP endpoint (telemetry.port); 0 takes a free one")
    parser.add_argument("--log-format", choices=("json", "text"), help="of the log (telemetry.log_format)")
    add_setting_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Runs until told to stop; with ``--once`` 1 where the training failed or was stopped."""
    from forecaster.errors import ConfigurationError
    from forecaster.settings import build_groups, load_settings
    from forecaster.telemetry import logs

    overrides: dict[str, dict[str, Any]] = {}
    for section, name, value in (
        ("kafka", "bootstrap_servers", args.bootstrap_servers),
        ("telemetry", "port", args.port),
        ("telemetry", "log_format", args.log_format),
    ):
        if value is not None:
            overrides.setdefault(section, {})[name] = value
    merged = merge_settings(overrides, args.set)

    def load() -> Settings:
        return load_settings(merged, config_file=args.config, secrets_dir=args.secrets_dir)

    def apply(found: Settings) -> None:
        logs.configure(found.telemetry.log_level, found.telemetry.log_format)

    settings = load()
    apply(settings)
    group = group_named(args.group)
    if group not in build_groups(settings).names:
        known = ", ".join(map(group_label, build_groups(settings).names))
        raise ConfigurationError(f"There is no group {group}; the settings know {known}.")
    reload_on_hangup(Reloader(settings, load=load, apply=apply))
    service = open_service(settings, shares=not args.once)
    stop = stop_on_signals()
    signal.signal(signal.SIGUSR1, lambda number, frame: service.ask())
    if not args.once:
        service.run(stop)
        return 0
    result = service.run_once(stop, group=group)
    if result is None:
        print("forecaster trainer: stopped before the end", file=sys.stderr)
        return 1
    print(f"{result.version or 'no model'} {result.outcome}: {result.reason}")
    return int(result.outcome == "failed")


def open_service(settings: Settings, *, shares: bool = True) -> TrainerService:
    """The service, not yet running; ``shares`` lets it divide groups of streams with other trainers.

    Raises:
        ConfigurationError: under these settings workers train by themselves, or nobody is to.
    """
    from forecaster.errors import ConfigurationError

    if settings.training.mode != "service":
        raise ConfigurationError(
            f"training.mode is {settings.training.mode}: workers "
            f"{'train by themselves' if settings.training.mode == 'child' else 'are to keep the model they have'}.",
            hint="Set FORECASTER_TRAINING__MODE=service for workers and trainer alike.",
        )
    from forecaster.app import build_trainer_service  # torch, some seconds

    return build_trainer_service(settings, shares=shares)
