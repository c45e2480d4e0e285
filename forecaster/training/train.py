"""One training from history to verdict: prepare, split, fit, judge, pack."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from forecaster.experts.linear import lag_inputs
from forecaster.models.artifact import DataSpan, ModelArtifact
from forecaster.models.network import RecurrentForecaster
from forecaster.series.encoder import SeriesEncoder
from forecaster.training.dataset import WindowDataset
from forecaster.training.distill import distillation
from forecaster.training.evaluate import Baselines
from forecaster.training.evidence import Evidence
from forecaster.training.history import History
from forecaster.training.judging import LeadTable, StoppingScore, judge, scores_of
from forecaster.training.linear import fit_linear
from forecaster.training.loop import FitPlan, FitResult, Objective, Progress, fit
from forecaster.training.material import Material
from forecaster.training.preparation import check_worth_training, origins_among, prepare
from forecaster.training.promotion import Decision
from forecaster.training.recipe import Recipe
from forecaster.training.renewal import LINEAR_UNTIL, linear_scores, renew_linear
from forecaster.training.splits import split, unseen_since
from forecaster.training.starting import NetworkShape, Start, new_network, servable, starting_point

_SEEDS_APART = 1_000  # members' seeds; trainings are usually given small neighbouring ones


class TrainingOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one training came to."""

    artifact: ModelArtifact
    decision: Decision
    leads: LeadTable
    evidence: Evidence
    stream_ids: tuple[str, ...]
    """Streams trained on, as `Evidence` counts them."""
    fit: FitResult
    season_seconds: float
    """Season found or declared as a duration; 0.0 for none, or where one was declared in steps."""
    seconds: float


