import itertools

import numpy as np
import pytest
import torch

from forecaster.errors import TrainingFailed
from forecaster.experts.linear import lag_inputs
from forecaster.models.artifact import ModelArtifact
from forecaster.series.encoder import SeriesEncoder
from forecaster.training.augment import Augmentation
from forecaster.training.cleaning import Cleaning
from forecaster.training.covariates import CovariateChoice
from forecaster.training.distill import Ensemble
from forecaster.training.history import History, Series
from forecaster.training.loop import FitPlan
from forecaster.training.material import Material
from forecaster.training.preparation import prepare
from forecaster.training.recipe import Recipe
from forecaster.training.starting import NetworkShape
from forecaster.training.train import train_once

NOW = 1_767_225_600.0
DAY = 86_400.0


@pytest.fixture
def train(encoder):
    def run(history, **overrides):
        arguments = {
            "encoder": encoder,
            "quantile_levels": (0.1, 0.5, 0.9),
            "now": NOW,
            "shape": NetworkShape(hidden=8),
            "steps": 60,
            **overrides,
        }
        return train_once(history, **arguments)

    return run


def test_first_training_on_learnable_streams_is_promoted_and_says_what_it_saw(make_history, train):
    history = make_history(3, 700)

    outcome = train(history, code_version="1.2", seed=3)

    manifest = outcome.artifact.manifest
    assert outcome.decision.is_promoted, outcome.decision.reason
    assert outcome.season_seconds == DAY
    assert manifest.season_seconds == (DAY,)
    assert manifest.version.startswith("gru-20260101T000000-")
    assert (manifest.data.first, manifest.data.streams, manifest.data.readings) == (0.0, 3, 2100)
    assert manifest.data.last == pytest.approx(0.85 * 699 * 3600, rel=0.01)
    assert (manifest.parent, manifest.code_version, manifest.seed) == ("", "1.2", 3)
    assert manifest.scores["pinball"] == outcome.decision.challenger_loss
    assert len(outcome.leads.challenger) == 4


def test_a_longer_season_that_was_asked_for_goes_into_the_manifest_and_changes_nothing_else(make_history, train):
    hours = np.arange(1_000)
    history = History(
        {
            name: Series(s.times, s.values - 2.0 * (k + 1) * (hours % 168 >= 120))
            for k, (name, s) in enumerate(make_history(3, 1_000).streams.items())
        }
    )
    arguments = {"encoder": SeriesEncoder(ring_steps=200, horizon=4), "steps": 5}

    one, two = (train(history, find_seasons=count, **arguments) for count in (1, 2))

    assert one.artifact.manifest.season_seconds == (DAY,)
    assert two.artifact.manifest.season_seconds == (DAY, 7 * DAY)
    assert one.artifact.weights == two.artifact.weights
    assert one.season_seconds == two.season_seconds == DAY


def test_same_arguments_give_the_same_weights_and_another_seed_gives_others(make_history, train):
    history = make_history(2, 400)

    first, same, other = (train(history, seed=seed, steps=10) for seed in (1, 1, 2))

    assert first.artifact.weights == same.artifact.weights
    assert first.artifact.weights != other.artifact.weights


def test_library_leaves_threads_and_the_global_generator_alone(make_history, train):
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    train(make_history(2, 300), steps=3)

    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(1), expected)


def test_readings_after_the_judged_stretch_begins_do_not_touch_what_is_judged(make_history, train):
    """The linear forecast takes no part in the judgement and is solved for on all of the history."""
    history = make_history(2, 500)
    changed = History(
        {
            name: Series(s.times, np.where(np.arange(500) < 430, s.values, s.values * 5 - 3))
            for name, s in history.streams.items()
        }
    )

    first, second = train(history, steps=20, season=24), train(changed, steps=20, season=24)

    ours, theirs = (outcome.artifact.network().state_dict() for outcome in (first, second))
    differing = {name for name, value in ours.items() if name not in theirs or not torch.equal(value, theirs[name])}
    assert {name for name in differing if not name.startswith("linear.")} == set()
    assert {"linear.weight", "linear.spread"} <= differing
    assert first.decision.challenger_loss != second.decision.challenger_loss


