import pytest

from forecaster.codecs.feedback_json import decode_feedback, excluded_periods, read_feedback_file
from forecaster.errors import ConfigurationError
from forecaster.records import Feedback

LABEL = b'{"stream_id":"ward-3/bed-12","label":false,"timestamp":"2026-01-01T00:00:05Z"}'
PERIOD = b'{"stream_id":"a","from":1767225600,"to":"2026-01-01T06:00:00+00:00"}'
BOTH = b'{"stream_id":"a","label":true,"timestamp":1767225600000,"from":1767225600,"to":1767225600,"by":"somebody"}'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (LABEL, Feedback("ward-3/bed-12", (False, 1_767_225_605.0), None)),
        (PERIOD, Feedback("a", None, (1_767_225_600.0, 1_767_247_200.0))),
        (BOTH, Feedback("a", (True, 1_767_225_600.0), (1_767_225_600.0, 1_767_225_600.0))),
    ],
)
def test_feedback_is_a_label_a_period_or_both(value, expected):
    assert decode_feedback(value) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"label":true,"timestamp":1}', "stream_id"),
        (b'{"stream_id":"a","label":"no","timestamp":1}', "Expected `bool"),
        (b'{"stream_id":"a","label":true}', "needs a `timestamp`"),
        (b'{"stream_id":"a"}', "neither"),
        (b'{"stream_id":"a","from":1}', "go together"),
        (b'{"stream_id":"a","from":2,"to":1}', "later than"),
        (b'{"stream_id":"a","label":true,"timestamp":"noon"}', "noon"),
        (b'{"stream_id":"a","label":true,"timestamp":-5}', "no time between"),
    ],
)
def test_what_is_no_feedback_is_refused_by_what_is_wrong_with_it(value, said):
    with pytest.raises(ValueError, match=said):
        decode_feedback(value)


def test_a_file_holds_one_a_line_and_a_wrong_line_is_named(tmp_path):
    path = tmp_path / "feedback.jsonl"
    path.write_bytes(b"\n".join([LABEL, PERIOD, BOTH]) + b"\n")

    found = read_feedback_file(path)

    assert [said.stream_id for said in found] == ["ward-3/bed-12", "a", "a"]
    assert excluded_periods(found) == {"a": [(1_767_225_600.0, 1_767_247_200.0), (1_767_225_600.0,) * 2]}
    path.write_bytes(LABEL + b"\n{}\n")
    with pytest.raises(ConfigurationError, match=r"Line 2 of .* is no feedback"):
        read_feedback_file(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_feedback_file(tmp_path / "absent")
