"""What ``forecaster doctor`` makes of what it sees, from plain values; no broker is asked here."""

from __future__ import annotations

import builtins
import os
from pathlib import Path

import pytest

from forecaster.cli import checkup
from forecaster.cli.doctor import check_registry_of
from forecaster.codecs.json_codec import JsonCodec
from forecaster.errors import TransportUnavailable
from forecaster.records import RawRecord
from forecaster.settings import load_settings
from forecaster.transports.kafka_admin import (
    ClientFacts,
    ClusterDescription,
    GroupDescription,
    PartitionProgress,
    partition_of,
)
from forecaster.transports.kafka_checks import Finding, Level

PARTITIONS = 4
NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def reading(
    stream: str = "pump",
    time: float = NOW,
    *,
    value: object = 1.0,
    key: bytes | None = b"",
    partition: int | None = None,
    record_time: float | None = None,
) -> RawRecord:
    """A reading keyed by its stream, in the partition of its key, at the time of its record, but for what is given."""
    key = stream.encode() if key == b"" else key
    if partition is None:
        partition = partition_of(stream.encode(), PARTITIONS)
    body = f'{{"stream_id": "{stream}", "timestamp": {time}, "value": {value}}}'
    return RawRecord("readings", partition, 7, time if record_time is None else record_time, key, body.encode())


def sampled(*records: RawRecord, max_lateness_seconds: float = 0.0) -> dict[str, Finding]:
    """Findings about a sample by what they are about."""
    findings = checkup.check_sample(
        records, JsonCodec(), partitions=PARTITIONS, max_lateness_seconds=max_lateness_seconds
    )
    assert len({finding.about for finding in findings}) == len(findings), "these tests look at one finding of a kind"
    return {finding.about: finding for finding in findings}


def group(*progress: PartitionProgress, members: int = 1, state: str = "Stable") -> GroupDescription:
    return GroupDescription(group_id="forecaster", state=state, members=members, progress=dict(enumerate(progress)))


def progress(committed: int | None, *, first: int = 0, end: int = 100) -> PartitionProgress:
    return PartitionProgress(first=first, end=end, committed=committed)


def test_good_readings_are_ok_in_every_respect():
    findings = sampled(reading("pump", NOW), reading("fan", NOW), reading("pump", NOW + 5))

    assert {about: finding.level for about, finding in findings.items()} == {
        "readings": Level.OK,
        "keys": Level.OK,
        "times": Level.OK,
    }
    assert findings["readings"].found == "3 readings of 2 streams in the newest 3 records"
    assert findings["times"].found == "2026-01-01T00:00:00Z to 2026-01-01T00:00:05Z, rising in each stream"


def test_a_topic_without_readings_is_a_warning_that_says_how_to_get_some():
    findings = sampled()

    assert list(findings) == ["readings"]
    assert findings["readings"].level is Level.WARNING
    assert "forecaster simulate" in findings["readings"].hint


def test_refused_readings_are_counted_by_reason_with_the_first_as_an_example():
    bad = RawRecord("readings", 3, 41, NOW, b"pump", b"[1, 2")

    finding = sampled(reading(), bad, reading(time=NOW + 1, value='"72"'), bad)["readings"]

    assert finding.level is Level.WARNING
    assert "refused are 3: not_json 2, wrong_type 1" in finding.found
    assert "Partition 3, offset 41:" in finding.found


def test_it_is_a_problem_when_no_reading_can_be_read():
    findings = sampled(RawRecord("readings", 0, 0, NOW, b"pump", b'{"sensor": "pump", "temperature": 3}'))

    assert list(findings) == ["readings"], "nothing can be said of keys and times"
    assert findings["readings"].level is Level.PROBLEM
    assert "absent_value 1" in findings["readings"].found


def test_a_tombstone_is_neither_a_reading_nor_refused():
    finding = sampled(reading(), RawRecord("readings", 0, 8, NOW, b"pump", None))["readings"]

    assert (finding.level, finding.found) == (Level.OK, "1 readings of 1 streams in the newest 2 records")


def test_a_stream_in_two_partitions_is_a_problem_that_names_it():
    finding = sampled(
        reading("fan"), reading("pump", partition=0, key=None), reading("pump", NOW + 1, partition=1, key=None)
    )["keys"]

    assert finding.level is Level.PROBLEM
    assert "1 of 2 streams come in several partitions, 'pump'" in finding.found


def test_readings_without_a_key_are_a_warning():
    finding = sampled(reading("fan"), reading("pump", key=None))["keys"]

    assert (finding.level, finding.found) == (Level.WARNING, "1 of 2 readings have no key.")


