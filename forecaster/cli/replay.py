"""``forecaster replay``: files of readings into Kafka."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forecaster.cli.table_arguments import add_table_arguments, layout_from

if TYPE_CHECKING:
    from forecaster.records import OutRecord
    from forecaster.transports.tables import Table, TableLayout

HELP = "send CSV or JSON-lines files to the readings topic, at a speed or flat out"
EXAMPLES = """\
  forecaster replay pump.csv                                   # timestamp,value: stream "pump", flat out
  forecaster replay data/ --speed 60                           # every table below data/, an hour a minute
  forecaster replay ETTh1.csv --columns OT,HUFL --topic readings
  forecaster replay heart.txt --step-seconds 0.5 --speed 1     # one number a line, two a second
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="CSV or JSON lines, also gzipped, or Parquet, or a directory of them",
    )
    parser.add_argument("--topic", help="where to (default: topics.readings of the settings)")
    parser.add_argument(
        "--speed", type=parse_speed, default=None, metavar="X|max", help="event seconds a second (default: max)"
    )
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="brokers (default: of the settings)")
    add_table_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Sends the files; 0 when every reading was acknowledged."""
    from rich.console import Console

    from forecaster.cli.feeding import feed_with_progress, stop_on_terminate
    from forecaster.connections import build_sink
    from forecaster.settings import load_settings
    from forecaster.transports.tables import open_tables

    overrides = {"kafka": {"bootstrap_servers": args.bootstrap_servers}} if args.bootstrap_servers else {}
    settings = load_settings(overrides, config_file=args.config, secrets_dir=args.secrets_dir)
    topic = args.topic or settings.topics.readings
    layout = layout_from(args, settings)
    tables = open_tables(args.files, layout)
    with stop_on_terminate() as stop:
        sink = build_sink(settings)
        try:
            feed_with_progress(
                replayed(tables, layout, topic),
                sink,
                topic=topic,
                total=sum(table.count_rows() for table in tables),
                speed=args.speed,
                stop=stop,
                console=Console(stderr=True),
            )
        finally:
            sink.close()
    return 0


def replayed(tables: Sequence[Table], layout: TableLayout, topic: str) -> Iterator[tuple[float, OutRecord]]:
    """Event time and record of every row, by time; the partition is left to the client, which goes by the key."""
    from forecaster.records import OutRecord
    from forecaster.transports.readings import RowEncoder, merge_rows

    encoder = RowEncoder(layout)
    for row in merge_rows(tables):
        key, value = encoder.encode(row)
        yield row.time, OutRecord(topic, None, key, value)


def parse_speed(text: str) -> float | None:
    """A factor above 0, or ``max`` for none.

    >>> parse_speed("60"), parse_speed("max")
    (60.0, None)
    """
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number above 0 nor max")
    return speed
