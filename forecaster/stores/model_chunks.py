"""How models and decisions are laid out in a compacted topic: keys, and models cut into chunks.

==============================  =====================================================================================
key                             value
==============================  =====================================================================================
``model/<version>/<k>``         chunk k of the artifact, from 0, five digits: magic ``FCCHUNK\\n``, sha256 of what
                                follows, k and the number of chunks (4 bytes each, little endian), bytes
``model/<version>``             `ModelHead`, JSON: written after the chunks, in their transaction
``decision/<number>``           `RegistryRecord`, JSON, and which ``write`` it came with; ten digits
``live/<number>/<partition>``   `LiveScore`, JSON: of the trial that decision began; written over as it goes, outside of
                                any transaction
``request``                     `TrainingRequest`, JSON: the newest wish for a training; written like a live score
``group/<name>/decision/<n>``   `RegistryRecord` about a group other than the default, numbered with all others; under a
                                key that a program without groups passes over, instead of taking it for its own
``group/<name>/request``        `TrainingRequest` of such a group
==============================  =====================================================================================

A decision's key is its own, so compaction keeps all of them; a model's goes with tombstones for each of its keys.
"""

from __future__ import annotations

import hashlib
import re
import struct
from typing import NamedTuple

import msgspec

from forecaster.errors import ArtifactMismatch, TransportError
from forecaster.models.artifact import Manifest, ModelArtifact
from forecaster.models.decisions import RegistryRecord
from forecaster.series.groups import DEFAULT

FORMAT_VERSION = 1
Entry = tuple[str, bytes | None]

_MAGIC = b"FCCHUNK\n"
_HEADER = struct.Struct("<8s32sII")
_KEY = re.compile(
    r"(?:model/(?P<version>[a-z]+-\d{8}T\d{6}-[0-9a-f]{6})(?:/(?P<chunk>\d{5}))?"
    r"|live/(?P<trial>\d{10})/(?P<partition>\d{1,10})"
    r"|(?:group/(?P<group>[a-z0-9][a-z0-9-]*)/)?(?:decision/(?P<number>\d{10})|(?P<request>request)))"
)
_MAX_CHUNKS = 100_000


