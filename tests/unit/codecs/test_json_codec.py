import math
from typing import Any

import pytest

from forecaster.codecs.json_codec import MAX_NESTING, JsonCodec, encode_dead_letter
from forecaster.errors import ConfigurationError
from forecaster.records import DeadLetter, Observation, RawRecord, Reason, Tombstone

ORIGIN = 1_767_225_605.0  # 2026-01-01T00:00:05Z


def make_raw(value: bytes | None, *, key: bytes | None = b"a", timestamp: float = ORIGIN) -> RawRecord:
    return RawRecord("readings", 2, 7, timestamp, key, value)


def reading(**fields: str) -> bytes:
    """A record body of JSON texts; ``value`` and ``timestamp`` are there unless given as an empty text."""
    texts = {"stream_id": '"a"', "timestamp": '"2026-01-01T00:00:05Z"', "value": "72.5"} | fields
    return ("{" + ",".join(f'"{name}":{text}' for name, text in texts.items() if text) + "}").encode()


def decode_one(codec: JsonCodec, raw: RawRecord) -> Observation | DeadLetter | Tombstone:
    answers = codec.decode(raw)
    assert len(answers) == 1
    return answers[0]


def refusal(raw: RawRecord, **settings: Any) -> DeadLetter:
    answer = decode_one(JsonCodec(**settings), raw)
    assert isinstance(answer, DeadLetter)
    assert answer.raw is raw
    return answer


def test_plain_reading_becomes_an_observation() -> None:
    answer = decode_one(JsonCodec(), make_raw(reading()))

    assert answer == Observation("a", ORIGIN, 72.5)


def test_null_value_is_a_missing_reading() -> None:
    answer = decode_one(JsonCodec(), make_raw(reading(value="null")))

    assert isinstance(answer, Observation)
    assert math.isnan(answer.value)


def test_unknown_fields_are_ignored() -> None:
    answer = decode_one(JsonCodec(), make_raw(reading(unit='"bpm"', nested='{"deep":[1,2]}')))

    assert answer == Observation("a", ORIGIN, 72.5)


def test_configured_field_names_are_read() -> None:
    codec = JsonCodec(id_field="id", time_field="t", fields=("pm2.5",))

    answer = decode_one(codec, make_raw(b'{"id":"a","t":1767225605,"pm2.5":3}'))

    assert answer == Observation("a", ORIGIN, 3.0)


# -- ids


@pytest.mark.parametrize("given", ["", "null"])
def test_key_names_the_stream_where_the_body_does_not(given: str) -> None:
    answer = decode_one(JsonCodec(), make_raw(reading(stream_id=given), key="über/1".encode()))

    assert isinstance(answer, Observation)
    assert answer.stream_id == "über/1"


def test_integer_id_becomes_text() -> None:
    assert decode_one(JsonCodec(), make_raw(reading(stream_id="12"), key=b"12")) == Observation("12", ORIGIN, 72.5)


@pytest.mark.parametrize("key", [None, b""])
def test_body_names_the_stream_of_a_record_without_key(key: bytes | None) -> None:
    assert decode_one(JsonCodec(), make_raw(reading(), key=key)) == Observation("a", ORIGIN, 72.5)


def test_body_that_contradicts_the_key_is_refused_with_both_named() -> None:
    letter = refusal(make_raw(reading(stream_id='"b"')))

    assert letter.reason == Reason.ID_CONFLICT
    assert "'b'" in letter.detail
    assert "b'a'" in letter.detail


