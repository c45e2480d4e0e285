import argparse
import csv
import json
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from model_logs import make_model

from forecaster.cli import train
from forecaster.errors import ConfigurationError, TrainingFailed
from forecaster.models.artifact import ModelArtifact
from forecaster.series.encoder import SeriesEncoder
from forecaster.settings import load_settings
from forecaster.stores.registry_directory import DirectoryRegistry
from forecaster.trainer_child import TrainingResult
from forecaster.training.history import History, Series
from forecaster.training.promotion import Decision


def parse(*words):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    parser.set_defaults(config=None, secrets_dir=None)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture
def settings_of(monkeypatch, tmp_path):
    """The environment of a quick training into a registry of the test's own."""
    monkeypatch.setenv("FORECASTER_REGISTRY__DIRECTORY", str(tmp_path / "models"))
    monkeypatch.setenv("FORECASTER_MODEL__HIDDEN", "8")
    monkeypatch.setenv("FORECASTER_FORECAST__HORIZON", "4")
    monkeypatch.setattr("os.nice", lambda increment: increment)  # a lower priority cannot be taken back
    return tmp_path / "models"


def daily(ticks=500, seed=0):
    rng = np.random.default_rng(seed)
    return 3600.0 * np.arange(ticks), np.sin(2 * np.pi * np.arange(ticks) / 24) + 0.1 * rng.normal(size=ticks)


@pytest.fixture
def table(tmp_path):
    times, values = daily()
    with open(tmp_path / "pump.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", "value"])
        writer.writerows(zip(times, values, strict=True))
    return tmp_path / "pump.csv"


def test_training_on_files_promotes_a_first_model_and_shows_why(settings_of, table, capsys):
    code = train.main(parse("--data", table, "--steps", 60))

    registry = DirectoryRegistry(settings_of)
    champion = registry.champion()
    assert code == 0
    assert champion is not None
    assert registry.get(champion).manifest.season_seconds == (86_400.0,)
    shown = capsys.readouterr().out
    assert champion in shown.replace("\n", "")
    assert "seasonal" in shown
    assert registry.history()[0].decision["outcome"] == "promoted"


def test_refused_challenger_is_kept_and_noted_and_the_champion_stays(settings_of, table):
    train.main(parse("--data", table, "--steps", 60))
    champion = DirectoryRegistry(settings_of).champion()

    code = train.main(parse("--data", table, "--steps", 4))

    registry = DirectoryRegistry(settings_of)
    assert code == 0
    assert registry.champion() == champion
    assert [record.action for record in registry.history()] == ["promoted", "refused"]
    assert len(registry.manifests()) == 2


def test_after_drift_a_model_no_worse_than_the_champion_is_promoted(settings_of, table):
    train.main(parse("--data", table, "--steps", 60))

    train.main(parse("--data", table, "--steps", 4, "--drift"))

    first, second = DirectoryRegistry(settings_of).history()
    assert (first.action, second.action) == ("promoted", "promoted")
    assert not first.decision["after_drift"], "there was no champion whose loss could have risen"
    assert second.decision["after_drift"]
    assert second.decision["gain_over_champion"] < 0.005, "it would have been refused without"


def test_out_directory_gets_artifact_and_report_and_the_registry_nothing(settings_of, table, tmp_path):
    train.main(parse("--data", table, "--steps", 20, "--out", tmp_path / "out", "--season", "1d", "--cell", "lstm"))

    report = json.loads((tmp_path / "out" / "training.json").read_bytes())
    artifact = ModelArtifact.load(tmp_path / "out" / f"{report['version']}.model")
    assert artifact.version.startswith("lstm-")
    assert len(report["leads"]["challenger"]) == 4
    assert not settings_of.exists()


def test_columns_of_a_file_named_as_covariates_become_inputs(settings_of, tmp_path):
    times, values = daily(300)
    rain = np.random.default_rng(1).normal(size=300)
    rows = "\n".join(f"{t},{v},{r}" for t, v, r in zip(times, values, rain, strict=True))
    (tmp_path / "pump.csv").write_text(f"timestamp,flow,rain\n{rows}\n")
    covariates = 'readings.covariates=["rain"]'

    train.main(parse("--data", tmp_path / "pump.csv", "--steps", 5, "--out", tmp_path / "out", "--set", covariates))

    (path,) = (tmp_path / "out").glob("*.model")
    network = ModelArtifact.load(path).manifest.hyperparameters
    assert len(set(network.used_features) - set(SeriesEncoder(ring_steps=336, horizon=4).feature_names)) == 1


