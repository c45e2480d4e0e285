import msgspec
import pytest
from model_logs import MemoryModelLog, Topic, make_model, time_out

from forecaster.errors import ArtifactMismatch, TransportError
from forecaster.models.decisions import RegistryRecord
from forecaster.stores.model_chunks import decision_key, head_key
from forecaster.stores.registry_topic import TopicRegistry


class Place:
    """A topic, and registries on it that wait in no time."""

    def __init__(self):
        self.topic, self.logs, self.waits = Topic(), [], []

    def open(self, **arguments):
        self.logs.append(MemoryModelLog(self.topic, **arguments))
        return TopicRegistry(self.logs[-1], wait=self.waits.append)


@pytest.fixture
def place():
    return Place()


def promoted(registry, *models):
    for number, model in enumerate(models):
        registry.put(model)
        registry.promote(model.version, {"reason": "test"}, now=float(number))
    return [model.version for model in models]


def test_compaction_keeps_every_model_and_every_decision(place):
    writer = place.open()
    first, second = promoted(writer, make_model(1), make_model(2))
    writer.rollback(now=5.0)
    writer.prune(keep=1)

    place.topic.compact()
    reader = place.open()

    assert reader.champion() == first
    assert [r.action for r in reader.history()] == ["promoted", "promoted", "rolled_back"]
    assert [reader.get(version) for version in (first, second)] == [make_model(1), make_model(2)]


def test_after_a_prune_and_compaction_nothing_is_left_of_a_model(place):
    registry = place.open()
    promoted(registry, make_model(1))
    spare = make_model(2)
    registry.put(spare)
    registry.put(make_model(3, created=1_800_000_000.0))

    assert registry.prune(keep=1) == [spare.version]

    place.topic.compact()
    assert not [record.key for record in place.topic.records if spare.version in record.key]


def test_a_prune_takes_chunks_whose_head_is_gone(place):
    registry = place.open()
    model = make_model(1)
    registry.put(model)
    place.topic.add(head_key(model.version), None)

    registry.prune(keep=1)

    place.topic.compact()
    assert place.topic.records == []


def test_a_chunk_that_compaction_took_while_a_reader_looked_away_makes_the_model_incomplete(place):
    registry, model = place.open(), make_model(1)
    registry.put(model)
    registry.manifests()
    place.topic.records = [r for r in place.topic.records if not r.key.endswith("/00001")]

    with pytest.raises(ArtifactMismatch, match="is incomplete: of its chunks 0 to 1 those missing are 1") as refusal:
        registry.get(model.version)

    assert "import" in refusal.value.hint


def test_a_writer_overtaken_in_the_middle_begins_again_behind_the_other(place):
    mine, other = place.open(), place.open()
    version = promoted(mine, make_model(1))[0]
    place.logs[0].on_append = [lambda: other.refuse(version, {"who": "other"}, now=1.0)]

    record = mine.refuse(version, {"who": "me"}, now=2.0)

    assert record.number == 3
    assert [r.decision.get("who") for r in mine.history()] == [None, "other", "me"]
    assert len(place.waits) == 1


def test_two_who_decide_the_same_at_the_same_time_make_two_decisions(place):
    mine, other = place.open(), place.open()
    version = promoted(mine, make_model(1))[0]
    place.logs[0].on_append = [lambda: other.refuse(version, {}, now=1.0)]

    assert mine.refuse(version, {}, now=1.0).number == 3


def test_a_commit_of_which_nothing_is_known_is_not_made_twice(place):
    registry = place.open()
    version = promoted(registry, make_model(1))[0]
    place.logs[0].after_append = [time_out]

    record = registry.refuse(version, {}, now=1.0)

    assert record.number == 2
    assert [r.number for r in registry.history()] == [1, 2]


def test_a_commit_that_did_not_take_place_is_made_again(place):
    registry = place.open()
    version = promoted(registry, make_model(1))[0]
    place.logs[0].on_append = [time_out]

    assert registry.refuse(version, {}, now=1.0).number == 2
    assert len(registry.history()) == 2


