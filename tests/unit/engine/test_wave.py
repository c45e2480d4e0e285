import numpy as np
import pytest
from factories import make_wave

from forecaster.engine.wave import WaveBuilder
from forecaster.models.cells import WAVE_TILE
from forecaster.records import Observation
from forecaster.state.streams import SCRATCH


def built(slots, *, max_wave=100, covariates=0, future=0):
    builder = WaveBuilder(max_wave=max_wave, covariates=covariates, future=future)
    for tag, slot in enumerate(slots):
        observation = Observation(f"s{slot}", float(tag), tag / 2, "", (1.0,) * covariates, (2.0 + tag,) * future)
        builder.add(slot, observation, tag)
    return builder


def test_the_kth_reading_of_a_stream_goes_into_the_kth_wave():
    waves = list(built([1, 2, 1, 3, 1, 2]).cut())

    assert [wave.tags.tolist() for wave in waves] == [[0, 1, 3], [2, 5], [4]]
    assert [wave.slots.tolist() for wave in waves] == [[1, 2, 3], [1, 2], [1]]
    assert waves[1].times.tolist() == [2.0, 5.0]
    assert waves[1].values.tolist() == [1.0, 2.5]
    assert waves[1].covariates is None
    assert waves[1].future is None


def test_a_builder_is_empty_after_the_cut():
    builder = built([1, 1])
    assert len(list(builder.cut())) == 2

    assert list(builder.cut()) == []
    builder.add(1, Observation("a", 0.0, 0.0), 7)
    assert [wave.tags.tolist() for wave in builder.cut()] == [[7]]


@pytest.mark.parametrize("seed", range(10))
def test_waves_hold_each_stream_once_are_small_enough_and_keep_each_stream_s_order(seed):
    rng = np.random.default_rng(seed)
    slots = rng.integers(1, 12, 150).tolist()
    max_wave = int(rng.integers(1, 9))

    waves = list(built(slots, max_wave=max_wave).cut())

    assert all(len(wave) <= max_wave and len(set(wave.slots)) == len(wave) for wave in waves)
    tags = [tag for wave in waves for tag in wave.tags.tolist()]
    assert sorted(tags) == list(range(150))
    for slot in set(slots):
        assert [tag for tag in tags if slots[tag] == slot] == [tag for tag in range(150) if slots[tag] == slot]


@pytest.mark.parametrize(("readings", "rows"), [(1, 16), (15, 16), (16, 16), (17, 32)])
def test_padding_fills_up_to_whole_tiles_with_the_scratch_row(readings, rows):
    wave = next(built(range(1, readings + 1), covariates=2, future=3).cut())

    padded = wave.padded()

    assert rows % WAVE_TILE == 0
    assert len(padded) == len(padded.times) == len(padded.values) == rows
    assert padded.covariates.shape == (rows, 2)
    assert padded.future.shape == (rows, 3)
    assert padded.take(np.arange(readings)).future.tolist() == [[2.0 + tag] * 3 for tag in range(readings)]
    assert (padded.slots[readings:] == SCRATCH).all()
    assert (padded.tags[readings:] == -1).all()
    np.testing.assert_array_equal(padded.take(np.arange(readings)).tags, wave.tags)


def test_some_rows_of_a_wave_are_a_wave():
    wave = make_wave([1, 2, 3], [10.0, 20.0, 30.0], [0.1, 0.2, 0.3]).take(np.array([0, 2]))

    assert (wave.slots.tolist(), wave.times.tolist(), wave.values.tolist()) == ([1, 3], [10.0, 30.0], [0.1, 0.3])
