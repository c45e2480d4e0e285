"""``forecaster train``: one training, from files, the topic, or a history handed over by the daemon."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from forecaster.cli.setting_flags import add_setting_flags, merge_settings
from forecaster.cli.table_arguments import add_table_arguments, history_from_files
from forecaster.crash_points import reach
from forecaster.series.groups import DEFAULT, group_label, group_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from forecaster.models.artifact import ModelArtifact
    from forecaster.models.decisions import RegistryRecord
    from forecaster.ports import ModelRegistry
    from forecaster.records import Feedback
    from forecaster.settings import Settings
    from forecaster.training.history import History
    from forecaster.training.loop import Progress
    from forecaster.training.train import TrainingOutcome

log = logging.getLogger(__name__)

_PARENT_SECONDS = 0.5

HELP = "train one model and promote it if it earns its place"
EXAMPLES = """\
  forecaster train --data ETTh1.csv --columns '*' --horizon 24     # into the registry of the settings
  forecaster train --data sensors/ --season 1d --out trained/      # artifact and report into a directory
  forecaster train --data sensors/ --report training.html          # loss curves, scores, calibration, examples
  forecaster train --from-topic                                    # on training.window of the readings topic
"""


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
    source.add_argument("--from-topic", action="store_true", help="read training.window of the readings topic")
    source.add_argument("--history", type=Path, metavar="FILE", help="a history the daemon has written")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write artifact and report here, not to the registry")
    parser.add_argument("--season", metavar="M|1d", help="in steps or as a duration; 0 for none (default: found)")
    parser.add_argument("--horizon", type=int, metavar="H", help="steps ahead (default: forecast.horizon)")
    parser.add_argument("--cell", choices=["rnn", "lstm", "gru"], help="recurrent cell (default: model.cell)")
    parser.add_argument("--steps", type=int, metavar="N", help="optimiser steps (default: training.steps)")
    parser.add_argument("--seed", type=int, metavar="N", help="of everything random (default: training.seed)")
    parser.add_argument("--optimiser", choices=["adamw", "adam", "sgd"], help="default: training.optimiser")
    parser.add_argument("--schedule", choices=["one_cycle", "cosine", "constant"], help="default: training.schedule")
    parser.add_argument("--augment", type=int, metavar="N", help="altered copies of each stream to train on as well")
    parser.add_argument("--teacher", type=int, metavar="N", help="members of a teacher that the model learns from")
    parser.add_argument("--start-from", metavar="MODEL", help="file, or version in the registry, where none serves yet")
    parser.add_argument(
        "--group",
        default="default",
        metavar="NAME",
        help="of settings groups: train on its streams (default: the rest)",
    )
    parser.add_argument(
        "--drift", action="store_true", help="after drift: a model no worse than the champion is enough"
    )
    add_setting_flags(parser)
    parser.add_argument("--feedback", type=Path, metavar="FILE", help="JSON lines; its periods are not learnt from")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="what was learnt, with pictures, in one file")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="keep the fit here as it goes; resume from it")
    parser.add_argument(
        "--result", type=Path, metavar="FILE", help="report as JSON to this file, at low priority: for the daemon"
    )
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process has: for the daemon")
    add_table_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Trains; 0 whether the model was promoted or not, as long as there is one."""
    import os
    import time

    import torch

    from forecaster.errors import ForecasterError
    from forecaster.settings import load_settings

    torch.set_num_threads(1)  # two threads on a busy machine are many times slower than one
    overrides = overrides_of(args)
    settings = load_settings(overrides, config_file=args.config, secrets_dir=args.secrets_dir)
    settings = settings_of_group(settings, group_named(args.group), overrides)
    if args.result is None:
        _train(args, settings, now=time.time())
        return 0
    os.nice(10)
    if args.parent is not None:
        _end_with(args.parent)
    try:
        outcome, action = _train(args, settings, now=time.time())
    except ForecasterError as error:
        _write_result(args.result, outcome="failed", reason=str(error))
        raise
    decision = outcome.decision
    _write_result(
        args.result,
        outcome=action,
        reason=decision.reason,
        version=outcome.artifact.version,
        seconds=outcome.seconds,
        challenger_loss=decision.challenger_loss,
        champion_loss=decision.champion_loss,
        naive_loss=decision.naive_loss,
    )
    return 0


