"""A program that knows no groups shares the registry: what it reads must not be another group's decision."""

import msgspec
from model_logs import MemoryModelLog, Topic, make_model

from forecaster.stores.registry_directory import DirectoryRegistry
from forecaster.stores.registry_topic import TopicRegistry

OLD_KEYS = ("model/", "decision/", "live/", "request")


def decided(registry):
    """The default champion, then one of a group."""
    common, pumps = make_model(1), make_model(2)
    for model in (common, pumps):
        registry.put(model)
    registry.promote(common.version, {}, now=1.0)
    registry.promote(pumps.version, {}, now=2.0, group="pumps")
    return common.version, pumps.version


def test_the_journal_of_the_default_group_holds_nothing_of_another(tmp_path):
    common, pumps = decided(DirectoryRegistry(tmp_path))

    lines = [msgspec.json.decode(line) for line in (tmp_path / "decisions.jsonl").read_bytes().splitlines()]

    assert [line["version"] for line in lines] == [common]
    assert DirectoryRegistry(tmp_path).champion("pumps") == pumps


def test_in_the_topic_decisions_about_a_group_have_keys_that_were_none_of_ours_before(tmp_path):
    topic = Topic()
    common, pumps = decided(TopicRegistry(MemoryModelLog(topic)))

    told = {record.key: record.value for record in topic.records}
    known = {key: value for key, value in told.items() if key.startswith(OLD_KEYS)}

    assert pumps.encode() in told["group/pumps/decision/0000000002"]
    assert [msgspec.json.decode(known[key])["version"] for key in known if key.startswith("decision")] == [common]


def test_a_half_line_of_a_dead_writer_is_cut_off_in_the_journal_of_groups_too(tmp_path):
    registry = DirectoryRegistry(tmp_path)
    _, pumps = decided(registry)
    with open(tmp_path / "group-decisions.jsonl", "ab") as file:
        file.write(b'{"number":3,"ti')

    registry.refuse(pumps, {}, now=3.0, group="pumps")

    assert [record.number for record in registry.history()] == [1, 2, 3]
