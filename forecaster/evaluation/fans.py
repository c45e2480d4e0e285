"""Some forecasts of one stream beside what came, for a picture."""

from __future__ import annotations

import msgspec


class Fans(msgspec.Struct, frozen=True, kw_only=True):
    """Forecasts that follow one another, and the values around them."""

    times: list[float]
    values: list[float]
    origins: list[int]
    """Places in ``values``."""
    quantiles: list[list[list[float]]]
    """``[origins, H, Q]``."""
