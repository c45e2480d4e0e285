"""``forecaster demo``: the daemon embedded, without a broker, with a live table."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecaster.cli.run import stop_on_signals
from forecaster.cli.table_arguments import add_table_arguments, layout_from
from forecaster.errors import ConfigurationError
from forecaster.settings import Settings, load_settings

if TYPE_CHECKING:
    from forecaster.daemon import Daemon
    from forecaster.ports import Source

HELP = "Run the daemon embedded, no broker: a simulated ward and sensor hall, or your own files, with a live table."
EXAMPLES = """  forecaster demo
  forecaster demo --data temperature.csv humidity.csv
  forecaster demo --data machines.csv --columns temperature,vibration --speed max --out forecasts.jsonl
  forecaster demo --seconds 30 --port 0"""

_REDRAW_SECONDS = 0.5
_PLAIN_SECONDS = 5.0
_REPLAY_SECONDS = 60.0
_HISTORY_SECONDS = 6 * 3_600.0
_SIMULATED_SPEED = 60.0
_SIMULATED_READINGS = 40_000  # most of the simulated past
_SHOWN_STREAMS = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", nargs="+", type=Path, metavar="FILE", help="CSV or JSON-lines files, or directories")
    parser.add_argument(
        "--speed", metavar="X|max", help="event seconds per second (simulated: 60; files: all of it in a minute)"
    )
    parser.add_argument("--seconds", type=_seconds, metavar="N", help="stop after this many seconds")
    parser.add_argument("--port", type=int, help="of the live page (telemetry.port); 0 takes a free one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write forecasts here, one JSON object a line")
    parser.add_argument("--seed", type=_seed, default=0, help="of the simulated streams")
    parser.add_argument("--feedback", type=Path, metavar="FILE", help="labels of anomalies, and periods not to learn")
    add_table_arguments(parser)


def main(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="forecaster-demo-") as scratch:
        defaults: dict[str, Any] = {
            "training": {"every": "20m", "min_wall_seconds": 10},
            "engine": {"boundary_records": 64},
            "registry": {"directory": str(Path(scratch) / "models")},
            "telemetry": {"log_level": "WARNING", "log_format": "text"},
        }
        if not args.data:  # begun on the first seconds of the simulated past, a training would be in vain
            defaults["training"]["min_readings"] = _SIMULATED_READINGS
        overrides = {} if args.port is None else {"telemetry": {"port": args.port}}
        settings = load_settings(overrides, defaults=defaults, config_file=args.config, secrets_dir=args.secrets_dir)
        return _run(args, settings)


def _run(args: argparse.Namespace, settings: Settings) -> int:
    from forecaster.app import build_daemon
    from forecaster.codecs.feedback_json import read_feedback_file
    from forecaster.telemetry import logs
    from forecaster.transports.file import FileSink

    logs.configure(settings.telemetry.log_level, settings.telemetry.log_format)
    source = _file_source(args, settings) if args.data else _simulated_source(args, settings)
    sink = FileSink({settings.topics.forecasts: args.out} if args.out else {})
    feedback = read_feedback_file(args.feedback) if args.feedback else []
    daemon = build_daemon(settings, source=source, sink=sink, embedded=True, feedback=feedback)
    stop = stop_on_signals()
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            daemon.run(stop)
        except BaseException as error:  # noqa: BLE001 - raised again on the main thread
            failures.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=serve, name="daemon")
    thread.start()
    try:
        _watch(daemon, stop, args.seconds)
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]
    print(_closing_line(daemon.header()), flush=True)
    if args.out:
        print(f"forecasts are in {args.out}", file=sys.stderr)
    return 0


def _watch(daemon: Daemon, stop: threading.Event, seconds: float | None) -> None:
    """Draw until it is time to stop: a live table on a terminal, a line now and then elsewhere."""
    from rich.console import Console
    from rich.live import Live

    from forecaster.telemetry.http import StreamQuery
    from forecaster.telemetry.live_table import plain, render

    console = Console()
    ends_at = time.monotonic() + (math.inf if seconds is None else seconds)
    query = StreamQuery(limit=_SHOWN_STREAMS)

    def ask() -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
        try:
            return list(daemon.streams(query)), daemon.header()
        except TimeoutError:
            return None

    events = _Events(daemon)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=False) as live:
            happened: list[str] = []
            while not stop.wait(_REDRAW_SECONDS) and time.monotonic() < ends_at:
                happened += events.new()
                if (found := ask()) is not None:
                    live.update(render(*found, happened), refresh=True)
        return
    said_at = -math.inf
    while not stop.wait(min(_REDRAW_SECONDS, max(ends_at - time.monotonic(), 0.0))) and time.monotonic() < ends_at:
        for event in events.new():
            print(event, flush=True)
        if time.monotonic() - said_at >= _PLAIN_SECONDS and (found := ask()) is not None:
            said_at = time.monotonic()
            print(plain(*found), flush=True)
    for event in events.new():
        print(event, flush=True)


class _Events:
    """What happened since one last looked; the daemon forgets its oldest events."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._last: dict[str, str] | None = None

    def new(self) -> list[str]:
        events = list(self._daemon.events)
        known = next((k + 1 for k in reversed(range(len(events))) if events[k] is self._last), 0)
        self._last = events[-1] if events else None
        return [f"{event['time'][11:19]} {event['text']}" for event in events[known:]]


