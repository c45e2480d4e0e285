"""The life of a wave of readings: judge what was forecast, learn from the value, forecast anew.

START READING HERE. A `Pipeline` holds no per-stream memory itself; it is handed the columns of a `StreamTable` and a
wave in which each stream appears at most once:

1. *classify* — late and repeated readings leave the wave;
2. *catch up* — streams that missed steps, or that have a new model, are brought to where this reading stands;
3. *detect* — what is anomalous about the values, by what was published for them;
4. *judge* — forecasts whose target this value is are settled: expert weights, interval widths, scores;
5. *learn* — the value enters scale, level, ring and hidden state;
6. *forecast* — every expert answers, the answers are mixed, widths are corrected, units restored.

Judge comes before learn comes before forecast: a value must never help the forecast it is scored against. Every row
is computed as if it were alone: forecasts are the same to the bit however records fall into waves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecaster.anomaly.detector import AnomalyDetector, Expectation, Verdicts, direction
from forecaster.engine.report import LeadScores, StepReport
from forecaster.engine.units import in_own_units, outcome, rounded, significant_decimals
from forecaster.engine.wave import Wave, filled
from forecaster.engine.withholding import Withholding
from forecaster.evaluation.scores import quantile_loss
from forecaster.experts.base import Origins, PointExpert
from forecaster.experts.former import FormerChampion
from forecaster.experts.linear import LinearExpert
from forecaster.experts.mixture import LeadInterpolation, MLPoly
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.cells import WAVE_TILE
from forecaster.records import Reason, Status
from forecaster.series.columns import BoolArray, Column, Columns, Float32Array, FloatArray, IntArray
from forecaster.series.encoder import Inputs, SeriesEncoder
from forecaster.series.seasons import season_steps
from forecaster.state.event_clock import Arrival, EventClock
from forecaster.state.pending import PendingForecasts, anchor_leads
from forecaster.state.recent_score import RecentScore
from forecaster.state.streams import SCRATCH
from forecaster.uncertainty.spread import PointSpread, normal_quantiles
from forecaster.uncertainty.tracker import LogQuantileTracker

ADOPTION_READINGS = 10
"""Readings after which a stream's step is known well enough to give it a season and a network."""

_SMALLEST_SCALE = 1e-30

STATUSES = tuple(Status)
_STATUS_CODE = {status: code for code, status in enumerate(STATUSES)}

_REFUSAL = {Arrival.LATE: Reason.LATE, Arrival.DUPLICATE: Reason.DUPLICATE, Arrival.CONFLICT: Reason.CONFLICT}


@dataclass(slots=True)
class Answers:
    """Forecasts for the accepted readings of a wave, row by row. ``B`` streams, ``H`` leads, ``Q`` levels."""

    tags: IntArray
    slots: IntArray
    times: FloatArray
    """Origins, ``[B]``."""
    values: FloatArray
    """The readings; ``nan`` where missing, ``[B]``."""
    step_seconds: FloatArray
    quantiles: FloatArray
    """In the stream's own units, ``[B, H, Q]``; ``nan`` for a stream that has never had a value."""
    statuses: IntArray
    """Index into `STATUSES`, ``[B]``."""
    weights: Float32Array
    """Share of each expert over all leads, ``[B, E]``."""
    readings: IntArray
    """Which reading of its stream this one is, from 1, ``[B]``."""
    coverages: FloatArray
    """Recent share of each stream's targets inside the outermost interval; ``nan`` before the first, ``[B]``."""
    verdicts: Verdicts | None = None
    """What is anomalous about the readings; ``None`` where nothing looks."""
    withheld: IntArray | None = None
    """Forecasts withheld since the one published before; -1 where this one is withheld too, ``[B]``. ``None`` where all
    are published."""

    def published(self) -> tuple[Answers, IntArray]:
        """The rows to publish, without their verdicts, and which they are of these."""
        if self.withheld is None:
            return self, np.arange(len(self.tags))
        rows = np.flatnonzero(self.withheld >= 0)
        return Answers(
            self.tags[rows],
            self.slots[rows],
            self.times[rows],
            self.values[rows],
            self.step_seconds[rows],
            self.quantiles[rows],
            self.statuses[rows],
            self.weights[rows],
            self.readings[rows],
            self.coverages[rows],
            None,
            self.withheld[rows],
        ), rows


