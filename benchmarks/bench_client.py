"""kafka-python record by record beside the same by whole batches, in memory: CPU µs a record, no broker.

usage: python benchmarks/bench_client.py [--runs 7]

Read: a fetched batch of 81-byte readings in lz4 to `RawRecord`. Written: answers of 640 bytes into batches of 256 KiB,
closed and compressed as they go out; the futures' time is in it. The two take turns; the least of the runs counts,
since a busy machine only ever adds. Writes benchmarks/results/client.json.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.record.memory_records import MemoryRecords
from kafka_bench import RESULTS, about, write

from forecaster.records import OutRecord, RawRecord
from forecaster.transports.kafka_batched import BatchedRecords, append
from forecaster.transports.kafka_client import raw_record
from forecaster.transports.kafka_self_test import batch

RECORDS = 3_000
LZ4 = 3
PLACE = TopicPartition("answers", 0)


def reading(number: int) -> bytes:
    """About 81 bytes, as in `bench_e2e`."""
    body = {"stream_id": f"sensor-{number % 1000}", "timestamp": 1_767_225_600.0 + number, "value": number % 977 / 100}
    return json.dumps(body).encode()


def answers() -> list[OutRecord]:
    """Of 640 bytes that compress as JSON of forecasts does: about half."""
    rng = random.Random(1)
    texts = ["".join(f"{rng.gauss(20, 5):.3f}," for _ in range(91))[:640].encode() for _ in range(RECORDS)]
    return [OutRecord(PLACE.topic, 0, b"sensor-%d" % number, text) for number, text in enumerate(texts)]


def least(contenders: dict[str, Callable[[], int]], runs: int) -> dict[str, float]:
    """CPU µs a record of each, in turns."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, work in contenders.items():
            began = time.process_time()
            count = work()
            found[name].append(1e6 * (time.process_time() - began) / count)
    return {name: round(min(times), 2) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()

    fetched = batch(LZ4, [(n, n % 7, b"sensor-%d" % (n % 1000), reading(n), []) for n in range(RECORDS)])
    out = answers()

    def read(kind: Any) -> Callable[[], int]:
        def work() -> int:
            part, count = kind(0, PLACE, MemoryRecords(fetched)), 0
            while part and (taken := part.take(1_000)):
                count += len([found if isinstance(found, RawRecord) else raw_record(found) for found in taken])
            return count

        return work

    def close(accumulator: RecordAccumulator) -> int:
        count = 0
        for waiting in accumulator._batches[PLACE]:
            waiting.records.close()
            waiting.complete(0, -1)
            count += waiting.record_count
        return count

    def accumulator() -> RecordAccumulator:
        return RecordAccumulator(batch_size=262_144, compression_attrs=LZ4)

    def write_one_by_one() -> int:
        waiting = accumulator()
        for record in out:
            waiting.append(PLACE, None, record.key, record.value, list(record.headers))
        return close(waiting)

    def write_batches() -> int:
        waiting = accumulator()
        list(append(waiting, PLACE, out))
        return close(waiting)

    result: dict[str, Any] = about(["benchmarks/bench_client.py", *sys.argv[1:]])
    result["cpu_us_per_record"] = {
        "read": least(
            {"record by record": read(Fetcher.PartitionRecords), "by batches": read(BatchedRecords)}, args.runs
        ),
        "written": least({"record by record": write_one_by_one, "by batches": write_batches}, args.runs),
    }
    write(RESULTS / "client.json", result)
    for what, times in result["cpu_us_per_record"].items():
        print(what, ", ".join(f"{name} {us:.2f} µs" for name, us in times.items()))


if __name__ == "__main__":
    main()
