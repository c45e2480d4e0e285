"""When streams were anomalous, from what was said of it."""

from __future__ import annotations

import math

from forecaster.training.history import History


def flagged_periods(marks: History) -> dict[str, list[tuple[float, float]]]:
    """Event times of anomalies by stream, from and, not included, to; endless while one is open.

    Args:
        marks: readings as `AnomalyMarks` makes them: ``nan`` where an anomaly was raised, else when the one was raised
            that is cleared here.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for name, series in marks.streams.items():
        periods, opened = found.setdefault(name, []), None
        for time, since in zip(series.times.tolist(), series.values.tolist(), strict=True):
            if math.isnan(since):
                opened = time
            else:
                periods.append((since, time))
                opened = None
        if opened is not None:
            periods.append((opened, math.inf))
    return found
