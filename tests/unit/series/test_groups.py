import pytest

from forecaster.series.groups import DEFAULT, GroupRule, GroupRules, group_label, group_named, group_number


@pytest.mark.parametrize(
    ("rule", "fits", "does_not"),
    [
        (GroupRule("g", ("ward-3/*", "pump-[0-9]")), ["ward-3/bed-1/pulse", "pump-7"], ["ward-31/x", "pump-77"]),
        (GroupRule("g", (), ("pulse", "spo2")), ["bed-1/pulse", "a/b/spo2"], ["pulse", "bed-1/pulse2", "bed-1"]),
        (GroupRule("g", ("ward-3/*",), ("pulse",)), ["ward-3/1/pulse"], ["ward-4/1/pulse", "ward-3/1/spo2"]),
        (GroupRule("g"), ["anything", "a/b"], []),
        (GroupRule("g", ("a.c",)), ["a.c"], ["abc"]),
    ],
)
def test_a_stream_is_of_a_group_when_a_pattern_and_a_field_fit(rule, fits, does_not):
    rules = GroupRules([rule])

    assert {rules.of(stream) for stream in fits} == {"g"}
    assert {rules.of(stream) for stream in does_not} <= {DEFAULT}


def test_the_first_rule_that_fits_counts_and_a_group_may_have_several():
    rules = GroupRules([GroupRule("a", ("x-1",)), GroupRule("b", ("x-*",)), GroupRule("a", ("y",))])

    assert [rules.of(stream) for stream in ("x-1", "x-2", "y", "z")] == ["a", "b", "a", DEFAULT]
    assert rules.names == ("a", "b", DEFAULT)


def test_numbers_and_labels_lead_back_to_the_group():
    rules = GroupRules([GroupRule("pumps"), GroupRule("default-like")])

    assert [rules.name(group_number(name)) for name in rules.names] == list(rules.names)
    assert [group_named(group_label(name)) for name in rules.names] == list(rules.names)


def test_without_rules_all_streams_are_of_one_group():
    assert GroupRules().is_one
    assert not GroupRules([GroupRule("a")]).is_one
