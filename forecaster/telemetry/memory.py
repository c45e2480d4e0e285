"""How much memory this process may take before the system ends it."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def memory_limit_bytes(cgroup: Path = _CGROUP) -> int:
    """The container's limit (control groups, version 2 or 1) where there is one below it, else the machine's memory.

    Args:
        cgroup: where control groups are mounted; a container sees its own there.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [machine]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (cgroup / name).read_text(encoding="ascii").strip()
        except OSError:  # not that version, or none
            continue
        if text.isdigit():  # else "max": no limit
            limits.append(int(text))
    return min(limits)
