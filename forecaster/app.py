"""Every constructor call of the program, in one readable column: from settings to a daemon that can run."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from forecaster.anomaly.detector import AnomalyDetector, AnomalyRules
from forecaster.anomaly.episodes import EpisodeRules
from forecaster.anomaly.presets import PRESETS
from forecaster.backtest.collect import ForecastCollector
from forecaster.backtest.play import Backtest
from forecaster.backtest.recording import Recording
from forecaster.backtest.source import RecordingSource
from forecaster.clock import SystemClock
from forecaster.codecs.feedback_json import excluded_periods
from forecaster.codecs.forecast_avro import encode_forecasts_avro
from forecaster.codecs.forecast_wave import encode_forecasts
from forecaster.connections import (
    build_codec,
    build_connection,
    build_feedback_tail,
    build_publishing,
    build_registry,
    is_batched,
)
from forecaster.daemon import Daemon, TelemetryEndpoint, Training
from forecaster.engine.checkpoint import Checkpoint, TransactionalCheckpoint
from forecaster.engine.delivery import AtLeastOnce, Delivery, ExactlyOnce
from forecaster.engine.feedback import FollowedFeedback, RecordedFeedback
from forecaster.engine.inspection import Inspector
from forecaster.engine.keeper import GROUPS_TERM, StateKeeper
from forecaster.engine.pipeline import Pipeline
from forecaster.engine.publisher import Publisher
from forecaster.engine.recovery import Recovery
from forecaster.engine.rehearsal import rehearse
from forecaster.engine.standby import Standby
from forecaster.engine.switches import Networks, SwitchPlan, read_switches
from forecaster.engine.task import PartitionTask, TaskRules
from forecaster.engine.turns import Pace
from forecaster.engine.withholding import Withholding
from forecaster.engine.worker import Worker
from forecaster.errors import ArtifactMismatch
from forecaster.experts.former import FormerChampion
from forecaster.experts.linear import lag_inputs
from forecaster.experts.naive import DampedLevel, Persistence, SeasonalNaive
from forecaster.experts.profile import SeasonalProfile
from forecaster.experts.recurrent import RecurrentExpert, model_number, of_team, team
from forecaster.models.artifact import ModelArtifact
from forecaster.models.linear import LinearForecast
from forecaster.ports import FeedbackLog, HoldingSource, RecoveryStore, Sink, Source, TransactionalSink
from forecaster.records import Feedback
from forecaster.series.encoder import SeriesEncoder
from forecaster.series.groups import DEFAULT, group_label
from forecaster.settings import (
    Settings,
    build_groups,
    declared_season,
    further_seasons,
    future_inputs,
    group_settings,
    parse_period,
    to_environment,
)
from forecaster.state.event_clock import EventClock
from forecaster.state.pages import PAGE_SLOTS
from forecaster.state.recent_score import RecentScore
from forecaster.state.streams import StreamTable
from forecaster.stores.history_buffer import HistoryBuffer
from forecaster.telemetry.collectors import Collectors
from forecaster.telemetry.http import TelemetryServer
from forecaster.telemetry.memory import memory_limit_bytes
from forecaster.telemetry.watch import WatchList
from forecaster.trainer_child import TrainerChild
from forecaster.trainer_service import TrainerService
from forecaster.training.augment import Augmentation
from forecaster.training.cleaning import Cleaning
from forecaster.training.covariates import CovariateChoice
from forecaster.training.distill import Ensemble
from forecaster.training.drift import Adwin, Detector, DriftTrigger, PageHinkley
from forecaster.training.history import History
from forecaster.training.loop import FitPlan, Progress
from forecaster.training.preparation import Prepared, prepare
from forecaster.training.recipe import Recipe, WindowPlan
from forecaster.training.schedule import GroupSchedules, TrainingSchedule
from forecaster.training.starting import NetworkShape, new_network
from forecaster.training.train import TrainingOutcome, train_once
from forecaster.training.trials import TrialRules
from forecaster.transports.file import FileSink
from forecaster.transports.kafka_progress import KafkaProgress, ProgressWatch
from forecaster.transports.kafka_trainers import KafkaTrainers
from forecaster.transports.tables import TableLayout
from forecaster.trial_desk import TrialDesk

_BACKTEST_BOUNDARY_ROWS = 8  # of every stream
_TRIAL_LEVEL = 0.002  # of guards over equal models 1.5 % end in a roll-back; docs/decisions/0010 has the rest
_KEPT_NETWORKS = 6  # of each group, ready to serve: champion, trial, and those that tasks being replayed ask for
_PROGRESS_SECONDS = 2.0  # between two looks of the trainer at the readings
_IDLE_POLL_SECONDS = 0.25  # records end a poll at once; a question to the loop waits for its end


def build_encoder(settings: Settings) -> SeriesEncoder:
    """The encoder that serving and training share."""
    return SeriesEncoder(
        ring_steps=settings.streams.ring_steps,
        horizon=settings.forecast.horizon,
        covariates=len(settings.readings.covariates),
        known_ahead=len(settings.readings.known_ahead),
    )


def build_pipeline(settings: Settings, *, withholds: bool = True) -> Pipeline:
    """The calculation of forecasts; ``withholds`` leaves out those that the settings do not want published."""
    forecast, streams, model = settings.forecast, settings.streams, settings.model
    publishing = build_publishing(settings) if withholds else None
    further = further_seasons(settings)
    encoder = build_encoder(settings)
    width = 2 * model.hidden if model.cell == "lstm" else model.hidden
    return Pipeline(
        clock=EventClock(step_seconds=streams.step_seconds),
        encoder=encoder,
        recent_score=RecentScore(),
        baselines=(
            Persistence(horizon=forecast.horizon),
            SeasonalNaive(),
            DampedLevel(horizon=forecast.horizon),
            SeasonalProfile(encoder),
            *(SeasonalNaive(place) for place, _ in enumerate(further, start=1)),
        ),
        hidden_shape=(model.layers, width),
        horizon=forecast.horizon,
        quantile_levels=forecast.quantiles,
        declared_season=declared_season(settings),
        max_gap_steps=streams.max_gap_steps,
        flat_after_readings=streams.flat_after_readings,
        detector=build_detector(settings),
        detects=settings.anomalies.enabled,
        withholding=Withholding(publishing, median=forecast.quantiles.index(0.5)) if publishing else None,
        further_seasons=further,
        keeps_former=settings.promotion.keep_former,
    )


def build_group_pipelines(settings: Settings, *, withholds: bool = True) -> dict[str, Pipeline]:
    """Those of groups other than the default: season, step and anomalies are a group's own, columns are common."""
    names = build_groups(settings).names
    return {
        name: build_pipeline(group_settings(settings, name), withholds=withholds) for name in names if name != DEFAULT
    }


