"""What the benchmark scripts share: public series as arrays."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from forecaster.codecs.timestamps import parse_time
from forecaster.series.columns import FloatArray

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def read_table(path: Path, time_column: str, columns: Sequence[str] = ()) -> tuple[list[str], FloatArray, FloatArray]:
    """Names ``[N]``, times ``[T]`` and values ``[T, N]`` of a regular table; an empty cell is ``nan``."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(columns) or [name for name in rows[0] if name != time_column]
    times = np.array([parse_time(row[time_column]) for row in rows])
    return names, times, np.array([[float(row[name] or "nan") for name in names] for row in rows])
