import math

import numpy as np
import pytest

from forecaster.simulation.processes import (
    DAY,
    HOUR,
    Episodes,
    HeartRate,
    MachineTemperature,
    MachineVibration,
    Process,
    RequestRate,
    ServerCpu,
    ServerLatency,
    Wander,
    server_processes,
)

MONDAY = 1_767_571_200.0  # 2026-01-05T00:00:00Z
PROCESSES = [HeartRate, MachineTemperature, MachineVibration, RequestRate, ServerLatency, ServerCpu]


def make_rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def run(process: Process, days: float, step_seconds: float = 30.0, start: float = MONDAY) -> np.ndarray:
    return np.array([process.step(start + n * step_seconds) for n in range(int(days * DAY / step_seconds))])


@pytest.mark.parametrize("process", PROCESSES)
def test_same_seed_gives_the_same_values_and_another_seed_others(process: type[Process]) -> None:
    values = [run(process(make_rng(seed)), 0.05) for seed in (7, 7, 8)]  # type: ignore[call-arg]

    np.testing.assert_array_equal(values[0], values[1])
    assert not np.array_equal(values[0], values[2])


@pytest.mark.parametrize(
    ("process", "lowest", "highest"),
    [
        (HeartRate, 32, 215),
        (MachineTemperature, 20, 110),
        (MachineVibration, 0.05, 30),
        (RequestRate, 0, 10_000),
        (ServerLatency, 1, 10_000),
        (ServerCpu, 0.5, 100),
    ],
)
def test_values_stay_within_what_the_thing_can_do(process: type[Process], lowest: float, highest: float) -> None:
    values = np.concatenate([run(process(make_rng(seed)), 3, 120) for seed in range(5)])  # type: ignore[call-arg]

    assert np.nanmin(values) >= lowest
    assert np.nanmax(values) <= highest


@pytest.mark.parametrize("process", PROCESSES)
def test_neighbouring_values_resemble_each_other(process: type[Process]) -> None:
    values = run(process(make_rng()), 2)  # type: ignore[call-arg]
    values = values[~np.isnan(values)]

    steps = np.diff(values)

    assert np.std(steps) < 0.5 * np.std(values)
    assert np.count_nonzero(steps) > len(steps) / 4


def test_heart_beats_slower_at_night_than_by_day() -> None:
    slower = 0
    for seed in range(10):
        values = run(HeartRate(make_rng(seed)), 2)
        hours = np.arange(len(values)) * 30.0 / HOUR % 24
        night, day = np.nanmedian(values[(hours > 2) & (hours < 5)]), np.nanmedian(values[(hours > 10) & (hours < 20)])
        slower += night + 5 < day

    assert slower == 10


def test_heart_rate_recovers_gradually_after_exercise() -> None:
    values = run(HeartRate(make_rng(3)), 10, 5.0)
    peak = int(np.nanargmax(values))

    exercise = values[peak : peak + 720]  # an hour, longer than exercise lasts
    end = int(np.flatnonzero(exercise > 120)[-1])
    recovery = exercise[end + 1 :]

    assert np.nanmin(recovery[:6]) > 95  # half a minute later the heart still beats fast
    assert np.nanmin(recovery[:120]) < 95  # ten minutes later it does not


def test_sensor_comes_loose_now_and_then_for_a_while() -> None:
    is_missing = np.isnan(run(HeartRate(make_rng()), 5, 5.0))

    starts = np.count_nonzero(np.diff(is_missing.astype(int)) == 1)

    assert 10 <= starts <= 60  # one in four hours over five days: 30 expected
    assert 2 <= is_missing.sum() / starts <= 25  # lasting 10 s to 2 min


def test_request_rate_is_higher_at_its_peak_hour_and_on_working_days() -> None:
    values = np.mean([run(RequestRate(make_rng(seed)), 14, 300) for seed in range(10)], axis=0)
    per_day = values.reshape(14, -1)

    weekdays, weekend = per_day[[0, 1, 2, 3, 4, 7, 8, 9, 10, 11]].mean(), per_day[[5, 6, 12, 13]].mean()
    by_hour = per_day.mean(axis=0).reshape(24, -1).mean(axis=1)

    assert weekdays > 1.15 * weekend
    assert by_hour[14:20].mean() > 1.5 * by_hour[2:8].mean()


def test_vibration_falls_silent_outside_the_shifts() -> None:
    values = run(MachineVibration(make_rng()), 1, 60)

    assert values[: 4 * 60].max() < 1.0 < np.median(values[8 * 60 : 20 * 60])


def test_metrics_of_one_server_follow_one_load() -> None:
    metrics = {name: run(process, 7, 60) for name, process in server_processes(make_rng()).items()}

    assert set(metrics) == {"requests", "latency", "cpu"}
    assert np.corrcoef(metrics["requests"], metrics["cpu"])[0, 1] > 0.9


def test_wander_has_the_spread_and_the_memory_it_was_given() -> None:
    wander = Wander(make_rng(), deviation=2.0, relaxation_seconds=100.0)

    values = np.array([wander.step(10.0) for _ in range(100_000)])

    assert np.std(values) == pytest.approx(2.0, rel=0.05)
    assert np.corrcoef(values[:-1], values[1:])[0, 1] == pytest.approx(math.exp(-0.1), abs=0.01)


def test_wander_does_not_depend_on_how_finely_it_is_stepped() -> None:
    coarse = Wander(make_rng(1), deviation=1.0, relaxation_seconds=50.0)
    fine = Wander(make_rng(2), deviation=1.0, relaxation_seconds=50.0)

    a = np.array([coarse.step(100.0) for _ in range(20_000)])
    b = np.array([[fine.step(10.0) for _ in range(10)][-1] for _ in range(20_000)])

    assert np.std(a) == pytest.approx(np.std(b), rel=0.03)


def test_episodes_begin_as_often_and_last_as_long_as_they_should() -> None:
    episodes = Episodes(make_rng(), per_hour=2.0, seconds=(60, 120), strength=(3, 5))

    values = np.array([episodes.step(10.0) for _ in range(200_000)])

    starts = np.count_nonzero((values[1:] > 0) & (values[:-1] == 0))
    hours_at_rest = np.count_nonzero(values == 0) * 10 / HOUR
    assert starts / hours_at_rest == pytest.approx(2.0, rel=0.1)
    assert np.count_nonzero(values) * 10 / starts == pytest.approx(95, abs=5)
    assert values[values > 0].min() >= 3
    assert values.max() <= 5


def test_episodes_never_begin_without_readiness() -> None:
    episodes = Episodes(make_rng(), per_hour=1000.0, seconds=(60, 120), strength=(3, 5))

    assert not any(episodes.step(10.0, readiness=0.0) for _ in range(1_000))