def build_detector(settings: Settings) -> AnomalyDetector:
    """What looks for anomalies."""
    chosen = settings.anomalies
    preset = PRESETS[chosen.preset]._asdict()
    given = {name: getattr(chosen, name) for name in preset}
    rules = preset | {name: value for name, value in given.items() if value is not None}
    return AnomalyDetector(
        AnomalyRules(
            episodes=EpisodeRules(
                threshold=chosen.threshold,
                clear_below=chosen.clear_below,
                clear_after=rules["clear_after"],
                repeat_after=chosen.repeat_after,
                min_readings=rules["min_readings"],
            ),
            risk=chosen.risk,
            min_deviation=chosen.min_deviation,
            min_relative_deviation=rules["min_relative_deviation"],
            flat_readings=rules["flat_readings"],
            gap_steps=rules["gap_steps"],
        ),
        quantile_levels=settings.forecast.quantiles,
    )


def state_terms(settings: Settings) -> dict[str, object]:
    """Settings that columns do not show, and under other values of which kept state or its replay would be misread."""
    known_ahead = settings.readings.known_ahead
    return {
        "forecast.quantiles": settings.forecast.quantiles,
        "readings.covariates": settings.readings.covariates,
        # State from before there were any goes on: their columns begin as in a new stream.
        **({"readings.known_ahead": known_ahead} if known_ahead else {}),
        "readings.max_lateness_seconds": settings.readings.max_lateness_seconds,
        # A stream of another group would be replayed by another network.
        GROUPS_TERM: [(group.name, group.streams, group.fields) for group in settings.groups],
    }


