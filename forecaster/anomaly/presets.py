"""What is usual for some kinds of streams."""

from __future__ import annotations

from typing import NamedTuple


class Preset(NamedTuple):
    """Rules that depend on what is measured."""

    min_readings: int
    """Readings in a row that have to reach the threshold."""
    min_relative_deviation: float
    """From the forecast median, as a share of it."""
    clear_after: int
    """Quiet readings in a row after which an anomaly is over."""
    flat_readings: int
    """Equal values in a row that make a stuck sensor; 0 for never."""
    gap_steps: int
    """Missing steps that make a silent one; 0 for never."""


PRESETS = {
    "general": Preset(1, 0.0, 12, 60, 10),
    # One beat read wrongly is no event, a belt that slips is; a heart at rest holds a whole number for minutes.
    "heart-rate": Preset(3, 0.1, 24, 240, 12),
    # Quantised and slow: what lasts for two readings is real, what stands still may be a stuck element.
    "sensor": Preset(2, 0.0, 12, 60, 10),
    # One reading is one scrape: a spike is worth a look, an idle counter is not.
    "server-metrics": Preset(1, 0.05, 12, 0, 5),
}
