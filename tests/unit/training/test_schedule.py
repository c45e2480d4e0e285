import math

import pytest

from forecaster.training.drift import Adwin, DriftTrigger
from forecaster.training.schedule import TrainingSchedule


def make_schedule():
    return TrainingSchedule(every_seconds=3_600.0, min_wall_seconds=60.0, min_readings=500)


def trained(schedule, *, watermark, now):
    schedule.started(watermark)
    schedule.ended(now)
    return schedule


@pytest.mark.parametrize(("readings", "due"), [(0, False), (499, False), (500, True)])
def test_the_first_training_is_due_as_soon_as_there_are_enough_readings(readings, due):
    assert make_schedule().is_due(readings=readings, watermark=0.0, now=0.0) is due


def test_nothing_is_due_before_the_first_event_time():
    assert not make_schedule().is_due(readings=500, watermark=-math.inf, now=0.0)


@pytest.mark.parametrize(("watermark", "due"), [(13_599.0, False), (13_600.0, True)])
def test_the_next_is_due_by_event_time(watermark, due):
    schedule = trained(make_schedule(), watermark=10_000.0, now=5.0)

    assert schedule.is_due(readings=500, watermark=watermark, now=1e6) is due


@pytest.mark.parametrize(("now", "due"), [(64.0, False), (65.0, True)])
def test_a_replay_of_years_in_minutes_does_not_train_all_the_time(now, due):
    schedule = trained(make_schedule(), watermark=0.0, now=5.0)

    assert schedule.is_due(readings=500, watermark=1e9, now=now) is due


def test_a_training_that_was_asked_for_waits_for_the_wall_clock_alone_and_is_done_once():
    schedule = trained(make_schedule(), watermark=10_000.0, now=5.0)
    schedule.ask()

    assert not schedule.is_due(readings=500, watermark=10_001.0, now=64.0)
    assert schedule.is_due(readings=500, watermark=10_001.0, now=65.0)
    schedule = trained(schedule, watermark=10_001.0, now=70.0)
    assert not schedule.is_due(readings=500, watermark=10_002.0, now=1e6)


def with_drift(**overrides):
    drift = DriftTrigger([Adwin()], pause_seconds=1e6)
    return TrainingSchedule(
        every_seconds=1e9, min_wall_seconds=0.0, min_readings=0, drift=drift, drift_span_seconds=60.0, **overrides
    )


def asked_at(schedule, loss_of, *, turns=3_000):
    """Turns of ten seconds with forty settled forecasts each; those at which a training was asked for."""
    return [k for k in range(turns) if schedule.observe(40 * loss_of(k), 40.0, 10.0 * k)]


def test_a_loss_that_rises_for_good_asks_for_one_training():
    schedule = trained(with_drift(), watermark=0.0, now=0.0)

    (noticed,) = asked_at(schedule, lambda k: 0.3 if k < 2_000 else 1.2)

    assert 2_000 < noticed < 2_600
    assert schedule.is_due(readings=1, watermark=30_000.0, now=1.0)
    assert schedule.is_after_drift


def test_only_the_first_training_after_drift_is_told_of_it():
    schedule = with_drift()
    assert not schedule.is_after_drift
    asked_at(schedule, lambda k: 0.3 if k < 2_000 else 1.2)
    schedule.ask()  # by a person meanwhile: the drift is as true as before
    assert schedule.is_after_drift

    schedule.started(30_000.0)
    assert not schedule.is_after_drift
    schedule.ask()
    assert not schedule.is_after_drift


def test_losses_of_one_turn_are_averaged_before_they_are_judged():
    """Every other turn is ten times worse, and every span of seven turns much like the one before."""
    assert asked_at(with_drift(), lambda k: 0.2 if k % 2 else 2.0) == []


def test_it_tells_where_its_detectors_stand():
    schedule = with_drift()
    asked_at(schedule, lambda k: 0.25, turns=73)  # ten spans of seven turns, and a part of another

    assert schedule.drift().window_width == 10
    assert schedule.drift().window_mean == pytest.approx(0.2)
    assert make_schedule().drift() is None


def test_without_a_detector_or_settled_forecasts_nothing_is_asked():
    assert asked_at(make_schedule(), lambda k: float(k)) == []
    assert not any(with_drift().observe(0.0, 0.0, 10.0 * k) for k in range(100))
