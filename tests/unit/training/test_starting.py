import numpy as np
import pytest
import torch

from forecaster.errors import TrainingFailed
from forecaster.models.artifact import DataSpan, ModelArtifact
from forecaster.series.encoder import SeriesEncoder
from forecaster.training.starting import NetworkShape, new_network, servable, starting_point

LEVELS = (0.1, 0.5, 0.9)


def make(*, horizon=4, covariates=0, known_ahead=0, used=None, seed=0, **shape):
    encoder = SeriesEncoder(ring_steps=64, horizon=horizon, covariates=covariates, known_ahead=known_ahead)
    return new_network(
        NetworkShape(**{"hidden": 8, **shape}),
        encoder,
        LEVELS,
        used or encoder.feature_names,
        naive=np.tile(np.array([-1.0, 0.0, 1.0], np.float32), (horizon, 1)),
        seed=seed,
    )


def packed(network):
    return ModelArtifact.create(network, created=0.0, data=DataSpan(first=0, last=1, streams=1, readings=2))


def test_new_network_answers_about_the_naive_quantiles():
    network = make().eval()

    quantiles = network.quantiles(torch.zeros(1, 8), torch.zeros(1, 11), torch.zeros(1, 4))

    torch.testing.assert_close(quantiles[0, 0], torch.tensor([-1.0, 0.0, 1.0]), atol=0.5, rtol=0)


def test_champion_goes_before_a_named_source():
    champion, source = packed(make(seed=1)), packed(make(seed=2))

    start = starting_point(make(), champion, source)

    assert (start.parent, start.keeps_body) == (champion.version, False)
    assert (start.steps_share, start.rate_share) == (0.3, 0.5)


def test_source_gives_body_and_head_where_both_answer_the_same_question():
    source = make(seed=2)

    start = starting_point(make(), None, packed(source))

    assert (start.parent, start.keeps_body, start.steps_share) == (packed(source).version, True, 1.0)
    for name, value in source.state_dict().items():
        assert torch.equal(start.network.state_dict()[name], value), name


@pytest.mark.parametrize("other", [{"horizon": 9}, {"known_ahead": 1}], ids=str)
def test_source_that_was_asked_or_told_something_else_gives_its_body_alone(other):
    source, new = make(**other, seed=2), make(seed=3)

    network = starting_point(make(seed=3), None, packed(source)).network

    assert all(torch.equal(a, b) for a, b in zip(network.body.parameters(), source.body.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(network.head.parameters(), new.head.parameters(), strict=True))


def test_inputs_are_matched_by_name_and_those_the_source_never_saw_stay_new():
    source, new = make(seed=2, used=("change", "covariate_0"), covariates=2), make(seed=3)

    network = starting_point(make(seed=3), None, packed(source)).network

    names = list(new.hp.feature_names)
    found, theirs, fresh = (n.body.body.weight_ih_l0 for n in (network, source, new))
    assert torch.equal(found[:, names.index("change")], theirs[:, names.index("change")])
    others = [k for k, name in enumerate(names) if name != "change"]
    assert torch.equal(found[:, others], fresh[:, others])


@pytest.mark.parametrize("shape", [{"hidden": 16}, {"cell": "lstm"}, {"layers": 2}], ids=str)
def test_source_with_another_body_is_a_clear_failure(shape):
    with pytest.raises(TrainingFailed, match="has a body of") as failure:
        starting_point(make(), None, packed(make(**shape)))

    assert "under model" in failure.value.hint


@pytest.mark.parametrize(("theirs", "ours"), [(0, 1), (1, 0), (2, 1)])
def test_champion_that_is_told_of_other_leads_cannot_serve(theirs, ours):
    champion = packed(make(known_ahead=theirs))
    shape = NetworkShape(hidden=8)
    same, other = (SeriesEncoder(ring_steps=64, horizon=4, known_ahead=number) for number in (theirs, ours))

    assert servable(champion, same, LEVELS, shape) is champion
    assert servable(champion, other, LEVELS, shape) is None
