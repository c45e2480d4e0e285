"""Waves of several partitions, stepped as one: where few readings come of each, what a wave costs is paid once.

A wave of five readings costs nearly what one of fifty does. Every row of a wave is computed as if it were alone, so
rows of several tables may be brought to one place, stepped there, and brought back: the bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from forecaster.clock import Clock
from forecaster.engine.pipeline import Answers, Pipeline, StepResult
from forecaster.engine.report import LeadScores, StepReport
from forecaster.engine.task import PartitionTask, TaskResult
from forecaster.engine.wave import Wave
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.series.columns import IntArray
from forecaster.series.rows import Rows
from forecaster.state.streams import SCRATCH

MOST_ROWS = 1_024
"""Of waves stepped as one. Each row is copied there and back, some 4 kB; up to here a wave's fixed cost of some 2 ms
weighs more (`benchmarks/bench_together.py`)."""


class _Part(NamedTuple):
    """One partition's share of the rows."""

    task: PartitionTask
    result: TaskResult
    wave: Wave


def flush_together(received: Sequence[tuple[PartitionTask, TaskResult]], clock: Clock) -> None:
    """Step and settle what these tasks received; each comes once.

    Reports of waves that were stepped as one go to the first of their tasks: they are added up in the end.
    """
    started, spent = clock.monotonic(), _spent(received)
    layers = zip_longest(*(list(task.waves()) for task, _ in received))
    for layer in layers:  # a stream's next reading is in the next layer
        kinds: dict[tuple[Any, ...], list[_Part]] = {}
        for (task, result), wave in zip(received, layer, strict=True):
            if wave is None:
                continue
            if task.is_alone(wave.group):
                task.step(wave, result, clock)
                continue
            network = task.networks.get(wave.group)
            kind = (wave.group, id(task.pipeline(wave.group)), network and network.team)
            parts = kinds.setdefault(kind, [])
            if sum(len(part.wave) for part in parts) + len(wave) > MOST_ROWS:
                _step(parts, clock)
                parts.clear()
            parts.append(_Part(task, result, wave))
        for parts in kinds.values():
            _step(parts, clock)
    for task, result in received:
        task.finish(result)
    if received:
        received[0][1].spend("decode", clock.monotonic() - started - (_spent(received) - spent))


def _spent(received: Sequence[tuple[PartitionTask, TaskResult]]) -> float:
    return sum(sum(result.seconds.values()) for _, result in received)


def _step(parts: Sequence[_Part], clock: Clock) -> None:
    """Step waves of one pipeline and network."""
    if not parts:
        return
    first = parts[0]
    if len(parts) == 1:
        first.task.step(first.wave, first.result, clock)
        return
    started = clock.monotonic()
    group = first.wave.group
    pipeline = first.task.pipeline(group)
    joined, steps = step_as_one(
        pipeline,
        first.task.networks.get(group),
        [(part.task.table.arrays, part.wave) for part in parts],
    )
    seconds = clock.monotonic() - started
    first.result.waves.append((joined, seconds))
    for part, step in zip(parts, steps, strict=True):
        part.task.settle(part.wave, step, part.result, clock, seconds=seconds if part is first else 0.0)


def step_as_one(
    pipeline: Pipeline, recurrent: RecurrentExpert | None, parts: Sequence[tuple[Rows, Wave]]
) -> tuple[int, list[StepResult]]:
    """Answer waves of several tables with the same columns.

    Returns:
        Rows that were stepped, and what became of each wave; the report of the first is that of all.
    """
    ends = np.cumsum([len(wave) for _, wave in parts])
    begins = [0, *ends[:-1].tolist()]
    rows = int(ends[-1])
    joined = _gather(parts, rows)
    step = pipeline.step(joined, _as_one([wave for _, wave in parts]), recurrent)
    at = 1
    for columns, wave in parts:
        columns.put(wave.slots, joined, at)
        at += len(wave)

    cuts = np.searchsorted(step.answers.tags, [*begins, rows]).tolist()  # refused readings have left the rows between
    found = []
    for place, ((_, wave), begin) in enumerate(zip(parts, begins, strict=True)):
        end = begin + len(wave)
        refused = [
            (int(wave.tags[tag - begin]), reason, detail) for tag, reason, detail in step.refused if begin <= tag < end
        ]
        report = step.report if place == 0 else StepReport(LeadScores.zero(pipeline.leads))
        answers = _of_one(step.answers, slice(cuts[place], cuts[place + 1]), wave, begin)
        found.append(StepResult(answers, refused, report))
    return rows, found


def _gather(parts: Sequence[tuple[Rows, Wave]], rows: int) -> Rows:
    """The rows of all waves under each other, below a scratch row."""
    first, _ = parts[0]
    joined = first.fresh(1 + rows)
    joined.fill(0, first, np.array([SCRATCH]))
    at = 1
    for columns, wave in parts:
        joined.fill(at, columns, wave.slots)
        at += len(wave)
    return joined


def _as_one(waves: Sequence[Wave]) -> Wave:
    """Readings of all waves, with rows of the gathered columns for slots and their places for tags."""
    first, places = waves[0], np.arange(sum(len(wave) for wave in waves))
    covariates, future = (
        None if getattr(first, name) is None else np.concatenate([getattr(wave, name) for wave in waves])
        for name in ("covariates", "future")
    )
    return Wave(
        places + 1,
        np.concatenate([wave.times for wave in waves]),
        np.concatenate([wave.values for wave in waves]),
        covariates,
        places,
        first.group,
        future,
    )


def _of_one(answers: Answers, rows: slice, wave: Wave, begin: int) -> Answers:
    """Answers to the readings of one of the waves, with its own slots and tags."""
    own: IntArray = answers.tags[rows] - begin
    withheld, verdicts = answers.withheld, answers.verdicts
    return replace(
        answers,
        tags=wave.tags[own],
        slots=wave.slots[own],
        times=answers.times[rows],
        values=answers.values[rows],
        step_seconds=answers.step_seconds[rows],
        quantiles=answers.quantiles[rows],
        statuses=answers.statuses[rows],
        weights=answers.weights[rows],
        readings=answers.readings[rows],
        coverages=answers.coverages[rows],
        verdicts=None if verdicts is None else verdicts.part(rows),
        withheld=None if withheld is None else withheld[rows],
    )
