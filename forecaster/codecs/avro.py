"""Avro's single-object encoding: bytes that name their schema, so that no registry has to be asked.

    offset  size  what
    0       2     marker, C3 01; no UTF-8 text begins so
    2       8     CRC-64-AVRO of the schema's parsing canonical form, little-endian
    10      …     the value, as the schema says

Source: Apache Avro 1.12 specification, "Single-object encoding".
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import fastavro
from fastavro.schema import SchemaParseException, UnknownType, fingerprint, parse_schema, to_parsing_canonical_form

MARKER = b"\xc3\x01"
HEAD_BYTES = 10

Schema = Mapping[str, Any]


class AvroSchema:
    """A schema that bytes were written by.

    Logical types are left out of what is read: a time is the number that stands there.

    Raises:
        ValueError: it is no Avro schema.
    """

    def __init__(self, schema: Schema) -> None:
        try:
            self._parsed = parse_schema(_plain(schema))
            self.head = MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(dict(schema)), "CRC-64-AVRO"))
        except (SchemaParseException, UnknownType, KeyError, TypeError) as error:
            raise ValueError(f"no Avro schema: {error}") from error

    def read(self, content: bytes) -> dict[str, Any]:
        """The record behind the head.

        Raises:
            ValueError: the head is another schema's, or what follows is not one record of this one.
        """
        if content[:HEAD_BYTES] != self.head:
            raise ValueError(f"expected to begin with {self.head.hex()}, found {content[:HEAD_BYTES].hex()}")
        stream = io.BytesIO(content)
        stream.seek(HEAD_BYTES)
        try:
            found = fastavro.schemaless_reader(stream, self._parsed, None)
        except (
            EOFError,
            IndexError,
            OverflowError,
            ValueError,
        ) as error:  # what fastavro meets in cut or flipped bytes
            raise ValueError(f"the bytes do not follow their schema: {error}") from error
        if stream.tell() != len(content):
            raise ValueError(f"{len(content) - stream.tell()} bytes stand behind the record")
        assert isinstance(found, dict), "schemas of records alone are read here"
        return found

    def write(self, record: Mapping[str, Any]) -> bytes:
        """Head and record.

        Raises:
            ValueError: the record does not fit the schema.
        """
        stream = io.BytesIO()
        stream.write(self.head)
        try:
            fastavro.schemaless_writer(stream, self._parsed, record)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the record does not fit its schema: {error}") from error
        return stream.getvalue()


def _plain(schema: Any) -> Any:
    """The schema without logical types."""
    if isinstance(schema, Mapping):
        return {name: _plain(part) for name, part in schema.items() if name != "logicalType"}
    return [_plain(part) for part in schema] if isinstance(schema, list) else schema
