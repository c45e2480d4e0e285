"""How findings are shown to a person, and what exit code they mean."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forecaster.transports.kafka_checks import Finding, Level

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """One row each, hints below what they are about, and a count at the end."""
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        # Text, not str: names of topics and streams may hold what would be read as markup.
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), Text(finding.about), Text(finding.found))
        if finding.hint:
            table.add_row("", "", Text(f"→ {finding.hint}", style="dim"))
    console.print(table)
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    console.print(f"\n{_plural(counts[Level.PROBLEM], 'problem')}, {_plural(counts[Level.WARNING], 'warning')}.")


def exit_code(findings: Sequence[Finding]) -> int:
    """1 where there is a problem, else 0."""
    return int(any(finding.level is Level.PROBLEM for finding in findings))


def _plural(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
