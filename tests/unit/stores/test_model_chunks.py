import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_logs import make_model

from forecaster.errors import ArtifactMismatch, TransportError
from forecaster.models.decisions import RegistryRecord
from forecaster.stores.model_chunks import (
    Key,
    chunk_key,
    decision_key,
    decode_chunk,
    decode_decision,
    decode_head,
    encode_decision,
    encode_model,
    head_key,
    join,
    live_key,
    parse_key,
    request_key,
)

MODEL = make_model(3, scores={"pinball": 0.25})
CHUNKS = encode_model(MODEL, max_value_bytes=1_500)[:-1]


def restored(entries):
    """The model that records of it make, in any order of arrival."""
    by_key = dict(entries)
    head = decode_head(by_key[head_key(MODEL.version)], version=MODEL.version, origin="head")
    chunks = [
        decode_chunk(by_key[chunk_key(MODEL.version, k)], index=k, count=head.chunks, origin=f"chunk {k}")
        for k in range(head.chunks)
    ]
    return join(head, chunks, origin="model")


@pytest.mark.parametrize("limit", [1_500, 1_600, 2_048, 10_000])
def test_a_model_comes_back_whole_from_chunks_of_any_size_and_its_head_comes_last(limit):
    entries = encode_model(MODEL, max_value_bytes=limit)

    assert restored(entries) == MODEL
    assert max(len(value) for _, value in entries) <= limit
    assert [key for key, _ in entries] == [
        *(chunk_key(MODEL.version, k) for k in range(len(entries) - 1)),
        head_key(MODEL.version),
    ]
    assert (len(entries) == 2) == (limit == 10_000)


@pytest.mark.parametrize("limit", [10, 48, 400])
def test_records_too_small_for_a_head_are_an_error_that_names_the_setting_of_the_topic(limit):
    with pytest.raises(TransportError, match="does not go into records") as refusal:
        encode_model(MODEL, max_value_bytes=limit)

    assert "max.message.bytes" in refusal.value.hint


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, len(CHUNKS[0][1]) - 1), flip=st.integers(1, 255))
def test_any_changed_byte_of_a_chunk_is_found_out(position, flip):
    damaged = bytearray(CHUNKS[0][1])
    damaged[position] ^= flip

    with pytest.raises(ArtifactMismatch, match="chunk 0"):
        decode_chunk(bytes(damaged), index=0, count=len(CHUNKS), origin="chunk 0")


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=100))
def test_foreign_bytes_are_no_chunk_no_head_and_no_decision(content):
    with pytest.raises(ArtifactMismatch):
        decode_chunk(content, index=0, count=1, origin="chunk")
    with pytest.raises(ArtifactMismatch):
        decode_head(content, version=MODEL.version, origin="head")
    with pytest.raises(TransportError):
        decode_decision(content, key=Key(number=1), origin="decision")


def test_a_chunk_in_the_place_of_another_is_found_out():
    with pytest.raises(ArtifactMismatch, match=f"chunk 1 of {len(CHUNKS)}, expected 0 of {len(CHUNKS)}"):
        decode_chunk(CHUNKS[1][1], index=0, count=len(CHUNKS), origin="chunk 0")


def test_chunks_of_two_models_do_not_join():
    other = encode_model(make_model(4), max_value_bytes=1_500)
    entries = encode_model(MODEL, max_value_bytes=1_500)
    mixed = [(key, value) for (key, _), (_, value) in zip(entries[:1], other[:1], strict=True)]

    with pytest.raises(ArtifactMismatch, match="not the"):
        restored([*mixed, *entries[1:]])


def test_a_head_of_a_later_format_or_of_another_model_is_refused():
    head = msgspec.json.decode(encode_model(MODEL, max_value_bytes=1_500)[-1][1])

    with pytest.raises(ArtifactMismatch, match="registry format 2, this program reads format 1"):
        decode_head(msgspec.json.encode(head | {"format": 2}), version=MODEL.version, origin="head")
    with pytest.raises(ArtifactMismatch, match="speaks of"):
        decode_head(msgspec.json.encode(head), version="gru-20200101T000000-ffffff", origin="head")


def test_a_decision_comes_back_and_is_refused_under_another_number():
    record = RegistryRecord(number=7, time=1.5, action="promoted", version=MODEL.version, decision={"p_value": 0.01})
    key, value = encode_decision(record, "a")

    assert key == decision_key(7)
    assert decode_decision(value, key=Key(number=7), origin="decision") == record
    assert value != encode_decision(record, "b")[1]
    with pytest.raises(TransportError, match="has the number 7 within"):
        decode_decision(value, key=Key(number=8), origin="decision")
    with pytest.raises(TransportError, match="has the number 7 within"):
        decode_decision(value, key=Key(number=7, group="pumps"), origin="decision")


def test_keys_are_read_as_they_are_written_and_others_are_none_of_ours():
    assert parse_key(head_key(MODEL.version)).version == MODEL.version
    assert parse_key(chunk_key(MODEL.version, 12)) == Key(MODEL.version, 12)
    assert parse_key(live_key(7, 12)) == Key(live=(7, 12))
    assert parse_key(decision_key(3)) == Key(number=3)
    assert parse_key(decision_key(3, "pumps")) == Key(number=3, group="pumps")
    assert parse_key(request_key()) == Key(is_request=True)
    assert parse_key(request_key("pumps")) == Key(group="pumps", is_request=True)
    for foreign in (
        "group/pumps",
        "group//request",
        "group/Pumps/request",
        "",
        "model/",
        "model/../x",
        "decision/3",
        f"model/{MODEL.version}/1",
        "shadow/1",
    ):
        assert parse_key(foreign) is None
