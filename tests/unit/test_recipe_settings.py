"""Every setting of training reaches a training: a setting that changes nothing is a promise not kept."""

import msgspec
import pytest

from forecaster.app import build_drift, build_recipe, build_shape
from forecaster.settings import Settings, TrainingSettings, load_settings
from forecaster.training.recipe import Recipe
from forecaster.training.starting import NetworkShape

CHANGED = {
    "optimiser": "sgd",
    "schedule": "cosine",
    "learning_rate": 0.01,
    "momentum": 0.8,
    "batch": 16,
    "l1": 0.1,
    "l2": 0.1,
    "clip": 2.0,
    "dropout": 0.2,
    "averaging": 0.5,
    "patience": 3,
    "context_length": 100,
    "burn_in": 10,
    "origins": 0,
    "backprop_steps": 10,
    "device": "cpu",
    "missing": "last",
    "fill_steps": 5,
    "outliers": "hampel",
    "outlier_treatment": "mask",
    "outlier_threshold": 4.0,
    "outlier_window": 20,
    "outlier_minimum": -1.0,
    "outlier_maximum": 1.0,
    "exclude": ["1970-01-01T00:00Z/1970-01-02T00:00Z"],
    "augment_copies": 1,
    "augment_bootstrap": False,
    "augment_warp": 0.2,
    "augment_jitter": 0.2,
    "mix_up": 0.2,
    "teacher_members": 2,
    "teacher_hidden": 8,
    "teacher_bootstrap": False,
    "teacher_weight": 0.1,
    "freeze_steps": 5,
    "anomalies": "cap",
    "covariates_kept": 2,
    "covariate_score": "mutual_information",
    "drift": "adwin",
}
ELSEWHERE = {
    "mode", "every", "window", "min_wall_seconds", "min_readings", "max_readings_per_stream", "max_streams", "steps",
    "max_seconds", "seed", "start_from", "drift_span", "drift_pause", "history_bytes", "history_seconds",
    "history_cache", "history_cache_bytes",
}  # fmt: skip


def what_trains(settings: Settings) -> tuple[object, ...]:
    return build_recipe(settings), build_shape(settings), build_drift(settings) is not None


@pytest.mark.parametrize("name", CHANGED)
def test_setting_changes_the_recipe(name):
    changed = load_settings({"training": {name: CHANGED[name]}})

    assert what_trains(changed) != what_trains(load_settings())


def test_no_setting_of_a_technique_is_left_out_of_the_list_above():
    known = set(CHANGED) | ELSEWHERE

    assert set(CHANGED) <= set(TrainingSettings.model_fields)
    assert {n for n in TrainingSettings.model_fields if n not in known and n in _of_techniques()} == set()


def _of_techniques() -> set[str]:
    """Names that settings and recipe share."""
    recipe = msgspec.to_builtins(Recipe())
    return {name for part in recipe.values() if isinstance(part, dict) for name in part}


def test_default_settings_are_the_default_recipe_but_for_the_steps_a_source_is_held():
    recipe = build_recipe(load_settings())
    held = msgspec.structs.replace(recipe.fit, freeze_steps=0)

    assert msgspec.structs.replace(recipe, fit=held) == Recipe()
    assert build_shape(load_settings()) == NetworkShape()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("exclude", ["2026-01-01"], "two times with a slash"),
        ("exclude", ["2026-01-02T00:00Z/2026-01-01T00:00Z"], "two times with a slash"),
        ("outlier_minimum", 1e31, "is not below"),
        ("optimiser", "adagrad", "optimiser"),
    ],
)
def test_impossible_values_are_named(name, value, said):
    from forecaster.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match=said):
        load_settings({"training": {name: value}})
