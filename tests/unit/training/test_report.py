import base64
import re

import numpy as np
import pytest

from forecaster.training.loop import Progress
from forecaster.training.pictures import loss_by_lead, loss_curves, reliability
from forecaster.training.report import render, write_training_report
from forecaster.training.starting import NetworkShape
from forecaster.training.train import train_once


@pytest.fixture(scope="module")
def trained():
    """A training with a champion, and every step it told of."""
    from forecaster.series.encoder import SeriesEncoder
    from forecaster.training.history import History, Series

    t = np.arange(400)
    rng = np.random.default_rng(0)
    history = History(
        {f"s<{k}>": Series(3600.0 * t, np.sin(2 * np.pi * (t + k) / 24) + 0.1 * rng.normal(size=400)) for k in (1, 2)}
    )
    steps = []
    first, second = (
        train_once(
            part,
            encoder=SeriesEncoder(ring_steps=64, horizon=4),
            quantile_levels=(0.1, 0.5, 0.9),
            now=1_767_225_600.0,
            shape=NetworkShape(hidden=8),
            steps=50,
        )
        for part in (history.between(0.0, 3600.0 * 300), history)
    )
    again = train_once(
        history,
        encoder=SeriesEncoder(ring_steps=64, horizon=4),
        quantile_levels=(0.1, 0.5, 0.9),
        now=1_767_225_600.0,
        champion=first.artifact,
        shape=NetworkShape(hidden=8),
        steps=100,
        on_progress=steps.append,
    )
    return again, steps, second


def test_report_is_one_file_that_asks_for_nothing_else(trained, tmp_path):
    outcome, steps, _ = trained

    write_training_report(outcome, steps, tmp_path / "r.html")

    text = (tmp_path / "r.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == 3 + len(outcome.evidence.examples)
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_report_says_what_was_decided_and_why_and_names_are_escaped(trained):
    outcome, steps, _ = trained

    text = render(outcome, steps)

    assert f"<b>{outcome.decision.outcome}</b>" in text
    assert outcome.artifact.version in text
    assert f"from {outcome.artifact.manifest.parent}" in text
    assert "champion" in text
    assert "s<1>" not in text


def test_curve_has_a_point_for_every_look_at_the_early_stopping_stretch():
    looks = {25: 0.9, 50: 0.8, 75: 0.85}
    progress, score = [], float("nan")
    for step in range(1, 76):
        score = looks.get(step, score)
        progress.append(Progress(step, 75, 1.0 / step, score))

    left, right = loss_curves(progress).axes

    assert len(left.lines[0].get_xdata()) == 75
    assert right.lines[0].get_xdata().tolist() == [25, 50, 75]
    assert right.lines[0].get_ydata().tolist() == [0.9, 0.8, 0.85]


def test_resumed_fit_that_had_ended_has_no_curve_and_the_report_is_whole(trained):
    outcome, _, _ = trained

    assert loss_curves([]) is None
    assert "The fit" in render(outcome, [])


def test_everybody_judged_is_in_the_picture_by_lead(trained):
    with_champion, _, without = trained

    names = [line.get_label() for line in loss_by_lead(with_champion.leads).axes[0].lines]
    assert names == ["last value", "seasonal naive", "champion", "challenger"]
    assert "champion" not in [line.get_label() for line in loss_by_lead(without.leads).axes[0].lines]


def test_reliability_shows_first_middle_and_last_lead(trained):
    outcome, _, _ = trained

    lines = reliability(outcome.evidence, (0.1, 0.5, 0.9)).axes[0].lines[1:]

    assert [line.get_label() for line in lines] == ["lead 1", "lead 2", "lead 4"]
    assert lines[0].get_ydata() == pytest.approx(outcome.evidence.below[0])
