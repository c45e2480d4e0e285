"""Every public data file comes through the file source whole, its oddities included."""

import csv
import functools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from forecaster.codecs.json_codec import JsonCodec
from forecaster.records import DeadLetter, Observation, RawRecord, Reason
from forecaster.transports.file import FileSource
from forecaster.transports.tables import COMMON_FORMS, TableLayout

DATA = Path(__file__).parents[4] / "shared" / "data"
INVENTORY = DATA / "inventory.csv"
LARGEST_FILE = 20_000
"""Longer files differ from shorter ones of their set in nothing but length; one of each set is read all the same."""

LAYOUTS = {
    "heart/mit_hr/": TableLayout(step_seconds=0.5),
    "heart/rr_healthy/": TableLayout(beat_intervals="ms"),
    "heart/rr_": TableLayout(beat_intervals="s"),
    "heart/ppg_heartpy/data2": TableLayout(time_unit="ms"),
    "air_quality_uci/": TableLayout(columns=("*",)),
    "beijing_pm25/": TableLayout(columns=("pm2.5", "DEWP", "TEMP", "PRES", "Iws", "Is", "Ir")),
    "ett/": TableLayout(columns=("*",)),
    "occupancy/": TableLayout(columns=("*",)),
}
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not INVENTORY.is_file(), reason="the public data sets are not beside the project (shared/data)"),
]


class NoListener:
    def assigned(self, partitions: Sequence[int]) -> None: ...
    def revoked(self, partitions: Sequence[int]) -> None: ...
    def lost(self, partitions: Sequence[int]) -> None: ...


@functools.cache
def inventory() -> tuple[dict[str, str], ...]:
    with INVENTORY.open() as file:
        rows = list(csv.DictReader(file))
    sets = Counter[str]()
    chosen = []
    for row in sorted(rows, key=lambda row: int(row["rows"])):
        group = row["file"].rpartition("/")[0]
        if int(row["rows"]) <= LARGEST_FILE or not sets[group]:
            chosen.append(row)
        sets[group] += 1
    return tuple(chosen)


def read_all(file: str) -> list[RawRecord]:
    layout = next((layout for prefix, layout in LAYOUTS.items() if file.startswith(prefix)), COMMON_FORMS)
    source = FileSource([DATA / file], layout=layout)
    source.subscribe(NoListener())
    records: list[RawRecord] = []
    while not source.is_exhausted():
        records += source.poll(10_000, 0)
    return records


@pytest.mark.parametrize(
    "group", ["nab", "ett", "cloud_monitoring", "heart", "occupancy", "beijing_pm25", "air_quality_uci"]
)
def test_every_row_of_every_file_becomes_one_reading_a_stream(group: str) -> None:
    files = [row for row in inventory() if row["file"].startswith(group + "/")]
    assert files

    for row in files:
        records = read_all(row["file"])
        by_stream = Counter(record.key for record in records)

        assert set(by_stream.values()) == {int(row["rows"])}, row["file"]


def decoded(file: str) -> list[Observation | DeadLetter]:
    answers = [answer for record in read_all(file) for answer in JsonCodec().decode(record)]
    assert all(isinstance(answer, Observation | DeadLetter) for answer in answers)
    return answers  # type: ignore[return-value]


def test_empty_cells_come_as_missing_readings() -> None:
    answers = decoded("cloud_monitoring/application-crash-rate-1/app1-06.csv")

    missing = [answer for answer in answers if isinstance(answer, Observation) and math.isnan(answer.value)]
    assert len(missing) == 26
    assert not [answer for answer in answers if isinstance(answer, DeadLetter)]


def test_stray_line_of_a_published_file_comes_as_one_dead_letter() -> None:
    letters = [answer for answer in decoded("heart/rr_healthy/008.txt.gz") if isinstance(answer, DeadLetter)]

    assert [letter.reason for letter in letters] == [Reason.WRONG_TYPE]


def test_clock_change_keeps_its_repeated_times() -> None:
    answers = decoded("nab/data/realAWSCloudwatch/ec2_disk_write_bytes_1ef3de.csv")

    times = Counter(answer.time for answer in answers if isinstance(answer, Observation))
    assert sum(count - 1 for count in times.values()) == 11
