import numpy as np
import pytest

from forecaster.evaluation.fans import Fans
from forecaster.training.encoding import encode
from forecaster.training.evaluate import pinball_losses
from forecaster.training.evidence import gather_evidence
from forecaster.training.history import lay_out_ticks

LEVELS = (0.1, 0.5, 0.9)


@pytest.fixture
def encoded(make_history, encoder):
    def make(streams=2, ticks=200, **overrides):
        history = make_history(streams, ticks, **overrides)
        ticks = lay_out_ticks(list(history.streams.values()), max_gap_steps=24)
        return encode(encoder, ticks, np.full(streams, 24))

    return make


def evidence_of(data, rows, quantiles):
    losses = pinball_losses(data, rows, quantiles, LEVELS)
    naive = pinball_losses(data, rows, np.zeros_like(quantiles), LEVELS)
    return gather_evidence(data, rows, quantiles, losses, naive)


def test_shares_below_are_those_counted_one_by_one_and_missing_values_are_not_counted(encoded):
    data = encoded(missing=0.2)
    rows = np.flatnonzero(data.warm)
    rng = np.random.default_rng(1)
    quantiles = np.sort(rng.normal(size=(len(rows), 4, 3)), axis=-1).astype(np.float32)

    evidence = evidence_of(data, rows, quantiles)

    target, observed = data.targets(rows, 4)
    for lead in range(4):
        for level in range(3):
            held = [
                float(target[k, lead]) <= float(quantiles[k, lead, level])
                for k in range(len(rows))
                if observed[k, lead]
            ]
            assert evidence.below[lead][level] == pytest.approx(sum(held) / len(held))


def test_lead_that_was_never_observed_has_no_share(encoded):
    data = encoded(streams=1, ticks=60)
    rows = np.array([58])  # one value is behind it

    evidence = evidence_of(data, rows, np.zeros((1, 4, 3), np.float32))

    assert not np.isnan(evidence.below[0]).any()
    assert np.isnan(evidence.below[1:]).all()


def test_examples_are_in_the_streams_own_units_and_do_not_overlap(encoded):
    data = encoded(streams=1, noise=0.0)
    rows = np.arange(100, 200)
    target, _ = data.targets(rows, 4)
    known = np.repeat(target[..., None], 3, axis=-1)  # who knows the future

    (example,) = evidence_of(data, rows, known).examples

    fans = example.fans
    assert isinstance(fans, Fans)
    assert example.relative_naive == pytest.approx(0.0, abs=1e-6)
    assert np.diff(fans.origins).tolist() == [4, 4]
    assert fans.origins[-1] + 4 == len(fans.values) - 1
    for origin, quantiles in zip(fans.origins, fans.quantiles, strict=True):
        assert np.array(quantiles)[:, 1] == pytest.approx(fans.values[origin + 1 : origin + 5], abs=1e-4)


def test_examples_go_from_the_best_stream_to_the_worst(encoded):
    data = encoded(streams=6)
    rows = np.concatenate([np.arange(end - 40, end) for end in data.starts[1:]])
    target, _ = data.targets(rows, 4)
    wrong_by = np.searchsorted(data.starts, rows, side="right")[:, None, None] * np.array([-0.1, 0.0, 0.1])
    made = (target[..., None] * 0.5 + wrong_by).astype(np.float32)

    examples = evidence_of(data, rows, made).examples

    relative = [example.relative_naive for example in examples]
    assert len(examples) == 4
    assert relative == sorted(relative)
    assert examples[0].stream != examples[-1].stream


def test_history_too_short_for_a_whole_forecast_has_no_example(encoded):
    data = encoded(streams=1, ticks=60)

    evidence = evidence_of(data, np.array([57, 58]), np.zeros((2, 4, 3), np.float32))

    assert evidence.examples == ()