def test_warm_training_starts_from_the_champion_and_takes_fewer_steps(make_history, train):
    champion = train(make_history(3, 700)).artifact

    outcome = train(make_history(3, 1000, seed=0), champion=champion)

    assert outcome.artifact.manifest.parent == champion.version
    assert outcome.fit.steps == 18
    assert outcome.decision.champion_loss is not None
    assert outcome.decision.champion_loss < outcome.decision.naive_loss
    assert outcome.leads.champion is not None


def test_a_network_no_better_than_the_champions_is_refused(make_history, train):
    champion = train(make_history(3, 700), steps=150).artifact

    outcome = train(make_history(3, 1000), champion=champion, steps=4)

    assert "Gain over the champion is" in outcome.decision.reason
    before, after = (artifact.network().state_dict() for artifact in (champion, outcome.artifact))
    if outcome.decision.is_promoted:  # for its linear forecast, which 300 more readings a stream make better
        assert outcome.decision.reason.startswith("The network stays: ")
        assert all(torch.equal(after[name], value) for name, value in before.items() if not name.startswith("linear."))


def test_champion_is_judged_only_on_what_it_has_not_seen(make_history, train):
    history = make_history(3, 700)
    champion = train(history).artifact
    all_seen = ModelArtifact.create(
        champion.network(),
        created=NOW,
        data=type(champion.manifest.data)(first=0.0, last=1e12, streams=3, readings=1),
        season_seconds=(DAY,),
    )

    outcome = train(history, champion=all_seen, steps=5)

    assert not outcome.decision.is_promoted
    assert "Only 0 moments" in outcome.decision.reason


def test_champion_with_another_season_is_judged_in_its_own_terms(make_history, train):
    """Its inputs come from an encoding with its own season, its answers in the challenger's units."""
    history = make_history(3, 900)
    champion = train(make_history(3, 700), season=0, steps=120).artifact

    with_other_season = train(history, champion=champion, season=24, steps=3).decision
    with_its_own = train(history, champion=champion, season=0, steps=3).decision

    assert with_other_season.champion_loss is not None
    assert with_its_own.champion_loss is not None
    relative = with_other_season.champion_loss / with_other_season.naive_loss
    assert relative < 0.75
    assert relative == pytest.approx(with_its_own.champion_loss / with_its_own.naive_loss, rel=0.05)


@pytest.mark.parametrize(
    "overrides",
    [{"encoder": SeriesEncoder(ring_steps=64, horizon=6)}, {"quantile_levels": (0.05, 0.5, 0.95)}],
    ids=["horizon", "levels"],
)
def test_champion_that_cannot_answer_now_counts_as_none(make_history, train, overrides):
    champion = train(make_history(2, 400), steps=5).artifact

    outcome = train(make_history(2, 400), champion=champion, steps=5, **overrides)

    assert outcome.decision.champion_loss is None
    assert outcome.artifact.manifest.parent == ""


def test_calendar_and_constant_inputs_are_left_out_where_a_network_could_only_guess(make_history, train):
    day_and_a_half = train(make_history(20, 36), steps=3).artifact.manifest.hyperparameters
    a_month = train(make_history(2, 800, missing=0.05), steps=3).artifact.manifest.hyperparameters

    assert not {"day_sin", "week_sin", "missing", "elapsed"} & set(day_and_a_half.used_features)
    assert {"day_sin", "week_sin", "missing"} <= set(a_month.used_features)
    assert day_and_a_half.feature_names == a_month.feature_names


def test_the_linear_forecast_gives_no_weight_to_what_the_network_is_not_shown(make_history, train, encoder):
    """The day of the week of eight days fits whatever the streams did then; of a month it is a cycle."""
    names = encoder.feature_names
    first = lag_inputs(encoder).lags

    def weight_of(history, name):
        return np.abs(train(history, steps=3).artifact.network().linear.weight.numpy()[first + names.index(name)]).max()

    assert weight_of(make_history(20, 200), "week_sin") == 0.0, "eight days"
    assert weight_of(make_history(20, 200), "day_sin") > 0.0
    assert weight_of(make_history(2, 800), "week_sin") > 0.0


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_every_cell_trains(make_history, train, cell):
    outcome = train(make_history(2, 500), shape=NetworkShape(cell=cell, hidden=8, layers=2), steps=80)

    assert outcome.decision.gain_over_naive > 0.05


