"""State as earlier programs left it: a worker takes it up and goes on.

``state_format_1.json`` is a partition of 33 streams after 350 records, written by a program of format 1: its state, the
CRC-32 of every column's rows in the order of pages and slots, some of each stream's numbers, and all 497 records.
``state_format_2.json`` and ``state_format_3.json`` are each a page and a meta record of their format; the two
``…_partition.json`` are the same partition as that of format 1, as programs of these formats took it over.
``state_format_4.json`` is a page of format 4, whose meta record is that of 3; it is made anew by
``PYTHONPATH=tests python tests/golden/test_state.py``, after a change of the format alone.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_pipeline, make_recurrent, make_task
from msgspec.structs import replace

from forecaster.clock import ManualClock
from forecaster.engine.journal import TaskMeta, decode_meta, encode_meta
from forecaster.engine.keeper import META_KEY, StateKeeper
from forecaster.engine.task import PartitionTask
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.records import OutRecord, RawRecord, StateRecord
from forecaster.series.columns import Column
from forecaster.state.pages import decode_page, encode_page
from forecaster.state.streams import StreamTable

HERE = Path(__file__).parent


class Partition:
    """The partition of the golden file, under the settings it was kept under."""

    def __init__(self) -> None:
        golden = json.loads((HERE / "state_format_1.json").read_text())
        self.committed: int = golden["committed"]
        self.streams: dict[str, dict[str, Any]] = golden["streams"]
        self.crc32: dict[str, int] = golden["crc32"]
        self.state = [StateRecord(key, base64.b64decode(value)) for key, value in golden["state"].items()]
        self.records = [
            RawRecord("readings", 0, offset, -1.0, key.encode(), None if value is None else value.encode())
            for offset, (key, value) in enumerate(golden["records"])
        ]
        self.pipeline = make_pipeline(horizon=2, ring_steps=32, hidden_shape=(1, 4))

    def task(self) -> PartitionTask:
        return make_task(
            self.pipeline,
            keep_state=lambda table: StateKeeper(table, flush_seconds=0.0, max_pages=100, terms={"a": 1}),
            boundary_records=64,
            max_streams=33,
        )

    def network(self, version: str) -> RecurrentExpert:
        seed = int(version.removeprefix("gru-test-"))
        return make_recurrent(self.pipeline, seed=seed, model=seed)

    def restored(self, state: list[StateRecord]) -> PartitionTask:
        task = self.task()
        begin = task.restore_state(state, committed=self.committed, network=self.network)
        if begin < self.committed:
            task.replay(self.records[begin : self.committed], ManualClock())
        task.finish_replay(self.committed)
        return task

    def go_on(self, task: PartitionTask) -> list[OutRecord]:
        return task.process(self.records[self.committed :], ManualClock()).records


def test_every_number_of_format_1_is_read_as_it_was_written() -> None:
    golden, task = Partition(), Partition().task()

    found = dict.fromkeys(golden.crc32, 0)
    names = []
    for record in golden.state:
        if record.key == META_KEY:
            continue
        assert record.value is not None
        page = decode_page(record.value, task.table)
        names += [name for name in page.names if name is not None]
        for name, rows in page.rows.items():
            former, as_written = name, rows
            if name in ("regret", "inverse_rate", "regret_bound"):  # of three experts then
                as_written = np.ascontiguousarray(rows[:, :, [0, 1, -1]])
            elif name == "pending_made":
                former, as_written = "pending_tick", rows.astype("i8")
            if former in found:
                found[former] = zlib.crc32(as_written.tobytes(), found[former])

    # Of forecasts that waited, not all numbers are needed any more; test_upgrade looks at those that are.
    assert {**found, "pending": golden.crc32["pending"]} == golden.crc32
    assert set(names) == set(golden.streams)


def test_a_worker_goes_on_from_state_of_format_1() -> None:
    golden = Partition()
    task = golden.restored(golden.state)

    assert len(task.table) == 33
    assert "" in task.networks
    assert task.networks[""].version == "gru-test-2", "the switch at 320 was passed again"
    seen_since = {raw.key.decode() for raw in golden.records[300:350] if raw.key}
    for stream, numbers in golden.streams.items():
        if stream not in seen_since:
            slot = task.table.find(stream)
            assert {name: task.table.arrays[name][slot].item() for name in numbers} == numbers

    answers = golden.go_on(task)

    forecasts = [json.loads(answer.value) for answer in answers if answer.topic == "forecasts" and answer.value]
    first: dict[str, int] = {}
    for forecast in forecasts:
        first.setdefault(forecast["stream_id"], forecast["seq"])
    carried_on = {stream: seq for stream, seq in first.items() if stream in set(golden.streams) - seen_since}
    assert len(carried_on) > 5
    assert carried_on == {stream: golden.streams[stream]["readings"] + 1 for stream in carried_on}
    assert {forecast["model"] for forecast in forecasts} == {"gru-test-2", None}, "None: too young for a network"


def test_taken_over_into_the_present_format_it_answers_the_same() -> None:
    golden = Partition()
    rewritten = golden.restored(golden.state)
    # One more reading makes a page dirty; all others are to be rewritten too.
    slots = rewritten.table.occupied()
    assert rewritten._keeper is not None
    rewritten._keeper.changed(slots, golden.committed, 0.0)
    state = rewritten.export_state(0.0)

    assert {decode_page(r.value, rewritten.table).format for r in state if r.value and r.key != META_KEY} == {4}
    assert golden.go_on(golden.restored(state)) == golden.go_on(golden.restored(golden.state))


@pytest.mark.parametrize("version", [2, 3])
def test_a_partition_of_a_later_format_answers_as_the_one_of_format_1_that_it_was(version: int) -> None:
    """For streams without a reading in the last stretch, which another program stepped: pages of format 1 are older."""
    golden = Partition()
    stepped_since = {raw.key for raw in golden.records[300:350]}
    kept = json.loads((HERE / f"state_format_{version}_partition.json").read_text())["state"]
    state = [StateRecord(key, base64.b64decode(value)) for key, value in kept.items()]

    assert {decode_page(r.value, golden.task().table).format for r in state if r.value and r.key != META_KEY} == {
        version
    }
    answers = [
        [answer for answer in golden.go_on(golden.restored(held)) if answer.key not in stepped_since]
        for held in (state, golden.state)
    ]
    assert len(answers[0]) > 5
    assert answers[0] == answers[1]


def test_meta_of_format_1_says_nothing_of_terms_and_pages_and_all_else() -> None:
    content = next(record.value for record in Partition().state if record.key == META_KEY)
    assert content is not None

    meta = decode_meta(content)

    assert meta == TaskMeta(
        format=1,
        schema="e11dc99459851b52",
        next_offset=350,
        replay_from=300,
        watermark=1767473769.841406,
        block=4,
        version="gru-test-1",
        switches=[(320, "gru-test-2")],
        refused=[(338, ""), (348, "")],
        pages=None,
        terms={},
    )


def small_table(*further: Column) -> StreamTable:
    """Two streams in page 1, with numbers that show each byte."""
    columns = (Column("clock", "f8", fill=-np.inf), Column("ring", "f2", (3,), np.nan), *further)
    table = StreamTable(columns, max_streams=100)
    for number in range(36):
        table.slot(f"site/{number}")
    table.release(f"site/{number}" for number in range(31, 36) if number != 33)
    for slot in (33, 34):
        table.arrays["clock"][slot] = 1767225600.5 + slot
        table.arrays["ring"][slot] = [1.5, -0.25, slot]
    return table


FORMAT_2_META = TaskMeta(
    format=2,
    schema="SCHEMA",
    next_offset=1812,
    replay_from=1700,
    watermark=1767225605.25,
    block=1,
    version="gru-20260101T000000-ab12cd",
    switches=[(1792, "gru-20260102T000000-cd34ef")],
    refused=[(1801, ""), (1802, "temp")],
    pages=(2, 3_735_928_559),
    terms={"forecast.quantiles": "[0.1,0.5,0.9]", "readings.max_lateness_seconds": "0.0"},
)


def read(name: str) -> dict[str, bytes]:
    return {key: base64.b64decode(text) for key, text in json.loads((HERE / name).read_text()).items()}


def test_format_2_is_read_as_ever() -> None:
    golden = read("state_format_2.json")

    page, meta = decode_page(golden["page"], small_table()), decode_meta(golden["meta"])

    assert (page.number, page.offset, page.format, page.model) == (1, 1812, 2, "gru-20260101T000000-ab12cd")
    assert [name for name in page.names if name is not None] == ["site/33"]
    np.testing.assert_array_equal(page.rows["ring"], [[1.5, -0.25, 34]])
    assert meta == FORMAT_2_META


FORMAT_3_META = replace(
    FORMAT_2_META, format=3, labels=[(1792, "site/33", False, 1767225604.5)], heard=[(0, 12), (3, 7)]
)


def test_format_3_is_read_as_ever() -> None:
    golden = read("state_format_3.json")

    page = decode_page(golden["page"], small_table())

    assert (page.number, page.offset, page.format, page.model) == (1, 1812, 3, "gru-20260101T000000-ab12cd")
    assert [name for name in page.names if name is not None] == ["site/33"]
    np.testing.assert_array_equal(page.rows["ring"], [[1.5, -0.25, 34]])
    assert decode_meta(golden["meta"]) == FORMAT_3_META
    assert encode_meta(FORMAT_3_META) == golden["meta"]


def format_4_page() -> bytes:
    """As above, and what belongs to two experts."""
    table = small_table(Column("spread", "f4", (2, 2), labels=("naive", "profile")))
    table.arrays["spread"][33:35] = [[0.5, 0.25], [0.75, 1.0]]
    content = encode_page(table, 1, 1812, model="gru-20260101T000000-ab12cd")
    assert content is not None
    return content


def test_format_4_is_written_and_read_as_ever() -> None:
    golden = read("state_format_4.json")

    page = decode_page(
        golden["page"], small_table(Column("spread", "f4", (2, 3), labels=("profile", "level", "naive")))
    )

    assert (page.number, page.offset, page.format, page.model) == (1, 1812, 4, "gru-20260101T000000-ab12cd")
    np.testing.assert_array_equal(page.rows["ring"], [[1.5, -0.25, 34]])
    np.testing.assert_array_equal(page.rows["spread"], [[[0.25, 0.0, 0.5], [1.0, 0.0, 0.75]]])
    assert format_4_page() == golden["page"]


if __name__ == "__main__":
    text = base64.b64encode(format_4_page()).decode()
    (HERE / "state_format_4.json").write_text(json.dumps({"page": text}) + "\n")
