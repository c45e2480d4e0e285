"""Waves: readings of different streams that are stepped together, and how records become waves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from forecaster.models.cells import WAVE_TILE
from forecaster.records import Observation
from forecaster.series.columns import FloatArray, IntArray
from forecaster.series.groups import DEFAULT
from forecaster.state.streams import SCRATCH

T = TypeVar("T", bound=np.generic)


@dataclass(slots=True)
class Wave:
    """Readings of ``B`` different streams, in arrival order."""

    slots: IntArray
    """Rows of the streams, each at most once, ``[B]``."""
    times: FloatArray
    values: FloatArray
    """``nan`` is a missing reading, ``[B]``."""
    covariates: FloatArray | None
    """``[B, C]``, ``None`` when no covariates are configured."""
    tags: IntArray
    """What the caller knows each reading by, ``[B]``."""
    group: str = DEFAULT
    """Of all its streams: one network answers them."""
    future: FloatArray | None = None
    """What is known of each lead, ``[B, K·H]``; ``None`` when nothing known ahead is configured."""

    def __len__(self) -> int:
        return len(self.slots)

    def take(self, rows: IntArray) -> Wave:
        """The readings at these rows."""
        covariates = None if self.covariates is None else self.covariates[rows]
        future = None if self.future is None else self.future[rows]
        return Wave(
            self.slots[rows], self.times[rows], self.values[rows], covariates, self.tags[rows], self.group, future
        )

    def padded(self) -> Wave:
        """The same readings, filled up with the scratch slot to whole tiles."""
        extra = -len(self) % WAVE_TILE
        if extra == 0:
            return self
        return Wave(
            filled(self.slots, extra, SCRATCH),
            filled(self.times, extra),
            filled(self.values, extra),
            None if self.covariates is None else filled(self.covariates, extra),
            filled(self.tags, extra, -1),
            self.group,
            None if self.future is None else filled(self.future, extra),
        )


def filled(rows: npt.NDArray[T], extra: int, value: int = 0) -> npt.NDArray[T]:
    """An array with ``extra`` rows of this value behind its own; `np.pad` takes ten times as long for a small one.

    >>> filled(np.array([7, 8]), 2, -1).tolist()
    [7, 8, -1, -1]
    """
    longer = np.full((len(rows) + extra, *rows.shape[1:]), value, rows.dtype)
    longer[: len(rows)] = rows
    return longer


class WaveBuilder:
    """Collects readings and cuts them into waves of one group, in which a stream appears at most once.

    The k-th reading of a stream since the last cut goes into the k-th wave, so that each stream's order is kept and
    waves are as wide as they can be. How they are cut never shows in a forecast.

    Args:
        max_wave: most streams in a wave.
        covariates: C.
        future: K·H, numbers known ahead.
    """

    def __init__(self, *, max_wave: int, covariates: int, future: int = 0) -> None:
        self._max_wave = max_wave
        self._covariates, self._future = covariates, future
        self._layers: list[dict[str, list[tuple[int, Observation, int]]]] = []
        """By group, readings of streams that have had as many before."""
        self._depth: dict[int, int] = {}

    def add(self, slot: int, observation: Observation, tag: int, group: str = DEFAULT) -> None:
        """One more reading, in source order; a slot is always of the same group."""
        depth = self._depth.get(slot, 0)
        self._depth[slot] = depth + 1
        if depth == len(self._layers):
            self._layers.append({})
        self._layers[depth].setdefault(group, []).append((slot, observation, tag))

    def cut(self) -> Iterator[Wave]:
        """Everything collected, as waves in an order that keeps each stream's own; the builder is empty after."""
        layers, self._layers, self._depth = self._layers, [], {}
        parts = (
            (group, readings[start : start + self._max_wave])
            for layer in layers
            for group, readings in layer.items()
            for start in range(0, len(readings), self._max_wave)
        )
        for group, part in parts:
            covariates = future = None
            if self._covariates:
                covariates = np.array([entry[1].covariates for entry in part], np.float64)
            if self._future:
                future = np.array([entry[1].future for entry in part], np.float64)
            yield Wave(
                np.array([entry[0] for entry in part], np.int64),
                np.array([entry[1].time for entry in part], np.float64),
                np.array([entry[1].value for entry in part], np.float64),
                covariates,
                np.array([entry[2] for entry in part], np.int64),
                group,
                future,
            )
