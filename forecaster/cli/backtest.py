"""``forecaster backtest``: the serving engine over files, scored."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecaster.cli.setting_flags import add_setting_flags, merge_settings
from forecaster.cli.table_arguments import add_table_arguments, layout_from
from forecaster.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from forecaster.backtest.anomalies import ProfileScore
    from forecaster.backtest.play import Backtest, Playback, TrainingNote
    from forecaster.backtest.result import Result
    from forecaster.settings import Settings

HELP = "play files to the serving engine, retraining as it goes, and score every forecast"
EXAMPLES = """\
  forecaster backtest --data ETTh1.csv --columns '*' --horizon 24 --season 24 --out etth1/
  forecaster backtest --data sensors/ --horizon 12 --retrain-every 7d --quantiles 0.05,0.25,0.5,0.75,0.95 --out week/
  forecaster backtest --data air.csv --value-column pm2.5 --set 'readings.covariates=["temperature"]' --out air/
  forecaster backtest --data sensors/ --model trained/gru-20260101T000000-ab12cd.model --out as-promoted/
"""

_EVER = "36500d"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--data",
        nargs="+",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV or JSON lines, also gzipped, or Parquet, or directories of them; an empty value is a missing reading",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="forecasts, anomalies, scores.json, report.html"
    )
    parser.add_argument("--horizon", type=int, metavar="H", help="steps ahead (default: forecast.horizon)")
    parser.add_argument(
        "--season", nargs="+", metavar="M|1d", help="in steps or as durations; 0 for none (default: found)"
    )
    parser.add_argument(
        "--retrain-every",
        metavar="N|7d",
        help="rows of every stream, or event time, between trainings; 0 trains once (default: as long as the warm-up)",
    )
    parser.add_argument(
        "--warmup",
        type=_warmup,
        default=0.3,
        metavar="X",
        help="beginning that is not scored, at whose end the first training is: share of the rows, or rows of a "
        "stream (default: 0.3)",
    )
    parser.add_argument("--quantiles", metavar="Q,Q", help="levels, as 0.1,0.5,0.9 (default: forecast.quantiles)")
    parser.add_argument(
        "--origin-stride",
        type=_positive,
        default=1,
        metavar="N",
        help="write forecasts only at rows whose place in their stream is a multiple of N; all are made and scored",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of everything random (default: training.seed)")
    parser.add_argument("--model", type=Path, metavar="FILE", help="an artifact that serves from the first row on")
    parser.add_argument(
        "--order",
        choices=["auto", "time", "progress"],
        default="auto",
        help="play by event time, or unrelated series side by side from first to last row (default: auto, which looks "
        "whether most streams overlap)",
    )
    parser.add_argument(
        "--forecasts",
        default="forecasts.csv.gz",
        metavar="NAME",
        help="of forecasts, in DIR: .csv, .csv.gz, or .parquet with forecaster[parquet] (default: forecasts.csv.gz)",
    )
    add_setting_flags(parser)
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help='what was anomalous, as JSON {"stream": [["begin", "end"]]}; scores anomalies as the Numenta benchmark',
    )
    parser.add_argument(
        "--feedback",
        type=Path,
        metavar="FILE",
        help="labels and periods as JSON lines, as in topics.feedback; each label counts from its timestamp on",
    )
    add_table_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Plays, scores, writes, and prints the scores."""
    from rich.console import Console

    from forecaster.settings import load_settings
    from forecaster.telemetry import logs

    defaults = {
        # a backtest learns from everything it has seen, and forgets no stream, unless it is told to
        "training": {"window": _EVER},
        "streams": {"idle_ttl": _EVER},
        "telemetry": {"log_level": "ERROR", "log_format": "text"},
    }
    settings = load_settings(
        overrides_of(args), defaults=defaults, config_file=args.config, secrets_dir=args.secrets_dir
    )
    logs.configure(settings.telemetry.log_level, settings.telemetry.log_format)
    _run(args, settings, Console(stderr=True))
    return 0


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that stand for settings, nested as the settings are; only those that were given."""
    overrides: dict[str, dict[str, Any]] = {}
    for section, name, value in (
        ("forecast", "horizon", args.horizon),
        ("forecast", "seasons", args.season),
        ("forecast", "quantiles", None if args.quantiles is None else _levels(args.quantiles)),
        ("training", "seed", args.seed),
    ):
        if value is not None:
            overrides.setdefault(section, {})[name] = value
    return merge_settings(overrides, args.set)


def _run(args: argparse.Namespace, settings: Settings, console: Console) -> None:
    from forecaster.app import build_backtest
    from forecaster.backtest.anomalies import read_labels
    from forecaster.backtest.recording import Recording
    from forecaster.backtest.report import write_report
    from forecaster.backtest.result import conclude, season_rows, training_points, write_scores
    from forecaster.backtest.scoring import ScoringRules
    from forecaster.backtest.write import check_table_path
    from forecaster.codecs.feedback_json import read_feedback_file
    from forecaster.models.artifact import ModelArtifact
    from forecaster.settings import declared_season
    from forecaster.transports.tables import open_tables

    check_table_path(args.out / args.forecasts)
    feedback = [] if args.feedback is None else read_feedback_file(args.feedback)
    labels = None if args.labels is None else read_labels(args.labels)
    layout = layout_from(args, settings)
    tables = open_tables(args.data, layout)
    champion = None if args.model is None else ModelArtifact.load(args.model)
    _make_directory(args.out)
    with console.status("reading files"):
        recording = Recording(tables, alignment=args.order, covariates=len(settings.readings.covariates))
    console.print(f"{len(recording):,} rows of {len(recording.streams):,} streams, played by {recording.alignment}.")
    backtest = build_backtest(
        settings, recording, layout=layout, directory=args.out, champion=champion, feedback=feedback
    )
    try:
        every = _rows(args.retrain_every, recording.step_seconds)
        points = training_points(backtest, warmup=args.warmup, every_rows=every)
        playback = _play(backtest, points, console)
        with console.status("scoring"):
            result = conclude(
                backtest,
                playback,
                protocol=ScoringRules(
                    horizon=settings.forecast.horizon,
                    quantile_levels=settings.forecast.quantiles,
                    warmup=args.warmup,
                    season_rows=season_rows(declared_season(settings), playback, recording.step_seconds),
                ),
                seed=settings.training.seed,
                table=args.out / args.forecasts,
                origin_stride=args.origin_stride,
                labels=labels,
                threshold=settings.anomalies.threshold,
            )
            write_scores(result, args.out / "scores.json")
            for artifact in playback.champions:
                artifact.save(args.out / "models" / f"{artifact.version}.model")
            write_report(result, args.out / "report.html")
    finally:
        backtest.close()
    if not result.pooled.all.targets:
        raise ConfigurationError(
            f"No forecast after the warm-up ({args.warmup:g}) has met its target: there is nothing to score in "
            f"{len(recording):,} rows, {result.dead_letters:,} of which were refused.",
            hint=f"Give more rows or a shorter --warmup; {args.out / 'dead_letters.jsonl'} says why rows were refused.",
        )
    _show(result, args.out)


def _play(backtest: Backtest, points: Any, console: Console) -> Playback:
    """Behind a progress bar, with a line for every training."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("playing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("playing", total=len(backtest.recording))

        def on_training(note: TrainingNote) -> None:
            bar.console.print(f"after {note.at:,} rows: {note.outcome} in {note.seconds:.0f} s. {note.reason}")

        return backtest.play(points, on_progress=lambda done: bar.update(task, completed=done), on_training=on_training)


