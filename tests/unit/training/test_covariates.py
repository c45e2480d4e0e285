import numpy as np
import pytest

from forecaster.series.encoder import SeriesEncoder
from forecaster.training.covariates import CovariateChoice, choose_covariates
from forecaster.training.encoding import encode
from forecaster.training.history import Series, lay_out_ticks

TICKS = 900


@pytest.fixture
def told():
    """A walk whose steps covariate 1 announces two ticks ahead, and covariate 2 as a square; 0 and 3 are noise."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=TICKS)
    covariates = rng.normal(size=(TICKS, 4))
    covariates[:-2, 1] = steps[2:] + 0.1 * rng.normal(size=TICKS - 2)
    encoder = SeriesEncoder(ring_steps=64, horizon=4, covariates=4)

    def make(covariates=covariates):
        series = Series(60.0 * np.arange(TICKS), 50.0 + np.cumsum(steps), covariates)
        return encode(encoder, lay_out_ticks([series], max_gap_steps=6), np.zeros(1, np.int64))

    return encoder, make, covariates, steps


def choose(encoder, data, until=TICKS, **choice):
    rows = np.arange(TICKS) < until
    return choose_covariates(data, rows, encoder.feature_names, CovariateChoice(**choice), leads=(1, 4))


@pytest.mark.parametrize("score", ["f_regression", "mutual_information"])
def test_covariate_that_announces_the_value_is_kept_and_every_other_feature_stays(told, score):
    encoder, make, _, _ = told

    kept = choose(encoder, make(), keep=1, score=score)

    assert [name for name in kept if name.startswith("covariate")] == ["covariate_1"]
    assert kept[:-1] == encoder.feature_names[:11]


def test_mutual_information_finds_what_no_straight_line_shows(told):
    encoder, make, covariates, steps = told
    bent = covariates.copy()
    bent[:, 1] = np.random.default_rng(5).normal(size=TICKS)
    bent[:-1, 2] = steps[1:] ** 2

    assert "covariate_2" in choose(encoder, make(bent), keep=1, score="mutual_information")


def test_scores_agree_with_correlation_worked_out_by_hand(told):
    """With one lag and one lead F is n·r²/(1−r²), so the order is that of the absolute correlation."""
    encoder, make, _, _ = told
    data = make()
    target, observed = data.targets(np.arange(TICKS), 1)
    usable = observed[:, 0] & data.warm
    by_hand = [abs(np.corrcoef(data.features[usable, 11 + k], target[usable, 0])[0, 1]) for k in range(4)]

    kept = choose_covariates(
        data,
        np.ones(TICKS, bool),
        encoder.feature_names,
        CovariateChoice(keep=2, lags=(0,), folds=1),
        leads=(1,),
    )

    assert {int(name[-1]) for name in kept[11:]} == set(np.argsort(by_hand)[-2:])


def test_nothing_after_the_training_part_is_looked_at(told):
    encoder, make, covariates, steps = told
    changed = covariates.copy()
    changed[600:, 3] = np.concatenate((steps[602:], [0, 0])) * 50  # it announces everything, but only later
    changed[600:, 1] = 0.0

    assert choose(encoder, make(changed), until=600, keep=1) == choose(encoder, make(), until=600, keep=1)


def test_targets_beyond_the_end_of_the_training_part_decide_nothing(told):
    """A leap right after the end, which covariate 3 announces in the last training rows, would outweigh all else."""
    encoder, _, covariates, steps = told
    leaping, announcing = steps.copy(), covariates.copy()
    leaping[200] = 1_000.0
    announcing[190:200, 3], announcing[196:200, 3] = 0.0, 50.0
    series = Series(60.0 * np.arange(TICKS), 50.0 + np.cumsum(leaping), announcing)
    data = encode(encoder, lay_out_ticks([series], max_gap_steps=6), np.zeros(1, np.int64))

    assert "covariate_1" in choose(encoder, data, until=200, keep=1, folds=1)


def test_all_are_kept_where_no_choice_is_asked_for_or_there_are_no_more(told):
    encoder, make, _, _ = told

    assert choose(encoder, make()) == encoder.feature_names
    assert choose(encoder, make(), keep=4) == encoder.feature_names


def test_constant_covariates_are_no_trouble(told):
    encoder, make, covariates, _ = told
    stuck = covariates.copy()
    stuck[:, [0, 2, 3]] = 7.0

    assert "covariate_1" in choose(encoder, make(stuck), keep=1)
    assert len(choose(encoder, make(np.full((TICKS, 4), 7.0)), keep=1)) == 12
