"""What every expert is asked, and where a wave stands when it is asked."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from forecaster.series.columns import BoolArray, Columns, Float32Array, FloatArray, IntArray

LARGEST = 1e6
"""Scales from the origin: what is that far away belongs to another life of the stream."""


class Origins(NamedTuple):
    """Where the streams of a wave stand after their reading was taken in. ``B`` streams, ``H`` leads."""

    slots: IntArray
    features: Float32Array
    """Network inputs of the reading, ``[B, F]``."""
    value: FloatArray
    """Last observed value x_t, ``[B]``."""
    scale: FloatArray
    """v_t, ``[B]``, positive."""
    change: FloatArray
    """Mean |x − x₋₁|, ``[B]``."""
    level: FloatArray
    """Mean of about 48 values, ``[B]``."""
    ahead: Float32Array
    """The value a season before each lead, relative to the origin and in units of the scale, ``[B, H]``."""
    seasonal: BoolArray
    """Streams with a whole season behind them, ``[B]``."""
    further: tuple[tuple[Float32Array, BoolArray], ...] = ()
    """The same two of every season beyond the first, in their order; mostly there is none."""
    future: Float32Array | None = None
    """What is known ahead, ``[B, K·H]``; ``None`` where nothing is."""


class PointExpert(Protocol):
    """Answers with one number a lead, for any stream, alone or in a wave alike; its spread is learnt from its errors.

    Numbers are relative to the origin and in units of the scale.
    """

    name: str

    def forecast(self, c: Columns, at: Origins) -> tuple[Float32Array, BoolArray]:
        """The point at every lead, ``[B, H]``, and the streams for which there is one, ``[B]``.

        Rows without one hold finite numbers.
        """

    def first_spread(self, c: Columns, at: Origins) -> Float32Array:
        """Mean |error| to be expected at every lead before any is known, ``[B, H]``."""
