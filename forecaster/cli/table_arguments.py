"""Flags that say how files of readings are to be read, for every command that takes files."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from forecaster.settings import Settings
    from forecaster.training.history import History
    from forecaster.transports.tables import TableLayout


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags; `layout_from` reads them."""
    group = parser.add_argument_group("how the files are read")
    group.add_argument(
        "--columns",
        metavar="A,B",
        help="wide tables: each of these columns is a stream named file/column; * takes every one with numbers",
    )
    group.add_argument("--time-column", default="", metavar="NAME", help="column with the time; Date,Time joins two")
    group.add_argument("--value-column", default="", metavar="NAME", help="column with the value")
    group.add_argument("--id-column", default="", metavar="NAME", help="column with the stream id")
    group.add_argument(
        "--time-unit", default="auto", choices=["auto", "s", "ms", "us", "ns"], help="of numeric times (default: auto)"
    )
    order = group.add_mutually_exclusive_group()
    order.add_argument("--day-first", dest="day_first", action="store_true", default=None, help="3/4/2024 is in April")
    order.add_argument("--month-first", dest="day_first", action="store_false", help="3/4/2024 is in March")
    group.add_argument(
        "--missing",
        metavar="A,B",
        help="cells that stand for a missing reading, as in --missing=-200,? (default: NA, NaN, null, None)",
    )
    group.add_argument(
        "--step-seconds", type=float, default=0.0, metavar="S", help="files without times: seconds between rows"
    )
    group.add_argument(
        "--beat-intervals", default="", choices=["s", "ms"], help="files of one heart beat interval a line"
    )


def layout_from(args: argparse.Namespace, settings: Settings) -> TableLayout:
    """The layout the flags ask for, with the JSON field names and the horizon of the settings."""
    from forecaster.transports.tables import COMMON_FORMS, TableLayout

    readings = settings.readings
    return TableLayout(
        time_column=args.time_column,
        value_column=args.value_column,
        id_column=args.id_column,
        columns=_listed(args.columns),
        time_unit=args.time_unit,
        day_first=args.day_first,
        missing=COMMON_FORMS.missing if args.missing is None else ("", *_listed(args.missing)),
        step_seconds=args.step_seconds,
        beat_intervals=args.beat_intervals,
        id_field=readings.id_field,
        time_field=readings.time_field,
        value_field=readings.fields[0],
        covariates=readings.covariates,
        known_ahead=readings.known_ahead,
        horizon=settings.forecast.horizon,
    )


def history_from_files(args: argparse.Namespace, settings: Settings, takes: Callable[[str], bool]) -> History:
    """What the files of ``args.data`` hold of the streams that are taken."""
    from forecaster.settings import future_inputs
    from forecaster.training.history import History, Series
    from forecaster.transports.readings import read_series
    from forecaster.transports.tables import open_tables

    tables = open_tables(args.data, layout_from(args, settings))
    found = read_series(tables, covariates=len(settings.readings.covariates), future=future_inputs(settings))
    series = {
        name: Series(times, values, covariates, future=future)
        for name, (times, values, covariates, future) in found.items()
    }
    return History(series).where(takes)


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()
