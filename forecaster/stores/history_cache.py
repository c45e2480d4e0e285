"""Blocks of history that were read and decoded before, on disk: a saving, never a second source of truth.

One file a block, ``<identity>/<partition>-<first offset>.block``, little endian::

    0   8   magic  b"FCBLOCK\\n"
    8  32   sha256 of everything that follows
   40   …   safetensors: the columns, and as metadata where they come from and the streams' names

What is damaged, or of another topic, other settings or another program, is deleted with a warning and read from the
topic again. safetensors rather than Parquet, because it is here anyhow and holds nothing that could be run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from forecaster.models.artifact import write_atomically
from forecaster.training.blocks import HistoryBlock

log = logging.getLogger(__name__)

_MAGIC = b"FCBLOCK\n"
_HEAD_BYTES = len(_MAGIC) + 32
_FORMAT = 2


class HistoryCache:
    """Blocks by partition and first offset. Several processes may share a directory.

    Args:
        directory: made with the first block that is kept.
        identity: all that decides what a block holds: topic, how its records are decoded, version of the program.
            Blocks of another identity are not seen.
        max_bytes: of the directory, all identities together; those used longest ago are deleted.
    """

    def __init__(self, directory: Path, *, identity: Mapping[str, str], max_bytes: int) -> None:
        self._root, self._max_bytes = directory, max_bytes
        self._identity = json.dumps({**identity, "format": str(_FORMAT)}, sort_keys=True)
        self._directory = directory / hashlib.sha256(self._identity.encode()).hexdigest()[:16]
        self._has_warned = False

    def get(self, partition: int, first: int, end: int) -> HistoryBlock | None:
        """The block of the records from ``first`` up to and without ``end``; ``None`` where it has to be read."""
        path = self._path(partition, first)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(path, str(error))
            return None
        try:
            block = self._parsed(content, partition, first, end)
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            self._refuse(path, str(error))
            return None
        with contextlib.suppress(OSError):  # when it was used last is a hint, no more
            os.utime(path)
        return block

    def put(self, partition: int, first: int, end: int, block: HistoryBlock) -> None:
        """Keep a block; where that fails, a warning says so once, and the block is read again another time."""
        arrays = {
            name: np.ascontiguousarray(getattr(block, name))
            for name in ("stream", "offsets", "times", "values", "covariates", "future")
        }
        metadata = {
            "identity": self._identity,
            "span": json.dumps([partition, first, end]),
            "names": json.dumps(block.names),
            "forgotten": json.dumps(block.forgotten),
        }
        body = safetensors.numpy.save(arrays, metadata)
        path = self._path(partition, first)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, _MAGIC + hashlib.sha256(body).digest() + body)
            self._make_room()
        except OSError as error:
            self._warn(path, str(error))

    def _parsed(self, content: bytes, partition: int, first: int, end: int) -> HistoryBlock:
        body = content[_HEAD_BYTES:]
        if content[:_HEAD_BYTES] != _MAGIC + hashlib.sha256(body).digest():
            raise ValueError("it is damaged: its checksum is another")
        size = int.from_bytes(body[:8], "little")
        metadata = json.loads(body[8 : 8 + size])["__metadata__"]
        if metadata["identity"] != self._identity or json.loads(metadata["span"]) != [partition, first, end]:
            raise ValueError(f"it is from elsewhere: records {metadata['span']} of {metadata['identity']}")
        arrays = safetensors.numpy.load(body)
        return HistoryBlock(
            names=tuple(json.loads(metadata["names"])),
            forgotten=tuple((int(offset), str(record_id)) for offset, record_id in json.loads(metadata["forgotten"])),
            **arrays,
        )

    def _path(self, partition: int, first: int) -> Path:
        return self._directory / f"{partition}-{first}.block"

    def _refuse(self, path: Path, reason: str) -> None:
        log.warning("cached history is not used and read again", extra={"path": str(path), "reason": reason})
        try:
            path.unlink()
        except OSError as error:
            self._warn(path, str(error))

    def _warn(self, path: Path, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("history cannot be cached", extra={"path": str(path), "reason": reason})

    def _make_room(self) -> None:
        """Delete the blocks used longest ago until the rest fits."""
        found = []
        for path in self._root.glob("*/*.block"):
            with contextlib.suppress(FileNotFoundError):  # another process made room as well
                about = path.stat()
                found.append((about.st_mtime_ns, about.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
