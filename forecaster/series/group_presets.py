"""What suits some kinds of streams, as a group's preset says it at once.

Chosen by what such streams are like, not by measurement; what a group says itself goes before them.
"""

from __future__ import annotations

from typing import NamedTuple


class GroupPreset(NamedTuple):
    """Settings of a group by kind of streams."""

    season: str
    """As ``forecast.seasons`` has one; ``0`` for none."""
    anomalies: str
    """``anomalies.preset``."""
    training: dict[str, object]
    """Settings of the section ``training``."""


GROUP_PRESETS = {
    # A heart has no clock that a horizon of minutes could follow, and what it did last week is another condition. A
    # beat read twice or not at all is no target to learn from.
    "heart-rate": GroupPreset("0", "heart-rate", {"window": "3d", "outliers": "hampel", "outlier_treatment": "mask"}),
    # Rooms and weather have days; four weeks hold both kinds of them four times. A reading lost in between is like its
    # neighbours.
    "sensor": GroupPreset("1d", "sensor", {"window": "28d", "missing": "interpolate"}),
    # Load follows the day of its users; spikes are part of it and stay.
    "server-metrics": GroupPreset("1d", "server-metrics", {"window": "14d", "outliers": "none"}),
}
