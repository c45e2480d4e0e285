"""Which client readings and answers go through, and what is said where it is not there."""

import json

import pytest

from forecaster import connections
from forecaster.codecs.avro import AvroSchema
from forecaster.errors import ConfigurationError
from forecaster.records import Observation, RawRecord
from forecaster.settings import Settings


@pytest.mark.parametrize("build", [connections.build_source, connections.build_sink])
def test_librdkafka_that_is_not_installed_is_named_with_the_extra_that_brings_it(build, monkeypatch):
    monkeypatch.setattr(connections, "find_spec", lambda name: None)
    settings = Settings.model_validate({"kafka": {"client": "librdkafka", "bootstrap_servers": "nowhere:1"}})

    with pytest.raises(ConfigurationError, match=r"kafka\.client = librdkafka needs .* confluent-kafka") as found:
        build(settings)

    assert "forecaster[librdkafka]" in str(found.value.hint)


def test_librdkafka_behind_a_proxy_is_refused():
    settings = Settings.model_validate(
        {"kafka": {"client": "librdkafka", "bootstrap_servers": "nowhere:1", "proxy_url": "socks5://proxy:1080"}}
    )

    with pytest.raises(ConfigurationError, match=r"proxy_url"):
        connections.build_sink(settings)


@pytest.mark.parametrize(
    ("kafka", "obstacle", "batched", "warned"),
    [
        ({}, "", True, 0),
        ({}, "it is made for another", False, 1),
        ({"batched": False}, "it is made for another", False, 0),
        ({"client": "librdkafka"}, "", False, 0),
    ],
)
def test_whole_batches_are_read_and_written_where_the_self_test_passes_and_else_a_warning_says_why_once(
    kafka, obstacle, batched, warned, monkeypatch, caplog
):
    connections._warn_unbatched.cache_clear()
    monkeypatch.setattr(connections, "why_not_batched", lambda: obstacle)
    settings = Settings.model_validate({"kafka": kafka})

    assert [connections.is_batched(settings), connections.is_batched(settings)] == [batched, batched]
    assert [record.reason for record in caplog.records] == [obstacle] * warned


def test_a_schema_file_that_is_not_there_is_named_before_anything_is_opened(tmp_path):
    settings = Settings.model_validate({"readings": {"avro_schemas": [str(tmp_path / "none.avsc")]}})

    with pytest.raises(ConfigurationError, match=r"none\.avsc"):
        connections.build_codec(settings)


def test_readings_of_a_producers_own_schema_are_decoded(tmp_path):
    schema = {
        "type": "record",
        "name": "Sample",
        "fields": [{"name": "sensor", "type": "string"}, {"name": "reading", "type": "float"}],
    }
    (tmp_path / "sample.avsc").write_text(json.dumps(schema))
    fields = {"id_field": "sensor", "fields": ["reading"], "avro_schemas": [str(tmp_path / "sample.avsc")]}
    codec = connections.build_codec(Settings.model_validate({"readings": fields}))

    body = AvroSchema(schema).write({"sensor": "a", "reading": 0.5})

    assert codec.decode(RawRecord("readings", 0, 0, 5.0, b"a", body)) == [Observation("a", 5.0, 0.5)]


def test_history_is_decoded_anew_when_something_else_is_known_ahead_or_for_other_leads(tmp_path):
    def place(known_ahead, horizon):
        settings = Settings.model_validate(
            {
                "readings": {"known_ahead": known_ahead},
                "forecast": {"horizon": horizon},
                "training": {"history_cache": str(tmp_path)},
            }
        )
        build = connections.build_history_cache(settings)
        assert build is not None
        return build("topic")._path(0, 0)

    places = [place(*case) for case in (([], 4), (["tariff"], 4), (["shift"], 4), (["tariff"], 5))]

    assert len(set(places)) == 4
    assert place([], 4) == place([], 5)


def test_codec_reads_what_is_known_ahead_for_the_leads_that_are_forecast():
    settings = Settings.model_validate({"readings": {"known_ahead": ["tariff"]}, "forecast": {"horizon": 2}})
    body = b'{"stream_id":"a","timestamp":5,"value":1.0,"tariff":[1,2,3]}'

    [found] = connections.build_codec(settings).decode(RawRecord("readings", 0, 0, 5.0, b"a", body))

    assert found.future == (1.0, 2.0)
