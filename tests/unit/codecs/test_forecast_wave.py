"""What writing a wave leaves to the garbage collector."""

import gc

import numpy as np
from factories import make_forecast_wave

from forecaster.codecs.forecast_wave import encode_forecasts


def test_writing_a_wave_makes_no_object_for_each_lead():
    """The collector looks through all objects there are each time so many were made: with a list for each lead it cost
    more than the writing."""
    rows, leads = 512, 24
    wave = make_forecast_wave(np.ones((rows, leads, 3)))
    generations: list[int] = []

    def count(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            generations.append(info["generation"])

    encode_forecasts(wave)  # numpy loads parts of itself at their first use
    gc.collect()
    gc.callbacks.append(count)
    try:
        encode_forecasts(wave)
    finally:
        gc.callbacks.remove(count)

    assert len(generations) <= 2, "17 with a list for each lead, 12,288 of them"
