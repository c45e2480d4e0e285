"""One partition's life: its streams, its waves, its place in the source.

                 assigned                     revoked, lost
    (unassigned) ─────────▶ PartitionTask ───────────────▶ (dropped)

A task takes the records of its partition in offset order and gives back outgoing records. What it decides depends on
the records alone: not on how polls cut them, not on the time of day.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from types import MappingProxyType

import numpy as np

from forecaster.clock import Clock
from forecaster.codecs.json_codec import JsonCodec
from forecaster.crash_points import reach
from forecaster.engine.journal import Mark
from forecaster.engine.keeper import StateKeeper
from forecaster.engine.pipeline import Pipeline, StepResult
from forecaster.engine.publisher import Publisher
from forecaster.engine.report import GroupReport, LeadScores, StepReport
from forecaster.engine.side_by_side import SideBySide
from forecaster.engine.switches import Networks, SwitchPlan
from forecaster.engine.wave import Wave, WaveBuilder
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.decisions import LiveScore, Trial
from forecaster.ports import FeedbackLog, HistorySink
from forecaster.records import DeadLetter, Observation, OutRecord, RawRecord, Reason, StateRecord, Tombstone
from forecaster.series.columns import Column
from forecaster.series.groups import DEFAULT, GroupRules, group_number
from forecaster.state.reorder import ReorderBuffer
from forecaster.state.streams import StreamTable

_GROUP = Column("group", "i4")
"""`group_number` of each stream; there is no such column where all are of one group."""


@dataclass(frozen=True, slots=True)
class TaskRules:
    """What holds for every task of a worker.

    ``boundary_records``: model switches, labels and the eviction of idle streams take effect at source offsets that are
    multiples of this, so that they fall between the same two readings however often the partition is read.
    """

    boundary_records: int
    max_wave: int
    max_streams: int
    max_lateness_seconds: float
    idle_ttl_seconds: float
    drop_duplicates: bool
    trial_streams: int = 64
    """Most streams that a trial's second model is scored on."""


