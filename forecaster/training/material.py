"""What a recipe makes of the training part: cleaned targets, altered copies, inputs worth showing."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import msgspec
import numpy as np

from forecaster.series.columns import BoolArray, FloatArray
from forecaster.series.encoder import SeriesEncoder
from forecaster.training.augment import Augmentation, altered_copies
from forecaster.training.cleaning import clean, treat_outliers
from forecaster.training.covariates import choose_covariates
from forecaster.training.dataset import WindowDataset
from forecaster.training.encoding import EncodedHistory, encode, hide, join
from forecaster.training.preparation import Prepared
from forecaster.training.recipe import Recipe
from forecaster.training.starting import varying_features


class Material:
    """The training part of a history under a recipe.

    Args:
        prepared: the history.
        encoder: the serving one.
        train: rows of the training part, ``[M]``; nothing else is looked at.
        recipe: how to train.
        seed: of the copies.
    """

    def __init__(
        self, prepared: Prepared, encoder: SeriesEncoder, train: BoolArray, recipe: Recipe, *, seed: int
    ) -> None:
        self._prepared, self._encoder, self._train, self._recipe = prepared, encoder, train, recipe
        self._seed = seed
        data = prepared.data
        phase = prepared.phases(encoder)
        values = clean(
            data.values, data.starts, train, data.segment_end, recipe.cleaning, phase=phase, flagged=data.flagged
        )
        self._cleaned = data._replace(values=values)
        self.dataset = self._drawn_from(self._cleaned, train, seed)

    @property
    def targets(self) -> FloatArray:
        """What the network is asked to answer, ``[M]``; ``nan`` bears no loss."""
        return self._cleaned.values

    def identity(self) -> str:
        """Digest of everything windows are drawn from, for a checkpoint."""
        data, digest = self._cleaned, hashlib.sha256(msgspec.json.encode(self._recipe))
        for array in (data.features, data.values, data.times, self._train, data.future):
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def bootstrapped(self, seed: int) -> WindowDataset:
        """Windows of the same streams after a block bootstrap."""
        plan = msgspec.structs.replace(self._recipe.augmentation, copies=1, bootstrap=True, warp=0.0, jitter=0.0)
        copies = self._altered(plan, seed)
        return self._drawn_from(copies, np.ones(len(copies.values), bool), seed)

    def used_features(self) -> tuple[str, ...]:
        """Features that vary in the training part, with the covariates the recipe chooses."""
        data, names = self._prepared.data, self._encoder.feature_names
        varying = varying_features(data, self._train, names)
        leads = tuple(sorted({1, self._encoder.horizon}))
        chosen = choose_covariates(
            self._cleaned, self._train, names, self._recipe.covariates, leads=leads, seed=self._seed
        )
        return tuple(name for name in varying if name in chosen) or varying[:1]

    def _drawn_from(self, data: EncodedHistory, usable: BoolArray, seed: int) -> WindowDataset:
        plan, windows = self._recipe.augmentation, self._recipe.windows
        if plan.copies:
            copies = self._altered(plan, seed)
            data, usable = join((data, copies)), np.concatenate((usable, np.ones(len(copies.values), bool)))
        return WindowDataset(
            data,
            usable,
            horizon=self._encoder.horizon,
            context_length=windows.context_length,
            burn_in=windows.burn_in,
            origins=windows.origins,
            recent_share=windows.recent_share,
            mix_up=plan.mix_up,
        )

    def _altered(self, plan: Augmentation, seed: int) -> EncodedHistory:
        """Altered copies of the training part alone, encoded as streams of their own."""
        prepared, starts = self._prepared, self._prepared.data.starts
        season = prepared.season_steps(self._encoder)
        ticks = []
        for stream, (first, end) in zip(prepared.ticks, pairwise(starts), strict=True):
            rows = int(self._train[first:end].sum())  # the training part is the oldest of each stream
            part = stream.until(rows)
            ticks.append(part._replace(values=treat_outliers(part.values, self._recipe.cleaning, part.flagged)))
        copies = altered_copies(ticks, season, plan, np.random.default_rng(seed))
        encoded = encode(self._encoder, copies, np.repeat(season, plan.copies))
        return hide(encoded, prepared.excluded)
