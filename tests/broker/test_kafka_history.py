"""The training window read from a real topic."""

from __future__ import annotations

import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_anomaly
from kafka import KafkaProducer
from kafka.errors import TopicAlreadyExistsError
from kafka_fixtures import MakeTopic

from forecaster.codecs.anomaly_json import AnomalyMarks
from forecaster.codecs.json_codec import JsonCodec
from forecaster.errors import TransportError, TransportTimeout
from forecaster.stores.history_cache import HistoryCache
from forecaster.training.blocks import HistoryCollector
from forecaster.training.flags import flagged_periods
from forecaster.training.history import History
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_history import HistoryRead, read_history

START = 1_767_225_600


def reading(second: int) -> bytes:
    return json.dumps({"timestamp": START + second, "value": float(second)}).encode()


def send(connection: KafkaConnection, topic: str, seconds: range, streams: int = 3) -> None:
    with contextlib.closing(KafkaProducer(bootstrap_servers=connection.bootstrap_servers)) as producer:
        for second in seconds:
            for k in range(streams):
                producer.send(topic, reading(second), f"s{k}".encode(), timestamp_ms=1000 * (START + second))
        producer.flush()


class CountingCodec(JsonCodec):
    """Counts the records that are decoded."""

    decoded = 0

    def decode(self, raw: Any) -> Any:
        self.decoded += 1
        return super().decode(raw)


def read_all(connection: KafkaConnection, topic: str, **overrides: Any) -> HistoryRead:
    arguments: dict[str, Any] = {
        "since": 0.0,
        "max_readings": 10**9,
        "decoder": JsonCodec(),
        "collector": HistoryCollector(),
        "block_records": 64,
        **overrides,
    }
    return read_history(connection, topic=topic, **arguments)


def read(connection: KafkaConnection, topic: str, **overrides: Any) -> History:
    return read_all(connection, topic, **overrides).history


