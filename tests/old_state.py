"""State as earlier versions of the program wrote it, kept as they were: what a new version has to go on from."""

from __future__ import annotations

import json
import struct
import zlib

from forecaster.engine.journal import decode_meta
from forecaster.engine.keeper import META_KEY, SWITCH_PREFIX
from forecaster.records import StateRecord
from forecaster.state.streams import StreamTable


def format_1_page(table: StreamTable, number: int, offset: int) -> bytes:
    """A page of format 1: names alone, and the rows of all 32 slots whether owned or not."""
    first = number * 32
    count = min(32, table.capacity - first)
    names = json.dumps([table.owner(slot) for slot in range(first, first + count)], separators=(",", ":")).encode()
    rows = b"".join(table.arrays[column.name][first : first + count].tobytes() for column in table.columns)
    head = struct.pack("<4sHHIq16sII", b"FCSP", 1, count, number, offset, table.schema.encode(), len(names), len(rows))
    return head + struct.pack("<I", zlib.crc32(names + rows, zlib.crc32(head))) + names + rows


def as_format_3(page: bytes) -> bytes:
    """A page of the present format as one of format 3: whose numbers a column holds was not told."""
    length = struct.unpack_from("<I", page, 36)[0]
    description = json.loads(page[48 : 48 + length])
    del description["labels"]
    text, rows = json.dumps(description, separators=(",", ":")).encode(), page[48 + length :]
    head = page[:4] + struct.pack("<H", 3) + page[6:36] + struct.pack("<II", len(text), len(rows))
    return head + struct.pack("<I", zlib.crc32(text + rows, zlib.crc32(head))) + text + rows


def sealed_meta(fields: dict[str, object]) -> bytes:
    """A meta record that holds just these fields."""
    content = json.dumps(fields).encode()
    return b"FCSM" + zlib.crc32(content).to_bytes(4, "little") + content


def as_format_1(record: StateRecord, table: StreamTable, offset: int) -> StateRecord:
    """What format 1 wrote in the place of a record that the present program exported at ``offset``."""
    if record.value is not None and record.key == META_KEY:
        fields = json.loads(record.value[8:])
        assert decode_meta(record.value).format == 3
        del fields["terms"], fields["pages"], fields["labels"], fields["heard"]
        return StateRecord(META_KEY, sealed_meta({**fields, "format": 1}))
    if record.value is None or record.key.startswith(SWITCH_PREFIX):  # format 1 had none; a restore passes over them
        return record
    return StateRecord(record.key, format_1_page(table, int(record.key.removeprefix("page/")), offset))
