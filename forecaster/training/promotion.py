"""Whether a challenger has earned its place: champion, challenger and naive on a stretch that neither saw."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from forecaster.series.columns import FloatArray

INFERIORITY_MARGIN = 0.02
"""Share of the champion's loss by which a challenger may be worse and still count as its equal, after drift."""

MIN_TIMESTAMPS = 20
"""Fewer moments than this cannot carry a decision."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict and the numbers it rests on; losses are mean pinball, scaled and weighted as they were compared."""

    outcome: Literal["promoted", "refused"]
    reason: str
    """One sentence for people."""
    challenger_loss: float
    champion_loss: float | None
    """``None`` when there was no champion."""
    naive_loss: float
    gain_over_champion: float | None
    """Share of the champion's loss saved."""
    gain_over_naive: float
    p_value: float | None
    """One-sided, of the challenger being no better than the champion; after drift, of its being worse by the margin."""
    timestamps: int
    after_drift: bool = False
    """Whether being no worse was enough."""

    @property
    def is_promoted(self) -> bool:
        """Whether the challenger becomes champion."""
        return self.outcome == "promoted"


def diebold_mariano(differences: FloatArray, horizon: int) -> float:
    """One-sided p-value that the mean of loss differences (old minus new) is not above zero.

    Args:
        differences: one per timestamp, in order of time, ``[n]``.
        horizon: H; forecasts of neighbouring origins overlap up to H-1 steps. The long-run variance takes Bartlett
            weights up to twice that lag (with H-1 they halve what they ought to count, and the test rejects half as
            often again as it says), and up to n^(1/3) in any case.

    Returns:
        0.5 for fewer than three values or when all are zero: no evidence either way.

    Source: Diebold & Mariano (1995), "Comparing Predictive Accuracy"; Harvey, Leybourne & Newbold (1997), "Testing
    the equality of prediction mean squared errors" (correction and Student's t with n-1 degrees of freedom).
    """
    n = len(differences)
    if n < 3:
        return 0.5
    mean = float(differences.mean())
    centred = differences - mean
    lags = min(max(2 * (horizon - 1), math.floor(n ** (1 / 3))), n - 1)
    variance = float(centred @ centred) / n
    for lag in range(1, lags + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1.0)) * float(centred[lag:] @ centred[:-lag]) / n
    if variance <= 0.0:
        return 0.5 if mean == 0.0 else float(mean < 0.0)
    h = min(horizon, n // 2)
    correction = math.sqrt(max((n + 1 - 2 * h + h * (h - 1) / n) / n, 1e-12))
    return student_t_upper_tail(correction * mean / math.sqrt(variance / n), n - 1)


def student_t_upper_tail(t: float, degrees: int) -> float:
    """P(T > t) of Student's t, by Simpson's rule on the density's angular form.

    >>> round(student_t_upper_tail(1.812, 10), 3), student_t_upper_tail(0.0, 5)
    (0.05, 0.5)
    """
    # With t = sqrt(d)·tan(a) the density becomes cos(a)^(d-1): smooth on a finite interval.
    angle = math.atan(abs(t) / math.sqrt(degrees))
    grid = np.linspace(0.0, angle, 2001)
    weights = np.ones(2001)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    area = float((weights * np.cos(grid) ** (degrees - 1)).sum()) * angle / 6000.0
    log_norm = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(math.pi)
    tail = max(0.5 - area * math.exp(log_norm), 0.0)
    return tail if t >= 0 else 1.0 - tail


def decide(
    champion_losses: FloatArray | None,
    challenger_losses: FloatArray,
    naive_losses: FloatArray,
    *,
    horizon: int,
    level: float = 0.1,
    min_gain: float = 0.005,
    after_drift: bool = False,
    margin: float = INFERIORITY_MARGIN,
) -> Decision:
    """Promote the challenger or refuse it.

    Args:
        champion_losses: mean loss per timestamp, in order of time, ``[n]``; ``None`` when there is no champion.
        challenger_losses: the same of the challenger, ``[n]``.
        naive_losses: the same of the naive forecast, ``[n]``.
        horizon: H, steps between an origin and its last target, in timestamps.
        level: p-value below which the challenger is better than the champion.
        min_gain: least share of the champion's loss it has to save.
        after_drift: the champion's live loss has risen for good, so a challenger that has seen the new readings need
            not be better: it is enough that it is not worse by ``margin``, which is tested at the same level.
        margin: share of the champion's loss.

    Returns:
        ``promoted`` only if the challenger beats naive, and the champion where there is one; its reason says which
        condition failed.

    Source of the test after drift: Wellek (2010), "Testing Statistical Hypotheses of Equivalence and Noninferiority".
    """
    n = len(challenger_losses)
    challenger, naive = _mean(challenger_losses), _mean(naive_losses)
    champion = None if champion_losses is None else _mean(champion_losses)
    over_naive = 1.0 - challenger / naive if naive > 0 else -math.inf if challenger > 0 else 0.0
    over_champion, p_value = None, None
    if champion_losses is not None and champion is not None:
        over_champion = 1.0 - challenger / champion if champion > 0 else -math.inf if challenger > 0 else 0.0
        allowed = 1.0 + margin if after_drift else 1.0
        p_value = diebold_mariano(allowed * champion_losses - challenger_losses, horizon)

    outcome: Literal["promoted", "refused"] = "refused"
    if n < MIN_TIMESTAMPS:
        reason = f"Only {n} moments that neither model has seen, {MIN_TIMESTAMPS} are needed."
    elif not math.isfinite(challenger):
        reason = "The challenger's loss is not a finite number."
    elif not challenger < naive:
        reason = f"It does not beat naive: pinball {challenger:.4f} against {naive:.4f}."
    elif champion is None or over_champion is None or p_value is None:
        outcome, reason = "promoted", f"First model; {over_naive:.1%} better than naive."
    elif after_drift:
        compared = f"{over_champion:+.2%} against the champion after drift, worse by {margin:.0%} or more"
        if p_value < level:
            outcome = "promoted"
            reason = f"{compared} is ruled out (p = {p_value:.3f}); {over_naive:.1%} better than naive."
        else:
            reason = f"{compared} is not ruled out: p = {p_value:.3f}, below {level} is asked."
    elif over_champion < min_gain:
        reason = f"Gain over the champion is {over_champion:.2%}, {min_gain:.1%} is asked."
    elif p_value >= level:
        reason = (
            f"Gain over the champion of {over_champion:.2%} may be chance: p = {p_value:.3f}, below {level} is asked."
        )
    else:
        outcome = "promoted"
        reason = (
            f"{over_champion:.1%} better than the champion (p = {p_value:.3f}), {over_naive:.1%} better than naive."
        )
    return Decision(
        outcome=outcome,
        reason=reason,
        challenger_loss=challenger,
        champion_loss=champion,
        naive_loss=naive,
        gain_over_champion=over_champion,
        gain_over_naive=over_naive,
        p_value=p_value,
        timestamps=n,
        after_drift=after_drift and champion is not None,
    )


def _mean(losses: FloatArray) -> float:
    return float(losses.mean()) if len(losses) else math.nan
