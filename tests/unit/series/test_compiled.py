"""Rules that kernels keep, and where they are kept."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.caching import CacheImpl

from forecaster.series import compiled as compiled_module
from forecaster.series.compiled import cache_beside, compiled

PACKAGE = Path(compiled_module.__file__).parents[1]


def kernels_of(tree):
    return [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id == "compiled" for mark in node.decorator_list)
    ]


def names_from_other_files(tree):
    """What a file imports from the package."""
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("forecaster")
        for alias in node.names
    }


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if kernels_of(ast.parse(path.read_text()))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_kernel_uses_nothing_of_another_file(path):
    """What is kept of it on disk is made anew when its own file changes, and not when another one does."""
    tree = ast.parse(path.read_text())
    foreign = names_from_other_files(tree)

    used = {
        (kernel.name, node.id)
        for kernel in kernels_of(tree)
        for statement in kernel.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and node.id in foreign
    }

    assert FILES
    assert not used


def test_a_kernel_is_the_function_it_was_made_of():
    @compiled
    def halves(values, out):
        for row in range(len(values)):
            out[row] = 1.0 / values[row]

    found = np.empty(3)
    halves(np.array([2.0, 0.0, np.nan]), found)

    np.testing.assert_array_equal(found, [0.5, np.inf, np.nan])


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(monkeypatch):
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])

    @compiled
    def doubled(value):
        return 2.0 * value

    assert doubled(1.5) == 3.0


@pytest.mark.parametrize("left", [0, 100])
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_a_torn_file_is_compiled_again_and_made_whole(tmp_path, ending, left):
    """As a host that lost its power leaves it: without this no process would start until somebody removed it."""
    (tmp_path / "kernels.py").write_text(
        "from forecaster.series.compiled import compiled\n\n@compiled\ndef doubled(value):\n    return 2.0 * value\n"
    )
    program = "import kernels; print(kernels.doubled(1.5), sum(kernels.doubled.stats.cache_hits.values()))"

    def run():
        command = [sys.executable, "-c", program]
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept"), "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, cwd=PACKAGE.parent, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert run() == ["3.0", "0"]
    (kept,) = (tmp_path / "kept").rglob(f"*.{ending}")
    kept.write_bytes(kept.read_bytes()[:left])

    assert run() == ["3.0", "0"]
    assert run() == ["3.0", "1"]


def test_where_the_package_cannot_be_written_to_kernels_are_kept_beside_it(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    directory = cache_beside(PACKAGE)

    assert directory is not None
    assert directory.parent == tmp_path
    assert os.environ["NUMBA_CACHE_DIR"] == str(directory)
    assert directory.stat().st_mode & 0o077 == 0, "machine code that others could write is not run"


def test_where_it_can_or_the_operator_said_otherwise_they_stay(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere")
    said = cache_beside(tmp_path / "absent")
    monkeypatch.delenv("NUMBA_CACHE_DIR")

    assert (said, cache_beside(tmp_path)) == (None, None)


IN_AN_IMAGE = """
import os
os.access = lambda path, mode: False  # as for an ordinary user on a disk that cannot be written
from forecaster.app import compile_kernels
from forecaster.series import compiled
compile_kernels()
missed = [kernel.__name__ for kernel in compiled._kernels if sum(kernel.stats.cache_misses.values())]
found = sum(sum(kernel.stats.cache_hits.values()) for kernel in compiled._kernels)
print(found, missed, os.environ["NUMBA_CACHE_DIR"])
"""


@pytest.mark.slow
def test_what_an_image_was_built_with_is_not_compiled_again_where_nothing_can_be_written():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}

    def run(program):
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True).stdout

    run("from forecaster.app import compile_kernels; compile_kernels()")
    found, missed, directory = run(IN_AN_IMAGE).split(maxsplit=2)

    assert missed == "[]"
    assert int(found) > 20
    assert not Path(directory.strip()).exists(), "it is removed at the end"