@pytest.mark.parametrize(
    ("stream_id", "key", "reason"),
    [
        ("", None, Reason.ABSENT_ID),
        ("", b"", Reason.ABSENT_ID),
        ("", b"\xff", Reason.ABSENT_ID),
        ('""', None, Reason.ABSENT_ID),
        ("true", None, Reason.WRONG_TYPE),
        ("1.5", None, Reason.WRONG_TYPE),
        ("[1]", None, Reason.WRONG_TYPE),
        (r'"a\u0007"', None, Reason.WRONG_TYPE),
        (r'"a\ud800"', None, Reason.WRONG_TYPE),
        ("", b"a\x00", Reason.WRONG_TYPE),
        ('"ääääää"', None, Reason.OVERSIZED_ID),
        ("", b"12345678901", Reason.OVERSIZED_ID),
    ],
)
def test_unusable_id_is_refused(stream_id: str, key: bytes | None, reason: Reason) -> None:
    assert refusal(make_raw(reading(stream_id=stream_id), key=key), max_id_bytes=10).reason == reason


def test_id_of_exactly_the_longest_size_is_accepted() -> None:
    answer = decode_one(JsonCodec(max_id_bytes=10), make_raw(reading(stream_id='"äääää"'), key=None))

    assert isinstance(answer, Observation)


def test_id_with_a_character_that_does_not_print_but_is_no_control_is_accepted() -> None:
    answer = decode_one(JsonCodec(), make_raw(reading(stream_id='"a\u00a0b"'), key=None))

    assert isinstance(answer, Observation)
    assert answer.stream_id == "a\u00a0b"


# -- tombstones


def test_null_record_value_is_a_tombstone_of_the_key() -> None:
    assert decode_one(JsonCodec(), make_raw(None)) == Tombstone("a")


@pytest.mark.parametrize("key", [None, b""])
def test_null_record_value_without_key_is_refused(key: bytes | None) -> None:
    assert refusal(make_raw(None, key=key)).reason == Reason.ABSENT_ID


# -- times


@pytest.mark.parametrize(
    "text",
    ['"2026-01-01T00:00:05Z"', '"2026-01-01 00:00:05"', '"2026-01-01T01:00:05+01:00"', "1767225605", "1767225605000"],
)
def test_event_time_is_read_from_text_and_epoch_numbers(text: str) -> None:
    assert decode_one(JsonCodec(), make_raw(reading(timestamp=text))) == Observation("a", ORIGIN, 72.5)


@pytest.mark.parametrize("text", ["", "null"])
def test_absent_time_is_the_record_s_own(text: str) -> None:
    answer = decode_one(JsonCodec(), make_raw(reading(timestamp=text), timestamp=1000.1234567))

    assert answer == Observation("a", 1000.123457, 72.5)


def test_declared_time_unit_is_used() -> None:
    answer = decode_one(JsonCodec(time_unit="ms"), make_raw(reading(timestamp="5000"), timestamp=-1.0))

    assert answer == Observation("a", 5.0, 72.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '"soon"',
        '""',
        "true",
        "[]",
        "-1",
        "1e300",
        "1e999",
        "9" * 400,
        '"1969-12-31T23:59:59Z"',
        '"2200-01-01T00:00:01Z"',
        '"0001-01-01T00:00:00+14:00"',
    ],
)
def test_unreadable_and_impossible_times_are_refused(text: str) -> None:
    letter = refusal(make_raw(reading(timestamp=text), timestamp=-1.0))

    assert letter.reason == Reason.BAD_TIME
    assert letter.detail.startswith("timestamp")


def test_time_too_far_ahead_of_the_record_is_refused() -> None:
    raw = make_raw(reading(timestamp="1767225605"), timestamp=ORIGIN - 61)

    assert refusal(raw, max_future_seconds=60).reason == Reason.BAD_TIME


def test_time_just_within_the_allowance_is_accepted() -> None:
    raw = make_raw(reading(timestamp="1767225605"), timestamp=ORIGIN - 60)

    assert isinstance(decode_one(JsonCodec(max_future_seconds=60), raw), Observation)


# -- values


@pytest.mark.parametrize("text", ["true", '"72"', "[72]", "{}"])
def test_value_that_is_no_number_is_refused_and_described(text: str) -> None:
    letter = refusal(make_raw(reading(value=text)))

    assert letter.reason == Reason.WRONG_TYPE
    assert letter.detail.startswith("value: expected a number or null, found ")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "9" * 5000])
