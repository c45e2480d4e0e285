"""Whatever bytes arrive, the codec answers, and its quick reader says what its slow one would."""

import json
import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from forecaster.codecs.json_codec import JsonCodec, encode_dead_letter
from forecaster.records import DeadLetter, Observation, RawRecord, Tombstone

CODECS = [
    JsonCodec(minimum=-1e6, maximum=1e6),
    JsonCodec(fields=("value", "other"), covariates=("steps",), max_id_bytes=8, max_payload_bytes=2_000),
]
NAMES = st.sampled_from(["stream_id", "timestamp", "value", "other", "steps", "more"])
ODD_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "9" * 700, "1" + "0" * 310, "1e-400", "-0", "0x10", "01"]
ODD_STRINGS = [r'"\ud800"', r'"\u0000"', '"2026-01-01T00:00:05Z"', '"9999-12-31T23:59:59-23:59"', '"0001-01-01"', '"']
ODD_NESTING = ["[" * 70 + "]" * 70, '{"a":' * 500, "\\", "null", "true", "[]", "{}"]
ODD_TEXTS = st.sampled_from([*ODD_NUMBERS, *ODD_STRINGS, *ODD_NESTING])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)
JSON_TEXTS = JSON_VALUES.map(json.dumps) | ODD_TEXTS
BODIES = (
    st.none()
    | st.binary(max_size=200)
    | st.lists(st.builds('"{}":{}'.format, NAMES, JSON_TEXTS), max_size=6).map(
        lambda members: ("{" + ",".join(members) + "}").encode("utf-8", "surrogatepass")
    )
)
KEYS = st.none() | st.binary(max_size=12) | st.text(max_size=6).map(lambda text: text.encode("utf-8", "replace"))
RECORD_TIMES = st.sampled_from([-1.0, 0.0, 1_767_225_605.0, 1e12])


def check_answers(codec: JsonCodec, raw: RawRecord) -> None:
    answers = codec.decode(raw)

    assert answers
    for answer in answers:
        match answer:
            case Observation(stream_id, time, value):
                assert stream_id.encode()
                assert 0 <= time <= 7_258_118_400
                assert math.isnan(value) or math.isfinite(value)
            case DeadLetter():
                assert answer.raw is raw
                assert 0 < len(answer.detail) <= 200
                assert encode_dead_letter(answer, topic="dlq").value == raw.value
            case Tombstone(record_id):
                assert raw.value is None
                assert record_id.encode() == raw.key


@settings(max_examples=600, deadline=None)
@given(BODIES, KEYS, RECORD_TIMES)
@example(b"", None, -1.0)
@example(b"\xef\xbb\xbf{}", None, -1.0)
@example(b'{"value":' + b"[" * 90_000, None, -1.0)
@example(b'{"stream_id":' + b"9" * 5_000 + b',"value":1,"timestamp":5}', None, -1.0)
def test_every_record_is_answered_whatever_its_bytes(body: bytes | None, key: bytes | None, record_time: float) -> None:
    for codec in CODECS:
        check_answers(codec, RawRecord("readings", 0, 0, record_time, key, body))


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        NAMES,
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("ab\u00a0é", max_size=5),
    ),
    st.none() | st.sampled_from([b"a", b"ab"]),
    RECORD_TIMES,
)
def test_quick_reader_agrees_with_the_slow_one(
    reading: dict[str, object], key: bytes | None, record_time: float
) -> None:
    raw = RawRecord("readings", 0, 0, record_time, key, json.dumps(reading).encode())
    # a NaN in a field nobody asks for is read by the slow reader alone
    slow = RawRecord("readings", 0, 0, record_time, key, json.dumps(reading | {"unasked": math.nan}).encode())

    for codec in CODECS:
        quick_answers, slow_answers = codec.decode(raw), codec.decode(slow)

        assert [plain(answer) for answer in quick_answers] == [plain(answer) for answer in slow_answers]


def plain(answer: Observation | DeadLetter | Tombstone) -> tuple[object, ...]:
    """Comparable where values are nan."""
    if isinstance(answer, DeadLetter):
        return answer.reason, answer.field
    if isinstance(answer, Observation):
        return answer.stream_id, answer.time, repr(answer.value), answer.field, repr(answer.covariates)
    return (answer.record_id,)
