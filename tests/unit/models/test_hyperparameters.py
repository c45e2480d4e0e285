import pytest

from forecaster.models.hyperparameters import HyperParameters

NAMES = ("change", "missing")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"layers": 0}, "layers is 0"),
        ({"hidden": 0}, "hidden is 0"),
        ({"horizon": 0}, "horizon is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"cell": "transformer"}, "'transformer'"),
        ({"quantile_levels": (0.1, 0.9)}, "0.5 among them"),
        ({"quantile_levels": (0.9, 0.5, 0.1)}, "rising"),
        ({"quantile_levels": (0.1, 0.5, 0.8)}, "symmetric"),
        ({"quantile_levels": (0.0, 0.5, 1.0)}, "inside (0, 1)"),
        ({"feature_names": ("a", "a")}, "none twice"),
        ({"used_features": ("wind",)}, "['wind']"),
        ({"used_features": ()}, "nothing"),
    ],
)
def test_impossible_shape_is_refused_with_what_was_found(overrides, said):
    with pytest.raises(ValueError) as refusal:
        HyperParameters(**{"feature_names": NAMES, "used_features": NAMES, **overrides})

    assert said in str(refusal.value)


def test_median_index_points_at_one_half():
    hp = HyperParameters(feature_names=NAMES, used_features=NAMES, quantile_levels=(0.05, 0.25, 0.5, 0.75, 0.95))

    assert hp.quantile_levels[hp.median_index] == 0.5
