"""The readings a training looks at: columns per stream, cut, merged, handed between processes, laid out as ticks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from safetensors import SafetensorError

from forecaster.errors import TrainingFailed
from forecaster.series.columns import BoolArray, FloatArray, IntArray
from forecaster.series.rows import Rows
from forecaster.state.event_clock import EventClock


class Series(NamedTuple):
    """Readings of one stream, oldest first."""

    times: FloatArray
    """Event times in seconds, rising, ``[T]``."""
    values: FloatArray
    """``nan`` is a missing reading, ``[T]``."""
    covariates: FloatArray | None = None
    """``[T, C]``, ``nan`` where absent."""
    flagged: BoolArray | None = None
    """Readings in an anomaly that was raised when they came, ``[T]``; ``None`` where nobody has looked."""
    future: FloatArray | None = None
    """What was known of each lead when the reading was made, input after input, ``[T, K·H]``, ``nan`` where nothing."""

    @classmethod
    def with_beside(cls, times: FloatArray, values: FloatArray, beside: FloatArray, *, covariates: int) -> Series:
        """Readings and what stands beside each of them: C covariates, then what was known ahead, ``[T, C + K·H]``."""
        known = beside[:, covariates:]
        return cls(
            times,
            values,
            beside[:, :covariates] if covariates else None,
            future=known if known.shape[1] else None,
        )

    def at(self, rows: slice | FloatArray | IntArray) -> Series:
        """Some of the readings."""
        return Series._make(None if column is None else column[rows] for column in self)


class Ticks(NamedTuple):
    """One stream as serving steps it: a row for every step of its clock, with a value or without."""

    times: FloatArray
    values: FloatArray
    elapsed: FloatArray
    """Time since the tick before, in steps, ``[T]``."""
    skipped: IntArray
    """Steps the clock jumped before this tick because the gap was too long to walk through, ``[T]``; mostly 0."""
    covariates: FloatArray | None
    flagged: BoolArray | None = None
    """Ticks whose value was flagged as an anomaly, ``[T]``."""
    future: FloatArray | None = None

    def until(self, rows: int) -> Ticks:
        """The first so many ticks."""
        return Ticks._make(None if column is None else column[:rows] for column in self)


class History:
    """Readings by stream. Treat one as a value: every method gives a new one.

    Late and repeated readings are dropped here as serving refuses them: a reading counts only if it is newer than
    all before it.
    """

    def __init__(self, streams: Mapping[str, Series]) -> None:
        self.streams: dict[str, Series] = {}
        for stream_id, series in streams.items():
            times = np.asarray(series.times, np.float64)
            newest_before = np.concatenate(([-np.inf], np.maximum.accumulate(times)[:-1])) if len(times) else times
            on_time = times > newest_before
            clean = series._replace(times=times, values=np.asarray(series.values, np.float64))
            if on_time.any():
                self.streams[stream_id] = clean if on_time.all() else clean.at(np.flatnonzero(on_time))

    @property
    def readings(self) -> int:
        """Readings of all streams, those without a value among them."""
        return sum(len(series.times) for series in self.streams.values())

    @property
    def covariates(self) -> int:
        """Covariates per reading; 0 when there are none."""
        for series in self.streams.values():
            return 0 if series.covariates is None else series.covariates.shape[1]
        return 0

    @property
    def future(self) -> int:
        """Numbers known ahead at each reading; 0 when there are none."""
        for series in self.streams.values():
            return 0 if series.future is None else series.future.shape[1]
        return 0

    def span(self) -> tuple[float, float]:
        """Event times of the first and the last reading.

        Raises:
            TrainingFailed: there is none.
        """
        if not self.streams:
            raise TrainingFailed(
                "The training window holds no reading.", hint="Wait for readings, or widen training.window."
            )
        first = min(float(series.times[0]) for series in self.streams.values())
        return first, max(float(series.times[-1]) for series in self.streams.values())

    def trim(self, newest: int) -> History:
        """At most about ``newest`` readings: every stream keeps its newest ones, all about equally many."""
        lengths = np.array([len(series.times) for series in self.streams.values()])
        if lengths.sum() <= newest:
            return self
        # The largest common length under which the total still fits.
        low, high = 0, int(lengths.max())
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if np.minimum(lengths, middle).sum() <= newest else (low, middle - 1)
        return History(
            {
                name: series.at(slice(len(series.times) - low, None)) if len(series.times) > low else series
                for name, series in self.streams.items()
            }
            if low
            else {}
        )

    def where(self, takes: Callable[[str], bool]) -> History:
        """The streams whose name is taken."""
        return History({name: series for name, series in self.streams.items() if takes(name)})

    def without(self, periods: Mapping[str, Sequence[tuple[float, float]]]) -> History:
        """The same with the values of these periods missing; by stream, event times from and to."""
        kept = dict(self.streams)
        for name in kept.keys() & periods.keys():
            series = kept[name]
            hidden = np.zeros(len(series.times), np.bool_)
            for first, last in periods[name]:
                hidden |= (series.times >= first) & (series.times <= last)
            kept[name] = series._replace(values=np.where(hidden, np.nan, series.values))
        return History(kept)

    def flag(self, periods: Mapping[str, Sequence[tuple[float, float]]]) -> History:
        """The same with readings of these periods flagged; by stream, event times from and, not included, to."""
        marked = {}
        for name, series in self.streams.items():
            flagged = np.zeros(len(series.times), np.bool_) if series.flagged is None else series.flagged.copy()
            for first, end in periods.get(name, ()):
                flagged |= (series.times >= first) & (series.times < end)
            marked[name] = series._replace(flagged=flagged)
        return History(marked)

    def between(self, first: float, last: float) -> History:
        """Readings with ``first <= time <= last``."""
        kept = {}
        for name, series in self.streams.items():
            rows = slice(int(np.searchsorted(series.times, first)), int(np.searchsorted(series.times, last, "right")))
            kept[name] = series.at(rows)
        return History(kept)

    def merge(self, newer: History) -> History:
        """Readings of both; of ``newer`` only what comes after this one's last, stream by stream."""
        merged = dict(self.streams)
        for name, series in newer.streams.items():
            mine = merged.get(name)
            if mine is None:
                merged[name] = series
                continue
            covariates = future = flagged = None
            if mine.covariates is not None and series.covariates is not None:
                covariates = np.concatenate((mine.covariates, series.covariates))
            if mine.future is not None and series.future is not None:
                future = np.concatenate((mine.future, series.future))
            if mine.flagged is not None or series.flagged is not None:
                flagged = np.concatenate((_flags(mine), _flags(series)))
            times, values = (np.concatenate((getattr(mine, n), getattr(series, n))) for n in ("times", "values"))
            merged[name] = Series(times, values, covariates, flagged, future)
        return History(merged)

    def sample(self, streams: int, rng: np.random.Generator) -> History:
        """At most ``streams`` of the streams, drawn at random, in their order here."""
        if len(self.streams) <= streams:
            return self
        names = list(self.streams)
        chosen = np.sort(rng.choice(len(names), streams, replace=False))
        return History({names[k]: self.streams[names[k]] for k in chosen})

    def save(self, path: Path) -> None:
        """Write as a safetensors file: no pickle, so that a child process may read what it is handed."""
        series = list(self.streams.values())
        arrays = {
            "lengths": np.array([len(s.times) for s in series], np.int64),
            "times": np.concatenate([s.times for s in series]) if series else np.zeros(0),
            "values": np.concatenate([s.values for s in series]) if series else np.zeros(0),
        }
        if self.covariates:
            arrays["covariates"] = np.concatenate([s.covariates for s in series if s.covariates is not None])
        if self.future:
            arrays["future"] = np.concatenate([s.future for s in series if s.future is not None])
        if any(s.flagged is not None for s in series):
            arrays["flagged"] = np.concatenate([_flags(s) for s in series])
        safetensors.numpy.save_file(arrays, path, metadata={"stream_ids": json.dumps(list(self.streams))})

    @classmethod
    def load(cls, path: Path) -> History:
        """Read what `save` wrote.

        Raises:
            TrainingFailed: the file is absent, cut, or not a history.
        """
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                names = json.loads((file.metadata() or {})["stream_ids"])
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
            ends = np.cumsum(arrays["lengths"])
            streams = {}
            for name, length, end in zip(names, arrays["lengths"], ends, strict=True):
                rows = slice(int(end - length), int(end))
                beside = (arrays[key][rows] if key in arrays else None for key in ("covariates", "flagged", "future"))
                streams[name] = Series(arrays["times"][rows], arrays["values"][rows], *beside)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise TrainingFailed(
                f"History file {path} cannot be read: {error}", hint="Give a file written by History.save."
            ) from error
        return cls(streams)


