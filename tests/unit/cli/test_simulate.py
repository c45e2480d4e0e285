import argparse
import math

import pytest

from forecaster.cli.simulate import add_arguments, timed
from forecaster.simulation.streams import SimulatedReading
from forecaster.transports.tables import COMMON_FORMS


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return parser.parse_args(words)


def test_history_is_due_at_once_and_the_rest_at_its_time() -> None:
    readings = [SimulatedReading("a", time, 1.0) for time in (90.0, 100.0, 110.0)]

    records = list(timed(readings, 100.0, COMMON_FORMS, "in"))

    assert math.isnan(records[0][0])
    assert [time for time, _ in records[1:]] == [100.0, 110.0]
    assert {record.key for _, record in records} == {b"a"}
    assert {record.partition for _, record in records} == {None}


def test_history_is_given_as_a_duration_or_in_seconds() -> None:
    assert parse("--history", "6h").history == 6 * 3600
    assert parse("--history", "90").history == 90.0
    assert parse().history == 0.0


@pytest.mark.parametrize(
    "words",
    [
        ("--rate", "0"),
        ("--rate", "many"),
        ("--streams", "0"),
        ("--streams", "2.5"),
        ("--history", "long"),
        ("--seconds", "-1"),
    ],
)
def test_flags_that_make_no_sense_are_refused(words: tuple[str, str]) -> None:
    with pytest.raises(argparse.ArgumentError, match=words[0]):
        parse(*words)