def test_one_stream_is_enough(make_history, train):
    assert train(make_history(1, 900)).decision.gain_over_naive > 0.05


@pytest.mark.slow
def test_random_walk_is_not_promoted_for_nothing(make_history, train):
    """Three times three walks: nothing to learn, no season to find, no champion that is replaced.

    First models have naive alone to beat, and come so near to it that either may be ahead.
    """
    gains = []
    for seed in range(3):
        walks = make_history(3, 600, kind="walk", seed=seed)
        first, last = walks.span()
        champion = train(walks.between(first, first + 0.6 * (last - first)), steps=30)
        outcome = train(walks, champion=champion.artifact, steps=100, seed=seed + 50)
        assert champion.season_seconds == outcome.season_seconds == 0.0
        assert outcome.decision.p_value is not None
        gains += [champion.decision.gain_over_naive, outcome.decision.gain_over_naive]
        assert not outcome.decision.is_promoted, outcome.decision.reason

    assert max(gains) < 0.02
    assert np.mean(gains) < 0.005


def test_mostly_missing_readings_train_or_fail_clearly_but_never_crash(make_history, train):
    outcome = train(make_history(3, 3000, missing=0.95), steps=20)

    assert np.isfinite(outcome.decision.challenger_loss)
    with pytest.raises(TrainingFailed, match=r"holds \d+ values on 300 steps of 3 streams"):
        train(make_history(3, 100, missing=0.95))


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (History({}), "holds no reading"),
        (History({"a": Series(np.arange(3.0), np.arange(3.0))}), "holds 3 values on 3 steps of 1 streams"),
        (History({"a": Series(np.arange(500.0), np.full(500, np.nan))}), "holds 0 values"),
        (History({"a": Series(np.arange(500.0), np.full(500, 7.0))}), "None of the 1 streams moves"),
    ],
    ids=["empty", "three_readings", "all_missing", "constant"],
)
def test_history_that_teaches_nothing_is_a_clear_failure(train, history, said):
    with pytest.raises(TrainingFailed, match=said) as failure:
        train(history)

    assert failure.value.hint


def test_constant_stream_beside_a_moving_one_does_no_harm(make_history, train):
    moving = make_history(2, 600)
    stuck = Series(moving.streams["s0"].times, np.full(600, 5.0))

    outcome = train(History({**moving.streams, "stuck": stuck}))

    assert outcome.decision.is_promoted, outcome.decision.reason


def test_budget_keeps_the_newest_ticks_of_some_streams(make_history, train):
    outcome = train(make_history(10, 600), max_streams=4, max_ticks=200, steps=5)

    assert outcome.artifact.manifest.data.streams == 4
    assert outcome.artifact.manifest.data.readings == 800
    assert outcome.artifact.manifest.data.first == 400 * 3600.0


def test_time_limit_still_gives_a_model(make_history, train):
    clock = itertools.count()

    outcome = train(make_history(2, 400), max_seconds=5.0, monotonic=lambda: float(next(clock)))

    assert outcome.fit.stopped_by == "time"
    assert outcome.artifact.network() is not None


def test_a_linear_forecast_that_is_better_goes_beside_a_network_that_stays(make_history, train):
    """The champion was trained on a fifth of what is there now, and the challenger takes no step: it is the same."""
    whole = make_history(3, 1500)
    young = History({name: series.at(slice(0, 300)) for name, series in whole.streams.items()})
    champion = train(young, season=24).artifact

    outcome = train(whole, champion=champion, season=24, steps=1, recipe=Recipe(fit=FitPlan(learning_rate=1e-9)))

    manifest, served = outcome.artifact.manifest, outcome.artifact.network()
    assert outcome.decision.is_promoted
    assert outcome.decision.reason.startswith("The network stays: ")
    assert manifest.parent == champion.version != manifest.version
    assert manifest.data.last == champion.manifest.data.last
    assert manifest.scores["linear_error"] < manifest.scores["linear_error_champion"]
    assert manifest.scores["pinball"] == champion.manifest.scores["pinball"]
    before, after = champion.network().state_dict(), served.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.startswith("linear."))
    assert not torch.equal(after["linear.weight"], before["linear.weight"])


