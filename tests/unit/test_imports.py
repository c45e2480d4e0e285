"""Imports point down: the contract of pyproject.toml, checked without its tool."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "forecaster"


def contracts(kind: str) -> list[dict[str, object]]:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [contract for contract in table["tool"]["importlinter"]["contracts"] if contract["type"] == kind]


def layers() -> list[list[str]]:
    """From the highest to the lowest; neighbours of one layer stand together."""
    (contract,) = contracts("layers")
    return [layer.replace(" ", "").split("|") for layer in contract["layers"]]  # type: ignore[attr-defined]


def modules() -> dict[str, Path]:
    """Dotted name of every module and its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(source: str) -> Iterator[str]:
    """Dotted names of everything a module imports, inside functions and for type checkers too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


def rank(room: str) -> int:
    return next(k for k, layer in enumerate(layers()) if room in layer)


def wrong_imports(name: str, source: str) -> list[str]:
    """What this module imports from above its layer, or from a neighbour in it."""
    room = name.split(".")[1]
    wrong = []
    for target in imported(source):
        parts = target.split(".")
        if parts[0] != "forecaster" or len(parts) < 2 or parts[1] == room:
            continue
        if rank(parts[1]) <= rank(room):
            wrong.append(f"{name} -> {target}")
    return wrong


def within(name: str, packages: object) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)  # type: ignore[attr-defined]


def test_every_room_has_its_place_in_the_layers():
    rooms = {name.split(".")[1] for name in MODULES if name.count(".")} - {"__main__"}

    assert rooms == {room for layer in layers() for room in layer}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("forecaster", "forecaster.__main__")])
def test_no_module_imports_from_above_or_beside(name):
    assert wrong_imports(name, MODULES[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("contract", contracts("protected"), ids=lambda contract: str(contract["name"]))
def test_protected_modules_are_imported_by_those_allowed_alone(contract):
    importers = {
        name
        for name, path in MODULES.items()
        if any(within(target, contract["protected_modules"]) for target in imported(path.read_text(encoding="utf-8")))
    }

    assert importers, "nobody imports it: the contract is out of date"
    assert [
        name
        for name in importers
        if not within(name, contract["allowed_importers"]) and not within(name, contract["protected_modules"])
    ] == []


@pytest.mark.parametrize(
    ("name", "source", "is_wrong"),
    [
        ("forecaster.engine.x", "from forecaster.transports.kafka_source import KafkaSource", True),
        ("forecaster.engine.x", "def f():\n    import forecaster.daemon", True),
        ("forecaster.engine.x", "from forecaster import settings", True),
        ("forecaster.engine.x", "from forecaster.training.train import train_once", True),
        ("forecaster.engine.x", "from forecaster.engine.task import PartitionTask", False),
        ("forecaster.engine.x", "from forecaster.models.cells import WAVE_TILE\nimport numpy", False),
        ("forecaster.app", "from forecaster.engine.task import PartitionTask", False),
    ],
)
def test_the_check_finds_what_it_should(name, source, is_wrong):
    assert bool(wrong_imports(name, source)) is is_wrong
