import contextlib
import zipfile

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_logs import make_model

from forecaster.errors import ArtifactMismatch, TransportError
from forecaster.models.artifact import ModelArtifact
from forecaster.models.hyperparameters import HyperParameters
from forecaster.stores.bundle import read_model_file, write_bundle

MODEL = make_model(3, scores={"pinball": 0.25}, parent="gru-20251231T000000-000000")


@pytest.fixture
def path(tmp_path):
    write_bundle(MODEL, tmp_path / "model.zip")
    return tmp_path / "model.zip"


def rewrite(path, **members):
    """The same bundle with other content in some members; ``None`` leaves one out."""
    with zipfile.ZipFile(path) as bundle:
        content = {name: bundle.read(name) for name in bundle.namelist()}
    with zipfile.ZipFile(path, "w") as bundle:
        for name, value in (content | members).items():
            if value is not None:
                bundle.writestr(name, value)


def test_a_model_comes_back_from_its_bundle_and_answers_as_before(path):
    model = read_model_file(path)

    assert model == MODEL
    x = torch.ones(16, 1)
    with torch.inference_mode():
        (one, _), (other, _) = (m.network().step(x, m.network().initial_hidden(16)) for m in (MODEL, model))
    assert torch.equal(one, other)


def test_the_same_model_makes_the_same_bytes_and_any_program_can_open_them(path, tmp_path):
    write_bundle(MODEL, tmp_path / "again.zip")

    assert (tmp_path / "again.zip").read_bytes() == path.read_bytes()
    with zipfile.ZipFile(path) as bundle:
        assert bundle.namelist() == ["bundle.json", "manifest.json", "weights.safetensors"]
        assert msgspec.json.decode(bundle.read("manifest.json"))["version"] == MODEL.version
        assert bundle.read("weights.safetensors") == MODEL.weights


def test_a_model_file_of_train_is_read_too(tmp_path):
    MODEL.save(tmp_path / "m.model")

    assert read_model_file(tmp_path / "m.model") == MODEL


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_bundle_with_a_changed_or_missing_byte_gives_the_model_or_an_error(tmp_path_factory, data):
    """Zip has bytes that mean nothing; a model that differs must never come out."""
    path = tmp_path_factory.mktemp("bundle") / "m.zip"
    write_bundle(MODEL, path)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] ^= data.draw(st.integers(1, 255))
    else:
        del content[position:]
    path.write_bytes(content)

    with contextlib.suppress(ArtifactMismatch):
        assert read_model_file(path) == MODEL


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"weights.safetensors": b"x"}, "the checksum of its weights.safetensors does not match"),
        ({"manifest.json": b"{}"}, "the checksum of its manifest.json does not match"),
        ({"manifest.json": None}, "it holds no manifest.json"),
        ({"bundle.json": b"[]"}, "none of ours"),
        (
            {"bundle.json": b'{"format":"forecaster-model","format_version":9,"sha256":{}}'},
            "of format 9, this program reads forecaster-model of format 1",
        ),
    ],
)
def test_a_bundle_that_is_not_as_it_was_written_says_what_is_wrong(path, members, message):
    rewrite(path, **members)

    with pytest.raises(ArtifactMismatch, match=message):
        read_model_file(path)


def test_files_that_are_no_bundles_are_refused(tmp_path):
    (tmp_path / "text.zip").write_text("hello")

    with pytest.raises(ArtifactMismatch, match="no bundle of a model"):
        read_model_file(tmp_path / "text.zip")
    with pytest.raises(ArtifactMismatch, match=r"nowhere\.zip cannot be read: No such file"):
        read_model_file(tmp_path / "nowhere.zip")


def test_weights_of_another_shape_are_refused_before_they_serve(tmp_path):
    wider = HyperParameters(feature_names=("change",), used_features=("change",), hidden=5, head_width=2, horizon=1)
    manifest = msgspec.structs.replace(MODEL.manifest, hyperparameters=wider)
    write_bundle(ModelArtifact(manifest, MODEL.weights), tmp_path / "m.zip")

    with pytest.raises(ArtifactMismatch, match="do not fit its hyperparameters"):
        read_model_file(tmp_path / "m.zip")


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(TransportError, match="cannot be written"):
        write_bundle(MODEL, tmp_path / "file" / "m.zip")
