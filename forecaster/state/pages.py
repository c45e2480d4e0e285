"""State pages: rows of a stream table as bytes, and back.

A page holds the rows of up to ``PAGE_SLOTS`` neighbouring slots as they were when every record before ``offset`` had
been taken in, and none after. A page none of whose slots has an owner is not written; its key gets a tombstone. All
numbers are little-endian::

    offset  size  what
    0       4     magic, b"FCSP"
    4       2     format version, 4
    6       2     slots in the page, n
    8       4     page number; the first slot is number * PAGE_SLOTS
    12      8     source offset
    20      16    schema of the columns, ASCII hex (`StreamTable.schema`)
    36      4     length of the description, i
    40      4     length of the rows, r
    44      4     CRC-32 of everything but these four bytes
    48      i     description, JSON:
                  {"names": one string per slot, null where nobody owns it,
                   "model": version of the network that served at the offset, null before the first,
                   "columns": [[name, dtype, shape], …],
                   "labels": {name of a column: names of the places of its last axis}}
    48+i    r     rows: of each column in turn, the rows of the owned slots, as its dtype has them

Which network a row's hidden state belongs to stands in the row (column ``model``).

Formats 1 to 3 are read too. Format 3 has no labels (`format_3_labels`). The columns of 1 and 2 are those of
`former_columns`; the description of format 1 is the array of names alone, and its rows are those of all n slots. What
may differ between page and table: a column that the page does not have begins with its `Column.fill`; the places of a
column with labels go by these (`state/upgrade.py` `placed_by_label`), as when an expert came since. A column the table
does not have, or has in another type or shape, is refused, as is whatever is cut off or flipped: by name, as
`PageCorrupt`. Decision 0009 says why.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from forecaster.errors import PageCorrupt
from forecaster.series.columns import Column
from forecaster.state.streams import SCRATCH, StreamTable, schema_of
from forecaster.state.upgrade import format_3_labels, former_columns, placed_by_label, upgraded

PAGE_SLOTS = 32

_MAGIC = b"FCSP"
_VERSION = 4
_UNLABELLED = 3
_READABLE = (1, 2, 3, 4)
_HEAD = struct.Struct("<4sHHIq16sIII")
_CHECKSUM = slice(44, 48)
_HINT = "The state topic holds bytes that this program did not write so; the runbook says how to begin without them."
_SETTINGS_HINT = (
    "Settings that shape a stream's state changed: forecast.horizon, forecast.quantiles, streams.ring_steps, "
    "readings.covariates, readings.known_ahead, model.cell, model.layers or model.hidden. Go back to those it was "
    "written under, or begin without what was learnt: `forecaster reset`."
)
_FORMAT_1_COLUMNS = frozenset(
    {
        *("clock", "last", "step", "intervals", "readings", "repeats"),
        *("value", "anchor", "tick", "seen", "level", "scale", "scale_long", "change", "since_observed", "season"),
        *("ring", "ring_elapsed", "covariate_mean", "covariate_spread", "covariate_seen", "ring_covariates"),
        *("hidden", "model", "pending_tick", "pending", "regret", "inverse_rate", "regret_bound", "log_width"),
        *("recent_error", "recent_naive_error", "recent_covered", "recent_settled", "status"),
    }
)
"""All that a program of format 1 could have remembered: its pages do not say what they hold."""
_PASSING = ("told_", "former_")
"""Columns that are there under some settings only and are given up with them (`engine/withholding.py`,
`experts/former.py`): what a program without them reads over."""


class Page(NamedTuple):
    """A page that was read, found whole, and fits the table it was read for."""

    number: int
    offset: int
    format: int
    model: str | None
    """Network that served at the offset; ``None`` where there was none, or in format 1, which does not say."""
    names: list[str | None]
    rows: dict[str, npt.NDArray[Any]]
    """By column, the rows of the slots that have a name, in their order; columns written later are absent."""


class _Description(msgspec.Struct, frozen=True):
    names: list[str | None]
    model: str | None
    columns: list[tuple[str, str, tuple[int, ...]]]
    labels: dict[str, tuple[str, ...]] = {}


def page_key(number: int) -> str:
    """Key of a page in the state topic."""
    return f"page/{number}"


def encode_page(table: StreamTable, number: int, offset: int, *, model: str | None) -> bytes | None:
    """Page ``number`` of a table whose state stands before source ``offset``; ``None`` where it holds no stream.

    Args:
        model: version of the network that serves at the offset.
    """
    first = number * PAGE_SLOTS
    names = [table.owner(slot) for slot in range(first, min(first + PAGE_SLOTS, table.capacity))]
    owned = np.array([slot for slot, name in enumerate(names, first) if name is not None], np.int64)
    if not len(owned):
        return None
    columns = [(column.name, np.dtype(column.dtype).str, column.shape) for column in table.columns]
    labels = {column.name: column.labels for column in table.columns if column.labels}
    description = msgspec.json.encode(_Description(names, model, columns, labels))
    rows = b"".join(table.arrays[column.name][owned].tobytes() for column in table.columns)
    schema = table.schema.encode()
    head = _HEAD.pack(_MAGIC, _VERSION, len(names), number, offset, schema, len(description), len(rows), 0)
    return _sealed(head + description + rows)


def decode_page(content: bytes, table: StreamTable) -> Page:
    """A page from its bytes, for a table that need not hold anything.

    Raises:
        PageCorrupt: the bytes are no page, are damaged, or hold what this table has no place for.
    """
    if len(content) < _HEAD.size or content[:4] != _MAGIC:
        raise PageCorrupt(f"{len(content)} bytes are no state page.", hint=_HINT)
    _, version, count, number, offset, schema_bytes, text_length, rows_length, _ = _HEAD.unpack_from(content)
    if content[_CHECKSUM] != _checksum(content):
        raise PageCorrupt(f"State page {number} at offset {offset} does not match its checksum.", hint=_HINT)
    if version not in _READABLE:
        raise PageCorrupt(
            f"State page {number} has format {version}; this program reads 1 to {_VERSION}.",
            hint="It was written by another version of the program: run that one, or `forecaster reset`.",
        )
    text, schema = content[_HEAD.size : _HEAD.size + text_length], schema_bytes.decode("ascii", "replace")
    known = table.columns if version >= _UNLABELLED else former_columns(table.columns)
    columns: Sequence[Column]
    try:
        if version == 1:
            names, model = msgspec.json.decode(text, type=list[str | None]), None
            columns = _format_1_columns(number, schema, known)
        else:
            description = msgspec.json.decode(text, type=_Description)
            names, model = description.names, description.model
            columns = _own_columns(number, version, schema, description, known)
    except msgspec.DecodeError as error:
        raise PageCorrupt(f"The description of state page {number} cannot be read: {error}.", hint=_HINT) from error
    owned = [row for row, name in enumerate(names) if name is not None]
    held = count if version == 1 else len(owned)
    if (
        _HEAD.size + text_length + rows_length != len(content)
        or rows_length != held * sum(column.row_bytes for column in columns)
        or len(names) != count
        or (number * PAGE_SLOTS == SCRATCH and names and names[SCRATCH] is not None)
    ):
        raise PageCorrupt(f"State page {number} has {len(content)} bytes, not what its head says.", hint=_HINT)
    rows = _split(content[_HEAD.size + text_length :], columns, held)
    if version == 1:
        rows = {name: array[owned] for name, array in rows.items()}
    rows = upgraded(rows, table.columns) if version < _UNLABELLED else placed_by_label(rows, columns, table.columns)
    return Page(number, offset, version, model, names, rows)


def restore_page(table: StreamTable, page: Page) -> list[int]:
    """Put a page's rows into a table; returns the slots that streams own now.

    A stream that another page has put into the table already is left where it is: restore newer pages first.
    """
    slots, taken = [], []
    row = 0
    for slot, name in enumerate(page.names, page.number * PAGE_SLOTS):
        if name is None:
            continue
        if table.find(name) is None:
            table.adopt(slot, name)
            slots.append(slot)
            taken.append(row)
        row += 1
    for column in table.columns:
        stored = page.rows.get(column.name)
        table.arrays[column.name][slots] = column.fill if stored is None else stored[taken]
    return slots


def _format_1_columns(number: int, schema: str, known: Sequence[Column]) -> list[Column]:
    """The columns of a page of format 1: it does not name them, but their hash has to be this."""
    columns = [column for column in known if column.name in _FORMAT_1_COLUMNS]
    if schema_of(columns) != schema:
        raise PageCorrupt(
            f"State page {number}, format 1, was written under schema {schema}; under its settings this program would "
            f"have written {schema_of(columns)}.",
            hint=_SETTINGS_HINT,
        )
    return columns


def _own_columns(
    number: int, version: int, schema: str, description: _Description, known: Sequence[Column]
) -> Sequence[Column]:
    """The columns of a page, as a table of its format has them; each that the page names has its place there."""
    if schema == schema_of(known):
        return known
    ours = {column.name: column for column in known}
    for name, dtype, shape in description.columns:
        if name not in ours and name.startswith(_PASSING):
            ours[name] = Column(name, dtype, tuple(shape))
        column = ours.get(name)
        if column is None:
            raise PageCorrupt(
                f"State page {number} was written under schema {schema} and holds column {name!r}, "
                "which this program does not know.",
                hint=_SETTINGS_HINT,
            )
        width = shape[-1] if shape else 0
        labels = description.labels.get(name, ()) if version == _VERSION else format_3_labels(column, width)
        if column.labels and len(labels) == width:
            ours[name] = column = column._replace(shape=(*column.shape[:-1], width), labels=labels)
        if (np.dtype(column.dtype).str, column.shape) != (dtype, shape):
            raise PageCorrupt(
                f"State page {number} was written under schema {schema} and holds column {name!r} as {dtype} of shape "
                f"{shape}, this program keeps {np.dtype(column.dtype).str} of shape {column.shape}.",
                hint=_SETTINGS_HINT,
            )
    return [ours[name] for name, _, _ in description.columns]


def _split(content: bytes, columns: Iterable[Column], count: int) -> dict[str, npt.NDArray[Any]]:
    """Arrays ``[count, *shape]`` that lie one behind the other."""
    rows, start = {}, 0
    for column in columns:
        length = count * int(np.prod(column.shape, dtype=np.int64))
        array = np.frombuffer(content, column.dtype, length, start)
        rows[column.name] = array.reshape(count, *column.shape)
        start += array.nbytes
    return rows


def _sealed(page: bytes) -> bytes:
    return page[: _CHECKSUM.start] + _checksum(page) + page[_CHECKSUM.stop :]


def _checksum(page: bytes) -> bytes:
    """CRC-32 of everything around the place where it stands."""
    whole = memoryview(page)
    return struct.pack("<I", zlib.crc32(whole[_CHECKSUM.stop :], zlib.crc32(whole[: _CHECKSUM.start])))
