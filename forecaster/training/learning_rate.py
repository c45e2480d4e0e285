"""Learning rate and momentum at each step of a fit, as a pure function of the step: there is nothing to save."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["one_cycle", "cosine", "constant"]

_RISING_SHARE = 0.3
_FIRST_DIVISOR = 25.0
_LAST_DIVISOR = 1e4
_LEAST_MOMENTUM, _MOST_MOMENTUM = 0.85, 0.95


def pace(schedule: Schedule, step: int, *, steps: int, peak: float, momentum: float) -> tuple[float, float]:
    """Learning rate and momentum (first beta of Adam) for one optimiser step.

    * ``one_cycle`` rises from peak/25 over three tenths of the steps, then falls to peak/250,000; momentum goes the
      other way, between 0.95 and 0.85, whatever ``momentum`` says.
    * ``cosine`` falls from the peak to nearly nothing.
    * ``constant`` stays at the peak.

    Args:
        schedule: its name.
        step: the one to be made, 1..steps.
        steps: of the whole fit.
        peak: highest learning rate.
        momentum: of the schedules that leave it alone.

    Source: Smith & Topin (2018), "Super-Convergence", arXiv:1708.07120; Loshchilov & Hutter (2017), "SGDR",
    arXiv:1608.03983 (cosine, without restarts).

    >>> pace("constant", 7, steps=10, peak=0.1, momentum=0.9)
    (0.1, 0.9)
    >>> [round(pace("cosine", step, steps=4, peak=1.0, momentum=0.9)[0], 3) for step in (1, 3, 4)]
    [1.0, 0.5, 0.146]
    """
    if schedule == "constant":
        return peak, momentum
    if schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * (step - 1) / steps)), momentum
    first = peak / _FIRST_DIVISOR
    top = _RISING_SHARE * steps - 1.0
    at = step - 1
    if at <= top:
        share = at / top
        return _anneal(first, peak, share), _anneal(_MOST_MOMENTUM, _LEAST_MOMENTUM, share)
    share = (at - top) / (steps - 1 - top)
    return _anneal(peak, first / _LAST_DIVISOR, share), _anneal(_LEAST_MOMENTUM, _MOST_MOMENTUM, share)


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1.0)
