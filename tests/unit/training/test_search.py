import pytest

from forecaster.errors import TrainingFailed
from forecaster.training.search import Search, SearchPlan, as_toml, candidates

SPACE = {"model.hidden": [8, 16, 32, 64], "training.l1": [0.0, 0.1, 0.2]}


def plan(**overrides):
    return SearchPlan(**{"space": SPACE, "rungs": (5, 15, 45), "folds": 2, **overrides})


class Evaluator:
    """Loss by configuration, worse with every unit of its value; notes what it was asked, may be interrupted."""

    def __init__(self, *, stop_after=None, backwards=False):
        self.jobs, self.stop_after, self.backwards = [], stop_after, backwards

    def __call__(self, jobs):
        for job in reversed(jobs) if self.backwards else jobs:
            if len(self.jobs) == self.stop_after:
                raise KeyboardInterrupt
            self.jobs.append((job.number, job.steps, job.fold))
            yield job, job.configuration["model.hidden"] / 100 + job.configuration["training.l1"] + job.fold


def test_halving_tries_all_briefly_a_third_longer_and_a_ninth_to_the_end():
    evaluator = Evaluator()

    rows = Search(plan(), None).run(evaluator)

    steps = [steps for _, steps, _ in evaluator.jobs]
    assert [steps.count(rung) for rung in (5, 15, 45)] == [12 * 2, 4 * 2, 2 * 2]
    assert rows[0].configuration == {"model.hidden": 8, "training.l1": 0.0}
    assert rows[0].mean == pytest.approx(0.08 + 0.5)
    assert [row.steps for row in rows] == [45] * 2 + [15] * 2 + [5] * 8


def test_grid_tries_every_combination_at_full_length():
    evaluator = Evaluator()

    rows = Search(plan(method="grid"), None).run(evaluator)

    assert len(evaluator.jobs) == 12 * 2
    assert {row.steps for row in rows} == {45}
    assert [row.mean for row in rows] == sorted(row.mean for row in rows)


def test_large_grid_is_drawn_from_without_repetition_and_always_alike():
    large = plan(space={"model.hidden": list(range(4, 24)), "training.l1": [0.0, 0.1]}, configurations=12)

    drawn = candidates(large)

    assert len({tuple(c.values()) for c in drawn}) == 12
    assert drawn == candidates(large)
    assert drawn != candidates(plan(space=large.space, configurations=12, seed=1))


@pytest.mark.parametrize("stop_after", [1, 17, 24, 30, 35])
def test_search_that_was_stopped_goes_on_and_makes_each_fit_once(tmp_path, stop_after):
    whole = Search(plan(), None).run(Evaluator())
    first, second = Evaluator(stop_after=stop_after), Evaluator()

    with pytest.raises(KeyboardInterrupt):
        Search(plan(), tmp_path / "journal").run(first)
    rows = Search(plan(), tmp_path / "journal").run(second)

    assert rows == whole
    assert len(first.jobs + second.jobs) == len(set(first.jobs + second.jobs)) == 36


def test_order_in_which_losses_come_does_not_matter():
    assert Search(plan(), None).run(Evaluator()) == Search(plan(), None).run(Evaluator(backwards=True))


def test_finished_search_is_read_again_without_a_single_fit(tmp_path):
    rows = Search(plan(), tmp_path / "journal").run(Evaluator())
    again = Evaluator()

    assert Search(plan(), tmp_path / "journal").run(again) == rows
    assert again.jobs == []


@pytest.mark.parametrize("other", [{"folds": 3}, {"seed": 1}, {"rungs": (5, 15)}], ids=lambda o: next(iter(o)))
def test_journal_of_another_search_is_refused(tmp_path, other):
    Search(plan(), tmp_path / "journal")

    with pytest.raises(TrainingFailed, match="another plan or history"):
        Search(plan(**other), tmp_path / "journal")
    with pytest.raises(TrainingFailed, match="another plan or history"):
        Search(plan(), tmp_path / "journal", data_identity="other")


def test_best_configuration_reads_back_as_settings(tmp_path):
    from forecaster.settings import load_settings

    (tmp_path / "best.toml").write_text(
        as_toml({"model.cell": "lstm", "model.hidden": 32, "training.l1": 1e-5, "training.augment_bootstrap": False})
    )

    settings = load_settings(config_file=tmp_path / "best.toml")

    assert (settings.model.cell, settings.model.hidden) == ("lstm", 32)
    assert (settings.training.l1, settings.training.augment_bootstrap) == (1e-5, False)
