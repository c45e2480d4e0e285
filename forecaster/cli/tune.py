"""``forecaster tune``: which settings forecast best, by cross-validation on files."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from forecaster.cli.setting_flags import add_setting_flags, merge_settings, split_setting
from forecaster.cli.table_arguments import add_table_arguments, history_from_files
from forecaster.series.groups import DEFAULT, group_named

if TYPE_CHECKING:
    from forecaster.settings import Settings
    from forecaster.training.history import History
    from forecaster.training.search import Job, Row

HELP = "search for the settings that forecast best, by cross-validation"
EXAMPLES = """\
  forecaster tune --data ETTh1.csv --columns '*' --horizon 24 --out tuned/       # 12 configurations, 50/150/450 steps
  forecaster tune --data sensors/ --grid --space model.hidden=32,64 --out tuned/ # every combination at full length
  forecaster tune --history window --jobs 2 --out tuned/                         # a history it has written
  forecaster tune --data plant/ --group pumps --out tuned/                       # the streams of a group, for its entry
"""

SPACE: dict[str, list[Any]] = {
    "model.cell": ["gru", "lstm"],
    "model.hidden": [32, 64, 128],
    "training.learning_rate": [1e-3, 2e-3, 4e-3],
    "training.dropout": [0.0, 0.1, 0.2],
}
"""What is searched when no ``--space`` is given: 54 combinations; of a group those of training, 9."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--data",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="CSV or JSON lines, also gzipped, or Parquet, or a directory of them",
    )
    source.add_argument("--history", type=Path, metavar="FILE", help="a history the daemon has written")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="journal, table and best.toml; resumes what is there"
    )
    parser.add_argument(
        "--space", action="append", default=[], metavar="NAME=V,V", help="values of a setting of model or training"
    )
    parser.add_argument("--grid", action="store_true", help="try every combination at full length")
    parser.add_argument("--configurations", type=int, default=12, metavar="N", help="drawn from the grid (default: 12)")
    parser.add_argument(
        "--rungs", type=int, nargs="+", default=[50, 150, 450], metavar="STEPS", help="default: 50 150 450"
    )
    parser.add_argument(
        "--keep-one-in", type=int, default=3, metavar="N", help="that go on to the next rung (default: 3)"
    )
    parser.add_argument("--folds", type=int, default=3, metavar="K", help="of the rolling origin (default: 3)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes, one thread each (default: 1)")
    parser.add_argument("--horizon", type=int, metavar="H", help="steps ahead (default: forecast.horizon)")
    parser.add_argument("--season", metavar="M|1d", help="in steps or as a duration; 0 for none (default: found)")
    parser.add_argument("--seed", type=int, metavar="N", help="of everything random (default: training.seed)")
    parser.add_argument(
        "--group",
        default="default",
        metavar="NAME",
        help="of settings groups: search on its streams (default: the rest)",
    )
    add_setting_flags(parser)
    add_table_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Searches; prints the table and writes it, with the best configuration as a settings file."""
    import msgspec
    import optuna
    from rich.console import Console

    from forecaster.models.artifact import write_atomically
    from forecaster.training.search import Search, SearchPlan
    from forecaster.training.search_report import write_search_report

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would tell of every record it keeps
    group = group_named(args.group)
    settings = _settings(overrides_of(args), args.config, args.secrets_dir, group)
    plan = SearchPlan(
        space=_space(args.space, group),
        method="grid" if args.grid else "halving",
        configurations=args.configurations,
        rungs=tuple(sorted(args.rungs)),
        keep_one_in=args.keep_one_in,
        folds=args.folds,
        seed=settings.training.seed,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    history = args.out / ".history"
    _history(args, settings, group).save(history)
    identity = hashlib.sha256(history.read_bytes() + settings.model_dump_json(exclude={"kafka"}).encode()).hexdigest()
    search = Search(plan, args.out / "journal.log", data_identity=identity)
    about = _Setting(history, overrides_of(args), args.config, args.secrets_dir, group, plan.folds)
    console = Console(stderr=True)

    def evaluate(jobs: Sequence[Job]) -> Iterator[tuple[Job, float]]:
        for done, (job, loss) in enumerate(_losses(about, jobs, args.jobs), 1):
            console.print(f"{job.steps} steps, fold {job.fold}: {loss:.4f} ({done} of {len(jobs)} fits of this rung)")
            yield job, loss

    rows = search.run(evaluate)
    write_atomically(
        args.out / "table.json", msgspec.json.format(msgspec.json.encode([r._asdict() for r in rows]), indent=1)
    )
    write_atomically(args.out / "best.toml", _best(rows[0], group).encode())
    write_search_report(rows, args.out / "report.html")
    history.unlink()
    _show(rows, args.out, group)
    return 0


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that stand for settings, nested as the settings are; only those that were given."""
    overrides: dict[str, dict[str, Any]] = {}
    for section, name, value in (
        ("forecast", "horizon", args.horizon),
        ("forecast", "seasons", None if args.season is None else [args.season]),
        ("training", "seed", args.seed),
    ):
        if value is not None:
            overrides.setdefault(section, {})[name] = value
    return merge_settings(overrides, args.set)


def _settings(overrides: dict[str, Any], config_file: Path | None, secrets_dir: Path | None, group: str) -> Settings:
    """The settings as a group has them; what is overridden goes before what it says.

    Raises:
        ConfigurationError: there is no such group, or a value that is none.
    """
    from forecaster.cli.train import settings_of_group
    from forecaster.settings import load_settings

    settings = load_settings(overrides, config_file=config_file, secrets_dir=secrets_dir)
    return settings_of_group(settings, group, overrides)


