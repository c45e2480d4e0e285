import numpy as np
import pytest
import torch
from factories import make_pipeline, make_recurrent, make_table, make_wave

from forecaster.engine.wave import Wave
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.series.encoder import SeriesEncoder
from forecaster.series.rows import Rows
from forecaster.training.dataset import TARGET_CLIP, WindowDataset, mix_up
from forecaster.training.encoding import encode, hide, join
from forecaster.training.history import Series, lay_out_ticks

HORIZON = 4


def irregular(rng, readings):
    """Readings with jitter, single missing values, short gaps and long ones."""
    steps = rng.choice([1.0, 1.0, 1.0, 1.0, 1.02, 3.0, 20.0], size=readings)
    values = np.cumsum(rng.normal(size=readings)) + 50.0
    values[rng.random(readings) < 0.1] = np.nan
    return Series(1000.0 + np.cumsum(60.0 * steps), values)


def planned(rng, readings, *, inputs=2):
    """An irregular stream with lists of what is known ahead, some values and some whole lists absent."""
    known = rng.normal(20.0, 5.0, (readings, inputs * HORIZON))
    known[rng.random(known.shape) < 0.2] = np.nan
    known[rng.random(readings) < 0.1] = np.nan
    return irregular(rng, readings)._replace(future=known)


def encoded(series, encoder=None, *, season=0, max_gap_steps=6):
    encoder = encoder or SeriesEncoder(ring_steps=48, horizon=HORIZON)
    ticks = lay_out_ticks(series, max_gap_steps=max_gap_steps)
    return encode(encoder, ticks, np.full(len(ticks), season))


class Recorder(RecurrentExpert):
    """The network's expert, noting what it is fed while it serves (and not while it replays a ring)."""

    def __init__(self, recurrent, columns):
        super().__init__(recurrent.network, model=1, version="t", season=recurrent.season, encoder=recurrent._encoder)
        self.columns_served = columns
        self.fed = {}

    def step(self, c, slots, features):
        if c is self.columns_served:
            for slot, row in zip(slots, features, strict=True):
                self.fed.setdefault(int(slot), []).append(row.copy())
        return super().step(c, slots, features)


@pytest.mark.parametrize("season", [0, 6])
def test_training_sees_exactly_what_serving_feeds_the_network(season):
    rng = np.random.default_rng(4)
    many = [irregular(rng, n) for n in (120, 60, 90)]
    pipeline = make_pipeline(declared_season=season)
    table = make_table(pipeline, 3)
    columns = table.arrays
    recorder = Recorder(make_recurrent(pipeline, season=season), columns)
    columns["model"][1:4], columns["season"][1:4] = 1, season

    for reading in range(120):
        here = [k for k in range(3) if reading < len(many[k].times)]
        wave = make_wave(
            [k + 1 for k in here], [many[k].times[reading] for k in here], [many[k].values[reading] for k in here]
        )
        pipeline.step(columns, wave, recorder)
    data = encoded(many, pipeline.encoder, season=season)

    for k in range(3):
        mine = data.features[data.starts[k] : data.starts[k + 1]]
        np.testing.assert_array_equal(mine, np.stack(recorder.fed[k + 1]))


def test_look_ahead_is_that_of_the_encoder_at_the_same_tick():
    rng = np.random.default_rng(5)
    values = rng.normal(size=40)
    encoder = SeriesEncoder(ring_steps=48, horizon=HORIZON)
    columns = Rows(encoder.columns, 1)
    columns["season"][:] = 6

    data = encoded([Series(60.0 * np.arange(40), values)], encoder, season=6)
    expected = []
    for t in range(40):
        slot = np.zeros(1, np.int64)
        inputs = encoder.tick(columns, slot, np.array([60.0 * t]), values[t : t + 1], np.ones(1))
        expected.append(encoder.ahead(columns, slot, inputs.origin, inputs.scale)[0][0])

    np.testing.assert_array_equal(data.ahead, np.stack(expected))


