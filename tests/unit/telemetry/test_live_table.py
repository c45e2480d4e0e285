"""The terminal view fits its width and height and shows what there is."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from forecaster.telemetry.live_table import plain, render, sparkline

HEADER = {
    "uptime_seconds": 83.2,
    "readings": 12345,
    "readings_per_second": 812.3,
    "model": "gru-1",
    "training": "idle",
    "url": "http://127.0.0.1:8000/",
}


def make_summary(**overrides: object) -> dict[str, Any]:
    return {
        "stream_id": "ward-3/bed-12",
        "status": "ok",
        "value": 72.0,
        "error_vs_naive": 0.88,
        "coverage": 0.81,
        "forecast": {
            "leads": [1, 12],
            "quantile_levels": [0.1, 0.5, 0.9],
            "quantiles": [[70.9, 72.1, 73.4], [69.0, 72.6, 75.25]],
        },
        "recent": {"values": [70.0, 71.0, None, 72.0]},
    } | overrides


def shown(
    summaries: list[dict[str, Any]], *, width: int = 160, height: int = 40, events: tuple[str, ...] = ()
) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height, color_system=None).print(render(summaries, HEADER, events))
    return out.getvalue().splitlines()


def test_row_shows_value_next_last_lead_interval_error_coverage_and_status():
    row = next(line for line in shown([make_summary()]) if "bed-12" in line)

    assert row.split() == ["ward-3/bed-12", "▁▅", "█", "72.00", "72.10", "72.60", "69.00…75.25", "−12%", "81%", "ok"]


def test_head_names_the_last_lead():
    assert "in 12" in shown([make_summary()])[1]


def test_header_tells_how_it_goes_and_where_the_page_is():
    assert shown([])[0] == ("up 1m23s  12,345 readings  812/s  model gru-1  training idle  http://127.0.0.1:8000/")


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_no_line_is_wider_than_the_terminal_and_status_is_never_cut(width):
    long = make_summary(stream_id="hall-1/" + "press-" * 40, value=-123456.7, status="fallback")

    lines = shown([long, make_summary()], width=width)

    assert max(map(len, lines)) <= width
    assert any("fallback" in line for line in lines)
    assert any("69.00…75.25" in line for line in lines)
    assert any("−12%" in line for line in lines)


def test_rows_that_do_not_fit_the_height_are_counted():
    summaries = [make_summary(stream_id=f"s-{n}") for n in range(5000)]

    lines = shown(summaries, height=24, events=("model gru-2 took over",))

    assert len(lines) < 24
    rows = sum(line.startswith("s-") for line in lines)
    assert rows >= 15
    assert f"… and {5000 - rows:,} more" in lines


def test_newest_events_stand_below():
    lines = shown([make_summary()], events=tuple(f"event {n}" for n in range(9)))

    assert lines[-4:] == [f"· event {n}" for n in (5, 6, 7, 8)]


def test_stream_without_forecast_or_scores_yet_has_a_row():
    bare = {"stream_id": "new", "status": "warming", "value": None}

    row = next(line for line in shown([bare]) if line.startswith("new"))

    assert row.split() == ["new", "missing", "–", "–", "–", "–", "–", "warming"]


def test_before_the_first_reading_it_says_so():
    assert "No streams yet. Each appears with its first reading." in shown([])


def test_name_cannot_steer_the_terminal():
    lines = shown([make_summary(stream_id="a\x1b[2Jb\n[red]c")])

    assert any("a�[2Jb�[red]c" in line for line in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.12345, "0.123"),
        (-7.0, "-7.00"),
        (123.45, "123.5"),
        (98765.4, "98765"),
        (2.5e9, "2.5e+09"),
        (1e-5, "1.0e-05"),
    ],
)
def test_numbers_keep_about_three_digits_that_matter(value, text):
    row = next(line for line in shown([make_summary(value=value)]) if "bed-12" in line)

    assert text in row.split()


@pytest.mark.parametrize(
    ("ratio", "text"), [(1.05, "+5%"), (1.001, "±0%"), (0.5, "−50%"), (None, "–"), (float("nan"), "–")]
)
def test_error_against_naive_is_a_gain_or_loss(ratio, text):
    row = next(line for line in shown([make_summary(error_vs_naive=ratio)]) if "bed-12" in line)

    assert row.split()[-3] == text


def test_sparkline_shows_only_the_newest_and_leaves_missing_blank():
    assert sparkline([100.0, 0.0, float("nan"), 7.0], 3) == "▁ █"


def test_sparkline_of_nothing_is_blank():
    assert sparkline([None, None], 5) == "  "
    assert sparkline([], 5) == ""


def test_plain_line_counts_streams_by_status_most_first():
    summaries = [make_summary(status=status) for status in ("gap", "ok", "ok")]

    assert plain(summaries, HEADER) == (
        "up 1m23s · 12,345 readings · 812/s · model gru-1 · training idle · http://127.0.0.1:8000/ · "
        "3 streams: 2 ok, 1 gap"
    )


@pytest.mark.parametrize(("seconds", "text"), [(5.9, "up 5s"), (3725, "up 1h02m"), (200_000, "up 2d07h")])
def test_uptime_reads_at_a_glance(seconds, text):
    assert plain([], {"uptime_seconds": seconds}) == f"{text} · 0 streams"