def _flags(series: Series) -> BoolArray:
    return np.zeros(len(series.times), np.bool_) if series.flagged is None else series.flagged


def lay_out_ticks(series: Sequence[Series], *, max_gap_steps: int, step_seconds: float = 0.0) -> list[Ticks]:
    """Each stream as the ticks serving would step, by the same clock.

    A gap of at most ``max_gap_steps`` steps becomes ticks without a value; a longer one is jumped over, and the jump
    is noted in ``skipped``.

    Args:
        series: one per stream, times rising.
        max_gap_steps: missing steps that are walked through.
        step_seconds: declared step; 0 learns it per stream.
    """
    if not series:
        return []
    order = np.argsort([-len(s.times) for s in series], kind="stable")
    lengths = np.array([len(series[k].times) for k in order])
    starts = np.cumsum(lengths) - lengths
    times = np.concatenate([series[k].times for k in order])
    values = np.concatenate([series[k].values for k in order])
    steps, elapsed, step = np.ones(len(times), np.int64), np.ones(len(times)), np.zeros(len(times))
    clock = EventClock(step_seconds=step_seconds)
    columns = Rows(clock.columns, len(series))
    for reading in range(int(lengths[0])):
        slots = np.arange(int(np.searchsorted(-lengths, -reading)))  # the streams that have this many readings
        rows = starts[slots] + reading
        steps[rows], elapsed[rows] = clock.advance(columns, slots, times[rows], values[rows])
        step[rows] = columns["step"][slots]
    laid_out: list[Ticks | None] = [None] * len(series)
    for k, source in enumerate(order):
        own = slice(int(starts[k]), int(starts[k] + lengths[k]))
        laid_out[source] = _expand(series[source], steps[own], elapsed[own], step[own], max_gap_steps)
    return [ticks for ticks in laid_out if ticks is not None]


def _expand(series: Series, steps: IntArray, elapsed: FloatArray, step: FloatArray, max_gap_steps: int) -> Ticks:
    missed = steps - 1
    walked = np.where(missed <= max_gap_steps, missed, 0)
    rows = np.cumsum(walked + 1) - 1  # where each reading's own tick stands
    total = int(rows[-1]) + 1 if len(rows) else 0
    owner = np.repeat(np.arange(len(steps)), walked + 1)
    back = rows[owner] - np.arange(total)  # ticks until the reading this tick leads up to
    times = series.times[owner] - np.where(back > 0, elapsed[owner] + back - 1, 0.0) * step[owner]
    is_reading = back == 0
    skipped = np.zeros(total, np.int64)
    skipped[rows] = np.where(walked < missed, missed, 0)
    covariates, future = (
        None if beside is None else np.where(is_reading[:, None], beside[owner], np.nan)
        for beside in (series.covariates, series.future)
    )
    return Ticks(
        times=times,
        values=np.where(is_reading, series.values[owner], np.nan),
        elapsed=np.where(is_reading, elapsed[owner], 1.0),
        skipped=skipped,
        covariates=covariates,
        flagged=None if series.flagged is None else is_reading & series.flagged[owner],
        future=future,
    )
