"""Two networks side by side: the score is that of two runs, and the answers are those of one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from factories import forecasts_of, make_messy_records, make_pipeline, make_raw, make_recurrent, make_task, process

from forecaster.codecs.forecast_json import decode_forecast
from forecaster.codecs.timestamps import parse_time
from forecaster.engine import side_by_side
from forecaster.engine.side_by_side import SideBySide
from forecaster.engine.task import PartitionTask
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.decisions import LiveScore, Trial
from forecaster.records import RawRecord
from forecaster.series.groups import DEFAULT, GroupRule, GroupRules

BOUNDARY = 64
PIPELINE = make_pipeline()
SERVING = make_recurrent(PIPELINE, seed=1, model=1)
OTHER = make_recurrent(PIPELINE, seed=2, model=2, season=6)


def seen(task: PartitionTask) -> LiveScore | None:
    """What was seen of the trial so far, `None` where there is none."""
    return next(iter(task.live_scores()), None)


def trial_of(beside: RecurrentExpert, serving: RecurrentExpert = SERVING, number: int = 7) -> Trial:
    return Trial(number=number, kind="shadow", serving=serving.version, beside=beside.version, steps=100, began=0.0)


def make(recurrent: RecurrentExpert | None = SERVING, **rules: Any) -> PartitionTask:
    return make_task(PIPELINE, recurrent=recurrent, **{"boundary_records": BOUNDARY, **rules})


def tried(task: PartitionTask, beside: RecurrentExpert = OTHER) -> PartitionTask:
    task.try_out((trial_of(beside), beside))
    return task


def tidy(streams: int = 5, readings: int = 100) -> list[RawRecord]:
    """Streams without accidents, one reading of each a second."""
    rng = np.random.default_rng(3)
    walks = rng.normal(size=(readings, streams)).cumsum(axis=0)
    return [
        make_raw(t * streams + k, f"s{k}", 1_767_225_600.0 + t, round(float(walks[t, k]), 4))
        for t in range(readings)
        for k in range(streams)
    ]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("streams", [3, 1_000])
def test_no_answer_depends_on_a_trial(seed: int, streams: int) -> None:
    records = make_messy_records(np.random.default_rng(seed), streams=30, readings=30)
    undisturbed, under_trial = make(), tried(make(trial_streams=streams))

    expected = process(undisturbed, records).records
    found = process(under_trial, records).records

    score = seen(under_trial)
    assert score is not None
    assert score.targets > 100
    assert found == expected
    for name, array in undisturbed.table.arrays.items():  # but the scratch row, that waves are filled up with
        assert under_trial.table.arrays[name][1:].tobytes() == array[1:].tobytes(), name


def test_the_score_is_that_of_a_run_in_which_the_other_network_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked against the forecasts of two whole runs, read back from their records; in the streams' own units."""
    monkeypatch.setattr(SideBySide, "_serving_scale", lambda self, slots: np.ones(len(slots)))
    monkeypatch.setattr(side_by_side, "_MOST", np.inf)
    records = tidy()
    task, other = tried(make()), make()
    begin = BOUNDARY  # where the trial begins, and where in the other run the other network takes over
    other.schedule(OTHER)

    made = [process(run, records).records for run in (task, other)]

    score = seen(task)
    assert score is not None
    losses = [_losses(records, run, begin) for run in made]
    assert score.steps == len({key[:2] for key in losses[0]})
    assert score.targets == len(losses[0])
    assert score.serving_loss == pytest.approx(sum(losses[0].values()), rel=1e-5)
    assert score.beside_loss == pytest.approx(sum(losses[1].values()), rel=1e-5)
    assert score.serving_loss != pytest.approx(score.beside_loss, rel=1e-3)


def _losses(records: list[RawRecord], answers: Any, begin: int) -> dict[Any, float]:
    """Mean pinball of each forecast made at or after ``begin`` whose target came, by stream, target and lead."""
    values: dict[tuple[str, int], float] = {}
    for record in records:
        assert record.value is not None
        body = json.loads(record.value)
        values[(body["stream_id"], round(body["timestamp"]))] = body["value"]
    found = {}
    for value in forecasts_of(answers):
        forecast = decode_forecast(value)
        if forecast.source.offset < begin:
            continue
        for lead in PIPELINE.leads:
            key = forecast.stream_id, round(parse_time(forecast.origin)) + lead
            if key in values:
                errors = [values[key] - q for q in forecast.quantiles[lead - 1]]
                pinball = [max(p * e, (p - 1) * e) for p, e in zip(PIPELINE.quantile_levels, errors, strict=True)]
                found[(*key, lead)] = float(np.mean(pinball))
    return found


