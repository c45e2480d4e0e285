"""``forecaster reset``: a group's offsets and the streams' state back to nothing."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from forecaster.settings import Settings
    from forecaster.transports.kafka_admin import ClusterAdmin, GroupDescription, TopicDescription

HELP = "set the group's offsets and the streams' state back to nothing, after a warning"
EXAMPLES = """\
  forecaster reset                                             # asks first; every reading still held is answered anew
  forecaster reset --yes
  forecaster reset --keep-offsets                              # go on where the group stands, with nothing learnt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--keep-offsets", action="store_true", help="remove the state only: no reading is answered a second time"
    )
    parser.add_argument("--group", metavar="ID", help="consumer group to set back (kafka.group_id)")
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="brokers (kafka.bootstrap_servers)")


def main(args: argparse.Namespace) -> int:
    """Sets back what there is; 1 where the answer was no, or the group has members. Calling again does no harm."""
    from rich.console import Console

    from forecaster.connections import build_connection
    from forecaster.errors import TransportError
    from forecaster.settings import load_settings
    from forecaster.transports.kafka_admin import ClusterAdmin

    given = {"group_id": args.group, "bootstrap_servers": args.bootstrap_servers}
    kafka = {name: value for name, value in given.items() if value}
    settings = load_settings({"kafka": kafka}, config_file=args.config, secrets_dir=args.secrets_dir)
    topics, console = settings.topics, Console(highlight=False, soft_wrap=True)
    with ClusterAdmin(build_connection(settings)) as admin:
        found = admin.describe_topics(
            [topics.readings, topics.forecasts, topics.anomalies, topics.dead_letters, topics.state]
        )
        if topics.readings not in found:
            raise TransportError(
                f"Topic {topics.readings} does not exist at {settings.kafka.bootstrap_servers}.",
                hint="Create it with `forecaster topics create`, or set topics.readings.",
            )
        _require_empty(admin, settings.kafka.group_id)
        group = admin.describe_group(settings.kafka.group_id, topics.readings, found[topics.readings].partitions)
        _warn(settings, group, found, console, keep_offsets=args.keep_offsets)
        if not args.yes and not _is_confirmed():
            console.print("Nothing was changed.")
            return 1
        _require_empty(admin, settings.kafka.group_id)  # somebody may have started one meanwhile
        _set_back(admin, settings, group, found, console, keep_offsets=args.keep_offsets)
    return 0


def _require_empty(admin: ClusterAdmin, group_id: str) -> None:
    from forecaster.errors import TransportError

    members = admin.group_members(group_id)
    if members:
        names = ", ".join(f"{member.name} at {member.host}" for member in members)
        raise TransportError(
            f"Group {group_id} has {len(members)} member{'s' if len(members) > 1 else ''}: {names}.",
            hint="Stop the workers first. One that was killed is counted for kafka.session_timeout_seconds.",
        )


def _warn(
    settings: Settings,
    group: GroupDescription,
    found: Mapping[str, TopicDescription],
    console: Console,
    *,
    keep_offsets: bool,
) -> None:
    """What is about to happen, in numbers, before anybody is asked."""
    topics, held = settings.topics, sum(at.end - at.first for at in group.progress.values())
    console.print(f"Group {group.group_id} in {topics.readings}, {len(group.progress)} partitions:")
    if keep_offsets:
        console.print("  offsets  stay; no reading is answered a second time")
        if settings.readings.max_lateness_seconds:
            console.print(
                "           but readings held back at this moment (readings.max_lateness_seconds) will have no answer",
                style="yellow",
            )
    else:
        console.print(
            f"  offsets  are deleted; the next run begins at kafka.start = {settings.kafka.start}, "
            f"with up to {held:,} readings to answer anew"
        )
    if topics.state in found:
        console.print(f"  state    in {topics.state} is removed: what was learnt of every stream is lost")
    console.print(f"  answers  in {topics.forecasts} and {topics.dead_letters} stay as they are")
    if not keep_offsets:
        console.print(
            "           their consumers will see readings answered a second time, from streams that begin anew",
            style="yellow",
        )


def _is_confirmed() -> bool:
    try:
        return input("Go on? Type yes: ").strip().lower() == "yes"
    except EOFError:
        return False  # nobody is there to ask


def _set_back(
    admin: ClusterAdmin,
    settings: Settings,
    group: GroupDescription,
    found: Mapping[str, TopicDescription],
    console: Console,
    *,
    keep_offsets: bool,
) -> None:
    """The steps, in an order in which an end between any two leaves nothing that could be misread.

    1. Read which keys the state has: that waits for transactions of workers that died.
    2. Offsets: without one, or with one that says nothing of state, a worker begins anew whatever the state holds.
    3. Tombstones on all keys.
    4. A partition of state for each of the readings.
    """
    from forecaster.connections import build_connection, build_state_store
    from forecaster.state.copy import StateCopy
    from forecaster.transports.kafka_admin import write_tombstones

    topics, group_id, readings = settings.topics, group.group_id, found[settings.topics.readings]
    state = found.get(topics.state)
    keys: dict[int, list[str]] = {}
    # Step 1.
    if state is not None:
        with closing(build_state_store(settings)) as store:
            for partition in range(state.partitions):
                copy = StateCopy()
                store.state(partition, copy, lambda: False)
                keys[partition] = [record.key for record in copy.records()]
    # Step 2.
    committed = {number: at.committed for number, at in group.progress.items() if at.committed is not None}
    if keep_offsets:
        # Read again: a dead worker's last transaction may have ended only now.
        group = admin.describe_group(group_id, topics.readings, readings.partitions)
        committed = {number: at.committed for number, at in group.progress.items() if at.committed is not None}
        if committed:
            admin.set_offsets(group_id, topics.readings, committed)
        console.print(f"{len(committed)} offsets of {topics.readings} stay, as set by hand")
    else:
        admin.forget_offsets(group_id, topics.readings, range(readings.partitions))
        console.print(f"{len(committed)} offsets of {topics.readings} deleted")
    if state is None:
        return
    # Step 3.
    buried = write_tombstones(build_connection(settings), topics.state, keys)
    console.print(f"{buried} records of {topics.state} removed")
    # Step 4.
    if state.partitions < readings.partitions:
        admin.add_partitions(topics.state, readings.partitions)
        console.print(f"{topics.state}: {readings.partitions - state.partitions} partitions added")
    narrow = [
        name
        for name in (topics.forecasts, topics.anomalies, topics.dead_letters)
        if name in found and found[name].partitions < readings.partitions
    ]
    if narrow:
        console.print(
            f"{' and '.join(narrow)}: fewer partitions than {topics.readings}; add some before the next run",
            style="yellow",
        )