def test_a_linear_forecast_that_is_as_good_as_the_champions_stays_refused(make_history, train):
    history = make_history(3, 700)
    champion = train(history, season=24).artifact

    outcome = train(history, champion=champion, season=24, steps=1, recipe=Recipe(fit=FitPlan(learning_rate=1e-9)))

    assert not outcome.decision.is_promoted


def test_impossible_shape_is_a_clear_failure(make_history, train):
    with pytest.raises(TrainingFailed, match="layers is 0"):
        train(make_history(2, 400), shape=NetworkShape(layers=0))


RECIPES = {
    "cleaning": Recipe(cleaning=Cleaning(outliers="hampel", missing="interpolate")),
    "copies": Recipe(augmentation=Augmentation(copies=1)),
    "mix_up": Recipe(augmentation=Augmentation(mix_up=0.5)),
    "teacher": Recipe(ensemble=Ensemble(members=2)),
    "optimiser": Recipe(fit=FitPlan(optimiser="adam", schedule="cosine")),
    "truncation": Recipe(fit=FitPlan(backprop_steps=24)),
}


def judged_weights(outcome):
    """Those of the network, as lists; the linear forecast is solved for on all of the history."""
    state = outcome.artifact.network().state_dict()
    return {name: value.tolist() for name, value in state.items() if not name.startswith("linear.")}


@pytest.mark.parametrize("technique", RECIPES)
def test_no_technique_lets_the_weights_see_what_comes_after_the_training(make_history, train, technique):
    """Cleaning, copies and teachers are made of the training part alone."""
    history = make_history(2, 400, missing=0.05)
    changed = History(
        {
            name: Series(s.times, np.where(np.arange(400) < 345, s.values, s.values * 5 - 3))
            for name, s in history.streams.items()
        }
    )

    plain, first, second = (
        judged_weights(train(h, steps=8, season=24, recipe=recipe))
        for h, recipe in ((history, None), (history, RECIPES[technique]), (changed, RECIPES[technique]))
    )

    assert first == second
    assert first != plain  # or the technique never reached the fit


def test_student_is_reported_beside_its_teacher_and_the_plain_model(make_history, train):
    history = make_history(2, 300)
    recipe = Recipe(ensemble=Ensemble(members=2, hidden=12))
    told = []

    outcome = train(history, recipe=recipe, steps=20, on_progress=told.append)
    plain = train(history, steps=20)

    assert set(outcome.leads.companions) == {"teacher", "plain"}
    assert outcome.leads.companions["plain"] == plain.leads.challenger
    assert outcome.artifact.manifest.hyperparameters.hidden == 8
    assert outcome.artifact.manifest.scores["pinball_teacher"] == pytest.approx(
        np.mean(outcome.leads.companions["teacher"])
    )
    assert [p.step for p in told] == sorted(p.step for p in told)
    assert told[-1].steps == 4 * 20


def test_training_that_was_killed_goes_on_from_its_directory_with_the_same_weights(make_history, train, tmp_path):
    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step == 45:  # within the second of four fits
            raise Killed

    history, recipe = make_history(1, 300), Recipe(ensemble=Ensemble(members=2))
    whole = train(history, recipe=recipe, steps=30)

    with pytest.raises(Killed):
        train(history, recipe=recipe, steps=30, checkpoint=tmp_path, on_progress=kill)
    resumed = train(history, recipe=recipe, steps=30, checkpoint=tmp_path)

    assert resumed.artifact.weights == whole.artifact.weights
    assert {path.name for path in tmp_path.iterdir()} == {
        "member-0.fit",
        "member-1.fit",
        "plain.fit",
        "challenger.fit",
    }


