import argparse
import csv
import json

import numpy as np
import pytest

from forecaster.cli import tune
from forecaster.errors import ConfigurationError
from forecaster.settings import load_settings


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    with open(tmp_path / "pump.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", "value"])
        for t in range(400):
            writer.writerow([3600.0 * t, np.sin(2 * np.pi * t / 24) + 0.1 * rng.normal()])
    return tmp_path / "pump.csv"


def parse(*words):
    parser = argparse.ArgumentParser()
    tune.add_arguments(parser)
    parser.set_defaults(config=None, secrets_dir=None)
    return parser.parse_args([str(word) for word in words])


def search(table, out, *words):
    space = ["--space", "model.hidden=4,8", "--space", "training.learning_rate=0.0001,0.02"]
    return tune.main(
        parse("--data", table, "--out", out, "--horizon", 3, "--folds", 2, "--rungs", 5, 20, *space, *words)
    )


def test_search_writes_table_and_best_settings_and_resumes_without_a_fit(table, tmp_path, capsys):
    assert search(table, tmp_path / "out") == 0
    first, second = capsys.readouterr(), search(table, tmp_path / "out")
    again = capsys.readouterr()

    rows = json.loads((tmp_path / "out" / "table.json").read_bytes())
    best = load_settings(config_file=tmp_path / "out" / "best.toml")
    assert second == 0
    assert [row["steps"] for row in rows] == [20, 20, 5, 5]
    assert rows[0]["configuration"]["training.learning_rate"] == best.training.learning_rate == 0.02
    assert first.err.count("fold") == 4 * 2 + 2 * 2
    assert again.err == ""
    assert again.out == first.out
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count("<img") == 1
    assert all(f"{loss:.4f}" in report for row in rows for loss in row["losses"])


@pytest.mark.slow
def test_processes_find_what_one_process_finds(table, tmp_path):
    for jobs in (1, 2):
        search(table, tmp_path / str(jobs), "--jobs", jobs, "--grid", "--rungs", 8)

    one, two = (json.loads((tmp_path / str(jobs) / "table.json").read_bytes()) for jobs in (1, 2))
    assert one == two


@pytest.mark.parametrize("space", ["forecast.horizon=3,4", "hidden=3", "model=3"])
def test_space_of_what_is_not_to_be_searched_is_refused(table, tmp_path, space):
    with pytest.raises(ConfigurationError):
        tune.main(parse("--data", table, "--out", tmp_path, "--space", space))


def test_value_no_setting_can_have_is_refused_by_name(table, tmp_path):
    with pytest.raises(ConfigurationError, match=r"model.cell"):
        tune.main(parse("--data", table, "--out", tmp_path, "--space", "model.cell=gru,transformer"))


@pytest.fixture
def groups(monkeypatch):
    entry = {"name": "pumps", "streams": ["pump*"], "season": 12, "training": {"dropout": 0.25, "steps": 7}}
    monkeypatch.setenv("FORECASTER_GROUPS", json.dumps([entry]))


def test_a_group_is_searched_on_its_own_streams_under_its_own_settings(groups, table, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    pump = table.read_text()
    (tmp_path / "data" / "pump.csv").write_text(pump)
    (tmp_path / "data" / "hall.csv").write_text(pump.replace(".", "9."))  # another stream altogether
    words = ["--horizon", 3, "--folds", 2, "--rungs", 5, "--grid", "--space", "training.learning_rate=0.001,0.02"]

    def losses(data, group):
        out = tmp_path / f"{data.name}-{group}"
        assert tune.main(parse("--data", data, "--out", out, "--group", group, *words)) == 0
        return [(row["configuration"], row["losses"]) for row in json.loads((out / "table.json").read_bytes())]

    alone, among_others = losses(table, "pumps"), losses(tmp_path / "data", "pumps")

    assert among_others == alone
    assert losses(tmp_path / "data", "default") != alone
    assert "entry of pumps" in capsys.readouterr().out.replace("\n", " ")


def test_the_best_of_a_group_is_its_entry(groups, table, tmp_path, monkeypatch):
    words = ["--folds", 2, "--rungs", 5, "--grid", "--space", "training.dropout=0.0,0.1"]
    tune.main(parse("--data", table, "--out", tmp_path, "--horizon", 3, "--group", "pumps", *words))

    monkeypatch.delenv("FORECASTER_GROUPS")  # it would go before the file
    entry = load_settings(config_file=tmp_path / "best.toml").groups[0]

    assert entry.name == "pumps"
    best = json.loads((tmp_path / "table.json").read_bytes())[0]["configuration"]
    assert entry.training == {"dropout": best["training.dropout"]}


def test_what_groups_share_is_not_searched_for_one_of_them(groups, table, tmp_path):
    with pytest.raises(ConfigurationError, match="all groups share"):
        tune.main(parse("--data", table, "--out", tmp_path, "--group", "pumps", "--space", "model.hidden=3,4"))
    with pytest.raises(ConfigurationError, match="There is no group fans"):
        tune.main(parse("--data", table, "--out", tmp_path, "--group", "fans"))


def test_values_searched_go_before_what_the_group_says(groups):
    settings = tune._settings({"training": {"dropout": 0.0}}, None, None, "pumps")

    assert (settings.training.dropout, settings.training.steps) == (0.0, 7)
