"""docs/reliability.md says what the figures say, and is as new as they are."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from forecaster.crash_points import PLACES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reliability", DOCS / "make_reliability.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(*, without: tuple[float, float, float], warm: tuple[float, float, float]) -> dict[str, Any]:
    """Fail-over at 1,000 streams; least, median and greatest."""
    names = ("min", "median", "max")
    return {
        "settings": {"commit_ms": 200},
        "runs": [
            {"streams": 1_000, "standby": number, "beyond_the_session_seconds": dict(zip(names, spread, strict=True))}
            for number, spread in enumerate((without, warm))
        ],
    }


@pytest.mark.parametrize(
    ("without", "warm", "told"),
    [
        ((0.7, 0.9, 1.1), (0.1, 0.2, 0.3), "took 0.70 s from the median; 0.20 s is within two commit intervals"),
        ((0.4, 0.9, 1.1), (0.1, 0.6, 0.7), "less than single kills differ by; 0.60 s is beyond two commit intervals"),
        ((0.1, 0.2, 0.3), (0.1, 0.3, 0.5), "gained nothing (0.10 s more in the median)"),
    ],
)
def test_the_sentence_about_the_standby_follows_the_figures(
    page: ModuleType, without: tuple[float, float, float], warm: tuple[float, float, float], told: str
) -> None:
    assert told in page.gained(figures(without=without, warm=warm))


def test_of_each_fault_test_the_newest_run_is_shown(
    page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = {"test": "test_a", "file": "test_x.py", "is_long": True, "commit": "1234567", "date": "2026-01-01"}
    run = {"workers": 3, "readings": 10, "killed_at_places": {"mid_send": 2}, "killed_at_random": 1}
    lines = [
        {**line, "seconds": 1.0, "found": ["audited"], **run, "readings": 5},
        {**line, "seconds": 2.0, "found": ["audited", "byte-equal"], **run, "reasons": ["1: forecaster run: Fenced."]},
        {**line, "test": "test_b", "seconds": 4.0, "is_long": False},
    ]
    (tmp_path / "faults.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    monkeypatch.setattr(page, "RESULTS", tmp_path)

    shown = page.faults()

    assert "| a (`tests/fault/test_x.py`) | long | 3 | 3 | 10 | yes | 2 s | 2026-01-01, 1234567 |" in shown
    assert "| b (`tests/fault/test_x.py`) | short | – | – | – | – | 4 s |" in shown
    assert "killed 3 times" in shown
    assert "1 × `forecaster run: Fenced.`" in shown


def test_every_named_place_is_described(page: ModuleType) -> None:
    assert all(f"| `{place}` |" in page.places() for place in PLACES)


def test_the_page_is_as_new_as_its_results(page: ModuleType) -> None:
    assert (DOCS / "reliability.md").read_text() == page.render(), "run docs/make_reliability.py"
