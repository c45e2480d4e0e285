import numpy as np
import pytest

from forecaster.training.cleaning import Cleaning, clean, fill_missing, treat_outliers

NAN = np.nan


def wave(ticks=300, seed=0):
    rng = np.random.default_rng(seed)
    return np.sin(np.arange(ticks) / 8) + 0.1 * rng.normal(size=ticks)


def reference_hampel(values, threshold, window):
    """The rule as written down, one value at a time."""
    found = []
    for at in range(len(values)):
        past = [v for v in values[:at] if not np.isnan(v)][-window:]
        if np.isnan(values[at]) or len(past) < 8:
            continue
        middle = np.median(past)
        mad = np.median([abs(v - middle) for v in past])
        if mad > 0 and abs(values[at] - middle) > threshold * 1.4826 * mad:
            found.append(at)
    return found


@pytest.mark.parametrize("window", [12, 48, 1_000])
def test_hampel_masks_exactly_what_the_rule_written_out_finds(window):
    values = wave()
    values[[40, 150, 290]] += [9.0, -9.0, 9.0]
    values[[20, 21, 200]] = NAN

    masked = treat_outliers(values, Cleaning(outliers="hampel", treatment="mask", threshold=4.0, window=window))

    found = np.flatnonzero(np.isnan(masked) & ~np.isnan(values)).tolist()
    assert found == reference_hampel(values, 4.0, window)
    assert {40, 150, 290} <= set(found)


def test_z_score_bounds_are_mean_and_deviation_of_the_values_before():
    values = wave()
    values[100] += 50.0

    capped = treat_outliers(values, Cleaning(outliers="z_score", threshold=3.0, window=30))

    past = values[70:100]
    assert capped[100] == pytest.approx(past.mean() + 3.0 * past.std())


def test_declared_range_caps_or_masks():
    values = np.array([1.0, -5.0, 9.0, NAN])

    capped = treat_outliers(values, Cleaning(outliers="range", minimum=0.0, maximum=5.0))
    masked = treat_outliers(values, Cleaning(outliers="range", treatment="mask", minimum=0.0, maximum=5.0))

    np.testing.assert_array_equal(capped, [1.0, 0.0, 5.0, NAN])
    np.testing.assert_array_equal(masked, [1.0, NAN, NAN, NAN])


@pytest.mark.parametrize("outliers", ["hampel", "z_score", "range"])
def test_no_value_is_judged_by_what_comes_after_it(outliers):
    rules = Cleaning(outliers=outliers, threshold=2.0, window=20, maximum=0.5)
    values = wave()
    changed = np.where(np.arange(300) < 200, values, 40.0 * values)

    np.testing.assert_array_equal(treat_outliers(values, rules)[:200], treat_outliers(changed, rules)[:200])


def test_a_past_at_rest_makes_no_outlier_of_the_first_move():
    values = np.concatenate((np.full(100, 5.0), [9.0]))

    assert treat_outliers(values, Cleaning(outliers="hampel"))[-1] == 9.0


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("drop", [NAN, 1, NAN, 3, NAN, NAN, NAN, NAN, 8, NAN]),
        ("last", [NAN, 1, 1, 3, NAN, NAN, NAN, NAN, 8, 8]),
        ("interpolate", [NAN, 1, 2, 3, NAN, NAN, NAN, NAN, 8, NAN]),
    ],
)
def test_gaps_up_to_the_limit_are_filled_and_longer_ones_are_not(missing, expected):
    values = np.array([NAN, 1, NAN, 3, NAN, NAN, NAN, NAN, 8, NAN])

    np.testing.assert_array_equal(fill_missing(values, Cleaning(missing=missing, fill_steps=3)), expected)


def test_interpolation_never_reaches_past_the_training_part_a_jump_or_into_another_stream():
    values = np.array([1.0, NAN, 3.0, NAN, 5.0, 6.0, NAN, 8.0])
    starts = np.array([0, 5, 8])  # two streams
    rows = np.array([1, 1, 1, 1, 0, 1, 1, 1], bool)  # the value 5 is no training row
    segment_end = np.array([5, 5, 5, 5, 5, 7, 7, 8])  # the clock jumps before the last row

    cleaned = clean(values, starts, rows, segment_end, Cleaning(missing="interpolate"))

    np.testing.assert_array_equal(cleaned, [1.0, 2.0, 3.0, NAN, 5.0, 6.0, NAN, 8.0])


def test_nothing_is_done_by_default():
    values = wave()
    values[[3, 50]] = [NAN, 1e6]

    cleaned = clean(values, np.array([0, 300]), np.ones(300, bool), np.full(300, 300), Cleaning())

    np.testing.assert_array_equal(cleaned, values)


