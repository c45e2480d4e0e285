"""A made-up wave before the first one: kernels and libraries are ready when readings come."""

from __future__ import annotations

import logging
import time

import numpy as np

from forecaster.engine.pipeline import ADOPTION_READINGS, Answers, Pipeline
from forecaster.engine.publisher import Publisher
from forecaster.engine.wave import Wave
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.cells import WAVE_TILE
from forecaster.records import Observation, RawRecord
from forecaster.series.compiled import compilations
from forecaster.state.streams import StreamTable

_LONG_SECONDS = 5.0

log = logging.getLogger(__name__)


def rehearse(pipeline: Pipeline, recurrent: RecurrentExpert) -> None:
    """Answer readings of streams that nobody has, before and after they have a network, and forget them.

    Where nothing was kept of an earlier start, kernels are compiled now, which takes half a minute: later it would be
    in the middle of a turn, and the group would take the partitions away.
    """
    began = time.perf_counter()
    table = StreamTable(pipeline.columns, max_streams=WAVE_TILE + 1)
    slots = np.array([table.slot(f"rehearsal-{k}") for k in range(WAVE_TILE)])
    beside = pipeline.encoder.covariates, pipeline.encoder.future_inputs
    for reading in range(ADOPTION_READINGS + 2):
        covariates, future = (np.zeros((WAVE_TILE, width)) if width else None for width in beside)
        wave = Wave(
            slots,
            np.full(WAVE_TILE, 1e9 + 60.0 * reading),
            slots + np.sin(reading * slots),
            covariates,
            slots,
            future=future,
        )
        result = pipeline.step(table.arrays, wave, recurrent if reading >= ADOPTION_READINGS // 2 else None)
        publish(pipeline, result.answers)
    seconds = time.perf_counter() - began
    if seconds > _LONG_SECONDS:
        log.info("compiled", extra={"kernels": compilations(), "seconds": round(seconds, 1)})


def publish(pipeline: Pipeline, answers: Answers) -> None:
    """Make the records of these answers, for nobody."""
    publisher = Publisher(
        forecasts="", dead_letters="", quantile_levels=pipeline.quantile_levels, experts=pipeline.experts
    )
    raw = RawRecord("", 0, 0, 0.0, None, None)
    publisher.forecasts(answers, [(raw, Observation("rehearsal", 0.0, 0.0))] * len(answers.tags), None)