def build_rules(settings: Settings) -> TaskRules:
    """What holds for every task."""
    return TaskRules(
        boundary_records=settings.engine.boundary_records,
        max_wave=settings.engine.max_wave,
        max_streams=settings.streams.max_streams,
        max_lateness_seconds=settings.readings.max_lateness_seconds,
        idle_ttl_seconds=settings.streams.idle_ttl,
        drop_duplicates=settings.readings.duplicates == "drop",
        trial_streams=settings.promotion.streams,
    )


def build_recurrent(
    artifact: ModelArtifact, pipeline: Pipeline, former: ModelArtifact | None = None
) -> RecurrentExpert:
    """The serving expert of a model, with the champion before it beside it where the pipeline has room for one.

    Raises:
        ArtifactMismatch: a model cannot answer under the settings of the pipeline.
    """
    _check_fits(artifact, pipeline)
    manifest, beside = artifact.manifest, None
    if former is not None and pipeline.keeps_former:
        _check_fits(former, pipeline)
        beside = FormerChampion(former.network(), version=former.version)
    return RecurrentExpert(
        artifact.network(),
        model=model_number(team(artifact.version, beside.version if beside else None)),
        version=artifact.version,
        season=manifest.season_steps or sum(manifest.season_seconds[:1]),
        encoder=pipeline.encoder,
        further_seasons=manifest.season_seconds[1:],
        former=beside,
    )


