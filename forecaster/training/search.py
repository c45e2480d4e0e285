"""The search for settings: which configurations are tried, how long, and what each of them came to.

Every rung is a whole training of so many steps, with a schedule of its own: the state of a one-cycle fit after a
ninth of its steps says little about the fit.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from forecaster.errors import TrainingFailed

Space = Mapping[str, Sequence[Any]]
Configuration = dict[str, Any]


class SearchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried; names of settings to the values they may take."""

    space: dict[str, list[Any]]
    method: Literal["halving", "grid"] = "halving"
    """``halving`` tries some configurations briefly and the best of them longer; ``grid`` tries all at full length."""
    configurations: int = 12
    """Of ``halving``, drawn from the grid without repetition."""
    rungs: tuple[int, ...] = (50, 150, 450)
    """Optimiser steps; ``grid`` uses the last alone."""
    keep_one_in: int = 3
    """η: the share of configurations that goes on to the next rung."""
    folds: int = 3
    seed: int = 0


class Job(NamedTuple):
    """One fit of the search."""

    number: int
    """Of the configuration."""
    configuration: Configuration
    steps: int
    fold: int


class Row(NamedTuple):
    """What became of one configuration."""

    number: int
    configuration: Configuration
    steps: int
    """Longest rung it reached."""
    losses: tuple[float, ...]
    """Of its folds there."""

    @property
    def mean(self) -> float:
        """Over the folds."""
        return float(np.mean(self.losses))


Evaluate = Callable[[Sequence[Job]], Iterable[tuple[Job, float]]]
"""Runs jobs, in any order and in parallel if it likes, and gives each with its loss as soon as it is there."""


def candidates(plan: SearchPlan) -> list[Configuration]:
    """The configurations of a search, always the same for the same plan.

    >>> len(candidates(SearchPlan(space={"a": [1, 2], "b": [3, 4, 5]}, method="grid")))
    6
    """
    names = list(plan.space)
    grid = [dict(zip(names, values, strict=True)) for values in itertools.product(*plan.space.values())]
    if plan.method == "grid" or len(grid) <= plan.configurations:
        return grid
    chosen = np.random.default_rng(plan.seed).choice(len(grid), plan.configurations, replace=False)
    return [grid[k] for k in np.sort(chosen)]


class Search:
    """A search whose every loss is on disk as soon as it is known, so that it goes on where it was stopped.

    Which configuration goes on depends on the losses of a whole rung, never on the order in which they came: one
    process or many give the same result.

    Args:
        plan: what is tried.
        journal: file of the optuna study; ``None`` keeps it in memory.
        data_identity: names the history, so that no losses of another one are taken over.

    Raises:
        TrainingFailed: the journal holds a search of another plan or history.

    Source: Jamieson & Talwalkar (2016), "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
    arXiv:1502.07943 (successive halving).
    """

    def __init__(self, plan: SearchPlan, journal: Path | None, *, data_identity: str = "") -> None:
        self._plan = plan
        identity = msgspec.json.encode((plan, data_identity)).decode()
        if journal is not None:
            journal.parent.mkdir(parents=True, exist_ok=True)
        storage = None if journal is None else JournalStorage(JournalFileBackend(str(journal)))
        self._study = optuna.create_study(storage=storage, study_name="forecaster tune", load_if_exists=True)
        known = self._study.user_attrs.get("identity")
        if known is None:
            self._study.set_user_attr("identity", identity)
        elif known != identity:
            raise TrainingFailed(
                f"{journal} holds a search of another plan or history.",
                hint="Resuming needs the same data, space, rungs, folds and seed; else search in another directory.",
            )
        configurations = candidates(plan)
        for configuration in configurations[len(self._study.get_trials(deepcopy=False)) :]:
            values: dict[str, BaseDistribution] = {
                name: CategoricalDistribution(plan.space[name]) for name in configuration
            }
            self._study.add_trial(
                optuna.create_trial(state=TrialState.RUNNING, params=configuration, distributions=values)
            )

    @property
    def rungs(self) -> tuple[int, ...]:
        """Steps of each rung that is climbed."""
        return self._plan.rungs if self._plan.method == "halving" else self._plan.rungs[-1:]

    def run(self, evaluate: Evaluate) -> list[Row]:
        """Climb all rungs; returns a row for every configuration, the best one first."""
        alive = [trial.number for trial in self._study.get_trials(deepcopy=False)]
        for rung, steps in enumerate(self.rungs):
            missing = [
                Job(number, self._configuration(number), steps, fold)
                for number in alive
                for fold in range(self._plan.folds)
                if fold not in self._losses(number, steps)
            ]
            for job, loss in evaluate(missing):
                self._open(job.number).set_user_attr(f"{job.steps}/{job.fold}", loss)
            best_first = sorted(alive, key=lambda number: (self._mean(number, steps), number))
            is_last = rung + 1 == len(self.rungs)
            kept = len(alive) if is_last else max(1, math.ceil(len(alive) / self._plan.keep_one_in))
            for place, number in enumerate(best_first):
                if is_last:
                    self._study.tell(number, self._mean(number, steps), skip_if_finished=True)
                elif place >= kept:
                    self._study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
            alive = sorted(best_first[:kept])
        return self.table()

    def table(self) -> list[Row]:
        """What is known so far: those that got furthest first, then by loss."""
        rows = []
        for trial in self._study.get_trials(deepcopy=False):
            reached = [steps for steps in self.rungs if self._losses(trial.number, steps)]
            if reached:
                losses = self._losses(trial.number, reached[-1])
                by_fold = tuple(losses[fold] for fold in sorted(losses))
                rows.append(Row(trial.number, self._configuration(trial.number), reached[-1], by_fold))
        return sorted(rows, key=lambda row: (-row.steps, row.mean, row.number))

    def _open(self, number: int) -> optuna.trial.Trial:
        """A configuration's record, to be written to."""
        return optuna.trial.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)

    def _configuration(self, number: int) -> Configuration:
        return dict(self._study.get_trials(deepcopy=False)[number].params)

    def _losses(self, number: int, steps: int) -> dict[int, float]:
        """Known losses of one rung by fold."""
        known = self._study.get_trials(deepcopy=False)[number].user_attrs
        return {fold: known[key] for fold in range(self._plan.folds) if (key := f"{steps}/{fold}") in known}

    def _mean(self, number: int, steps: int) -> float:
        losses = self._losses(number, steps)
        return float(np.mean(list(losses.values())))


def as_toml(configuration: Configuration) -> str:
    """A configuration as a settings file.

    >>> print(as_toml({"model.cell": "lstm", "training.l1": 1e-05, "model.hidden": 32}))
    [model]
    cell = "lstm"
    hidden = 32
    <BLANKLINE>
    [training]
    l1 = 1e-05
    <BLANKLINE>
    """
    sections: dict[str, list[str]] = {}
    for name in sorted(configuration):
        section, field = name.split(".", 1)
        value = configuration[name]  # TOML writes these as JSON does
        sections.setdefault(section, []).append(f"{field} = {json.dumps(value)}")
    return "\n".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items())