def test_value_that_is_not_finite_is_refused(text: str) -> None:
    assert refusal(make_raw(reading(value=text))).reason == Reason.NOT_FINITE


@pytest.mark.parametrize("text", ["-0.001", "300.001", "1e300"])
def test_value_outside_the_declared_range_is_refused(text: str) -> None:
    assert refusal(make_raw(reading(value=text)), minimum=0, maximum=300).reason == Reason.OUT_OF_RANGE


@pytest.mark.parametrize("text", ["0", "300", "-0.0"])
def test_value_on_the_bound_is_accepted(text: str) -> None:
    assert isinstance(decode_one(JsonCodec(minimum=0, maximum=300), make_raw(reading(value=text))), Observation)


def test_record_without_any_target_is_refused_with_what_it_has() -> None:
    letter = refusal(make_raw(reading(value="")))

    assert letter.reason == Reason.ABSENT_VALUE
    assert "'stream_id', 'timestamp'" in letter.detail


def test_last_of_repeated_fields_counts() -> None:
    assert decode_one(JsonCodec(), make_raw(b'{"value":"x","timestamp":5,"value":1}')) == Observation("a", 5.0, 1.0)
    assert refusal(make_raw(b'{"value":1,"timestamp":5,"value":"x"}')).reason == Reason.WRONG_TYPE


# -- what is not JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"not json",
        b"{",
        b'{"value":1} extra',
        b"[1]",
        b"null",
        b'"text"',
        b"\xef\xbb\xbf{}",
        b'{"stream_id":"\xff","value":1}',
        '{"value":1}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * (MAX_NESTING + 1) + b"1" + b"}" * (MAX_NESTING + 1),
        b"[" * (MAX_NESTING + 1) + b'"' + b'\\"' * 400_000,  # minutes of work for a careless search of strings
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert refusal(make_raw(body), max_payload_bytes=1_000_000).reason == Reason.NOT_JSON


def test_many_brackets_that_are_not_nested_are_accepted() -> None:
    body = reading(history="[" + ",".join(["[1]"] * 200) + "]", note='"' + "[" * 200 + '"')

    assert decode_one(JsonCodec(), make_raw(body)) == Observation("a", ORIGIN, 72.5)


def test_oversized_payload_is_refused_unread() -> None:
    letter = refusal(make_raw(b"x" * 101), max_payload_bytes=100)

    assert letter.reason == Reason.OVERSIZED_PAYLOAD
    assert "at most 100 bytes, found 101" in letter.detail


# -- several targets and covariates


def test_each_of_several_targets_is_a_stream_of_its_own() -> None:
    codec = JsonCodec(fields=("temp", "vibration"))

    answers = codec.decode(make_raw(reading(value="", temp="20", vibration="0.5")))

    assert answers == [
        Observation("a/temp", ORIGIN, 20.0, "temp"),
        Observation("a/vibration", ORIGIN, 0.5, "vibration"),
    ]


def test_absent_target_among_several_is_simply_no_reading() -> None:
    answers = JsonCodec(fields=("temp", "vibration")).decode(make_raw(reading(value="", vibration="0.5")))

    assert answers == [Observation("a/vibration", ORIGIN, 0.5, "vibration")]


def test_bad_target_does_not_take_the_good_one_with_it() -> None:
    raw = make_raw(reading(value="", temp='"hot"', vibration="0.5"))

    letter, observation = JsonCodec(fields=("temp", "vibration")).decode(raw)

    assert letter == DeadLetter(raw, Reason.WRONG_TYPE, "temp: expected a number or null, found string 'hot'", "temp")
    assert observation == Observation("a/vibration", ORIGIN, 0.5, "vibration")