def train_challenger(
    settings: Settings,
    history: History,
    *,
    champion: ModelArtifact | None,
    now: float,
    max_seconds: float,
    source: ModelArtifact | None = None,
    checkpoint: Path | None = None,
    code_version: str = "",
    after_drift: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainingOutcome:
    """One training under these settings: that of the daemon's child, of the command and of the backtest.

    Args:
        now: of the artifact's name, seconds since the epoch.
        max_seconds: of the fit; without a limit the result depends on the arguments alone.
        after_drift: drift has asked for it, and a challenger that is not worse than the champion is promoted.

    Raises:
        TrainingFailed: nothing to learn from, or the fit diverged.
    """
    return train_once(
        history,
        encoder=build_encoder(settings),
        quantile_levels=settings.forecast.quantiles,
        now=now,
        champion=champion,
        source=source,
        shape=build_shape(settings),
        recipe=build_recipe(settings),
        season=declared_season(settings),
        find_seasons=settings.forecast.find_seasons,
        step_seconds=settings.streams.step_seconds,
        max_gap_steps=settings.streams.max_gap_steps,
        steps=settings.training.steps,
        max_seconds=max_seconds,
        max_streams=settings.training.max_streams,
        max_ticks=settings.training.max_readings_per_stream,
        seed=settings.training.seed,
        checkpoint=checkpoint,
        code_version=code_version,
        after_drift=after_drift,
        on_progress=on_progress,
    )


def prepare_history(settings: Settings, history: History) -> Prepared:
    """A history as a training under these settings would prepare it, for a search.

    Raises:
        TrainingFailed: there is no reading.
    """
    chosen = build_recipe(settings)
    return prepare(
        history,
        build_encoder(settings),
        season=declared_season(settings),
        step_seconds=settings.streams.step_seconds,
        max_gap_steps=settings.streams.max_gap_steps,
        max_streams=settings.training.max_streams,
        max_ticks=settings.training.max_readings_per_stream,
        copies=chosen.augmentation.copies,
        exclude=chosen.exclude,
        seed=settings.training.seed,
    )


def build_drift(settings: Settings) -> DriftTrigger | None:
    """What notices drift, ``None`` where nothing is to."""
    detectors: dict[str, tuple[Detector, ...]] = {
        "adwin": (Adwin(),),
        "page_hinkley": (PageHinkley(),),
        "both": (Adwin(), PageHinkley()),
    }
    if settings.training.drift == "off":
        return None
    return DriftTrigger(detectors[settings.training.drift], pause_seconds=settings.training.drift_pause)


def build_schedules(settings: Settings) -> GroupSchedules:
    """When a training of each group is due."""
    return GroupSchedules(
        {name: build_schedule(group_settings(settings, name)) for name in build_groups(settings).names}
    )


def build_schedule(settings: Settings) -> TrainingSchedule:
    """When a training is due."""
    return TrainingSchedule(
        every_seconds=settings.training.every,
        min_wall_seconds=settings.training.min_wall_seconds,
        min_readings=settings.training.min_readings,
        drift=build_drift(settings),
        drift_span_seconds=settings.training.drift_span,
    )


def build_trial_rules(settings: Settings) -> TrialRules:
    """How trials on live readings end."""
    chosen = settings.promotion
    return TrialRules(
        margin=chosen.margin,
        level=_TRIAL_LEVEL,
        patience_seconds=chosen.patience,
        guard_steps=chosen.guard_steps,
    )


def build_collectors(settings: Settings) -> Collectors:
    """Metrics of this process."""
    return Collectors(
        build={"version": version("forecaster"), "python": platform.python_version(), "torch": torch.__version__},
        promised_coverage=settings.forecast.quantiles[-1] - settings.forecast.quantiles[0],
        memory_limit_bytes=memory_limit_bytes(),
        groups=[group_label(name) for name in build_groups(settings).names],
    )


def build_shape(settings: Settings) -> NetworkShape:
    """What the settings say of the network."""
    return NetworkShape(
        cell=settings.model.cell,
        activation=settings.model.activation,
        layers=settings.model.layers,
        hidden=settings.model.hidden,
        dropout=settings.training.dropout,
    )


def build_untrained(settings: Settings, encoder: SeriesEncoder) -> RecurrentExpert:
    """An expert of the shape that the settings ask for, which has learnt nothing: to rehearse with."""
    levels, horizon = settings.forecast.quantiles, settings.forecast.horizon
    naive = np.tile(np.linspace(-1, 1, len(levels), dtype=np.float32), (horizon, 1))
    network = new_network(build_shape(settings), encoder, levels, encoder.feature_names, naive=naive, seed=0)
    inputs = lag_inputs(encoder).width
    linear = LinearForecast(inputs, horizon)
    linear.set(torch.zeros(inputs, horizon), torch.ones(horizon))
    network.take_linear(linear)
    return RecurrentExpert(network, model=1, version="untrained", season=0, encoder=encoder)


def compile_kernels() -> None:
    """What `rehearse` needs, kept on disk: for the build of an image."""
    settings = Settings.model_validate({})
    pipeline = build_pipeline(settings)
    rehearse(pipeline, build_untrained(settings, pipeline.encoder))


def build_recipe(settings: Settings) -> Recipe:
    """How to train under these settings."""
    chosen = settings.training
    return Recipe(
        fit=FitPlan(
            optimiser=chosen.optimiser,
            schedule=chosen.schedule,
            learning_rate=chosen.learning_rate,
            momentum=chosen.momentum,
            l1=chosen.l1,
            l2=chosen.l2,
            clip=chosen.clip,
            averaging=chosen.averaging,
            batch=chosen.batch,
            backprop_steps=chosen.backprop_steps,
            freeze_steps=chosen.freeze_steps,
            patience=chosen.patience,
            device=chosen.device,
        ),
        windows=WindowPlan(context_length=chosen.context_length, burn_in=chosen.burn_in, origins=chosen.origins),
        cleaning=Cleaning(
            missing=chosen.missing,
            fill_steps=chosen.fill_steps,
            outliers=chosen.outliers,
            treatment=chosen.outlier_treatment,
            threshold=chosen.outlier_threshold,
            window=chosen.outlier_window,
            minimum=chosen.outlier_minimum,
            maximum=chosen.outlier_maximum,
            anomalies=chosen.anomalies,
        ),
        augmentation=Augmentation(
            copies=chosen.augment_copies,
            bootstrap=chosen.augment_bootstrap,
            warp=chosen.augment_warp,
            jitter=chosen.augment_jitter,
            mix_up=chosen.mix_up,
        ),
        ensemble=Ensemble(
            members=chosen.teacher_members,
            hidden=chosen.teacher_hidden,
            bootstrap=chosen.teacher_bootstrap,
            teacher_weight=chosen.teacher_weight,
        ),
        covariates=CovariateChoice(keep=chosen.covariates_kept, score=chosen.covariate_score),
        exclude=tuple(parse_period(period) for period in chosen.exclude),
    )


class ExactlyOnceParts(NamedTuple):
    """What exactly-once delivery needs of the outside; source and sink are those of the daemon."""

    source: HoldingSource
    sink: TransactionalSink
    store: RecoveryStore


def build_daemon(
    settings: Settings,
    *,
    source: Source,
    sink: Sink,
    embedded: bool,
    exactly_once: ExactlyOnceParts | None = None,
    feedback: Sequence[Feedback] = (),
    watch: WatchList | None = None,
    announce: Callable[[str], None] = lambda url: None,
) -> Daemon:
    """The whole program around a source and a sink.

    Args:
        embedded: there is no topic to train from; history is kept in memory.
        exactly_once: answers, state and offsets in one transaction; ``None`` delivers at least once.
        feedback: recorded, where the daemon is embedded; else it is read from its topic.
        watch: which streams metrics show one by one; made from the settings where it is not given.
        announce: is told where the HTTP endpoint is, once it is there.
    """
    torch.set_num_threads(1)
    clock = SystemClock()
    codec, pipeline = build_codec(settings), build_pipeline(settings)
    rehearse(pipeline, build_untrained(settings, pipeline.encoder))
    groups, pipelines = build_groups(settings), build_group_pipelines(settings)
    publisher = Publisher(
        forecasts=settings.topics.forecasts,
        dead_letters=settings.topics.dead_letters,
        quantile_levels=settings.forecast.quantiles,
        experts=pipeline.experts,
        anomalies=settings.topics.anomalies,
        encode=encode_forecasts_avro if settings.publish.format == "avro" and not embedded else encode_forecasts,
    )
    rules = build_rules(settings)
    trains = settings.training.mode == "child"
    history = None
    if trains and embedded:
        history = HistoryBuffer(
            max_readings_per_stream=settings.training.max_readings_per_stream,
            covariates=len(settings.readings.covariates),
            future=future_inputs(settings),
            excluded=excluded_periods(feedback),
            max_bytes=settings.training.history_bytes,
            seed=settings.training.seed,
        )
    labels: FeedbackLog | None = None
    if feedback:
        labels = RecordedFeedback(feedback)
    elif settings.topics.feedback and not embedded:
        labels = FollowedFeedback(lambda: build_feedback_tail(settings))

    def keep_state(table: StreamTable) -> StateKeeper:
        return StateKeeper(
            table,
            flush_seconds=settings.state.flush_seconds,
            max_pages=max(settings.state.bytes_per_commit // (PAGE_SLOTS * table.row_bytes), 1),
            terms=state_terms(settings),
        )

    def make_task(partition: int, networks: Networks) -> PartitionTask:
        return PartitionTask(
            partition,
            codec=codec,
            pipeline=pipeline,
            publisher=publisher,
            rules=rules,
            networks=networks,
            plan=plan,
            history=history,
            feedback=labels,
            keep_state=keep_state if exactly_once else None,
            groups=groups,
            pipelines=pipelines,
        )

    registry = build_registry(settings, on_kafka=not embedded)
    networks: dict[str, RecurrentExpert] = {}

    def kept(name: str, build: Callable[[], RecurrentExpert]) -> RecurrentExpert:
        found = networks.pop(name, None) or build()
        networks[name] = found  # the one asked for last stands last
        while len(networks) > _KEPT_NETWORKS * len(groups.names):
            del networks[next(iter(networks))]
        return found

    def make_recurrent(artifact: ModelArtifact, former: ModelArtifact | None) -> RecurrentExpert:
        name = team(artifact.version, former.version if former else None)
        return kept(name, lambda: build_recurrent(artifact, pipeline, former))

    def noted_down(name: str) -> RecurrentExpert:
        version, former = of_team(name)

        def build() -> RecurrentExpert:
            beside = registry.get(former) if former and pipeline.keeps_former else None
            return build_recurrent(registry.get(version), pipeline, beside)

        return kept(name, build)

    plan = None
    if settings.engine.switches:
        plan = SwitchPlan(read_switches(Path(settings.engine.switches)), network=noted_down)
    flush_timeout = settings.kafka.delivery_timeout_seconds
    delivery: Delivery
    if exactly_once is None:
        delivery = AtLeastOnce(Checkpoint(source, sink, flush_timeout_seconds=flush_timeout), make_task=make_task)
    else:
        delivery = ExactlyOnce(
            exactly_once.source,
            TransactionalCheckpoint(
                exactly_once.sink, state=settings.topics.state, flush_timeout_seconds=flush_timeout
            ),
            Recovery(
                exactly_once.source,
                exactly_once.store,
                make_task=make_task,
                network=noted_down,
                clock=clock,
                deadline_seconds=settings.state.restore_seconds,
                standby=Standby(
                    exactly_once.store.tail,
                    keep_warm=exactly_once.store.keep_warm,
                    clock=clock,
                    max_bytes=settings.recovery.standby_bytes,
                )
                if settings.recovery.standby
                else None,
            ),
            clock=clock,
        )
    worker = Worker(
        source,
        delivery,
        leads=pipeline.leads,
        clock=clock,
        commit_interval_seconds=settings.commit.interval_ms / 1000,
        commit_max_records=settings.commit.max_records,
        max_poll_records=settings.engine.max_poll_records,
        give_up_seconds=settings.kafka.max_poll_interval_seconds,
    )
    training = None
    if trains:
        training = Training(
            child=TrainerChild(environment=to_environment(settings), from_topic=not embedded),
            schedules=build_schedules(settings),
            history=history,
            takes=lambda group: lambda stream_id: groups.of(stream_id) == group,
            window_seconds={name: group_settings(settings, name).training.window for name in groups.names},
        )
    collectors = build_collectors(settings)
    if not embedded:
        collectors.set_client(settings.kafka.client, batched=is_batched(settings))

    def serve(daemon: Daemon) -> TelemetryEndpoint:
        server = TelemetryServer(
            settings.telemetry.host,
            settings.telemetry.port,
            collectors=collectors,
            health=daemon.health,
            ready=daemon.ready,
            streams=daemon.streams,
            stream=daemon.stream,
            before_scrape=daemon.before_scrape,
        )
        announce(server.url)
        return server

    return Daemon(
        source=source,
        sink=sink,
        worker=worker,
        inspector=Inspector(),
        collectors=collectors,
        registry=registry if plan is None else None,
        feedback=labels,
        make_recurrent=make_recurrent,
        training=training,
        drift=build_schedules(settings) if settings.training.mode == "service" else None,
        desk=TrialDesk(
            lambda: build_registry(settings, on_kafka=not embedded),
            rules=build_trial_rules(settings) if trains else None,
            on_settled=collectors.observe_trial,
            clock=clock,
            groups=groups.names,
        ),
        groups=groups.names,
        keeps_former=settings.promotion.keep_former,
        serve=serve,
        clock=clock,
        watch=watch or WatchList(settings.telemetry.watch, most=settings.telemetry.watch_streams, clock=clock),
        pace=Pace()
        if embedded
        else Pace(min_turn_seconds=settings.engine.min_turn_ms / 1000, idle_seconds=_IDLE_POLL_SECONDS),
    )


def build_trainer_service(settings: Settings, *, shares: bool = True) -> TrainerService:
    """The trainer of its own, on the readings topic. Nothing is opened before it runs.

    Args:
        shares: it divides groups of streams with other trainers of the same workers; else it looks at none of them.
    """
    trainers = KafkaTrainers(
        build_connection(settings),
        topic=settings.topics.readings,
        group_id=f"{settings.kafka.group_id}-trainer",
        session_timeout_seconds=settings.kafka.session_timeout_seconds,
    )
    progress = KafkaProgress(
        build_connection(settings),
        topic=settings.topics.readings,
        decoder=build_codec(settings),
        trainers=trainers if shares else None,
    )
    collectors = build_collectors(settings)

    def serve(service: TrainerService) -> TelemetryServer:
        return TelemetryServer(
            settings.telemetry.host,
            settings.telemetry.port,
            collectors=collectors,
            health=service.health,
            ready=service.ready,
            streams=lambda query: [],
            stream=lambda stream_id: None,
            before_scrape=lambda: None,
        )

    return TrainerService(
        child=TrainerChild(environment=to_environment(settings), from_topic=True),
        schedules=build_schedules(settings),
        watch=ProgressWatch(progress.look, release=progress.close, every_seconds=_PROGRESS_SECONDS),
        registry=build_registry(settings, on_kafka=True),
        rules=build_trial_rules(settings),
        collectors=collectors,
        serve=serve,
        clock=SystemClock(),
    )


def build_backtest(
    settings: Settings,
    recording: Recording,
    *,
    layout: TableLayout,
    directory: Path,
    champion: ModelArtifact | None = None,
    feedback: Sequence[Feedback] = (),
) -> Backtest:
    """The worker that serves, over a recording, with its forecasts kept as arrays and trainings in this process.

    Args:
        layout: JSON field names of the readings.
        directory: gets ``dead_letters.jsonl``, and temporary files.
        champion: serves from the first reading on.
        feedback: labels, heard once readings have reached their time; and periods that no training sees.
    """
    torch.set_num_threads(1)
    clock = SystemClock()
    codec, pipeline = build_codec(settings), build_pipeline(settings, withholds=False)
    groups, pipelines = build_groups(settings), build_group_pipelines(settings, withholds=False)
    # Trainings happen at boundaries: so close together that none is moved far, so far apart that waves stay whole.
    boundary_records = _BACKTEST_BOUNDARY_ROWS * len(recording.streams)
    rules = replace(build_rules(settings), boundary_records=boundary_records)
    collector = ForecastCollector(
        directory,
        forecasts=settings.topics.forecasts,
        dead_letters=settings.topics.dead_letters,
        quantile_levels=settings.forecast.quantiles,
        experts=pipeline.experts,
        horizon=settings.forecast.horizon,
    )
    history = None
    if settings.training.mode == "child":
        history = HistoryBuffer(
            max_readings_per_stream=settings.training.max_readings_per_stream,
            covariates=len(settings.readings.covariates),
            future=future_inputs(settings),
            excluded=excluded_periods(feedback),
            max_bytes=settings.training.history_bytes,
            seed=settings.training.seed,
        )
    labels = RecordedFeedback(feedback) if feedback else None

    def make_task(partition: int, networks: Networks) -> PartitionTask:
        return PartitionTask(
            partition,
            codec=codec,
            pipeline=pipeline,
            publisher=collector,
            rules=rules,
            networks=networks,
            history=history,
            groups=groups,
            pipelines=pipelines,
            feedback=labels,
        )

    def train(history: History, *, champion: ModelArtifact | None, now: float, group: str = DEFAULT) -> TrainingOutcome:
        own = history.where(lambda stream_id: groups.of(stream_id) == group)
        return train_challenger(group_settings(settings, group), own, champion=champion, now=now, max_seconds=math.inf)

    source = RecordingSource(recording, layout=layout, topic=settings.topics.readings)
    sink = FileSink({}, whole_records={settings.topics.dead_letters: directory / "dead_letters.jsonl"})
    flush_timeout = settings.kafka.delivery_timeout_seconds
    delivery = AtLeastOnce(Checkpoint(source, sink, flush_timeout_seconds=flush_timeout), make_task=make_task)
    return Backtest(
        recording=recording,
        source=source,
        sink=sink,
        worker=Worker(
            source,
            delivery,
            leads=pipeline.leads,
            clock=clock,
            commit_interval_seconds=settings.commit.interval_ms / 1000,
            commit_max_records=settings.commit.max_records,
            max_poll_records=settings.engine.max_poll_records,
            give_up_seconds=settings.kafka.max_poll_interval_seconds,
        ),
        collector=collector,
        boundary_records=boundary_records,
        make_recurrent=lambda artifact, before: build_recurrent(artifact, pipeline, before),
        train=train,
        history=history,
        window_seconds={name: group_settings(settings, name).training.window for name in groups.names},
        champions={DEFAULT: champion} if champion is not None else {},
        groups=groups.names,
    )


def _check_fits(artifact: ModelArtifact, pipeline: Pipeline) -> None:
    """Refuse a model that cannot answer under these settings."""
    hp = artifact.manifest.hyperparameters
    found = {
        "forecast.horizon": (hp.horizon, pipeline.horizon),
        "forecast.quantiles": (tuple(hp.quantile_levels), tuple(pipeline.quantile_levels)),
        "inputs": (tuple(hp.feature_names), tuple(pipeline.encoder.feature_names)),
        "numbers known ahead": (hp.future_inputs, pipeline.encoder.future_inputs),
        "hidden state (layers, width)": (artifact.network().hidden_shape, pipeline.hidden_shape),
    }
    if hp.linear_inputs:
        found["linear inputs"] = hp.linear_inputs, lag_inputs(pipeline.encoder).width
    wrong = [f"{name} {theirs}, here {ours}" for name, (theirs, ours) in found.items() if theirs != ours]
    if wrong:
        raise ArtifactMismatch(
            f"Model {artifact.version} does not fit the settings: it has {'; '.join(wrong)}.",
            hint="The baselines answer until a training makes one that fits; or restore the settings it was made with.",
        )
