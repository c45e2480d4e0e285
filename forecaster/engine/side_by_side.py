"""What the answers would be if another network served: a trial's second model, on copies of some streams' rows.

The copies are stepped by the same pipeline with the same readings, mixing, calibration and all, so that what is
compared is what consumers would get. They are no part of the task's state: nothing here is written, restored or
replayed, and no forecast depends on it. A partition that moves, or a worker that starts again, begins its score anew.
"""

from __future__ import annotations

import numpy as np

from forecaster.engine.pipeline import Pipeline, StepResult
from forecaster.engine.wave import Wave
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.decisions import LiveScore
from forecaster.series.columns import FloatArray, IntArray
from forecaster.state.streams import SCRATCH, StreamTable

_MOST = 8.0
"""Loss of one forecast, in units of the scale: of a stream that was constant so far the scale is next to nothing, and
its first move must not outweigh all others. The mixture's regret has the same bound."""
_BLOCK_HORIZONS = 2
"""Forecasts of neighbouring origins overlap by up to a horizon; a block of this many has little to do with the next."""


class SideBySide:
    """Scores the network that serves and another one on the same readings of the same streams.

    Args:
        pipeline: of the group.
        table: of the task.
        beside: the network that does not serve.
        slots: of the streams that may be scored, the longest known first: those of one group.
        trial, partition: what `score` names.
        max_streams: most streams; each costs a row of the table and its part of every wave again.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        table: StreamTable,
        beside: RecurrentExpert,
        *,
        slots: IntArray,
        trial: int,
        partition: int,
        max_streams: int,
    ) -> None:
        slots = slots[:max_streams]
        copied = np.concatenate([[SCRATCH], slots])
        self._pipeline = pipeline
        self._table = table
        self._beside = beside
        self._arrays = table.arrays.taken(copied)
        self._begun = self._arrays["tick"].copy()
        self._rows = {int(slot): row for row, slot in enumerate(slots, start=1)}
        self._streams = len(slots)
        self._trial, self._partition = trial, partition
        self._leads = np.array(pipeline.leads)
        self._steps = self._targets = self._blocks = 0
        self._losses = np.zeros(2)  # of who serves, and of the other
        self._block, self._block_steps, self._block_targets = 0.0, 0, 0
        self._difference = self._difference_squares = 0.0

    def step(self, wave: Wave, answered: StepResult) -> None:
        """Take a wave in after the task has: ``answered`` is what came of it, its losses kept."""
        rows = np.array([self._rows.get(slot, SCRATCH) for slot in wave.slots.tolist()], np.int64)
        some = np.flatnonzero(rows != SCRATCH)
        if not len(some):
            return
        part = wave.take(some)
        part.slots = rows[some]
        beside = self._pipeline.step(self._arrays, part, self._beside, keep_losses=True)
        if beside.losses is None or answered.losses is None:  # every reading of the part was refused
            return
        # Clocks do not depend on the network: what one accepts, the other does.
        order = np.argsort(answered.answers.tags)
        same = order[np.searchsorted(answered.answers.tags, beside.answers.tags, sorter=order)]
        self._take(beside.answers.slots, answered.answers.slots[same], answered.losses[same], beside.losses)

    def forget(self, slots: list[int]) -> None:
        """Streams of these rows of the task's table are no more."""
        for slot in slots:
            self._rows.pop(slot, None)

    def pass_boundary(self) -> None:
        """A place at which a block may end: the same in every partition that reads the same records."""
        if self._block_targets and self._block_steps >= _BLOCK_HORIZONS * self._pipeline.horizon * self._streams:
            mean = self._block / self._block_targets
            self._blocks += 1
            self._difference += mean
            self._difference_squares += mean * mean
            self._block, self._block_steps, self._block_targets = 0.0, 0, 0

    def score(self) -> LiveScore:
        """All that was seen so far."""
        return LiveScore(
            trial=self._trial,
            partition=self._partition,
            streams=self._streams,
            steps=self._steps,
            targets=self._targets,
            serving_loss=float(self._losses[0]),
            beside_loss=float(self._losses[1]),
            blocks=self._blocks,
            difference=self._difference,
            difference_squares=self._difference_squares,
        )

    def _take(self, rows: IntArray, slots: IntArray, serving: FloatArray, beside: FloatArray) -> None:
        """Add losses ``[B, A]`` in own units, in units of the task's scale, of forecasts made since the beginning."""
        since = self._arrays["tick"][rows] - 1 - self._begun[rows]  # ticks before this one
        counted = (self._leads <= since[:, None]) & np.isfinite(serving) & np.isfinite(beside)
        scale = np.maximum(self._serving_scale(slots), 1e-30)[:, None]
        both = [np.where(counted, np.minimum(losses / scale, _MOST), 0.0) for losses in (serving, beside)]
        steps, targets = int(counted.any(axis=1).sum()), int(counted.sum())
        self._losses += [losses.sum() for losses in both]
        self._steps += steps
        self._targets += targets
        self._block += float((both[0] - both[1]).sum())
        self._block_steps += steps
        self._block_targets += targets

    def _serving_scale(self, slots: IntArray) -> FloatArray:
        scale: FloatArray = self._table.arrays["scale"][slots].astype(np.float64)
        return scale
