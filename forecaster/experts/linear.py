"""The linear forecast of a model as an expert: no state of its own, one product of the ring with fitted weights."""

from __future__ import annotations

import numpy as np

from forecaster.experts.base import Origins
from forecaster.models.linear import LinearForecast
from forecaster.series.columns import BoolArray, Columns, Float32Array
from forecaster.series.encoder import SeriesEncoder
from forecaster.series.lags import LagInputs
from forecaster.state.streams import IDENTITY

LAGS = 48
"""Recent values it looks at; 24 and 96 forecast no better on the development series."""

_LIMIT = 1e3  # scaled units; weights that answer beyond this belong to another kind of stream


def lag_inputs(encoder: SeriesEncoder) -> LagInputs:
    """What the linear forecast is shown, in serving and training alike."""
    return LagInputs(
        lags=LAGS,
        horizon=encoder.horizon,
        features=len(encoder.feature_names),
        ring_steps=encoder.ring_steps,
        future=encoder.future_inputs,
    )


class LinearExpert:
    """A ridge regression over lags, seasons, inputs and what is known ahead, fitted by the trainer for all streams of a
    group and for each.

    Streams that it was not trained on are answered by the weights of all; whose own weights serve whom is looked up by
    name at every reading, so that nothing is remembered.

    Args:
        linear: fitted, never changed here.
        encoder: keeper of the rings.
    """

    name = "linear"

    def __init__(self, linear: LinearForecast, encoder: SeriesEncoder) -> None:
        self._linear, self._encoder, self._inputs = linear, encoder, lag_inputs(encoder)

    def forecast(self, c: Columns, at: Origins) -> tuple[Float32Array, BoolArray]:
        """Answers once all lags are there."""
        slots, ticks, season = at.slots, c["tick"][at.slots], c["season"][at.slots].astype(np.int64)
        own = self._linear.rows_of(c[IDENTITY][slots])
        rows = self._inputs.rows(
            self._encoder.past(c, slots),
            ticks=ticks,
            season=season,
            origin=at.value,
            scale=at.scale,
            features=at.features,
            ahead=at.ahead,
            future=at.future,
        )
        made = self._linear.points(rows, own)
        if np.abs(made).max() < _LIMIT:  # and none is nan
            return made, ticks > self._inputs.lags
        sane: BoolArray = np.logical_and.reduce(np.abs(made) < _LIMIT, axis=1)  # false for nan too
        return np.where(sane[:, None], made, np.float32(0.0)), sane & (ticks > self._inputs.lags)

    def first_spread(self, c: Columns, at: Origins) -> Float32Array:
        """What it left of the history it was fitted on."""
        return np.broadcast_to(self._linear.spread.numpy(), at.ahead.shape)
