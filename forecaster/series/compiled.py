"""Loops over the streams of a wave in machine code: the one place that knows the compiler.

A kernel is a plain function over arrays with a loop over rows, one stream each. A row reads nothing of any other, and
no value of it depends on how many rows there are, so that forecasts are the same to the bit however records fall into
waves. A kernel calls kernels of its own file alone, and takes what other files define as arguments: what is kept of it
on disk is made anew when its file changes, and no other. ``NUMBA_DISABLE_JIT=1`` runs all of them as Python, for a
debugger.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

# For any processor of its kind: what was compiled in an image serves on every host, with the same bits. Without the
# vector library that some installations of numba bring, whose logarithm depends on a row's place in the wave.
os.environ.setdefault("NUMBA_CPU_NAME", "generic")
os.environ.setdefault("NUMBA_CPU_FEATURES", "")
os.environ.setdefault("NUMBA_DISABLE_INTEL_SVML", "1")

P = ParamSpec("P")
R = TypeVar("R")


def cache_beside(package: Path) -> Path | None:
    """Where kernels are kept while the package cannot be written to, as in a read-only image: a directory of this
    process and its children. ``None`` where they are kept in the package, or where the operator said."""
    if "NUMBA_CACHE_DIR" in os.environ or os.access(package, os.W_OK):
        return None
    try:
        directory = Path(tempfile.mkdtemp(prefix="forecaster-kernels-"))
    except OSError:
        return None  # numba looks for a place in the home directory, and says so where there is none
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = str(directory)
    return directory


_PACKAGE = Path(__file__).resolve().parents[1]
_beside = cache_beside(_PACKAGE)

import numba  # noqa: E402 # reads the environment
from numba.core.caching import FunctionCache, UserProvidedCacheLocator  # noqa: E402 # loads numba


def bring_kept(package: Path, directory: Path) -> None:
    """Copy what was compiled when the image was built to where it can be added to."""
    for kept in package.glob("*/__pycache__/*.nb[ic]"):
        source = package / kept.parent.parent.name / "kernels.py"  # any file there
        subpath: str = UserProvidedCacheLocator.get_suitable_cache_subpath(str(source))
        place = directory / subpath
        place.mkdir(exist_ok=True)
        shutil.copyfile(kept, place / kept.name)


if _beside is not None:
    bring_kept(_PACKAGE, _beside)

_kernels: list[Any] = []
log = logging.getLogger(__name__)


class _Kept(FunctionCache):  # type: ignore[misc] # numba has no types
    """Kernels on disk, without which a process starts all the same: it compiles."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except (
            EOFError,
            OSError,
            AttributeError,
            ImportError,
            LookupError,
            ValueError,
            pickle.UnpicklingError,
        ) as error:
            # Torn, as a host that lost its power leaves a file, or of an installation that was half replaced.
            self._tell("read", error)
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            self._tell("kept", error)

    def _tell(self, doing: str, error: Exception) -> None:
        log.warning(
            f"a compiled loop cannot be {doing}; it is compiled at this start",
            extra={"directory": self.cache_path, "error": f"{type(error).__name__}: {error}"},
        )


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """This function in machine code, made at its first call and kept on disk for the next process.

    Arithmetic is that of numpy: a division by zero is infinite, nothing is reordered or fused. Array arguments are
    of the same types and layout at every call, columns of `Rows`, others C-contiguous: for another it would be compiled
    once more.
    """
    made: Any = numba.njit(error_model="numpy")(function)
    if not numba.config.DISABLE_JIT:
        with contextlib.suppress(RuntimeError):  # there is no place to keep it
            made._cache = _Kept(function)
        _kernels.append(made)
    return made  # type: ignore[no-any-return] # as Python where NUMBA_DISABLE_JIT says so


def compilations() -> int:
    """How many pairs of a kernel and types of its arguments are ready in this process."""
    return sum(len(kernel.signatures) for kernel in _kernels)
