"""`forecaster state`: what is shown is what the task remembers; what is not there is told clearly."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from factories import make_raw
from rich.console import Console

from forecaster.app import build_pipeline, state_terms
from forecaster.cli.state import (
    _empty_task,
    _print_partitions,
    _print_stream,
    describe_partition,
    describe_stream,
    partition_of_stream,
)
from forecaster.clock import ManualClock
from forecaster.engine.inspection import Inspector
from forecaster.engine.keeper import StateKeeper
from forecaster.errors import PageCorrupt, StateError
from forecaster.records import StateRecord
from forecaster.settings import Settings, load_settings
from forecaster.transports.kafka_admin import partition_of


def make_settings(**sections: Any) -> Settings:
    return load_settings(
        {"streams": {"ring_steps": 32}, "forecast": {"horizon": 3}, "model": {"hidden": 4}, **sections}
    )


class Lived:
    """A partition of two streams, one of which is older than the last page, and its state."""

    def __init__(self, **sections: Any) -> None:
        self.settings = make_settings(**sections)
        pipeline = build_pipeline(self.settings)
        self.inspector = Inspector()
        task = self.task = _empty_task(1, pipeline, self.settings)
        task._keeper = StateKeeper(task.table, flush_seconds=0.0, max_pages=100, terms=state_terms(self.settings))
        rng = np.random.default_rng(4)
        for offset in range(0, 40, 2):
            task.process(
                [make_raw(offset, "ward/a", value=float(rng.normal())), make_raw(offset + 1, "ward/b", value=5.0)],
                ManualClock(),
            )
        self.records: list[StateRecord] = task.export_state(0.0)


@pytest.fixture(scope="module")
def lived() -> Lived:
    return Lived()


def test_a_stream_is_shown_as_the_task_that_wrote_it_would_show_it(lived: Lived) -> None:
    shown = describe_stream("ward/a", 1, lived.records, lived.settings)

    live = lived.inspector.detail(lived.task, "ward/a")
    assert {name: shown[name] for name in live} == live
    assert shown["kept"] == {
        "page": 0,
        "slot": 1,
        "offset": 40,
        "format": 4,
        "model_number": None,
        "partition_offset": 40,
        "replay_from": 40,
    }
    assert shown["pending"] == {"1": 1, "2": 2, "3": 3}, "one forecast for each step to come, at each lead"
    assert json.loads(json.dumps(shown)) == shown


def test_a_season_that_training_looks_for_is_not_known_without_its_model() -> None:
    of = Lived(forecast={"horizon": 3, "find_seasons": 2})

    assert describe_stream("ward/a", 1, of.records, of.settings)["further_season_steps"] == [None]


def test_a_season_that_is_declared_is_shown() -> None:
    of = Lived(forecast={"horizon": 3, "seasons": [6, 12]})

    assert describe_stream("ward/a", 1, of.records, of.settings)["further_season_steps"] == [12]


def test_a_stream_that_is_not_there_is_told_with_those_nearest(lived: Lived) -> None:
    with pytest.raises(StateError) as caught:
        describe_stream("ward/A", 1, lived.records, lived.settings)

    assert str(caught.value) == (
        "Partition 1 of forecaster.state holds no stream 'ward/A'; it holds 2, the nearest 'ward/b', 'ward/a'."
    )
    assert "--partition" in caught.value.hint
    with pytest.raises(StateError, match="it holds 0"):
        describe_stream("ward/a", 1, [], lived.settings)


def test_state_of_other_settings_is_refused_by_the_name_of_what_differs(lived: Lived) -> None:
    with pytest.raises(PageCorrupt, match=r"'ring' as <f4 of shape \(32,\), this program keeps <f4 of shape \(48,\)"):
        describe_stream("ward/a", 1, lived.records, make_settings(streams={"ring_steps": 48}))


def test_a_partition_is_counted(lived: Lived) -> None:
    shown = describe_partition(1, lived.records, lived.settings)

    assert shown == {
        "partition": 1,
        "streams": 2,
        "pages": 1,
        "bytes": sum(len(record.value or b"") for record in lived.records),
        "offset": 40,
        "replay_from": 40,
        "watermark": "2026-01-01T00:00:39Z",
        "model": None,
        "group_models": {},
    }
    assert describe_partition(0, [], lived.settings)["offset"] is None


def test_people_see_the_same_in_words(lived: Lived) -> None:
    console = Console(width=120, file=io.StringIO())
    _print_stream(describe_stream("ward/b", 1, lived.records, lived.settings), console)
    _print_partitions([describe_partition(1, lived.records, lived.settings)], console)

    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "2026-01-01T00:00:39Z, number 20" in text
    assert "partition 1, slot 2 in page 0" in text
    assert "naive 0.50, seasonal 0.00, level 0.50" in text


@pytest.mark.parametrize(
    ("fields", "stream", "record_id"),
    [
        (("value",), "a/value", "a/value"),
        (("temp", "load"), "a/b/temp", "a/b"),
        (("temp", "load"), "a/b", "a/b"),
    ],
)
def test_a_stream_is_looked_for_where_its_record_goes(fields: tuple[str, ...], stream: str, record_id: str) -> None:
    settings = make_settings(readings={"fields": fields})

    assert partition_of_stream(stream, settings, 13) == partition_of(record_id.encode(), 13)
