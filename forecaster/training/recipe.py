"""Everything one chooses about a training beside the network's shape: one struct per technique, defaults that serve."""

from __future__ import annotations

import msgspec

from forecaster.training.augment import Augmentation
from forecaster.training.cleaning import Cleaning
from forecaster.training.covariates import CovariateChoice
from forecaster.training.distill import Ensemble
from forecaster.training.loop import FitPlan


class WindowPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How windows are cut from the history."""

    context_length: int = 264
    burn_in: int = 96
    """Ticks at a window's start that bear no loss."""
    origins: int = 24
    """Ticks of a window at which the head is evaluated; 0 for all behind the burn-in."""
    recent_share: float = 0.7


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How to train. Each part is off, or as it serves, by default; `Recipe()` is what the daemon does."""

    fit: FitPlan = FitPlan()
    windows: WindowPlan = WindowPlan()
    cleaning: Cleaning = Cleaning()
    augmentation: Augmentation = Augmentation()
    ensemble: Ensemble = Ensemble()
    covariates: CovariateChoice = CovariateChoice()
    exclude: tuple[tuple[float, float], ...] = ()
    """Event times, from and to, of which nothing is asked."""