def test_model_fills_a_gap_about_the_seasonal_profile_where_a_straight_line_would_cut_it_off():
    season = np.array([0.0, 0.0, 8.0, 0.0])
    values = np.tile(season, 10) + np.arange(40) // 4  # a peak at every third place, and a slow rise
    known = values.copy()
    values[[21, 22, 23]] = NAN
    rows, starts, ends = np.ones(40, bool), np.array([0, 40]), np.full(40, 40)

    filled, line = (
        clean(values, starts, rows, ends, Cleaning(missing=how), phase=np.arange(40) % 4)
        for how in ("model", "interpolate")
    )

    assert filled[22] == pytest.approx(known[22], abs=1.0)
    assert line[22] < 7.0
    np.testing.assert_array_equal(filled[~np.isnan(values)], values[~np.isnan(values)])


def test_profile_is_of_the_rows_that_may_be_seen_alone_and_of_each_stream_alone():
    values = np.concatenate([np.tile([1.0, 5.0], 10), np.tile([-100.0, 300.0], 10)])
    values[[11, 25]] = NAN
    rows = np.ones(40, bool)
    rows[15:20] = False
    hidden = values.copy()
    hidden[15:20] = 1e6
    terms = (np.array([0, 20, 40]), rows, np.repeat([20, 40], 20), Cleaning(missing="model"))

    filled, other = (clean(known, *terms, phase=np.arange(40) % 2) for known in (values, hidden))

    assert (filled[11], filled[25]) == (pytest.approx(5.0), pytest.approx(300.0))
    np.testing.assert_array_equal(filled[:15], other[:15])


def test_model_without_a_season_interpolates():
    values = np.array([1.0, NAN, 3.0, 4.0])
    terms = (np.array([0, 4]), np.ones(4, bool), np.full(4, 4), Cleaning(missing="model"))

    assert clean(values, *terms, phase=np.full(4, -1)).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert clean(values, *terms).tolist() == [1.0, 2.0, 3.0, 4.0]


def test_phase_that_was_never_observed_is_not_filled():
    values = np.array([1.0, NAN, 2.0, NAN, 3.0, NAN, 4.0])
    phase = np.array([0, 1, 0, 1, 0, 1, 0])

    cleaned = clean(values, np.array([0, 7]), np.ones(7, bool), np.full(7, 7), Cleaning(missing="model"), phase=phase)

    np.testing.assert_array_equal(cleaned, values)


def flagged_at(rows, *places):
    marks = np.zeros(rows, bool)
    marks[list(places)] = True
    return marks


def test_flagged_value_moves_to_the_bound_of_the_values_before_it_that_were_not_flagged():
    values = np.array([0.0, 2.0] * 10 + [50.0, 60.0, 1.0, -40.0])
    rules = Cleaning(anomalies="cap", threshold=3.0, window=10)

    treated = treat_outliers(values, rules, flagged_at(len(values), 20, 21, 23))

    reach = 3.0 * 1.4826  # ten values 0 and 2: median 1, each 1 away from it
    assert treated[:20].tolist() == values[:20].tolist()
    assert treated[20:22] == pytest.approx([1.0 + reach] * 2)
    assert treated[22] == 1.0
    window = np.append(values[11:20], 1.0)  # of the last ten that were not flagged, one is the 1
    middle = np.median(window)
    assert treated[23] == pytest.approx(middle - 3.0 * 1.4826 * np.median(np.abs(window - middle)))


def test_flagged_values_that_are_ordinary_stay_and_so_does_what_comes_too_early_or_after_a_rest():
    ordinary = np.array([0.0, 2.0] * 10)
    rules = Cleaning(anomalies="cap")

    assert treat_outliers(ordinary, rules, flagged_at(20, 15)).tolist() == ordinary.tolist()
    early = np.array([0.0, 2.0, 0.0, 90.0])
    assert treat_outliers(early, rules, flagged_at(4, 3)).tolist() == early.tolist()
    at_rest = np.array([5.0] * 20 + [90.0])
    assert treat_outliers(at_rest, rules, flagged_at(21, 20)).tolist() == at_rest.tolist()


def test_flagged_values_are_masked_or_kept_as_is_said():
    values = np.array([0.0, 2.0] * 10 + [50.0])
    flagged = flagged_at(21, 3, 20)

    masked = treat_outliers(values, Cleaning(anomalies="mask"), flagged)

    assert np.flatnonzero(np.isnan(masked)).tolist() == [3, 20]
    assert treat_outliers(values, Cleaning(), flagged).tolist() == values.tolist()


def test_what_comes_after_a_flagged_value_does_not_change_it():
    rng = np.random.default_rng(0)
    values, rules = rng.normal(size=60), Cleaning(anomalies="cap", threshold=1.0)
    flagged = rng.random(60) < 0.2
    whole = treat_outliers(values, rules, flagged)

    assert (whole != values).any()
    for end in (20, 41, 59):
        assert treat_outliers(values[:end], rules, flagged[:end]).tolist() == whole[:end].tolist()
