"""``forecaster topics``: make, look at and check the topics of the daemon."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from forecaster.settings import Settings
    from forecaster.transports.kafka_admin import ClusterAdmin, TopicDescription, TopicPlan
    from forecaster.transports.kafka_checks import Finding

HELP = "create, describe or check the topics of readings and answers, of feedback, state and models"
EXAMPLES = """\
  forecaster topics create                                     # those that do not exist; the others stay as they are
  forecaster topics create --partitions 12 --replication 3 --retention 14d
  forecaster topics describe
  forecaster topics check --bootstrap-servers kafka:9092       # exit code 1 where the daemon could not work
"""

_BATCH_BYTES = 262_144  # in which the sink sends
_NUMBER_BYTES = 26  # the longest double in JSON, with comma and bracket
_REST_BYTES = 2_048  # names of fields, topic, model and experts, and the headers of record and batch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("action", choices=["create", "describe", "check"], help="what to do with them")
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="brokers (default: of the settings)")
    parser.add_argument("--partitions", type=int, metavar="N", help="of topics created (default: topics.partitions)")
    parser.add_argument("--replication", type=int, metavar="N", help="of topics created (default: topics.replication)")
    parser.add_argument(
        "--retention", type=_retention, metavar="T", help="of topics created, as 14d (default: the broker's)"
    )


def main(args: argparse.Namespace) -> int:
    """Does one of the three; 1 where ``check`` finds a problem."""
    from rich.console import Console

    from forecaster.cli.findings import exit_code, print_findings
    from forecaster.connections import build_connection
    from forecaster.settings import load_settings
    from forecaster.transports.kafka_admin import ClusterAdmin

    topics = {name: getattr(args, name) for name in ("partitions", "replication") if getattr(args, name) is not None}
    kafka = {"bootstrap_servers": args.bootstrap_servers} if args.bootstrap_servers else {}
    settings = load_settings({"topics": topics, "kafka": kafka}, config_file=args.config, secrets_dir=args.secrets_dir)
    console = Console(highlight=False)
    with ClusterAdmin(build_connection(settings)) as admin:
        if args.action == "create":
            _create(admin, plan_topics(settings, admin.describe_topics(topic_names(settings)), args.retention), console)
            return 0
        if args.action == "describe":
            _describe(admin.describe_topics(topic_names(settings)), topic_names(settings), console)
            return 0
        findings = check_cluster(admin, settings)
    print_findings(findings, console)
    return exit_code(findings)


def plan_topics(
    settings: Settings, existing: Mapping[str, TopicDescription], retention_seconds: float | None
) -> list[TopicPlan]:
    """The topics as they are to be made.

    An answer goes to the partition its reading came from: where the readings topic exists, its number of partitions
    counts and not the setting.
    """
    from forecaster.transports.kafka_admin import TopicPlan

    readings = existing.get(settings.topics.readings)
    configs = {} if retention_seconds is None else {"retention.ms": str(round(retention_seconds * 1000))}
    return [
        TopicPlan(
            name=name,
            partitions=_partitions(settings, name, readings),
            replication=settings.topics.replication,
            configs={"cleanup.policy": "compact"}
            if name in (settings.topics.state, settings.topics.models)
            else configs,
        )
        for name in topic_names(settings)
    ]


def _partitions(settings: Settings, name: str, readings: TopicDescription | None) -> int:
    if name == settings.topics.models:
        return 1  # decisions need one order
    return settings.topics.partitions if readings is None else readings.partitions


def topic_names(settings: Settings) -> list[str]:
    """The daemon's topics, readings first."""
    topics = settings.topics
    names = [topics.readings, topics.forecasts, topics.dead_letters]
    if settings.anomalies.enabled:
        names.append(topics.anomalies)
    if topics.feedback:
        names.append(topics.feedback)
    if settings.delivery == "exactly_once":
        names.append(topics.state)
    if (models := models_topic(settings)) is not None:
        names.append(models)
    return names


def models_topic(settings: Settings) -> str | None:
    """The topic of models; ``None`` where a directory keeps them."""
    from forecaster.settings import registry_kind

    return settings.topics.models if registry_kind(settings, on_kafka=True) == "topic" else None


def check_cluster(admin: ClusterAdmin, settings: Settings) -> list[Finding]:
    """The topics as they are against what the daemon needs.

    Raises:
        TransportError: nobody answers, or this user may not look.
    """
    from forecaster.transports.kafka_checks import check_topics

    return check_topics(
        admin.describe_topics(topic_names(settings)),
        readings=settings.topics.readings,
        forecasts=settings.topics.forecasts,
        dead_letters=settings.topics.dead_letters,
        anomalies=settings.topics.anomalies if settings.anomalies.enabled else None,
        feedback=settings.topics.feedback or None,
        state=settings.topics.state if settings.delivery == "exactly_once" else None,
        models=models_topic(settings),
        brokers=admin.count_brokers(),
        answer_bytes=largest_message_bytes(settings),
    )


def largest_message_bytes(settings: Settings) -> int:
    """An upper bound of what the daemon sends at once: a full batch, or one forecast as long as it can get."""
    levels, id_bytes = len(settings.forecast.quantiles), 2 * settings.readings.max_id_bytes
    longest_field = max(len(field.encode()) for field in settings.readings.fields)
    quantiles = (settings.forecast.horizon + 1) * levels * _NUMBER_BYTES
    return max(_BATCH_BYTES, quantiles + 3 * id_bytes + 2 * longest_field + _REST_BYTES)


def _create(admin: ClusterAdmin, plans: Sequence[TopicPlan], console: Console) -> None:
    created = admin.ensure_topics(plans)
    for plan in plans:
        if plan.name in created:
            console.print(f"{plan.name}: created, {plan.partitions} partitions × {plan.replication} replicas")
        else:
            console.print(f"{plan.name}: exists, left as it is")


def _describe(found: Mapping[str, TopicDescription], names: Sequence[str], console: Console) -> None:
    from rich.table import Table

    from forecaster.transports.kafka_checks import format_duration

    table = Table("topic", "partitions", "replicas", "keeps", "largest message", "cleanup", box=None, pad_edge=False)
    for name in names:
        topic = found.get(name)
        if topic is None:
            table.add_row(name, "does not exist")
            continue
        size = "unknown" if topic.max_message_bytes is None else f"{topic.max_message_bytes:,} bytes"
        table.add_row(
            name,
            str(topic.partitions),
            str(topic.replication),
            format_duration(topic.retention_seconds),
            size,
            topic.cleanup_policy or "unknown",
        )
    console.print(table)


def _retention(text: str) -> float:
    from forecaster.settings import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not isinstance(seconds, float) or not 1 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is less than a second, or no time")
    return seconds