def test_report_is_written_where_it_was_asked_for(settings_of, table, tmp_path):
    train.main(parse("--data", table, "--steps", 30, "--out", tmp_path / "out", "--report", tmp_path / "report.html"))

    text = (tmp_path / "report.html").read_text()
    (model,) = (tmp_path / "out").glob("*.model")
    assert model.stem in text
    assert text.count("<img") == 4


def test_daemons_child_reads_a_history_and_writes_its_result(settings_of, tmp_path):
    History({"s": Series(*daily())}).save(tmp_path / "history")

    code = train.main(parse("--history", tmp_path / "history", "--result", tmp_path / "result", "--steps", 60))

    result = msgspec.json.decode((tmp_path / "result").read_bytes(), type=TrainingResult)
    assert code == 0
    assert result.outcome == "promoted"
    assert result.version == DirectoryRegistry(settings_of).champion()
    assert result.challenger_loss is not None
    assert result.naive_loss is not None
    assert result.challenger_loss < result.naive_loss


def test_child_that_cannot_train_says_so_in_its_result(settings_of, tmp_path):
    History({"s": Series(*daily(5))}).save(tmp_path / "history")

    with pytest.raises(TrainingFailed):
        train.main(parse("--history", tmp_path / "history", "--result", tmp_path / "result"))

    result = msgspec.json.decode((tmp_path / "result").read_bytes(), type=TrainingResult)
    assert result.outcome == "failed"
    assert "5 values" in result.reason


def test_only_flags_that_were_given_override_settings():
    assert train.overrides_of(parse("--from-topic")) == {}
    assert train.overrides_of(parse("--from-topic", "--season", "1d", "--seed", 0, "--horizon", 7)) == {
        "forecast": {"horizon": 7, "seasons": ["1d"]},
        "training": {"seed": 0},
    }


@pytest.mark.parametrize("words", [[], ["--from-topic", "--data", "x.csv"], ["--history", "h", "--from-topic"]])
def test_exactly_one_source_has_to_be_named(words, capsys):
    with pytest.raises(SystemExit) as refusal:
        parse(*words)

    assert refusal.value.code == 2
    assert "--from-topic" in capsys.readouterr().err


def test_techniques_are_reached_by_flags_and_by_any_settings_name():
    given = parse(
        "--from-topic", "--optimiser", "sgd", "--schedule", "cosine", "--augment", 2, "--teacher", 3,
        "--start-from", "other.model", "--set", "training.outliers=hampel", "--set", "training.l1=1e-5",
        "--set", 'training.exclude=["2026-01-01T00:00Z/2026-01-02T00:00Z"]',
    )  # fmt: skip

    assert train.overrides_of(given)["training"] == {
        "optimiser": "sgd",
        "schedule": "cosine",
        "augment_copies": 2,
        "teacher_members": 3,
        "start_from": "other.model",
        "outliers": "hampel",
        "l1": 1e-5,
        "exclude": ["2026-01-01T00:00Z/2026-01-02T00:00Z"],
    }


@pytest.mark.parametrize("text", ["training", "outliers=hampel", "=3", "training.=3"])
def test_what_names_no_setting_is_refused(text):
    with pytest.raises(ConfigurationError, match="names no setting"):
        train.overrides_of(parse("--from-topic", "--set", text))


def test_first_model_of_a_group_starts_from_a_file_and_says_so(settings_of, table, tmp_path):
    train.main(parse("--data", table, "--steps", 5, "--out", tmp_path / "other"))
    (source,) = (tmp_path / "other").glob("*.model")

    train.main(parse("--data", table, "--steps", 5, "--start-from", source, "--out", tmp_path / "own"))

    (own,) = (tmp_path / "own").glob("*.model")
    assert ModelArtifact.load(own).manifest.parent == ModelArtifact.load(source).version
    with pytest.raises(ConfigurationError, match="is no file"):
        train.main(parse("--data", table, "--start-from", "absent", "--out", tmp_path / "own"))


def test_checkpoints_are_gone_once_the_model_is_kept(settings_of, table, tmp_path):
    words = ("--data", table, "--steps", 5, "--out", tmp_path / "out", "--checkpoint", tmp_path / "fits")

    train.main(parse(*words))

    assert list((tmp_path / "fits").iterdir()) == []
    assert list((tmp_path / "out").glob("*.model"))


