"""Which network answers from which reading on."""

from __future__ import annotations

import pytest
from factories import forecasts_of, make_pipeline, make_raw, make_recurrent, make_task, process

from forecaster.codecs.forecast_json import decode_forecast
from forecaster.engine.switches import Switch, SwitchPlan, read_switches, write_switch
from forecaster.errors import ConfigurationError


def test_a_planned_network_serves_from_its_offset_on_and_what_is_scheduled_counts_for_nothing():
    pipeline = make_pipeline()
    networks = {made.version: made for made in (make_recurrent(pipeline, seed=k, model=k) for k in (1, 2, 3))}
    first, second, third = networks
    plan = SwitchPlan([Switch(0, 0, first), Switch(0, 40, second), Switch(1, 0, third)], network=networks.__getitem__)
    task = make_task(pipeline, boundary_records=20, plan=plan)
    task.schedule(networks[third])

    result = process(task, [make_raw(offset) for offset in range(60)])

    models = [decode_forecast(value).model for value in forecasts_of(result.records)]
    assert set(models[:40]) - {None} == {first}, "None where the mixture gives the network no weight"
    assert set(models[40:]) - {None} == {second}
    assert task.switched_at == 40


def test_before_the_first_switch_no_network_serves():
    pipeline = make_pipeline()
    plan = SwitchPlan([Switch(0, 40, "gru-test-1")], network=lambda version: make_recurrent(pipeline))
    task = make_task(pipeline, boundary_records=20, plan=plan)

    result = process(task, [make_raw(offset) for offset in range(40)])

    assert {decode_forecast(value).model for value in forecasts_of(result.records)} == {None}


def test_switches_are_read_from_lines(tmp_path):
    path = tmp_path / "switches.jsonl"
    switches = [Switch(0, 64, "gru-1"), Switch(3, 0, "gru-2")]
    path.write_text("".join(map(write_switch, switches)))

    assert read_switches(path) == switches


@pytest.mark.parametrize(
    "line", ['{"partition":0,"offset":64}', "nothing", '{"partition":0,"offset":"x","version":"v"}']
)
def test_a_line_that_is_no_switch_is_named(tmp_path, line):
    path = tmp_path / "switches.jsonl"
    path.write_text(f'{{"partition":0,"offset":64,"version":"gru-1"}}\n{line}\n')

    with pytest.raises(ConfigurationError, match=r"Line 2 of .*switches\.jsonl is no switch") as caught:
        read_switches(path)

    assert "partition" in caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"gone\.jsonl"):
        read_switches(tmp_path / "gone.jsonl")


def test_a_group_follows_its_own_switches_and_a_line_without_a_group_is_of_the_default(tmp_path):
    switches = [Switch(0, 0, "gru-1"), Switch(0, 64, "gru-2", "pumps")]
    path = tmp_path / "switches"
    path.write_text("".join(map(write_switch, switches)))

    plan = SwitchPlan(read_switches(path), network=lambda version: version)

    assert path.read_text().splitlines()[0] == '{"partition":0,"offset":0,"version":"gru-1"}'
    assert plan.networks(0, 63, ("pumps", "")) == {"": "gru-1"}
    assert plan.networks(0, 64, ("pumps", "")) == {"": "gru-1", "pumps": "gru-2"}
