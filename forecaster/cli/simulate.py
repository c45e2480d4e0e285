"""``forecaster simulate``: made-up streams into Kafka."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forecaster.records import OutRecord
    from forecaster.simulation.streams import SimulatedReading
    from forecaster.transports.tables import TableLayout

HELP = "send made-up heart rates, sensors and server metrics to the readings topic"
EXAMPLES = """\
  forecaster simulate                                          # a ward, a hall and two servers, until stopped
  forecaster simulate --profile heart-rate --streams 500 --rate 100
  forecaster simulate --history 6h --faults                    # six hours at once, then live, with bad readings
  forecaster simulate --profile sensor --streams 50 --rate 1000 --seconds 60 --seed 7
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--streams", type=_count, metavar="N", help="how many (default: 20, or the demo's set)")
    parser.add_argument(
        "--rate",
        type=_positive,
        metavar="R",
        help="readings a second, all streams together (default: one in 5 to 10 s each)",
    )
    parser.add_argument("--profile", choices=["sensor", "heart-rate", "server", "all"], help="which kind of streams")
    parser.add_argument(
        "--faults", action="store_true", help="with duplicates, late, missing, broken readings and more"
    )
    parser.add_argument(
        "--history", type=_duration, default=0.0, metavar="T", help="readings of the past (6h) sent first"
    )
    parser.add_argument("--seconds", type=_positive, metavar="N", help="stop after so long (default: never)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--topic", help="where to (default: topics.readings of the settings)")
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="brokers (default: of the settings)")


def main(args: argparse.Namespace) -> int:
    """Sends readings until it is stopped or the time is over; 0 when every one was acknowledged."""
    import numpy as np
    from rich.console import Console

    from forecaster.cli.feeding import feed_with_progress, stop_on_terminate
    from forecaster.clock import SystemClock
    from forecaster.connections import build_sink
    from forecaster.settings import load_settings
    from forecaster.simulation.faults import FaultInjector, FaultRates
    from forecaster.simulation.streams import demo_streams, make_streams, simulate
    from forecaster.transports.tables import TableLayout

    overrides = {"kafka": {"bootstrap_servers": args.bootstrap_servers}} if args.bootstrap_servers else {}
    settings = load_settings(overrides, config_file=args.config, secrets_dir=args.secrets_dir)
    readings = settings.readings
    topic = args.topic or settings.topics.readings
    stream_rng, fault_rng = np.random.default_rng(args.seed).spawn(2)
    if args.profile is None and args.streams is None:
        streams = demo_streams(stream_rng)
    else:
        streams = make_streams(args.profile or "all", args.streams or 20, stream_rng)
    if args.rate is not None:
        streams = [stream.every(len(streams) / args.rate) for stream in streams]
    now = SystemClock().now()
    seconds = None if args.seconds is None else args.history + args.seconds
    faults = FaultInjector(FaultRates.a_bad_day() if args.faults else FaultRates(), fault_rng)
    layout = TableLayout(id_field=readings.id_field, time_field=readings.time_field, value_field=readings.fields[0])
    console = Console(stderr=True)
    with stop_on_terminate() as stop:
        sink = build_sink(settings)
        try:
            feed_with_progress(
                timed(faults.apply(simulate(streams, start=now - args.history, seconds=seconds)), now, layout, topic),
                sink,
                topic=topic,
                total=None,
                speed=1.0,
                stop=stop,
                console=console,
            )
        finally:
            sink.close()
    if faults.counts:
        console.print(
            "Faults: " + ", ".join(f"{fault.value} {count}" for fault, count in sorted(faults.counts.items()))
        )
    return 0


def timed(
    readings: Iterable[SimulatedReading], now: float, layout: TableLayout, topic: str
) -> Iterator[tuple[float, OutRecord]]:
    """Event time and record of each reading; those before ``now`` have no time to wait for."""
    from forecaster.records import OutRecord
    from forecaster.transports.simulated import ReadingEncoder

    encoder = ReadingEncoder(layout)
    for reading in readings:
        key, value = encoder.encode(reading)
        yield reading.time if reading.time >= now else math.nan, OutRecord(topic, None, key, value)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _duration(text: str) -> float:
    from forecaster.settings import parse_duration

    seconds = parse_duration(text)
    return seconds if isinstance(seconds, float) else _positive(text)
