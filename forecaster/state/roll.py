"""Which pages were written and at which offset, summed up in two numbers: one that is gone or stale shows."""

from __future__ import annotations

import struct
import zlib

_ENTRY = struct.Struct("<qq")
_MODULUS = 1 << 32


class PageRoll:
    """Pages of one partition with the source offset of each; a change of one costs the same however many there are.

    >>> roll, same = PageRoll(), PageRoll()
    >>> roll.write(0, 10); roll.write(1, 10); roll.write(0, 20)
    >>> same.write(1, 10); same.write(0, 20)
    >>> roll.total() == same.total()
    True
    """

    def __init__(self) -> None:
        self._offsets: dict[int, int] = {}
        self._sum = 0

    def write(self, page: int, offset: int) -> None:
        """The page's newest record is of this offset."""
        self.remove(page)
        self._offsets[page] = offset
        self._sum = (self._sum + _weight(page, offset)) % _MODULUS

    def remove(self, page: int) -> None:
        """The page has no record, or a tombstone."""
        offset = self._offsets.pop(page, None)
        if offset is not None:
            self._sum = (self._sum - _weight(page, offset)) % _MODULUS

    def total(self) -> tuple[int, int]:
        """How many pages there are, and the sum, modulo 2^32, of the CRC-32 of each page's number and offset."""
        return len(self._offsets), self._sum


def _weight(page: int, offset: int) -> int:
    return zlib.crc32(_ENTRY.pack(page, offset))