def settings_of_group(settings: Settings, group: str, overrides: Mapping[str, Any]) -> Settings:
    """The settings as they are for a group; flags go before what it says.

    Raises:
        ConfigurationError: there is no such group.
    """
    from forecaster.errors import ConfigurationError
    from forecaster.settings import build_groups, group_settings

    if group == DEFAULT:
        return settings
    names = build_groups(settings).names
    if group not in names:
        known = ", ".join(map(group_label, names))
        raise ConfigurationError(
            f"There is no group {group}; the settings know {known}.", hint="Name one of `groups`, or add it there."
        )
    own = group_settings(settings, group)
    sections = {name: getattr(own, name) for name in ("forecast", "training", "streams", "anomalies")}
    return own.model_copy(
        update={
            name: type(section).model_validate({**section.model_dump(), **overrides.get(name, {})})
            for name, section in sections.items()
        }
    )


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that stand for settings, nested as the settings are; only those that were given."""
    overrides: dict[str, dict[str, Any]] = {}
    for section, name, value in (
        ("forecast", "horizon", args.horizon),
        ("forecast", "seasons", None if args.season is None else [args.season]),
        ("model", "cell", args.cell),
        ("training", "steps", args.steps),
        ("training", "seed", args.seed),
        ("training", "optimiser", args.optimiser),
        ("training", "schedule", args.schedule),
        ("training", "augment_copies", args.augment),
        ("training", "teacher_members", args.teacher),
        ("training", "start_from", args.start_from),
    ):
        if value is not None:
            overrides.setdefault(section, {})[name] = value
    return merge_settings(overrides, args.set)


def _end_with(parent: int) -> None:
    """Let this process end when its parent has: nobody would wait for the model, and the next one trains anew."""
    import os
    import threading
    import time

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _train(args: argparse.Namespace, settings: Settings, *, now: float) -> tuple[TrainingOutcome, str]:
    """History in, model and decision out, and what was done by it; prints what people want to know."""
    from forecaster.connections import build_registry

    if args.out is not None:
        return _train_into(None, args, settings, now=now)
    with contextlib.closing(build_registry(settings, on_kafka=args.from_topic)) as registry:
        return _train_into(registry, args, settings, now=now)


def _train_into(
    registry: ModelRegistry | None, args: argparse.Namespace, settings: Settings, *, now: float
) -> tuple[TrainingOutcome, str]:
    from importlib.metadata import PackageNotFoundError, version

    import msgspec
    from rich.console import Console

    from forecaster.app import train_challenger
    from forecaster.codecs.feedback_json import excluded_periods, read_feedback_file
    from forecaster.models.artifact import OffsetSpan
    from forecaster.settings import training_settings

    console = Console(stderr=True, quiet=args.result is not None)
    try:
        code_version = version("forecaster")
    except PackageNotFoundError:  # run from a checkout that is not installed
        code_version = ""
    group = group_named(args.group)
    champion = _champion(registry, group)
    read = _history(args, settings, now=now, console=console)
    history = read.history
    if args.feedback is not None:
        history = history.without(excluded_periods(read_feedback_file(args.feedback)))
    chosen = f" (of {read.streams_seen:,})" if read.streams_seen > len(history.streams) else ""
    cut = f", cut by {read.cut_by}" if read.cut_by else ""
    console.print(f"{history.readings:,} readings of {len(history.streams):,} streams{chosen}{cut}.")
    if args.result is not None and args.history is None:  # the trainer service cannot tell groups' readings apart
        _check_enough(history, settings.training.min_readings, group)

    steps: list[Progress] = []
    with _fitting(console, steps) as on_progress:
        outcome = train_challenger(
            settings,
            history,
            champion=champion,
            now=now,
            max_seconds=settings.training.max_seconds,
            source=_source(registry, settings.training.start_from),
            checkpoint=args.checkpoint,
            code_version=code_version,
            after_drift=args.drift,
            on_progress=on_progress,
        )
    artifact = outcome.artifact.with_lineage(
        settings=training_settings(settings),
        topic=settings.topics.readings if read.offsets else "",
        offsets=[OffsetSpan(partition=p, first=first, end=end) for p, (first, end) in sorted(read.offsets.items())],
        group=group,
        streams_seen=read.streams_seen,
        cut_by=read.cut_by,
    )
    outcome = msgspec.structs.replace(outcome, artifact=artifact)
    action: str = outcome.decision.outcome
    if registry is None:
        place = _write_out(args.out, outcome)
    else:
        judged_against = champion.version if champion is not None else ""
        until = history.span()[1]
        record = _keep(registry, outcome, settings, group=group, judged_against=judged_against, until=until, now=now)
        if record.action == "refused" and outcome.decision.is_promoted:
            decision = msgspec.structs.replace(
                outcome.decision, outcome="refused", reason=str(record.decision["reason"])
            )
            outcome = msgspec.structs.replace(outcome, decision=decision)
        place, action = f"registry {registry.place}, decision {record.number}", record.action
    if args.report is not None:
        from forecaster.training.report import write_training_report

        write_training_report(outcome, steps, args.report)
    if args.checkpoint is not None:  # the model is kept: another training would find nothing to resume
        for fit in args.checkpoint.glob("*.fit"):
            fit.unlink()
    if args.result is None:
        _show(outcome, champion, action, place)
    return outcome, action


def _check_enough(history: History, least: int, group: str) -> None:
    from forecaster.errors import TrainingFailed

    if history.readings < least:
        raise TrainingFailed(
            f"Group {group_label(group)} has {history.readings:,} readings in the training window; "
            f"training.min_readings asks for {least:,}.",
            hint="Wait for readings, widen the window, or lower min_readings, of this group alone if need be.",
        )


def _champion(registry: ModelRegistry | None, group: str) -> ModelArtifact | None:
    if registry is None or (version := registry.champion(group)) is None:
        return None
    return registry.get(version)


def _source(registry: ModelRegistry | None, name: str) -> ModelArtifact | None:
    """The model ``training.start_from`` names: a file where there is one of that name, else a version."""
    from forecaster.errors import ConfigurationError
    from forecaster.models.artifact import ModelArtifact

    if not name:
        return None
    if Path(name).is_file():
        return ModelArtifact.load(Path(name))
    if registry is None:
        raise ConfigurationError(f"training.start_from {name!r} is no file.", hint="With --out, name a model's file.")
    return registry.get(name)


class _Read(NamedTuple):
    """What to train on, and where it is from."""

    history: History
    offsets: Mapping[int, tuple[int, int]] = {}
    """Of the topic, by partition."""
    streams_seen: int = 0
    """Streams there were; 0 where all of them are in the history."""
    cut_by: str = ""


def _history(args: argparse.Namespace, settings: Settings, *, now: float, console: Any) -> _Read:
    """What to train on, from wherever the flags say: the streams of the group."""
    from forecaster.settings import build_groups
    from forecaster.training.history import History

    rules, group = build_groups(settings), group_named(args.group)

    def takes(stream_id: str) -> bool:
        return rules.of(stream_id) == group

    if args.history is not None:
        return _Read(History.load(args.history).where(takes))
    if args.data:
        with console.status("reading files"):
            return _Read(history_from_files(args, settings, takes))
    return _history_from_topic(settings, takes, now=now, console=console)


def _history_from_topic(settings: Settings, takes: Callable[[str], bool], *, now: float, console: Any) -> _Read:
    from rich.progress import Progress as Bar

    from forecaster.codecs.feedback_json import excluded_periods
    from forecaster.connections import build_codec, build_connection, build_history_cache, build_history_collector
    from forecaster.settings import future_inputs
    from forecaster.transports.kafka_history import read_history

    with Bar(console=console, transient=True) as bar:
        task = bar.add_task(f"reading {settings.topics.readings}", total=None)
        found = read_history(
            build_connection(settings),
            topic=settings.topics.readings,
            decoder=build_codec(settings),
            since=now - settings.training.window,
            max_readings=settings.training.max_streams * settings.training.max_readings_per_stream,
            collector=build_history_collector(settings, takes),
            covariates=len(settings.readings.covariates),
            future=future_inputs(settings),
            max_seconds=settings.training.history_seconds,
            open_cache=build_history_cache(settings),
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    history = found.history
    if settings.topics.feedback:
        history = history.without(excluded_periods(_feedback_from_topic(settings)))
    if settings.training.anomalies != "keep":
        history = history.flag(_anomalies_from_topic(settings, takes, now=now))
    if history.streams:
        _, last = history.span()
        history = history.between(last - settings.training.window, last)
    return _Read(history, found.offsets, found.streams_seen, found.cut_by)


def _anomalies_from_topic(
    settings: Settings, takes: Callable[[str], bool], *, now: float
) -> dict[str, list[tuple[float, float]]]:
    """Periods by stream that workers have published as anomalies of the window."""
    from forecaster.codecs.anomaly_json import AnomalyMarks
    from forecaster.connections import build_connection
    from forecaster.training.blocks import HistoryCollector
    from forecaster.training.flags import flagged_periods
    from forecaster.transports.kafka_history import read_history

    found = read_history(
        build_connection(settings),
        topic=settings.topics.anomalies,
        decoder=AnomalyMarks(),
        since=now - settings.training.window,
        max_readings=settings.training.max_streams * settings.training.max_readings_per_stream,
        collector=HistoryCollector(takes=takes, max_bytes=settings.training.history_bytes, seed=settings.training.seed),
        max_seconds=settings.training.history_seconds,
    )
    return flagged_periods(found.history)


def _feedback_from_topic(settings: Settings) -> list[Feedback]:
    from forecaster.connections import build_feedback_tail
    from forecaster.engine.feedback import read_all

    with contextlib.closing(build_feedback_tail(settings)) as tail:
        return read_all(tail, give_up_seconds=settings.state.restore_seconds)


@contextmanager
def _fitting(console: Any, steps: list[Progress]) -> Iterator[Callable[[Progress], None]]:
    """A progress bar over the optimiser's steps, which are kept in ``steps``."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    numbers = TextColumn("loss {task.fields[loss]:.4f}  early stopping {task.fields[validation]:.4f}")
    columns = (TextColumn("fitting"), BarColumn(), MofNCompleteColumn(), numbers, TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("fitting", total=None, loss=float("nan"), validation=float("nan"))

        def on_progress(progress: Progress) -> None:
            steps.append(progress)
            bar.update(
                task, completed=progress.step, total=progress.steps, loss=progress.loss, validation=progress.validation
            )

        yield on_progress


def _goes_on_trial(registry: ModelRegistry, settings: Settings, group: str) -> bool:
    """Whether a challenger that has won on held-out data is to be seen live first: there is somebody to compare with,
    and somebody to decide."""
    chosen = bool(settings.promotion.shadow_steps) and settings.training.mode != "off"
    return chosen and registry.champion(group) is not None


def _keep(
    registry: ModelRegistry,
    outcome: TrainingOutcome,
    settings: Settings,
    *,
    group: str = DEFAULT,
    judged_against: str,
    until: float,
    now: float,
) -> RegistryRecord:
    """Artifact and decision into the registry, and what is old out of it; returns the decision.

    Args:
        group: that it is to serve.
        judged_against: the champion that the challenger was compared with, empty where there was none. Training takes
            minutes: if another serves by now, what was found out says nothing about it.
        until: event time up to which readings were looked at.
    """
    import msgspec

    from forecaster.errors import TransportError

    registry.put(outcome.artifact)
    reach("before_decision")
    decision = {**msgspec.to_builtins(outcome.decision), "until": until}
    note = registry.refuse
    if outcome.decision.is_promoted:
        note = partial(registry.promote, expected=judged_against)
        if _goes_on_trial(registry, settings, group):
            decision["shadow_steps"] = settings.promotion.shadow_steps
            note = partial(registry.challenge, expected=judged_against)
        elif settings.promotion.guard_steps and settings.training.mode != "off":
            decision["guard_steps"] = settings.promotion.guard_steps
    record = note(outcome.artifact.version, decision, now=now, group=group)
    try:
        registry.prune(settings.registry.keep)
    except TransportError as error:  # model and decision are safe; the next training prunes again
        log.warning("old models could not be deleted", extra={"error": str(error), "hint": error.hint})
    return record


def _write_out(directory: Path, outcome: TrainingOutcome) -> str:
    """Artifact and report into a directory; returns where that is, for people."""
    import msgspec

    from forecaster.models.artifact import write_atomically

    path = directory / f"{outcome.artifact.version}.model"
    outcome.artifact.save(path)
    report = {
        "version": outcome.artifact.version,
        "decision": outcome.decision,
        "leads": outcome.leads,
        "fit": outcome.fit._asdict(),
        "season_seconds": outcome.season_seconds,
        "seconds": outcome.seconds,
    }
    write_atomically(directory / "training.json", msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return str(path)


def _write_result(path: Path, **fields: Any) -> None:
    import msgspec

    from forecaster.models.artifact import write_atomically
    from forecaster.trainer_child import TrainingResult

    write_atomically(path, msgspec.json.encode(TrainingResult(**fields)))


def _show(outcome: TrainingOutcome, champion: ModelArtifact | None, action: str, place: str) -> None:
    """The result as a table, to standard output."""
    from rich.console import Console
    from rich.table import Table

    leads = outcome.leads
    columns = {
        "challenger": leads.challenger,
        "champion": leads.champion,
        "naive": leads.naive,
        "seasonal naive": leads.seasonal,
        **leads.companions,
    }
    shown = {name: losses for name, losses in columns.items() if losses is not None}
    table = Table(title="Mean pinball on the newest stretch")
    table.add_column("lead", justify="right")
    for name in shown:
        table.add_column(name, justify="right")
    horizon = len(leads.challenger)
    for lead in sorted({1, *(2**k for k in range(1, horizon.bit_length()) if 2**k < horizon), horizon}):
        table.add_row(str(lead), *(f"{losses[lead - 1]:.4f}" for losses in shown.values()))
    table.add_row("all", *(f"{sum(losses) / horizon:.4f}" for losses in shown.values()), style="bold")
    console = Console()
    console.print(table)
    if champion is not None and leads.champion is None:
        console.print(f"Champion {champion.version} answers for another horizon or other inputs and was not compared.")
    season = f"{outcome.season_seconds:g} s" if outcome.season_seconds else "none found or given in steps"
    console.print(
        f"Season: {season}. {outcome.fit.steps} steps in {outcome.fit.seconds:.1f} s "
        f"(best after {outcome.fit.best_step}); {outcome.seconds:.1f} s in all."
    )
    verdict = {"promoted": "[green]promoted[/]", "challenged": "[green]goes on trial[/]"}.get(
        action, "[yellow]refused[/]"
    )
    console.print(f"{outcome.artifact.version} {verdict}: {outcome.decision.reason} ({place})")
