"""A model that an earlier version wrote answers today as it did then."""

from pathlib import Path

import pytest
import torch

from forecaster.models.artifact import FORMAT_VERSION, DataSpan, ModelArtifact

GOLDEN = Path(__file__).with_name("artifact_v1.model")


def test_an_artifact_of_format_1_is_read_and_what_it_lacks_is_empty():
    artifact = ModelArtifact.load(GOLDEN)

    manifest = artifact.manifest
    assert manifest.version == "gru-20260101T000000-16e702"
    assert manifest.format_version == FORMAT_VERSION
    assert manifest.data == DataSpan(first=0.0, last=3600.0, streams=2, readings=7200, topic="", offsets=())
    assert (manifest.parent, manifest.seed, manifest.code_version) == ("gru-20251231T000000-000000", 7, "0.1.0")
    assert manifest.scores == {"pinball": 0.25, "pinball_naive": 0.5}
    assert manifest.season_seconds == (86_400.0,)
    assert manifest.training == {"steps": 400.0}
    assert manifest.settings == {}


def test_its_network_gives_the_quantiles_it_gave_then():
    network = ModelArtifact.load(GOLDEN).network()
    x = torch.arange(48, dtype=torch.float32).reshape(16, 3) / 48

    with torch.inference_mode():
        top, _ = network.step(x, network.initial_hidden(16))
        found = network.quantiles(top, x, torch.ones(16, 3))[0]

    then = [
        [-0.4351518452167511, 0.2595355808734894, 0.9177762269973755],
        [-0.6262379288673401, -0.053254447877407074, 0.8124509453773499],
        [-0.5844705700874329, 0.17149175703525543, 0.7774376273155212],
    ]
    assert found.tolist() == [pytest.approx(row, abs=1e-5) for row in then]


def test_written_again_it_is_of_the_present_format_and_the_same_model():
    artifact = ModelArtifact.load(GOLDEN)

    again = ModelArtifact.from_bytes(artifact.to_bytes())

    assert again == artifact
    assert b'"format_version":3' in artifact.to_bytes()
