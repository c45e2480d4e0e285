"""A model as one file to carry elsewhere: a zip that other programs can open.

======================  ===========================================================
member                  content
======================  ===========================================================
``bundle.json``         format, and the sha256 of each of the others
``manifest.json``       the manifest, to be read by people too
``weights.safetensors``  the weights
======================  ===========================================================

Members are stored, not compressed, and carry no time: the same model gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from pathlib import Path

import msgspec

from forecaster.errors import ArtifactMismatch, TransportError
from forecaster.models.artifact import ModelArtifact, write_atomically

FORMAT = "forecaster-model"
FORMAT_VERSION = 1

_INDEX, _MANIFEST, _WEIGHTS = "bundle.json", "manifest.json", "weights.safetensors"
_LARGEST_BYTES = 2**30  # what is unpacked is held in memory: a hostile zip can claim any size
_HINT = "Give a file written by `forecaster models export`, or a .model file, whole."


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself."""

    format: str
    format_version: int
    sha256: dict[str, str]
    """By member."""


def write_bundle(artifact: ModelArtifact, path: Path) -> None:
    """Write a model to a file, whole or not at all.

    Raises:
        TransportError: the disk refuses.
    """
    manifest = msgspec.json.format(msgspec.json.encode(artifact.manifest), indent=2)
    members = {_MANIFEST: manifest, _WEIGHTS: artifact.weights}
    index = Index(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as bundle:
        for name, content in ({_INDEX: msgspec.json.encode(index)} | members).items():
            bundle.writestr(zipfile.ZipInfo(name), content)
    try:
        write_atomically(path, packed.getvalue())
    except OSError as error:
        raise TransportError(
            f"{path} cannot be written: {error.strerror}.", hint="Check the path, its permissions and the free space."
        ) from error


def read_model_file(path: Path) -> ModelArtifact:
    """Read what `write_bundle` or `ModelArtifact.save` wrote, and see that a network can be made of it.

    Raises:
        ArtifactMismatch: there is no such file, or it is damaged or none of ours; the message says which.
    """
    artifact = ModelArtifact.load(path) if path.suffix == ".model" else _read_bundle(path)
    artifact.network()  # weights of another shape are refused here, not when they are to serve
    return artifact


def _read_bundle(path: Path) -> ModelArtifact:
    try:
        with zipfile.ZipFile(path) as bundle:
            index_bytes, manifest, weights = (_member(bundle, name, path) for name in (_INDEX, _MANIFEST, _WEIGHTS))
    except OSError as error:
        raise ArtifactMismatch(f"{path} cannot be read: {error.strerror}.", hint="Check the path.") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise ArtifactMismatch(f"{path} is no bundle of a model, or a damaged one: {error}", hint=_HINT) from error
    try:
        index = msgspec.json.decode(index_bytes, type=Index)
    except msgspec.DecodeError as error:
        raise ArtifactMismatch(f"{path} is none of ours: its {_INDEX} cannot be read: {error}", hint=_HINT) from error
    if (index.format, index.format_version) != (FORMAT, FORMAT_VERSION):
        raise ArtifactMismatch(
            f"{path} is a {index.format} of format {index.format_version}, this program reads {FORMAT} of format "
            f"{FORMAT_VERSION}.",
            hint="Use the version of forecaster that wrote it.",
        )
    for name, content in ((_MANIFEST, manifest), (_WEIGHTS, weights)):
        if hashlib.sha256(content).hexdigest() != index.sha256.get(name):
            raise ArtifactMismatch(f"{path} is damaged: the checksum of its {name} does not match.", hint=_HINT)
    return ModelArtifact.from_parts(manifest, weights, origin=str(path))


def _member(bundle: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        info = bundle.getinfo(name)
    except KeyError:
        raise ArtifactMismatch(f"{path} is no bundle of a model: it holds no {name}.", hint=_HINT) from None
    if info.file_size > _LARGEST_BYTES:
        raise ArtifactMismatch(
            f"{path}: its {name} has {info.file_size:,} bytes, expected at most {_LARGEST_BYTES:,}.", hint=_HINT
        )
    return bundle.read(info)
