"""The network as an expert: one hidden state per stream, one step per reading, rebuilt from the ring when it must be.

A hidden state belongs to one model. When the model changes, or a gap was too long to carry it across, it is made
anew at the stream's next reading by replaying the ring through the network.
"""

from __future__ import annotations

import zlib

import numpy as np

from forecaster.experts.base import Origins
from forecaster.experts.carried import CarriedNetwork
from forecaster.experts.former import FormerChampion
from forecaster.experts.linear import LinearExpert
from forecaster.models.network import RecurrentForecaster
from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.encoder import SeriesEncoder
from forecaster.series.rows import Rows
from forecaster.state.streams import SCRATCH

_BESIDE = "+"


def model_number(name: str) -> int:
    """The number by which hidden states know a model, or a `team`: the same in every process, never 0.

    >>> model_number("gru-20260101T000000-ab12cd") == model_number("gru-20260101T000000-ab12cd") > 0
    True
    """
    return zlib.crc32(name.encode()) & 0x7FFFFFFF or 1


def team(version: str, former: str | None = None) -> str:
    """The name under which a network and the one that answers beside it are noted down.

    >>> team("gru-20260201T000000-ab12cd"), team("gru-20260201T000000-ab12cd", "gru-20260101T000000-ef34ab")
    ('gru-20260201T000000-ab12cd', 'gru-20260201T000000-ab12cd+gru-20260101T000000-ef34ab')
    """
    return version if former is None else f"{version}{_BESIDE}{former}"


def of_team(name: str) -> tuple[str, str | None]:
    """Versions of the network of a `team` and of the one that answers beside it, if any does.

    >>> of_team(team("b", "a")), of_team(team("b"))
    (('b', 'a'), ('b', None))
    """
    version, _, former = name.partition(_BESIDE)
    return version, former or None


class RecurrentExpert:
    """The champion network over the hidden states of all streams of a task.

    Args:
        network: never changed here.
        model: positive number that names the team, as `model_number` gives it; hidden states carry it.
        version: its name in the registry, published with every forecast.
        season: that its training had, in steps when ``int``, in seconds when ``float``, 0 for none; streams take it
            over with the model unless another is declared.
        further_seasons: that its training found beyond it, in seconds.
        former: the champion before it, which answers beside it; ``None`` where none does.
    """

    name = "recurrent"

    def __init__(
        self,
        network: RecurrentForecaster,
        *,
        model: int,
        version: str,
        season: int | float,
        encoder: SeriesEncoder,
        further_seasons: tuple[float, ...] = (),
        former: FormerChampion | None = None,
    ) -> None:
        self._carried = CarriedNetwork(network, "hidden")
        self.network = network
        self.model = model
        self.version = version
        self.former = former
        self.team = team(version, former.version if former else None)
        """Its version, and that of the former champion: what a replay has to know of who answers."""
        self.season = season
        self.further_seasons = further_seasons
        self._encoder = encoder
        linear = self.network.linear
        self.linear = LinearExpert(linear, encoder) if linear is not None and linear.is_fitted else None
        """The linear forecast that came with the network; ``None`` with one that was trained before there was any."""

    @staticmethod
    def columns(hidden_shape: tuple[int, int]) -> tuple[Column, ...]:
        """Hidden state ``[L, W]`` and the model it belongs to (0: none); not those of a former champion."""
        return Column("hidden", "f4", hidden_shape), Column("model", "i4")

    def step(self, c: Columns, slots: IntArray, features: Float32Array) -> Float32Array:
        """Carry hidden states over one tick; returns the top layer, ``[B, D]``. B is a multiple of `WAVE_TILE`."""
        if self.former is not None:
            self.former.step(c, slots, features)
        return self._carried.step(c, slots, features)

    def answer(self, top: Float32Array, at: Origins) -> tuple[Float32Array, BoolArray]:
        """Quantiles ``[B, H, Q]`` from what `step` returned, and whose are usable, ``[B]``: `CarriedNetwork.answer`."""
        return self._carried.answer(top, at)

    def rebuild(self, c: Columns, slots: IntArray, last_tick: FloatArray, *, relearn_scale: bool) -> None:
        """Make the hidden states of these streams by replaying their rings, oldest tick first.

        Args:
            slots: rows, padded to a multiple of `WAVE_TILE`.
            last_tick: event time of the newest tick in each ring, ``[B]``.
            relearn_scale: also take scale and level from the replay: after the season changed they mean another thing.
        """
        encoder, rows = self._encoder, np.arange(1, len(slots) + 1)
        carried = self.columns(self.network.hidden_shape)
        if self.former is not None:
            carried += self.former.columns(self.network.hidden_shape)
        scratch = Rows((*encoder.columns, *carried), len(slots) + 1)
        for name in ("season", "scale", "scale_long", "change", "seen"):
            scratch[name][rows] = c[name][slots]
        ticks, length = c["tick"][slots], encoder.ring_steps
        held = np.where(slots == SCRATCH, 0, np.minimum(ticks, length))  # padding has nothing to replay
        longest = int(held.max(initial=0))
        positions = (ticks[:, None] - np.arange(1, longest + 1)) % length  # [B, T], newest first
        stored = c["ring_elapsed"][slots[:, None], positions].astype(np.float64)
        values = c["ring"][slots[:, None], positions].astype(np.float64) + c["anchor"][slots][:, None]
        elapsed = np.abs(stored)
        ages = (np.cumsum(elapsed, axis=1) - elapsed) * c["step"][slots][:, None]
        for back in range(longest - 1, -1, -1):
            taking, starting = held > back, rows[held == back + 1]
            # The ring has forgotten what came before its first tick: the stream stands where that tick stood.
            for name in ("value", "level", "anchor"):
                scratch[name][starting] = values[held == back + 1, back]
            where = np.where(taking, rows, 0)
            inputs = encoder.tick(
                scratch,
                where,
                last_tick - ages[:, back],
                np.where(np.signbit(stored[:, back]), np.nan, values[:, back]),
                elapsed[:, back],
                c["ring_covariates"][slots, positions[:, back]] if encoder.covariates else None,
                standardised=True,
            )
            self.step(scratch, where, inputs.features)
        for column in carried:
            c[column.name][slots] = scratch[column.name][rows]
        c["model"][slots] = self.model
        if relearn_scale:
            for name in ("scale", "scale_long", "change", "level"):
                c[name][slots] = scratch[name][rows]
