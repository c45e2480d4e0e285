"""What reading and writing bytes costs: JSON and Avro, processor time and size, without and with compression.

usage: python benchmarks/bench_codec.py [--repeats 7] [--wave 1024]

Readings go through the decoder of the settings one by one, as in the daemon; forecasts of the default horizon and
levels are written a wave at a time, and one at a time by the library, for comparison. Sizes are those of values, and
what a value takes of a batch of 1,000 in lz4 and zstd. The least time of the repeats counts, since a busy machine only
ever adds. Writes benchmarks/results/codec.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import zstandard
from kafka_bench import RESULTS, START, about, write

from forecaster.codecs.avro import AvroSchema
from forecaster.codecs.avro_codec import reading_schema
from forecaster.codecs.forecast_avro import decode_forecast_avro, encode_forecast_avro, encode_forecasts_avro
from forecaster.codecs.forecast_json import decode_forecast, encode_forecast
from forecaster.codecs.forecast_wave import ForecastWave, encode_forecasts
from forecaster.connections import build_codec
from forecaster.records import RawRecord
from forecaster.settings import Settings

EXPERTS = ("naive", "seasonal", "level", "linear", "recurrent")
_BATCH = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--wave", type=int, default=1_024)
    parser.add_argument("--out", type=Path, default=RESULTS / "codec.json")
    args = parser.parse_args()
    settings = Settings.model_validate({})
    codec = build_codec(settings)
    wave = make_wave(settings, args.wave)
    alone = [decode_forecast(value) for value in encode_forecasts(wave)]
    readings = {"json": json_readings(), "avro": avro_readings()}
    forecasts = {"json": encode_forecasts(wave), "avro": encode_forecasts_avro(wave)}
    assert [decode_forecast_avro(value) for value in forecasts["avro"]] == alone, "both forms say the same"

    def decode(records: Sequence[RawRecord]) -> Callable[[], object]:
        return lambda: [codec.decode(raw) for raw in records]

    contenders: dict[str, tuple[int, Callable[[], object]]] = {
        "reading, json, decoded": (_BATCH, decode(readings["json"])),
        "reading, avro, decoded": (_BATCH, decode(readings["avro"])),
        "forecast, json, encoded by the wave": (args.wave, lambda: encode_forecasts(wave)),
        "forecast, avro, encoded by the wave": (args.wave, lambda: encode_forecasts_avro(wave)),
        "forecast, json, encoded alone": (args.wave, lambda: [encode_forecast(one) for one in alone]),
        "forecast, avro, encoded alone": (args.wave, lambda: [encode_forecast_avro(one) for one in alone]),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(args.repeats):
        for name, (count, work) in contenders.items():
            began = time.process_time()
            work()
            times[name].append(1e6 * (time.process_time() - began) / count)

    result: dict[str, Any] = about(["benchmarks/bench_codec.py", *sys.argv[1:]])
    result["cpu_us_per_record"] = {name: round(min(found), 2) for name, found in times.items()}
    result["bytes_per_record"] = {
        "reading": {form: sizes([raw.value or b"" for raw in records]) for form, records in readings.items()},
        "forecast": {form: sizes(values[:_BATCH]) for form, values in forecasts.items()},
    }
    write(args.out, result)
    for name, us in result["cpu_us_per_record"].items():
        print(f"{name}: {us} µs")
    print(json.dumps(result["bytes_per_record"]))


def make_wave(settings: Settings, rows: int) -> ForecastWave:
    """Forecasts of streams of different sizes, rounded as the engine rounds them, all experts at work."""
    rng = np.random.default_rng(1)
    horizon, levels = settings.forecast.horizon, settings.forecast.quantiles
    middle = rng.normal(20.0, 5.0, (rows, 1)) + 0.3 * rng.standard_normal((rows, horizon)).cumsum(axis=1)
    width = 0.5 * np.sqrt(np.arange(1, horizon + 1))[:, None] * np.linspace(-1, 1, len(levels))
    shares = rng.dirichlet(np.ones(len(EXPERTS)), rows).round(4)
    return ForecastWave(
        stream_ids=[f"site-{k % 97}/sensor-{k}" for k in range(rows)],
        times=START + np.arange(rows, dtype=np.float64),
        values=middle[:, 0].round(3),
        step_seconds=np.full(rows, 60.0),
        quantile_levels=levels,
        quantiles=(middle[:, :, None] + width).round(3),
        statuses=np.zeros(rows, np.int64),
        status_names=("ok",),
        model="gru-20260101T000000-0a1b2c",
        experts=EXPERTS,
        shares=shares,
        network="recurrent",
        topic="readings",
        partition=3,
        offsets=np.arange(1_000_000, 1_000_000 + rows),
        fields=[""] * rows,
        sequences=np.arange(500, 500 + rows),
        coverages=rng.uniform(0.7, 0.9, rows).round(4),
    )


def json_readings() -> list[RawRecord]:
    """As producers write them."""
    return [
        record(k, b'{"stream_id":"%b","timestamp":%d,"value":%.3f}' % (identity(k), START + k, 20 + k % 977 / 100))
        for k in range(_BATCH)
    ]


def avro_readings() -> list[RawRecord]:
    """The same in Avro."""
    schema = AvroSchema(reading_schema() or {})
    return [
        record(
            k,
            schema.write(
                {
                    "stream_id": identity(k).decode(),
                    "timestamp": round(1e6 * (START + k)),
                    "value": round(20 + k % 977 / 100, 3),
                }
            ),
        )
        for k in range(_BATCH)
    ]


def record(number: int, value: bytes) -> RawRecord:
    """A record of one of a hundred streams."""
    return RawRecord("readings", 0, number, START + number, identity(number), value)


def identity(number: int) -> bytes:
    """A stream's name."""
    return b"site-%d/sensor-%d" % (number % 97, number % 100)


def sizes(values: Sequence[bytes]) -> dict[str, float]:
    """Bytes a value takes plain, and in a compressed batch."""
    whole = b"".join(values)
    found = {
        "plain": len(whole),
        "lz4": len(lz4.frame.compress(whole)),
        "zstd": len(zstandard.ZstdCompressor().compress(whole)),
    }
    return {name: round(size / len(values), 1) for name, size in found.items()}


if __name__ == "__main__":
    main()
