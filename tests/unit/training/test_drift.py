"""False alarms here are counted on fixed seeds; see the test names for the numbers."""

import math

import numpy as np
import pytest

from forecaster.training.drift import Adwin, DriftTrigger, PageHinkley


def first_alarm(detector, values):
    return next((k for k, value in enumerate(values) if detector.update(float(value))), None)


def brute_force_first_rise(values, *, delta, every):
    """ADWIN with every value kept and every cut tried: no buckets, statistics straight from the window."""
    window = []
    for k, value in enumerate(values):
        window.append(value)
        if (k + 1) % every:
            continue
        has_risen, cut = False, True
        while cut:
            cut, x = False, np.array(window)
            n = len(x)
            for first in range(every, n - every + 1):
                old, new = x[:first].mean(), x[first:].mean()
                harmonic = 1 / (1 / first + 1 / (n - first))
                confidence = math.log(2 * math.log(n) / delta)
                bound = math.sqrt(2 / harmonic * x.var() * confidence) + 2 / (3 * harmonic) * confidence
                if abs(old - new) > bound:
                    has_risen, cut = has_risen or new > old, True
                    window = window[1:]
                    break
        if has_risen:
            return k
    return None


@pytest.mark.parametrize("seed", range(4))
def test_adwin_with_buckets_sees_a_rise_about_when_the_whole_window_shows_it(seed):
    rng = np.random.default_rng(seed)
    values = np.clip(np.concatenate((rng.normal(0.3, 0.1, 200), rng.normal(0.5, 0.1, 100))), 0, 1)

    found = first_alarm(Adwin(), values)
    exact = brute_force_first_rise(values, delta=0.002, every=8)

    assert exact is not None
    assert found is not None
    assert 200 <= exact <= found <= exact + 24


@pytest.mark.parametrize("kind", ["uniform", "rare"])
def test_adwin_is_silent_on_200_000_values_of_noise_that_never_changes(kind):
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        values = rng.random(5_000) if kind == "uniform" else (rng.random(5_000) < 0.05).astype(float)
        detector = Adwin()
        alarms += sum(detector.update(float(value)) for value in values)

    assert alarms <= 2  # 25,000 tests with a bound of 0.002 each would allow 50


def test_adwin_window_keeps_growing_while_nothing_changes_in_logarithmic_memory():
    rng, detector = np.random.default_rng(3), Adwin()
    for value in rng.random(20_000):
        detector.update(float(value))

    assert detector.width == 20_000
    assert detector.mean == pytest.approx(0.5, abs=0.01)
    assert detector.buckets <= 6 * math.log2(20_000)


def test_adwin_window_holds_mean_and_variance_of_what_it_kept():
    rng = np.random.default_rng(4)
    values, detector = np.concatenate((rng.normal(0.2, 0.05, 400), rng.normal(0.7, 0.05, 333))), Adwin()
    for value in values:
        detector.update(float(value))

    kept = values[len(values) - detector.width :]
    assert 200 < detector.width < 400
    assert detector.mean == pytest.approx(kept.mean())
    assert detector._spread == pytest.approx(kept.var() * len(kept), rel=0.02)


def test_adwin_says_nothing_about_a_fall_but_forgets_what_was_before_it():
    rng, detector = np.random.default_rng(5), Adwin()
    values = np.concatenate((rng.normal(0.7, 0.05, 400), rng.normal(0.3, 0.05, 400)))

    assert first_alarm(detector, values) is None
    assert detector.width < 500


def test_page_hinkley_follows_its_recurrence_on_a_series_worked_by_hand():
    """Means 0, 0, 1/3, 1/2; sums above the lowest 0, 0, 2/3, 7/6 without tolerance: the fourth value passes 1."""
    detector = PageHinkley(tolerance=0.0, threshold=1.0, least=1)

    assert [detector.update(value) for value in (0.0, 0.0, 1.0, 1.0)] == [False, False, False, True]


def test_page_hinkley_finds_a_rise_soon_and_lets_steady_noise_and_a_fall_pass():
    rng = np.random.default_rng(6)
    steady = rng.normal(0.4, 0.1, 2_000)

    assert first_alarm(PageHinkley(tolerance=0.05), steady) is None
    assert first_alarm(PageHinkley(tolerance=0.05), np.concatenate((steady, steady - 0.2))) is None
    risen = first_alarm(PageHinkley(tolerance=0.05), np.concatenate((steady, steady + 0.3)))
    assert risen is not None
    assert 2_000 <= risen < 2_050


def make_trigger(pause=100.0):
    return DriftTrigger([Adwin(), PageHinkley()], pause_seconds=pause)


def alarms_of(trigger, losses):
    return [k for k, loss in enumerate(losses) if trigger.update(loss, float(k))]


def test_trigger_is_silent_after_an_alarm_and_then_judges_by_what_came_after():
    losses = [0.3] * 200 + [1.5] * 400  # risen once: the second level is the new normal

    alarms = alarms_of(make_trigger(), losses)

    assert len(alarms) == 1
    assert 200 < alarms[0] < 260


def test_trigger_waits_out_its_pause_before_the_next_alarm():
    losses = [0.3] * 200 + [1.5] * 40 + [0.3] * 200 + [4.0] * 200

    first, second = alarms_of(make_trigger(pause=100.0), losses)
    (only,) = alarms_of(make_trigger(pause=1_000.0), losses)

    assert only == first
    assert second >= first + 100


def test_statistics_are_those_of_the_losses_seen_and_tell_who_raised_the_alarm_and_when():
    trigger = make_trigger(pause=100.0)
    before = trigger.statistics()
    assert (before.alarms, before.window_width, before.climb) == ({"adwin": 0, "page_hinkley": 0}, 0, 0.0)
    assert math.isnan(before.window_mean)
    assert math.isnan(before.alarmed_at)

    losses = [0.2, 0.3, 0.4] * 20
    assert alarms_of(trigger, losses) == []
    steady = trigger.statistics()
    assert steady.window_width == 60
    assert steady.window_mean == pytest.approx(np.mean([loss / (1 + loss) for loss in losses]))

    found = [k for k in range(60, 120) if trigger.update(9.0, float(k))]
    after = trigger.statistics()
    assert after.alarmed_at == found[0]
    assert sum(after.alarms.values()) >= 1
    assert (after.window_width, after.climb) == (0, 0.0), "they began anew, and see nothing within the pause"


def test_the_climb_of_page_hinkley_is_its_sum_above_the_lowest():
    trigger = DriftTrigger([PageHinkley(tolerance=0.0)], pause_seconds=0.0)
    for k, bounded in enumerate((0.0, 0.0, 0.75, 0.75)):  # means 0, 0, 1/4, 3/8; sums 0, 0, 1/2, 7/8
        trigger.update(bounded / (1 - bounded), float(k))

    statistics = trigger.statistics()
    assert statistics.climb == pytest.approx(7 / 8)
    assert math.isnan(statistics.window_mean)
    assert math.isnan(statistics.window_width)


def test_losses_that_are_no_numbers_are_left_out():
    trigger = make_trigger()

    assert not any(trigger.update(loss, float(k)) for k, loss in enumerate([math.nan, math.inf] * 100))
    assert len(alarms_of(trigger, [0.3] * 200 + [1.5] * 100)) == 1


def test_the_same_losses_give_the_same_alarms():
    losses = np.abs(np.random.default_rng(7).normal(1.0, 0.5, 1_000)) + np.linspace(0, 3, 1_000)

    assert alarms_of(make_trigger(), losses) == alarms_of(make_trigger(), losses)