class ModelHead(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model without its chunks."""

    format: int
    version: str
    size: int
    """Bytes of the artifact."""
    chunks: int
    sha256: str
    """Of the artifact."""
    manifest: Manifest


class Key(NamedTuple):
    """What a record is about: a chunk, a head (no ``chunk``), a decision (a ``number``), a live score or a request."""

    version: str | None = None
    chunk: int | None = None
    number: int | None = None
    live: tuple[int, int] | None = None
    """Trial and partition."""
    group: str = DEFAULT
    """Of a decision or a request."""
    is_request: bool = False


def head_key(version: str) -> str:
    """Key of a model's head."""
    return f"model/{version}"


def chunk_key(version: str, index: int) -> str:
    """Key of one of a model's chunks."""
    return f"model/{version}/{index:05d}"


def decision_key(number: int, group: str = DEFAULT) -> str:
    """Key of a decision."""
    return f"{_of_group(group)}decision/{number:010d}"


def request_key(group: str = DEFAULT) -> str:
    """Key of the newest wish for a training."""
    return f"{_of_group(group)}request"


def live_key(trial: int, partition: int) -> str:
    """Key of a partition's score of a trial."""
    return f"live/{trial:010d}/{partition}"


def parse_key(key: str) -> Key | None:
    """The opposite of the five; ``None`` for keys that are none of ours.

    >>> parse_key("model/gru-20260101T000000-ab12cd/00003")
    Key(version='gru-20260101T000000-ab12cd', chunk=3, number=None, live=None, group='', is_request=False)
    >>> parse_key("decision/0000000012").number, parse_key("group/pumps/decision/0000000012").group, parse_key("hello")
    (12, 'pumps', None)
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    chunk, number, trial = match["chunk"], match["number"], match["trial"]
    return Key(
        match["version"],
        None if chunk is None else int(chunk),
        None if number is None else int(number),
        None if trial is None else (int(trial), int(match["partition"])),
        match["group"] or DEFAULT,
        match["request"] is not None,
    )


def encode_model(artifact: ModelArtifact, *, max_value_bytes: int) -> list[Entry]:
    """A model as records: its chunks, then its head.

    Raises:
        TransportError: ``max_value_bytes`` leaves no room for the head, or for any model of this size.
    """
    content = artifact.to_bytes()
    share = max_value_bytes - _HEADER.size
    count = -(-len(content) // share) if share > 0 else _MAX_CHUNKS + 1
    head = ModelHead(
        format=FORMAT_VERSION,
        version=artifact.version,
        size=len(content),
        chunks=count,
        sha256=hashlib.sha256(content).hexdigest(),
        manifest=artifact.manifest,
    )
    encoded = msgspec.json.encode(head)
    if count > _MAX_CHUNKS or len(encoded) > max_value_bytes:
        raise TransportError(
            f"Model {artifact.version} of {len(content):,} bytes, with {len(encoded):,} bytes of manifest, does not go "
            f"into records of {max_value_bytes:,} bytes.",
            hint="Raise max.message.bytes of the models topic; Kafka's default is 1048588.",
        )
    entries: list[Entry] = []
    for index in range(count):
        body = struct.pack("<II", index, count) + content[index * share : (index + 1) * share]
        entries.append((chunk_key(artifact.version, index), _MAGIC + hashlib.sha256(body).digest() + body))
    return [*entries, (head_key(artifact.version), encoded)]


def decode_chunk(value: bytes, *, index: int, count: int, origin: str) -> bytes:
    """Content of a chunk.

    Raises:
        ArtifactMismatch: it is damaged, none of ours, or another than asked for.
    """
    if len(value) < _HEADER.size or not value.startswith(_MAGIC):
        raise ArtifactMismatch(f"{origin} is not a chunk of a model.", hint=MEND_HINT)
    _, digest, found, of = _HEADER.unpack_from(value)
    if hashlib.sha256(value[40:]).digest() != digest:
        raise ArtifactMismatch(
            f"{origin} is damaged: its checksum does not match its {len(value):,} bytes.", hint=MEND_HINT
        )
    if (found, of) != (index, count):
        raise ArtifactMismatch(
            f"{origin} says it is chunk {found} of {of}, expected {index} of {count}.", hint=MEND_HINT
        )
    return value[_HEADER.size :]


def decode_head(value: bytes, *, version: str, origin: str) -> ModelHead:
    """A model's head.

    Raises:
        ArtifactMismatch: it is none of ours, of another format, or another model's.
    """
    try:
        written = msgspec.json.decode(value, type=_Formatted).format
        if written != FORMAT_VERSION:
            raise ArtifactMismatch(
                f"{origin} has registry format {written}, this program reads format {FORMAT_VERSION}.",
                hint="Use the version of forecaster that wrote it.",
            )
        head = msgspec.json.decode(value, type=ModelHead)
    except msgspec.DecodeError as error:
        raise ArtifactMismatch(f"{origin} cannot be read: {error}", hint=MEND_HINT) from error
    if head.version != version or head.manifest.version != version or not 0 < head.chunks <= _MAX_CHUNKS:
        raise ArtifactMismatch(
            f"{origin} speaks of {head.version} in {head.chunks} chunks, with the manifest of {head.manifest.version}.",
            hint=MEND_HINT,
        )
    return head


def encode_decision(record: RegistryRecord, write: str) -> Entry:
    """A decision as a record.

    Args:
        write: unlike any other's, so that a writer knows its own record from one of another who decided the same.
    """
    return decision_key(record.number, record.group), msgspec.json.encode(
        _Written(**msgspec.structs.asdict(record), write=write)
    )


def decode_decision(value: bytes, *, key: Key, origin: str) -> RegistryRecord:
    """A decision.

    Raises:
        TransportError: it is none of ours, or another than its key says.
    """
    try:
        record = msgspec.json.decode(value, type=RegistryRecord)
    except msgspec.DecodeError as error:
        raise TransportError(f"{origin} cannot be read: {error}", hint=_DECISION_HINT) from error
    if (record.number, record.group) != (key.number, key.group):
        of = f" of group {record.group}" if record.group else ""
        raise TransportError(f"{origin} has the number {record.number}{of} within.", hint=_DECISION_HINT)
    return record


def join(head: ModelHead, chunks: list[bytes], *, origin: str) -> ModelArtifact:
    """The model whose content these are, in order.

    Raises:
        ArtifactMismatch: they are not what the head speaks of.
    """
    content = b"".join(chunks)
    if len(content) != head.size or hashlib.sha256(content).hexdigest() != head.sha256:
        raise ArtifactMismatch(
            f"{origin} is damaged: its {len(content):,} bytes are not the {head.size:,} that were written.",
            hint=MEND_HINT,
        )
    artifact = ModelArtifact.from_bytes(content, origin=origin)
    if artifact.version != head.version:
        raise ArtifactMismatch(f"{origin} holds model {artifact.version}.", hint=MEND_HINT)
    return artifact


def _of_group(group: str) -> str:
    return f"group/{group}/" if group else ""


MEND_HINT = "`forecaster models import` of an export of it mends it; or promote another."
_DECISION_HINT = (
    "A later version of forecaster may have written it: then update this one. Otherwise write a decision anew with "
    "`forecaster models promote` from a registry that holds the models."
)


class _Written(RegistryRecord, frozen=True, kw_only=True):
    write: str


class _Formatted(msgspec.Struct):
    format: int
