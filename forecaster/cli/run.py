"""``forecaster run``: the worker, from Kafka to Kafka."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from forecaster.cli.reloading import Reloader, reload_on_hangup
from forecaster.settings import load_settings

if TYPE_CHECKING:
    from forecaster.daemon import Daemon
    from forecaster.settings import Settings
    from forecaster.telemetry.watch import WatchList

log = logging.getLogger(__name__)

HELP = "Answer the readings of a Kafka topic until told to stop (SIGTERM, SIGINT); SIGHUP reads the settings again."
EXAMPLES = """  forecaster run
  forecaster run --config forecaster.toml --port 9000
  forecaster run --workers 4                    # four members of the group on this host, one endpoint
  FORECASTER_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 forecaster run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="brokers (kafka.bootstrap_servers)")
    parser.add_argument("--port", type=int, help="of the HTTP endpoint (telemetry.port); 0 takes a free one")
    parser.add_argument("--log-format", choices=("json", "text"), help="of the log (telemetry.log_format)")
    parser.add_argument(
        "--workers",
        type=_count,
        default=1,
        metavar="N",
        help="processes, each a member of the group; at most as many as partitions (default: 1)",
    )
    parser.add_argument("--supervised", type=int, help=argparse.SUPPRESS)  # descriptor of the line to the supervisor


def main(args: argparse.Namespace) -> int:
    overrides: dict[str, Any] = {}
    if args.bootstrap_servers is not None:
        overrides["kafka"] = {"bootstrap_servers": args.bootstrap_servers}
    telemetry = {"port": args.port, "log_format": args.log_format}
    overrides["telemetry"] = {name: value for name, value in telemetry.items() if value is not None}

    def load() -> Settings:
        return load_settings(overrides, config_file=args.config, secrets_dir=args.secrets_dir)

    settings = load()

    from forecaster.clock import SystemClock
    from forecaster.connections import build_codec
    from forecaster.telemetry import logs
    from forecaster.telemetry.watch import WatchList

    watch = WatchList(settings.telemetry.watch, most=settings.telemetry.watch_streams, clock=SystemClock())

    def apply(found: Settings) -> None:
        logs.configure(found.telemetry.log_level, found.telemetry.log_format)
        watch.change(found.telemetry.watch, most=found.telemetry.watch_streams)

    apply(settings)
    build_codec(settings)  # what its files hold is wrong before anything is opened, or not at all
    reload = Reloader(settings, load=load, apply=apply)
    if args.workers > 1:
        return _supervise(settings, args, reload)
    reload_on_hangup(reload)
    stop = stop_on_signals()
    if args.supervised is None:
        _serve(open_daemon(settings, watch=watch), stop)
        return 0

    from forecaster.supervisor import Line

    line = Line(args.supervised)
    line.stop_when_cut(stop)
    _serve(open_daemon(settings, watch=watch, announce=line.say), stop)
    return 0


def _serve(daemon: Daemon, stop: threading.Event) -> None:
    # What importing and wiring left, 225,000 objects, stays: the garbage collector would look through them every few
    # thousand readings, 117 ms each time.
    gc.collect()
    gc.freeze()
    daemon.run(stop)


def _supervise(settings: Settings, args: argparse.Namespace, reload: Callable[[], None]) -> int:
    from forecaster.clock import SystemClock
    from forecaster.supervisor import SpawnedWorker, Supervisor
    from forecaster.telemetry.http import TelemetryServer
    from forecaster.telemetry.together import Together

    def start(number: int) -> SpawnedWorker:
        return SpawnedWorker(worker_arguments(args), {**os.environ, **worker_environment(settings, number)})

    def reload_all() -> None:
        reload()
        supervisor.hang_up()

    supervisor = Supervisor(args.workers, start, clock=SystemClock())
    together = Together(supervisor.places, restarts=supervisor.restarts)
    stop = stop_on_signals()
    server = TelemetryServer(
        settings.telemetry.host,
        settings.telemetry.port,
        collectors=together,
        health=together.health,
        ready=together.ready,
        streams=together.streams,
        stream=together.stream,
        before_scrape=lambda: None,
    )
    reload_on_hangup(reload_all)
    try:
        log.info("supervising", extra={"workers": args.workers, "url": server.url})
        return supervisor.run(stop)
    finally:
        server.close()


def worker_arguments(args: argparse.Namespace) -> list[str]:
    """The command of a supervised worker, up to the descriptor of its line."""
    found = ["run", "--port", "0"]
    for flag in ("config", "secrets_dir", "bootstrap_servers", "log_format"):
        value = getattr(args, flag)
        if value is not None:
            found += [f"--{flag.replace('_', '-')}", str(value)]
    return [*found, "--supervised"]


def worker_environment(settings: Settings, number: int) -> dict[str, str]:
    """What sets a supervised worker apart: its name, where it listens, and that only the first trains."""
    found = {
        "FORECASTER_KAFKA__INSTANCE_ID": f"{settings.kafka.instance_id}-{number}",
        "FORECASTER_TELEMETRY__HOST": "127.0.0.1",
        "OMP_NUM_THREADS": "1",  # of numpy's library; torch is told in the process
        "OPENBLAS_NUM_THREADS": "1",
    }
    if settings.training.mode == "child" and number > 0:
        found["FORECASTER_TRAINING__MODE"] = "off"
    return found


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 256):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers from 1 to 256")
    return int(text)


def open_daemon(
    settings: Settings, *, watch: WatchList | None = None, announce: Callable[[str], None] = lambda url: None
) -> Daemon:
    """The worker, connected and not yet running. It is not made before its topics are found fit.

    Args:
        watch: which streams metrics show one by one; made from the settings where it is not given.
        announce: is told where the HTTP endpoint is, once it is there.

    Raises:
        TransportError: topics are not as they have to be, or nobody answers.
        ConfigurationError: a client refuses a setting.
    """
    from forecaster.cli.topics import check_cluster
    from forecaster.connections import (
        build_connection,
        build_sink,
        build_source,
        build_state_store,
        build_transactional_sink,
    )
    from forecaster.transports.kafka_admin import ClusterAdmin
    from forecaster.transports.kafka_checks import refuse_unfit

    with ClusterAdmin(build_connection(settings)) as admin:
        refuse_unfit(check_cluster(admin, settings))

    from forecaster.app import ExactlyOnceParts, build_daemon  # torch, some seconds

    source = build_source(settings)
    if settings.delivery == "at_least_once":
        return build_daemon(
            settings, source=source, sink=build_sink(settings), embedded=False, watch=watch, announce=announce
        )
    transactions = build_transactional_sink(settings, source)
    parts = ExactlyOnceParts(source, transactions, build_state_store(settings))
    return build_daemon(
        settings,
        source=source,
        sink=transactions,
        embedded=False,
        exactly_once=parts,
        watch=watch,
        announce=announce,
    )


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop
