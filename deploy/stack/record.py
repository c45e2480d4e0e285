"""Writes what a run of `deploy/test_stack.sh` measured to benchmarks/results/stack.json; docs/deployment.md quotes it.

deploy/stack/record.py first_forecast_seconds=61 image_bytes=…     # as test_stack.sh does, at the end of a run
deploy/stack/record.py                                             # the page again, from what is known
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "stack.json"
PAGE = ROOT / "docs" / "deployment.md"
BEGIN, END = "<!-- stack.json -->", "<!-- /stack.json -->"


def text(found: dict[str, Any]) -> str:
    """What the page says of the last run."""
    count = found["count"]
    torch = "CPU wheels of torch" if found["torch_index"] else "torch and its CUDA libraries from the package index"
    return (
        f"The last run ({found['engine']}, {found['cores']} cores, load {found['load']:.0f} when it began): with the "
        f"image built, the first forecast was on the dashboard {found['first_forecast_seconds']} s after "
        f"`docker-compose up`, and the first network served after {found['first_model_seconds']} s. The image, with "
        f"{torch}, takes {found['image_bytes'] / 1e9:.1f} GB. Of {count['readings']:,} readings {count['missing']} "
        f"were missing and {count['doubled']} doubled after a worker and then the broker had been killed, by a plain "
        "read-committed consumer (`deploy/stack/count.py`) as by `forecaster verify --complete`."
    )


def page(before: str, found: dict[str, Any]) -> str:
    """The page with that between its marks."""
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{text(found)}\n{END}{tail}"


def main(arguments: list[str]) -> None:
    if arguments:
        found = {name: _value(given) for name, _, given in (argument.partition("=") for argument in arguments)}
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    found = json.loads(RESULT.read_text("utf-8"))
    PAGE.write_text(page(PAGE.read_text("utf-8"), found), encoding="utf-8")


def _value(given: str) -> Any:
    try:
        return json.loads(given)
    except ValueError:
        return given


if __name__ == "__main__":
    main(sys.argv[1:])
