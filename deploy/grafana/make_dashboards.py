"""Writes deploy/grafana/dashboards/*.json from the Python beside it; to be run after a change of source or metrics."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "source"))

import fleet  # noqa: E402 - the folder of sources is no package
import model  # noqa: E402
import operations  # noqa: E402
import stream  # noqa: E402
from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: E402

SOURCES = {"fleet": fleet, "stream": stream, "model": model, "operations": operations}


def documents() -> dict[str, str]:
    """File name -> what it has to hold."""
    return {
        f"{name}.json": json.dumps(source.dashboard().build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, source in SOURCES.items()
    }


if __name__ == "__main__":
    for name, text in documents().items():
        (HERE / "dashboards" / name).write_text(text, encoding="utf-8")
