"""What a task notes down so that records can be taken in a second time with the very same outcome.

State pages are written at different source offsets. To bring all of them to one offset, records are read again from
where the oldest unwritten change began; what then depends on more than the records themselves is noted here: where the
watermark stood, which network served, where it changed, which labels took effect where, which readings were refused for
want of room.

The note is a record of its own beside the pages: the magic ``FCSM``, the CRC-32 of what follows (little-endian), and a
`TaskMeta` as JSON. Format 2 adds ``terms`` and ``pages`` to format 1, which is read as one without; format 3 adds what
is known of groups, ``labels`` and ``heard``.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from forecaster.errors import PageCorrupt, StateGap
from forecaster.series.groups import DEFAULT


class Mark(NamedTuple):
    """How a task stood before it took in the record at ``offset``."""

    offset: int
    watermark: float
    block: int | None
    version: str | None
    """Network that serves the default group, as all here named by its `team`."""
    group_versions: Mapping[str, str] = MappingProxyType({})
    """Networks that serve other groups, by group."""


class TaskMeta(msgspec.Struct, frozen=True, kw_only=True):
    """The task's own record, written with every commit; with the pages it is all that recovery needs."""

    format: int = 3
    schema: str
    """Of the table that wrote it; pages say for themselves what they hold."""
    next_offset: int
    """Of the source; equal to the committed one."""
    replay_from: int
    watermark: float | None
    """Latest event time before ``replay_from``, ``None`` before the first."""
    block: int | None
    version: str | None
    """Network that served the default group at ``replay_from``, as all here named by its `team`."""
    switches: list[tuple[int, str]] = []
    """Networks that took over the default group since, each with the offset of its first record."""
    group_versions: dict[str, str] = {}
    """Networks that served groups other than the default at ``replay_from``, by group."""
    group_switches: list[tuple[int, str, str]] = []
    """As ``switches``, of other groups: offset, group, version."""
    labels: list[tuple[int, str, bool, float]] = []
    """Labels that took effect since: offset of the record they took effect before, stream, whether true, event time."""
    heard: list[tuple[int, int]] = []
    """Of each partition of the feedback, the next offset to hear."""
    refused: list[tuple[int, str]] = []
    """Readings since ``replay_from`` refused because the partition was full: offset and field."""
    pages: tuple[int, int] | None = None
    """Of all pages that belong to it: how many, and their checksum (`PageRoll.total`). ``None`` does not say."""
    terms: dict[str, str] = {}
    """Settings under which the state means what it says, as JSON texts: another value would misread it."""


_META_MAGIC = b"FCSM"
_META_FORMATS = (1, 2, 3)
_DAMAGED_HINT = "Was the state topic written by another program? The runbook says how to begin without what was learnt."


class _AnyMeta(msgspec.Struct):
    format: int


def encode_meta(meta: TaskMeta) -> bytes:
    """A meta record as bytes, laid out as drawn above."""
    content = msgspec.json.encode(meta)
    return _META_MAGIC + zlib.crc32(content).to_bytes(4, "little") + content


def decode_meta(content: bytes) -> TaskMeta:
    """A meta record from its bytes.

    Raises:
        PageCorrupt: the bytes are no meta record, are damaged, or of a format this program does not read.
    """
    body = content[8:]
    if len(content) < 8 or content[:4] != _META_MAGIC or int.from_bytes(content[4:8], "little") != zlib.crc32(body):
        raise PageCorrupt(f"The meta record of {len(content)} bytes does not match its checksum.", hint=_DAMAGED_HINT)
    try:
        found = msgspec.json.decode(body, type=_AnyMeta).format
        if found not in _META_FORMATS:
            raise PageCorrupt(
                f"The meta record has format {found}; this program reads {_META_FORMATS[0]} to {_META_FORMATS[-1]}.",
                hint="It was written by another version of the program: run that one, or `forecaster reset`.",
            )
        meta = msgspec.json.decode(body, type=TaskMeta)
    except msgspec.DecodeError as error:
        raise PageCorrupt(f"The meta record cannot be read: {error}.", hint=_DAMAGED_HINT) from error
    if not 0 <= meta.replay_from <= meta.next_offset:
        raise PageCorrupt(
            f"The meta record stands at offset {meta.next_offset} and would replay from {meta.replay_from}.",
            hint=_DAMAGED_HINT,
        )
    return meta


class TaskJournal:
    """Marks, switches, labels and refusals since the oldest change that no page holds."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque()
        self._switches: deque[tuple[int, str, str]] = deque()
        """Offset, group, version."""
        self._labels: deque[tuple[int, str, bool, float]] = deque()
        self._refused: deque[tuple[int, str]] = deque()

    def mark(self, mark: Mark) -> None:
        """Note how the task stands before a record."""
        self._marks.append(mark)

    def switched(self, offset: int, version: str, group: str = DEFAULT) -> None:
        """A network took a group over at this record."""
        self._switches.append((offset, group, version))

    def labelled(self, offset: int, stream_id: str, is_true: bool, time: float) -> None:
        """A label took effect before this record."""
        self._labels.append((offset, stream_id, is_true, time))

    def refused(self, offset: int, field: str) -> None:
        """A reading was refused for want of room."""
        self._refused.append((offset, field))

    def meta(
        self,
        *,
        schema: str,
        next_offset: int,
        replay_from: int,
        terms: Mapping[str, str],
        pages: tuple[int, int] | None = None,
        heard: Mapping[int, int] | None = None,
    ) -> TaskMeta:
        """The task's record; forgets what no replay can need any more.

        ``replay_from`` of the result is the last mark at or before the one given.
        """
        while len(self._marks) > 1 and self._marks[1].offset <= replay_from:
            self._marks.popleft()
        if not self._marks or self._marks[0].offset > replay_from:
            raise StateGap(
                f"No mark at or before offset {replay_from}: the oldest is {self._marks[0] if self._marks else None}."
            )
        mark = self._marks[0]
        while self._switches and self._switches[0][0] < mark.offset:
            self._switches.popleft()
        while self._labels and self._labels[0][0] < mark.offset:
            self._labels.popleft()
        while self._refused and self._refused[0][0] < mark.offset:
            self._refused.popleft()
        return TaskMeta(
            schema=schema,
            next_offset=next_offset,
            replay_from=mark.offset,
            watermark=None if mark.watermark == float("-inf") else mark.watermark,
            block=mark.block,
            version=mark.version,
            switches=[(offset, version) for offset, group, version in self._switches if group == DEFAULT],
            group_versions=dict(mark.group_versions),
            group_switches=[switch for switch in self._switches if switch[1] != DEFAULT],
            labels=list(self._labels),
            heard=sorted((heard or {}).items()),
            refused=list(self._refused),
            terms=dict(terms),
            pages=pages,
        )