@dataclass(slots=True)
class TaskResult:
    """What became of some records of a partition."""

    report: StepReport
    records: list[OutRecord] = field(default_factory=list)
    """Answers in the order in which their readings came, or were released: however polls and waves are cut."""
    waves: list[tuple[int, float]] = field(default_factory=list)
    """(streams, seconds) of each wave."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage: decode (and all that is none of the others), step, beside (a trial's second model), publish (making the
    records)."""
    forecasts: int = 0
    dead_letters: int = 0

    def spend(self, stage: str, seconds: float) -> None:
        """Add to what a stage took."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


class PartitionTask:
    """Streams of one partition and the way of their records.

    Args:
        partition: of the source.
        pipeline: of streams of the default group, and of all groups that have none of their own.
        networks: those that serve from the first record on.
        plan: says which network serves where; what is scheduled then counts for nothing.
        history: where accepted readings are left for a trainer, if anywhere.
        feedback: where labels of anomalies are heard, if anywhere.
        keep_state: makes what remembers how to restore the task; ``None`` where state dies with the process.
        groups: which group a stream belongs to, from its first reading on.
        pipelines: of groups whose calculation has rules of its own; all keep the same columns.
    """

    def __init__(
        self,
        partition: int,
        *,
        codec: JsonCodec,
        pipeline: Pipeline,
        publisher: Publisher,
        rules: TaskRules,
        networks: Networks = MappingProxyType({}),
        plan: SwitchPlan | None = None,
        history: HistorySink | None = None,
        feedback: FeedbackLog | None = None,
        keep_state: Callable[[StreamTable], StateKeeper] | None = None,
        groups: GroupRules | None = None,
        pipelines: Mapping[str, Pipeline] = MappingProxyType({}),
    ) -> None:
        self.partition = partition
        self.groups = groups or GroupRules()
        columns = pipeline.columns if self.groups.is_one else (*pipeline.columns, _GROUP)
        self.table = StreamTable(columns, max_streams=rules.max_streams)
        self.networks = dict(networks)
        """Who serves, by group."""
        self.switched_at: int | None = None
        """Source offset of the last switch of a group; ``None`` when all have had their network from the start."""
        self._codec = codec
        self._pipeline = pipeline
        self._pipelines = pipelines
        self._publisher = publisher
        self._rules = rules
        self._plan = plan
        self._history = history
        self._feedback = feedback
        self._heard: dict[int, int] = {}
        self._keeper = keep_state(self.table) if keep_state else None
        self._scheduled: dict[str, RecurrentExpert] = {}
        self._trials: dict[str, tuple[Trial, RecurrentExpert]] = {}
        self._sides: dict[str, SideBySide] = {}
        self._block: int | None = None
        self._next_offset: int | None = None
        self._position = 0  # offset of the record being taken in
        self._oldest = -np.inf  # no stream's clock is before this, once waves being built are stepped
        self._network: Callable[[str], RecurrentExpert] | None = None  # for a replay across a switch
        self._reorder = ReorderBuffer(rules.max_lateness_seconds)
        encoder = pipeline.encoder
        self._builder = WaveBuilder(
            max_wave=rules.max_wave, covariates=encoder.covariates, future=encoder.future_inputs
        )
        self._readings: list[tuple[RawRecord, Observation]] = []  # by tag, of the waves being built
        self._made: list[tuple[int, OutRecord]] = []  # since the last flush, each with its place among the arrivals

    def schedule(self, recurrent: RecurrentExpert, *, group: str = DEFAULT) -> None:
        """Let this network serve a group from the next boundary on."""
        if self._plan is None:
            self._scheduled[group] = recurrent

    def try_out(self, trial: tuple[Trial, RecurrentExpert] | None, *, group: str = DEFAULT) -> None:
        """Score a trial's second model from the next boundary on; ``None`` ends that. No answer depends on it."""
        before = self._trials.pop(group, None)
        if trial is not None:
            self._trials[group] = trial
        if trial is None or before is None or trial[0] != before[0]:
            self._sides.pop(group, None)

    def live_scores(self) -> list[LiveScore]:
        """What was seen so far of the trials under way here."""
        return [side.score() for side in self._sides.values()]

    def group(self, slot: int) -> str:
        """The group of a stream."""
        return DEFAULT if self.groups.is_one else self.groups.name(int(self.table.arrays["group"][slot]))

    def network(self, slot: int) -> RecurrentExpert | None:
        """Who serves a stream, if anybody does."""
        return self.networks.get(self.group(slot))

    def pipeline(self, group: str) -> Pipeline:
        """The calculation of a group."""
        return self._pipelines.get(group, self._pipeline)

    @property
    def watermark(self) -> float:
        """Latest event time seen; minus infinity before the first."""
        return self._reorder.watermark

    def committable(self) -> int | None:
        """Next offset to read after a crash: all before it are answered. ``None`` when nothing was read.

        With kept state it is simply the next one: readings that are held back are read again by the replay.
        """
        held = self._reorder.oldest_offset()
        return self._next_offset if held is None or self._keeper else held

    def export_state(self, now: float) -> list[StateRecord]:
        """State records that belong into a commit at `committable`; ``now`` decides which pages are due."""
        assert self._keeper is not None, "this task keeps no state"
        assert self._next_offset is not None, "nothing was read"
        return self._keeper.export(
            self._mark(self._next_offset), oldest_held=self._reorder.oldest_offset(), now=now, heard=self._heard
        )

    def restore_state(
        self, records: Iterable[StateRecord], *, committed: int, network: Callable[[str], RecurrentExpert]
    ) -> int:
        """Take state back; returns the offset from which `replay` needs the records.

        Args:
            records: newest of each key.
            committed: next offset of the group.
            network: the expert of a `team`.

        Raises:
            StateError: the records are damaged or do not belong to this offset.
        """
        assert self._keeper is not None, "this task keeps no state"
        meta = self._keeper.restore(records, committed=committed)
        self._reorder.watermark = -np.inf if meta.watermark is None else meta.watermark
        self._block = meta.block
        self._heard = dict(meta.heard)
        self._next_offset = meta.replay_from
        served = {DEFAULT: meta.version, **meta.group_versions}
        self.networks = {group: network(version) for group, version in served.items() if version is not None}
        self._network = network
        return meta.replay_from

    def begin_fresh(self, offset: int, networks: Networks, *, stale_keys: Sequence[str]) -> None:
        """Stand before ``offset`` with nothing learnt; state records of an earlier life are to be removed."""
        assert self._keeper is not None, "this task keeps no state"
        self._keeper.remove(stale_keys)
        self._next_offset = offset
        plan = self._plan
        self.networks = plan.networks(self.partition, offset, self.groups.names) if plan else dict(networks)
        for group, network in self.networks.items():
            self._keeper.record_switch(offset, network.team, group)

    def replay(self, records: Sequence[RawRecord], clock: Clock) -> None:
        """Take records in again whose answers were published before the restart."""
        self.process(records, clock)

    def finish_replay(self, committed: int) -> None:
        """All records before ``committed`` have been replayed."""
        assert self._keeper is not None, "this task keeps no state"
        self._keeper.finish_replay()
        self._next_offset = committed

    def take(self, waiting: deque[RawRecord], most: int) -> list[RawRecord]:
        """Remove ``most`` records from the front to be processed together, over boundaries too."""
        return [waiting.popleft() for _ in range(min(len(waiting), most))]

    @property
    def held_back(self) -> int:
        """Readings waiting for their turn."""
        return len(self._reorder)

    def process(self, records: Sequence[RawRecord], clock: Clock) -> TaskResult:
        """Answer records of this partition, in offset order; ``clock`` only measures."""
        started = clock.monotonic()
        result = self.receive(records, clock)
        self._flush(result, clock)
        result.spend("decode", clock.monotonic() - started - sum(result.seconds.values()))
        return result

    def receive(self, records: Sequence[RawRecord], clock: Clock) -> TaskResult:
        """Take records in, in offset order; what is left to step are the `waves`. `process` does both."""
        started = clock.monotonic()
        result = TaskResult(StepReport(LeadScores.zero(self._pipeline.leads)))
        if self._plan and self._block is None and self._keeper is None and records:
            self.networks = self._plan.networks(self.partition, records[0].offset, self.groups.names)
        if self._keeper and records:
            self._keeper.begin(self._mark(records[0].offset))
        for raw in records:
            self._position = raw.offset
            block = raw.offset // self._rules.boundary_records
            if self._block is not None and block != self._block:
                self._pass_boundary(raw.offset, result, clock)
            self._block = block
            for decoded in self._codec.decode(raw):
                if isinstance(decoded, Observation):
                    for due_raw, due in self._reorder.push(raw, decoded):
                        self._place(due_raw, due, result)
                elif isinstance(decoded, DeadLetter):
                    self._refuse(decoded, result)
                else:
                    self._forget(decoded, result, clock)
            self._next_offset = raw.offset + 1
        result.spend("decode", clock.monotonic() - started - sum(result.seconds.values()))
        return result

    def _mark(self, offset: int) -> Mark:
        """How the task stands before the record at ``offset``."""
        versions = {group: network.team for group, network in self.networks.items()}
        return Mark(offset, self.watermark, self._block, versions.pop(DEFAULT, None), versions)

    def _place(self, raw: RawRecord, observation: Observation, result: TaskResult) -> None:
        """Put a reading into the waves being built; a new stream gets its row here, in source order."""
        keeper = self._keeper
        if keeper and keeper.is_replaying and self._was_done(keeper, raw, observation):
            return
        slot = self.table.find(observation.stream_id)
        if slot is None:
            slot = self._take_up(raw, observation, result)
            if slot is None:
                return
        if observation.time < self._oldest:
            self._oldest = observation.time
        self._builder.add(slot, observation, len(self._readings), self.group(slot))
        self._readings.append((raw, observation))

    def _take_up(self, raw: RawRecord, observation: Observation, result: TaskResult) -> int | None:
        """A row for a new stream; ``None`` where there is none left, and the reading is refused."""
        known, keeper = len(self.table), self._keeper
        slot = self.table.slot(observation.stream_id, beyond_limit=keeper is not None and keeper.is_replaying)
        if slot is None:
            if keeper:
                keeper.refused(raw.offset, observation.field)
            detail = f"the partition holds {known} streams, the most allowed; streams.max_streams raises it"
            self._refuse(DeadLetter(raw, Reason.STREAM_LIMIT, detail, observation.field), result)
            return None
        result.report.new_streams += 1
        if not self.groups.is_one:
            self.table.arrays["group"][slot] = group_number(self.groups.of(observation.stream_id))
        return slot

    def _was_done(self, keeper: StateKeeper, raw: RawRecord, observation: Observation) -> bool:
        """Whether a replayed reading has left its mark in a restored page, or was refused."""
        slot = self.table.find(observation.stream_id)
        if slot is None:
            return keeper.was_refused(raw.offset, observation.field)
        return keeper.is_settled(slot, self._position)

    def waves(self) -> Iterator[Wave]:
        """What was received and not stepped yet, as waves in an order that keeps each stream's own."""
        return self._builder.cut()

    def is_alone(self, group: str) -> bool:
        """Whether waves of a group have to be stepped by this task: a trial's second model looks at its streams."""
        return group in self._sides

    def step(self, wave: Wave, result: TaskResult, clock: Clock) -> None:
        """Answer one of the `waves`."""
        started = clock.monotonic()
        network, side = self.networks.get(wave.group), self._sides.get(wave.group)
        self.table.arrays.bring(wave.slots)
        step = self.pipeline(wave.group).step(self.table.arrays, wave, network, keep_losses=side is not None)
        stepped = clock.monotonic()
        if side is not None:
            side.step(wave, step)
            result.spend("beside", clock.monotonic() - stepped)
        result.waves.append((len(wave), stepped - started))
        self.settle(wave, step, result, clock, seconds=stepped - started)

    def settle(self, wave: Wave, step: StepResult, result: TaskResult, clock: Clock, *, seconds: float) -> None:
        """Note what became of one of the `waves`; ``seconds`` is what the step took."""
        started = clock.monotonic()
        result.spend("step", seconds)
        if self._keeper:
            readings = self._readings
            oldest = min([readings[tag][0].offset for tag in wave.tags.tolist()])
            self._keeper.changed(wave.slots, oldest, started)
        if not (self._keeper and self._keeper.is_replaying):
            self._publish(step, self.networks.get(wave.group), result)
        scores = step.report.scores
        losses, settled = float(scores.abs_error.sum()) / 2, float(scores.settled.sum())  # pinball of the median
        step.report.groups[wave.group] = GroupReport(step.report.accepted, losses, settled)
        result.report.add(step.report)
        result.spend("publish", clock.monotonic() - started)

    def finish(self, result: TaskResult) -> None:
        """All `waves` are settled: their answers go out in the order in which the readings came."""
        self._made.sort(key=itemgetter(0))
        result.records.extend(record for _, record in self._made)
        self._made.clear()
        self._readings.clear()

    def _flush(self, result: TaskResult, clock: Clock) -> None:
        """Step the waves built so far."""
        for wave in self.waves():
            self.step(wave, result, clock)
        self.finish(result)

    def _publish(self, step: StepResult, network: RecurrentExpert | None, result: TaskResult) -> None:
        readings, places = self._readings, (2 * step.answers.tags + 1).tolist()
        answered = [readings[place >> 1] for place in places]
        model = network.version if network else None
        published, rows = step.answers.published()
        told, told_at = answered, places
        if published is not step.answers:
            told, told_at = [answered[row] for row in rows], [places[row] for row in rows]
        self._made.extend(zip(told_at, self._publisher.forecasts(published, told, model), strict=True))
        result.forecasts += len(told)
        for row, record in self._publisher.anomalies(step.answers, answered, model):
            self._made.append((places[row], record))
        for tag, reason, detail in step.refused:
            raw, observation = self._readings[tag]
            if reason is Reason.DUPLICATE and self._rules.drop_duplicates:
                result.report.dropped += 1
            else:
                letter = DeadLetter(raw, reason, detail, observation.field)
                self._made.append((2 * tag + 1, self._publisher.dead_letter(letter)))
                result.dead_letters += 1
        if self._history is not None and answered:
            self._history.add(
                [observation.stream_id for _, observation in answered],
                step.answers.times,
                step.answers.values,
                [observation.covariates for _, observation in answered],
                [observation.future for _, observation in answered],
            )
            if (found := step.answers.verdicts) is not None:
                for row in np.flatnonzero(found.raised | found.cleared).tolist():
                    observation = answered[row][1]
                    until = None if found.raised[row] else observation.time
                    self._history.flag(observation.stream_id, float(found.since[row]), until)

    def _refuse(self, letter: DeadLetter, result: TaskResult) -> None:
        # Between the reading placed last and the next one: places of readings are odd, these are even.
        self._made.append((2 * len(self._readings), self._publisher.dead_letter(letter)))
        result.dead_letters += 1
        result.report.rejected[letter.reason] += 1

    def _forget(self, tombstone: Tombstone, result: TaskResult, clock: Clock) -> None:
        """Answer what is still held of the record's streams, then forget them."""
        prefix = f"{tombstone.record_id}/"

        def concerns(stream_id: str) -> bool:
            return stream_id == tombstone.record_id or stream_id.startswith(prefix)

        for raw, observation in self._reorder.release(concerns):
            self._place(raw, observation, result)
        self._flush(result, clock)
        self._release([stream for stream in self.table if concerns(stream)], result, clock)

    def _pass_boundary(self, offset: int, result: TaskResult, clock: Clock) -> None:
        """Switch models, hear labels, forget idle streams: between two readings that are the same in every replay.

        Waves end here only where one of that is due: how they are cut never shows, but wide ones cost less.
        """
        due, labels = self._networks_due(offset), self._labels(offset)
        idle_before = self.watermark - self._rules.idle_ttl_seconds
        if not (due or labels or self._trials or self._sides or self._oldest < idle_before):
            return
        self._flush(result, clock)
        self._scheduled = {}
        for group, network in due.items():
            self.networks[group] = network
            self.switched_at = offset
            reach("at_switch")
            if self._keeper:
                self._keeper.switched(offset, network.team, group)
        self._hear(labels, offset, result, clock)
        for group in self.groups.names:
            self._pass_trial(group)
        if self._oldest < idle_before:
            occupied = self.table.occupied()
            clocks = self.table.arrays["clock"][occupied]
            idle = clocks < idle_before
            self._release([self.table.name(slot) for slot in occupied[idle]], result, clock)
            # During a replay those whose rows are of a later time stay, whatever their clocks say.
            self._oldest = -np.inf if self._keeper and self._keeper.is_replaying else clocks[~idle].min(initial=np.inf)

    def _networks_due(self, offset: int) -> dict[str, RecurrentExpert]:
        """Networks that take over at this boundary, by group."""
        if self._keeper and self._keeper.is_replaying:
            assert self._network is not None, "a replay was given its networks"
            return {group: self._network(version) for group, version in self._keeper.took_over_at(offset).items()}
        if self._plan:
            planned = self._plan.networks(self.partition, offset, self.groups.names)
            return {group: network for group, network in planned.items() if not self._is_served_by(network, group)}
        return self._scheduled

    def _is_served_by(self, network: RecurrentExpert, group: str) -> bool:
        served = self.networks.get(group)
        return served is not None and served.team == network.team

    def _hear(self, labels: Iterable[tuple[str, bool, float]], offset: int, result: TaskResult, clock: Clock) -> None:
        """Let labels move thresholds."""
        keeper = self._keeper
        for stream_id, is_true, time in labels:
            if keeper:
                keeper.labelled(offset, stream_id, is_true, time)
            slot = self.table.find(stream_id)
            if slot is None or (keeper and keeper.is_settled(slot, self._position)):
                continue
            if keeper:
                keeper.changed([slot], offset, clock.monotonic())
            self.pipeline(self.group(slot)).detector.label(self.table.arrays, slot, time, is_true=is_true)
            result.report.labels["true" if is_true else "false"] += 1

    def _labels(self, offset: int) -> list[tuple[str, bool, float]]:
        """Labels that take effect at this boundary: in a replay those that did the first time, else those that came
        since the last one for streams of this partition; those of other streams are passed over."""
        if self._keeper and self._keeper.is_replaying:
            return list(self._keeper.labels_at(offset))
        found = []
        for partition, offset, said in self._feedback.take(self._heard, self.watermark) if self._feedback else ():
            self._heard[partition] = offset + 1
            if said.label is not None and said.stream_id in self.table:
                found.append((said.stream_id, *said.label))
        return found

    def _pass_trial(self, group: str) -> None:
        """Begin or end scoring a group side by side, between two readings."""
        trial, beside = self._trials.get(group, (None, None))
        network, side = self.networks.get(group), self._sides.get(group)
        serves = trial is not None and network is not None and network.version == trial.serving
        if side is not None:
            side.pass_boundary()
            if not serves:
                del self._sides[group]
            return
        if trial is None or beside is None or not serves or (self._keeper and self._keeper.is_replaying):
            return
        slots = self.table.occupied()
        if not self.groups.is_one:
            slots = slots[self.table.arrays["group"][slots] == group_number(group)]
        if len(slots):
            self._sides[group] = SideBySide(
                self.pipeline(group),
                self.table,
                beside,
                slots=slots,
                trial=trial.number,
                partition=self.partition,
                max_streams=self._rules.trial_streams,
            )

    def _release(self, stream_ids: Sequence[str], result: TaskResult, clock: Clock) -> None:
        """Forget streams, but not those whose restored rows are of a later time than this."""
        keeper = self._keeper
        if keeper:
            found = ((stream_id, self.table.find(stream_id)) for stream_id in stream_ids)
            slots = {stream_id: slot for stream_id, slot in found if slot is not None}
            stream_ids = [stream_id for stream_id, slot in slots.items() if not keeper.is_settled(slot, self._position)]
            gone = [slots[stream_id] for stream_id in stream_ids]
            keeper.changed(gone, self._position, clock.monotonic())
            keeper.released(gone)
        if self._sides:
            found_slots = [slot for stream_id in stream_ids if (slot := self.table.find(stream_id)) is not None]
            for side in self._sides.values():
                side.forget(found_slots)
        result.report.evicted += self.table.release(stream_ids)