def test_the_network_against_itself_makes_no_difference() -> None:
    twin = make_recurrent(PIPELINE, seed=1, model=1)  # of the same number: its hidden states need no rebuilding
    task = tried(make(), twin)

    process(task, tidy())

    score = seen(task)
    assert score is not None
    assert score.blocks >= 2
    assert score.serving_loss == score.beside_loss > 0
    assert (score.difference, score.difference_squares) == (0.0, 0.0)


def test_blocks_add_up_to_the_whole_and_are_at_least_two_horizons_long() -> None:
    task = tried(make(boundary_records=10))

    process(task, tidy(streams=5, readings=400))

    score = seen(task)
    assert score is not None
    mean = (score.serving_loss - score.beside_loss) / score.targets
    assert score.blocks > 20
    assert score.steps / score.streams / score.blocks >= 2 * PIPELINE.horizon
    assert score.difference / score.blocks == pytest.approx(mean, rel=0.1)


def test_a_trial_waits_for_its_serving_network_and_ends_with_it() -> None:
    records = tidy(readings=200)
    task = tried(make(recurrent=OTHER), SERVING)  # the trial's champion is not the one that serves yet
    task.try_out((trial_of(beside=OTHER, serving=SERVING), OTHER))

    process(task, records[:200])
    before = seen(task)
    task.schedule(SERVING)
    process(task, records[200:600])
    during = seen(task)
    task.schedule(OTHER)
    process(task, records[600:800])

    assert before is None
    assert during is not None
    assert during.targets > 0
    assert seen(task) is None


def test_another_trial_begins_its_score_anew_and_none_ends_it() -> None:
    task = tried(make())
    process(task, tidy()[:200])
    first = seen(task)
    third = make_recurrent(PIPELINE, seed=5, model=5)

    task.try_out((trial_of(third, number=8), third))
    between = seen(task)
    process(task, tidy()[200:400])
    second = seen(task)
    task.try_out(None)

    assert first is not None
    assert between is None
    assert second is not None
    assert (first.trial, second.trial) == (7, 8)
    assert seen(task) is None


def test_only_so_many_streams_are_stepped_twice() -> None:
    task = tried(make(trial_streams=2))

    process(task, tidy(streams=5))

    score = seen(task)
    assert score is not None
    assert score.streams == 2
    assert score.steps <= 2 * 100


def test_a_stream_that_is_forgotten_is_not_mistaken_for_the_one_that_gets_its_row() -> None:
    task = tried(make(recurrent=SERVING))
    records = tidy(streams=2, readings=100)
    process(task, records)
    side = task._sides[DEFAULT]
    before = side.score()

    tombstone = RawRecord("readings", 0, 200, -1.0, b"s0", None)
    newcomer = [make_raw(201 + k, "new", 1_767_300_000.0 + k, 5.0) for k in range(30)]
    process(task, [tombstone, *newcomer])

    assert task.table.find("new") == 1
    assert side.score().targets == before.targets


def test_groups_are_tried_out_side_by_side_each_on_its_own_streams() -> None:
    """The score of a group is that of a task that has only the group's streams."""
    groups = GroupRules([GroupRule("odd", ("s[13]",))])
    records = tidy(streams=5)
    own = [raw for raw in records if raw.key in (b"s1", b"s3")]
    grouped = make_task(PIPELINE, networks={DEFAULT: OTHER, "odd": SERVING}, groups=groups, boundary_records=BOUNDARY)
    alone = tried(make())
    grouped.try_out((trial_of(OTHER), OTHER), group="odd")
    grouped.try_out((trial_of(SERVING, OTHER, 8), SERVING))

    process(grouped, records)
    process(alone, own)

    scores = {score.trial: score for score in grouped.live_scores()}
    expected = seen(alone)
    assert expected is not None
    assert {trial: score.streams for trial, score in scores.items()} == {7: 2, 8: 3}
    assert scores[7].serving_loss == expected.serving_loss
    assert scores[7].beside_loss == expected.beside_loss