def train_once(
    history: History,
    *,
    encoder: SeriesEncoder,
    quantile_levels: tuple[float, ...],
    now: float,
    champion: ModelArtifact | None = None,
    source: ModelArtifact | None = None,
    shape: NetworkShape | None = None,
    recipe: Recipe | None = None,
    season: int | float | None = None,
    find_seasons: int = 1,
    step_seconds: float = 0.0,
    max_gap_steps: int = 24,
    steps: int = 400,
    max_seconds: float = math.inf,
    max_streams: int = 512,
    max_ticks: int = 30_000,
    seed: int = 0,
    checkpoint: Path | None = None,
    code_version: str = "",
    after_drift: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> TrainingOutcome:
    """Train a challenger on a history and judge it.

    1. Sample and trim the history to a budget, lay it out as the ticks serving would step, find the season unless it is
       declared, encode with the serving encoder.
    2. Split by time: train, early stopping, judged.
    3. Fit: from the champion's weights where they fit, the source's, else from new ones; after a teacher, if asked.
       Solve for the linear forecast that is shipped with it.
    4. Judge challenger, champion, naive and teacher on the newest stretch, which none of them saw.
    5. Where the challenger is refused, judge its linear forecast alone; one that is better goes beside the champion's
       network, and that is the artifact.

    Args:
        history: what to learn from.
        encoder: the serving one, by its arguments; its horizon is the network's.
        quantile_levels: rising, symmetric, with 0.5.
        now: wall-clock time, seconds since the epoch, for the artifact's name.
        champion: model in service; one that cannot answer under these arguments counts as none.
        source: model of the same body whose weights to start from where there is no champion. It should not have seen
            these streams, or the judged stretch is not new to the challenger.
        shape: of a cold start; ``None`` is the default shape.
        recipe: how to train; ``None`` is the default recipe.
        season: in steps when ``int``, in seconds when ``float``, 0 for none, ``None`` to find it.
        find_seasons: 2 to find a longer one beside it, which goes into the manifest and changes nothing here.
        step_seconds, max_gap_steps: as serving's clock has them.
        steps, max_seconds: of the fit; one from the champion's weights takes `WARM_SHARE` of the steps. A teacher's
            members have as many steps each, and all fits share the seconds.
        max_streams, max_ticks: streams looked at, and newest ticks of each.
        seed: of everything random.
        after_drift: the champion's live loss has risen for good: a challenger that is not worse is promoted.
        checkpoint: directory in which the fits are kept as they go, to resume from; ``None`` keeps none.

    Returns:
        The challenger's artifact, whatever the decision says.

    Raises:
        TrainingFailed: nothing to learn from (the message says what was found), or the fit diverged.
    """
    began = monotonic()
    shape, recipe, horizon = shape or NetworkShape(), recipe or Recipe(), encoder.horizon
    # 1. sample, lay out, season, encode
    prepared = prepare(
        history,
        encoder,
        season=season,
        find_seasons=find_seasons,
        step_seconds=step_seconds,
        max_gap_steps=max_gap_steps,
        max_streams=max_streams,
        max_ticks=max_ticks,
        copies=recipe.augmentation.copies + bool(recipe.ensemble.members),
        exclude=recipe.exclude,
        seed=seed,
    )
    data = prepared.data
    # 2. split
    parts = split(data, horizon=horizon)
    material = Material(prepared, encoder, parts.train, recipe, seed=seed)
    check_worth_training(data, parts.train, drawable_rows=material.dataset.rows, horizon=horizon)
    baselines = Baselines.learn(data, origins_among(data, parts.train), horizon, quantile_levels)
    # 3. fit
    parent = servable(champion, encoder, quantile_levels, shape)
    used = material.used_features()
    new = new_network(shape, encoder, quantile_levels, used, naive=baselines.naive, seed=seed)
    start = starting_point(new, parent, source)
    fits = _Fits(
        validate=StoppingScore(
            data, parts.stopping, parts.stopping_end, quantile_levels, baselines, run_in=encoder.ring_steps
        ),
        count=recipe.ensemble.members + 2 if recipe.ensemble.members else 1,
        max_seconds=max_seconds,
        checkpoint=checkpoint,
        data_identity="" if checkpoint is None else material.identity(),
        on_progress=on_progress,
        monotonic=monotonic,
    )
    companions, fitted = _fit_all(
        fits,
        material,
        start,
        recipe,
        steps=steps,
        seed=seed,
        new_member=lambda hidden, seed: new_network(
            msgspec.structs.replace(shape, hidden=hidden or shape.hidden),
            encoder,
            quantile_levels,
            used,
            naive=baselines.naive,
            seed=seed,
        ),
    )
    # On all of the history, the judged stretch too: it takes no part in the network's judgement.
    stream_ids, seasons = tuple(prepared.sampled.streams), prepared.season_steps(encoder)
    left_out = [place for place, name in enumerate(encoder.feature_names) if name not in used]
    solved = fit_linear(data, lag_inputs(encoder), seasons, stream_ids, left_out=left_out)
    if solved is not None:
        start.network.take_linear(solved.linear)
    # 4. judge, pack
    judged = parts.judged if parent is None else unseen_since(data, parts.judged, parent.manifest.data.last)
    parent_data = data
    if parent is not None:
        parent_season: int | float = parent.manifest.season_steps or sum(parent.manifest.season_seconds[:1])
        parent_data = prepared.encoded_with(encoder, parent_season)
    step_seconds_of_all = float(np.median(prepared.steps_seconds))
    decision, leads, evidence = judge(
        data,
        judged,
        start.network,
        parent,
        parent_data,
        baselines,
        step_seconds=step_seconds_of_all,
        run_in=encoder.ring_steps,
        companions=companions,
        after_drift=after_drift,
    )
    network, seen_until, scores = start.network, parts.seen_until, scores_of(decision, leads)
    descends_from = start.parent
    # 5. or only the linear forecast
    if parent is not None and solved is not None and not decision.is_promoted and parent_data is data:
        renewal = renew_linear(
            parent,
            decision,
            solved.linear,
            data,
            parts.judged,
            lag_inputs(encoder),
            seasons,
            stream_ids,
            left_out=left_out,
            step_seconds=step_seconds_of_all,
        )
        if renewal is not None:
            network, decision, seen_until = renewal.network, renewal.decision, parent.manifest.data.last
            scores, descends_from = parent.manifest.scores | linear_scores(decision), parent.version
    seconds, sampled, season = monotonic() - began, prepared.sampled, prepared.season
    first, last = sampled.span()
    artifact = ModelArtifact.create(
        network,
        created=now,
        data=DataSpan(
            first=first,
            last=seen_until,
            streams=len(sampled.streams),
            readings=sampled.readings,
            streams_seen=len(history.streams),
        ),
        season_seconds=tuple(
            seconds for seconds in (season, prepared.further_season) if isinstance(seconds, float) and seconds > 0
        ),
        season_steps=season if isinstance(season, int) else 0,
        scores=scores,
        parent=descends_from,
        code_version=code_version,
        seed=seed,
        training={
            "steps": float(fitted.steps),
            "best_step": float(fitted.best_step),
            "learning_rate": start.rate_share * recipe.fit.learning_rate,
            "validation": fitted.best_validation,
            "seconds": seconds,
            LINEAR_UNTIL: last,
        },
    )
    return TrainingOutcome(
        artifact=artifact,
        decision=decision,
        leads=leads,
        evidence=evidence,
        stream_ids=stream_ids,
        fit=fitted,
        season_seconds=season if isinstance(season, float) else 0.0,
        seconds=seconds,
    )


class _Fits:
    """The fits of one training: they share its seconds, its progress and its directory of checkpoints."""

    def __init__(
        self,
        *,
        validate: StoppingScore,
        count: int,
        max_seconds: float,
        checkpoint: Path | None,
        data_identity: str,
        on_progress: Callable[[Progress], None] | None,
        monotonic: Callable[[], float],
    ) -> None:
        self._validate, self._count, self._done = validate, count, 0
        self._max_seconds, self._monotonic = max_seconds, monotonic
        self._checkpoint, self._data_identity, self._on_progress = checkpoint, data_identity, on_progress

    def run(
        self,
        name: str,
        network: RecurrentForecaster,
        dataset: WindowDataset,
        *,
        seed: int,
        steps: int,
        plan: FitPlan,
        objective: Objective | None = None,
    ) -> FitResult:
        """One of them; ``name`` is that of its checkpoint."""
        done, self._done = self._done, self._done + 1

        def tell(progress: Progress) -> None:
            if self._on_progress is not None:
                step, total = progress.step + done * steps, self._count * steps
                self._on_progress(progress._replace(step=step, steps=total))

        return fit(
            network,
            dataset,
            validate=self._validate,
            seed=seed,
            steps=steps,
            plan=plan,
            objective=objective,
            max_seconds=self._max_seconds / self._count,
            checkpoint=None if self._checkpoint is None else self._checkpoint / f"{name}.fit",
            data_identity=self._data_identity,
            on_progress=tell,
            monotonic=self._monotonic,
        )


def _fit_all(
    fits: _Fits,
    material: Material,
    start: Start,
    recipe: Recipe,
    *,
    steps: int,
    seed: int,
    new_member: Callable[[int, int], RecurrentForecaster],
) -> tuple[dict[str, Sequence[RecurrentForecaster]], FitResult]:
    """Fit the challenger, `start.network`, in place; before it a teacher and a plain model, if a teacher is asked for.

    Returns:
        Who trained beside the challenger, by name, and how the challenger's fit went.
    """
    own_plan = msgspec.structs.replace(
        recipe.fit,
        learning_rate=start.rate_share * recipe.fit.learning_rate,
        freeze_steps=recipe.fit.freeze_steps if start.keeps_body else 0,
    )
    own_steps = max(1, round(start.steps_share * steps))
    companions: dict[str, Sequence[RecurrentForecaster]] = {}
    objective, ensemble = None, recipe.ensemble
    if ensemble.members:
        members, plain = [], copy.deepcopy(start.network)
        member_plan = msgspec.structs.replace(recipe.fit, freeze_steps=0)
        for k in range(ensemble.members):
            own_seed = seed + _SEEDS_APART * k
            member = new_member(ensemble.hidden, own_seed)
            dataset = material.bootstrapped(own_seed) if k and ensemble.bootstrap else material.dataset
            fits.run(f"member-{k}", member, dataset, seed=own_seed, steps=steps, plan=member_plan)
            members.append(member)
        fits.run("plain", plain, material.dataset, seed=seed, steps=own_steps, plan=own_plan)
        companions = {"teacher": members, "plain": [plain]}
        objective = distillation(members, ensemble.teacher_weight)
    fitted = fits.run(
        "challenger", start.network, material.dataset, seed=seed, steps=own_steps, plan=own_plan, objective=objective
    )
    return companions, fitted