def test_changing_the_future_changes_no_earlier_input():
    rng = np.random.default_rng(6)
    one = irregular(rng, 100)
    changed = Series(one.times, np.where(np.arange(100) < 70, one.values, one.values * 9 + 1))

    first, second = encoded([one]), encoded([changed])
    until = int(np.searchsorted(first.times, one.times[69], side="right"))

    np.testing.assert_array_equal(first.features[:until], second.features[:until])
    assert not np.array_equal(first.features[until:], second.features[until:])


def test_targets_are_future_values_in_units_of_the_scale_and_stop_at_jumps_and_ends():
    times = 60.0 * np.array([0, 1, 2, 3, 4, 100, 101, 102])
    values = np.array([1.0, 2.0, np.nan, 4.0, 5.0, 6.0, 7.0, 8.0])
    data = encoded([Series(times, values), Series(times[:3], values[:3])])

    target, observed = data.targets(np.arange(11), HORIZON)

    assert observed.astype(int).tolist() == [
        [1, 0, 1, 1],
        [0, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],  # the clock jumps after this row
        [1, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],  # the stream ends
        [1, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    for row, lead, value in ((1, 2, 4.0), (3, 1, 5.0), (5, 2, 8.0)):
        expected = (value - data.origin[row]) / data.scale[row]
        assert target[row, lead - 1] == pytest.approx(expected, rel=1e-6)


def make_dataset(data, usable=None, **overrides):
    usable = np.ones(len(data.values), bool) if usable is None else usable
    return WindowDataset(
        data, usable, **{"horizon": HORIZON, "context_length": 30, "burn_in": 9, "origins": 5, **overrides}
    )


def rows_of(batch, data):
    """Where each window of a batch begins in the encoded history, found by its content."""
    first = batch.features[:, 0].numpy()
    return [int(np.flatnonzero((data.features == row).all(axis=1))[0]) for row in first]


def test_windows_hold_the_encoded_rows_and_their_targets():
    rng = np.random.default_rng(7)
    data = encoded([Series(60.0 * np.arange(200), np.cumsum(rng.normal(size=200)))])

    batch = make_dataset(data).draw(16, np.random.default_rng(0))

    for window, start in enumerate(rows_of(batch, data)):
        np.testing.assert_array_equal(batch.features[window].numpy(), data.features[start : start + 30])
        at = start + batch.origins[window].numpy()
        target, observed = data.targets(at, HORIZON)
        np.testing.assert_array_equal(batch.observed[window].numpy(), observed & data.warm[at][:, None])
        shown = batch.target[window].numpy()
        np.testing.assert_allclose(shown[observed], np.clip(target, -TARGET_CLIP, TARGET_CLIP)[observed], rtol=1e-6)


def test_no_loss_falls_into_the_burn_in():
    data = encoded([Series(60.0 * np.arange(200), np.random.default_rng(0).normal(size=200))])

    batch = make_dataset(data).draw(64, np.random.default_rng(0))

    assert int(batch.origins.min()) >= 9
    assert int(batch.origins.max()) < 29


def test_forking_takes_every_tick_behind_the_burn_in_and_asks_nothing_beyond_the_run():
    data = encoded([Series(60.0 * np.arange(200), np.random.default_rng(0).normal(size=200))])
    usable = np.arange(200) < 100
    usable[150:175] = True  # shorter than a window

    batch = make_dataset(data, usable, origins=0).draw(64, np.random.default_rng(0))

    assert (batch.origins.numpy() == np.arange(9, 29)).all()
    starts = rows_of(batch, data)
    assert 150 in starts
    for window, start in enumerate(starts):
        end = 100 if start < 100 else 175
        future = start + batch.origins[window].numpy()[:, None] + np.arange(1, HORIZON + 1)
        np.testing.assert_array_equal(batch.observed[window].numpy(), future < end)


def test_neither_inputs_nor_targets_leave_the_usable_rows():
    values = np.arange(200.0)
    data = encoded([Series(60.0 * np.arange(200), values)])
    usable = np.arange(200) < 120

    batch = make_dataset(data, usable).draw(200, np.random.default_rng(0))

    starts = np.array(rows_of(batch, data))
    leads = np.arange(1, HORIZON + 1)
    targets = starts[:, None, None] + batch.origins.numpy()[..., None] + leads
    assert starts.max() + 30 <= 120
    assert targets[batch.observed.numpy()].max() < 120
    assert targets[batch.observed.numpy()].max() == 119


def test_windows_prefer_the_newest_rows_without_forgetting_the_oldest():
    data = encoded([Series(60.0 * np.arange(1000), np.random.default_rng(0).normal(size=1000))])

    starts = np.array(rows_of(make_dataset(data).draw(2000, np.random.default_rng(0)), data))

    newest, oldest = (starts > 800).mean(), (starts < 100).mean()
    assert newest > 0.25
    assert oldest > 0.02


def test_the_same_generator_state_gives_the_same_batch_and_another_gives_another():
    data = encoded(
        [planned(np.random.default_rng(0), 300)], SeriesEncoder(ring_steps=48, horizon=HORIZON, known_ahead=2)
    )
    dataset = make_dataset(data)

    first, same, other = (dataset.draw(8, np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first.features, other.features)


def test_history_shorter_than_a_window_is_drawn_whole_and_bears_loss():
    data = encoded([Series(60.0 * np.arange(20), np.random.default_rng(0).normal(size=20))])

    dataset = make_dataset(data, context_length=264, burn_in=96)
    batch = dataset.draw(4, np.random.default_rng(0))

    assert dataset.context_length == 20
    assert batch.observed.any(dim=-1).any(dim=-1).all()


def test_wild_values_cannot_overflow_the_loss():
    values = np.random.default_rng(0).normal(size=200)
    values[150:] += 1e12
    data = encoded([Series(60.0 * np.arange(200), values)])

    batch = make_dataset(data).draw(64, np.random.default_rng(0))

    assert torch.isfinite(batch.target).all()
    assert float(batch.target.abs().max()) <= TARGET_CLIP


def test_mixed_windows_lie_between_two_of_the_history_in_inputs_and_targets_alike():
    data = encoded([Series(60.0 * np.arange(300), np.cumsum(np.random.default_rng(0).normal(size=300)))], season=6)
    dataset, rng = make_dataset(data), np.random.default_rng(1)
    first = dataset.draw(3, rng)
    second = dataset.draw(3, rng)._replace(origins=first.origins)
    weight = np.array([1.0, 0.25, 0.0])

    mixed = mix_up(first, second, weight)

    for name in ("features", "ahead", "target"):
        mine, one, other = (getattr(b, name) for b in (mixed, first, second))
        assert torch.equal(mine[0], one[0])
        torch.testing.assert_close(mine[1], 0.25 * one[1] + 0.75 * other[1])
        torch.testing.assert_close(mine[2], other[2])
    assert torch.equal(mixed.observed[0], first.observed[0])
    assert torch.equal(mixed.observed[1], first.observed[1] & second.observed[1])


def test_about_as_many_windows_are_mixed_as_asked_for():
    data = encoded([Series(60.0 * np.arange(300), np.cumsum(np.random.default_rng(0).normal(size=300)))])

    batch = make_dataset(data, mix_up=0.3).draw(400, np.random.default_rng(0))

    known = {row.tobytes() for row in data.features}
    mixed = np.mean([window[0].tobytes() not in known for window in batch.features.numpy()])
    assert mixed == pytest.approx(0.3, abs=0.08)


def test_joined_histories_are_each_as_they_were():
    rng = np.random.default_rng(8)
    parts = [encoded([irregular(rng, 60), irregular(rng, 40)], season=6), encoded([irregular(rng, 50)], season=6)]

    joined = join(parts)

    rows = np.cumsum([0, *(len(part.values) for part in parts)])
    assert joined.starts.tolist() == [0, *parts[0].starts[1:], rows[2]]
    for part, first, end in zip(parts, rows[:-1], rows[1:], strict=True):
        own = np.arange(first, end)
        np.testing.assert_array_equal(joined.features[own], part.features)
        for mine, theirs in zip(joined.targets(own, 3), part.targets(own - first, 3), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_hidden_periods_are_neither_origins_nor_targets_and_change_no_input():
    data = encoded([Series(60.0 * np.arange(100), np.cumsum(np.random.default_rng(0).normal(size=100)))])

    hidden = hide(data, [(60.0 * 30, 60.0 * 39), (60.0 * 98, 1e9)])

    np.testing.assert_array_equal(hidden.features, data.features)
    _, observed = hidden.targets(np.arange(100), HORIZON)
    reached = np.arange(100)[:, None] + np.arange(1, HORIZON + 1)
    away = set(range(30, 40)) | {98, 99}
    assert not set(reached[observed]) & away
    assert set(reached[observed]) | away >= set(range(1, 100))
    assert set(np.flatnonzero(data.warm & ~hidden.warm)) == away


def test_training_sees_of_the_leads_exactly_what_serving_shows_the_network():
    """Across gaps that are walked through and gaps that are jumped over, at which nothing is known."""
    rng = np.random.default_rng(7)
    many = [planned(rng, n) for n in (120, 60, 90)]
    pipeline = make_pipeline(known_ahead=2)
    table, shown = make_table(pipeline, 3), {1: {}, 2: {}, 3: {}}
    columns, recurrent = table.arrays, make_recurrent(pipeline)
    columns["model"][1:4] = 1
    answer = recurrent.answer

    def noted(top, at):
        for slot, time, row in zip(at.slots, columns["clock"][at.slots], at.future, strict=True):
            if slot:
                shown[int(slot)][float(time)] = row.copy()
        return answer(top, at)

    recurrent.answer = noted
    for reading in range(120):
        here = [k for k in range(3) if reading < len(many[k].times)]
        wave = make_wave([k + 1 for k in here], *([many[k][part][reading] for k in here] for part in (0, 1)))
        known = np.stack([many[k].future[reading] for k in here])
        pipeline.step(columns, Wave(wave.slots, wave.times, wave.values, None, wave.tags, future=known), recurrent)
    data = encoded([series._replace(flagged=np.ones(len(series.times), bool)) for series in many], pipeline.encoder)

    for k, series in enumerate(many):
        own = slice(data.starts[k], data.starts[k + 1])
        is_reading = data.flagged[own]
        assert list(shown[k + 1]) == series.times.tolist()
        np.testing.assert_array_equal(data.future[own][is_reading], np.stack(list(shown[k + 1].values())))
        assert not is_reading.all()
        assert not data.future[own][~is_reading].any()


def test_windows_and_joined_histories_keep_what_was_known_at_each_origin():
    rng = np.random.default_rng(9)
    encoder = SeriesEncoder(ring_steps=48, horizon=HORIZON, known_ahead=2)
    parts = [encoded([planned(rng, 150)], encoder), encoded([planned(rng, 200)], encoder)]
    data = join(parts)
    place = {row.tobytes(): k for k, row in enumerate(data.features)}

    batch = WindowDataset(
        data, np.ones(len(data.values), bool), horizon=HORIZON, context_length=24, burn_in=8, origins=4
    ).draw(50, rng)

    np.testing.assert_array_equal(data.future, np.concatenate([part.future for part in parts]))
    rows = [
        [place[window[at].tobytes()] for at in origins]
        for window, origins in zip(batch.features.numpy(), batch.origins.numpy(), strict=True)
    ]
    np.testing.assert_array_equal(batch.future.numpy(), data.future[np.array(rows)])


def test_mixed_windows_know_what_lies_between_ahead_too():
    rng = np.random.default_rng(10)
    data = encoded([planned(rng, 200)], SeriesEncoder(ring_steps=48, horizon=HORIZON, known_ahead=2))
    dataset = make_dataset(data)
    first = dataset.draw(2, rng)
    second = dataset.draw(2, rng)._replace(origins=first.origins)

    mixed = mix_up(first, second, np.array([1.0, 0.25]))

    assert torch.equal(mixed.future[0], first.future[0])
    torch.testing.assert_close(mixed.future[1], 0.25 * first.future[1] + 0.75 * second.future[1])
