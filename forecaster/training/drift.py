"""Noticing that a loss has risen for good: ADWIN, Page-Hinkley, and a trigger with a pause after each alarm.

Both detectors see one number at a time, keep little, and are deterministic. They suppose values that are independent
while nothing changes; losses of overlapping forecasts are not, so feed them means over about a horizon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DriftStatistics:
    """Where the detectors stand; what none of them keeps is ``nan``."""

    alarms: Mapping[str, int]
    """By detector, each that there is; one moment may be an alarm of several."""
    alarmed_at: float
    """Event time of the last one; ``nan`` before the first."""
    window_mean: float = math.nan
    """Of loss / (1 + loss), over the losses that ADWIN holds for alike; ``nan`` for none."""
    window_width: float = math.nan
    """How many losses those are."""
    climb: float = math.nan
    """Page-Hinkley's sum above its lowest."""


class Detector(Protocol):
    """Watches one stream of numbers for a rise of its mean."""

    name: str

    def update(self, value: float) -> bool:
        """Take a value in; whether the mean has risen."""

    def reset(self) -> None:
        """Forget everything."""


class Adwin:
    """A window that drops its older part when that part's mean differs from the newer's by more than chance allows.

    The window is an exponential histogram: at most ``buckets`` buckets of each size 1, 2, 4, …, so memory and time are
    O(buckets · log n). `update` says whether a drop happened because the newer mean is *higher*; a fall shortens the
    window too, silently.

    Args:
        delta: bound on the chance of a false cut at one value, for independent values in [0, 1].
        buckets: of each size, M of the paper.
        every: values between two tests.

    Source: Bifet & Gavaldà (2007), "Learning from Time-Changing Data with Adaptive Windowing", Theorem 3.1 in its
    variance form, with δ' = δ/ln n.

    >>> detector = Adwin()
    >>> any(detector.update(0.2) for _ in range(300)), any(detector.update(0.8) for _ in range(60))
    (False, True)
    """

    name = "adwin"

    def __init__(self, *, delta: float = 0.002, buckets: int = 5, every: int = 8) -> None:
        self._delta, self._most, self._every = delta, buckets, every
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._rows: list[list[tuple[float, float]]] = [[]]  # by size 2^k, newest last: sum, sum of squared deviations
        self._width, self._total, self._spread, self._since = 0, 0.0, 0.0, 0

    @property
    def width(self) -> int:
        """Values in the window."""
        return self._width

    @property
    def mean(self) -> float:
        """Of the window; 0 for an empty one."""
        return self._total / self._width if self._width else 0.0

    @property
    def buckets(self) -> int:
        """Kept at present: what memory is in proportion to."""
        return sum(len(row) for row in self._rows)

    def update(self, value: float) -> bool:
        """Take a value in [0, 1] in; whether the window was cut because the mean has risen."""
        if self._width:
            self._spread += (value - self.mean) ** 2 * self._width / (self._width + 1)
        self._rows[0].append((value, 0.0))
        self._width, self._total, self._since = self._width + 1, self._total + value, self._since + 1
        self._compress()
        if self._since < self._every:
            return False
        self._since = 0
        has_risen = False
        while (cut := self._cut()) is not None:
            has_risen |= cut
            self._drop_oldest()
        return has_risen

    def _compress(self) -> None:
        """Merge the two oldest buckets of a size that has too many into one of the next size."""
        size = 0
        while len(self._rows[size]) > self._most:
            (first, first_spread), (second, second_spread) = self._rows[size][:2]
            del self._rows[size][:2]
            count = 2**size
            merged = first_spread + second_spread + (first - second) ** 2 / (2 * count)
            if size + 1 == len(self._rows):
                self._rows.append([])
            self._rows[size + 1].append((first + second, merged))
            size += 1

    def _cut(self) -> bool | None:
        """Whether the newer part's mean is higher at the first place where the parts differ; ``None`` where none is."""
        if self._width < 2 * self._every:
            return None
        confidence = math.log(2.0 * math.log(self._width) / self._delta)
        variance = self._spread / self._width
        count, total = 0, 0.0
        for size in range(len(self._rows) - 1, -1, -1):
            for bucket_total, _ in self._rows[size]:
                count, total = count + 2**size, total + bucket_total
                rest = self._width - count
                if min(count, rest) < self._every:
                    continue
                difference = (self._total - total) / rest - total / count
                harmonic = 1.0 / (1.0 / count + 1.0 / rest)
                bound = math.sqrt(2.0 * variance * confidence / harmonic) + 2.0 * confidence / (3.0 * harmonic)
                if abs(difference) > bound:
                    return bool(difference > 0)
        return None

    def _drop_oldest(self) -> None:
        size = len(self._rows) - 1
        total, spread = self._rows[size].pop(0)
        count = 2**size
        rest = self._width - count
        mean, rest_mean = total / count, (self._total - total) / rest
        self._spread = max(self._spread - spread - (mean - rest_mean) ** 2 * count * rest / self._width, 0.0)
        self._width, self._total = rest, self._total - total
        while len(self._rows) > 1 and not self._rows[-1]:
            self._rows.pop()