def _closing_line(header: dict[str, Any]) -> str:
    """What the run came to, for people."""
    return (
        f"{header['readings']:,} forecasts and {header['dead_letters']:,} dead letters in "
        f"{header['uptime_seconds']:.1f} s · model {header['model']}"
    )


def _seconds(text: str) -> float:
    """A flag's value that is a positive time."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _seed(text: str) -> int:
    """A flag's value that can seed a generator."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _speed(text: str | None, default: float | None) -> float | None:
    """Event seconds per second; ``None`` is as fast as it goes."""
    if text is None:
        return default
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise ConfigurationError(
            f"--speed {text!r} is neither a number above 0 nor max.",
            hint="1 is real time, 60 a minute a second, max as fast as it goes.",
        )
    return speed


def _simulated_source(args: argparse.Namespace, settings: Settings) -> Source:
    import numpy as np

    from forecaster.cli.table_arguments import layout_from
    from forecaster.clock import SystemClock
    from forecaster.simulation.streams import demo_streams
    from forecaster.transports.simulated import SimulatedSource

    clock = SystemClock()
    return SimulatedSource(
        demo_streams(np.random.default_rng(args.seed)),
        start=float(round(clock.now() / 10) * 10),
        clock=clock,
        speed=_speed(args.speed, _SIMULATED_SPEED),
        history_seconds=_HISTORY_SECONDS,
        layout=layout_from(args, settings),
        topic=settings.topics.readings,
    )


def _file_source(args: argparse.Namespace, settings: Settings) -> Source:
    from forecaster.clock import SystemClock
    from forecaster.connections import build_codec
    from forecaster.records import Observation, RawRecord
    from forecaster.transports.file import FileSource
    from forecaster.transports.paced import PacedSource

    source = FileSource(args.data, layout=layout_from(args, settings), topic=settings.topics.readings)
    codec = build_codec(settings)

    def time_of(raw: RawRecord) -> float:
        return next((found.time for found in codec.decode(raw) if isinstance(found, Observation)), math.nan)

    speed = _speed(args.speed, _event_span(source) / _REPLAY_SECONDS)
    return source if speed is None else PacedSource(source, time_of=time_of, clock=SystemClock(), speed=speed)


def _event_span(source: Any) -> float:
    """Event time from the first to the last row, in seconds; at least one."""
    from forecaster.transports.readings import merge_rows

    times = [row.time for row in merge_rows(source.tables) if not math.isnan(row.time)]
    return max(max(times) - min(times), 1.0) if times else 1.0
