import gzip
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from forecaster.errors import ConfigurationError, TransportError
from forecaster.records import OutRecord, RawRecord
from forecaster.transports.file import FileSink, FileSource


class ListenerLog:
    def __init__(self) -> None:
        self.events: list[tuple[str, list[int]]] = []

    def assigned(self, partitions: Sequence[int]) -> None:
        self.events.append(("assigned", list(partitions)))

    def revoked(self, partitions: Sequence[int]) -> None:
        self.events.append(("revoked", list(partitions)))

    def lost(self, partitions: Sequence[int]) -> None:
        self.events.append(("lost", list(partitions)))


def write_days(path: Path, count: int) -> Path:
    path.write_text("timestamp,value\n" + "".join(f"2026-01-{day + 1:02},{day}\n" for day in range(count)))
    return path


def make_source(paths: list[Path], partitions: int = 1) -> tuple[FileSource, ListenerLog]:
    source, listener = FileSource(paths, partitions=partitions), ListenerLog()
    source.subscribe(listener)
    source.poll(1, 0)
    return source, listener


def read_on(source: FileSource) -> Iterator[RawRecord]:
    while not source.is_exhausted():
        yield from source.poll(7, 0)


def drain(source: FileSource) -> list[RawRecord]:
    return list(read_on(source))


def test_rows_come_as_readings_with_row_numbers_as_offsets(tmp_path: Path) -> None:
    source, listener = make_source([write_days(tmp_path / "a.csv", 2)])

    assert drain(source) == [
        RawRecord("readings", 0, 0, -1.0, b"a", b'{"stream_id":"a","timestamp":"2026-01-01T00:00:00Z","value":0.0}'),
        RawRecord("readings", 0, 1, -1.0, b"a", b'{"stream_id":"a","timestamp":"2026-01-02T00:00:00Z","value":1.0}'),
    ]
    assert listener.events == [("assigned", [0])]


def test_poll_that_brings_the_last_row_ends_the_source(tmp_path: Path) -> None:
    source, _ = make_source([write_days(tmp_path / "a.csv", 6)])

    sizes, ends = zip(*((len(source.poll(3, 0)), source.is_exhausted()) for _ in range(3)), strict=True)

    assert sizes == (3, 3, 0)
    assert ends == (False, True, True)


def test_streams_keep_their_partition_and_offsets_have_no_gap(tmp_path: Path) -> None:
    paths = [write_days(tmp_path / f"s{number}.csv", 5) for number in range(8)]
    source, _ = make_source(paths, partitions=3)

    records = drain(source)

    assert len(records) == 40
    assert len({(record.key, record.partition) for record in records}) == 8
    for partition in range(3):
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == list(range(len(offsets)))
        assert offsets


def test_rows_before_the_damage_in_a_file_are_delivered(tmp_path: Path) -> None:
    generator = random.Random(1)
    text = "timestamp,value\n" + "".join(f"{number},{generator.random()}\n" for number in range(20_000))
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(text.encode())[:-50_000])
    source, _ = make_source([path])

    records: list[RawRecord] = []
    with pytest.raises(TransportError, match="cannot be read after") as raised:
        records.extend(read_on(source))

    assert f"after {len(records)} readings" in str(raised.value)
    assert not source.is_exhausted()


def test_commits_are_remembered_while_the_source_lives(tmp_path: Path) -> None:
    source, _ = make_source([write_days(tmp_path / "a.csv", 2)])

    source.commit({0: 2})

    assert source.committed == {0: 2}
    with pytest.raises(TransportError, match="not assigned"):
        source.commit({1: 0})


def test_close_revokes_once(tmp_path: Path) -> None:
    source, listener = make_source([write_days(tmp_path / "a.csv", 2)])

    source.close()
    source.close()

    assert listener.events == [("assigned", [0]), ("revoked", [0])]
    with pytest.raises(TransportError, match="closed"):
        source.poll(1, 0)


def test_absent_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not there"):
        FileSource([tmp_path / "none.csv"])


# -- sink


def test_values_are_written_one_a_line(tmp_path: Path) -> None:
    sink = FileSink({"forecasts": tmp_path / "f.jsonl"})

    sink.send(OutRecord("forecasts", 0, b"a", b'{"x":1}'))
    sink.send(OutRecord("forecasts", 0, b"b", b'{"x":2}'))
    sink.flush(1)

    assert (tmp_path / "f.jsonl").read_bytes() == b'{"x":1}\n{"x":2}\n'
    sink.close()


def test_dead_letters_are_written_whole(tmp_path: Path) -> None:
    sink = FileSink({"forecasts": tmp_path / "f.jsonl"}, whole_records={"dlq": tmp_path / "d.jsonl"})

    sink.send(OutRecord("dlq", 0, None, b"\xff{", (("reason", b"not_json"),)))
    sink.close()

    line = json.loads((tmp_path / "d.jsonl").read_text())
    assert line == {"key": None, "value": "\\xff{", "headers": {"reason": "not_json"}}
    assert (tmp_path / "f.jsonl").read_bytes() == b""


def test_topic_without_a_file_is_left_out(tmp_path: Path) -> None:
    sink = FileSink({"forecasts": tmp_path / "f.jsonl"})

    sink.send(OutRecord("anomalies", 0, b"a", b"{}"))
    sink.close()

    assert (tmp_path / "f.jsonl").read_bytes() == b""


def test_file_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        FileSink({"forecasts": tmp_path / "none" / "f.jsonl"})


def test_closed_sink_takes_nothing(tmp_path: Path) -> None:
    sink = FileSink({"forecasts": tmp_path / "f.jsonl"})
    sink.close()
    sink.close()

    with pytest.raises(TransportError, match="closed"):
        sink.send(OutRecord("forecasts", 0, b"a", b"{}"))
