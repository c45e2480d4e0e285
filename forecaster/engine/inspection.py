"""What a person may ask about a stream: its last answer, its recent values, how good it has been."""

from __future__ import annotations

from typing import Any

import numpy as np

from forecaster.codecs.anomaly_json import severity
from forecaster.codecs.timestamps import format_time
from forecaster.engine.pipeline import STATUSES
from forecaster.engine.report import StreamSample
from forecaster.engine.task import PartitionTask
from forecaster.engine.units import significant_decimals
from forecaster.series.groups import group_label

RECENT_IN_SUMMARY = 60


class Inspector:
    """Reads the columns of tasks; changes nothing. To be called on the loop's thread.

    The forecast shown is the published one at the anchor leads; the leads between are in the topic alone.
    """

    def summary(self, task: PartitionTask, stream_id: str) -> dict[str, Any]:
        """One line about a stream, as ``/streams`` lists it."""
        return self._describe(task, stream_id, RECENT_IN_SUMMARY)

    def detail(self, task: PartitionTask, stream_id: str) -> dict[str, Any]:
        """Everything about a stream, as ``/streams/<id>`` shows it."""
        c, slot = task.table.arrays, self._slot(task, stream_id)
        pipeline = task.pipeline(task.group(slot))
        published, seen = pipeline.published(c, slot), bool(c["seen"][slot])
        anchors = np.array(pipeline.leads) - 1
        shares = pipeline.shares(c, slot)
        described = self._describe(task, stream_id, pipeline.encoder.ring_steps)
        return {
            **described,
            "partition": task.partition,
            "group": group_label(task.group(slot)),
            "experts": dict(zip(pipeline.experts, shares.mean(axis=0).round(4).tolist(), strict=True)),
            "experts_by_lead": {
                "leads": list(pipeline.leads),
                "shares": dict(zip(pipeline.experts, shares[anchors].T.round(4).tolist(), strict=True)),
            },
            "season_steps": int(c["season"][slot]),
            "further_season_steps": pipeline.further_steps(c, np.array([slot]), task.network(slot))[0].tolist(),
            "scale": float(c["scale"][slot]),
            "level": float(c["level"][slot]),
            "anomaly": self._anomaly(task, slot),
            "calibration": {
                "leads": list(pipeline.leads),
                "width_factors": np.exp(c["log_width"][slot].astype(np.float64)).round(3).tolist(),
                "widths": (published[:, -1] - published[:, 0]).tolist() if seen else None,
            },
        }

    def sample(self, task: PartitionTask, stream_id: str) -> StreamSample:
        """The newest of a stream in numbers, for metrics; costs no more where the ring is long."""
        c, slot = task.table.arrays, self._slot(task, stream_id)
        pipeline = task.pipeline(task.group(slot))
        error, coverage = pipeline.recent_score.summary(c, slot)
        forecast: dict[tuple[int, float], float] = {}
        weights: dict[str, float] = {}
        if c["seen"][slot]:
            rows = zip(pipeline.leads, pipeline.published(c, slot).tolist(), strict=True)
            forecast = {
                (lead, level): value
                for lead, row in rows
                for level, value in zip(pipeline.quantile_levels, row, strict=True)
            }
            weights = dict(zip(pipeline.experts, pipeline.shares(c, slot).mean(axis=0).tolist(), strict=True))
        return StreamSample(
            stream_id=stream_id,
            time=float(c["clock"][slot]),
            value=float(c["value"][slot]) if c["seen"][slot] else np.nan,
            step_seconds=float(c["step"][slot]),
            forecast=forecast,
            weights=weights,
            error_vs_naive=error,
            coverage=coverage,
            is_anomalous=pipeline.detector.open(c, slot) is not None,
        )

    def _describe(self, task: PartitionTask, stream_id: str, recent: int) -> dict[str, Any]:
        c, slot = task.table.arrays, self._slot(task, stream_id)
        pipeline = task.pipeline(task.group(slot))
        values, elapsed = pipeline.encoder.recent(c, slot, recent)
        clock, step = float(c["clock"][slot]), float(c["step"][slot])
        ages = (np.cumsum(elapsed[::-1]) - elapsed[::-1])[::-1] * step
        error, coverage = pipeline.recent_score.summary(c, slot)
        seen = bool(c["seen"][slot])
        network = task.network(slot)
        adopted = network is not None and int(c["model"][slot]) == network.model
        decimals = int(significant_decimals(c["scale"][slot]))  # the ring is in single precision
        return {
            "stream_id": stream_id,
            "status": STATUSES[int(c["status"][slot])].value,
            "seq": int(c["readings"][slot]),
            "time": format_time(clock),
            "value": float(c["value"][slot]) if seen else None,
            "step_seconds": step,
            "error_vs_naive": error,
            "coverage": coverage,
            "model": network.version if adopted and network else None,
            "former_model": network.former.version if adopted and network and network.former else None,
            "forecast": {
                "origin": format_time(clock),
                "leads": list(pipeline.leads),
                "quantile_levels": list(pipeline.quantile_levels),
                "quantiles": pipeline.published(c, slot).tolist() if seen else None,
            },
            "recent": {
                # Steps that were short once are counted in the present step: never before the first time there is.
                "times": [format_time(max(round(clock - age, 6), 0.0)) for age in ages.tolist()],
                "values": [None if np.isnan(value) else round(value, decimals) for value in values.tolist()],
            },
        }

    def _anomaly(self, task: PartitionTask, slot: int) -> dict[str, Any] | None:
        """The anomaly the stream is in, ``None`` when it is in none."""
        found = task.pipeline(task.group(slot)).detector.open(task.table.arrays, slot)
        if found is None:
            return None
        return {
            "cause": found.cause.name.lower(),
            "direction": found.direction.value,
            "severity": severity(found.score),
            "score": round(found.score, 3),
            "since": format_time(found.since),
        }

    def _slot(self, task: PartitionTask, stream_id: str) -> int:
        slot = task.table.find(stream_id)
        assert slot is not None, "the caller found the stream in this task"
        return slot
