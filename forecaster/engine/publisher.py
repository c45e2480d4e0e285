"""From answers to outgoing records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from forecaster.anomaly.detector import Cause, direction
from forecaster.codecs.anomaly_json import Anomaly, encode_anomaly, severity
from forecaster.codecs.forecast_json import SourcePosition
from forecaster.codecs.forecast_wave import ForecastWave, encode_forecasts
from forecaster.codecs.json_codec import encode_dead_letter
from forecaster.codecs.timestamps import format_time
from forecaster.engine.pipeline import STATUSES, Answers
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.records import DeadLetter, Observation, OutRecord, RawRecord
from forecaster.series.columns import FloatArray

_STATUS_NAMES = tuple(status.value for status in STATUSES)


class Publisher:
    """Writes forecasts, anomalies and dead letters to the partition their reading came from.

    Args:
        forecasts: topic of forecasts.
        dead_letters: topic of refused readings.
        quantile_levels: Q.
        experts: names of the experts in the order of `Answers.weights`, ``E``.
        anomalies: topic of anomalies.
        encode: makes the bytes of a wave's forecasts.
    """

    def __init__(
        self,
        *,
        forecasts: str,
        dead_letters: str,
        quantile_levels: tuple[float, ...],
        experts: tuple[str, ...],
        anomalies: str = "anomalies",
        encode: Callable[[ForecastWave], list[bytes]] = encode_forecasts,
    ) -> None:
        self._forecasts = forecasts
        self._dead_letters = dead_letters
        self._levels = quantile_levels
        self._experts = experts
        self._anomalies = anomalies
        self._encode = encode

    def forecasts(
        self, answers: Answers, readings: Sequence[tuple[RawRecord, Observation]], model: str | None
    ) -> list[OutRecord]:
        """One record per answer.

        Args:
            answers: ``B`` rows.
            readings: what each row answers, ``B``, all of one partition.
            model: version of the network that served the wave, if any.
        """
        if not readings:
            return []
        raw = readings[0][0]
        stream_ids = [observation.stream_id for _, observation in readings]
        shares: FloatArray = answers.weights.astype(np.float64).round(4)
        wave = ForecastWave(
            stream_ids=stream_ids,
            times=answers.times,
            values=answers.values,
            step_seconds=answers.step_seconds,
            quantile_levels=self._levels,
            quantiles=answers.quantiles,
            statuses=answers.statuses,
            status_names=_STATUS_NAMES,
            model=model,
            experts=self._experts,
            shares=shares,
            network=RecurrentExpert.name,
            topic=raw.topic,
            partition=raw.partition,
            offsets=np.array([raw.offset for raw, _ in readings], np.int64),
            fields=[observation.field for _, observation in readings],
            sequences=answers.readings,
            coverages=answers.coverages.round(4),
            withheld=answers.withheld,
        )
        topic, partition = self._forecasts, raw.partition
        return [
            OutRecord(topic, partition, stream_id.encode(), value)
            for stream_id, value in zip(stream_ids, self._encode(wave), strict=True)
        ]

    def anomalies(
        self, answers: Answers, readings: Sequence[tuple[RawRecord, Observation]], model: str | None
    ) -> Iterator[tuple[int, OutRecord]]:
        """One record for each reading that raised or cleared an anomaly, with its row; arguments as in `forecasts`."""
        found = answers.verdicts
        if found is None:
            return
        for row in np.flatnonzero(found.raised | found.cleared).tolist():
            raw, observation = readings[row]
            score, cause = float(found.score[row]), int(found.cause[row])
            anomaly = Anomaly(
                stream_id=observation.stream_id,
                timestamp=format_time(observation.time),
                state="raised" if found.raised[row] else "cleared",
                direction=direction(cause, is_above=bool(found.above[row])),
                cause=Cause(cause).name.lower(),
                severity=severity(score),
                score=round(score, 3),
                since=format_time(float(found.since[row])),
                value=_known(answers.values[row]),
                expected=_known(found.expected[row]),
                lower=_known(found.lower[row]),
                upper=_known(found.upper[row]),
                model_version=model,
                source=SourcePosition(raw.topic, raw.partition, raw.offset, observation.field),
                seq=int(answers.readings[row]),
            )
            key = observation.stream_id.encode()
            yield row, OutRecord(self._anomalies, raw.partition, key, encode_anomaly(anomaly))

    def dead_letter(self, letter: DeadLetter) -> OutRecord:
        """The refused reading with its reason."""
        return encode_dead_letter(letter, topic=self._dead_letters)


def _known(number: np.float64) -> float | None:
    """``None`` for ``nan``; else in the digits that are known: what was published is kept in single precision."""
    return None if np.isnan(number) else float(f"{number:.7g}")
