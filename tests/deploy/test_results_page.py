"""The page of results and that of scaling: what they say follows from the files, and a goal missed is said to be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
IDLE = {"machine": {"load_before": 0.2, "cores": 2}}


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_results", ROOT / "benchmarks" / "make_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(pages: ModuleType, found: dict[str, Any]) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in pages.goals(found).splitlines() if line.startswith("| ")]
    return {cells[0]: [cell.strip() for cell in cells[1:]] for cells in lines[2:]}


def test_the_pages_are_those_that_follow_from_the_figures(pages: ModuleType) -> None:
    found = pages.read_all()

    assert (ROOT / "benchmarks" / "RESULTS.md").read_text() == pages.results_page(found), "benchmarks/make_results.py"
    assert (ROOT / "docs" / "scaling.md").read_text() == pages.scaling_page(found), "run benchmarks/make_results.py"


@pytest.mark.parametrize(("rows", "ratio", "said"), [(1_024, 0.5, "met"), (1_024, 0.4, "missed: 0.80 of it")])
def test_a_goal_that_is_a_least_is_met_from_it_on(pages: ModuleType, rows: int, ratio: float, said: str) -> None:
    found = rows_of(pages, {"step": {**IDLE, "cells": [{"rows": rows, "ratio": ratio}]}})

    assert found["products of the step ÷ step, waves of 1,024"] == ["≥ 0.5", f"{ratio:g}", said]


@pytest.mark.parametrize(("share", "said"), [(0.02, "met"), (0.03, "missed: 1.50 times")])
def test_a_goal_that_is_a_most_is_met_up_to_it_by_the_worst(pages: ModuleType, share: float, said: str) -> None:
    figures = [{"cpu_share": {"median": 0.001}}, {"cpu_share": {"median": share}}]

    assert rows_of(pages, {"rest": {**IDLE, "figures": figures}})["idle worker, share of a core"][2] == said


def test_what_was_not_measured_is_said_to_be_so(pages: ModuleType) -> None:
    assert {cells[1] for cells in rows_of(pages, {}).values()} == {"not measured"}


def test_latency_goals_take_the_newest_figure_of_the_default_client_at_their_rate(pages: ModuleType) -> None:
    figure = {"client": "batched", "delivery": "at_least_once", "readings_per_second": 1_000, "cpu_share": 0.2}
    older, newer = ({**figure, "p50_ms": p50, "p99_ms": 60.0} for p50 in (99.0, 20.0))
    other = {**figure, "readings_per_second": 100, "p50_ms": 1.0, "p99_ms": 1.0}

    found = rows_of(pages, {"latency": {**IDLE, "figures": [older, newer, other]}})

    assert found["latency at 1,000/s, at least once, p50"] == ["≤ 25 ms", "20 ms", "met"]


@pytest.mark.parametrize(("load", "is_told"), [(2.0, False), (2.5, True)])
def test_figures_taken_on_a_busy_machine_are_named(pages: ModuleType, load: float, is_told: bool) -> None:
    busy = {"machine": {"load_before": load, "cores": 2}, "cells": []}

    assert ("`step`" in pages.goals({"step": busy})) == is_told
