"""Keeps a task's state so that it can be made again, bit for bit: what to write with a commit, how to take it back.

    live ──▶ export: due pages and the meta record ──▶ (written in the commit) ──▶ restore ──▶ replaying ──▶ live

Pages stand at different source offsets. After `restore` the records from ``meta.replay_from`` to ``meta.next_offset``
are taken in again; a slot is stepped only by what came after its page was written (`is_settled`), so that at the end
every slot stands at ``next_offset``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from forecaster.engine.journal import Mark, TaskJournal, TaskMeta, decode_meta, encode_meta
from forecaster.errors import PageCorrupt, StateError, StateGap
from forecaster.records import StateRecord
from forecaster.series.columns import IntArray
from forecaster.series.groups import DEFAULT
from forecaster.state.ledger import PageLedger
from forecaster.state.pages import PAGE_SLOTS, Page, decode_page, encode_page, page_key, restore_page
from forecaster.state.roll import PageRoll
from forecaster.state.streams import StreamTable

META_KEY = "meta"
SWITCH_PREFIX = "switch/"
"""Of the keys of recorded switches; no recovery needs them, they say for ever which network served where."""

RESET_HINT = (
    "Was the state topic emptied, or made anew? To go on without what was learnt, stop the workers and run `forecaster "
    "reset --keep-offsets`; without the flag every reading that is still held is answered anew."
)

GROUPS_TERM = "groups"
_NO_GROUPS = "[]"


def switch_key(offset: int, group: str) -> str:
    """Key of a recorded switch: ``switch/<offset>`` for the default group, ``switch/<offset>/<group>`` for others."""
    return f"{SWITCH_PREFIX}{offset}/{group}" if group else f"{SWITCH_PREFIX}{offset}"


def parse_switch_key(key: str) -> tuple[int, str]:
    """Offset and group of a recorded switch.

    >>> parse_switch_key(switch_key(128, "pumps")), parse_switch_key("switch/64")
    ((128, 'pumps'), (64, ''))
    """
    offset, _, group = key.removeprefix(SWITCH_PREFIX).partition("/")
    return int(offset), group


class StateKeeper:
    """Ledger of dirty pages and journal of one task.

    Args:
        flush_seconds: a page is written when it has been dirty for this long; 0 writes all with every commit.
        max_pages: most pages in one commit.
        terms: settings that say what stored numbers mean, or what a replay does with readings, by name; state that was
            kept under other values is refused.
    """

    def __init__(
        self,
        table: StreamTable,
        *,
        flush_seconds: float,
        max_pages: int,
        terms: Mapping[str, object] | None = None,
    ) -> None:
        self._table = table
        self._terms = {name: msgspec.json.encode(value).decode() for name, value in (terms or {}).items()}
        self._flush_seconds = flush_seconds
        self._max_pages = max_pages
        self._ledger = PageLedger()
        self._roll = PageRoll()
        self._journal = TaskJournal()
        self._meta: TaskMeta | None = None  # while replaying
        self._restored_at: dict[int, int] = {}  # slot -> offset its page stood at
        self._was_refused: set[tuple[int, str]] = set()
        self._to_remove: list[str] = []
        self._to_record: list[StateRecord] = []

    @property
    def is_replaying(self) -> bool:
        """Records are being taken in a second time; their answers were published before."""
        return self._meta is not None

    def begin(self, at: Mark) -> None:
        """Records are about to be taken in by a task that stands like this."""
        self._journal.mark(at)

    def changed(self, slots: IntArray | Iterable[int], offset: int, now: float) -> None:
        """Rows changed through records at or after ``offset``."""
        self._ledger.mark(slots, offset, now)

    def switched(self, offset: int, version: str, group: str = DEFAULT) -> None:
        """A network took a group over at this record."""
        self._journal.switched(offset, version, group)
        if not self.is_replaying:
            self.record_switch(offset, version, group)

    def record_switch(self, offset: int, version: str, group: str = DEFAULT) -> None:
        """Note with the next commit, for good, that this network serves the group from this record on."""
        self._to_record.append(StateRecord(switch_key(offset, group), version.encode()))

    def labelled(self, offset: int, stream_id: str, is_true: bool, time: float) -> None:
        """A label took effect before this record."""
        self._journal.labelled(offset, stream_id, is_true, time)

    def labels_at(self, offset: int) -> list[tuple[str, bool, float]]:
        """Labels that took effect before this record the first time: stream, whether true, event time."""
        return [(name, true, time) for at, name, true, time in self._meta.labels if at == offset] if self._meta else []

    def refused(self, offset: int, field: str) -> None:
        """A new stream was refused for want of room."""
        self._journal.refused(offset, field)

    def is_settled(self, slot: int, position: int) -> bool:
        """Whether the restored row holds what the record at ``position`` did already."""
        return self.is_replaying and self._restored_at.get(slot, -1) > position

    def was_refused(self, offset: int, field: str) -> bool:
        """Whether this reading's stream was refused the first time."""
        return (offset, field) in self._was_refused

    def took_over_at(self, offset: int) -> dict[str, str]:
        """Versions of the networks that took over at this record the first time, by group."""
        if self._meta is None:
            return {}
        switches = [(at, DEFAULT, version) for at, version in self._meta.switches]
        return {group: version for at, group, version in (*switches, *self._meta.group_switches) if at == offset}

    def released(self, slots: Iterable[int]) -> None:
        """Streams of these rows were forgotten."""
        for slot in slots:
            self._restored_at.pop(slot, None)

    def export(
        self, at: Mark, *, oldest_held: int | None, now: float, heard: Mapping[int, int] | None = None
    ) -> list[StateRecord]:
        """What a commit has to write: pages that are due, and the meta record, last.

        A page that is due and holds no stream any more gets a tombstone.

        Args:
            at: how the task stands, before the next record.
            oldest_held: lowest offset held back for re-ordering.
            now: seconds of a clock that never goes back.
            heard: by partition of the feedback, the next offset to hear.
        """
        next_offset = at.offset
        self._journal.mark(at)
        pages = self._ledger.due(now, self._flush_seconds, self._max_pages)
        records = [
            StateRecord(page_key(page), encode_page(self._table, page, next_offset, model=at.version)) for page in pages
        ]
        self._ledger.clean(pages)
        for page, record in zip(pages, records, strict=True):
            if record.value is None:
                self._roll.remove(page)
            else:
                self._roll.write(page, next_offset)
        replay_from = self._ledger.replay_from(next_offset)
        if oldest_held is not None:
            replay_from = min(replay_from, oldest_held)
        meta = self._journal.meta(
            schema=self._table.schema,
            next_offset=next_offset,
            replay_from=replay_from,
            terms=self._terms,
            pages=self._roll.total(),
            heard=heard,
        )
        records = [*self._to_record, *records, StateRecord(META_KEY, encode_meta(meta))]
        written = {record.key for record in records}
        removed = [StateRecord(key, None) for key in self._to_remove if key not in written]
        self._to_remove, self._to_record = [], []
        return [*removed, *records]

    def remove(self, keys: Iterable[str]) -> None:
        """State records of an earlier life: the next commit puts a tombstone on each."""
        self._to_remove = list(keys)

    def restore(self, records: Iterable[StateRecord], *, committed: int) -> TaskMeta:
        """Fill the empty table from the newest record of each key.

        Args:
            committed: the group's offset; the meta record has to say the same.

        Raises:
            StateGap: there is no meta record, it belongs to another offset, or pages that belong to it are missing.
            PageCorrupt: a page or the meta record is damaged, or of another schema.
            StateError: it was kept under other settings of `terms`.
        """
        assert len(self._table) == 0, "restored into an empty table"
        by_key = {
            record.key: record.value
            for record in records
            if record.value is not None and not record.key.startswith(SWITCH_PREFIX)
        }
        content = by_key.pop(META_KEY, None)
        if content is None:
            raise StateGap(f"Offset {committed} is committed, but the state holds no meta record.", hint=RESET_HINT)
        meta = decode_meta(content)
        if meta.next_offset != committed:
            raise StateGap(
                f"The state stands at offset {meta.next_offset}, the group's committed offset is {committed}.",
                hint=RESET_HINT,
            )
        self._check_terms(meta)
        # A replay may begin with a later record than this one: offsets have holes.
        watermark = -math.inf if meta.watermark is None else meta.watermark
        self._journal.mark(Mark(meta.replay_from, watermark, meta.block, meta.version, meta.group_versions))
        pages = [self._decode(key, value) for key, value in by_key.items()]
        for page in pages:
            self._roll.write(page.number, page.offset)
        if meta.pages is not None and meta.pages != self._roll.total():
            raise StateGap(
                f"The state at offset {committed} has {meta.pages[0]} pages; the topic holds {len(pages)}, and not all "
                "of them as they were written.",
                hint=RESET_HINT,
            )
        # A stream may stand in two pages: forgotten in the older one's time, new in the newer one.
        for page in sorted(pages, key=lambda page: page.offset, reverse=True):
            slots = restore_page(self._table, page)
            for slot in slots:
                self._restored_at[slot] = page.offset
            if len(slots) < sum(name is not None for name in page.names):
                # The older copy has to go before the newer one does: else it would be taken for the stream one day.
                self._ledger.mark([page.number * PAGE_SLOTS], meta.replay_from, -math.inf)
        self._table.free_unowned()
        self._was_refused = set(meta.refused)
        for offset, field in meta.refused:
            self._journal.refused(offset, field)  # the next commit may not be the last before another replay
        self._meta = meta
        return meta

    def _check_terms(self, meta: TaskMeta) -> None:
        for name, ours in self._terms.items():
            # Format 1 does not say; before there were groups, nothing was said of them, and there were none.
            kept = meta.terms.get(name, _NO_GROUPS if name == GROUPS_TERM else ours)
            if kept != ours:
                raise StateError(
                    f"The state was kept under {name} {kept}, this program runs {ours}.",
                    hint=f"Set {name} back to {kept}, or begin without what was learnt: `forecaster reset`.",
                )

    def _decode(self, key: str, content: bytes) -> Page:
        page = decode_page(content, self._table)
        if key != page_key(page.number):
            raise PageCorrupt(f"State record {key!r} holds page {page.number}.", hint=RESET_HINT)
        return page

    def finish_replay(self) -> None:
        """Every slot stands at the committed offset: live again."""
        self._meta = None
        self._restored_at.clear()
        self._was_refused.clear()
