"""Running through equals stopping anywhere, restoring from pages, and running on: answer by answer, byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from factories import START, forecasts_of, make_messy_records, make_pipeline, make_raw, make_recurrent, make_task

from forecaster.clock import ManualClock
from forecaster.codecs.forecast_json import decode_forecast
from forecaster.codecs.json_codec import JsonCodec
from forecaster.engine.feedback import RecordedFeedback
from forecaster.engine.journal import decode_meta
from forecaster.engine.keeper import META_KEY, SWITCH_PREFIX, StateKeeper, parse_switch_key
from forecaster.engine.pipeline import Pipeline
from forecaster.engine.switches import Networks
from forecaster.engine.task import PartitionTask
from forecaster.errors import PageCorrupt, StateError, StateGap
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.records import Feedback, OutRecord, RawRecord, StateRecord
from forecaster.series.groups import DEFAULT, GroupRule, GroupRules

SHAPES = {
    "gru": {"hidden_shape": (1, 8), "ring_steps": 16},  # so short that linear forecasts have all their lags
    "lstm": {"hidden_shape": (1, 20), "declared_season": 12},
    "rnn": {"hidden_shape": (2, 7), "horizon": 5, "declared_season": 3},
}
_OWN = ("m1", "m2", "m3", "site-0/sensor")  # streams with linear weights of their own


class Bench:
    """A partition whose answers, state and offset are committed together, and a worker that dies in between."""

    def __init__(
        self,
        cell: str,
        *,
        flush_seconds: float = 3.0,
        max_pages: int = 1,
        publishing: dict[str, Any] | None = None,
        feedback: Sequence[Feedback] = (),
        known_ahead: bool = False,
        further_seasons: tuple[int | float | None, ...] = (),
        keeps_former: bool = False,
        **rules: Any,
    ) -> None:
        self.pipeline: Pipeline = make_pipeline(
            **SHAPES[cell],
            publishing=publishing,
            known_ahead=int(known_ahead),
            further_seasons=further_seasons,
            keeps_former=keeps_former,
        )
        self.codec = JsonCodec(known_ahead=("plan",) if known_ahead else (), horizon=self.pipeline.horizon)
        common: dict[str, Any] = {"cell": cell, "own_linear": _OWN}
        self.first = make_recurrent(self.pipeline, seed=1, model=1, **common)
        former = self.first if keeps_former else None
        self.second = make_recurrent(
            self.pipeline,
            seed=2,
            model=3 if former else 2,  # another number, so that hidden states of one alone are made anew
            season=12,
            further_seasons=(15.0,),
            former=former,
            **common,
        )
        self.networks = {expert.team: expert for expert in (self.first, self.second)}
        self.feedback = RecordedFeedback(feedback)
        self.rules = {"boundary_records": 128, **rules}
        self.flush = {"flush_seconds": flush_seconds, "max_pages": max_pages}
        self.clock = ManualClock()
        self.answers: list[OutRecord] = []
        self.state: dict[str, bytes | None] = {}
        self.buried: set[str] = set()
        self.committed = 0
        self.replayed = 0

    def new_task(self, recurrent: RecurrentExpert | None) -> PartitionTask:
        return make_task(
            self.pipeline,
            codec=self.codec,
            recurrent=recurrent,
            feedback=self.feedback,
            keep_state=lambda table: StateKeeper(table, **self.flush),
            **self.rules,
        )

    def start(self, records: list[RawRecord]) -> PartitionTask:
        """A task that stands at the committed offset, from nothing or from the state."""
        if not self.committed:
            task = self.new_task(self.first)
            task.schedule(self.second)
            return task
        task = self.new_task(None)
        stored = [StateRecord(key, value) for key, value in self.state.items()]
        begin = task.restore_state(stored, committed=self.committed, network=self.networks.__getitem__)
        assert begin <= self.committed
        again = [raw for raw in records if begin <= raw.offset < self.committed]
        for start in range(0, len(again), 37):  # cut otherwise than the first time
            task.replay(again[start : start + 37], self.clock)
        task.finish_replay(self.committed)
        self.replayed += len(again)
        if task.networks[""] is self.first:
            task.schedule(self.second)  # as the registry asks again of a new worker
        return task

    def commit(self, task: PartitionTask, answers: list[OutRecord]) -> None:
        """What a transaction does: all of it, or nothing."""
        offset = task.committable()
        assert offset is not None
        records = task.export_state(self.clock.monotonic())
        self.state |= {record.key: record.value for record in records}
        self.buried |= {record.key for record in records if record.value is None}
        self.answers += answers
        self.committed = offset


def run(bench: Bench, records: list[RawRecord], rng: np.random.Generator, *, kills: int) -> None:
    """Takes all records in, in random polls, killed as often as asked at random places."""
    dies_after = sorted(rng.integers(1, len(records), size=kills).tolist())
    task, pending, at = bench.start(records), [], bench.committed
    while at < len(records):
        size = int(rng.integers(1, 60))
        pending += task.process(records[at : at + size], bench.clock).records
        at = min(at + size, len(records))
        bench.clock.advance(1.0)
        if dies_after and at >= dies_after[0]:
            while dies_after and at >= dies_after[0]:
                dies_after.pop(0)
            task, pending, at = bench.start(records), [], bench.committed
        elif rng.random() < 0.5 or at == len(records):
            bench.commit(task, pending)
            pending = []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("cell", "known_ahead"), [("gru", False), ("lstm", False), ("rnn", False), ("gru", True)])
def test_a_killed_task_goes_on_as_if_it_had_never_died(cell: str, known_ahead: bool, seed: int) -> None:
    rng = np.random.default_rng([seed, len(cell)])
    records = make_messy_records(rng, readings=24)
    never_killed, killed = (Bench(cell, known_ahead=known_ahead) for _ in range(2))

    run(never_killed, records, np.random.default_rng(seed), kills=0)
    run(killed, records, rng, kills=12)

    assert killed.replayed > 0, "pages of different offsets were brought to one"
    assert any(b'"model":"gru-test-2"' in value for value in forecasts_of(killed.answers))
    assert killed.answers == never_killed.answers
    assert killed.committed == never_killed.committed == len(records)


@pytest.mark.parametrize("cell", SHAPES)
def test_a_killed_task_goes_on_with_the_former_champion_beside_its_successor(cell: str) -> None:
    records = make_messy_records(np.random.default_rng(11), readings=30)
    never_killed, killed = (Bench(cell, keeps_former=True) for _ in range(2))

    run(never_killed, records, np.random.default_rng(5), kills=0)
    run(killed, records, np.random.default_rng(6), kills=12)

    assert killed.replayed > 0
    assert any(b'"former":' in value for value in forecasts_of(never_killed.answers))
    assert killed.answers == never_killed.answers
    assert killed.state["switch/128"] == b"gru-test-2+gru-test-1"


def test_a_partition_gives_its_former_champion_up_and_takes_one_in_again() -> None:
    """As when the setting changes between two runs: what the others had learnt is kept."""
    records = make_messy_records(np.random.default_rng(5), readings=30)
    without, beside = Bench("gru"), Bench("gru", keeps_former=True)
    third = len(records) // 3
    run(beside, records[:third], np.random.default_rng(0), kills=0)

    without.state, without.committed = dict(beside.state), beside.committed
    without.networks[beside.second.team] = without.second  # what there is no room for is left out
    beside.networks[without.second.team] = make_recurrent(beside.pipeline, seed=2, model=2, season=12, own_linear=_OWN)
    run(without, records[: 2 * third], np.random.default_rng(1), kills=0)
    beside.state, beside.committed = dict(without.state), without.committed
    task = beside.start(records)
    task.schedule(beside.second)
    beside.commit(task, task.process(records[2 * third :], beside.clock).records)

    told = [decode_forecast(value) for value in forecasts_of(beside.answers)]
    alone = [decode_forecast(value) for value in forecasts_of(without.answers)]
    assert not any("former" in forecast.experts for forecast in alone)
    assert any(forecast.experts.get("former") for forecast in told[-40:])
    ended = {raw.key.decode() for raw in records if raw.key and raw.value is None}
    seqs: dict[str, list[int]] = {}
    for forecast in sorted([*told, *alone], key=lambda forecast: forecast.seq):
        seqs.setdefault(forecast.stream_id, []).append(forecast.seq)
    assert all(found == list(range(1, len(found) + 1)) for name, found in seqs.items() if name not in ended)


@pytest.mark.parametrize("further", [(5, 300.0), (None,)], ids=["declared", "found"])
def test_a_killed_task_goes_on_with_the_seasons_it_had(further: tuple[int | float | None, ...]) -> None:
    records = make_messy_records(np.random.default_rng(5), readings=30)
    never_killed, killed = (Bench("rnn", further_seasons=further) for _ in range(2))

    run(never_killed, records, np.random.default_rng(5), kills=0)
    run(killed, records, np.random.default_rng(6), kills=8)

    assert killed.replayed > 0
    assert any(b'"seasonal_2":' in value for value in forecasts_of(never_killed.answers))
    assert killed.answers == never_killed.answers


def test_a_partition_goes_on_under_more_seasons_and_under_fewer() -> None:
    """What its streams had learnt is kept: no stream begins anew, and the new season takes part at once."""
    records = make_messy_records(np.random.default_rng(5), readings=30)
    one, two = Bench("rnn"), Bench("rnn", further_seasons=(5,))
    third = len(records) // 3
    run(one, records[:third], np.random.default_rng(0), kills=0)

    two.state, two.committed = dict(one.state), one.committed
    run(two, records[: 2 * third], np.random.default_rng(1), kills=0)
    one.state, one.committed = dict(two.state), two.committed
    before, again = len(one.answers), one.start(records)

    told = [decode_forecast(value) for value in forecasts_of(two.answers)]
    assert any(forecast.experts.get("seasonal_2") for forecast in told)
    one.commit(again, again.process(records[2 * third :], one.clock).records)
    back = [decode_forecast(value) for value in forecasts_of(one.answers[before:])]
    assert not any("seasonal_2" in forecast.experts for forecast in back)
    ended = {raw.key.decode() for raw in records if raw.key and raw.value is None}
    seqs: dict[str, list[int]] = {}
    for forecast in [*map(decode_forecast, forecasts_of(one.answers[:before])), *told, *back]:
        seqs.setdefault(forecast.stream_id, []).append(forecast.seq)
    assert len(seqs) == 40
    assert all(found == list(range(1, len(found) + 1)) for name, found in seqs.items() if name not in ended)


class GroupedBench(Bench):
    """Two groups beside the default; all three switch at the same boundaries, and one begins without a network."""

    groups = GroupRules([GroupRule("odd", ("*[13579]",)), GroupRule("m2", ("m2?", "m2"))])

    def __init__(self) -> None:
        super().__init__("gru")
        shape = SHAPES["gru"]
        pipelines = {name: make_pipeline(declared_season=season, **shape) for name, season in (("odd", 6), ("m2", 0))}
        self.pipelines = pipelines
        for seed in (1, 2, 3, 4, 5, 6):
            expert = make_recurrent(self.pipeline, seed=seed, model=seed)
            self.networks[expert.version] = expert
        self.begun = {DEFAULT: self.networks["gru-test-1"], "odd": self.networks["gru-test-3"]}
        self.next = {
            DEFAULT: self.networks["gru-test-2"],
            "odd": self.networks["gru-test-4"],
            "m2": self.networks["gru-test-5"],
        }

    def new_grouped(self, networks: Networks) -> PartitionTask:
        return make_task(
            self.pipeline,
            networks=networks,
            groups=self.groups,
            pipelines=self.pipelines,
            keep_state=lambda table: StateKeeper(table, **self.flush, terms={"groups": ["odd", "m2"]}),
            **self.rules,
        )

    def start(self, records: list[RawRecord]) -> PartitionTask:
        if not self.committed:
            task = self.new_grouped(self.begun)
            for group, network in self.next.items():
                task.schedule(network, group=group)
            return task
        task = self.new_grouped({})
        stored = [StateRecord(key, value) for key, value in self.state.items()]
        begin = task.restore_state(stored, committed=self.committed, network=self.networks.__getitem__)
        again = [raw for raw in records if begin <= raw.offset < self.committed]
        for start in range(0, len(again), 37):
            task.replay(again[start : start + 37], self.clock)
        task.finish_replay(self.committed)
        self.replayed += len(again)
        for group, network in self.next.items():
            if task.networks.get(group) is not network:
                task.schedule(network, group=group)
        return task


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_task_of_several_groups_goes_on_as_if_it_had_never_died(seed: int) -> None:
    rng = np.random.default_rng([seed, 77])
    records = make_messy_records(rng, readings=24)
    never_killed, killed = GroupedBench(), GroupedBench()

    run(never_killed, records, np.random.default_rng(seed), kills=0)
    run(killed, records, rng, kills=12)

    assert killed.replayed > 0
    for version in ("gru-test-2", "gru-test-4", "gru-test-5"):
        assert any(f'"model":"{version}"'.encode() in value for value in forecasts_of(killed.answers)), version
    assert killed.answers == never_killed.answers
    switches = {parse_switch_key(key): value for key, value in killed.state.items() if key.startswith(SWITCH_PREFIX)}
    assert switches == {(128, ""): b"gru-test-2", (128, "odd"): b"gru-test-4", (128, "m2"): b"gru-test-5"}


def test_state_kept_under_other_groups_is_refused_by_name() -> None:
    """State that says nothing of groups was kept without; a stream whose group changed could not be replayed."""
    records = make_messy_records(np.random.default_rng(9), readings=6)
    without, grouped = Bench("gru"), GroupedBench()
    run(without, records, np.random.default_rng(9), kills=0)
    stored = [StateRecord(key, value) for key, value in without.state.items()]

    with pytest.raises(StateError, match=r'under groups \[\], this program runs \["odd","m2"\]'):
        grouped.new_grouped({}).restore_state(stored, committed=without.committed, network=without.networks.__getitem__)


@pytest.mark.parametrize(
    "rules",
    [
        {"max_lateness_seconds": 30.0},
        {"idle_ttl_seconds": 40.0, "boundary_records": 50},
        {"max_streams": 25, "idle_ttl_seconds": 40.0, "boundary_records": 50},
        {"max_streams": 30, "idle_ttl_seconds": 40.0, "max_lateness_seconds": 5.0, "drop_duplicates": True},
        {"flush_seconds": 0.0, "max_pages": 1_000},
        {"flush_seconds": 1e9},
    ],
    ids=lambda rules: "-".join(rules),
)
@pytest.mark.parametrize("seed", range(2))
def test_whatever_the_rules_a_killed_task_goes_on_the_same(rules: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    records = make_messy_records(rng, readings=16)
    never_killed, killed = Bench("gru", **rules), Bench("gru", **rules)

    run(never_killed, records, np.random.default_rng(seed), kills=0)
    run(killed, records, rng, kills=10)

    assert killed.answers == never_killed.answers


@pytest.mark.parametrize(
    "publishing",
    [
        {"when": "every_nth", "nth": 3},
        {"when": "interval", "interval_seconds": 100.0},
        {"when": "change", "tolerance": 1.0},
    ],
    ids=lambda publishing: publishing["when"],
)
def test_a_killed_task_withholds_the_same_forecasts(publishing: dict[str, Any]) -> None:
    rng = np.random.default_rng(7)
    records = make_messy_records(rng, readings=16)
    never_killed, killed, talkative = (Bench("gru", publishing=policy) for policy in (publishing, publishing, None))

    run(never_killed, records, np.random.default_rng(7), kills=0)
    run(killed, records, rng, kills=10)
    run(talkative, records, np.random.default_rng(7), kills=0)

    published, made = len(forecasts_of(killed.answers)), len(forecasts_of(talkative.answers))
    assert killed.replayed > 0
    assert killed.answers == never_killed.answers
    assert 0 < published < made


def test_a_killed_task_has_heard_each_label_once_and_where_it_did() -> None:
    """Labels move the scores that anomalies are raised with: heard twice, never, or elsewhere, the answers differ."""
    records = make_spiky_records(np.random.default_rng(11))
    labels = [Feedback(f"s{stream}", (stream == 2, START + 105.0), None) for stream in range(3)]
    labels.append(Feedback("nobody", (False, START + 100.0), None))
    without, never_killed = Bench("gru"), Bench("gru", feedback=labels)
    killed, rarely_written = (Bench("gru", feedback=labels, flush_seconds=seconds) for seconds in (2.0, 1e9))

    for bench, kills in ((without, 0), (never_killed, 0), (killed, 8), (rarely_written, 3)):
        run(bench, records, np.random.default_rng(1), kills=kills)

    def raised(bench: Bench) -> list[bytes]:
        return [answer.value or b"" for answer in bench.answers if b'"state":"raised"' in (answer.value or b"")]

    assert killed.replayed > 0
    assert killed.answers == rarely_written.answers == never_killed.answers
    assert raised(without)
    assert raised(never_killed) != raised(without)
    metas = [decode_meta(bench.state[META_KEY] or b"") for bench in (killed, rarely_written)]
    assert [meta.heard for meta in metas] == [[(0, 4)]] * 2
    assert [len(meta.labels) for meta in metas] == [0, 3], "once all pages are past it, no replay needs a label"


def make_spiky_records(rng: np.random.Generator) -> list[RawRecord]:
    """Three streams of noise, a reading every second, in which every 50th is far off, ever farther."""
    records: list[RawRecord] = []
    for turn in range(240):
        for stream in range(3):
            value = float(rng.standard_normal()) + turn * (turn % 50 == 49)
            records.append(make_raw(len(records), f"s{stream}", START + turn, round(value, 3)))
    return records


@pytest.mark.parametrize(("seed", "max_pages"), [(0, 2), (1, 3)])
def test_streams_that_come_and_go_leave_nothing_behind_however_often_it_is_killed(seed: int, max_pages: int) -> None:
    """Whole pages become empty and get tombstones; streams come back into other slots than they had."""
    rng = np.random.default_rng([seed, max_pages])
    records = make_passing_streams(rng)
    rules = {"idle_ttl_seconds": 60.0, "boundary_records": 40, "max_pages": max_pages, "flush_seconds": 2.0}
    never_killed, killed = Bench("gru", **rules), Bench("gru", **rules)

    run(never_killed, records, np.random.default_rng(seed), kills=0)
    run(killed, records, rng, kills=15)

    assert killed.answers == never_killed.answers
    assert killed.buried, "a page became empty"
    # Restored once more from what was written, both hold the same streams with the same rows.
    ours, theirs = (bench.start(records).table for bench in (killed, never_killed))
    assert set(ours) == set(theirs)
    for stream in ours:
        here, there = ours.find(stream), theirs.find(stream)
        for column in ours.columns:
            assert ours.arrays[column.name][here].tobytes() == theirs.arrays[column.name][there].tobytes(), column.name


def make_passing_streams(rng: np.random.Generator) -> list[RawRecord]:
    """Crowds of 70 streams, each silent after some readings; a few return later; some are forgotten by tombstone."""
    records: list[RawRecord] = []
    for crowd in range(4):
        names = [f"c{crowd}-{number}" for number in range(70)] + [f"back-{n}" for n in range(5) if rng.random() < 0.7]
        for turn in range(4):
            for name in rng.permutation(names):
                time = START + 100.0 * crowd + 5.0 * turn + float(rng.random())
                raw = make_raw(len(records), str(name), time, float(rng.standard_normal()))
                is_tombstone = rng.random() < 0.03
                records.append(msgspec.structs.replace(raw, value=None) if is_tombstone else raw)
    return records


def test_with_every_page_in_every_commit_nothing_is_replayed() -> None:
    records = make_messy_records(np.random.default_rng(5), readings=8)
    bench = Bench("gru", flush_seconds=0.0, max_pages=1_000)

    run(bench, records, np.random.default_rng(5), kills=6)

    assert bench.replayed == 0


@pytest.mark.parametrize("key", [META_KEY, "page"])
def test_a_damaged_state_record_is_refused_by_whoever_restores(key: str) -> None:
    """Never a crash of another kind, never silently another state. Every bit of a small page: tests/unit/state."""
    records = make_messy_records(np.random.default_rng(6), readings=6)
    bench = Bench("gru", flush_seconds=0.0, max_pages=1_000)
    run(bench, records, np.random.default_rng(6), kills=0)
    name = next(name for name in bench.state if name.startswith(key))
    whole = bench.state[name]
    assert whole is not None
    rng = np.random.default_rng(7)
    task = bench.new_task(None)

    for at in range(0, len(whole), 1 if key == META_KEY else 97):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(8))
        for damaged in (bytes(flipped), whole[:at]):
            bench.state[name] = damaged
            stored = [StateRecord(found, value) for found, value in bench.state.items()]
            with pytest.raises(StateError):
                task.restore_state(stored, committed=bench.committed, network=bench.networks.__getitem__)
    assert len(task.table) == 0, "nothing of a damaged state is taken in"


def test_state_of_another_offset_or_without_meta_is_refused() -> None:
    records = make_messy_records(np.random.default_rng(8), readings=6)
    bench = Bench("gru", flush_seconds=0.0, max_pages=1_000)
    run(bench, records, np.random.default_rng(8), kills=0)
    stored = [StateRecord(key, value) for key, value in bench.state.items()]

    with pytest.raises(StateGap, match="committed offset"):
        bench.new_task(None).restore_state(stored, committed=bench.committed - 1, network=bench.networks.__getitem__)
    with pytest.raises(StateGap, match="meta"):
        bench.new_task(None).restore_state(
            [record for record in stored if record.key != META_KEY],
            committed=bench.committed,
            network=bench.networks.__getitem__,
        )


def test_state_of_another_schema_is_refused() -> None:
    records = make_messy_records(np.random.default_rng(9), readings=6)
    bench, other = Bench("gru", flush_seconds=0.0, max_pages=1_000), Bench("rnn")
    run(bench, records, np.random.default_rng(9), kills=0)
    stored = [StateRecord(key, value) for key, value in bench.state.items()]

    with pytest.raises(PageCorrupt, match="schema"):
        other.new_task(None).restore_state(stored, committed=bench.committed, network=other.networks.__getitem__)


def test_state_from_before_anything_was_known_ahead_goes_on_and_the_other_way_is_refused_by_name() -> None:
    records = make_messy_records(np.random.default_rng(9), readings=6)

    def stored(bench: Bench) -> list[StateRecord]:
        run(bench, records, np.random.default_rng(9), kills=0)
        return [StateRecord(key, value) for key, value in bench.state.items()]

    without, told = Bench("gru"), Bench("gru", known_ahead=True)
    of_without, of_told = stored(without), stored(told)
    task = told.new_task(None)
    task.restore_state(of_without, committed=len(records), network=told.networks.__getitem__)

    arrays, slots = task.table.arrays, task.table.occupied()
    assert arrays["seen"][slots].any()
    assert not arrays["known_ahead_seen"][slots].any()
    with pytest.raises(StateError, match="known_ahead_"):
        without.new_task(None).restore_state(of_told, committed=len(records), network=without.networks.__getitem__)
