"""However records are cut into polls and waves, each is answered once, and by the same bytes."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from factories import forecasts_of, headers_of, make_messy_records, make_pipeline, make_recurrent, make_task, process

from forecaster.clock import ManualClock
from forecaster.codecs.forecast_json import decode_forecast
from forecaster.codecs.json_codec import JsonCodec
from forecaster.engine.pipeline import Pipeline
from forecaster.engine.task import PartitionTask
from forecaster.engine.together import flush_together
from forecaster.records import OutRecord, RawRecord, Reason
from forecaster.series.groups import DEFAULT, GroupRule, GroupRules

SHAPES = {
    "gru": {"hidden_shape": (1, 8), "ring_steps": 16},  # so short that linear forecasts have all their lags
    "lstm": {"hidden_shape": (1, 20), "declared_season": 12},
    "rnn": {"hidden_shape": (2, 7), "horizon": 5, "declared_season": 3},
}
BOUNDARY = 512


def make_case(
    cell: str,
    *,
    covariates: bool = False,
    known_ahead: bool = False,
    pipeline: Pipeline | None = None,
    publishing: dict[str, Any] | None = None,
    keeps_former: bool = False,
    **rules: Any,
) -> tuple[Pipeline, PartitionTask]:
    """A task served by one network, with another one scheduled for the first boundary, beside it or in its place."""
    pipeline = pipeline or make_pipeline(
        **SHAPES[cell],
        covariates=2 * covariates,
        known_ahead=int(known_ahead),
        publishing=publishing,
        keeps_former=keeps_former,
    )
    codec = JsonCodec(
        covariates=("load", "steps") if covariates else (),
        known_ahead=("plan",) if known_ahead else (),
        horizon=pipeline.horizon,
    )
    first = make_recurrent(pipeline, seed=1, model=1, cell=cell)
    task = make_task(pipeline, codec=codec, recurrent=first, boundary_records=BOUNDARY, **rules)
    own = ("m1", "m2", "m3", "site-0/sensor")
    former = first if keeps_former else None
    task.schedule(make_recurrent(pipeline, seed=2, model=2, cell=cell, season=12, own_linear=own, former=former))
    return pipeline, task


@pytest.mark.parametrize("cell", SHAPES)
def test_answers_with_a_former_champion_are_the_same_bytes_however_records_fall_into_polls_and_waves(cell: str) -> None:
    rng = np.random.default_rng([5, len(cell)])
    records = make_messy_records(rng, readings=24)
    _, whole = make_case(cell, keeps_former=True, max_wave=64)
    _, cut = make_case(cell, keeps_former=True, max_wave=int(rng.integers(1, 40)))

    expected = answers(whole, records, [])
    found = answers(cut, records, random_polls(rng, len(records)))

    assert whole.switched_at == cut.switched_at == BOUNDARY
    assert any(decode_forecast(value).experts.get("former") for value in forecasts_of(expected))
    assert found == expected


@pytest.mark.parametrize("seed", range(2))
def test_answers_by_several_seasons_are_the_same_bytes_however_records_fall_into_polls_and_waves(seed: int) -> None:
    """One declared in steps, one as a duration that fits some streams alone, one that comes with the second model."""
    rng = np.random.default_rng([seed, 7])
    records = make_messy_records(rng, readings=24)

    def make_seasonal(max_wave: int) -> PartitionTask:
        pipeline = make_pipeline(ring_steps=16, declared_season=3, further_seasons=(4, 300.0, None))
        task = make_task(pipeline, recurrent=make_recurrent(pipeline), boundary_records=BOUNDARY, max_wave=max_wave)
        task.schedule(make_recurrent(pipeline, seed=2, model=2, season=12, further_seasons=(0.0, 0.0, 15.0)))
        return task

    expected = answers(make_seasonal(64), records, [])
    found = answers(make_seasonal(int(rng.integers(1, 40))), records, random_polls(rng, len(records)))

    for expert in ("seasonal_2", "seasonal_3", "seasonal_4"):
        assert any(decode_forecast(value).experts.get(expert) for value in forecasts_of(expected))
    assert found == expected


GROUPS = GroupRules([GroupRule("odd", ("*[13579]",)), GroupRule("m2", ("m2?", "m2"))])


def make_pipelines(cell: str) -> dict[str, Pipeline]:
    """One for each of the groups, with a season of its own."""
    seasons = {DEFAULT: None, "odd": 6, "m2": 0}
    return {group: make_pipeline(**{**SHAPES[cell], "declared_season": season}) for group, season in seasons.items()}


def make_grouped(cell: str, *, pipelines: dict[str, Pipeline] | None = None, **rules: Any) -> PartitionTask:
    """A task of three groups, each with a network, a successor for the first boundary, and a season of its own."""
    pipelines = dict(pipelines or make_pipelines(cell))
    first, second = (
        {
            group: make_recurrent(pipelines[group], seed=seed, model=seed, cell=cell, season=12)
            for seed, group in enumerate(GROUPS.names, start=begin)
        }
        for begin in (1, 11)
    )
    task = make_task(
        pipelines.pop(DEFAULT),
        networks=first,
        groups=GROUPS,
        pipelines=pipelines,
        boundary_records=BOUNDARY,
        **rules,
    )
    for group, network in second.items():
        task.schedule(network, group=group)
    return task


def answers(task: PartitionTask, records: list[RawRecord], polls: list[int]) -> list[OutRecord]:
    """Everything a task answers when the records come in polls that end at these positions."""
    made = []
    for begin, end in zip([0, *polls], [*polls, len(records)], strict=True):
        made.extend(process(task, records[begin:end]).records)
    return made


def random_polls(rng: np.random.Generator, records: int) -> list[int]:
    """Ends of polls: mostly small, some large."""
    return np.unique(rng.integers(1, records, size=int(rng.integers(1, records // 10)))).tolist()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("cell", "covariates", "known_ahead"),
    [("gru", True, False), ("lstm", False, False), ("rnn", False, False), ("gru", False, True), ("rnn", True, True)],
)
def test_answers_are_the_same_bytes_however_records_fall_into_polls_and_waves(
    cell: str, covariates: bool, known_ahead: bool, seed: int
) -> None:
    rng = np.random.default_rng([seed, len(cell), covariates])
    records = make_messy_records(rng, readings=24)
    _, whole = make_case(cell, covariates=covariates, known_ahead=known_ahead, max_wave=64)
    _, cut = make_case(cell, covariates=covariates, known_ahead=known_ahead, max_wave=int(rng.integers(1, 40)))

    expected = answers(whole, records, [])
    found = answers(cut, records, random_polls(rng, len(records)))

    assert whole.switched_at == cut.switched_at == BOUNDARY
    assert len(forecasts_of(expected)) > 0.7 * len(records)
    assert any(b'"model":"gru-test-2"' in value for value in forecasts_of(expected))
    assert found == expected
    assert cell != "gru" or any(b'"linear":' in value for value in forecasts_of(expected))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_answers_of_several_groups_are_the_same_bytes_however_records_fall_into_polls_and_waves(
    cell: str, seed: int
) -> None:
    rng = np.random.default_rng([seed, len(cell)])
    records = make_messy_records(rng, readings=24)
    whole = make_grouped(cell, max_wave=64)
    cut = make_grouped(cell, max_wave=int(rng.integers(1, 40)))

    expected = answers(whole, records, [])
    found = answers(cut, records, random_polls(rng, len(records)))

    served = {
        (GROUPS.of(forecast.stream_id), forecast.model)
        for forecast in map(decode_forecast, forecasts_of(expected))
        if forecast.model is not None
    }
    assert served == {
        (group, f"gru-test-{begin + place}") for place, group in enumerate(GROUPS.names) for begin in (1, 11)
    }
    assert found == expected


@pytest.mark.parametrize("group", GROUPS.names)
def test_a_stream_of_a_group_is_answered_as_if_there_were_only_its_group(group: str) -> None:
    """By a task without groups that has the group's own calculation and network."""
    records = make_messy_records(np.random.default_rng(3), readings=24)
    own = [raw for raw in records if raw.key and GROUPS.of(raw.key.decode()) == group]
    among = make_grouped("gru")
    place = GROUPS.names.index(group)
    season = {DEFAULT: None, "odd": 6, "m2": 0}[group]
    pipeline = make_pipeline(**{**SHAPES["gru"], "declared_season": season})
    alone = make_task(
        pipeline,
        recurrent=make_recurrent(pipeline, seed=1 + place, model=1 + place, season=12),
        boundary_records=BOUNDARY,
    )
    alone.schedule(make_recurrent(pipeline, seed=11 + place, model=11 + place, season=12))

    expected = [
        record for record in answers(among, records, []) if record.topic == "forecasts" and is_of(record, group)
    ]
    found = [record for record in answers(alone, own, []) if record.topic == "forecasts" and is_of(record, group)]

    assert len(found) > 40
    assert found == expected


