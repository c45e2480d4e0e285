"""Which group a stream belongs to: a pure function of its name, the same in worker, trainer and backtest."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from fnmatch import translate
from typing import NamedTuple

DEFAULT = ""
"""The group of streams that no rule names. People see it as ``default``."""

_DEFAULT_NAME = "default"


class GroupRule(NamedTuple):
    """Streams of one group: those that match one of the patterns and are of one of the fields; where there are none of
    either, that asks nothing."""

    name: str
    streams: tuple[str, ...] = ()
    """Names, or patterns as of a shell: ``ward-3/*``."""
    fields: tuple[str, ...] = ()
    """Target fields; a stream of one is named ``id/field``."""


def group_number(name: str) -> int:
    """The number by which a row of a stream table knows its group: the same in every process, 0 for the default.

    >>> group_number(DEFAULT), group_number("heart-rate") == group_number("heart-rate") > 0
    (0, True)
    """
    return 0 if name == DEFAULT else zlib.crc32(name.encode()) & 0x7FFFFFFF or 1


def group_label(name: str) -> str:
    """A group as people and metrics see it.

    >>> group_label(DEFAULT), group_label("pumps")
    ('default', 'pumps')
    """
    return name or _DEFAULT_NAME


def group_named(label: str) -> str:
    """The opposite of `group_label`.

    >>> group_named("default") == DEFAULT, group_named("pumps")
    (True, 'pumps')
    """
    return DEFAULT if label == _DEFAULT_NAME else label


class GroupRules:
    """Rules in order; the first that fits counts, and the default group takes what none does.

    Example:
        >>> rules = GroupRules([GroupRule("icu", ("ward-3/*",), ("pulse",)), GroupRule("pumps", ("pump-[0-9]",))])
        >>> [rules.of(name) for name in ("ward-3/bed-1/pulse", "ward-3/bed-1/spo2", "pump-7")]
        ['icu', '', 'pumps']
        >>> rules.names
        ('icu', 'pumps', '')
    """

    def __init__(self, rules: Iterable[GroupRule] = ()) -> None:
        self._rules = [
            (rule.name, re.compile("|".join(map(translate, rule.streams))), tuple(f"/{name}" for name in rule.fields))
            for rule in rules
        ]
        self.names = (*dict.fromkeys(name for name, _, _ in self._rules), DEFAULT)
        """All groups, the default last."""
        self._names = {group_number(name): name for name in self.names}
        self.is_one = not self._rules
        """All streams are of the default group."""

    def of(self, stream_id: str) -> str:
        """The group of a stream."""
        for name, pattern, endings in self._rules:
            if pattern.match(stream_id) and (not endings or stream_id.endswith(endings)):
                return name
        return DEFAULT

    def name(self, number: int) -> str:
        """The group of this `group_number`."""
        return self._names[number]