def _best(row: Row, group: str) -> str:
    """The best configuration as a settings file; of a group as its entry, or what is to go into that."""
    import json

    from forecaster.training.search import as_toml

    if group == DEFAULT:
        return as_toml(row.configuration)
    chosen = (f"{name.split('.', 1)[1]} = {json.dumps(value)}" for name, value in sorted(row.configuration.items()))
    return f'[[groups]]\nname = "{group}"\ntraining = {{ {", ".join(chosen)} }}\n'


def _space(texts: Sequence[str], group: str) -> dict[str, list[Any]]:
    """Values by setting; each is checked when the settings are made of it."""
    from forecaster.errors import ConfigurationError

    space: dict[str, list[Any]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        chosen = [split_setting(f"{name}={value}") for value in values.split(",")]
        if chosen[0][0] not in ("model", "training"):
            raise ConfigurationError(
                f"--space {text!r} is no setting of model or training.",
                hint="Other settings change the question asked.",
            )
        if group != DEFAULT and chosen[0][0] == "model":
            raise ConfigurationError(
                f"--space {text!r}: all groups share the settings of model, their streams lie in the same tables.",
                hint="Search it without --group, or name settings of training.",
            )
        space[name] = [value for _, _, value in chosen]
    if space:
        return space
    return {name: values for name, values in SPACE.items() if group == DEFAULT or name.startswith("training.")}


def _history(args: argparse.Namespace, settings: Settings, group: str) -> History:
    """What to search on: the streams of the group."""
    from forecaster.settings import build_groups
    from forecaster.training.history import History

    rules = build_groups(settings)

    def takes(stream_id: str) -> bool:
        return rules.of(stream_id) == group

    if args.history is not None:
        return History.load(args.history).where(takes)
    return history_from_files(args, settings, takes)


class _Setting(NamedTuple):
    """What a process of the search needs to know; it can be handed to another one."""

    history: Path
    overrides: dict[str, Any]
    config_file: Path | None
    secrets_dir: Path | None
    group: str
    folds: int


class _Fitter:
    """Makes single fits: the history is prepared once."""

    def __init__(self, about: _Setting) -> None:
        import torch

        from forecaster.app import build_encoder, prepare_history
        from forecaster.training.history import History
        from forecaster.training.splits import rolling_origin

        torch.set_num_threads(1)  # two threads on a busy machine are many times slower than one
        self.about = about
        settings = _settings(about.overrides, about.config_file, about.secrets_dir, about.group)
        self._prepared = prepare_history(settings, History.load(about.history))
        self._encoder = build_encoder(settings)
        self._folds = rolling_origin(self._prepared.data, folds=about.folds, horizon=settings.forecast.horizon)

    def loss(self, job: Job) -> float:
        """Of one configuration, rung and fold."""
        from forecaster.app import build_recipe, build_shape
        from forecaster.training.crossvalidation import fold_loss

        overrides = {section: dict(values) for section, values in self.about.overrides.items()}
        for name, value in job.configuration.items():
            section, field = name.split(".", 1)
            overrides.setdefault(section, {})[field] = value
        settings = _settings(overrides, self.about.config_file, self.about.secrets_dir, self.about.group)
        return fold_loss(
            self._prepared,
            self._folds[job.fold],
            encoder=self._encoder,
            quantile_levels=settings.forecast.quantiles,
            shape=build_shape(settings),
            recipe=build_recipe(settings),
            steps=job.steps,
            seed=settings.training.seed,
        )


_of_process: list[_Fitter] = []
"""The fitter of a process of the pool, which hands a job its arguments and nothing else."""


def _begin(about: _Setting) -> None:
    _of_process[:] = [_Fitter(about)]


def _loss(job: Job) -> float:
    return _of_process[0].loss(job)


def _losses(about: _Setting, jobs: Sequence[Job], processes: int) -> Iterable[tuple[Job, float]]:
    """Losses as they come, from this process or from several."""
    if not jobs:
        return
    if processes == 1:
        if not _of_process or _of_process[0].about != about:
            _begin(about)
        for job in jobs:
            yield job, _loss(job)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    spawn = multiprocessing.get_context("spawn")  # torch and fork do not go together
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_begin, initargs=(about,)) as pool:
        running = {pool.submit(_loss, job): job for job in jobs}
        for future in as_completed(running):
            yield running[future], future.result()


def _show(rows: Sequence[Row], directory: Path, group: str) -> None:
    """The table, to standard output."""
    from rich.console import Console
    from rich.table import Table

    names = list(rows[0].configuration)
    table = Table(title="Mean pinball on the folds, in units of each stream's scale")
    for name in names:
        table.add_column(name.split(".", 1)[1])
    for title in ("steps", "folds", "mean"):
        table.add_column(title, justify="right")
    for row in rows:
        values = (str(row.configuration[name]) for name in names)
        table.add_row(*values, str(row.steps), " ".join(f"{loss:.4f}" for loss in row.losses), f"{row.mean:.4f}")
    console = Console()
    console.print(table)
    use = "give it to --config" if group == DEFAULT else f"its training goes into the entry of {group} among the groups"
    console.print(f"The best one is in {directory / 'best.toml'}; {use}.")