def test_transfer_starts_from_the_source_and_holds_its_body_first(make_history, train):
    source = train(make_history(2, 400), steps=20).artifact
    few = make_history(1, 300, seed=9)

    held = train(few, source=source, steps=20, recipe=Recipe(fit=FitPlan(freeze_steps=20)))
    tuned = train(few, source=source, steps=20, recipe=Recipe(fit=FitPlan(freeze_steps=5)))

    recurrent = "body.body.weight_hh_l0"
    theirs, kept, moved = (m.network().state_dict()[recurrent] for m in (source, held.artifact, tuned.artifact))
    assert held.artifact.manifest.parent == source.version
    assert torch.equal(kept, theirs)
    assert not torch.equal(moved, theirs)
    assert held.decision.champion_loss is None


def test_only_the_best_covariates_reach_the_network(make_history, train):
    rng = np.random.default_rng(0)
    steps = rng.normal(size=600)
    covariates = rng.normal(size=(600, 3))
    covariates[:-1, 2] = steps[1:]
    history = History({"a": Series(3600.0 * np.arange(600), np.cumsum(steps), covariates)})

    hp = train(
        history,
        encoder=SeriesEncoder(ring_steps=64, horizon=4, covariates=3),
        recipe=Recipe(covariates=CovariateChoice(keep=1)),
        steps=3,
    ).artifact.manifest.hyperparameters

    assert [name for name in hp.used_features if name.startswith("covariate")] == ["covariate_2"]
    assert {"day_sin", "day_cos"} <= set(hp.used_features)


def test_excluded_period_teaches_nothing(make_history, train):
    history = make_history(2, 500)
    broken = History(
        {
            name: Series(s.times, np.where((np.arange(500) >= 100) & (np.arange(500) < 140), 1e4, s.values))
            for name, s in history.streams.items()
        }
    )
    exclude = ((3600.0 * 95, 3600.0 * 250),)

    with_it = train(broken, season=24).decision.challenger_loss
    without_it = train(broken, season=24, recipe=Recipe(exclude=exclude)).decision.challenger_loss

    assert without_it < with_it


def test_targets_filled_by_model_follow_the_season_found_in_the_history(make_history, encoder):
    history = make_history(1, 300, noise=0.0)
    complete = history.streams["s0"].values.copy()
    gap = slice(150, 153)
    history.streams["s0"].values[gap] = np.nan
    prepared = prepare(history, encoder)
    cleaning = Cleaning(missing="model")

    material = Material(prepared, encoder, np.ones(300, bool), Recipe(cleaning=cleaning), seed=0)

    np.testing.assert_allclose(material.targets[gap], complete[gap], atol=1e-6)
    assert np.isnan(prepared.data.values[gap]).all()


def test_lineage_says_how_many_streams_of_how_many_were_looked_at(make_history, train):
    data = train(make_history(5, 400), max_streams=2, steps=3).artifact.manifest.data

    assert (data.streams, data.streams_seen) == (2, 5)


@pytest.mark.parametrize("anomalies", ["keep", "cap", "mask"])
def test_only_flagged_targets_are_treated_and_inputs_are_as_they_came(make_history, encoder, anomalies):
    history = make_history(2, 300)
    history.streams["s1"].values[150:155] += 500.0
    times = history.streams["s1"].times
    flagged = history.flag({"s1": [(times[150], times[155])]})
    prepared, plain = prepare(flagged, encoder), prepare(history, encoder)

    recipe = Recipe(cleaning=Cleaning(anomalies=anomalies))
    targets = Material(prepared, encoder, np.ones(600, bool), recipe, seed=0).targets

    spoilt = slice(450, 455)
    np.testing.assert_array_equal(prepared.data.features, plain.data.features)
    np.testing.assert_array_equal(np.delete(targets, np.r_[spoilt]), np.delete(plain.data.values, np.r_[spoilt]))
    expected = {
        "keep": lambda found: (found == plain.data.values[spoilt]).all(),
        "cap": lambda found: (np.abs(found - 100.0) < 60.0).all(),
        "mask": lambda found: np.isnan(found).all(),
    }[anomalies]
    assert expected(targets[spoilt])
