"""Groups that share one trainer: who is next."""

from forecaster.training.schedule import GroupSchedules, TrainingSchedule


def make_schedules(*groups, every=100.0, least=1):
    return GroupSchedules(
        {group: TrainingSchedule(every_seconds=every, min_wall_seconds=0.0, min_readings=least) for group in groups}
    )


def next_of(schedules, *, watermark, now, readings=10, waiting=()):
    return schedules.next_due(
        readings=dict.fromkeys(schedules.groups, readings),
        watermark=watermark,
        now=now,
        may_train=lambda group: group not in waiting,
    )


def play(schedules, cost, *, turns, step=1.0):
    """Trains whoever is next, one after the other, each for as long as it costs; the groups in turn."""
    order, now = [], 0.0
    for turn in range(turns):
        group = next_of(schedules, watermark=1_000.0 * (turn + 1), now=now)
        if group is None:
            continue
        schedules.started(group, 1_000.0 * (turn + 1))
        now += step
        schedules.ended(group, now, cpu_seconds=cost[group])
        order.append(group)
    return order


def test_of_groups_that_are_always_due_each_gets_the_same_processor_time():
    order = play(make_schedules("long", "short"), {"long": 30.0, "short": 10.0}, turns=40)

    assert order.count("short") == 30
    assert order.count("long") == 10


def test_of_groups_that_have_used_the_same_the_one_that_has_waited_longest_begins():
    schedules = make_schedules("a", "b", "c", every=100.0)
    for group in schedules.groups:
        schedules.started(group, 0.0)
    schedules["c"].ask()

    assert next_of(schedules, watermark=50.0, now=1.0, waiting=("c",)) is None
    assert next_of(schedules, watermark=50.0, now=2.0) == "c"
    assert next_of(schedules, watermark=150.0, now=3.0) == "c", "the others have waited for less"
    schedules.started("c", 150.0)
    assert next_of(schedules, watermark=150.0, now=4.0) == "a"


def test_a_group_on_trial_waits_and_keeps_no_other_from_training():
    schedules = make_schedules("a", "b")

    assert next_of(schedules, watermark=1.0, now=1.0, waiting=("a",)) == "b"
    assert next_of(schedules, watermark=1.0, now=2.0, waiting=("a", "b")) is None
    assert next_of(schedules, watermark=1.0, now=3.0) in ("a", "b")


def test_a_group_is_due_by_its_own_readings():
    schedules = make_schedules("a", "b", least=100)

    found = schedules.next_due(readings={"a": 99, "b": 100}, watermark=0.0, now=0.0, may_train=lambda group: True)

    assert found == "b"


def test_waiting_is_counted_while_another_trains_and_while_the_machine_rests():
    schedules = GroupSchedules(
        {
            group: TrainingSchedule(every_seconds=100.0, min_wall_seconds=20.0, min_readings=1)
            for group in ("first", "early", "late")
        }
    )
    for group in ("early", "late", "first"):
        schedules.started(group, 0.0)
    schedules["late"].ask()
    assert next_of(schedules, watermark=50.0, now=0.0) == "late"
    schedules.started("late", 50.0)

    assert next_of(schedules, watermark=50.0, now=1.0) is None
    schedules["early"].ask()
    assert next_of(schedules, watermark=50.0, now=2.0) == "early", "it waits while the other trains"
    schedules["first"].ask()
    next_of(schedules, watermark=50.0, now=3.0)
    schedules.ended("late", 5.0, cpu_seconds=0.0)

    assert next_of(schedules, watermark=50.0, now=10.0) is None, "the floor between two trainings is common"
    assert next_of(schedules, watermark=50.0, now=25.0) == "early", "though first comes first"
