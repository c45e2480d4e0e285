"""``forecaster models``: look at the registry, change who serves, carry models from one registry to another."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecaster.series.groups import group_label, group_named

if TYPE_CHECKING:
    from rich.console import Console

    from forecaster.models.artifact import Manifest
    from forecaster.models.decisions import RegistryRecord
    from forecaster.ports import ModelRegistry

HELP = "list, show, compare, promote, roll back, export or import models of the registry"
EXAMPLES = """\
  forecaster models list
  forecaster models diff gru-20260101T000000-ab12cd champion
  forecaster models promote gru-20260101T000000-ab12cd --reason "better at night"
  forecaster models rollback --reason "too wide since noon"
  forecaster models promote gru-20260101T000000-ab12cd --group pumps    # for the streams of one group
  forecaster models export champion model.zip
  forecaster models import model.zip --directory var/models     # into a directory, whatever registry.kind says
VERSION is a name of `list`, or champion. Workers notice a change by themselves."""

CHAMPION = "champion"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's actions and their flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="machine-readable, to standard output")
    common.add_argument("--directory", type=Path, metavar="DIR", help="a registry in this directory, not the settings'")
    common.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="brokers (kafka.bootstrap_servers)")
    common.add_argument(
        "--group", default="default", metavar="NAME", help="whose champion is meant (default: of streams of no group)"
    )

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=text, parents=[common])

    action("list", "all models, oldest first, and who serves")
    action("show", "one model: shape, lineage, scores, and the decisions about it").add_argument("version")
    diff = action("diff", "two models side by side")
    diff.add_argument("version")
    diff.add_argument("other")
    promote = action("promote", "make a model the champion")
    promote.add_argument("version")
    promote.add_argument("--reason", default="", help="kept with the decision")
    action("rollback", "put the champion before the present one back").add_argument(
        "--reason", default="", help="kept with the decision"
    )
    export = action("export", "write one model to one file")
    export.add_argument("version")
    export.add_argument("file", type=Path)
    action("import", "take a model from a file that `export` or `train --out` wrote").add_argument("file", type=Path)


def main(args: argparse.Namespace) -> int:
    """Does one of the seven."""
    from rich.console import Console

    from forecaster.connections import build_registry
    from forecaster.errors import TransportUnavailable
    from forecaster.settings import load_settings
    from forecaster.telemetry import logs

    registry_overrides = {"kind": "directory", "directory": args.directory} if args.directory else {}
    kafka_overrides = {"bootstrap_servers": args.bootstrap_servers} if args.bootstrap_servers else {}
    settings = load_settings(
        {"registry": registry_overrides, "kafka": kafka_overrides},
        config_file=args.config,
        secrets_dir=args.secrets_dir,
    )
    logs.configure("WARNING", "text")
    console = Console(highlight=False)
    try:
        with contextlib.closing(build_registry(settings, on_kafka=True)) as registry:
            _ACTIONS[args.action](registry, args, console)
    except TransportUnavailable as error:
        error.hint += " For models in a directory give --directory, or set registry.kind to directory."
        raise
    return 0


def _list(registry: ModelRegistry, args: argparse.Namespace, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    rows = list_rows(registry.manifests(), registry.history())
    if args.json:
        _print_json(rows)
        return
    if not rows:
        console.print(f"The registry {registry.place} holds no model. `forecaster train` makes one.", markup=False)
        return
    names = ("version", "state", "group", "created", "hidden", "readings", "pinball", "vs naive", "parent")
    table = Table(*names, box=None)
    for row in rows:
        table.add_row(
            Text(row["version"], no_wrap=True, style="bold" if row["state"] == CHAMPION else ""),
            row["state"],
            ", ".join(row["serves"]) or row["group"],
            row["created"],
            f"{row['layers']}×{row['hidden']}",
            f"{row['readings']:,}",
            _number(row["pinball"]),
            "" if row["gain_over_naive"] is None else f"{100 * row['gain_over_naive']:+.1f} %",
            row["parent"],
        )
    console.print(table)


def list_rows(manifests: Sequence[Manifest], history: Sequence[RegistryRecord]) -> list[dict[str, Any]]:
    """One row a model, as ``models list --json`` prints it."""
    from forecaster.codecs.timestamps import format_time
    from forecaster.models.decisions import who_serves

    champions = who_serves(history).champions
    states = {record.version: _STATES[record.action] for record in history}
    rows = []
    for manifest in manifests:
        loss, naive = manifest.scores.get("pinball"), manifest.scores.get("pinball_naive")
        was = states.get(manifest.version, "")
        serves = [group_label(group) for group, version in champions.items() if version == manifest.version]
        rows.append(
            {
                "version": manifest.version,
                "state": CHAMPION if serves else was,
                "group": group_label(manifest.group),
                "serves": serves,
                "created": format_time(manifest.created),
                "cell": manifest.hyperparameters.cell,
                "layers": manifest.hyperparameters.layers,
                "hidden": manifest.hyperparameters.hidden,
                "horizon": manifest.hyperparameters.horizon,
                "readings": manifest.data.readings,
                "pinball": loss,
                "gain_over_naive": 1 - loss / naive if loss is not None and naive else None,
                "parent": manifest.parent,
            }
        )
    return rows


def _show(registry: ModelRegistry, args: argparse.Namespace, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from forecaster.codecs.timestamps import format_time

    manifest = registry.get(_resolve(registry, args.version, args)).manifest
    about = [record for record in registry.history() if record.version == manifest.version]
    if args.json:
        _print_json({"manifest": manifest, "decisions": about})
        return
    table = Table(box=None, show_header=False)
    for name, value in facts(manifest).items():
        table.add_row(name, Text(value))
    console.print(table)
    for record in about:
        reason = record.decision.get("reason") or "no reason given"
        of = f" (group {record.group})" if record.group else ""
        told = f"\n{record.number}. {record.action.replace('_', ' ')}{of} {format_time(round(record.time))}: {reason}"
        console.print(told, markup=False)


def _diff(registry: ModelRegistry, args: argparse.Namespace, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    versions = [_resolve(registry, version, args) for version in (args.version, args.other)]
    one, other = (facts(registry.get(version).manifest) for version in versions)
    names = list(dict.fromkeys((*one, *other)))
    rows = [(name, one.get(name, ""), other.get(name, "")) for name in names]
    if args.json:
        _print_json({name: [a, b] for name, a, b in rows if a != b})
        return
    table = Table("", *versions, box=None)
    for name, a, b in rows:
        table.add_row(name, Text(a), Text(b), style="" if a != b else "dim")
    console.print(table)


def facts(manifest: Manifest) -> dict[str, str]:
    """Everything about a model, for people: name to text, in the order one asks."""
    import msgspec

    from forecaster.codecs.timestamps import format_time

    hp, data = manifest.hyperparameters, manifest.data
    season = f"{manifest.season_steps} steps" if manifest.season_steps else ""
    found = {
        "version": manifest.version,
        "parent": manifest.parent or "none, a cold start",
        "created": format_time(round(manifest.created)),
        "code version": manifest.code_version,
        "seed": str(manifest.seed),
        "group": manifest.group,
        "data from": format_time(data.first),
        "data to": format_time(data.last),
        "streams": f"{data.streams:,}" + (f" of {data.streams_seen:,}" if data.streams_seen > data.streams else ""),
        "window cut by": data.cut_by,
        "readings": f"{data.readings:,}",
        "source": data.topic or "no topic",
        "offsets": ", ".join(f"{span.partition}: {span.first} to {span.end}" for span in data.offsets),
        "season": season or ", ".join(f"{seconds:g} s" for seconds in manifest.season_seconds) or "none",
    }
    found |= {f"score {name}": _number(value) for name, value in manifest.scores.items()}
    found |= {f"training {name}": _number(value) for name, value in manifest.training.items()}
    shape = msgspec.to_builtins(hp)
    found |= {name.replace("_", " "): _plain(value) for name, value in shape.items()}
    found |= {name: _plain(value) for name, value in manifest.settings.items()}
    return {name: value for name, value in found.items() if value}


def _promote(registry: ModelRegistry, args: argparse.Namespace, console: Console) -> None:
    from forecaster.errors import ForecasterError

    version, group = args.version, group_named(args.group)
    before, of = registry.champion(group), _of(group)
    if version in (before, CHAMPION):
        raise ForecasterError(
            f"{before or 'Nobody'} is the champion{of} of {registry.place} already: nothing was changed."
        )
    record = registry.promote(version, {"reason": args.reason, "by": "operator"}, now=time.time(), group=group)
    told = f"{version} serves{of} now, {before or 'nobody'} did before (decision {record.number})."
    _tell(args, console, told, record)


def _rollback(registry: ModelRegistry, args: argparse.Namespace, console: Console) -> None:
    group = group_named(args.group)
    before = registry.champion(group)
    version = registry.rollback(now=time.time(), reason=args.reason, group=group)
    told = f"{version} serves{_of(group)} again, {before} did before."
    _tell(args, console, told, {"version": version, "from": before})


def _export(registry: ModelRegistry, args: argparse.Namespace, console: Console) -> None:
    from forecaster.stores.bundle import write_bundle

    artifact = registry.get(_resolve(registry, args.version, args))
    write_bundle(artifact, args.file)
    told = f"{artifact.version} is in {args.file}, {args.file.stat().st_size:,} bytes."
    _tell(args, console, told, {"version": artifact.version, "file": str(args.file)})


def _import(registry: ModelRegistry, args: argparse.Namespace, console: Console) -> None:
    from forecaster.stores.bundle import read_model_file

    artifact = read_model_file(args.file)
    registry.put(artifact)
    told = f"{artifact.version} is in {registry.place}. `forecaster models promote {artifact.version}` lets it serve."
    _tell(args, console, told, {"version": artifact.version})


def _of(group: str) -> str:
    return f" group {group}" if group else ""


def _resolve(registry: ModelRegistry, version: str, args: argparse.Namespace) -> str:
    """A version, or the champion's where the word stands for it."""
    from forecaster.errors import NoChampion

    if version != CHAMPION:
        return version
    group = group_named(args.group)
    found = registry.champion(group)
    if found is None:
        raise NoChampion(
            f"The registry {registry.place} has no champion{_of(group)}.", hint="`forecaster models promote` makes one."
        )
    return found


def _tell(args: argparse.Namespace, console: Console, text: str, result: Any) -> None:
    if args.json:
        _print_json(result)
    else:
        console.print(text, markup=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


_STATES = {
    "promoted": "served",
    "rolled_back": "served",
    "confirmed": "served",
    "refused": "refused",
    "challenged": "on trial",
    "failed": "",
}

_ACTIONS = {
    "list": _list,
    "show": _show,
    "diff": _diff,
    "promote": _promote,
    "rollback": _rollback,
    "export": _export,
    "import": _import,
}