def test_a_commit_that_says_it_took_place_and_did_not_is_found_out(place, monkeypatch):
    registry = place.open()
    version = promoted(registry, make_model(1))[0]
    append, calls = place.logs[0].append, []

    def forget_once(entries):
        calls.append(entries)
        if len(calls) > 1:
            append(entries)

    monkeypatch.setattr(place.logs[0], "append", forget_once)
    registry.refuse(version, {}, now=1.0)

    assert len(calls) == 2
    assert len(place.open().history()) == 2


def test_a_writer_who_never_gets_through_gives_up_with_what_stopped_it(place):
    registry = place.open()
    place.logs[0].on_append = [time_out] * 100

    with pytest.raises(TransportError, match=r"failed 8 times\. The last time: The commit did not come back"):
        registry.put(make_model(1))

    assert len(place.waits) == 7
    assert place.waits[-1] > place.waits[0]
    assert place.open().manifests() == []


def test_a_decision_that_cannot_be_read_is_an_error_each_time_until_it_is_written_anew(place):
    registry = place.open()
    first, second = promoted(registry, make_model(1), make_model(2))
    good = next(r.value for r in place.topic.records if r.key == decision_key(2))
    place.topic.add(decision_key(2), good.replace(b"promoted", b"crowned"))

    for call in (registry.champion, registry.champion, registry.history, lambda: registry.promote(first, {}, now=1.0)):
        with pytest.raises(TransportError, match=r"decision/0000000002 in topic models, offset \d+, cannot be read"):
            call()
    place.topic.add(decision_key(2), good)

    assert registry.champion() == second


def test_a_model_of_a_later_format_is_left_out_told_of_and_harms_nobody(place, caplog):
    registry = place.open()
    version = promoted(registry, make_model(1))[0]
    later = make_model(2)
    head = {"format": 2, "version": later.version}
    place.topic.add(head_key(later.version), msgspec.json.encode(head))

    assert [manifest.version for manifest in registry.manifests()] == [version]
    assert caplog.messages == ["model cannot be read"]
    with pytest.raises(ArtifactMismatch, match="registry format 2"):
        registry.get(later.version)
    assert registry.champion() == version


def test_records_of_others_are_passed_over_and_told_of_once(place, caplog):
    registry = place.open()
    version = promoted(registry, make_model(1))[0]
    place.topic.add("hello", b"world")
    place.topic.add("", None)

    assert registry.champion() == version
    assert caplog.messages == ["models topic holds records that are none of ours"]


def test_the_champion_is_known_where_the_oldest_decisions_are_lost(place):
    """As in a topic that was not compacted but cut."""
    registry = place.open()
    first, second, _ = promoted(registry, make_model(1), make_model(2), make_model(3))
    registry.rollback(now=5.0)
    place.topic.records = [r for r in place.topic.records if r.key not in (decision_key(1), decision_key(2))]

    reader = place.open()

    assert reader.champion() == second
    assert reader.refuse(first, {}, now=6.0).number == 5


def test_a_topic_that_was_made_anew_is_an_empty_registry(place):
    registry = place.open()
    promoted(registry, make_model(1))

    place.topic.make_anew()

    assert registry.champion() is None
    assert registry.manifests() == []


def test_looking_at_the_champion_again_and_again_fetches_no_model(place):
    registry = place.open()
    version = promoted(registry, make_model(1))[0]
    before = place.logs[0].fetched

    assert [registry.champion() for _ in range(3)] == [version] * 3

    assert place.logs[0].fetched == before


def test_a_model_put_again_in_larger_records_leaves_no_chunk_behind(place):
    """The topic's limit was raised, and the damaged model is mended."""
    model = make_model(1)
    place.open(max_value_bytes=1_500).put(model)
    place.topic.add(f"model/{model.version}/00000", b"rubbish")

    place.open(max_value_bytes=10_000).put(model)

    place.topic.compact()
    assert [r.key for r in place.topic.records] == [f"model/{model.version}/00000", head_key(model.version)]
    assert place.open().get(model.version) == model


def test_closing_closes_the_log(place):
    registry = place.open()

    registry.close()

    assert place.logs[0].is_closed


def test_a_record_is_what_was_told(place):
    registry = place.open()
    model = make_model(1)
    registry.put(model)

    record = registry.promote(model.version, {"reason": "first"}, now=7.0)

    assert record == RegistryRecord(
        number=1, time=7.0, action="promoted", version=model.version, decision={"reason": "first"}
    )
