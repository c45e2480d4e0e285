"""What every `ModelRegistry` promises: whole models, decisions in one order, a champion that follows from them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from kafka_fixtures import MakeTopic
from model_logs import MemoryModelLog, Topic, make_model

from forecaster.errors import ArtifactMismatch, NoChampion
from forecaster.models.artifact import ModelArtifact
from forecaster.models.decisions import LiveScore, TrainingRequest, Trial
from forecaster.ports import ModelRegistry
from forecaster.records import OutRecord
from forecaster.stores.registry_directory import DirectoryRegistry
from forecaster.stores.registry_topic import TopicRegistry
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_registry import KafkaModelLog
from forecaster.transports.kafka_sink import KafkaSink

SEEN_SECONDS = 30.0


class Implementation(ABC):
    """Opens registries at one place, and harms what is kept there."""

    @abstractmethod
    def open(self) -> ModelRegistry:
        """One more reader and writer of the place."""

    @abstractmethod
    def damage(self, version: str) -> None:
        """The bytes of this model are no longer those that were written."""

    @abstractmethod
    def lose(self, version: str) -> None:
        """Some or all of what makes up this model is gone."""


class Directory(Implementation):
    def __init__(self, path: Path) -> None:
        self._path = path / "models"

    def open(self) -> ModelRegistry:
        return DirectoryRegistry(self._path)

    def damage(self, version: str) -> None:
        file = self._path / "artifacts" / f"{version}.model"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)

    def lose(self, version: str) -> None:
        (self._path / "artifacts" / f"{version}.model").unlink()


class Memory(Implementation):
    def __init__(self) -> None:
        self._topic = Topic()

    def open(self) -> ModelRegistry:
        return TopicRegistry(MemoryModelLog(self._topic), wait=lambda seconds: time.sleep(seconds / 100))

    def damage(self, version: str) -> None:
        self._topic.add(f"model/{version}/00000", b"FCCHUNK\n" + bytes(60))

    def lose(self, version: str) -> None:
        self._topic.add(f"model/{version}/00000", None)


class Kafka(Implementation):
    def __init__(self, connection: KafkaConnection, make_topic: MakeTopic) -> None:
        # Small messages, so that a tiny model takes several.
        configs = {"cleanup.policy": "compact", "max.message.bytes": "2400"}
        self._topic = make_topic("models", configs=configs)
        self._connection = connection

    def open(self) -> ModelRegistry:
        return TopicRegistry(KafkaModelLog(self._connection, topic=self._topic, transactional_id=self._topic))

    def damage(self, version: str) -> None:
        self._send(f"model/{version}/00000", b"FCCHUNK\n" + bytes(60))

    def lose(self, version: str) -> None:
        self._send(f"model/{version}/00000", None)

    def _send(self, key: str, value: bytes | None) -> None:
        sink = KafkaSink(self._connection, compression="none")
        sink.send(OutRecord(self._topic, 0, key.encode(), value))
        sink.flush(10.0)
        sink.close()


@pytest.fixture(params=["directory", "memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Implementation:
    if request.param == "directory":
        return Directory(tmp_path)
    if request.param == "memory":
        return Memory()
    return Kafka(*(request.getfixturevalue(name) for name in ("connection", "make_topic")))


@pytest.fixture
def open_registry(place: Implementation) -> Iterator[Callable[[], ModelRegistry]]:
    opened: list[ModelRegistry] = []

    def open_one() -> ModelRegistry:
        opened.append(place.open())
        return opened[-1]

    yield open_one
    for registry in opened:
        registry.close()


@pytest.fixture
def registry(open_registry: Callable[[], ModelRegistry]) -> ModelRegistry:
    return open_registry()


def promoted(registry: ModelRegistry, *models: ModelArtifact) -> list[str]:
    """Put and promote; their versions."""
    for number, model in enumerate(models):
        registry.put(model)
        registry.promote(model.version, {"reason": "test"}, now=float(number))
    return [model.version for model in models]


def wait_for_champion(registry: ModelRegistry, version: str) -> None:
    deadline = time.monotonic() + SEEN_SECONDS
    while registry.champion() != version:
        assert time.monotonic() < deadline, f"{registry.champion()} serves, not {version}"
        time.sleep(0.02)


def test_an_empty_registry_has_no_champion_no_models_and_no_history(registry: ModelRegistry) -> None:
    assert registry.champion() is None
    assert registry.manifests() == []
    assert registry.history() == []
    with pytest.raises(ArtifactMismatch, match="has no model gru-20200101T000000-ffffff; it holds none"):
        registry.get("gru-20200101T000000-ffffff")


def test_a_model_that_was_put_is_got_back_whole_by_another_reader(open_registry: Callable[[], ModelRegistry]) -> None:
    model = make_model(scores={"pinball": 0.25})

    open_registry().put(model)

    assert open_registry().get(model.version) == model


def test_putting_twice_is_the_same_as_once_and_manifests_come_oldest_first(registry: ModelRegistry) -> None:
    late, early = make_model(1, created=1_800_000_000.0), make_model(2, created=1_700_000_000.0)

    for model in (late, early, late):
        registry.put(model)

    assert registry.manifests() == [early.manifest, late.manifest]


def test_another_model_of_the_same_name_is_refused(registry: ModelRegistry) -> None:
    model = make_model()
    namesake = ModelArtifact(msgspec.structs.replace(model.manifest, seed=99), model.weights)
    registry.put(model)

    with pytest.raises(ArtifactMismatch, match=f"another model named {model.version}"):
        registry.put(namesake)

    assert registry.get(model.version) == model


def test_the_champion_is_the_last_one_promoted_and_refusals_leave_it_alone(registry: ModelRegistry) -> None:
    first, second = promoted(registry, make_model(1), make_model(2))

    record = registry.refuse("gru-20260101T000000-000000", {"reason": "no better", "p_value": 0.4}, now=9.0)

    assert registry.champion() == second
    history = registry.history()
    assert history[2] == record
    assert [(r.number, r.action, r.version, r.time) for r in history] == [
        (1, "promoted", first, 0.0),
        (2, "promoted", second, 1.0),
        (3, "refused", "gru-20260101T000000-000000", 9.0),
    ]
    assert record.decision == {"reason": "no better", "p_value": 0.4}


def test_a_reader_elsewhere_sees_promotion_and_rollback_without_being_opened_anew(
    open_registry: Callable[[], ModelRegistry],
) -> None:
    writer, reader = open_registry(), open_registry()
    assert reader.champion() is None
    first = promoted(writer, make_model(1))[0]
    wait_for_champion(reader, first)

    second = promoted(writer, make_model(2))[0]
    wait_for_champion(reader, second)
    got = reader.get(second)
    writer.rollback(now=5.0)
    wait_for_champion(reader, first)

    assert got == make_model(2)


def test_rollback_steps_back_through_champions_and_a_promotion_starts_from_there(registry: ModelRegistry) -> None:
    first, second, third = promoted(registry, make_model(1), make_model(2), make_model(3))

    assert registry.rollback(now=10.0, reason="too wide") == second
    assert registry.rollback(now=11.0) == first
    registry.promote(third, {}, now=12.0)
    assert registry.rollback(now=13.0) == first

    assert registry.champion() == first
    assert registry.history()[3].decision == {"from": third, "reason": "too wide"}


def test_rollback_without_an_earlier_champion_is_refused(registry: ModelRegistry) -> None:
    with pytest.raises(NoChampion, match="no champion before the first"):
        registry.rollback(now=0.0)
    version = promoted(registry, make_model(1))[0]

    with pytest.raises(NoChampion, match=f"no champion before {version}"):
        registry.rollback(now=1.0)

    assert registry.champion() == version
    assert len(registry.history()) == 1


def test_promoting_a_model_that_is_not_there_names_those_that_are_and_changes_nothing(registry: ModelRegistry) -> None:
    version = promoted(registry, make_model(1))[0]

    with pytest.raises(ArtifactMismatch, match=f"has no model gru-20200101T000000-ffffff; it holds {version}"):
        registry.promote("gru-20200101T000000-ffffff", {}, now=2.0)

    assert registry.champion() == version
    assert len(registry.history()) == 1


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "gru", "gru-20260101T000000-ABCDEF", "a/b"])
def test_what_cannot_be_a_name_is_refused_as_such(registry: ModelRegistry, name: str) -> None:
    for call in (registry.get, lambda version: registry.promote(version, {}, now=0.0)):
        with pytest.raises(ArtifactMismatch, match="not the name of a model"):
            call(name)


@pytest.mark.parametrize("harm", ["damage", "lose"])
def test_a_model_that_is_harmed_is_neither_handed_out_nor_promoted_until_it_is_put_again(
    open_registry: Callable[[], ModelRegistry], place: Implementation, harm: str
) -> None:
    writer = open_registry()
    serving = promoted(writer, make_model(1))[0]
    harmed = make_model(5)
    writer.put(harmed)
    getattr(place, harm)(harmed.version)
    registry = open_registry()

    with pytest.raises(ArtifactMismatch, match=harmed.version):
        registry.get(harmed.version)
    with pytest.raises(ArtifactMismatch, match=harmed.version):
        registry.promote(harmed.version, {}, now=2.0)
    assert registry.champion() == serving
    assert serving in [manifest.version for manifest in registry.manifests()]
    registry.put(harmed)
    registry.promote(harmed.version, {}, now=3.0)

    assert registry.get(harmed.version) == harmed
    assert registry.champion() == harmed.version


def test_a_rollback_to_a_harmed_model_changes_nothing(
    registry: ModelRegistry, place: Implementation, open_registry: Callable[[], ModelRegistry]
) -> None:
    first, second = promoted(registry, make_model(1), make_model(2))
    place.lose(first)

    with pytest.raises(ArtifactMismatch, match=first):
        open_registry().rollback(now=3.0)

    assert open_registry().champion() == second


@pytest.mark.parametrize("kind", ["promote", "challenge"])
def test_a_decision_made_in_view_of_a_champion_does_not_overwrite_another(
    open_registry: Callable[[], ModelRegistry], kind: str
) -> None:
    trainer, operator = open_registry(), open_registry()
    (judged,) = promoted(trainer, make_model(1))
    challenger = make_model(3)
    trainer.put(challenger)
    (other,) = promoted(operator, make_model(2))
    decision = {"reason": "better", "shadow_steps": 8, "p_value": 0.01}

    record = getattr(trainer, kind)(challenger.version, decision, now=3.0, expected=judged)

    assert (record.number, record.action, record.version) == (3, "refused", challenger.version)
    reason = f"champion changed: judged against {judged}, {other} serves now"
    assert record.decision == {**decision, "outcome": "refused", "reason": reason}
    assert (trainer.champion(), trainer.trial()) == (other, None)
    assert trainer.history()[-1] == record
    operator.rollback(now=4.0)
    again = getattr(trainer, kind)(challenger.version, decision, now=5.0, expected=judged)
    assert again.action == {"promote": "promoted", "challenge": "challenged"}[kind]


def test_a_first_model_is_not_promoted_over_one_that_came_meanwhile(open_registry: Callable[[], ModelRegistry]) -> None:
    trainer, operator = open_registry(), open_registry()
    first = make_model(3)
    trainer.put(first)
    (other,) = promoted(operator, make_model(2))

    record = trainer.promote(first.version, {}, now=3.0, expected="")

    assert record.action == "refused"
    assert record.decision["reason"] == f"champion changed: judged against nobody, {other} serves now"
    assert trainer.champion() == other
    assert trainer.promote(first.version, {}, now=3.0, expected=None).action == "promoted"


def test_prune_keeps_the_newest_and_those_that_served_last_and_every_decision(
    open_registry: Callable[[], ModelRegistry],
) -> None:
    registry, reader = open_registry(), open_registry()
    served = promoted(registry, *(make_model(seed) for seed in (1, 2, 3)))
    others = [make_model(seed, created=1_800_000_000.0 + seed) for seed in (10, 11, 12)]
    for model in others:
        registry.put(model)

    gone = registry.prune(keep=1)

    # kept: champion, the one a rollback leads to, and the newest of the others
    assert gone == [served[0], others[0].version, others[1].version]
    left = [manifest.version for manifest in reader.manifests()]
    assert sorted(left) == sorted([*served[1:], others[2].version])
    assert len(registry.history()) == 3
    assert registry.prune(keep=1) == []
    with pytest.raises(ArtifactMismatch, match=f"has no model {served[0]}"):
        reader.get(served[0])
    registry.put(make_model(10, created=1_800_000_010.0))
    assert registry.get(others[0].version) == others[0]


def test_writers_side_by_side_number_their_decisions_without_gap_or_repeat(
    open_registry: Callable[[], ModelRegistry],
) -> None:
    version = promoted(open_registry(), make_model(1))[0]
    writers = [open_registry() for _ in range(3)]

    def write(writer: ModelRegistry) -> list[int]:
        return [writer.refuse(version, {}, now=0.0).number for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        told = [number for numbers in pool.map(write, writers) for number in numbers]

    assert sorted(told) == list(range(2, 11))
    assert [record.number for record in open_registry().history()] == list(range(1, 11))


def test_each_group_has_its_own_champion_line_and_numbers_are_common(
    open_registry: Callable[[], ModelRegistry],
) -> None:
    registry, reader = open_registry(), open_registry()
    (common,) = promoted(registry, make_model(1))
    models = [make_model(seed) for seed in (2, 3)]
    for model in models:
        registry.put(model)
    first, second = (model.version for model in models)

    registry.promote(first, {"reason": "pumps"}, now=2.0, group="pumps", expected="")
    refused = registry.promote(second, {}, now=3.0, group="pumps", expected=common)
    registry.promote(second, {}, now=4.0, group="pumps", expected=first)
    registry.fail({"reason": "nothing to learn from"}, now=5.0, group="heart-rate")

    assert refused.action == "refused"
    assert (registry.champion(), registry.champion("pumps"), registry.champion("heart-rate")) == (common, second, None)
    assert [(r.number, r.group, r.action) for r in reader.history()] == [
        (1, "", "promoted"),
        (2, "pumps", "promoted"),
        (3, "pumps", "refused"),
        (4, "pumps", "promoted"),
        (5, "heart-rate", "failed"),
    ]
    assert registry.rollback(now=6.0, group="pumps") == first
    with pytest.raises(NoChampion, match=f"no champion of group pumps before {first}"):
        registry.rollback(now=7.0, group="pumps")
    assert open_registry().champion("pumps") == first
    assert open_registry().champion() == common


def test_trials_of_groups_run_side_by_side_and_end_one_by_one(open_registry: Callable[[], ModelRegistry]) -> None:
    registry = open_registry()
    (common,) = promoted(registry, make_model(1))
    one, other = make_model(2), make_model(3)
    for model in (one, other):
        registry.put(model)
    registry.promote(one.version, {}, now=2.0, group="pumps")

    registry.challenge(other.version, {"shadow_steps": 8}, now=3.0)
    registry.challenge(other.version, {"shadow_steps": 9}, now=4.0, group="pumps")
    trials = [registry.trial(), registry.trial("pumps")]
    assert [(t.group, t.serving, t.steps) for t in trials if t] == [("", common, 8), ("pumps", one.version, 9)]
    for trial in trials:
        assert trial is not None
        registry.report(score(trial.number, 0))
        wait_for_scores(registry, trial, [score(trial.number, 0)])
    assert trials[1] is not None
    registry.settle(trials[1], "promoted", {}, now=5.0)
    registry.prune(keep=5)

    assert (registry.champion(), registry.champion("pumps")) == (common, other.version)
    assert (registry.trial(), registry.trial("pumps")) == (trials[0], None)
    assert trials[0] is not None
    wait_for_scores(open_registry(), trials[0], [score(trials[0].number, 0)])
    wait_for_scores(open_registry(), trials[1], [])


def test_prune_keeps_what_each_group_needs(registry: ModelRegistry) -> None:
    models = [make_model(seed, created=1_700_000_000.0 + seed) for seed in range(1, 8)]
    for model in models:
        registry.put(model)
    versions = [model.version for model in models]
    for number, version in enumerate(versions[:3]):
        registry.promote(version, {}, now=float(number), group="pumps")
    registry.promote(versions[3], {}, now=4.0)

    gone = registry.prune(keep=1)

    # kept: champion of pumps and the one before it, the default champion, and the newest of the others
    assert gone == [versions[0], versions[4], versions[5]]


def test_a_wish_for_a_training_is_of_one_group(open_registry: Callable[[], ModelRegistry]) -> None:
    worker, trainer = open_registry(), open_registry()
    wish = TrainingRequest(time=5.0, reason="drift", group="pumps")

    worker.request(wish)

    deadline = time.monotonic() + SEEN_SECONDS
    while trainer.champion() or trainer.requested("pumps") != wish:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert trainer.requested() is None


def test_closing_twice_does_no_harm(registry: ModelRegistry) -> None:
    registry.champion()

    registry.close()
    registry.close()


def score(trial: int, partition: int, steps: int = 10) -> LiveScore:
    return LiveScore(
        trial=trial,
        partition=partition,
        streams=2,
        steps=steps,
        targets=3 * steps,
        serving_loss=0.5,
        beside_loss=0.25,
        blocks=2,
        difference=0.1,
        difference_squares=0.02,
    )


def wait_for_scores(registry: ModelRegistry, trial: Trial, expected: list[LiveScore]) -> None:
    deadline = time.monotonic() + SEEN_SECONDS
    while (found := registry.live_scores(trial)) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def test_a_challenger_is_on_trial_beside_the_champion_until_somebody_settles_it(
    open_registry: Callable[[], ModelRegistry],
) -> None:
    registry, elsewhere = open_registry(), open_registry()
    champion = promoted(registry, make_model(1))[0]
    challenger = make_model(2)
    registry.put(challenger)

    registry.challenge(challenger.version, {"shadow_steps": 64}, now=7.0)
    trial = registry.trial()
    assert trial == Trial(
        number=2, kind="shadow", serving=champion, beside=challenger.version, former=champion, steps=64, began=7.0
    )
    assert registry.champion() == champion
    record = registry.settle(trial, "promoted", {"gain": 0.1, "guard_steps": 32}, now=8.0)
    late = elsewhere.settle(trial, "refused", {}, now=9.0)

    assert record is not None
    assert (record.number, record.action, record.version) == (3, "promoted", challenger.version)
    assert late is None, "who comes second decides nothing"
    wait_for_champion(elsewhere, challenger.version)
    guard = elsewhere.trial()
    assert guard == Trial(number=3, kind="guard", serving=challenger.version, beside=champion, steps=32, began=8.0)
    elsewhere.settle(guard, "rolled_back", {"reason": "worse"}, now=10.0)
    assert elsewhere.champion() == champion
    assert elsewhere.trial() is None
    assert [r.action for r in elsewhere.history()] == ["promoted", "challenged", "promoted", "rolled_back"]


def test_the_former_champion_is_the_one_a_rollback_leads_to(open_registry: Callable[[], ModelRegistry]) -> None:
    registry = open_registry()
    assert registry.champions() == (None, None)
    first = promoted(registry, make_model(1))[0]
    assert registry.champions() == (first, None)
    second = promoted(registry, make_model(2))[0]
    assert registry.champions() == (second, first)
    registry.promote(second, {}, now=8.0)
    assert registry.champions() == (second, first), "promoted again, it is not its own former champion"
    third = promoted(registry, make_model(3))[0]
    assert registry.champions() == (third, second)
    fourth = make_model(4)
    registry.put(fourth)
    registry.promote(fourth.version, {"guard_steps": 8}, now=9.0)

    trial = registry.trial()

    assert trial is not None
    assert (trial.beside, trial.former) == (third, second), "as it answered before"
    registry.rollback(now=10.0)
    assert registry.champions() == (third, second)


def test_scores_of_partitions_are_kept_one_each_and_go_when_the_trial_is_over(
    open_registry: Callable[[], ModelRegistry],
) -> None:
    worker, trainer = open_registry(), open_registry()
    promoted(trainer, make_model(1))
    challenger = make_model(2)
    trainer.put(challenger)
    trainer.challenge(challenger.version, {"shadow_steps": 64}, now=7.0)
    trial = trainer.trial()
    assert trial is not None

    for made in (score(2, 0, 5), score(2, 11), score(2, 0, 20), score(1, 0)):
        worker.report(made)

    wait_for_scores(trainer, trial, [score(2, 0, 20), score(2, 11)])
    trainer.settle(trial, "refused", {"reason": "no better"}, now=8.0)
    trainer.prune(keep=5)
    wait_for_scores(open_registry(), trial, [])
    assert len(trainer.history()) == 3


def test_a_failed_training_is_noted_and_ends_neither_service_nor_trial(registry: ModelRegistry) -> None:
    champion, other = promoted(registry, make_model(1), make_model(2))
    registry.challenge(champion, {"shadow_steps": 8}, now=3.0)

    record = registry.fail({"reason": "no readings"}, now=4.0)
    registry.refuse("gru-20260101T000000-000000", {}, now=5.0)

    assert (record.action, record.version, record.decision) == ("failed", "", {"reason": "no readings"})
    trial = registry.trial()
    assert registry.champion() == other
    assert trial is not None
    assert trial.beside == champion
    assert champion in {manifest.version for manifest in registry.manifests()}


def test_a_model_on_trial_is_not_pruned_and_one_that_is_not_there_cannot_be(registry: ModelRegistry) -> None:
    promoted(registry, make_model(1))
    on_trial = make_model(5, created=1_700_000_000.0)
    for model in (on_trial, make_model(6), make_model(7)):
        registry.put(model)
    registry.challenge(on_trial.version, {"shadow_steps": 8}, now=3.0)

    gone = registry.prune(keep=1)

    assert on_trial.version not in gone
    with pytest.raises(ArtifactMismatch, match="has no model"):
        registry.challenge("gru-20200101T000000-ffffff", {"shadow_steps": 8}, now=4.0)


def test_a_wish_for_a_training_reaches_others_and_the_newest_counts(open_registry: Callable[[], ModelRegistry]) -> None:
    worker, trainer = open_registry(), open_registry()
    version = promoted(worker, make_model(1))[0]
    wait_for_champion(trainer, version)
    assert trainer.requested() is None

    for time_of in (5.0, 6.0):
        worker.request(TrainingRequest(time=time_of, reason="drift"))

    newest, deadline = TrainingRequest(time=6.0, reason="drift"), time.monotonic() + SEEN_SECONDS
    while trainer.champion() and trainer.requested() != newest:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [record.action for record in trainer.history()] == ["promoted"]
