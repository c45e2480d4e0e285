"""Which network answers from which reading on, where that was settled before: a recorded run made again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from forecaster.errors import ConfigurationError
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.series.groups import DEFAULT

Networks = Mapping[str, RecurrentExpert]
"""Who serves, by group; a group that has no network yet is absent."""


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of a file of switches."""

    partition: int
    offset: int
    """Of the source. The network serves from the first boundary at or after it; where its partition begins no earlier,
    from the start."""
    version: str
    """Or a `team`: ``<version>+<former version>``."""
    group: str = DEFAULT
    """That it serves."""


class SwitchPlan:
    """Switches by partition and group, to be followed instead of the champion.

    Args:
        switches: in any order.
        network: the serving expert of a `team`.

    Example:
        >>> plan = SwitchPlan([Switch(0, 128, "b"), Switch(0, 0, "a")], network=lambda version: version)
        >>> [plan.serving(0, offset) for offset in (0, 127, 128)], plan.serving(1, 0)
        (['a', 'a', 'b'], None)
    """

    def __init__(self, switches: Iterable[Switch], *, network: Callable[[str], RecurrentExpert]) -> None:
        self._network = network
        self._plans: dict[tuple[int, str], list[tuple[int, str]]] = {}
        for switch in switches:
            self._plans.setdefault((switch.partition, switch.group), []).append((switch.offset, switch.version))
        for found in self._plans.values():
            found.sort()

    def serving(self, partition: int, offset: int, group: str = DEFAULT) -> RecurrentExpert | None:
        """The network of a group for the reading at ``offset``; ``None`` before the first switch."""
        switches = self._plans.get((partition, group), [])
        place = bisect_right(switches, offset, key=lambda switch: switch[0])
        return self._network(switches[place - 1][1]) if place else None

    def networks(self, partition: int, offset: int, groups: Iterable[str]) -> dict[str, RecurrentExpert]:
        """Those of all these groups that have one for the reading at ``offset``."""
        found = ((group, self.serving(partition, offset, group)) for group in groups)
        return {group: network for group, network in found if network is not None}


def read_switches(path: Path) -> list[Switch]:
    """Switches from a file of JSON lines, ``{"partition": 0, "offset": 1024, "version": "gru-…"}``.

    Raises:
        ConfigurationError: there is no such file, or a line is something else.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"Switches cannot be read from {path}: {error.strerror}.") from error
    switches = []
    for number, line in enumerate(lines, start=1):
        try:
            switches.append(msgspec.json.decode(line, type=Switch))
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                f"Line {number} of {path} is no switch: {error}.",
                hint='A line looks like {"partition": 0, "offset": 1024, "version": "gru-…"}.',
            ) from error
    return switches


def write_switch(switch: Switch) -> str:
    """A line as `read_switches` takes it."""
    return f"{msgspec.json.encode(switch).decode()}\n"