def is_of(record: OutRecord, group: str) -> bool:
    """Whether the stream that a forecast is about is of this group."""
    return GROUPS.of(decode_forecast(record.value or b"").stream_id) == group


@pytest.mark.parametrize("seed", range(2))
def test_readings_held_back_come_out_the_same_however_records_fall_into_polls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    records = make_messy_records(rng, readings=12)
    _, whole = make_case("gru", max_lateness_seconds=7.0)
    _, cut = make_case("gru", max_lateness_seconds=7.0, max_wave=5)

    expected = answers(whole, records, [])
    found = answers(cut, records, random_polls(rng, len(records)))

    assert found == expected
    assert cut.held_back == whole.held_back
    assert cut.committable() == whole.committable()


@pytest.mark.parametrize("seed", range(3))
def test_idle_streams_are_forgotten_at_the_same_boundaries_however_records_fall_into_polls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    records = make_messy_records(rng, readings=20)
    rules = {"idle_ttl_seconds": 20.0, "boundary_records": 16}
    whole, one_by_one = make_task(**rules), make_task(**rules)

    together = process(whole, records)
    singly = [process(one_by_one, [raw]) for raw in records]

    assert together.records == [record for result in singly for record in result.records]
    assert list(whole.table) == list(one_by_one.table)
    assert together.report.evicted == sum(result.report.evicted for result in singly) > 10


