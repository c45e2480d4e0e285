import argparse
import io
import signal
import threading
from pathlib import Path

import pytest
from rich.console import Console

from forecaster.cli.feeding import feed_with_progress, stop_on_terminate
from forecaster.cli.replay import add_arguments, parse_speed, replayed
from forecaster.cli.table_arguments import layout_from
from forecaster.clock import ManualClock
from forecaster.settings import load_settings
from forecaster.transports.memory import MemorySink
from forecaster.transports.tables import open_tables


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_rows_become_records_keyed_by_their_stream_for_the_client_to_place(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    path.write_text("timestamp,temp,load\n1970-01-01 00:00:05,1,2\n")
    args = parse(str(path), "--columns", "temp, load", "--topic", "in")
    layout = layout_from(args, load_settings({"readings": {"id_field": "id", "fields": ["v"]}}))

    records = list(replayed(open_tables(args.files, layout), layout, args.topic))

    assert [(time, record.topic, record.partition, record.key, record.value) for time, record in records] == [
        (5.0, "in", None, b"pump/temp", b'{"id":"pump/temp","timestamp":"1970-01-01T00:00:05Z","v":1.0}'),
        (5.0, "in", None, b"pump/load", b'{"id":"pump/load","timestamp":"1970-01-01T00:00:05Z","v":2.0}'),
    ]


def test_flags_of_the_layout_are_taken_over() -> None:
    args = parse("x.csv", "--day-first", "--missing=-200,?", "--time-unit", "ms", "--step-seconds", "0.5")

    layout = layout_from(args, load_settings({}))

    assert layout.day_first is True
    assert layout.missing == ("", "-200", "?")
    assert (layout.time_unit, layout.step_seconds) == ("ms", 0.5)


def test_without_flags_the_layout_is_the_common_one() -> None:
    layout = layout_from(parse("x.csv"), load_settings({}))

    assert layout.day_first is None
    assert "NA" in layout.missing
    assert layout.columns == ()


def test_speed_is_a_factor_or_flat_out() -> None:
    assert parse("x.csv", "--speed", "2.5").speed == 2.5
    assert parse("x.csv", "--speed", "max").speed is None
    assert parse("x.csv").speed is None


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "fast"])
def test_speed_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="neither a number above 0 nor max"):
        parse_speed(text)


def test_summary_says_how_many_readings_were_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    path.write_text("timestamp,value\n" + "".join(f"{n},1\n" for n in range(1_500)))
    tables, sink, console = open_tables([path]), MemorySink(), Console(file=io.StringIO(), width=200)
    layout = layout_from(parse(str(path)), load_settings({}))

    report = feed_with_progress(
        replayed(tables, layout, "in"),
        sink,
        topic="in",
        total=1_500,
        speed=None,
        stop=threading.Event(),
        console=console,
        clock=ManualClock(),
    )

    assert report.sent == len(sink.records) == 1_500
    assert "1,500 readings to in" in console.file.getvalue()  # type: ignore[attr-defined]


def test_terminate_signal_asks_for_a_stop_and_is_put_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with stop_on_terminate() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()

    assert signal.getsignal(signal.SIGTERM) == before
