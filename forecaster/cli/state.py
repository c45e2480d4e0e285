"""``forecaster state``: what the daemon keeps of a stream, and of each partition, as it stands in the state topic."""

from __future__ import annotations

import argparse
import difflib
import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from forecaster.engine.journal import TaskMeta
    from forecaster.engine.pipeline import Pipeline
    from forecaster.engine.task import PartitionTask
    from forecaster.records import StateRecord
    from forecaster.settings import Settings
    from forecaster.state.pages import Page
    from forecaster.transports.kafka_admin import ClusterAdmin

HELP = "show what is remembered of a stream, how much of each partition, or which network served where"
EXAMPLES = """\
  forecaster state show --stream ward-3/bed-12
  forecaster state show --stream ward-3/bed-12 --json          # for machines
  forecaster state summary                                     # streams, pages and offsets of every partition
  forecaster state switches                                    # which network served where; engine.switches takes it
"""

_EXCERPT = 12  # recent values shown
_NEAREST = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("action", choices=["show", "summary", "switches"], help="one stream, or all partitions")
    parser.add_argument("--stream", metavar="ID", help="the stream to show; record/field where a record holds several")
    parser.add_argument(
        "--partition", type=int, metavar="N", help="look here, not where Kafka's default partitioner puts the stream"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="brokers (kafka.bootstrap_servers)")


def main(args: argparse.Namespace) -> int:
    """Reads the state topic as it is committed; joins no group, changes nothing, and may run beside workers."""
    from rich.console import Console

    from forecaster.connections import build_connection, build_state_store
    from forecaster.errors import ConfigurationError, StateError
    from forecaster.settings import load_settings
    from forecaster.state.copy import StateCopy
    from forecaster.transports.kafka_admin import ClusterAdmin

    if (args.stream is None) == (args.action == "show"):
        raise ConfigurationError("`state show` needs --stream ID; `state summary` and `state switches` take none.")
    kafka = {"bootstrap_servers": args.bootstrap_servers} if args.bootstrap_servers else {}
    settings = load_settings({"kafka": kafka}, config_file=args.config, secrets_dir=args.secrets_dir)
    console = Console(highlight=False)
    with ClusterAdmin(build_connection(settings)) as admin:
        count, kept = _partitions(admin, settings)
    partition = args.partition
    if args.action == "show" and partition is None:
        partition = partition_of_stream(args.stream, settings, count)
    if partition is not None and not 0 <= partition < kept:
        raise StateError(
            f"Partition {partition} has no state: {settings.topics.state} has {kept} partitions, the readings {count}.",
            hint="Where partitions were added to the readings, `forecaster reset` adds them to the state.",
        )

    def read(partition: int) -> list[StateRecord]:
        copy = StateCopy()
        store.state(partition, copy, lambda: False)
        return copy.records()

    with closing(build_state_store(settings)) as store:
        if args.action == "show":
            shown: Any = describe_stream(args.stream, partition, read(partition), settings)
        else:
            chosen = range(kept) if partition is None else [partition]
            if args.action == "switches":
                for number in chosen:
                    print("".join(switches(number, read(number))), end="")
                return 0
            shown = [describe_partition(partition, read(partition), settings) for partition in chosen]
    if args.json:
        print(json.dumps(shown, ensure_ascii=False))
    elif args.action == "show":
        _print_stream(shown, console)
    else:
        _print_partitions(shown, console)
    return 0


def partition_of_stream(stream_id: str, settings: Settings, partitions: int) -> int:
    """Where Kafka's default partitioner puts the records of a stream."""
    from forecaster.transports.kafka_admin import partition_of

    fields = settings.readings.fields
    record_id, _, field = stream_id.rpartition("/")
    if len(fields) == 1 or field not in fields:
        record_id = stream_id
    return partition_of(record_id.encode(), partitions)


