"""Findings as a person reads them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from forecaster.cli.findings import exit_code, print_findings
from forecaster.transports.kafka_checks import Finding, Level


def finding(level: Level, found: str = "as it should be", hint: str = "") -> Finding:
    return Finding(level=level, about="topic readings", found=found, hint=hint)


def printed(*findings: Finding) -> str:
    text = io.StringIO()
    print_findings(findings, Console(file=text, width=100))
    return text.getvalue()


def test_each_finding_is_a_row_with_its_hint_below_and_all_are_counted():
    text = printed(finding(Level.OK), finding(Level.WARNING, "odd", "mend it"), finding(Level.WARNING, "odder"))

    lines = [line.split("  ") for line in text.splitlines()]
    assert [[part.strip() for part in line if part.strip()] for line in lines] == [
        ["ok", "topic readings", "as it should be"],
        ["warning", "topic readings", "odd"],
        ["→ mend it"],
        ["warning", "topic readings", "odder"],
        [],
        ["no problems, 2 warnings."],
    ]


def test_brackets_in_what_was_found_are_shown_and_not_taken_for_markup():
    assert "stream '[red]' [/] [0]" in printed(finding(Level.PROBLEM, "stream '[red]' [/] [0]"))


@pytest.mark.parametrize(
    ("levels", "code"),
    [([], 0), ([Level.OK, Level.WARNING], 0), ([Level.OK, Level.PROBLEM, Level.WARNING], 1)],
)
def test_only_a_problem_makes_the_exit_code_1(levels, code):
    assert exit_code([finding(level) for level in levels]) == code