@dataclass(slots=True)
class StepResult:
    """What became of a wave."""

    answers: Answers
    refused: list[tuple[int, Reason, str]]
    """(tag, reason, detail) of each reading that got none."""
    report: StepReport
    losses: FloatArray | None = None
    """Where asked for: mean pinball of each published forecast whose target an accepted reading is, in the stream's own
    units, ``[B, A]``; ``nan`` where there was none."""


class Pipeline:
    """The calculation of every forecast, for serving, replay and backtest alike.

    Args:
        clock, encoder, recent_score: keepers of per-stream memory.
        baselines: experts that answer without training; the first is the last value, that all are measured by.
        hidden_shape: (L, W) of the network's hidden state.
        horizon, quantile_levels: what is forecast.
        declared_season: in steps when ``int``, in seconds when ``float``, ``None`` to take over what training finds.
        further_seasons: each season beyond it, likewise; a `SeasonalNaive` among the baselines answers by each.
        keeps_former: there is room for a former champion beside the network.
        max_gap_steps: missing steps that the network is carried across.
        flat_after_readings: equal values in a row that make a stream flat.
        detector: says what is anomalous; its columns are there whether it is asked or not.
        detects: ask it.
        withholding: says which forecasts are published; ``None`` publishes all.
    """

    def __init__(
        self,
        *,
        clock: EventClock,
        encoder: SeriesEncoder,
        recent_score: RecentScore,
        baselines: tuple[PointExpert, ...],
        hidden_shape: tuple[int, int],
        horizon: int,
        quantile_levels: tuple[float, ...],
        declared_season: int | float | None,
        max_gap_steps: int,
        flat_after_readings: int,
        detector: AnomalyDetector,
        detects: bool = True,
        withholding: Withholding | None = None,
        further_seasons: tuple[int | float | None, ...] = (),
        keeps_former: bool = False,
    ) -> None:
        self.horizon = horizon
        self.quantile_levels = quantile_levels
        self.encoder = encoder
        self.hidden_shape = hidden_shape
        self.keeps_former = keeps_former
        of_model = (LinearExpert.name, FormerChampion.name) if keeps_former else (LinearExpert.name,)
        self.experts = (*(expert.name for expert in baselines), *of_model, RecurrentExpert.name)
        self.leads = anchor_leads(horizon)
        self._clock = clock
        self.recent_score = recent_score
        self._baselines = baselines
        self._declared_season = declared_season
        self._further_seasons = further_seasons
        self._max_gap_steps = max_gap_steps
        self._flat_after = flat_after_readings
        self.detector = detector
        self._detects = detects
        self.withholding = withholding
        self._anchors = np.array(self.leads) - 1
        self._median = quantile_levels.index(0.5)
        points = self.experts[:-1]
        self.pending = PendingForecasts(leads=self.leads, points=points, answers=2, levels=len(quantile_levels))
        self._spreads = PointSpread(anchors=len(self.leads), points=points)
        self._shape = normal_quantiles(quantile_levels)
        self._mixture = MLPoly(
            leads=self.leads,
            experts=self.experts,
            quantile_levels=quantile_levels,
            shape=self._shape,
            horizon=horizon,
        )
        self._tracker = LogQuantileTracker(anchors=len(self.leads), quantile_levels=quantile_levels)
        self._interpolation = LeadInterpolation(self.leads, horizon)

    @property
    def columns(self) -> tuple[Column, ...]:
        """All that is remembered of one stream."""
        return (
            *self._clock.columns,
            *self.encoder.columns,
            *RecurrentExpert.columns(self.hidden_shape),
            *(FormerChampion.columns(self.hidden_shape) if self.keeps_former else ()),
            *self.pending.columns,
            *self._spreads.columns,
            *self._mixture.columns,
            *self._tracker.columns,
            *self.recent_score.columns,
            *self.detector.columns,
            Column("status", "i1"),  # of the last answer
            *(self.withholding.columns if self.withholding else ()),
        )

    def step(
        self, c: Columns, wave: Wave, recurrent: RecurrentExpert | None, *, keep_losses: bool = False
    ) -> StepResult:
        """Answer one wave.

        Args:
            c: arrays of all `columns`, with a scratch row.
            wave: each stream at most once.
            recurrent: the network that serves, ``None`` before one is trained.
            keep_losses: also tell the loss of each settled forecast; changes nothing else.
        """
        report = StepReport(LeadScores.zero(self.leads))
        wave, refused = self._classify(c, wave)
        report.rejected.update(reason for _, reason, _ in refused)
        report.accepted, report.missing = len(wave), int(np.isnan(wave.values).sum())
        real = len(wave)
        if real == 0:
            return StepResult(self._no_answers(), refused, report)

        wave = wave.padded()
        slots = wave.slots
        gap, elapsed = self._catch_up(c, wave, recurrent, report)
        losses = self._losses(c, wave)[:real] if keep_losses else None
        verdicts = self._detect(c, wave, gap, report)
        self._judge(c, wave, report)
        inputs, top = self._learn(c, wave, elapsed, recurrent)
        quantiles, weights, fell_back = self._forecast(c, slots, inputs, top, recurrent)

        statuses = self._statuses(c, slots, gap, fell_back, recurrent)
        c["status"][slots] = statuses
        counts = np.bincount(statuses[:real], minlength=len(STATUSES))
        report.statuses.update({status.value: int(n) for status, n in zip(STATUSES, counts, strict=True) if n})
        report.shares = dict(zip(self.experts, weights[:real].sum(axis=0, dtype=np.float64).tolist(), strict=True))
        answers = Answers(
            wave.tags[:real],
            slots[:real],
            wave.times[:real],
            wave.values[:real],
            c["step"][slots[:real]],
            quantiles[:real],
            statuses[:real],
            weights[:real],
            c["readings"][slots[:real]],
            self.recent_score.coverage(c, slots[:real]),
            None if verdicts is None else verdicts.part(slice(real)),
        )
        if self.withholding is not None:
            answers.withheld = self.withholding.decide(
                c, answers.slots, answers.times, answers.quantiles, answers.statuses
            )
            report.withheld = int((answers.withheld < 0).sum())
        return StepResult(answers, refused, report, losses)

    def published(self, c: Columns, slot: int) -> FloatArray:
        """What was last published for a stream at the anchor leads, ``[A, Q]``, in its own units."""
        _, made = self.pending.made_at(c, slot, int(c["tick"][slot]) - 1)
        own, decimals = made[:, -1].astype(np.float64) + c["anchor"][slot], significant_decimals(c["scale"][slot])
        return np.array([[rounded(number, decimals) for number in at_lead] for at_lead in own])

    def shares(self, c: Columns, slot: int) -> FloatArray:
        """Share of each expert that took part in a stream's last answer, at every lead, ``[H, E]``."""
        points, made = self.pending.made_at(c, slot, int(c["tick"][slot]) - 1)
        last = np.concatenate((points, made[:, :1, 0]), axis=1)  # [A, E]
        answered = np.logical_not(np.isnan(last).all(axis=0, keepdims=True))  # [1, E]
        weights = self._mixture.weights(c, np.array([slot]), answered)
        shares: FloatArray = weights[0].astype(np.float64)
        return shares

    def _classify(self, c: Columns, wave: Wave) -> tuple[Wave, list[tuple[int, Reason, str]]]:
        """Split off the readings that their stream's clock refuses."""
        arrivals = self._clock.classify(c, wave.slots, wave.times, wave.values)
        if not arrivals.any():
            return wave, []
        refused = []
        for row in np.flatnonzero(arrivals):
            clock, time = c["clock"][wave.slots[row]], wave.times[row]
            refused.append(
                (
                    int(wave.tags[row]),
                    _REFUSAL[Arrival(arrivals[row])],
                    f"event time {time:.6f} is {clock - time:.6f} s behind the stream's clock {clock:.6f}; "
                    f"value {wave.values[row]:g}, last value {c['last'][wave.slots[row]]:g}",
                )
            )
        return wave.take(np.flatnonzero(arrivals == Arrival.ON_TIME)), refused

    def _catch_up(
        self, c: Columns, wave: Wave, recurrent: RecurrentExpert | None, report: StepReport
    ) -> tuple[IntArray, FloatArray]:
        """Move clocks to the readings, take skipped steps in, hand hidden states over to a new model.

        Returns:
            skipped steps, ``[B]``; and the part of the elapsed time that is each reading's own, in steps, ``[B]``.
        """
        slots = wave.slots
        before = c["clock"][slots]
        steps, elapsed = self._clock.advance(c, slots, wave.times, wave.values)
        gap = np.where(slots == SCRATCH, 0, steps - 1)
        if not gap.any():
            self._replay(c, slots, before, np.zeros(len(slots), np.bool_), recurrent, report)
            return gap, elapsed
        report.gap_steps += int(gap.sum())
        last_tick = np.where(gap > 0, wave.times - elapsed * c["step"][slots], before)

        too_long = gap > self._max_gap_steps
        for row in np.flatnonzero(too_long):
            self.encoder.skip(c, int(slots[row]), int(gap[row]))
        newest = np.where(too_long, last_tick, before)  # bridged steps are not in the ring yet
        self._replay(c, slots, newest, too_long, recurrent, report)

        bridged = np.where(too_long, 0, gap)
        for passed in range(int(bridged.max()), 0, -1):
            rows = np.flatnonzero(bridged >= passed)
            missed = Wave(
                slots[rows],
                last_tick[rows] - (passed - 1) * c["step"][slots[rows]],
                np.full(len(rows), np.nan),
                None if wave.covariates is None else np.full((len(rows), self.encoder.covariates), np.nan),
                rows,
            ).padded()
            inputs = self.encoder.tick(
                c, missed.slots, missed.times, missed.values, np.ones(len(missed)), missed.covariates
            )
            if recurrent is not None:
                recurrent.step(c, missed.slots, inputs.features)
        return gap, elapsed

    def _replay(
        self,
        c: Columns,
        slots: IntArray,
        newest: FloatArray,
        too_long: BoolArray,
        recurrent: RecurrentExpert | None,
        report: StepReport,
    ) -> None:
        """Give streams their season, and rebuild hidden states that are of another model or were not carried along.

        ``newest`` is the event time of the newest tick in each ring, ``[B]``, infinite where there is none.
        """
        readings, owned = c["readings"][slots], slots != SCRATCH
        ripe = (readings == ADOPTION_READINGS) & owned
        foreign = np.zeros(len(slots), np.bool_)
        if recurrent is not None:
            foreign = (c["model"][slots] != recurrent.model) & owned & (readings >= ADOPTION_READINGS)
        reseasoned = np.zeros(len(slots), np.bool_)
        if (ripe | foreign).any():
            season = np.where(ripe | foreign, self._season(c, slots, recurrent), c["season"][slots])
            reseasoned = season != c["season"][slots]
            c["season"][slots] = season
        if recurrent is None or not (foreign.any() or too_long.any()):
            return
        if recurrent.former is not None:
            self._hand_over(c, slots[foreign])
        newest = np.where(np.isfinite(newest), newest, 0.0)
        adopted = c["model"][slots] == recurrent.model
        for rows, relearn in (
            (np.flatnonzero(foreign & reseasoned), True),
            (np.flatnonzero((foreign & ~reseasoned) | (adopted & too_long)), False),
        ):
            if len(rows):
                extra = -len(rows) % WAVE_TILE
                recurrent.rebuild(
                    c, filled(slots[rows], extra, SCRATCH), filled(newest[rows], extra), relearn_scale=relearn
                )
                report.rebuilt += len(rows)

    def _hand_over(self, c: Columns, slots: IntArray) -> None:
        """What was learnt of the champion so far is what the former champion begins with; who was it before is gone.

        Its successor is weighed as it was until it has a record of its own.
        """
        former, champion = self.experts.index(FormerChampion.name), self.experts.index(RecurrentExpert.name)
        for name in ("regret", "inverse_rate", "regret_bound"):
            c[name][slots, :, former] = c[name][slots, :, champion]
        c["spread"][slots, :, former] = 0.0
        c["pending_points"][slots, :, former] = np.nan

    def _season(self, c: Columns, slots: IntArray, recurrent: RecurrentExpert | None) -> IntArray:
        """The season each stream should have, in steps, ``[B]``."""
        return self._in_steps(c["step"][slots], self._first_season(recurrent))

    def _first_season(self, recurrent: RecurrentExpert | None) -> int | float:
        """In steps when ``int``, in seconds when ``float``; 0 for none."""
        if self._declared_season is not None:
            return self._declared_season
        return recurrent.season if recurrent else 0

    def further_steps(self, c: Columns, slots: IntArray, recurrent: RecurrentExpert | None) -> IntArray:
        """The seasons of each stream beyond its first, in steps, 0 none, ``[B, K]``.

        They follow from its step at every reading: unlike the first, by which scales are made, nothing remembers them.
        """
        steps = np.zeros((len(slots), len(self._further_seasons)), np.int64)
        if not self._further_seasons:
            return steps
        ripe = (c["readings"][slots] >= ADOPTION_READINGS) & (slots != SCRATCH)
        adopted = ripe & (c["model"][slots] == recurrent.model) if recurrent else np.zeros_like(ripe)
        found = recurrent.further_seasons if recurrent else ()
        step = self._steady_step(c, slots, recurrent)
        for place, season in enumerate(self._further_seasons):
            if season is not None:
                steps[:, place] = np.where(ripe, self._in_steps(step, season), 0)
            elif place < len(found):
                steps[:, place] = np.where(adopted, self._in_steps(step, found[place]), 0)
        return steps

    def _steady_step(self, c: Columns, slots: IntArray, recurrent: RecurrentExpert | None) -> FloatArray:
        """The step by which long seasons are counted: that which the first season stands for, where it is near.

        A learnt step wavers with every reading, and with it a week of 672 of them by several.
        """
        step, first, season = c["step"][slots], c["season"][slots].astype(np.float64), self._first_season(recurrent)
        if isinstance(season, int):
            return step
        steady = np.divide(season, first, out=np.zeros_like(step), where=first > 0)
        return np.where(np.abs(steady - step) <= 0.05 * step, steady, step)

    def _in_steps(self, step: FloatArray, season: int | float) -> IntArray:
        if isinstance(season, int):
            return np.full(len(step), season, np.int64)
        return season_steps(season, step, self.encoder.ring_steps)

    def _losses(self, c: Columns, wave: Wave) -> FloatArray:
        """Mean pinball of the published forecasts that this reading settles, ``[B, A]``; ``nan`` where none was."""
        due = self.pending.due(c, wave.slots, c["tick"][wave.slots])
        target = np.repeat((wave.values - c["anchor"][wave.slots])[:, None], len(self.leads), axis=1)
        losses = quantile_loss(target, due.quantiles[:, :, -1].astype(np.float64), np.array(self.quantile_levels))
        return np.where(due.settled, losses.mean(axis=2), np.nan)

    def _detect(self, c: Columns, wave: Wave, gap: IntArray, report: StepReport) -> Verdicts | None:
        """Look for anomalies, by what was published for these readings before any of them is learnt from."""
        if not self._detects:
            return None
        slots = wave.slots
        by_next, by_longest = self.pending.expected(c, slots, gap)
        silent = np.rint(c["since_observed"][slots]).astype(np.int64)
        verdicts = self.detector.update(
            c,
            slots,
            wave.times,
            wave.values,
            Expectation(by_next, by_longest, np.maximum(c["scale"][slots], _SMALLEST_SCALE)),
            run=c["repeats"][slots].astype(np.int64) + 1,
            missed=silent + np.isnan(wave.values),
            readings=c["readings"][slots],
        )
        if verdicts.raised.any() or verdicts.cleared.any():
            owned = slots != SCRATCH
            for row in np.flatnonzero(verdicts.raised & owned):
                report.raised[direction(int(verdicts.cause[row]), is_above=bool(verdicts.above[row]))] += 1
            report.cleared += int(np.count_nonzero(verdicts.cleared & owned))
        return verdicts

    def _judge(self, c: Columns, wave: Wave, report: StepReport) -> None:
        """Settle the forecasts whose target is this reading."""
        slots = wave.slots
        due = self.pending.due(c, slots, c["tick"][slots])
        if not due.settled.any():
            return
        target = (wave.values - c["anchor"][slots]).astype(np.float32)
        scale, seen = np.maximum(c["scale"][slots], _SMALLEST_SCALE), c["seen"][slots]
        found = outcome(due, target, scale, self._median)
        published = np.ascontiguousarray(due.quantiles[:, :, -1])
        self._mixture.update(c, slots, found.settled, found.points, c["spread"][slots], found.network)
        self._tracker.update(c, slots, found.settled, target, published, seen)
        self._spreads.update(c, slots, found.settled, found.points, seen)
        self.recent_score.update(c, slots, found.settled, found.error, found.naive_error, found.covered)
        found.add_to(report.scores, slots != SCRATCH)

    def _learn(
        self, c: Columns, wave: Wave, elapsed: FloatArray, recurrent: RecurrentExpert | None
    ) -> tuple[Inputs, Float32Array | None]:
        """Take the readings in: scale, level and ring, then one step of the network."""
        anchor = c["anchor"][wave.slots]
        inputs = self.encoder.tick(c, wave.slots, wave.times, wave.values, elapsed, wave.covariates, future=wave.future)
        self.pending.follow_anchor(c, wave.slots, anchor)
        return inputs, None if recurrent is None else recurrent.step(c, wave.slots, inputs.features)

    def _forecast(
        self,
        c: Columns,
        slots: IntArray,
        inputs: Inputs,
        top: Float32Array | None,
        recurrent: RecurrentExpert | None,
    ) -> tuple[FloatArray, Float32Array, BoolArray]:
        """Every expert's answer, mixed, corrected, in own units.

        Returns:
            quantiles ``[B, H, Q]``, expert shares ``[B, E]``, and whose network gave an unusable answer, ``[B]``.
        """
        ahead, seasonal = self.encoder.ahead(c, slots, inputs.origin, inputs.scale)
        further = tuple(
            self.encoder.ahead(c, slots, inputs.origin, inputs.scale, steps)
            for steps in self.further_steps(c, slots, recurrent).T
        )
        change, level = c["change"][slots], c["level"][slots]
        at = Origins(
            slots, inputs.features, inputs.origin, inputs.scale, change, level, ahead, seasonal, further, inputs.future
        )
        usable = fell_back = adopted = np.zeros(len(slots), np.bool_)
        if recurrent is not None:
            adopted = c["model"][slots] == recurrent.model
        points, spread, answered = self._points(c, at, recurrent, adopted)
        made = np.zeros((*ahead.shape, len(self.quantile_levels)), np.float32)
        if recurrent is not None and top is not None:
            made, sane = recurrent.answer(top, at)
            usable, fell_back = adopted & sane, adopted & ~sane

        available = np.concatenate((answered, usable[:, None]), axis=1)  # [B, E]
        weights = self._mixture.weights(c, slots, available)  # [B, H, E]
        factors = self._interpolation.apply(self._tracker.factors(c, slots))  # [B, H, P]
        relative = self._tracker.widen(self._mixture.mix(weights, points, spread, made), factors)
        kept = in_own_units(
            relative, points, answered, made, usable, at.value, at.scale, c["seen"][slots], self._anchors
        )
        self.pending.add(c, slots, c["tick"][slots] - 1, kept.points, kept.quantiles)
        return kept.published, self._mixture.shares(weights), fell_back

    def _points(
        self, c: Columns, at: Origins, recurrent: RecurrentExpert | None, adopted: BoolArray
    ) -> tuple[Float32Array, Float32Array, BoolArray]:
        """What the experts that answer with a point say, and how far off each usually is.

        ``adopted`` are the streams that have taken the model over, ``[B]``: what comes with it is for them alone.

        Returns:
            points and spreads, both ``[B, H, P]``, and who has an answer, ``[B, P]``.
        """
        of_model = (None, None) if recurrent is None else (recurrent.linear, recurrent.former)
        experts: tuple[PointExpert | None, ...] = (*self._baselines, *of_model)[: len(self.experts) - 1]
        points = np.zeros((*at.ahead.shape, len(experts)), np.float32)
        first = np.zeros((len(at.slots), len(self.leads), len(experts)), np.float32)
        answered = np.zeros((len(at.slots), len(experts)), np.bool_)
        for k, expert in enumerate(experts):
            if expert is not None:
                points[:, :, k], answered[:, k] = expert.forecast(c, at)
        answered[:, len(self._baselines) :] &= adopted[:, None]
        if self._spreads.begins(c, at.slots, answered):
            for k, expert in enumerate(experts):
                if expert is not None:
                    first[:, :, k] = expert.first_spread(c, at)[:, self._anchors]
        known = self._spreads.known(c, at.slots, answered, first)
        return points, self._interpolation.apply(known), answered

    def _statuses(
        self,
        c: Columns,
        slots: IntArray,
        gap: IntArray,
        fell_back: BoolArray,
        recurrent: RecurrentExpert | None,
    ) -> IntArray:
        """Status codes, ``[B]``; the first that applies."""
        adopted = np.zeros(len(slots), np.bool_) if recurrent is None else c["model"][slots] == recurrent.model
        statuses = np.full(len(slots), _STATUS_CODE[Status.OK], np.int64)
        for status, applies in (  # the last to be written is the first that applies
            (Status.WARMING, ~adopted | (c["seen"][slots] == 0)),
            (Status.FLAT, c["repeats"][slots] >= self._flat_after),
            (Status.GAP, gap > self._max_gap_steps),
            (Status.STALE, gap >= self.encoder.ring_steps),
            (Status.FALLBACK, fell_back),
        ):
            statuses[applies] = _STATUS_CODE[status]
        return statuses

    def _no_answers(self) -> Answers:
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        return Answers(
            whole,
            whole,
            real,
            real,
            real,
            np.zeros((0, self.horizon, len(self.quantile_levels))),
            whole,
            np.zeros((0, len(self.experts)), np.float32),
            whole,
            real,
        )