class PageHinkley:
    """A cumulative sum of what lies above the mean so far, less a tolerance; alarm when it climbs by ``threshold``.

    Args:
        tolerance: rise of the mean that is let pass.
        threshold: λ, in the values' units times values.
        least: values before the first alarm.

    Source: Page (1954), "Continuous Inspection Schemes"; Hinkley (1971), "Inference about the change-point from
    cumulative sum tests".

    >>> detector = PageHinkley(threshold=2.0)
    >>> any(detector.update(0.2) for _ in range(300)), any(detector.update(0.8) for _ in range(10))
    (False, True)
    """

    name = "page_hinkley"

    def __init__(self, *, tolerance: float = 0.01, threshold: float = 8.0, least: int = 30) -> None:
        self._tolerance, self._threshold, self._least = tolerance, threshold, least
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._seen, self._mean, self._sum, self._lowest = 0, 0.0, 0.0, 0.0

    @property
    def climb(self) -> float:
        """How far the sum is above its lowest; an alarm is due beyond ``threshold``."""
        return self._sum - self._lowest

    def update(self, value: float) -> bool:
        """Take a value in; whether the mean has risen. After an alarm it begins anew."""
        self._seen += 1
        self._mean += (value - self._mean) / self._seen
        self._sum += value - self._mean - self._tolerance
        self._lowest = min(self._lowest, self._sum)
        if self._seen >= self._least and self.climb > self._threshold:
            self.reset()
            return True
        return False


class DriftTrigger:
    """An alarm when any detector sees the scaled loss rise, and then silence for a while.

    Args:
        detectors: they see the loss on a scale from 0 to 1, `loss / (1 + loss)`.
        pause_seconds: event time after an alarm in which there is no other; the detectors begin anew after it, as the
            next model's loss is another.
    """

    def __init__(self, detectors: Sequence[Detector], *, pause_seconds: float) -> None:
        self._detectors, self._pause = tuple(detectors), pause_seconds
        self._silent_until, self._alarmed_at = -math.inf, math.nan
        self._alarms = {detector.name: 0 for detector in self._detectors}

    def statistics(self) -> DriftStatistics:
        """Where the detectors stand now. Within the pause after an alarm they know of no loss."""
        found = DriftStatistics(dict(self._alarms), self._alarmed_at)
        for detector in self._detectors:
            if isinstance(detector, Adwin):
                mean = detector.mean if detector.width else math.nan
                found = replace(found, window_mean=mean, window_width=detector.width)
            elif isinstance(detector, PageHinkley):
                found = replace(found, climb=detector.climb)
        return found

    def update(self, loss: float, event_time: float) -> bool:
        """Take the mean loss of a moment in; whether a training should begin.

        Args:
            loss: not negative, in units of each stream's scale; a number that is not finite is left out.
            event_time: of the moment, seconds.
        """
        if not math.isfinite(loss) or event_time < self._silent_until:
            return False
        bounded = loss / (1.0 + loss)
        alarms = [detector.update(bounded) for detector in self._detectors]  # each of them has to see it
        if not any(alarms):
            return False
        for detector, alarm in zip(self._detectors, alarms, strict=True):
            self._alarms[detector.name] += alarm
        self._silent_until, self._alarmed_at = event_time + self._pause, event_time
        for detector in self._detectors:
            detector.reset()
        return True