def describe_stream(
    stream_id: str, partition: int, records: Sequence[StateRecord], settings: Settings
) -> dict[str, Any]:
    """What the state says of a stream: `Inspector.detail`, and under ``kept`` where in the state it stands.

    Raises:
        StateError: the stream is not there, or the state was kept under other settings, or is damaged.
    """
    from forecaster.app import build_pipeline
    from forecaster.engine.inspection import Inspector
    from forecaster.errors import StateError
    from forecaster.experts.recurrent import model_number, of_team
    from forecaster.settings import further_seasons, group_settings
    from forecaster.state.pages import restore_page

    pipeline = build_pipeline(settings)
    task = _empty_task(partition, pipeline, settings)
    meta, pages = _read(records, task)
    page = next((page for page in pages if stream_id in page.names), None)
    if meta is None or page is None:
        known = sorted({name for page in pages for name in page.names if name is not None})
        near = difflib.get_close_matches(stream_id, known, n=_NEAREST, cutoff=0.5)
        told = f"it holds {len(known)}" + (f", the nearest {', '.join(map(repr, near))}" if near else "")
        raise StateError(
            f"Partition {partition} of {settings.topics.state} holds no stream {stream_id!r}; {told}.",
            hint="A new stream is written state.flush_seconds after its first reading. Where producers choose "
            "partitions otherwise than Kafka's default does, name it with --partition.",
        )
    restore_page(task.table, page)
    slot = task.table.find(stream_id)
    assert slot is not None, "its page was restored"
    columns, number = task.table.arrays, int(task.table.arrays["model"][slot])
    served = [page.model, meta.version, *(version for _, version in meta.switches)]
    served += [*meta.group_versions.values(), *(version for _, _, version in meta.group_switches)]
    teams = [of_team(name) for name in served if name is not None and model_number(name) == number]
    version, former = teams[0] if teams else (None, None)
    waiting = pipeline.pending.waiting(columns, slot)
    detail = Inspector().detail(task, stream_id)
    declared = further_seasons(group_settings(settings, task.group(slot)))
    return {
        **detail,
        # What a training found stands in the model, which is not read here.
        "further_season_steps": [
            None if season is None else steps
            for season, steps in zip(declared, detail["further_season_steps"], strict=True)
        ],
        "model": version,
        "former_model": former,
        "pending": dict(zip(map(str, pipeline.leads), waiting.tolist(), strict=True)),
        "kept": {
            "page": page.number,
            "slot": slot,
            "offset": page.offset,
            "format": page.format,
            "model_number": number or None,
            "partition_offset": meta.next_offset,
            "replay_from": meta.replay_from,
        },
    }


def describe_partition(partition: int, records: Sequence[StateRecord], settings: Settings) -> dict[str, Any]:
    """How much the state of a partition holds, and where it stands.

    Raises:
        PageCorrupt: a record is damaged, or was kept under other settings.
    """
    from forecaster.app import build_pipeline
    from forecaster.codecs.timestamps import format_time

    meta, pages = _read(records, _empty_task(partition, build_pipeline(settings), settings))
    return {
        "partition": partition,
        "streams": len({name for page in pages for name in page.names if name is not None}),
        "pages": len(pages),
        "bytes": sum(len(record.value or b"") for record in records),
        "offset": None if meta is None else meta.next_offset,
        "replay_from": None if meta is None else meta.replay_from,
        "watermark": None if meta is None or meta.watermark is None else format_time(meta.watermark),
        "model": None if meta is None else meta.switches[-1][1] if meta.switches else meta.version,
        "group_models": {}
        if meta is None
        else {**meta.group_versions, **{group: version for _, group, version in meta.group_switches}},
    }


def switches(partition: int, records: Sequence[StateRecord]) -> list[str]:
    """Recorded switches of a partition, in order, as lines that `read_switches` takes."""
    from forecaster.engine.keeper import SWITCH_PREFIX, parse_switch_key
    from forecaster.engine.switches import Switch, write_switch

    found = []
    for record in records:
        if record.value is not None and record.key.startswith(SWITCH_PREFIX):
            offset, group = parse_switch_key(record.key)
            found.append(Switch(partition, offset, record.value.decode(), group))
    return [write_switch(switch) for switch in sorted(found, key=lambda switch: (switch.offset, switch.group))]


def _partitions(admin: ClusterAdmin, settings: Settings) -> tuple[int, int]:
    """Partitions of the readings, which streams are spread over, and of the state topic."""
    from forecaster.errors import TransportError

    topics = settings.topics
    found = admin.describe_topics([topics.state, topics.readings])
    if topics.state not in found:
        raise TransportError(
            f"Topic {topics.state} does not exist at {settings.kafka.bootstrap_servers}: nothing is kept.",
            hint="State is kept with delivery = exactly_once, in topics.state, which `forecaster topics create` makes. "
            "What a running worker knows is under /streams of its telemetry port.",
        )
    kept = found[topics.state]
    return found.get(topics.readings, kept).partitions, kept.partitions


