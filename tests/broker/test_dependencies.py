"""What kafka-python finds beside it decides whether it is fast, and whether it stands still."""

from __future__ import annotations

import crc32c
import pytest
from kafka import codec
from kafka.record import util


def test_checksums_are_computed_by_the_crc32c_wheel() -> None:
    """The pure-Python fallback does 2.5 MB/s. Castagnoli's check value shows that both mean the same sum."""
    assert util.crc32c_c is crc32c.crc32c
    assert util.calc_crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("name", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_a_producer_may_use_is_installed(name: str) -> None:
    """A batch in a codec that is not installed makes the client's poll spin for ever."""
    assert getattr(codec, f"has_{name}")()
