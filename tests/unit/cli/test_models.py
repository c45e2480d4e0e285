"""``forecaster models`` on a directory; tests/broker has it on a topic."""

import argparse
import json

import pytest
from model_logs import make_model

from forecaster.cli import main as command_line
from forecaster.cli import models
from forecaster.stores.registry_directory import DirectoryRegistry

OLD = make_model(1, created=1_767_225_600.0, scores={"pinball": 0.4, "pinball_naive": 0.5})
NEW = make_model(
    2, created=1_767_312_000.0, scores={"pinball": 0.3, "pinball_naive": 0.5, "p_value": 0.01}, parent=OLD.version
).with_lineage(settings={"training.steps": 400, "forecast.quantiles": [0.1, 0.5, 0.9]})
POOR = make_model(3, created=1_767_398_400.0)


@pytest.fixture
def directory(tmp_path):
    registry = DirectoryRegistry(tmp_path / "models")
    for model in (OLD, NEW, POOR):
        registry.put(model)
    registry.promote(OLD.version, {"reason": "the first"}, now=1_767_225_700.0)
    registry.promote(NEW.version, {"reason": "better"}, now=1_767_312_100.0)
    registry.refuse(POOR.version, {"reason": "no better"}, now=1_767_398_500.0)
    return tmp_path / "models"


@pytest.fixture
def run(directory, capsys, monkeypatch):
    """Exit code, standard output and standard error of ``forecaster models …``."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        code = command_line.main(["models", *map(str, words), "--directory", str(directory)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_list_shows_every_model_and_who_serves(run):
    code, out, _ = run("list")

    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines()}
    assert [rows[model.version][1] for model in (OLD, NEW, POOR)] == ["served", "champion", "refused"]
    assert "+40.0" in rows[NEW.version]
    assert rows[NEW.version][-1] == OLD.version


def test_list_as_json_is_one_object_a_model_with_numbers(run):
    code, out, _ = run("list", "--json")

    rows = json.loads(out)
    assert code == 0
    assert [row["version"] for row in rows] == [OLD.version, NEW.version, POOR.version]
    assert [row["state"] for row in rows] == ["served", "champion", "refused"]
    assert rows[1]["gain_over_naive"] == pytest.approx(0.4)
    assert rows[2]["pinball"] is None


def test_list_of_nothing_says_so(run, directory, capsys):
    code = command_line.main(["models", "list", "--directory", str(directory / "nothing")])

    assert code == 0
    assert "holds no model" in capsys.readouterr().out


def test_show_tells_lineage_scores_settings_and_decisions(run):
    code, out, _ = run("show", "champion")

    assert code == 0
    for told in (NEW.version, OLD.version, "p_value", "0.01", "training.steps", "400", "2. promoted", "better"):
        assert told in out
    _, out, _ = run("show", NEW.version, "--json")
    shown = json.loads(out)
    assert shown["manifest"]["parent"] == OLD.version
    assert [decision["number"] for decision in shown["decisions"]] == [2]


def test_diff_puts_two_models_side_by_side_and_as_json_only_what_differs(run):
    code, out, _ = run("diff", OLD.version, "champion")

    assert code == 0
    assert OLD.version in out
    assert "score pinball" in out
    _, out, _ = run("diff", OLD.version, "champion", "--json")
    differing = json.loads(out)
    assert differing["score pinball"] == ["0.4", "0.3"]
    assert differing["training.steps"] == ["", "400"]
    assert "hidden" not in differing


def test_promote_takes_a_reason_and_rollback_goes_back_to_the_one_before(run, directory):
    code, out, _ = run("promote", POOR.version, "--reason", "we know better")
    assert (code, POOR.version in out, NEW.version in out) == (0, True, True)
    assert DirectoryRegistry(directory).champion() == POOR.version

    code, out, _ = run("rollback", "--reason", "we did not", "--json")

    assert (code, json.loads(out)) == (0, {"version": NEW.version, "from": POOR.version})
    history = DirectoryRegistry(directory).history()
    assert history[-2].decision == {"reason": "we know better", "by": "operator"}
    assert history[-1].decision == {"from": POOR.version, "reason": "we did not"}


def test_promoting_the_champion_changes_nothing_and_says_so(run, directory):
    code, _, err = run("promote", NEW.version)

    assert code == 1
    assert "is the champion" in err
    assert len(DirectoryRegistry(directory).history()) == 3


@pytest.mark.parametrize("action", ["show", "promote"])
def test_a_version_that_is_not_there_is_answered_with_those_that_are(run, action):
    code, _, err = run(action, "gru-20200101T000000-ffffff")

    assert code == 1
    assert "has no model gru-20200101T000000-ffffff" in err
    assert POOR.version in err
    assert "Traceback" not in err


def test_rollback_without_an_earlier_champion_says_so(run):
    run("rollback")

    code, _, err = run("rollback")

    assert code == 1
    assert f"no champion before {OLD.version}" in err


def test_what_is_exported_is_imported_elsewhere_and_may_serve_there(run, tmp_path, capsys):
    code, out, _ = run("export", "champion", tmp_path / "m.zip")
    assert (code, NEW.version in out) == (0, True)

    elsewhere = tmp_path / "elsewhere"
    imported = command_line.main(["models", "import", str(tmp_path / "m.zip"), "--directory", str(elsewhere)])
    promoted = command_line.main(["models", "promote", NEW.version, "--directory", str(elsewhere)])

    assert (imported, promoted) == (0, 0)
    assert DirectoryRegistry(elsewhere).get(NEW.version) == NEW
    assert DirectoryRegistry(elsewhere).champion() == NEW.version


def test_a_damaged_file_is_not_imported(run, tmp_path, directory):
    run("export", OLD.version, tmp_path / "m.zip")
    content = bytearray((tmp_path / "m.zip").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "m.zip").write_bytes(content)
    before = DirectoryRegistry(directory).manifests()

    code, _, err = run("import", tmp_path / "m.zip")

    assert code == 1
    assert "m.zip" in err
    assert DirectoryRegistry(directory).manifests() == before


def test_the_word_champion_needs_one(tmp_path, capsys):
    code = command_line.main(["models", "show", "champion", "--directory", str(tmp_path)])

    assert code == 1
    assert "has no champion" in capsys.readouterr().err


def test_every_action_has_its_own_help():
    parser = argparse.ArgumentParser()
    models.add_arguments(parser)

    with pytest.raises(SystemExit):
        parser.parse_args(["promote"])
    for action in models._ACTIONS:
        with pytest.raises(SystemExit) as ended:
            parser.parse_args([action, "--help"])
        assert ended.value.code == 0


def test_a_group_has_a_champion_of_its_own_and_list_says_whom_a_model_serves(run, directory):
    code, out, _ = run("promote", OLD.version, "--group", "pumps")
    assert (code, "serves group pumps now, nobody did before" in out) == (0, True)
    run("promote", POOR.version, "--group", "pumps")

    _, listed, _ = run("list", "--json")
    _, shown, _ = run("show", "champion", "--group", "pumps")
    code, out, _ = run("rollback", "--group", "pumps", "--json")

    serves = {row["version"]: row["serves"] for row in json.loads(listed)}
    assert serves == {OLD.version: [], NEW.version: ["default"], POOR.version: ["pumps"]}
    assert POOR.version in shown
    assert "promoted (group pumps)" in shown
    assert (code, json.loads(out)) == (0, {"version": OLD.version, "from": POOR.version})
    registry = DirectoryRegistry(directory)
    assert (registry.champion("pumps"), registry.champion()) == (OLD.version, NEW.version)
