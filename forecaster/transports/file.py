"""Files as a source of readings, and as a sink of answers."""

from __future__ import annotations

import itertools
import json
import logging
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from forecaster.errors import ConfigurationError, DeliveryFailed, TransportError
from forecaster.ports import AssignmentListener, Sink
from forecaster.records import OutRecord, RawRecord
from forecaster.transports.readings import RowEncoder, merge_rows
from forecaster.transports.tables import COMMON_FORMS, Row, TableLayout, open_tables

log = logging.getLogger(__name__)


class FileSource:
    """A `Source` over CSV and JSON-lines files: rows of all files by event time, each as the JSON bytes of a reading.

    Rows keep their order inside a file, so duplicates and steps back in time get through. The record's key is the
    stream id, its offset the number of the row in its partition, its own time absent. Reads as it goes: memory is one
    row a file. Never waits. Commits are kept in memory only; a new source begins at the first row.

    Args:
        paths: files, or directories with tables below them.
        layout: what the headers do not say.
        topic: name of the source.
        partitions: how many; a stream's is ``crc32(id) % partitions``.

    Raises:
        ConfigurationError: a file is absent, empty, or its columns cannot be told apart.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        layout: TableLayout = COMMON_FORMS,
        topic: str = "readings",
        partitions: int = 1,
    ) -> None:
        self.topic = topic
        self.tables = open_tables(paths, layout)
        self.committed: dict[int, int] = {}
        """Partition -> next offset, as last committed."""
        self._records = _records(merge_rows(self.tables), RowEncoder(layout), topic, partitions)
        self._ahead: list[RawRecord] = []
        self._failure: TransportError | None = None
        self._partitions = tuple(range(partitions))
        self._listener: AssignmentListener | None = None
        self._has_begun = False
        self._is_exhausted = False
        self._is_closed = False

    def subscribe(self, listener: AssignmentListener) -> None:
        if self._listener is not None:
            raise TransportError(f"Source {self.topic} has a subscriber already.", hint="Subscribe once.")
        self._listener = listener

    def poll(self, max_records: int, timeout_seconds: float) -> list[RawRecord]:
        if self._is_closed:
            raise TransportError(f"Source {self.topic} is closed.")
        if self._listener is None:
            raise TransportError(f"Source {self.topic} has no subscriber.", hint="Call subscribe before poll.")
        if not self._has_begun:
            self._has_begun = True
            self._listener.assigned(self._partitions)
            return []
        if self._failure is not None:
            raise self._failure
        # one record is read ahead, so that the last poll with records is also the one that ends the source
        try:
            for record in itertools.islice(self._records, max_records + 1 - len(self._ahead)):
                self._ahead.append(record)
        except TransportError as error:  # what was read before the damage is handed over first
            if not self._ahead:
                raise
            self._failure = error
        records, self._ahead = self._ahead[:max_records], self._ahead[max_records:]
        self._is_exhausted = not self._ahead and self._failure is None
        return records

    def commit(self, offsets: Mapping[int, int]) -> None:
        foreign = sorted(set(offsets) - set(self._partitions))
        if foreign or self._is_closed or not self._has_begun:
            raise TransportError(f"Commit of partitions {foreign or sorted(offsets)} of {self.topic}, not assigned.")
        self.committed.update(offsets)

    def lag(self) -> Mapping[int, int]:
        """Nothing is known to be waiting: files are read as one goes."""
        return dict.fromkeys(self._partitions, 0) if self._has_begun and not self._is_closed else {}

    def is_exhausted(self) -> bool:
        return self._is_exhausted

    def close(self) -> None:
        if self._is_closed:
            return
        if self._has_begun and self._listener is not None:
            self._listener.revoked(self._partitions)
        self._is_closed = True


class FileSink(Sink):
    """A `Sink` that writes lines: the value of every record of some topics, and whole records of others.

    A whole record is a JSON object with key, value and headers; bytes that are not UTF-8 are written with ``\\\\x``
    escapes. Records of topics that have no file are left out. A flush brings lines to the disk.

    Args:
        values: topic -> file that gets its records' values, one a line; an existing file is replaced.
        whole_records: topic -> file that gets its records whole, as dead letters need.

    Raises:
        ConfigurationError: a file cannot be written.
    """

    def __init__(self, values: Mapping[str, Path], *, whole_records: Mapping[str, Path] | None = None) -> None:
        self._values = {topic: _create(path) for topic, path in values.items()}
        self._whole = {topic: _create(path) for topic, path in (whole_records or {}).items()}
        self._is_closed = False

    def send(self, record: OutRecord) -> None:
        if self._is_closed:
            raise TransportError(f"Record for {record.topic} was sent to a closed sink.")
        if record.topic in self._values:
            file, line = self._values[record.topic], record.value or b"null"
        elif record.topic in self._whole:
            file, line = self._whole[record.topic], _whole_line(record)
        else:
            return
        try:
            file.write(line + b"\n")
        except OSError as error:
            raise DeliveryFailed(f"File {file.name} cannot be written: {error}.", hint="Is the disk full?") from error

    def flush(self, timeout_seconds: float) -> None:
        for file in self._files():
            try:
                file.flush()
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe has nothing to bring to a disk
                    os.fsync(file.fileno())
            except OSError as error:
                raise DeliveryFailed(
                    f"File {file.name} cannot be written: {error}.", hint="Is the disk full?"
                ) from error

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            for file in self._files():
                try:
                    file.close()
                except OSError as error:  # the file is closed all the same
                    log.warning("file closed with lines not written", extra={"file": file.name, "error": str(error)})

    def _files(self) -> list[IO[bytes]]:
        return [*self._values.values(), *self._whole.values()]


def _records(rows: Iterator[Row], encoder: RowEncoder, topic: str, partitions: int) -> Iterator[RawRecord]:
    offsets = [0] * partitions
    for row in rows:
        key, value = encoder.encode(row)
        partition = zlib.crc32(key) % partitions if partitions > 1 else 0
        yield RawRecord(topic, partition, offsets[partition], -1.0, key, value)
        offsets[partition] += 1


def _create(path: Path) -> IO[bytes]:
    try:
        return path.open("wb")
    except OSError as error:
        raise ConfigurationError(
            f"File {path} cannot be written: {error}.", hint="Does its directory exist?"
        ) from error


def _whole_line(record: OutRecord) -> bytes:
    headers = {name: _text(value) for name, value in record.headers}
    return json.dumps({"key": _text(record.key), "value": _text(record.value), "headers": headers}).encode()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