@pytest.mark.parametrize(
    ("seed", "rules"),
    [
        (0, {}),
        (1, {"drop_duplicates": True}),
        (2, {"max_lateness_seconds": 30.0}),
        (3, {"max_streams": 25}),
        (4, {"idle_ttl_seconds": 40.0, "drop_duplicates": True, "max_lateness_seconds": 3.0, "max_streams": 30}),
    ],
)
def test_each_record_is_answered_exactly_once(seed: int, rules: dict[str, Any]) -> None:
    """Forecasts + dead letters + dropped + tombstones + held back are the records, and no place is answered twice."""
    rng = np.random.default_rng(seed)
    records = make_messy_records(rng, readings=20)
    tombstones = {raw.offset for raw in records if raw.value is None}
    task = make_task(**{"boundary_records": 100, **rules})

    results = [process(task, part) for part in np.split(np.array(records, object), random_polls(rng, len(records)))]

    made = [record for result in results for record in result.records]
    places = [source_offset(record) for record in made]
    dropped = sum(result.report.dropped for result in results)
    assert len(places) == len(set(places))
    assert not tombstones & set(places)
    assert len(places) + dropped + len(tombstones) + task.held_back == len(records)
    assert sum(result.forecasts for result in results) == len(forecasts_of(made))
    assert sum(result.dead_letters for result in results) == len(made) - len(forecasts_of(made))
    assert (dropped > 0) == rules.get("drop_duplicates", False)
    assert (task.held_back > 0) == ("max_lateness_seconds" in rules)
    refused = sum((result.report.rejected for result in results), Counter())
    assert (refused[Reason.STREAM_LIMIT] > 0) == ("max_streams" in rules)
    assert refused.total() == len(made) - len(forecasts_of(made)) + dropped


