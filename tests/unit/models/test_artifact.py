import os

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.errors import ArtifactMismatch
from forecaster.models import artifact as artifact_module
from forecaster.models.artifact import DataSpan, ModelArtifact, OffsetSpan
from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.network import RecurrentForecaster

NAMES = ("change", "from_level", "missing")
CREATED = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def make_network(seed=0, **overrides):
    hp = {"feature_names": NAMES, "used_features": NAMES, "hidden": 4, "head_width": 8, "horizon": 3}
    return RecurrentForecaster.seeded(HyperParameters(**{**hp, **overrides}), seed).eval()


def make_artifact(network=None, **overrides):
    arguments = {
        "created": CREATED,
        "data": DataSpan(first=0.0, last=3600.0, streams=2, readings=7200),
        "season_seconds": (86_400.0,),
        "scores": {"pinball": 0.25},
        "parent": "gru-20251231T000000-000000",
        "code_version": "0.1.0",
        "seed": 5,
        "training": {"steps": 400.0},
        **overrides,
    }
    return ModelArtifact.create(network or make_network(), **arguments)


CONTENT = make_artifact().to_bytes()


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_restored_network_answers_bit_for_bit_as_the_one_exported(cell):
    network = make_network(cell=cell, layers=2)
    x, ahead = torch.randn(16, 3, generator=torch.Generator().manual_seed(0)), torch.ones(16, 3)

    restored = ModelArtifact.from_bytes(make_artifact(network).to_bytes()).network()
    with torch.inference_mode():
        answers = []
        for candidate in (network, restored):
            top, hidden = candidate.step(x, candidate.initial_hidden(16))
            answers.append((candidate.quantiles(top, x, ahead), hidden))

    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1], answers[1][1])


def test_manifest_survives_the_way_to_disk_and_back(tmp_path):
    artifact = make_artifact()

    artifact.save(tmp_path / "deep" / "a.model")

    assert ModelArtifact.load(tmp_path / "deep" / "a.model") == artifact
    assert os.listdir(tmp_path / "deep") == ["a.model"]


def test_version_names_cell_time_of_creation_and_weights():
    artifact = make_artifact()

    assert artifact.version == f"gru-20260101T000000-{artifact.manifest.sha256[:6]}"
    assert make_artifact(make_network(seed=1)).version != artifact.version
    assert make_artifact(make_network(cell="lstm")).version.startswith("lstm-")


def test_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.model"
    old, new = make_artifact(), make_artifact(make_network(seed=9))
    old.save(path)

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact_module.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        new.save(path)

    assert ModelArtifact.load(path) == old
    assert os.listdir(tmp_path) == ["a.model"]


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(CONTENT) - 1), flip=st.integers(1, 255))
def test_any_changed_byte_is_an_artifact_mismatch(position, flip):
    damaged = bytearray(CONTENT)
    damaged[position] ^= flip

    with pytest.raises(ArtifactMismatch):
        ModelArtifact.from_bytes(bytes(damaged))


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0, len(CONTENT) - 1))
def test_any_cut_file_is_an_artifact_mismatch(length):
    with pytest.raises(ArtifactMismatch):
        ModelArtifact.from_bytes(CONTENT[:length])


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=400))
def test_foreign_bytes_are_an_artifact_mismatch(content):
    with pytest.raises(ArtifactMismatch):
        ModelArtifact.from_bytes(content)


def _resealed(manifest: bytes, weights: bytes) -> bytes:
    """A file with a right checksum and a content of our choosing, as another program could write it."""
    body = len(manifest).to_bytes(4, "little") + manifest + weights
    return CONTENT[:8] + artifact_module.hashlib.sha256(body).digest() + body


@settings(max_examples=100, deadline=None)
@given(manifest=st.binary(max_size=60), weights=st.binary(max_size=60))
def test_foreign_content_behind_a_right_checksum_is_an_artifact_mismatch(manifest, weights):
    with pytest.raises(ArtifactMismatch):
        ModelArtifact.from_bytes(_resealed(manifest, weights))


def test_later_format_says_which_it_is_and_what_to_do():
    artifact = make_artifact()
    later = msgspec.structs.replace(artifact.manifest, format_version=99)

    with pytest.raises(ArtifactMismatch, match="format 99, this program reads formats 1, 2, 3") as refusal:
        ModelArtifact.from_bytes(_resealed(msgspec.json.encode(later), artifact.weights), origin="m.model")

    assert "m.model" in str(refusal.value)
    assert "version of forecaster" in refusal.value.hint


def test_manifest_with_an_impossible_shape_is_an_artifact_mismatch():
    artifact = make_artifact()
    manifest = msgspec.json.encode(artifact.manifest).replace(b'"layers":1', b'"layers":0')

    with pytest.raises(ArtifactMismatch, match="layers is 0"):
        ModelArtifact.from_bytes(_resealed(manifest, artifact.weights))


def test_weights_of_another_shape_are_an_artifact_mismatch():
    small, large = make_artifact(), make_artifact(make_network(hidden=6))

    with pytest.raises(ArtifactMismatch, match="do not fit its hyperparameters"):
        ModelArtifact(small.manifest, large.weights).network()


def test_absent_file_is_an_artifact_mismatch_that_names_it(tmp_path):
    with pytest.raises(ArtifactMismatch, match=r"nowhere\.model cannot be read: No such file"):
        ModelArtifact.load(tmp_path / "nowhere.model")


def test_lineage_travels_with_the_model_and_leaves_its_name_alone():
    plain = make_artifact()
    spans = [OffsetSpan(partition=0, first=10, end=500), OffsetSpan(partition=3, first=0, end=7)]

    traced = plain.with_lineage(settings={"training.steps": 400, "model.cell": "gru"}, topic="readings", offsets=spans)

    assert traced.version == plain.version
    found = ModelArtifact.from_bytes(traced.to_bytes()).manifest
    assert found.settings == {"training.steps": 400, "model.cell": "gru"}
    assert (found.data.topic, found.data.offsets) == ("readings", tuple(spans))
    assert (found.data.first, found.data.readings) == (plain.manifest.data.first, plain.manifest.data.readings)
