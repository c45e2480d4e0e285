"""``forecaster doctor``: looks at everything a worker needs, and says what is wrong and what to do about it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forecaster.settings import Settings
    from forecaster.transports.kafka_checks import Finding

HELP = "check installation, settings, brokers, topics, group, registry, and a sample of the newest readings"
EXAMPLES = """\
  forecaster doctor                                            # exit code 1 where something keeps it from working
  forecaster doctor --bootstrap-servers kafka:9092 --sample 2000
  forecaster doctor --settings                                 # every setting in force, not only those set
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="brokers (default: of the settings)")
    parser.add_argument("--sample", type=_count, default=300, metavar="N", help="newest readings read (default: 300)")
    parser.add_argument("--settings", action="store_true", help="show every setting in force")


def main(args: argparse.Namespace) -> int:
    """Prints what was found; 1 where there is a problem. Changes nothing, and joins no group."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from forecaster.cli.checkup import check_installation, check_path, setting_rows
    from forecaster.cli.findings import exit_code, print_findings
    from forecaster.settings import load_settings
    from forecaster.telemetry import logs
    from forecaster.transports.kafka_admin import client_facts
    from forecaster.transports.kafka_self_test import why_not_batched

    overrides = {"kafka": {"bootstrap_servers": args.bootstrap_servers}} if args.bootstrap_servers else {}
    settings = load_settings(overrides, config_file=args.config, secrets_dir=args.secrets_dir)
    logs.configure("ERROR", "text")  # what the client warns of is found and told below
    console = Console(highlight=False)

    rows = setting_rows(settings, with_defaults=args.settings)
    table = Table("setting", "value", box=None, pad_edge=False)
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    console.print(table if rows else "All settings have their defaults.")
    console.print()

    findings = check_installation(client_facts())
    if settings.kafka.client == "kafka-python":
        findings.append(check_path(wanted=settings.kafka.batched, obstacle=why_not_batched()))
    findings += check_registry_of(settings)
    findings += _check_kafka(settings, args.sample)
    print_findings(findings, console)
    return exit_code(findings)


def check_registry_of(settings: Settings) -> list[Finding]:
    """The directory of models where a worker would use it; else their topic is looked at among the others."""
    from forecaster.cli.checkup import check_registry
    from forecaster.settings import registry_kind

    in_directory = registry_kind(settings, on_kafka=True) == "directory"
    return [check_registry(settings.registry.directory)] if in_directory else []


def _check_kafka(settings: Settings, sample: int) -> list[Finding]:
    """From the brokers to the readings, as far as one can get."""
    from forecaster.cli.checkup import check_ages, check_brokers, check_group, check_sample, problem_from
    from forecaster.cli.topics import check_cluster
    from forecaster.clock import SystemClock
    from forecaster.connections import build_codec, build_connection
    from forecaster.errors import TransportError
    from forecaster.transports.kafka_admin import ClusterAdmin, newest_records

    connection, readings = build_connection(settings), settings.topics.readings
    findings: list[Finding] = []
    about = "brokers"
    try:
        with ClusterAdmin(connection) as admin:
            findings.append(check_brokers(admin.describe_cluster()))
            about = "topics"
            findings += check_cluster(admin, settings)
            topic = admin.describe_topics([readings]).get(readings)
            if topic is None:
                return findings
            about = f"group {settings.kafka.group_id}"
            findings += check_group(admin.describe_group(settings.kafka.group_id, readings, topic.partitions))
        about = "readings"
        records = newest_records(connection, readings, sample)
        findings += check_sample(
            records,
            build_codec(settings),
            partitions=topic.partitions,
            max_lateness_seconds=settings.readings.max_lateness_seconds,
        )
        findings += check_ages(records, retention_seconds=topic.retention_seconds, now=SystemClock().now())
    except TransportError as error:
        findings.append(problem_from(error, about))
    return findings


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
