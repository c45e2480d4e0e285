"""The live view in the terminal: a table of streams with their forecasts, and what happened."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

_BARS = "▁▂▃▄▅▆▇█"
_STATUS_STYLES = {
    "ok": "green",
    "warming": "blue",
    "gap": "yellow",
    "stale": "yellow",
    "flat": "magenta",
    "fallback": "bold red",
}
_WIDE = 120
_OTHER_COLUMNS = 72  # width of all columns of the wide table but stream and recent, with their padding
_FEWEST_ROWS = 3


def render(summaries: Sequence[Mapping[str, Any]], header: Mapping[str, Any], events: Sequence[str]) -> LiveTable:
    """What `rich.live.Live` shows: a header line, one row a stream, the newest events.

    It fits the console it is printed on: at 80 columns the essentials, from 120 on all columns; rows that do not fit
    the height are left out and counted.

    Args:
        summaries: streams as ``/streams`` gives them, with the anchor ``leads`` of their forecasts; ``recent`` with
            ``values`` (``None`` where missing) where the sparkline is wanted.
        header: ``uptime_seconds``, ``readings``, ``readings_per_second``, ``model``, ``training``, ``url``; absent
            ones are left out.
        events: sentences, newest last.
    """
    return LiveTable(summaries, header, events)


def plain(summaries: Sequence[Mapping[str, Any]], header: Mapping[str, Any]) -> str:
    """One line of text for an output that is no terminal: the header, and how many streams have which status.

    >>> plain([{"status": "ok"}, {"status": "ok"}, {"status": "gap"}], {"readings": 12, "model": "none"})
    '12 readings · model none · 3 streams: 2 ok, 1 gap'
    """
    counts: dict[str, int] = {}
    for summary in summaries:
        status = str(summary.get("status", "unknown"))
        counts[status] = counts.get(status, 0) + 1
    listed = ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=lambda kv: -kv[1]))
    streams = f"{len(summaries)} streams" + (f": {listed}" if listed else "")
    return " · ".join([*_header_parts(header), streams])


def sparkline(values: Iterable[float | None], width: int) -> str:
    """The last ``width`` values as bars of eighths; a missing value is a space.

    >>> sparkline([1.0, 2.0, None, 8.0], 10)
    '▁▂ █'
    >>> sparkline([5.0, 5.0], 10)
    '▄▄'
    """
    shown = list(values)[-width:] if width > 0 else []
    present = [value for value in shown if _is_number(value)]
    if not present:
        return " " * len(shown)
    low, high = min(present), max(present)
    bars = []
    for value in shown:
        if not _is_number(value):
            bars.append(" ")
        elif high == low:
            bars.append(_BARS[3])
        else:
            bars.append(_BARS[int((value - low) / (high - low) * (len(_BARS) - 1) + 0.5)])
    return "".join(bars)


class LiveTable:
    """Renders itself anew for the width and height it is given; see `render`."""

    def __init__(
        self, summaries: Sequence[Mapping[str, Any]], header: Mapping[str, Any], events: Sequence[str]
    ) -> None:
        self._summaries = summaries
        self._header = header
        self._events = events

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        header = Text("  ".join(_header_parts(self._header)), style="bold")
        events = [Text(f"· {event}") for event in self._events[-4:]]
        used = sum(len(text.wrap(console, options.max_width)) for text in (header, *events))
        room = max(
            _FEWEST_ROWS, options.size.height - used - 4
        )  # head of the table, its rule, what is left out, cursor
        shown = self._summaries[:room]
        parts: list[Table | Text] = [header, self._table(shown, options.max_width)]
        if not self._summaries:
            parts.append(Text("No streams yet. Each appears with its first reading.", style="dim"))
        if len(shown) < len(self._summaries):
            parts.append(Text(f"… and {len(self._summaries) - len(shown):,} more", style="dim"))
        yield Group(*parts, *events)

    def _table(self, shown: Sequence[Mapping[str, Any]], width: int) -> Table:
        wide = width >= _WIDE
        horizon = max((summary["forecast"]["leads"][-1] for summary in shown if _quantiles(summary)), default=0)
        table = Table(box=None, width=None if wide else width, padding=(0, 2 if wide else 1, 0, 0), header_style="dim")
        bars = min(40, width - 100) if wide else 10
        table.add_column(
            "stream",
            no_wrap=True,
            overflow="ellipsis",
            min_width=8,
            max_width=width - bars - _OTHER_COLUMNS if wide else None,
            ratio=None if wide else 1,
        )
        table.add_column("recent", no_wrap=True, min_width=bars)
        table.add_column("value", justify="right", no_wrap=True)
        if wide:
            table.add_column("next", justify="right", no_wrap=True)
        table.add_column(f"in {horizon}" if horizon else "ahead", justify="right", no_wrap=True)
        table.add_column("interval", justify="right", no_wrap=True)
        table.add_column("naive", justify="right", no_wrap=True)
        table.add_column("cover" if not wide else "coverage", justify="right", no_wrap=True)
        table.add_column("status", no_wrap=True)
        for summary in shown:
            table.add_row(*self._row(summary, bars, wide))
        return table

    def _row(self, summary: Mapping[str, Any], bars: int, wide: bool) -> list[Text]:
        quantiles = _quantiles(summary)
        recent = (summary.get("recent") or {}).get("values") or []
        status = str(summary.get("status", "unknown"))
        value = summary.get("value")
        cells = [
            Text(_printable(str(summary.get("stream_id", "")))),
            Text(sparkline(recent, bars), style="cyan"),
            Text(_number(value), style="bold") if _is_number(value) else Text("missing", style="dim"),
            Text(_number(_median(summary, quantiles[-1])) if quantiles else "–"),
            Text(f"{_number(quantiles[-1][0])}…{_number(quantiles[-1][-1])}" if quantiles else "–", style="dim"),
            _against_naive(summary.get("error_vs_naive")),
            _percent(summary.get("coverage")),
            Text(status, style=_STATUS_STYLES.get(status, "")),
        ]
        if wide:
            cells.insert(3, Text(_number(_median(summary, quantiles[0])) if quantiles else "–"))
        return cells


def _header_parts(header: Mapping[str, Any]) -> list[str]:
    parts = []
    if "uptime_seconds" in header:
        parts.append(f"up {_duration(header['uptime_seconds'])}")
    if "readings" in header:
        parts.append(f"{header['readings']:,} readings")
    if header.get("dead_letters"):
        parts.append(f"{header['dead_letters']:,} dead letters")
    if "readings_per_second" in header:
        parts.append(f"{header['readings_per_second']:,.0f}/s")
    if "model" in header:
        parts.append(f"model {header['model']}")
    if "training" in header:
        parts.append(f"training {header['training']}")
    if "url" in header:
        parts.append(str(header["url"]))
    return parts


def _quantiles(summary: Mapping[str, Any]) -> Sequence[Sequence[float]]:
    rows: Sequence[Sequence[float]] = (summary.get("forecast") or {}).get("quantiles") or []
    return rows


def _median(summary: Mapping[str, Any], row: Sequence[float]) -> float:
    levels = list(summary["forecast"]["quantile_levels"])
    return row[levels.index(0.5) if 0.5 in levels else len(row) // 2]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _number(value: float | None) -> str:
    """At most seven characters for what sensors usually send, so that columns hold still."""
    if not _is_number(value):
        return "–"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.{0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3}f}"


def _percent(value: float | None) -> Text:
    return Text(f"{value:.0%}" if _is_number(value) else "–")


def _against_naive(ratio: float | None) -> Text:
    if not _is_number(ratio):
        return Text("–")
    gain = round((ratio - 1) * 100)
    return Text(
        f"{gain:+d}%".replace("-", "−").replace("+0", "±0"), style="green" if gain < 0 else "red" if gain > 0 else ""
    )


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def _printable(text: str) -> str:
    """Names come from outside; control characters in them must not steer the terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)