def test_whole_topic_is_read_over_all_partitions_and_progress_ends_at_its_end(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic, told = make_topic(partitions=3), []
    send(connection, topic, range(200))

    history = read(connection, topic, on_progress=lambda done, total: told.append((done, total)))

    assert {name: series.values.tolist() for name, series in history.streams.items()} == {
        f"s{k}": [float(second) for second in range(200)] for k in range(3)
    }
    assert told[-1] == (600, 600)


def test_window_begins_at_a_record_time(connection: KafkaConnection, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=2)
    send(connection, topic, range(100))

    history = read(connection, topic, since=START + 60.0)

    assert {tuple(series.values[[0, -1]]) for series in history.streams.values()} == {(60.0, 99.0)}
    assert read(connection, topic, since=START + 1e6).streams == {}


def test_of_too_many_readings_the_newest_are_taken(connection: KafkaConnection, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=2)
    send(connection, topic, range(400))

    history = read(connection, topic, max_readings=300)

    assert 250 <= history.readings <= 300
    assert all(series.values[-1] == 399.0 for series in history.streams.values())


def test_aborted_readings_are_not_seen_and_a_transaction_marker_at_the_end_is_no_obstacle(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = make_topic()
    with contextlib.closing(
        KafkaProducer(bootstrap_servers=connection.bootstrap_servers, transactional_id=f"tx-{topic}")
    ) as producer:
        producer.init_transactions()
        for second, end in ((1, producer.abort_transaction), (2, producer.commit_transaction)):
            producer.begin_transaction()
            producer.send(topic, reading(second), b"a")
            end()

    assert read(connection, topic).streams["a"].values.tolist() == [2.0]


def test_topic_that_does_not_exist_is_named(connection: KafkaConnection) -> None:
    with pytest.raises(TransportError, match="nowhere-to-be-found does not exist"):
        read(connection, "nowhere-to-be-found")


def test_block_size_changes_nothing(connection: KafkaConnection, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=2)
    send(connection, topic, range(300), streams=5)

    found = [read_all(connection, topic, since=START + 33.0, block_records=size) for size in (7 * 30, 128, 65_536)]

    assert found[0].offsets == found[1].offsets == found[2].offsets
    columns = [{name: s.values.tolist() for name, s in each.history.streams.items()} for each in found]
    assert columns[0] == columns[1] == columns[2]
    assert {tuple(values) for values in columns[0].values()} == {tuple(float(second) for second in range(33, 300))}


def test_streams_beyond_the_memory_are_left_out_and_said(connection: KafkaConnection, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=3)
    send(connection, topic, range(40), streams=30)

    def chosen(seed: int) -> HistoryRead:
        return read_all(connection, topic, collector=HistoryCollector(max_bytes=8 * (512 + 40 * 16), seed=seed))

    found = chosen(5)

    assert (found.streams_seen, len(found.history.streams), found.cut_by) == (30, 8, "memory")
    assert {len(series.times) for series in found.history.streams.values()} == {40}
    assert list(chosen(5).history.streams) == list(found.history.streams)
    assert list(chosen(6).history.streams) != list(found.history.streams)


def test_when_the_time_is_over_the_oldest_part_is_missing(connection: KafkaConnection, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=2)
    send(connection, topic, range(600))
    told: list[int] = []

    def monotonic() -> float:
        return 10.0 * len(told)  # ten seconds a round of blocks

    found = read_all(
        connection, topic, max_seconds=35.0, monotonic=monotonic, on_progress=lambda done, total: told.append(done)
    )

    assert found.cut_by == "time"
    assert len(told) == 4
    for series in found.history.streams.values():
        assert series.values[-1] == 599.0
        assert 0.0 < series.values[0] < 599.0
        assert np.diff(series.values).tolist() == [1.0] * (len(series.values) - 1)
    first = {partition: span[0] for partition, span in found.offsets.items()}
    assert all(offset > 0 for offset in first.values())


def test_not_even_the_newest_block_in_time_is_a_clear_failure(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = make_topic()
    send(connection, topic, range(30))
    clock = iter(range(0, 10**6, 100))

    with pytest.raises(TransportTimeout, match="Not even the newest 64 records"):
        read_all(connection, topic, max_seconds=50.0, monotonic=lambda: float(next(clock)))


def test_cached_blocks_are_not_decoded_again_and_tell_the_same(
    connection: KafkaConnection, make_topic: MakeTopic, tmp_path: Path
) -> None:
    topic = make_topic(partitions=2)
    send(connection, topic, range(300))

    def with_cache(since: float = 0.0) -> tuple[HistoryRead, int]:
        codec = CountingCodec()
        found = read_all(
            connection,
            topic,
            since=since,
            decoder=codec,
            open_cache=lambda topic_id: HistoryCache(tmp_path, identity={"id": topic_id}, max_bytes=10**9),
        )
        return found, codec.decoded

    first, decoded = with_cache()
    again, decoded_again = with_cache()
    assert decoded == 900
    assert 0 < decoded_again < 2 * 64
    assert_alike(first.history, again.history)

    send(connection, topic, range(300, 400))
    _, decoded_new = with_cache()
    assert 300 <= decoded_new < 300 + 2 * 64
    later, decoded_later = with_cache(since=START + 150.0)
    assert decoded_later < 2 * 64 + 2 * 64
    assert_alike(later.history, read(connection, topic, since=START + 150.0))


def test_spoilt_cache_is_read_again_and_one_of_a_topic_made_anew_is_not_seen(
    connection: KafkaConnection, make_topic: MakeTopic, admin: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topic, ids = make_topic(), []
    send(connection, topic, range(100))

    def with_cache() -> History:
        def open_cache(topic_id: str) -> HistoryCache:
            ids.append(topic_id)
            return HistoryCache(tmp_path, identity={"id": topic_id}, max_bytes=10**9)

        return read_all(connection, topic, open_cache=open_cache).history

    first = with_cache()
    for path in tmp_path.glob("*/*.block"):
        path.write_bytes(path.read_bytes()[:-1])
    assert_alike(with_cache(), first)
    assert any("damaged" in getattr(record, "reason", "") for record in caplog.records)

    admin.delete_topics([topic])
    deadline = time.monotonic() + 20.0
    while True:
        try:
            admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
            break
        except TopicAlreadyExistsError:  # a broker deletes when it gets to it
            assert time.monotonic() < deadline
            time.sleep(0.1)
    send(connection, topic, range(1_000, 1_100))

    assert {series.values[0] for series in with_cache().streams.values()} == {1_000.0}
    assert ids[0] == ids[1] != ids[2]


def assert_alike(one: History, other: History) -> None:
    assert list(one.streams) == list(other.streams)
    for name, series in one.streams.items():
        np.testing.assert_array_equal(series.times, other.streams[name].times)
        np.testing.assert_array_equal(series.values, other.streams[name].values)


def test_anomalies_that_workers_have_published_become_periods(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = make_topic("anomalies", partitions=2)
    with contextlib.closing(KafkaProducer(bootstrap_servers=connection.bootstrap_servers)) as producer:
        for stream, state, second in (("a", "raised", 5), ("b", "raised", 6), ("a", "cleared", 9)):
            since = {"a": 5, "b": 6}[stream]
            producer.send(topic, make_anomaly(stream, state, second, since), stream.encode())
        producer.flush()

    found = flagged_periods(read(connection, topic, decoder=AnomalyMarks()))

    assert found == {"a": [(START + 5.0, START + 9.0)], "b": [(START + 6.0, math.inf)]}
