"""Audit of answers against readings: one for each, none twice, none out of order, none without a reading."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgspec

from forecaster.codecs import forecast_avro
from forecaster.codecs.timestamps import parse_time
from forecaster.engine.audit_withheld import WithheldAudit
from forecaster.engine.withholding import PublishingRules
from forecaster.records import DeadLetter, Observation, RawRecord, Tombstone
from forecaster.state.reorder import ReorderBuffer

Decode = Callable[[RawRecord], Sequence[Observation | DeadLetter | Tombstone]]


class Kind(StrEnum):
    """What can be wrong with an answer, or with the lack of one."""

    MISSING = "missing"
    """A reading that the group has passed has no answer."""
    DUPLICATED = "duplicated"
    """A reading has more than one answer."""
    OUT_OF_ORDER = "out_of_order"
    """An answer stands behind that of a later reading of the same stream."""
    SEQUENCE = "sequence"
    """A stream's ``seq`` jumped: what it had learnt was lost, or came from another time."""
    WITHOUT_READING = "without_reading"
    """An answer names an offset at which nothing that calls for one stands."""
    MISPLACED = "misplaced"
    """An answer stands in another partition than its reading."""
    UNREADABLE = "unreadable"
    """A record of an answer topic does not say what it answers."""


class Breach(NamedTuple):
    """One thing that is wrong."""

    kind: Kind
    partition: int
    offset: int
    """Of the reading; of the answer itself where it is unreadable."""
    field: str
    detail: str


class Answer(NamedTuple):
    """One record of an answer topic, as far as the audit looks at it."""

    topic: str
    """Of the reading it answers; empty when the record cannot be read, and ``stream_id`` then says why."""
    partition: int
    offset: int
    field: str
    stream_id: str
    """Empty for a dead letter: what is refused may name no stream."""
    origin: float
    """Event time; 0 for a dead letter."""
    sequence: int
    """Of the stream; 0 for a dead letter."""
    withheld: int = 0
    """How many readings of the stream before it were answered by no record, as the answer itself says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRules:
    """What the daemon was told about readings that get no answer, or not at once, and how strict to be."""

    topic: str
    """Of the readings."""
    fields: tuple[str, ...] = ("value",)
    max_lateness_seconds: float = 0.0
    drop_duplicates: bool = False
    check_sequences: bool = True
    """State outlives a restart, so that a stream's numbers go up by one. False for at-least-once delivery."""
    publishing: PublishingRules | None = None
    """Which forecasts are published; ``None``: all."""
    max_breaches: int = 20
    """Kept as examples, of each kind and partition; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which readings of a partition are audited."""

    first: int
    """Lowest offset."""
    reached: int
    """Offsets below have to be answered: the group's committed offset."""


