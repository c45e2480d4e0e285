"""docs/runbook.md names only settings and reasons that exist, and covers every reason."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel

from forecaster.cli.reloading import SAFE
from forecaster.records import Reason
from forecaster.settings import Settings

TEXT = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text(encoding="utf-8")


def setting_names() -> set[str]:
    names = set()
    for section, info in Settings.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            names |= {f"{section}.{field}" for field in info.annotation.model_fields}
    return names


def test_every_setting_it_names_exists():
    sections = "|".join(Settings.model_fields)

    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)", TEXT))

    assert len(named) > 20
    assert named <= setting_names()


def test_what_takes_effect_without_a_restart_is_listed():
    section = TEXT.partition("## To see more without a restart")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| (`telemetry[^|]+) \|", section, re.MULTILINE)

    assert {name for row in listed for name in re.findall(r"`([\w.]+)`", row)} == set(SAFE)


def test_every_reason_for_a_dead_letter_says_what_to_do():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| [^|]+ \| [^|]+ \|$", TEXT, re.MULTILINE)
    explained = {reason for row in rows for reason in re.findall(r"\w+", row)}

    assert explained == set(Reason)


def test_links_within_the_page_lead_to_headings():
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in TEXT.splitlines() if line.startswith("#")}

    assert set(re.findall(r"\(#([\w-]+)\)", TEXT)) <= headings
