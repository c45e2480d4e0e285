"""What writing a wave leaves to the garbage collector."""

import gc

import numpy as np

from forecaster.codecs.forecast_wave import ForecastWave, encode_forecasts


def test_writing_a_wave_makes_no_object_for_each_lead():
    """The collector looks through all objects there are each time so many were made: with a list for each lead it cost
    more than the writing."""
    rows, leads = 512, 24
    wave = ForecastWave(
        stream_ids=[f"s{row}" for row in range(rows)],
        times=np.zeros(rows),
        values=np.ones(rows),
        step_seconds=np.ones(rows),
        quantile_levels=(0.1, 0.5, 0.9),
        quantiles=np.ones((rows, leads, 3)),
        statuses=np.zeros(rows, np.int64),
        status_names=("ok",),
        model=None,
        experts=("naive",),
        shares=np.ones((rows, 1)),
        network="recurrent",
        topic="readings",
        partition=0,
        offsets=np.arange(rows),
        fields=[""] * rows,
        sequences=np.arange(rows),
        coverages=np.full(rows, 0.8),
    )
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