@dataclass(slots=True)
class AuditReport:
    """What was counted, and what is wrong."""

    records: int = 0
    """Of the readings topic."""
    due: int = 0
    """Answers called for: one a reading, or one for each of its target fields."""
    forecasts: int = 0
    dead_letters: int = 0
    tombstones: int = 0
    """Null values, which forget a stream and are not answered."""
    dropped: int = 0
    """Repeated readings that the setting ``readings.duplicates = drop`` leaves unanswered."""
    withheld: int = 0
    """Readings whose forecast the publishing policy leaves out."""
    pending: int = 0
    """Held back for re-ordering when the group's offset was committed."""
    waiting: int = 0
    """At or after the group's committed offset, not answered yet."""
    restarts: int = 0
    """Streams that began again at ``seq`` 1: forgotten by a tombstone or after ``streams.idle_ttl``."""
    foreign: int = 0
    """Answers to readings of another topic, or from before the audited ones; not looked at."""
    counts: Counter[Kind] = field(default_factory=Counter)
    breaches: list[Breach] = field(default_factory=list)
    """Examples of what is counted in ``counts``."""

    @property
    def is_clean(self) -> bool:
        """Nothing is wrong."""
        return not self.counts

    def add(self, other: AuditReport) -> None:
        """Take in what was found in another partition."""
        for name in ("records", "due", "forecasts", "dead_letters", "tombstones", "dropped", "pending", "waiting"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.withheld += other.withheld
        self.restarts += other.restarts
        self.foreign += other.foreign
        self.counts.update(other.counts)
        self.breaches.extend(other.breaches)


_PLAIN, _MAY_BE_DROPPED, _HELD, _MAY_BE_WITHHELD = range(4)


class PartitionAudit:
    """Audit of one partition: first all its readings, then its answers, topic by topic, then `finish`.

    Keeps ten bytes for each answer that is due, 34 under a publishing policy, and a few numbers for each stream.

    Args:
        decode: the codec that serves.
        span: which readings are audited.
    """

    def __init__(self, partition: int, decode: Decode, rules: AuditRules, span: Span) -> None:
        self._partition = partition
        self._decode = decode
        self._rules = rules
        self._span = span
        self._report = AuditReport()
        self._field_codes = {"": 0} | {name: code for code, name in enumerate(rules.fields, start=1)}
        self._field_names = ("", *rules.fields)
        self._due = array("q")  # offset and field as one number, rising
        self._expects = bytearray()
        self._answers = bytearray()  # how many were seen, at most 255
        self._reorder = ReorderBuffer(rules.max_lateness_seconds)
        self._clocks: dict[str, tuple[float, float]] = {}  # stream -> time and value of the last accepted reading
        self._last: dict[str, tuple[float, int]] = {}  # stream -> place and number of its last forecast
        self._last_refused = -1
        self._withheld = WithheldAudit(rules.publishing, is_whole=span.first == 0) if rules.publishing else None

    def expect(self, readings: Iterable[RawRecord]) -> None:
        """Take in the readings of the span, in offset order."""
        for raw in readings:
            self._report.records += 1
            decoded = self._decode(raw)
            answers = [item for item in decoded if not isinstance(item, Tombstone)]
            self._report.tombstones += len(decoded) - len(answers)
            for code in sorted(self._field_codes[item.field] for item in answers):
                self._due.append(raw.offset * len(self._field_names) + code)
                self._expects.append(_PLAIN)
            if raw.offset < self._span.reached:
                for item in decoded:
                    self._follow(raw, item)
        self._report.due = len(self._due)
        self._answers = bytearray(len(self._due))
        for raw, observation in self._reorder.release(lambda stream_id: True):
            self._mark(raw.offset, observation.field, _HELD)
        if self._withheld:
            self._withheld.expects(len(self._due))

    def answered(self, answers: Iterable[Answer]) -> None:
        """Take in the records of one answer topic in this partition, in the order in which they stand there."""
        for answer in answers:
            self._take(answer)

    def finish(self) -> AuditReport:
        """What was found; to be called once, after all answers."""
        report, width = self._report, len(self._field_names)
        for key, expects, seen in zip(self._due, self._expects, self._answers, strict=True):
            if seen:
                continue
            offset, code = divmod(key, width)
            if offset >= self._span.reached:
                report.waiting += 1
            elif expects == _HELD:
                report.pending += 1
            elif expects == _MAY_BE_DROPPED:
                report.dropped += 1
            elif expects == _MAY_BE_WITHHELD:
                continue  # which of these are, all together show
            else:
                self._breach(Kind.MISSING, offset, self._field_names[code], "no forecast and no dead letter")
        if self._withheld:
            self._judge_withheld(self._withheld)
        return report

    def _judge_withheld(self, audit: WithheldAudit) -> None:
        """Tell the answers that were withheld from those that were lost."""
        found = audit.finish(self._answers)
        self._report.withheld = found.withheld
        for at, detail in found.missing:
            offset, code = divmod(self._due[at], len(self._field_names))
            self._breach(Kind.MISSING, offset, self._field_names[code], detail)
        for at, detail in found.miscounted if self._rules.check_sequences else ():
            offset, code = divmod(self._due[at], len(self._field_names))
            self._breach(Kind.SEQUENCE, offset, self._field_names[code], detail)

    def _follow(self, raw: RawRecord, item: Observation | DeadLetter | Tombstone) -> None:
        """Step what the daemon keeps about held and repeated readings."""
        if isinstance(item, Observation):
            for due_raw, due in self._reorder.push(raw, item):
                self._accept(due_raw, due)
        elif isinstance(item, Tombstone):
            prefix = f"{item.record_id}/"

            def concerns(stream_id: str) -> bool:
                return stream_id == item.record_id or stream_id.startswith(prefix)

            for due_raw, due in self._reorder.release(concerns):
                self._accept(due_raw, due)
            for stream_id in [known for known in self._clocks if concerns(known)]:
                del self._clocks[stream_id]
            if self._withheld:
                self._withheld.forgotten(concerns)

    def _accept(self, raw: RawRecord, observation: Observation) -> None:
        if self._rules.drop_duplicates and self._may_be_dropped(observation):
            self._mark(raw.offset, observation.field, _MAY_BE_DROPPED)
        elif self._withheld:
            at = self._mark(raw.offset, observation.field, _MAY_BE_WITHHELD)
            self._withheld.released(observation.stream_id, at, observation.time)

    def _may_be_dropped(self, observation: Observation) -> bool:
        """Step what is known of the stream's clock."""
        time, value = observation.time, observation.value
        known = self._clocks.get(observation.stream_id)
        if known is None or time > known[0]:
            self._clocks[observation.stream_id] = time, value
        if known is None:
            return self._span.first > 0  # the reading it may repeat is not audited
        return time == known[0] and (value == known[1] or (value != value and known[1] != known[1]))

    def _mark(self, offset: int, name: str, expects: int) -> int:
        at = self._find(offset, name)
        assert at is not None, "only what was expected is marked"
        self._expects[at] = expects
        return at

    def _find(self, offset: int, name: str) -> int | None:
        code = self._field_codes.get(name)
        if code is None:
            return None
        key = offset * len(self._field_names) + code
        at = bisect_left(self._due, key)
        return at if at < len(self._due) and self._due[at] == key else None

    def _take(self, answer: Answer) -> None:
        if not answer.topic:
            self._breach(Kind.UNREADABLE, answer.offset, "", answer.stream_id)
            return
        if answer.topic != self._rules.topic:
            self._report.foreign += 1
            return
        if answer.partition != self._partition:
            detail = f"answers partition {answer.partition}, stands in {self._partition}"
            self._breach(Kind.MISPLACED, answer.offset, answer.field, detail)
            return
        if answer.offset < self._span.first:
            self._report.foreign += 1
            return
        at = self._find(answer.offset, answer.field)
        if at is None:
            self._breach(Kind.WITHOUT_READING, answer.offset, answer.field, "nothing there calls for this answer")
            return
        seen = self._answers[at]
        self._answers[at] = min(seen + 1, 255)
        if seen:
            self._breach(Kind.DUPLICATED, answer.offset, answer.field, f"answer number {seen + 1} to this reading")
            return
        if answer.stream_id:
            self._report.forecasts += 1
            if self._withheld:
                self._withheld.answered(at, begins=answer.sequence == 1, withheld=answer.withheld)
            self._check_stream(answer)
        else:
            self._report.dead_letters += 1
            if not self._rules.max_lateness_seconds and answer.offset < self._last_refused:
                detail = f"behind the dead letter of offset {self._last_refused}"
                self._breach(Kind.OUT_OF_ORDER, answer.offset, answer.field, detail)
            self._last_refused = max(self._last_refused, answer.offset)

    def _check_stream(self, answer: Answer) -> None:
        """Order by source offset, or by event time where readings are sorted; numbers that go up by one."""
        place = answer.origin if self._rules.max_lateness_seconds else float(answer.offset)
        begins = answer.sequence == 1
        last = self._last.get(answer.stream_id)
        self._last[answer.stream_id] = place, answer.sequence
        if last is None:
            return
        last_place, last_sequence = last
        self._report.restarts += begins
        if place <= last_place and not (begins and self._rules.max_lateness_seconds):
            detail = f"{answer.stream_id}: behind the answer of a later reading"
            self._breach(Kind.OUT_OF_ORDER, answer.offset, answer.field, detail)
        elif self._rules.check_sequences and not begins and answer.sequence != last_sequence + 1 + answer.withheld:
            between = f" with {answer.withheld} withheld between" if answer.withheld else ""
            detail = f"{answer.stream_id}: seq {answer.sequence} after {last_sequence}{between}"
            self._breach(Kind.SEQUENCE, answer.offset, answer.field, detail)

    def _breach(self, kind: Kind, offset: int, name: str, detail: str) -> None:
        self._report.counts[kind] += 1
        if self._report.counts[kind] <= self._rules.max_breaches:
            self._report.breaches.append(Breach(kind, self._partition, offset, name, detail))


def read_forecast(offset: int, value: bytes | None) -> Answer:
    """What a record of the forecasts topic answers; ``offset`` is its own."""
    try:
        forecast = forecast_avro.read_forecast(value or b"")
        source = forecast.source
        return Answer(
            source.topic,
            source.partition,
            source.offset,
            source.field,
            forecast.stream_id,
            parse_time(forecast.origin),
            forecast.seq,
            forecast.withheld or 0,
        )
    except (msgspec.MsgspecError, ValueError) as error:
        return Answer("", 0, offset, "", f"the record is no forecast: {error}", 0.0, 0)


def read_dead_letter(offset: int, headers: Iterable[tuple[str, bytes]]) -> Answer:
    """What a record of the dead-letter topic answers; ``offset`` is its own."""
    found = dict(headers)
    try:
        return Answer(
            found["source.topic"].decode(),
            int(found["source.partition"]),
            int(found["source.offset"]),
            found.get("field", b"").decode(),
            "",
            0.0,
            0,
        )
    except (KeyError, ValueError) as error:
        return Answer("", 0, offset, "", f"the record is no dead letter of ours: {error!r}", 0.0, 0)