def test_another_partitioner_is_a_warning_that_names_murmur2():
    elsewhere = (partition_of(b"pump", PARTITIONS) + 1) % PARTITIONS

    finding = sampled(reading("fan"), reading("pump", partition=elsewhere))["keys"]

    assert finding.level is Level.WARNING
    assert finding.found.startswith("1 of 2 readings are not in the partition")
    assert "murmur2_random" in finding.hint


def test_event_times_ahead_of_their_record_are_a_warning_about_clocks():
    finding = sampled(reading(time=NOW, record_time=NOW - 3600), reading("fan"))["times"]

    assert finding.level is Level.WARNING
    assert "1 of 2 readings lie up to 3600 s ahead" in finding.found


def test_a_clock_that_is_a_little_fast_is_ok():
    assert sampled(reading(time=NOW, record_time=NOW - 30))["times"].level is Level.OK


def test_records_without_a_time_of_their_own_are_not_compared_with_it():
    assert sampled(reading(time=NOW, record_time=-0.001))["times"].level is Level.OK


def test_readings_that_go_back_in_time_are_a_warning_unless_they_are_sorted():
    records = [reading("pump", NOW + 20), reading("fan", NOW), reading("pump", NOW + 8), reading("pump", NOW + 9)]

    finding = sampled(*records)["times"]

    assert finding.level is Level.WARNING
    assert "2 of 4 readings are up to 12 s older" in finding.found
    assert sampled(*records, max_lateness_seconds=12.0)["times"].level is Level.OK


def test_records_that_claim_to_be_older_than_the_topic_keeps_them_are_a_warning():
    day = 86_400.0
    records = [reading(record_time=0.0), reading(record_time=9.5 * day), reading(record_time=-1.0)]

    (warning,) = checkup.check_ages(records, retention_seconds=day, now=10 * day)

    assert warning.level is Level.WARNING
    assert warning.found.startswith("1 of 3 records carry a time up to 10.0 days back, and the topic keeps 1 d")
    assert "LogAppendTime" in warning.hint


@pytest.mark.parametrize("retention_seconds", [None, float("inf"), 11 * 86_400.0])
def test_no_record_is_too_old_for_a_topic_that_keeps_them(retention_seconds: float | None):
    assert not checkup.check_ages([reading(record_time=0.0)], retention_seconds=retention_seconds, now=864_000.0)


def test_a_group_at_work_is_ok_with_its_lag():
    (finding,) = checkup.check_group(group(progress(90), progress(100)))

    assert finding.level is Level.OK
    assert finding.found == "Stable, 1 members, 10 records behind"


def test_a_group_that_has_committed_nothing_begins_where_the_setting_says():
    (finding,) = checkup.check_group(group(progress(None, end=0), members=0, state="Dead"))

    assert finding.level is Level.OK
    assert "kafka.start" in finding.found


def test_readings_that_nobody_answers_are_a_warning():
    (finding,) = checkup.check_group(group(progress(40), members=0, state="Empty"))

    assert (finding.level, finding.found) == (Level.WARNING, "Nobody is at work, 60 records wait.")


@pytest.mark.parametrize("committed", [3, 101])
def test_a_committed_offset_that_is_not_there_any_more_is_a_problem(committed):
    problem, *_ = checkup.check_group(group(progress(50), progress(committed, first=4)))

    assert problem.level is Level.PROBLEM
    assert f"{{1: '{committed} of 4 to 100'}}" in problem.found
    assert "--reset-offsets --group forecaster" in problem.hint


@pytest.mark.parametrize("committed", [4, 100])
def test_offsets_at_either_end_are_there(committed):
    (finding,) = checkup.check_group(group(progress(committed, first=4)))

    assert finding.level is Level.OK


def test_more_members_than_partitions_are_told():
    (finding,) = checkup.check_group(group(progress(100), members=3))

    assert (finding.level, finding.found) == (Level.WARNING, "3 members for 1 partitions: some stand by.")


@pytest.mark.parametrize(
    ("facts", "installed", "level", "words"),
    [
        (ClientFacts(has_crc32c=True, codecs_absent=()), "3.0.12", Level.OK, "with crc32c"),
        (ClientFacts(has_crc32c=False, codecs_absent=()), "3.0.12", Level.WARNING, "2.5 MB/s"),
        (ClientFacts(has_crc32c=True, codecs_absent=("lz4", "zstd")), "3.0.12", Level.PROBLEM, "lz4, zstd"),
        (ClientFacts(has_crc32c=True, codecs_absent=()), "3.1.0", Level.PROBLEM, "3.1.0 is installed"),
    ],
)
def test_the_client_has_to_be_the_one_we_know_with_all_it_needs(facts, installed, level, words):
    finding = checkup.check_client(facts, installed, tested="3.0.12")

    assert finding.level is level
    assert words in finding.found


