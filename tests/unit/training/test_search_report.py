from forecaster.training.search import Row
from forecaster.training.search_report import render, values_picture

ROWS = [
    Row(0, {"model.cell": "gru", "training.l1": 0.0, "model.hidden": 8}, 450, (0.3, 0.5)),
    Row(2, {"model.cell": "lstm", "training.l1": 1e-5, "model.hidden": 8}, 450, (0.5, 0.5)),
    Row(1, {"model.cell": "gru", "training.l1": 1e-5, "model.hidden": 8}, 50, (0.9, 0.7)),
]


def test_every_setting_that_was_varied_has_a_panel_with_every_configuration():
    panels = [axes for axes in values_picture(ROWS).axes if axes.get_title(loc="left")]

    assert [axes.get_title(loc="left") for axes in panels] == ["model.cell", "training.l1"]
    for axes in panels:
        points = [pair for line in axes.lines for pair in zip(line.get_xdata(), line.get_ydata(), strict=True)]
        assert sorted(float(loss) for _, loss in points) == [0.4, 0.5, 0.8]
    labels = [label.get_text() for label in panels[1].get_xticklabels()]
    assert labels == ["0.0", "1e-05"]
    early = panels[1].lines[0]
    assert (list(early.get_xdata()), early.get_label()) == ([1], "50 steps")


def test_search_over_one_choice_has_a_table_and_no_picture():
    assert values_picture(ROWS[:1]) is None

    text = render(ROWS[:1])

    assert "<img" not in text
    assert "0.3000 0.5000" in text
