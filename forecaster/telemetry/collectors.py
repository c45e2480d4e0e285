"""Every Prometheus metric of the program in one table, and the translation of reports into them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from forecaster.anomaly.detector import Direction
from forecaster.engine.report import (
    Doubt,
    Failure,
    LeadScores,
    LoopReport,
    Move,
    RecoveryReport,
    StreamSample,
)
from forecaster.models.decisions import RegistryRecord, Settled
from forecaster.records import Reason, Status
from forecaster.series.groups import DEFAULT, group_label
from forecaster.training.drift import DriftStatistics

TrainingEnd = Literal["ok_promoted", "ok_on_trial", "ok_rejected", "failed"]
TRAINING_RESULTS: tuple[TrainingEnd, ...] = get_args(TrainingEnd)
TRIAL_RESULTS: tuple[Settled, ...] = get_args(Settled)
STAGES = ("poll", "decode", "step", "beside", "publish", "commit")
ANSWERS = ("forecast", "dead_letter")
RESTORES = ("standby", "cold", "fresh")
LABELS = ("true", "false")
RIVALS = ("champion", "naive")
FAILURES: tuple[str, ...] = get_args(Failure)
MOVES: tuple[str, ...] = get_args(Move)

_QUICK = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_STREAMS = (1.0, 4.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)
_RESTORE = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4)
_LONG = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1800.0, 3600.0)

_DRIFT = (
    "forecaster_drift_alarm_timestamp_seconds",
    "forecaster_drift_window_mean_ratio",
    "forecaster_drift_window_spans",
    "forecaster_drift_page_hinkley_ratio",
)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One row of the table; ``values`` are the label values shown from the start, at 0."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    label: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, help: str, *label: str, values: Iterable[str] = ()) -> MetricSpec:
    return MetricSpec(name, "counter", help, label, tuple(values))


def _gauge(name: str, help: str, *label: str, values: Iterable[str] = ()) -> MetricSpec:
    return MetricSpec(name, "gauge", help, label, tuple(values))


def _histogram(name: str, help: str, *label: str, buckets: tuple[float, ...], values: Iterable[str] = ()) -> MetricSpec:
    return MetricSpec(name, "histogram", help, label, tuple(values), buckets)


# fmt: off
METRICS: tuple[MetricSpec, ...] = (
    # what came in
    _counter("forecaster_records_total", "Records read from the source."),
    _counter("forecaster_readings_accepted_total", "Readings answered by a forecast."),
    _counter("forecaster_readings_rejected_total", "Readings refused, by reason.", "reason", values=Reason),
    _counter("forecaster_readings_missing_total", "Accepted readings that had no value."),
    _counter("forecaster_readings_dropped_total", "Duplicates that were only counted, as the setting asks."),
    _counter("forecaster_gap_steps_total", "Absent steps that the streams' clocks passed over."),
    # what is remembered
    _counter("forecaster_streams_new_total", "Streams seen for the first time."),
    _counter("forecaster_streams_evicted_total", "Streams forgotten because they were idle or by tombstone."),
    _counter("forecaster_streams_rebuilt_total", "Hidden states replayed, after a long gap or for a new model."),
    _gauge("forecaster_known_streams", "Streams remembered now, by status.", "status", values=Status),
    _gauge("forecaster_state_bytes", "Memory held for all streams' state."),
    # what went out
    _counter("forecaster_forecasts_withheld_total", "Forecasts made and not published, as the setting asks."),
    _counter("forecaster_forecasts_total", "Forecasts made, by the status they carry.", "status", values=Status),
    _counter("forecaster_answers_total", "Records handed to the sink, by kind.", "kind", values=ANSWERS),
    _counter("forecaster_commits_total", "Commits of answers and offsets that succeeded."),
    _counter("forecaster_broker_failures_total", "Turns that ended unconfirmed, by kind.", "kind", values=FAILURES),
    _counter("forecaster_transactions_aborted_total", "Transactions thrown away, back to the last commit."),
    # what was anomalous
    _counter("forecaster_anomalies_raised_total", "Anomalies raised, by direction.", "direction", values=Direction),
    _counter("forecaster_anomalies_cleared_total", "Anomalies that are over."),
    _counter("forecaster_labels_total", "Labels that moved a stream's thresholds.", "label", values=LABELS),
    _gauge("forecaster_anomalous_streams", "Streams that are in an anomaly now."),
    # how long it took
    _histogram("forecaster_wave_streams", "Streams stepped at once.", buckets=_STREAMS),
    _histogram("forecaster_wave_seconds", "Time to step one wave.", buckets=_QUICK),
    _histogram("forecaster_stage_seconds", "Time of one loop turn by stage.", "stage", buckets=_QUICK, values=STAGES),
    _gauge("forecaster_consumer_lag_records", "Records waiting, by partition this worker owns.", "topic", "partition"),
    # partitions that come, from the last commit on
    _gauge("forecaster_owned_partitions", "Partitions that this worker answers now."),
    _counter("forecaster_partition_moves_total", "Partitions that came or went, by how.", "kind", values=MOVES),
    _gauge("forecaster_restoring_partitions", "Partitions that are this worker's and not live yet."),
    _counter("forecaster_restores_total", "Partitions that became live, by what from.", "kind", values=RESTORES),
    _histogram("forecaster_restore_seconds", "Time to restore one.", "kind", buckets=_RESTORE, values=RESTORES),
    _counter("forecaster_restored_state_records_total", "State records that partitions were restored from."),
    _counter("forecaster_restored_state_bytes_total", "Bytes of those records."),
    _counter("forecaster_replayed_readings_total", "Readings taken in a second time, without being answered again."),
    _gauge("forecaster_standby_partitions", "Partitions of other workers whose state is held in memory."),
    _gauge("forecaster_standby_bytes", "Bytes of that state."),
    _counter("forecaster_standby_doubts_total", "Copies not held or not used, by reason.", "reason", values=Doubt),
    # how good it was, by lead: sums for ratios of rates, then the same over the recent past; a stream's scale is that
    # of its own normalisation
    _counter("forecaster_forecasts_settled_total", "Forecasts whose target value arrived.", "lead"),
    _counter("forecaster_abs_error_scaled_total", "Absolute errors of the median, in stream scales.", "lead"),
    _counter("forecaster_naive_abs_error_scaled_total", "Absolute errors of the last value, in stream scales.", "lead"),
    _counter("forecaster_targets_covered_total", "Targets that fell inside the outermost interval.", "lead"),
    _counter("forecaster_interval_width_scaled_total", "Widths of the outermost interval, in stream scales.", "lead"),
    _counter("forecaster_expert_share_total", "Shares that experts had in forecasts, summed up, by expert.", "expert"),
    _gauge("forecaster_recent_error_vs_naive_ratio", "Recent error divided by that of the last value.", "lead"),
    _gauge("forecaster_recent_coverage_ratio", "Recent share of targets inside the outermost interval.", "lead"),
    _gauge("forecaster_recent_interval_width_scaled", "Recent width of that interval, in stream scales.", "lead"),
    _gauge("forecaster_promised_coverage_ratio", "What forecast.quantiles promise of the outermost interval."),
    # a few streams one by one, as telemetry.watch says, and never more than telemetry.watch_streams
    _gauge("forecaster_watched_reading_value", "Newest reading, in its own unit.", "stream"),
    _gauge("forecaster_watched_timestamp_seconds", "Event time of the newest reading.", "stream"),
    _gauge("forecaster_watched_step_seconds", "Interval between readings, as learnt.", "stream"),
    _gauge("forecaster_watched_forecast_value", "Newest forecast, in its own unit.", "stream", "lead", "quantile"),
    _gauge("forecaster_watched_expert_weight_ratio", "Share of an expert in that forecast.", "stream", "expert"),
    _gauge("forecaster_watched_error_vs_naive_ratio", "Recent error divided by that of the last value.", "stream"),
    _gauge("forecaster_watched_coverage_ratio", "Recent share of targets inside the outermost interval.", "stream"),
    _gauge("forecaster_watched_anomaly", "Whether the stream is in an anomaly: 1 or 0.", "stream"),
    # the model and its training
    MetricSpec("forecaster_model_info", "info", "Version of the model that answers now.", ("group", "version")),
    _gauge("forecaster_model_trained_timestamp_seconds", "Time the model that answers now was trained.", "group"),
    _counter("forecaster_model_switches_total", "Changes of the model that answers since the start."),
    _counter("forecaster_training_runs_total", "Trainings that ended, by result.", "group", "result"),
    _histogram("forecaster_training_seconds", "Time a training took.", buckets=_LONG),
    _gauge("forecaster_training_last_loss_scaled", "Pinball loss of the last trained model when it was judged."),
    _gauge("forecaster_training_last_gain_ratio", "Share of a rival's loss it saved.", "against", values=RIVALS),
    _gauge("forecaster_trial_began_timestamp_seconds", "Time the trial under way began.", "group"),
    _counter("forecaster_trials_total", "Trials this process has ended, by result.", "result", values=TRIAL_RESULTS),
    _gauge("forecaster_promotion_timestamp_seconds", "Time of the last promotion this worker saw."),
    # drift, as the detectors that ask for trainings see the live loss
    _counter("forecaster_drift_alarms_total", "Times a detector saw the live loss rise for good.", "group", "detector"),
    _gauge("forecaster_drift_alarm_timestamp_seconds", "Event time of the last alarm.", "group"),
    _gauge("forecaster_drift_window_mean_ratio", "Mean of loss / (1 + loss) over the window of ADWIN.", "group"),
    _gauge("forecaster_drift_window_spans", "Losses in that window, each the mean of a training.drift_span.", "group"),
    _gauge("forecaster_drift_page_hinkley_ratio", "How far the sum of Page-Hinkley is above its lowest.", "group"),
    # the program
    _gauge("forecaster_memory_limit_bytes", "Memory this process may take: its container's limit, or the machine's."),
    MetricSpec("forecaster_build_info", "info", "Versions of program and platform.", ("version", "python", "torch")),
    MetricSpec("forecaster_client_info", "info", "Kafka client and its path.", ("client", "batched")),
)
# fmt: on


class Collectors:
    """The program's metrics on a registry of their own.

    The loop thread calls `observe` and the ``set_`` methods; any thread may call `exposition`. Gauges that cannot be
    known yet (no model, no training, nothing settled) are ``NaN`` or absent, never an invented 0.

    Args:
        build: versions for ``forecaster_build_info``: ``version``, ``python``, ``torch``.
        recent_settled: settled forecasts per lead after which the past counts 1/e in the recent ratios.
        promised_coverage: of the outermost published interval; 0.8 for quantiles from 0.1 to 0.9.
        memory_limit_bytes: what the process may take.
        groups: of streams, as people see them.
    """

    def __init__(
        self,
        *,
        build: Mapping[str, str],
        recent_settled: float = 10_000.0,
        promised_coverage: float = math.nan,
        memory_limit_bytes: float = math.nan,
        groups: Sequence[str] = (group_label(DEFAULT),),
    ) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._infos: dict[str, Info] = {}
        for spec in METRICS:
            self._build(spec)
        ProcessCollector(registry=self.registry)
        self._infos["forecaster_build_info"].info({"version": "", "python": "", "torch": "", **build})
        self._infos["forecaster_client_info"].info({"client": "none", "batched": "false"})
        for group in groups:
            self._infos["forecaster_model_info"].labels(group).info({"version": "none"})
            for name in (
                "forecaster_model_trained_timestamp_seconds",
                "forecaster_trial_began_timestamp_seconds",
                *_DRIFT,
            ):
                self._gauges[name].labels(group).set(math.nan)
            for result in TRAINING_RESULTS:
                self._counters["forecaster_training_runs_total"].labels(group, result)
        for name in ("forecaster_training_last_loss_scaled", "forecaster_promotion_timestamp_seconds"):
            self._gauges[name].set(math.nan)
        for rival in RIVALS:
            self._gauges["forecaster_training_last_gain_ratio"].labels(rival).set(math.nan)
        self._gauges["forecaster_promised_coverage_ratio"].set(promised_coverage)
        self._gauges["forecaster_memory_limit_bytes"].set(memory_limit_bytes)
        self._recent_settled = recent_settled
        self._recent: dict[int, _RecentScores] = {}
        self._model_versions: dict[str, str] = {}
        self._drift_alarms: dict[tuple[str, str], int] = {}
        self._shown: dict[tuple[str, str], set[tuple[str, ...]]] = {}

    def observe(self, report: LoopReport) -> None:
        """Add one turn of the loop."""
        step = report.step
        for name, amount in (
            ("forecaster_records_total", report.records),
            ("forecaster_readings_accepted_total", step.accepted),
            ("forecaster_readings_missing_total", step.missing),
            ("forecaster_readings_dropped_total", step.dropped),
            ("forecaster_forecasts_withheld_total", step.withheld),
            ("forecaster_gap_steps_total", step.gap_steps),
            ("forecaster_streams_new_total", step.new_streams),
            ("forecaster_streams_evicted_total", step.evicted),
            ("forecaster_streams_rebuilt_total", step.rebuilt),
            ("forecaster_anomalies_cleared_total", step.cleared),
            ("forecaster_commits_total", int(report.committed)),
            ("forecaster_transactions_aborted_total", report.starts_over),
        ):
            if amount:
                self._counters[name].inc(amount)
        for reason, count in step.rejected.items():
            self._counters["forecaster_readings_rejected_total"].labels(reason).inc(count)
        for status, count in step.statuses.items():
            self._counters["forecaster_forecasts_total"].labels(status).inc(count)
        for way, count in step.raised.items():
            self._counters["forecaster_anomalies_raised_total"].labels(way).inc(count)
        for label, count in step.labels.items():
            self._counters["forecaster_labels_total"].labels(label).inc(count)
        for expert, share in step.shares.items():
            self._counters["forecaster_expert_share_total"].labels(expert).inc(share)
        for kind, count in zip(ANSWERS, (report.forecasts, report.dead_letters), strict=True):
            self._counters["forecaster_answers_total"].labels(kind).inc(count)
        for failure, count in report.failures.items():
            self._counters["forecaster_broker_failures_total"].labels(failure).inc(count)
        for move, count in report.moves.items():
            self._counters["forecaster_partition_moves_total"].labels(move).inc(count)
        for streams, seconds in report.waves:
            self._histograms["forecaster_wave_streams"].observe(streams)
            self._histograms["forecaster_wave_seconds"].observe(seconds)
        for stage, seconds in report.seconds.items():
            self._histograms["forecaster_stage_seconds"].labels(stage).observe(seconds)
        self._observe_scores(step.scores)
        self._observe_recovery(report.recovery)

    def set_streams(self, counts: Mapping[str, int]) -> None:
        """Streams remembered now, by status; a status that is absent has none."""
        for status in Status:
            self._gauges["forecaster_known_streams"].labels(status).set(counts.get(status, 0))

    def set_state_bytes(self, state_bytes: int) -> None:
        """Memory held for all streams' state."""
        self._gauges["forecaster_state_bytes"].set(state_bytes)

    def set_open_anomalies(self, streams: int) -> None:
        """Streams that are in an anomaly now."""
        self._gauges["forecaster_anomalous_streams"].set(streams)

    def set_lag(self, topic: str, lag: Mapping[int, int]) -> None:
        """Records waiting, by partition this worker owns; partitions of ``topic`` that are absent disappear."""
        waiting = [((topic, str(partition)), float(records)) for partition, records in lag.items()]
        self._show("forecaster_consumer_lag_records", waiting, group=topic)

    def set_owned(self, partitions: int) -> None:
        """Partitions that are answered now."""
        self._gauges["forecaster_owned_partitions"].set(partitions)

    def set_watched(self, samples: Iterable[StreamSample]) -> None:
        """The streams to show one by one; those that are absent disappear."""
        found = list(samples)
        show = self._show
        show("forecaster_watched_reading_value", [((s.stream_id,), s.value) for s in found])
        show("forecaster_watched_timestamp_seconds", [((s.stream_id,), s.time) for s in found])
        show("forecaster_watched_step_seconds", [((s.stream_id,), s.step_seconds) for s in found])
        show("forecaster_watched_error_vs_naive_ratio", [((s.stream_id,), _known(s.error_vs_naive)) for s in found])
        show("forecaster_watched_coverage_ratio", [((s.stream_id,), _known(s.coverage)) for s in found])
        show("forecaster_watched_anomaly", [((s.stream_id,), float(s.is_anomalous)) for s in found])
        quantiles = [
            ((s.stream_id, str(lead), f"{level:g}"), value)
            for s in found
            for (lead, level), value in s.forecast.items()
        ]
        show("forecaster_watched_forecast_value", quantiles)
        weights = [((s.stream_id, expert), share) for s in found for expert, share in s.weights.items()]
        show("forecaster_watched_expert_weight_ratio", weights)

    def set_model(self, version: str, *, trained_at: float | None, group: str = group_label(DEFAULT)) -> None:
        """Name the model that answers a group now; a version other than the last one named counts as a switch.

        The first call for a group only names. Call it at the start, with ``"none"`` where there is no model yet, so
        that the first model that takes over from the baselines is counted.
        """
        self._infos["forecaster_model_info"].labels(group).info({"version": version})
        trained = self._gauges["forecaster_model_trained_timestamp_seconds"].labels(group)
        trained.set(math.nan if trained_at is None else trained_at)
        if self._model_versions.setdefault(group, version) != version:
            self._counters["forecaster_model_switches_total"].inc()
        self._model_versions[group] = version

    def set_client(self, name: str, *, batched: bool) -> None:
        """Name the client that readings and answers go through, and its path."""
        self._infos["forecaster_client_info"].info({"client": name, "batched": str(batched).lower()})

    def observe_training(
        self,
        result: TrainingEnd,
        seconds: float,
        *,
        ended_at: float,
        loss: float | None = None,
        gain_vs_champion: float | None = None,
        gain_vs_naive: float | None = None,
        group: str = group_label(DEFAULT),
    ) -> None:
        """Add one training that ended.

        Args:
            result: whether it failed, or made a model, and whether that was promoted or goes on trial.
            seconds: how long it took.
            ended_at: when it ended, seconds since the epoch.
            loss: its pinball loss on the stretch it was judged on; ``None`` where it was not judged.
            gain_vs_champion: ``1 - loss / champion's loss``, 0.04 is 4 % better; ``None`` without a champion.
            gain_vs_naive: the same against the naive baseline.
            group: of the streams trained on.
        """
        self._counters["forecaster_training_runs_total"].labels(group, result).inc()
        self._histograms["forecaster_training_seconds"].observe(seconds)
        if result == "ok_promoted":
            self._gauges["forecaster_promotion_timestamp_seconds"].set(ended_at)
        if loss is not None:
            self._gauges["forecaster_training_last_loss_scaled"].set(loss)
            for rival, gain in zip(RIVALS, (gain_vs_champion, gain_vs_naive), strict=True):
                self._gauges["forecaster_training_last_gain_ratio"].labels(rival).set(_known(gain))

    def set_drift(self, drift: DriftStatistics | None, *, group: str = group_label(DEFAULT)) -> None:
        """Where the detectors of drift of a group stand; ``None`` where there are none."""
        if drift is None:
            return
        for detector, alarms in drift.alarms.items():
            counter = self._counters["forecaster_drift_alarms_total"].labels(group, detector)
            counter.inc(alarms - self._drift_alarms.get((group, detector), 0))
            self._drift_alarms[group, detector] = alarms
        standing = (drift.alarmed_at, drift.window_mean, drift.window_width, drift.climb)
        for name, value in zip(_DRIFT, standing, strict=True):
            self._gauges[name].labels(group).set(value)

    def set_trial(self, *, began: float | None, group: str = group_label(DEFAULT)) -> None:
        """When the trial under way of a group began, seconds since the epoch; ``None`` while there is none."""
        gauge = self._gauges["forecaster_trial_began_timestamp_seconds"].labels(group)
        gauge.set(math.nan if began is None else began)

    def observe_trial(self, decision: RegistryRecord) -> None:
        """Add the decision by which this process has ended a trial; any thread may tell."""
        self._counters["forecaster_trials_total"].labels(decision.action).inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text in the format the ``Accept`` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(_WithoutCreated(self.registry)), content_type

    def _show(self, name: str, samples: Iterable[tuple[tuple[str, ...], float]], *, group: str = "") -> None:
        """A gauge with these labels and, in its group, no others. Never empty in between: others may be reading."""
        gauge, values = self._gauges[name], dict(samples)
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
        for labels in self._shown.get((name, group), set()) - set(values):
            gauge.remove(*labels)
        self._shown[name, group] = set(values)

    def _build(self, spec: MetricSpec) -> None:
        if spec.kind == "counter":
            counter = Counter(spec.name, spec.help, spec.label, registry=self.registry)
            for value in spec.values:
                counter.labels(value)
            self._counters[spec.name] = counter
        elif spec.kind == "gauge":
            gauge = Gauge(spec.name, spec.help, spec.label, registry=self.registry)
            for value in spec.values:
                gauge.labels(value)
            self._gauges[spec.name] = gauge
        elif spec.kind == "histogram":
            histogram = Histogram(spec.name, spec.help, spec.label, buckets=spec.buckets, registry=self.registry)
            for value in spec.values:
                histogram.labels(value)
            self._histograms[spec.name] = histogram
        else:
            labels = [name for name in spec.label if name == "group"]  # all others are values of the info itself
            self._infos[spec.name] = Info(spec.name.removesuffix("_info"), spec.help, labels, registry=self.registry)

    def _observe_recovery(self, recovery: RecoveryReport) -> None:
        self._gauges["forecaster_restoring_partitions"].set(len(recovery.restoring))
        self._gauges["forecaster_standby_partitions"].set(recovery.standby.partitions)
        self._gauges["forecaster_standby_bytes"].set(recovery.standby.nbytes)
        for reason, count in recovery.standby.doubts.items():
            self._counters["forecaster_standby_doubts_total"].labels(reason).inc(count)
        for done in recovery.restored:
            self._counters["forecaster_restores_total"].labels(done.kind).inc()
            self._histograms["forecaster_restore_seconds"].labels(done.kind).observe(done.seconds)
            self._counters["forecaster_restored_state_records_total"].inc(done.state_records)
            self._counters["forecaster_restored_state_bytes_total"].inc(done.state_bytes)
            self._counters["forecaster_replayed_readings_total"].inc(done.replayed)

    def _observe_scores(self, scores: LeadScores) -> None:
        for row, lead in enumerate(scores.leads):
            sums = _RecentScores(
                settled=float(scores.settled[row]),
                abs_error=float(scores.abs_error[row]),
                naive_abs_error=float(scores.naive_abs_error[row]),
                covered=float(scores.covered[row]),
                width=float(scores.width[row]),
            )
            for name, amount in (
                ("forecaster_forecasts_settled_total", sums.settled),
                ("forecaster_abs_error_scaled_total", sums.abs_error),
                ("forecaster_naive_abs_error_scaled_total", sums.naive_abs_error),
                ("forecaster_targets_covered_total", sums.covered),
                ("forecaster_interval_width_scaled_total", sums.width),
            ):
                self._counters[name].labels(str(lead)).inc(amount)
            if sums.settled:
                recent = self._recent.setdefault(lead, _RecentScores())
                recent.forget(math.exp(-sums.settled / self._recent_settled))
                recent.add(sums)
                for name, ratio in (
                    ("forecaster_recent_error_vs_naive_ratio", _ratio(recent.abs_error, recent.naive_abs_error)),
                    ("forecaster_recent_coverage_ratio", _ratio(recent.covered, recent.settled)),
                    ("forecaster_recent_interval_width_scaled", _ratio(recent.width, recent.settled)),
                ):
                    self._gauges[name].labels(str(lead)).set(ratio)


@dataclass(slots=True)
class _RecentScores:
    """Exponentially forgetting sums of one lead."""

    settled: float = 0.0
    abs_error: float = 0.0
    naive_abs_error: float = 0.0
    covered: float = 0.0
    width: float = 0.0

    def forget(self, keep: float) -> None:
        self.settled *= keep
        self.abs_error *= keep
        self.naive_abs_error *= keep
        self.covered *= keep
        self.width *= keep

    def add(self, other: _RecentScores) -> None:
        self.settled += other.settled
        self.abs_error += other.abs_error
        self.naive_abs_error += other.naive_abs_error
        self.covered += other.covered
        self.width += other.width


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


class _WithoutCreated(Collector):
    """The registry without the client's ``_created`` series, which would double the size of a scrape.

    The client can only switch them off for the whole process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