def _show(result: Result, out: Path) -> None:
    """The scores as a table, to standard output."""
    from rich.console import Console
    from rich.table import Table

    scores, pooled = result.pooled.all, result.pooled
    table = Table(title=f"{scores.targets:,} targets of {len(result.streams):,} streams after the warm-up")
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_row("MAE against the last value", f"{scores.relative_naive:.3f}")
    if result.protocol.season_rows:
        table.add_row(
            f"MAE against the value {result.protocol.season_rows} rows before", f"{scores.relative_seasonal:.3f}"
        )
    table.add_row("MASE, mean and median", f"{scores.mase:.3f}, {pooled.median_mase:.3f}")
    table.add_row("scaled quantile loss", f"{scores.sql:.3f}")
    table.add_row("weighted quantile loss", f"{scores.wql:.3f}")
    for interval, extremes in zip(scores.intervals, pooled.coverage_extremes, strict=True):
        least, _, most, _ = extremes
        table.add_row(
            f"coverage of {interval.nominal:.0%}: all, least, most covered stream",
            f"{interval.coverage:.3f}, {least:.3f}, {most:.3f}",
        )
    table.add_row("anomalies raised", f"{result.anomalies.raised:,}")
    for profile in result.anomalies.profiles:
        table.add_row(f"NAB, {profile.profile}: best threshold, as raised", _nab(profile))
    table.add_row("engine, µs a reading", f"{result.timing.engine_microseconds_per_reading:.0f}")
    table.add_row("training, s", f"{result.timing.training_seconds:.0f}")
    console = Console()
    console.print(table)
    console.print(f"Forecasts, scores.json and report.html are in {out}.")
    if result.dead_letters:
        console.print(f"{result.dead_letters:,} rows were refused: {out / 'dead_letters.jsonl'} says why.")


def _nab(profile: ProfileScore) -> str:
    return f"{profile.score:.1f}, {profile.score_as_raised:.1f}"


def _rows(text: str | None, step_seconds: float) -> float | None:
    """Rows between trainings, from rows or a duration."""
    from forecaster.settings import parse_season

    if text is None:
        return None
    try:
        every = parse_season(text)
    except ValueError:
        every = None
    if isinstance(every, int):
        return every
    if not isinstance(every, str):
        raise ConfigurationError(
            f"--retrain-every {text!r} is neither a number of rows nor a duration.", hint="As in 500, 12h or 7d."
        )
    if step_seconds == 0:
        raise ConfigurationError(
            f"--retrain-every {text} is a duration, but no stream has two rows.", hint="Give a number of rows."
        )
    return float(every.removesuffix("s")) / step_seconds


def _levels(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--quantiles {text!r} is no list of levels.", hint="As in 0.1,0.5,0.9.") from None


def _warmup(text: str) -> float:
    """A flag's value that is a share below 1, or a whole number of rows."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 <= value < 1 or (value >= 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a share from 0 to below 1 nor a whole number of rows")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"Directory {path} cannot be made: {error.strerror}.", hint="Check --out.") from error
