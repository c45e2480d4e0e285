"""Splits a lock file in two: torch with its CUDA libraries, which may come from another index, and all the rest."""

from __future__ import annotations

import sys
from pathlib import Path

FROM_TORCH_INDEX = ("torch==", "triton==", "nvidia-", "cuda-")


def split(lock: str) -> tuple[str, str]:
    """The rest, and torch's part, of a lock file with one requirement and its hashes per entry."""
    parts: tuple[list[str], list[str]] = ([], [])
    current = parts[0]
    for line in lock.splitlines(keepends=True):
        if not line.startswith((" ", "#")):
            current = parts[1] if line.startswith(FROM_TORCH_INDEX) else parts[0]
        current.append(line)
    return "".join(parts[0]), "".join(parts[1])


if __name__ == "__main__":
    source, rest_path, torch_path = map(Path, sys.argv[1:])
    rest, torch_part = split(source.read_text())
    rest_path.write_text(rest)
    torch_path.write_text(torch_part)
