"""The memory a process may take: its container's limit, or the machine's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forecaster.telemetry.memory import memory_limit_bytes

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"], ids=["version 2", "version 1"])
def test_the_limit_of_the_container_is_taken(tmp_path: Path, name: str):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("268435456\n")

    assert memory_limit_bytes(tmp_path) == 268_435_456


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", ""], ids=["none", "none in version 1", "empty"])
def test_without_a_limit_it_is_the_memory_of_the_machine(tmp_path: Path, text: str):
    (tmp_path / "memory.max").write_text(text)

    assert memory_limit_bytes(tmp_path) == MACHINE


def test_without_control_groups_it_is_the_memory_of_the_machine(tmp_path: Path):
    assert memory_limit_bytes(tmp_path / "nowhere") == MACHINE
