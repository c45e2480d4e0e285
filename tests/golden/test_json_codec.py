"""What readings meant to earlier versions they mean today: bytes in, answers out, kept in a file.

``python tests/golden/test_json_codec.py`` writes the answers anew, for the day a rule is changed on purpose.
"""

from pathlib import Path

from forecaster.codecs.json_codec import JsonCodec, encode_dead_letter
from forecaster.records import DeadLetter, Observation, RawRecord, Reason, Tombstone

GOLDEN = Path(__file__).with_name("json_readings.txt")
ABSENT = "~"
CODEC = JsonCodec(fields=("value", "temp"), covariates=("load",))


def answers_of(key: str, body: str, record_time: str) -> list[str]:
    raw = RawRecord(
        "readings",
        3,
        1812,
        -1.0 if record_time == ABSENT else float(record_time),
        None if key == ABSENT else key.encode(),
        None if body == ABSENT else body.encode(),
    )
    return [spell(answer) for answer in CODEC.decode(raw)]


def spell(answer: Observation | DeadLetter | Tombstone) -> str:
    match answer:
        case Observation(stream_id, time, value, field, covariates):
            return f"OK {stream_id} {time!r} {value!r} {field} {covariates!r}"
        case DeadLetter():
            return f"DEAD {answer.reason.value} {answer.field or ABSENT}"
        case Tombstone(record_id):
            return f"FORGET {record_id}"


def read_cases() -> list[list[str]]:
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


def test_readings_are_decoded_as_they_always_were() -> None:
    for key, body, record_time, *answers in read_cases():
        assert answers_of(key, body, record_time) == answers


def test_dead_letter_has_the_bytes_it_always_had() -> None:
    raw = RawRecord("readings", 3, 1812, 1767225605.25, b"ward-3/bed-12", b'{"value":"x"}')

    record = encode_dead_letter(DeadLetter(raw, Reason.WRONG_TYPE, "value: é", "value"), topic="readings.dlq")

    assert (record.topic, record.partition, record.key, record.value) == ("readings.dlq", 3, raw.key, raw.value)
    assert record.headers == (
        ("reason", b"wrong_type"),
        ("detail", b"value: \xc3\xa9"),
        ("source.topic", b"readings"),
        ("source.partition", b"3"),
        ("source.offset", b"1812"),
        ("timestamp", b"1767225605250"),
        ("field", b"value"),
    )


def write_anew() -> None:
    head = [line for line in GOLDEN.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    cases = ["\t".join([*case[:3], *answers_of(*case[:3])]) for case in read_cases()]
    GOLDEN.write_text("\n".join([*head, *cases]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_anew()