@pytest.mark.parametrize(
    ("wanted", "obstacle", "level", "words"),
    [
        (True, "", Level.OK, "by whole batches"),
        (True, "it reads a batch in lz4 otherwise than the client", Level.WARNING, "slower: it reads a batch in lz4"),
        (False, "", Level.OK, "as kafka.batched = false asks"),
    ],
)
def test_which_path_the_client_takes_is_said_and_why(wanted, obstacle, level, words):
    finding = checkup.check_path(wanted=wanted, obstacle=obstacle)

    assert finding.level is level
    assert words in finding.found


def test_this_installation_is_the_one_that_is_declared():
    findings = checkup.check_installation(ClientFacts(has_crc32c=True, codecs_absent=()))

    assert {finding.about for finding in findings} == {"python", "packages", "torch", "kafka-python"}
    assert all(finding.level is not Level.PROBLEM for finding in findings)


def test_a_torch_that_does_not_load_is_a_problem_and_not_the_end(monkeypatch: pytest.MonkeyPatch):
    load = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "torch":
            raise OSError("libtorch_cpu.so: cannot open shared object file")
        return load(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)

    finding = checkup.check_torch()

    assert finding.level is Level.PROBLEM
    assert "libtorch_cpu.so" in finding.found


@pytest.mark.parametrize(("version", "level"), [((4, 3), Level.OK), ((2, 5), Level.OK), ((2, 4), Level.WARNING)])
def test_brokers_have_to_be_young_enough(version, level):
    finding = checkup.check_brokers(ClusterDescription(brokers=3, version=version))

    assert finding.level is level
    assert finding.found.startswith(f"3, of version {version[0]}.{version[1]} or later")


def test_a_registry_that_can_be_made_is_ok_and_is_not_made(tmp_path: Path):
    finding = checkup.check_registry(tmp_path / "var" / "models")

    assert finding.level is Level.OK
    assert "can be made" in finding.found
    assert list(tmp_path.iterdir()) == []


def test_a_registry_that_is_there_is_written_to_and_left_as_it_was(tmp_path: Path):
    finding = checkup.check_registry(tmp_path)

    assert (finding.level, finding.found) == (Level.OK, f"{tmp_path} can be written")
    assert list(tmp_path.iterdir()) == []


def test_a_registry_below_a_file_is_a_problem(tmp_path: Path):
    (tmp_path / "models").write_text("not a directory")

    finding = checkup.check_registry(tmp_path / "models")

    assert finding.level is Level.PROBLEM
    assert "registry.directory" in finding.hint


@pytest.mark.parametrize(("kind", "looks"), [("auto", 1), ("directory", 1), ("topic", 0)])
def test_the_directory_of_models_is_looked_at_where_a_worker_would_use_it(tmp_path: Path, kind: str, looks: int):
    settings = load_settings({"registry": {"directory": str(tmp_path), "kind": kind}})

    assert len(check_registry_of(settings)) == looks


def test_without_a_directory_of_its_own_a_registry_is_the_topic_and_the_disk_no_matter():
    assert check_registry_of(load_settings()) == []


def test_a_check_that_fails_keeps_the_hint_of_its_error():
    error = TransportUnavailable("Nobody answers.", hint="Is it running?")

    assert checkup.problem_from(error, "brokers") == Finding(
        level=Level.PROBLEM, about="brokers", found="Nobody answers.", hint="Is it running?"
    )


@pytest.fixture
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FORECASTER_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("_no_settings_from_outside")
def test_only_settings_that_were_set_are_shown_and_secrets_are_not():
    settings = load_settings({"forecast": {"horizon": 24}, "kafka": {"sasl_password": "geheim"}})

    assert checkup.setting_rows(settings, with_defaults=False) == [
        ("kafka.sasl_password", "***"),
        ("forecast.horizon", "24"),
    ]


@pytest.mark.usefixtures("_no_settings_from_outside")
def test_every_setting_is_shown_on_demand_and_an_empty_secret_is_empty():
    rows = dict(checkup.setting_rows(load_settings(), with_defaults=True))

    assert rows["delivery"] == "exactly_once"
    assert rows["forecast.horizon"] == "12"
    assert rows["kafka.sasl_password"] == ""
    assert len(rows) > 50