def test_record_that_is_wrong_as_a_whole_gives_one_dead_letter() -> None:
    letter = refusal(make_raw(reading(timestamp='"soon"', a="1", b="2")), fields=("a", "b"))

    assert letter.field == ""


def test_covariates_come_in_the_order_of_the_setting_with_nan_where_absent() -> None:
    codec = JsonCodec(covariates=("steps", "mood", "load"))

    answer = decode_one(codec, make_raw(reading(load="2", steps="7", mood="null")))

    assert isinstance(answer, Observation)
    assert (answer.covariates[0], answer.covariates[2]) == (7.0, 2.0)
    assert math.isnan(answer.covariates[1])


@pytest.mark.parametrize(("text", "reason"), [('"7"', Reason.WRONG_TYPE), ("NaN", Reason.NOT_FINITE)])
def test_bad_covariate_refuses_the_record(text: str, reason: Reason) -> None:
    assert refusal(make_raw(reading(steps=text)), covariates=("steps",)).reason == reason


def test_detail_is_cut_to_two_hundred_characters() -> None:
    letter = refusal(make_raw(reading(**{f"field_{number}": "1" for number in range(50)}, value="")))

    assert len(letter.detail) == 200


@pytest.mark.parametrize(
    "settings",
    [
        {"fields": ()},
        {"fields": ("value", "value")},
        {"fields": ("timestamp",)},
        {"time_unit": "minutes"},
        {"id_field": 'a"b'},
    ],
)
def test_impossible_configuration_is_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        JsonCodec(**settings)


# -- dead letters


def test_dead_letter_carries_original_bytes_and_where_they_came_from() -> None:
    raw = RawRecord("readings", 2, 7, 1000.25, b"\xff", b"\x00bad")

    record = encode_dead_letter(DeadLetter(raw, Reason.NOT_JSON, "says why", "temp"), topic="readings.dlq")

    assert (record.topic, record.partition, record.key, record.value) == ("readings.dlq", 2, b"\xff", b"\x00bad")
    assert dict(record.headers) == {
        "reason": b"not_json",
        "detail": b"says why",
        "source.topic": b"readings",
        "source.partition": b"2",
        "source.offset": b"7",
        "timestamp": b"1000250",
        "field": b"temp",
    }


def test_dead_letter_of_a_record_without_time_and_field_has_no_such_headers() -> None:
    letter = DeadLetter(make_raw(b"", timestamp=-1.0), Reason.NOT_JSON, "says why")

    names = [name for name, _ in encode_dead_letter(letter, topic="dlq").headers]

    assert names == ["reason", "detail", "source.topic", "source.partition", "source.offset"]


@pytest.mark.parametrize(
    ("key", "value"), [(b"a", b"x" * 1_048_000), (b"k" * 900_000, b"x" * 140_000), (None, b"y" * 2_000_000)]
)
def test_a_dead_letter_of_a_record_that_is_too_large_is_cut_and_says_so(key: bytes | None, value: bytes) -> None:
    """With its headers it would be refused by the broker, and the daemon would die of it again after every restart."""
    letter = DeadLetter(RawRecord("readings", 0, 7, 1.0, key, value), Reason.OVERSIZED_PAYLOAD, "detail")

    record = encode_dead_letter(letter, topic="readings.dlq")

    sent = len(record.key or b"") + len(record.value or b"")
    assert sent + sum(len(name) + len(text) for name, text in record.headers) < 1_048_000
    assert value.startswith(record.value or b"")
    assert dict(record.headers)["truncated"] == f"{len(key or b'')} {len(value)}".encode()


def test_a_dead_letter_that_fits_holds_the_original_bytes_and_says_nothing_of_a_cut() -> None:
    letter = DeadLetter(RawRecord("readings", 0, 7, 1.0, b"a", b"x" * 999_999), Reason.OVERSIZED_PAYLOAD, "detail")

    record = encode_dead_letter(letter, topic="readings.dlq")

    assert record.value == letter.raw.value
    assert "truncated" not in dict(record.headers)


