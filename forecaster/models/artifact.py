"""A trained model as one file: weights and the manifest that says what they are.

Layout, little endian::

    0   8   magic  b"FCMODEL\\n"
    8  32   sha256 of everything that follows
   40   4   length n of the manifest
   44   n   manifest, JSON
 44+n   …   weights, safetensors

Nothing in it is executable; reading a hostile file can fail, not run code.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
from safetensors import SafetensorError

from forecaster.errors import ArtifactMismatch
from forecaster.models.hyperparameters import HyperParameters
from forecaster.models.network import RecurrentForecaster

FORMAT_VERSION = 3
"""Of what is written. Format 1 had no ``settings``, and no ``topic`` and ``offsets`` in its data span; up to format 2
no stream had linear weights of its own."""
_READABLE = (1, 2, 3)
_MAGIC = b"FCMODEL\n"
_HEAD = struct.Struct("<8s32sI")


class OffsetSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one partition, from ``first`` up to and without ``end``."""

    partition: int
    first: int
    end: int


class DataSpan(msgspec.Struct, frozen=True, kw_only=True):
    """What a model has seen: event times in seconds since the epoch, and how much lay between them."""

    first: float
    last: float
    streams: int
    readings: int
    topic: str = ""
    """Where it was read from; empty for files and for what the daemon kept in memory."""
    offsets: tuple[OffsetSpan, ...] = ()
    """Records of the topic it was read from, by partition."""
    streams_seen: int = 0
    """Streams that had readings there, of which ``streams`` were chosen; 0 in models that do not say."""
    cut_by: str = ""
    """What kept parts of the window out: ``memory``, ``time``, both, or nothing."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a model but its weights."""

    format_version: int
    version: str
    """Name, also in every forecast: cell, time of creation, first six digits of the weights' sha256."""
    sha256: str
    """Of the weights."""
    created: float
    hyperparameters: HyperParameters
    season_seconds: tuple[float, ...] = ()
    """Seasons found in the data or declared as durations; empty where there is none."""
    season_steps: int = 0
    """Season declared as a number of steps; 0 where it was not. Goes before ``season_seconds``."""
    data: DataSpan
    scores: dict[str, float] = {}
    parent: str = ""
    """Version of the champion whose weights training started from, empty for a cold start."""
    code_version: str = ""
    seed: int = 0
    training: dict[str, float] = {}
    """Numbers of the training run, and what it took."""
    settings: dict[str, Any] = {}
    """Settings the training ran under, by name, as JSON has them."""
    group: str = ""
    """Of the streams it was trained on; empty for the default group."""


