import numpy as np
import pytest

from forecaster.training.promotion import MIN_TIMESTAMPS, decide, diebold_mariano, student_t_upper_tail


def losses(mean, n=400, *, spread=0.2, seed=0):
    return mean + spread * np.random.default_rng(seed).normal(size=n)


def test_student_tail_equals_the_printed_table():
    for t, degrees, tail in (
        (6.314, 1, 0.05),
        (2.920, 2, 0.05),
        (1.372, 10, 0.1),
        (2.423, 40, 0.01),
        (1.645, 10**6, 0.05),
    ):
        assert student_t_upper_tail(t, degrees) == pytest.approx(tail, abs=2e-4)
        assert student_t_upper_tail(-t, degrees) == pytest.approx(1 - tail, abs=2e-4)


def test_diebold_mariano_equals_a_naive_loop_over_the_papers_formula():
    d = np.random.default_rng(3).normal(0.1, 1.0, size=60)
    n, h = 60, 5
    centred = d - d.mean()
    variance = sum(centred**2) / n
    for lag in range(1, 2 * (h - 1) + 1):
        variance += 2 * (1 - lag / (2 * h - 1)) * sum(centred[t] * centred[t - lag] for t in range(lag, n)) / n
    statistic = d.mean() / np.sqrt(variance / n)
    corrected = statistic * np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)

    assert diebold_mariano(d, h) == pytest.approx(student_t_upper_tail(corrected, n - 1))


def test_one_sided_test_holds_its_level_under_overlapping_forecasts():
    """Differences that are moving sums, as those of H overlapping leads are: 2,000 samples, level 0.1 +- 0.05."""
    rng, horizon = np.random.default_rng(0), 6
    rejected = 0
    for _ in range(2_000):
        shocks = rng.normal(size=300 + horizon)
        rejected += diebold_mariano(np.convolve(shocks, np.ones(horizon), "valid")[:300], horizon) < 0.1

    assert 0.05 < rejected / 2_000 < 0.15


@pytest.mark.parametrize("differences", [np.zeros(0), np.zeros(2), np.zeros(50)])
def test_no_difference_is_no_evidence(differences):
    assert diebold_mariano(differences, 3) == 0.5


def test_first_model_is_promoted_when_it_beats_naive():
    decision = decide(None, losses(0.8), losses(1.0), horizon=3)

    assert decision.is_promoted
    assert decision.champion_loss is None
    assert decision.gain_over_naive == pytest.approx(0.2, abs=0.03)
    assert "First model" in decision.reason


def test_better_challenger_is_promoted_with_its_gain_and_p_value():
    decision = decide(losses(1.0, seed=1), losses(0.9, seed=2), losses(1.5), horizon=3)

    assert decision.is_promoted
    assert decision.gain_over_champion == pytest.approx(0.1, abs=0.03)
    assert decision.p_value is not None
    assert decision.p_value < 0.01


@pytest.mark.parametrize(
    ("champion", "challenger", "naive", "said"),
    [
        (None, losses(1.1), losses(1.0), "does not beat naive"),
        (None, np.ones(400), np.ones(400), "does not beat naive"),
        (losses(0.9), losses(0.8), losses(0.7), "does not beat naive"),
        (losses(0.8), losses(0.9), losses(1.5), "Gain over the champion is -"),
        (np.full(400, 1.0), np.full(400, 0.998), np.full(400, 1.5), "Gain over the champion is 0.2"),
        (losses(1.0, 40, spread=2.0), losses(0.98, 40, spread=2.0, seed=5), losses(9.0, 40), "may be chance"),
        (None, losses(0.5, MIN_TIMESTAMPS - 1), losses(1.0, MIN_TIMESTAMPS - 1), "Only 19 moments"),
        (None, np.zeros(0), np.zeros(0), "Only 0 moments"),
        (None, np.full(400, np.inf), losses(1.0), "not a finite number"),
        (None, np.zeros(400), np.zeros(400), "does not beat naive"),
    ],
)
def test_challenger_that_has_not_earned_its_place_is_refused_with_the_reason(champion, challenger, naive, said):
    decision = decide(champion, challenger, naive, horizon=3)

    assert not decision.is_promoted
    assert said in decision.reason


def test_after_drift_a_challenger_that_is_no_worse_is_promoted_which_would_be_refused_otherwise():
    shared = losses(1.0)
    challenger = shared + losses(0.0, spread=0.03, seed=1)

    refused = decide(shared, challenger, losses(1.5), horizon=3)
    promoted = decide(shared, challenger, losses(1.5), horizon=3, after_drift=True)

    assert not refused.is_promoted
    assert not refused.after_drift
    assert promoted.is_promoted
    assert promoted.after_drift
    assert promoted.p_value < 0.1
    assert "after drift, worse by 2% or more is ruled out" in promoted.reason


def test_after_drift_a_challenger_a_little_worse_is_promoted_for_what_it_has_seen():
    champion = losses(1.0)

    decision = decide(champion, 1.01 * champion, losses(1.5), horizon=3, after_drift=True)

    assert decision.is_promoted
    assert decision.gain_over_champion == pytest.approx(-0.01)


@pytest.mark.parametrize(
    ("challenger", "naive", "said"),
    [
        (losses(1.03, spread=0.01, seed=1), losses(1.5), "is not ruled out"),  # worse by more than the margin
        (losses(1.0, 40, spread=1.0, seed=1), losses(9.0, 40), "is not ruled out"),  # nobody knows
        (losses(1.0, spread=0.01, seed=1), losses(0.9), "does not beat naive"),
        (losses(1.0, 19, seed=1), losses(1.5, 19), "Only 19 moments"),
    ],
    ids=["worse", "uncertain", "naive_is_better", "too_few"],
)
def test_after_drift_a_challenger_that_may_be_worse_is_refused(challenger, naive, said):
    decision = decide(losses(1.0, len(challenger), spread=0.01, seed=2), challenger, naive, horizon=3, after_drift=True)

    assert not decision.is_promoted
    assert said in decision.reason


@pytest.mark.parametrize(("worse_by", "at_most"), [(0.02, 0.15), (0.04, 0.01)])
def test_after_drift_a_challenger_worse_by_the_margin_is_promoted_no_oftener_than_the_level_says(worse_by, at_most):
    """1,000 pairs of 200 losses each, level 0.1 at the very margin, and hardly ever beyond."""
    rng, promoted = np.random.default_rng(0), 0
    for _ in range(1_000):
        champion = 1.0 + 0.1 * rng.normal(size=200)
        challenger = champion * (1.0 + worse_by) + 0.05 * rng.normal(size=200)
        promoted += decide(champion, challenger, np.full(200, 2.0), horizon=1, after_drift=True).is_promoted

    assert promoted / 1_000 < at_most


def test_first_model_needs_no_drift():
    assert not decide(None, losses(0.8), losses(1.0), horizon=3, after_drift=True).after_drift