# -- what is known ahead

NAN = math.nan


@pytest.mark.parametrize(
    ("tariff", "known"),
    [
        ("[1, 2.5, 3]", (1.0, 2.5, 3.0)),
        ("[1, null, 3, 4, 5]", (1.0, NAN, 3.0)),
        ("[1]", (1.0, NAN, NAN)),
        ("[]", (NAN, NAN, NAN)),
        ("null", (NAN, NAN, NAN)),
        ("", (NAN, NAN, NAN)),
    ],
)
def test_list_of_what_is_known_ahead_is_read_for_as_many_leads_as_are_forecast(
    tariff: str, known: tuple[float, ...]
) -> None:
    codec = JsonCodec(known_ahead=("shift", "tariff"), horizon=3)

    answer = decode_one(codec, make_raw(reading(tariff=tariff, shift="[7, 8]")))

    assert isinstance(answer, Observation)
    assert [f"{number:g}" for number in answer.future] == [f"{number:g}" for number in (7.0, 8.0, NAN, *known)]
    assert answer.covariates == ()


def test_what_is_known_ahead_belongs_to_all_streams_of_a_record() -> None:
    codec = JsonCodec(fields=("temp", "load"), covariates=("wind",), known_ahead=("tariff",), horizon=2)

    answers = codec.decode(make_raw(reading(value="", temp="1", load="2", wind="3", tariff="[4, 5]")))

    assert answers == [
        Observation("a/temp", ORIGIN, 1.0, "temp", (3.0,), (4.0, 5.0)),
        Observation("a/load", ORIGIN, 2.0, "load", (3.0,), (4.0, 5.0)),
    ]


def test_slow_and_quick_reader_agree_on_what_is_known_ahead() -> None:
    """A bad target beside a good one is for the slow reader."""
    codec = JsonCodec(fields=("temp", "load"), known_ahead=("tariff",), horizon=2)

    quick = codec.decode(make_raw(reading(value="", load="2", tariff="[4, 5, 6]")))
    slow = codec.decode(make_raw(reading(value="", temp='"hot"', load="2", tariff="[4, 5, 6]")))

    assert slow[1:] == quick


@pytest.mark.parametrize(
    ("tariff", "reason", "detail"),
    [
        ("3", Reason.WRONG_TYPE, "tariff: expected a list of numbers or null, found number 3"),
        ('"[1]"', Reason.WRONG_TYPE, "tariff: expected a list of numbers or null, found string '[1]'"),
        ('{"1":2}', Reason.WRONG_TYPE, "tariff: expected a list of numbers or null, found an object of 1 fields"),
        ('[1, "2"]', Reason.WRONG_TYPE, "tariff[1]: expected a number or null, found string '2'"),
        ("[true]", Reason.WRONG_TYPE, "tariff[0]: expected a number or null, found true"),
        ("[1, 2, [3]]", Reason.WRONG_TYPE, "tariff[2]: expected a number or null, found an array of 1 items"),
        ("[1, NaN]", Reason.NOT_FINITE, "tariff[1]: expected a finite number, found number nan"),
        ("[1, 2, 3, 1e999]", Reason.NOT_FINITE, "tariff[3]: expected a finite number, found number inf"),
    ],
)
def test_malformed_list_refuses_the_record_and_says_where(tariff: str, reason: Reason, detail: str) -> None:
    letter = refusal(make_raw(reading(tariff=tariff)), known_ahead=("tariff",), horizon=2)

    assert (letter.reason, letter.detail, letter.field) == (reason, detail, "")


@pytest.mark.parametrize("names", [("tariff", "tariff"), ("wind",), ("value",)])
def test_name_used_twice_with_what_is_known_ahead_is_refused_at_once(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="no name twice"):
        JsonCodec(covariates=("wind",), known_ahead=names, horizon=2)