class ModelArtifact(msgspec.Struct, frozen=True):
    """A manifest and the weights it describes; make one with `create`, `from_bytes` or `load`."""

    manifest: Manifest
    weights: bytes

    @classmethod
    def create(
        cls,
        network: RecurrentForecaster,
        *,
        created: float,
        data: DataSpan,
        season_seconds: tuple[float, ...] = (),
        season_steps: int = 0,
        scores: Mapping[str, float] | None = None,
        parent: str = "",
        code_version: str = "",
        seed: int = 0,
        training: Mapping[str, float] | None = None,
    ) -> ModelArtifact:
        """Pack a network; ``created`` is wall-clock time in seconds since the epoch and becomes part of the name."""
        weights = safetensors.torch.save({name: value.contiguous() for name, value in network.state_dict().items()})
        digest = hashlib.sha256(weights).hexdigest()
        stamp = datetime.fromtimestamp(created, UTC).strftime("%Y%m%dT%H%M%S")
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            version=f"{network.hp.cell}-{stamp}-{digest[:6]}",
            sha256=digest,
            created=created,
            hyperparameters=network.hp,
            season_seconds=season_seconds,
            season_steps=season_steps,
            data=data,
            scores=dict(scores or {}),
            parent=parent,
            code_version=code_version,
            seed=seed,
            training=dict(training or {}),
        )
        return cls(manifest, weights)

    @property
    def version(self) -> str:
        """The model's name."""
        return self.manifest.version

    def with_lineage(
        self,
        *,
        settings: Mapping[str, Any],
        topic: str = "",
        offsets: Sequence[OffsetSpan] = (),
        group: str = "",
        streams_seen: int = 0,
        cut_by: str = "",
    ) -> ModelArtifact:
        """The same model, with what it was trained under and where its readings stood.

        Args:
            settings: by name; values as JSON has them.
            topic: of the readings; empty where they came from no topic.
            offsets: what was read of each of its partitions.
            group: of the streams.
            streams_seen: streams that had readings where they came from, if more than the training was given.
            cut_by: what kept parts of the window out.
        """
        data = msgspec.structs.replace(
            self.manifest.data,
            topic=topic,
            offsets=tuple(offsets),
            streams_seen=max(streams_seen, self.manifest.data.streams_seen),
            cut_by=cut_by,
        )
        manifest = msgspec.structs.replace(self.manifest, data=data, settings=dict(settings), group=group)
        return ModelArtifact(manifest, self.weights)

    def network(self) -> RecurrentForecaster:
        """A new network with these weights, in evaluation mode.

        Raises:
            ArtifactMismatch: the weights are not those of the hyperparameters in the manifest.
        """
        network = RecurrentForecaster.seeded(self.manifest.hyperparameters, 0)
        try:
            network.load_state_dict(safetensors.torch.load(self.weights))
        except (SafetensorError, RuntimeError) as error:
            raise ArtifactMismatch(
                f"Weights of model {self.version} do not fit its hyperparameters: {error}",
                hint="The file was not written by this program; train again or restore it from a backup.",
            ) from error
        return network.eval()

    def to_bytes(self) -> bytes:
        """The artifact as one file's content."""
        manifest = msgspec.json.encode(self.manifest)
        body = struct.pack("<I", len(manifest)) + manifest + self.weights
        return _MAGIC + hashlib.sha256(body).digest() + body

    @classmethod
    def from_bytes(cls, content: bytes, *, origin: str = "artifact") -> ModelArtifact:
        """Read what `to_bytes` made; ``origin`` names it in errors.

        Raises:
            ArtifactMismatch: it is no artifact, was cut or changed, or comes from a later version of the program.
        """
        if len(content) < _HEAD.size or not content.startswith(_MAGIC):
            raise ArtifactMismatch(
                f"{origin} is not a model artifact: {len(content)} bytes beginning with {content[:8]!r}, "
                f"expected {_MAGIC!r}.",
                hint="Give a file written by `forecaster train` or exported from the registry.",
            )
        _, digest, length = _HEAD.unpack_from(content)
        if hashlib.sha256(content[40:]).digest() != digest:
            raise ArtifactMismatch(
                f"{origin} is damaged: its checksum does not match its {len(content)} bytes.",
                hint="Restore the file from a backup or train again.",
            )
        return cls.from_parts(content[_HEAD.size : _HEAD.size + length], content[_HEAD.size + length :], origin=origin)

    @classmethod
    def from_parts(cls, manifest_bytes: bytes, weights: bytes, *, origin: str) -> ModelArtifact:
        """Put a manifest, as JSON, and weights together again; ``origin`` begins the messages.

        Raises:
            ArtifactMismatch: the manifest cannot be read or is of another format, or names other weights.
        """
        try:
            version = msgspec.json.decode(manifest_bytes, type=_Versioned).format_version
            if version not in _READABLE:
                raise ArtifactMismatch(
                    f"{origin} has artifact format {version}, this program reads formats "
                    f"{', '.join(map(str, _READABLE))}.",
                    hint="Use the version of forecaster that wrote it, or train again.",
                )
            # In memory a manifest is always of the present format: what an older one lacks has its default.
            manifest = msgspec.structs.replace(
                msgspec.json.decode(manifest_bytes, type=Manifest), format_version=FORMAT_VERSION
            )
        except msgspec.DecodeError as error:
            raise ArtifactMismatch(
                f"{origin} has a manifest that cannot be read: {error}", hint="Train again, or export it once more."
            ) from error
        if hashlib.sha256(weights).hexdigest() != manifest.sha256:
            raise ArtifactMismatch(
                f"{origin} holds other weights than its manifest names.", hint="Restore the file from a backup."
            )
        return cls(manifest, weights)

    def save(self, path: Path) -> None:
        """Write to ``path`` so that a crash at any moment leaves the old file or the new one, whole."""
        write_atomically(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> ModelArtifact:
        """Read what `save` wrote.

        Raises:
            ArtifactMismatch: there is no such file, or it is none of ours; the message says which.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ArtifactMismatch(
                f"Model artifact {path} cannot be read: {error.strerror}.", hint="Check the path and its permissions."
            ) from error
        return cls.from_bytes(content, origin=str(path))


class _Versioned(msgspec.Struct):
    format_version: int


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file by way of a temporary neighbour, fsync and rename; the directory is synced too.

    Raises:
        OSError: the disk refuses; no partial file is left under ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
