"""``forecaster verify``: does every reading have its one answer?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

    from forecaster.engine.audit import Answer, AuditReport
    from forecaster.settings import Settings
    from forecaster.transports.kafka_audit import Extent, TopicAuditor

HELP = "audit the answers against the readings: missing, duplicated, out of order"
EXAMPLES = """\
  forecaster verify                                            # exit code 1 where anything is wrong
  forecaster verify --since 2026-01-01T00:00:00Z
  forecaster verify --readings pulses --forecasts pulse-forecasts --complete
"""

_SINCE_SLACK_SECONDS = 600.0
"""Clocks of producers and brokers differ; answers are read from this long before the first audited reading."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--readings", metavar="TOPIC", help="topic of readings (topics.readings)")
    parser.add_argument("--forecasts", metavar="TOPIC", help="topic of forecasts (topics.forecasts)")
    parser.add_argument("--dead-letters", metavar="TOPIC", help="topic of refused readings (topics.dead_letters)")
    parser.add_argument("--group", metavar="ID", help="consumer group whose offsets say what is done (kafka.group_id)")
    parser.add_argument("--since", type=_time, metavar="TIME", help="only readings of this record time and later")
    parser.add_argument(
        "--complete", action="store_true", help="readings after the group's committed offset must be answered too"
    )
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="brokers (kafka.bootstrap_servers)")


def main(args: argparse.Namespace) -> int:
    """Reads the topics once; 1 where something is wrong."""
    from rich.console import Console

    from forecaster.connections import build_connection
    from forecaster.settings import load_settings
    from forecaster.transports.kafka_audit import TopicAuditor

    topics = {name: getattr(args, name) for name in ("readings", "forecasts", "dead_letters") if getattr(args, name)}
    kafka: dict[str, Any] = {"group_id": args.group, "bootstrap_servers": args.bootstrap_servers}
    overrides = {"topics": topics, "kafka": {name: value for name, value in kafka.items() if value}}
    settings = load_settings(overrides, config_file=args.config, secrets_dir=args.secrets_dir)
    console = Console(highlight=False)
    with TopicAuditor(build_connection(settings)) as auditor, console.status("reading"):
        report = audit_topics(auditor, settings, since=args.since, complete=args.complete)
    _print(report, settings, console)
    return 0 if report.is_clean else 1


def audit_topics(auditor: TopicAuditor, settings: Settings, *, since: float | None, complete: bool) -> AuditReport:
    """Audits every partition of the readings topic, one after the other.

    Args:
        since: only readings of this record time and later, seconds since the epoch.
        complete: every reading has to be answered, also those the group has not committed.

    Raises:
        TransportError: a topic does not exist, or cannot be read to its end.
    """
    from forecaster.connections import build_codec, build_publishing
    from forecaster.engine.audit import AuditReport, AuditRules, PartitionAudit, Span
    from forecaster.transports.kafka_audit import Extent

    topics, readings = settings.topics, settings.readings
    rules = AuditRules(
        topic=topics.readings,
        fields=readings.fields if len(readings.fields) > 1 else (),
        max_lateness_seconds=readings.max_lateness_seconds,
        drop_duplicates=readings.duplicates == "drop",
        check_sequences=settings.delivery != "at_least_once",
        publishing=build_publishing(settings),
    )
    # In this order: what is committed by now has its answer by then, and what is answered by then its reading.
    reached = auditor.committed(settings.kafka.group_id, topics.readings)
    since_answered = None if since is None else since - _SINCE_SLACK_SECONDS
    forecasts = auditor.extents(topics.forecasts, since=since_answered)
    dead_letters = auditor.extents(topics.dead_letters, since=since_answered)
    codec, report = build_codec(settings), AuditReport()
    extents = auditor.extents(topics.readings, since=since)
    for partition in sorted({*extents, *forecasts, *dead_letters}):
        extent = extents.get(partition, Extent(0, 0))
        goal = extent.end if complete else reached.get(partition, 0)
        audit = PartitionAudit(partition, codec.decode, rules, Span(first=extent.first, reached=goal))
        audit.expect(record.raw for record in auditor.read(topics.readings, partition, extent))
        audit.answered(_forecasts(auditor, topics.forecasts, partition, forecasts))
        audit.answered(_dead_letters(auditor, topics.dead_letters, partition, dead_letters))
        report.add(audit.finish())
    return report


def _forecasts(auditor: TopicAuditor, topic: str, partition: int, extents: Mapping[int, Extent]) -> Iterator[Answer]:
    from forecaster.engine.audit import read_forecast

    if partition in extents:
        for record in auditor.read(topic, partition, extents[partition]):
            yield read_forecast(record.raw.offset, record.raw.value)


def _dead_letters(auditor: TopicAuditor, topic: str, partition: int, extents: Mapping[int, Extent]) -> Iterator[Answer]:
    from forecaster.engine.audit import read_dead_letter

    if partition in extents:
        for record in auditor.read(topic, partition, extents[partition]):
            yield read_dead_letter(record.raw.offset, record.headers)


def _print(report: AuditReport, settings: Settings, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    rows = (
        ("readings", report.records, settings.topics.readings),
        ("answers due", report.due, "one a reading, or one for each of its fields"),
        ("forecasts", report.forecasts, settings.topics.forecasts),
        ("dead letters", report.dead_letters, settings.topics.dead_letters),
        ("tombstones", report.tombstones, "need no answer"),
        ("dropped", report.dropped, "repeated readings, readings.duplicates = drop"),
        ("withheld", report.withheld, "forecasts that publish.when leaves out"),
        ("pending", report.pending, "held back for re-ordering"),
        ("waiting", report.waiting, f"not committed yet by group {settings.kafka.group_id}"),
        ("restarts", report.restarts, "streams that were forgotten and began again"),
        ("not looked at", report.foreign, "answers to other topics, or to readings outside the audited ones"),
    )
    for name, count, meaning in rows:
        table.add_row(name, Text(f"{count:,}", justify="right"), Text(meaning, style="dim"))
    console.print(table)
    if report.is_clean:
        console.print("\nEvery reading has its answer, once and in order.", style="green")
        return
    found = Table("finding", "partition", "offset", "field", "detail", box=None, pad_edge=False)
    for breach in report.breaches:
        found.add_row(
            Text(breach.kind, style="bold red"),
            str(breach.partition),
            str(breach.offset),
            Text(breach.field),
            Text(breach.detail),
        )
    console.print()
    console.print(found)
    counts = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in report.counts.items())
    console.print(f"\n{counts}.", style="bold red")


def _time(text: str) -> float:
    from forecaster.codecs.timestamps import parse_time

    try:
        return parse_time(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-01-01T00:00:00Z") from None