def _empty_task(partition: int, pipeline: Pipeline, settings: Settings) -> PartitionTask:
    """A task as the worker makes it; only its table is used."""
    from forecaster.app import build_group_pipelines, build_rules
    from forecaster.connections import build_codec
    from forecaster.engine.publisher import Publisher
    from forecaster.engine.task import PartitionTask
    from forecaster.settings import build_groups

    return PartitionTask(
        partition,
        codec=build_codec(settings),
        pipeline=pipeline,
        publisher=Publisher(
            forecasts=settings.topics.forecasts,
            dead_letters=settings.topics.dead_letters,
            quantile_levels=settings.forecast.quantiles,
            experts=pipeline.experts,
        ),
        rules=build_rules(settings),
        groups=build_groups(settings),
        pipelines=build_group_pipelines(settings),
    )


def _read(records: Sequence[StateRecord], task: PartitionTask) -> tuple[TaskMeta | None, list[Page]]:
    """The meta record, where there is one, and the pages, newest first: a stream is what its newest page says."""
    from forecaster.engine.journal import decode_meta
    from forecaster.engine.keeper import META_KEY, SWITCH_PREFIX
    from forecaster.state.pages import decode_page

    meta, pages = None, []
    for record in records:
        if record.value is not None and record.key == META_KEY:
            meta = decode_meta(record.value)
        elif record.value is not None and not record.key.startswith(SWITCH_PREFIX):
            pages.append(decode_page(record.value, task.table))
    return meta, sorted(pages, key=lambda page: page.offset, reverse=True)


def _print_stream(shown: dict[str, Any], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    kept, forecast, recent = shown["kept"], shown["forecast"], shown["recent"]
    behind = kept["partition_offset"] - kept["offset"]
    seasons = (shown["season_steps"], *shown["further_season_steps"])
    rows = (
        ("stream", shown["stream_id"], f"partition {shown['partition']}, slot {kept['slot']} in page {kept['page']}"),
        ("as of offset", f"{kept['offset']:,}", f"the partition stands at {kept['partition_offset']:,}, {behind:,} on"),
        ("status", shown["status"], "of the last answer"),
        ("last reading", _number(shown["value"]), f"{shown['time']}, number {shown['seq']:,}"),
        ("step", f"{shown['step_seconds']:g} s", ""),
        ("seasons", ", ".join(f"{steps} steps" for steps in seasons if steps) or "none", ""),
        ("scale, level", f"{shown['scale']:.6g}, {shown['level']:.6g}", "usual change, mean of recent values"),
        ("model", shown["model"] or ("of an earlier time" if kept["model_number"] else "none"), _beside(shown)),
        ("error against naive", _number(shown["error_vs_naive"]), "recent; below 1 is better"),
        ("coverage", _number(shown["coverage"]), "recent, of the widest interval"),
        ("weights", ", ".join(f"{name} {share:.2f}" for name, share in shown["experts"].items()), "of the experts"),
    )
    table = Table.grid(padding=(0, 2))
    for name, value, meaning in rows:
        table.add_row(name, Text(value), Text(meaning, style="dim"))
    console.print(table)
    leads = Table("lead", *(f"{level:g}" for level in forecast["quantile_levels"]), "width", "pending", box=None)
    widths, quantiles = shown["calibration"]["width_factors"], forecast["quantiles"]
    for place, lead in enumerate(forecast["leads"]):
        made = ["–"] * len(forecast["quantile_levels"]) if quantiles is None else map(_number, quantiles[place])
        factor = " ".join(f"×{width:g}" for width in widths[place])
        leads.add_row(str(lead), *made, factor, str(shown["pending"][str(lead)]))
    console.print()
    console.print(leads)
    values = recent["values"][-_EXCERPT:]
    console.print(f"\nlast {len(values)} of {len(recent['values'])} steps in the ring, oldest first:")
    console.print(Text("  " + "  ".join("missing" if value is None else _number(value) for value in values)))


def _print_partitions(shown: Sequence[dict[str, Any]], console: Console) -> None:
    from rich.table import Table

    table = Table(
        "partition",
        "streams",
        "pages",
        "bytes",
        "offset",
        "replay from",
        "watermark",
        "model",
        box=None,
        pad_edge=False,
    )
    for row in shown:
        cells = [row[name] for name in ("partition", "streams", "pages", "bytes", "offset", "replay_from")]
        counts = ["–" if cell is None else f"{cell:,}" for cell in cells]
        others = [f"{group}: {version}" for group, version in sorted(row["group_models"].items())]
        table.add_row(*counts, row["watermark"] or "–", ", ".join([row["model"] or "none", *others]))
    console.print(table)


def _beside(shown: dict[str, Any]) -> str:
    """What is to be said of a stream's model."""
    former = shown["former_model"]
    return f"of the hidden state; beside it the former champion, {former}" if former else "of the hidden state"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"