@pytest.mark.parametrize(
    ("promotion", "mode", "has_champion", "action", "asked_for"),
    [
        ({"shadow_steps": 9}, "service", True, "challenged", {"shadow_steps": 9}),
        ({"shadow_steps": 9}, "service", False, "promoted", {"guard_steps": 240}),
        ({"shadow_steps": 9, "guard_steps": 7}, "off", True, "promoted", {}),
        ({"guard_steps": 7}, "child", True, "promoted", {"guard_steps": 7}),
        ({"guard_steps": 0}, "child", True, "promoted", {}),
    ],
)
def test_a_challenger_that_has_won_goes_on_trial_where_somebody_decides(
    tmp_path, promotion, mode, has_champion, action, asked_for
):
    registry, champion, challenger = DirectoryRegistry(tmp_path), make_model(1), make_model(2)
    if has_champion:
        registry.put(champion)
        registry.promote(champion.version, {}, now=0.0)
    decision = Decision(
        outcome="promoted", reason="Better.", challenger_loss=0.2, champion_loss=0.3, naive_loss=0.5,
        gain_over_champion=0.33, gain_over_naive=0.6, p_value=0.01, timestamps=90,
    )  # fmt: skip
    outcome = SimpleNamespace(artifact=challenger, decision=decision)
    settings = load_settings({"promotion": promotion, "training": {"mode": mode}})

    judged_against = champion.version if has_champion else ""
    record = train._keep(registry, outcome, settings, judged_against=judged_against, until=77.0, now=1.0)

    assert (record.action, record.version) == (action, challenger.version)
    assert {name: value for name, value in record.decision.items() if name.endswith("_steps")} == asked_for
    assert (record.decision["until"], record.decision["reason"]) == (77.0, "Better.")
    trial = registry.trial()
    assert (trial.kind if trial else None) == (
        None if not (asked_for and has_champion) else "shadow" if action == "challenged" else "guard"
    )


def test_a_champion_that_came_while_a_challenger_was_trained_is_not_overwritten(settings_of, table, tmp_path):
    operators = make_model(9)

    class Promoting(DirectoryRegistry):
        """An operator promotes another model between the training and its decision."""

        def put(self, artifact):
            super().put(artifact)
            operator = DirectoryRegistry(tmp_path / "models")
            operator.put(operators)
            operator.promote(operators.version, {"by": "operator"}, now=1.0)

    registry = Promoting(tmp_path / "models")
    arguments = parse("--data", table, "--steps", 60)

    outcome, action = train._train_into(registry, arguments, load_settings(train.overrides_of(arguments)), now=2.0)

    assert action == "refused"
    assert registry.champion() == operators.version
    assert outcome.decision.outcome == "refused"
    assert outcome.decision.reason == registry.history()[-1].decision["reason"]
    assert outcome.decision.reason == f"champion changed: judged against nobody, {operators.version} serves now"


def test_a_group_is_trained_on_its_own_streams_and_becomes_its_own_champion(settings_of, tmp_path, monkeypatch):
    groups = [{"name": "pumps", "streams": ["pump-*"], "training": {"steps": 60, "seed": 3}}]
    monkeypatch.setenv("FORECASTER_GROUPS", json.dumps(groups))
    history = History({name: Series(*daily(seed=k)) for k, name in enumerate(("pump-1", "pump-2", "fan-1"))})
    history.save(tmp_path / "history")
    words = ("--history", tmp_path / "history")

    train.main(parse(*words, "--group", "pumps", "--seed", 5))

    registry = DirectoryRegistry(settings_of)
    champion = registry.champion("pumps")
    manifest = registry.get(champion).manifest
    assert registry.champion() is None
    assert (manifest.group, manifest.data.streams) == ("pumps", 2)
    assert (manifest.settings["training.steps"], manifest.seed) == (60, 5), "a flag goes before the group"
    train.main(parse(*words, "--steps", 60))
    assert registry.get(registry.champion()).manifest.data.streams == 1
    assert registry.champion("pumps") == champion


def test_a_group_that_is_not_in_the_settings_is_refused_by_name(settings_of, table):
    with pytest.raises(ConfigurationError, match="no group pumps; the settings know default"):
        train.main(parse("--data", table, "--group", "pumps"))


def test_a_group_with_too_few_readings_is_not_trained_by_schedule(settings_of, table, tmp_path, monkeypatch):
    """Whoever keeps the schedule counts the readings of all groups together, or does not know them apart."""
    entry = {"name": "pumps", "streams": ["pump"], "training": {"min_readings": 501}}
    monkeypatch.setenv("FORECASTER_GROUPS", json.dumps([entry]))
    result = tmp_path / "result.json"
    words = ["--data", table, "--steps", 4, "--result", result, "--group", "pumps"]

    with pytest.raises(
        TrainingFailed, match=r"Group pumps has 500 readings in the training window; training.min_readings asks for 501"
    ):
        train.main(parse(*words))

    assert msgspec.json.decode(result.read_bytes(), type=TrainingResult).outcome == "failed"
    assert DirectoryRegistry(settings_of).history() == []
    monkeypatch.setenv("FORECASTER_GROUPS", json.dumps([{**entry, "training": {"min_readings": 500}}]))
    assert train.main(parse(*words)) == 0
    assert DirectoryRegistry(settings_of).manifests() != []
