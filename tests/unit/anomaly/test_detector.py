"""Anomalies as the pipeline finds them: properties that hold for every stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from factories import START, make_pipeline, make_table, make_wave

from forecaster.anomaly.detector import AnomalyRules, Cause, Direction, direction
from forecaster.anomaly.episodes import EpisodeRules

RULES = AnomalyRules(flat_readings=40, gap_steps=10)
Found = tuple[int, str, str]
"""Reading, ``raised`` or ``cleared``, cause."""


def play(series: np.ndarray, *, rules: AnomalyRules = RULES, times: np.ndarray | None = None) -> list[list[Found]]:
    """What is found in streams played side by side, ``[n, S]``, one wave a reading; without a network."""
    pipeline = make_pipeline(anomalies=rules, horizon=2, ring_steps=32, declared_season=12)
    table = make_table(pipeline, series.shape[1])
    slots = list(range(1, series.shape[1] + 1))
    found: list[list[Found]] = [[] for _ in slots]
    for row, values in enumerate(series):
        time = START + (row if times is None else times[row])
        result = pipeline.step(table.arrays, make_wave(slots, [time] * len(slots), values.tolist()), None)
        verdicts = result.answers.verdicts
        assert verdicts is not None
        assert not np.isnan(verdicts.score).any()
        for stream in np.flatnonzero(verdicts.raised | verdicts.cleared):
            state = "raised" if verdicts.raised[stream] else "cleared"
            found[stream].append((row, state, Cause(verdicts.cause[stream]).name.lower()))
    return found


def season(rows: int, *, seed: int = 0, noise: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 20.0 + 5.0 * np.sin(2 * np.pi * np.arange(rows) / 12) + noise * rng.standard_normal(rows)


def with_spike(at: int = 220, size: float = 60.0) -> np.ndarray:
    values = season(320)
    values[at] += size
    return values


def test_a_spike_is_raised_at_its_reading_and_cleared_when_it_is_over():
    [found] = play(with_spike()[:, None])

    assert found == [(220, "raised", "extreme"), (found[1][0], "cleared", "extreme")]
    assert 220 + RULES.episodes.clear_after <= found[1][0] < 250


def test_a_dip_and_a_lasting_shift_are_raised_too():
    shifted = season(320)
    shifted[220:] -= 30.0

    for series in (with_spike(size=-60.0), shifted):
        [found] = play(series[:, None])
        assert found[0][:2] == (220, "raised")


def test_a_sensor_that_stops_moving_is_stuck_and_one_that_stops_talking_is_silent():
    stuck = season(320)
    stuck[217:] = stuck[216] = 20.0
    silent = season(320)
    silent[220:235] = np.nan

    [[first, *_]] = play(stuck[:, None])
    [[gap, *_]] = play(silent[:, None])

    assert first == (216 + RULES.flat_readings - 1, "raised", "flat")
    assert gap == (220 + RULES.gap_steps - 1, "raised", "gap")


def test_readings_that_never_came_are_a_silence_at_the_next_one():
    times = np.arange(320.0)
    times[220:] += 30.0

    [found] = play(season(320)[:, None], times=times)

    assert (220, "raised", "gap") in found


@pytest.mark.parametrize("value", [0.0, 7.25, -1e9])
def test_a_constant_stream_is_never_anomalous(value):
    assert play(np.full((600, 1), value)) == [[]]


def test_a_constant_stream_that_moves_now_and_then_is_told_of_at_its_moves_alone():
    values = np.full(1_000, 5.0)
    moves = range(220, 1_000, 97)
    values[list(moves)] = 6.0

    [found] = play(values[:, None])

    raised = [row for row, state, _ in found if state == "raised"]
    assert raised[0] == 220
    assert set(raised) <= set(moves)


@pytest.mark.parametrize(
    "change", [lambda x: 1e6 * x, lambda x: 1e-6 * x, lambda x: x + 1e4], ids=["times 1e6", "times 1e-6", "plus 1e4"]
)
def test_units_and_a_shift_change_nothing(change: Callable[[np.ndarray], np.ndarray]):
    values = np.stack([with_spike(220), with_spike(180, -25.0), season(320, seed=3)], axis=1)
    values[250:, 2] = values[250, 2]

    assert play(change(values)) == play(values)
    assert [bool(found) for found in play(values)] == [True, True, True]


def test_on_stationary_noise_alarms_are_about_as_rare_as_the_risk():
    """A hundred streams of noise with nothing wrong, while they are young and their ranges still grow most."""
    noise = np.random.default_rng(11).standard_normal((1_000, 100))

    raised = sum(state == "raised" for found in play(noise) for _, state, _ in found)

    assert raised / noise.size < 2 * RULES.risk


def test_a_stream_is_judged_the_same_alone_and_among_others():
    values = np.stack([season(260, seed=k) for k in range(20)], axis=1)
    values[[150, 180, 220], [3, 9, 17]] += 50.0

    together = play(values)

    for k in (0, 3, 9, 17):
        assert play(values[:, k : k + 1]) == [together[k]]


def test_an_anomaly_does_not_blunt_the_detector_for_the_next():
    values = season(440)
    values[150] += 60.0
    values[420] += 61.0 + 30.0

    [found] = play(values[:, None])

    assert [row for row, state, _ in found if state == "raised"] == [150, 420]


def test_what_deviates_by_less_than_asked_is_no_anomaly():
    for least in ({"min_deviation": 70.0}, {"min_relative_deviation": 5.0}):
        assert play(with_spike()[:, None], rules=AnomalyRules(**least)) == [[]]


def test_an_anomaly_that_has_to_last_does_not_begin_with_a_single_reading():
    rules = AnomalyRules(episodes=EpisodeRules(min_readings=2))

    assert play(with_spike()[:, None], rules=rules) == [[]]


def test_a_wild_reading_leaves_the_level_about_where_it_was_and_a_shift_takes_it_along():
    pipeline = make_pipeline(declared_season=0)
    levels: dict[str, Any] = {}
    for name, wild in (("calm", ()), ("wild", (120,)), ("shift", tuple(range(120, 220)))):
        table = make_table(pipeline, 1)
        values = season(220, noise=0.1)
        values[list(wild)] += 1e6
        for row, value in enumerate(values):
            pipeline.step(table.arrays, make_wave([1], [START + row], [float(value)]), None)
            if row == 120:
                levels[name] = float(table.arrays["level"][1])
        levels[f"{name}, later"] = float(table.arrays["level"][1])

    scale = 5.0
    assert abs(levels["wild"] - levels["calm"]) < scale
    assert levels["shift, later"] > 0.8e6


def test_with_one_level_there_are_no_intervals_to_be_outside_of_and_still_silences():
    pipeline = make_pipeline(quantile_levels=(0.5,), anomalies=RULES, horizon=2, ring_steps=32)
    table = make_table(pipeline, 1)
    values = season(320)
    values[217:] = values[216]
    causes = set()
    for row, value in enumerate(values):
        verdicts = pipeline.step(table.arrays, make_wave([1], [START + row], [float(value)]), None).answers.verdicts
        assert verdicts is not None
        causes |= {Cause(verdicts.cause[0])} if verdicts.raised[0] else set()

    assert Cause.FLAT in causes


def test_directions_are_said_in_words():
    assert direction(Cause.EXTREME, is_above=True) is Direction.UP
    assert direction(Cause.SURPRISE, is_above=False) is Direction.DOWN
    assert direction(Cause.FLAT, is_above=False) is Direction.FLAT
    assert direction(Cause.GAP, is_above=True) is Direction.GAP
    assert json.dumps(Direction.UP) == '"up"'