@pytest.mark.parametrize("seed", range(2))
def test_the_future_of_a_stream_changes_no_earlier_forecast_and_no_other_stream(seed: int) -> None:
    rng = np.random.default_rng(seed)
    records = make_messy_records(rng, readings=20)
    present = len(records) // 2
    victim = max(raw.key or b"" for raw in records[-len(records) // 4 :] if raw.value and b"null" not in raw.value)
    other_future = [
        replaced(raw, value=-12_345.0) if raw.offset >= present and raw.key == victim else raw for raw in records
    ]
    _, told = make_case("gru")
    _, untold = make_case("gru")

    expected = answers(told, records, [present])
    found = answers(untold, other_future, [present])

    assert [source_offset(record) for record in found] == [source_offset(record) for record in expected]
    differing = {source_offset(a) for a, b in zip(expected, found, strict=True) if a != b}
    assert differing
    assert all(offset >= present and records[offset].key == victim for offset in differing)


@pytest.mark.parametrize("seed", range(2))
def test_a_stream_is_answered_alike_alone_and_among_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    records = make_messy_records(rng, readings=20)
    own = [raw for raw in records if raw.key == b"m6"]
    _, among = make_case("lstm")
    _, alone = make_case("lstm")

    expected = [record for record in answers(among, records, []) if record.key == b"m6"]
    found = answers(alone, own, [])

    assert len(found) > 15
    assert found == expected


def replaced(raw: RawRecord, **fields: Any) -> RawRecord:
    """A reading with other fields; what is not JSON stays as it is."""
    try:
        body = json.loads(raw.value or b"")
    except json.JSONDecodeError:
        return raw
    return RawRecord(
        raw.topic, raw.partition, raw.offset, raw.timestamp, raw.key, json.dumps({**body, **fields}).encode()
    )


def source_offset(record: OutRecord) -> int:
    """Offset of the reading that a record answers."""
    if record.topic == "forecasts":
        return decode_forecast(record.value or b"").source.offset
    return int(headers_of(record)["source.offset"])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["gru", "covariates and known ahead", "groups", "withheld"])
def test_partitions_stepped_together_answer_by_the_same_bytes_and_remember_the_same(kind: str, seed: int) -> None:
    """Who shares a wave, and whose readings are refused in it, shows neither in answers nor in what is remembered."""
    rng = np.random.default_rng([seed, 21])
    beside = kind == "covariates and known ahead"
    publishing = {"when": "change"} if kind == "withheld" else None
    pipelines = make_pipelines("lstm")
    pipeline, _ = make_case("gru", covariates=beside, known_ahead=beside, publishing=publishing)

    def make() -> PartitionTask:
        if kind == "groups":
            return make_grouped("lstm", pipelines=pipelines)
        return make_case("gru", covariates=beside, known_ahead=beside, pipeline=pipeline)[1]

    partitions = [
        make_messy_records(np.random.default_rng([seed, place]), readings=int(rng.integers(6, 24)))
        for place in range(int(rng.integers(3, 6)))
    ]
    alone, together = [make() for _ in partitions], [make() for _ in partitions]
    expected: list[list[OutRecord]] = [[] for _ in partitions]
    found: list[list[OutRecord]] = [[] for _ in partitions]
    waiting = [list(records) for records in partitions]
    waves: Counter[str] = Counter()
    while any(waiting):
        chosen = [place for place in rng.permutation(len(waiting)) if waiting[place] and rng.random() < 0.8]
        received = []
        for place in chosen:
            size = int(rng.integers(1, 40))
            part, waiting[place] = waiting[place][:size], waiting[place][size:]
            result = process(alone[place], part)
            expected[place].extend(result.records)
            waves["alone"] += len(result.waves)
            received.append((together[place], together[place].receive(part, ManualClock())))
        flush_together(received, ManualClock())
        for place, (_, result) in zip(chosen, received, strict=True):
            found[place].extend(result.records)
            waves["together"] += len(result.waves)

    assert found == expected
    assert waves["together"] < 0.8 * waves["alone"]
    for one, other in zip(alone, together, strict=True):
        rows = one.table.occupied()
        assert list(one.table) == list(other.table)
        for name, column in one.table.arrays.items():
            assert column[rows].tobytes() == other.table.arrays[name][rows].tobytes(), name


def test_a_partition_with_a_former_champion_and_one_without_are_not_stepped_as_one() -> None:
    """One has passed the boundary at which it joins, the other has not."""
    records = make_messy_records(np.random.default_rng(4), readings=12)
    pipeline = make_pipeline(keeps_former=True)
    alone = make_recurrent(pipeline, seed=1, model=1)
    beside = make_recurrent(pipeline, seed=1, model=2, former=make_recurrent(pipeline, seed=2, model=3))

    def make_tasks() -> list[PartitionTask]:
        return [make_task(pipeline, recurrent=network, boundary_records=10_000) for network in (alone, beside)]

    expected = [process(task, records).records for task in make_tasks()]
    received = [(task, task.receive(records, ManualClock())) for task in make_tasks()]
    flush_together(received, ManualClock())

    assert [result.records for _, result in received] == expected
    assert expected[0] != expected[1]
