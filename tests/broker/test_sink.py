"""The Kafka sink on a real broker: nothing claims success that was not acknowledged."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError
from kafka.future import Future
from kafka_broker import Broker
from kafka_fixtures import MakeTopic, require_broker

from forecaster.errors import DeliveryFailed, TransportError, TransportTimeout
from forecaster.records import OutRecord
from forecaster.transports.kafka_client import KafkaConnection
from forecaster.transports.kafka_sink import KafkaSink

ReadBack = Callable[..., list[bytes]]


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """A broker this test may stop, with a topic ``forecasts`` of one partition."""
    require_broker()
    with Broker() as broker:
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.create_topics({"forecasts": {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
        admin.close()
        yield broker


def connect(broker: Broker) -> KafkaConnection:
    return KafkaConnection(bootstrap_servers=broker.bootstrap, request_timeout_seconds=3.0)


def forecast(value: bytes, *, topic: str = "forecasts", partition: int | None = 0) -> OutRecord:
    return OutRecord(topic, partition, b"key", value)


BOTH_PATHS = pytest.mark.parametrize("batched", [False, True], ids=["record by record", "by batches"])


def hand_over(sink: KafkaSink, *records: OutRecord) -> None:
    """All at once; a sink without batches takes them one by one."""
    sink.send_all(deque(records))


def values_in(bootstrap: str, topic: str = "forecasts", partition: int = 0) -> list[bytes]:
    """All values of a partition, read to its end."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    tp = TopicPartition(topic, partition)
    consumer.assign([tp])
    end = consumer.end_offsets([tp])[tp]
    found: list[bytes] = []
    while consumer.position(tp) < end:
        found += [record.value for record in consumer.poll(1000).get(tp, [])]
    consumer.close()
    return found


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_records_arrive_whole_and_in_order_in_every_compression(
    compression: str, make_topic: MakeTopic, connection: KafkaConnection
) -> None:
    topic = make_topic(partitions=2)
    sink = KafkaSink(connection, compression=compression)

    for number in range(500):
        sink.send(forecast(b"%d" % number * 20, topic=topic, partition=number % 2))
    sink.flush(10.0)
    sink.close()

    for partition in (0, 1):
        expected = [b"%d" % number * 20 for number in range(partition, 500, 2)]
        assert values_in(connection.bootstrap_servers, topic, partition) == expected


@BOTH_PATHS
def test_key_headers_and_time_arrive(make_topic: MakeTopic, connection: KafkaConnection, batched: bool) -> None:
    topic = make_topic()
    sink = KafkaSink(connection, batched=batched)
    headers = (("reason", b"late"), ("detail", "größer".encode()))

    hand_over(sink, OutRecord(topic, 0, b"ward-3/bed-12", b"{}", headers=headers, timestamp=1_767_225_605.25))
    sink.flush(10.0)
    sink.close()

    consumer = KafkaConsumer(bootstrap_servers=connection.bootstrap_servers, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, 0)])
    (record,) = consumer.poll(5000)[TopicPartition(topic, 0)]
    consumer.close()
    assert (record.key, record.value, record.timestamp) == (b"ward-3/bed-12", b"{}", 1_767_225_605_250)
    assert tuple(record.headers) == headers


def test_a_broker_that_is_gone_fails_every_record_and_the_first_cause_is_named(own_broker: Broker) -> None:
    sink = KafkaSink(connect(own_broker), delivery_timeout_seconds=1.0)
    sink.send(forecast(b"before"))
    sink.flush(10.0)

    own_broker.kill()
    for number in range(10):
        sink.send(forecast(b"%d" % number))
    with pytest.raises(DeliveryFailed, match=r"10 of 10 records were not delivered.*KafkaTimeoutError") as caught:
        sink.flush(10.0)
    sink.close()
    own_broker.start()

    assert caught.value.retriable
    assert caught.value.hint
    assert values_in(own_broker.bootstrap) == [b"before"]


def test_a_flush_that_runs_out_of_time_leaves_the_records_under_way(own_broker: Broker) -> None:
    sink = KafkaSink(connect(own_broker), delivery_timeout_seconds=20.0)
    sink.send(forecast(b"before"))
    sink.flush(10.0)

    own_broker.pause()
    sink.send(forecast(b"1"))
    sink.send(forecast(b"2"))
    began = time.monotonic()
    with pytest.raises(TransportTimeout, match=r"2 of 2 records were not acknowledged within 0\.3 s"):
        sink.flush(0.3)
    took = time.monotonic() - began
    own_broker.resume()
    sink.flush(15.0)
    sink.close()

    assert took < 1.0
    assert values_in(own_broker.bootstrap) == [b"before", b"1", b"2"]


@BOTH_PATHS
def test_a_broker_stopped_amid_sending_never_yields_a_flush_that_succeeds_with_a_loss(
    own_broker: Broker, batched: bool
) -> None:
    """Batches of numbered records while the broker is killed and comes back: each flush that returned is checked."""
    sink = KafkaSink(connect(own_broker), delivery_timeout_seconds=0.7, linger_seconds=0.0, batched=batched)
    acknowledged: list[bytes] = []
    failures = failed_batch = 0

    def acknowledged_after(batch: int) -> bool:
        return any(int(value.split(b"/")[0]) > batch for value in acknowledged)

    accident = threading.Thread(target=lambda: (own_broker.kill(), own_broker.start()))

    batch = 0
    deadline = time.monotonic() + 60.0
    while not (failures and acknowledged_after(failed_batch)) and time.monotonic() < deadline:
        values = [b"%d/%d" % (batch, number) for number in range(20)]
        try:
            hand_over(sink, *map(forecast, values))
            sink.flush(5.0)
            acknowledged += values
        except TransportError:
            failures += 1
            failed_batch = batch
        batch += 1
        if batch == 10:
            accident.start()
    accident.join()
    sink.close()

    assert failures
    there = values_in(own_broker.bootstrap)
    assert set(acknowledged) <= set(there)
    assert len(there) == len(set(there))
    assert acknowledged_after(failed_batch), "nothing was acknowledged after the accident"


@BOTH_PATHS
def test_send_waits_at_the_bound_until_the_records_under_way_are_given_up(own_broker: Broker, batched: bool) -> None:
    """kafka-python alone took 120,000 records in 8 s while the broker was away."""
    sink = KafkaSink(
        connect(own_broker), max_in_flight=50, delivery_timeout_seconds=1.0, linger_seconds=0.0, batched=batched
    )
    hand_over(sink, forecast(b"before"))
    sink.flush(10.0)

    own_broker.kill()
    began = time.monotonic()
    for _ in range(50):
        hand_over(sink, forecast(b"x"))
    below_the_bound = time.monotonic() - began
    hand_over(sink, forecast(b"x"))
    at_the_bound = time.monotonic() - began
    with pytest.raises(DeliveryFailed, match="of 51 records were not delivered"):
        sink.flush(0.0)
    sink.close()

    assert below_the_bound < 0.5
    assert 0.9 < at_the_bound < 4.0


@BOTH_PATHS
def test_a_refusal_found_while_sending_is_reported_by_the_flush_with_all_that_followed(
    make_topic: MakeTopic, connection: KafkaConnection, batched: bool
) -> None:
    """A caller that keeps its records until a flush returns has to hear of every one that did not get through."""
    topic = make_topic(configs={"max.message.bytes": "2000"})
    sink = KafkaSink(connection, compression="none", max_in_flight=1, linger_seconds=0.0, batched=batched)

    hand_over(sink, forecast(b"x" * 10_000, topic=topic))
    hand_over(sink, forecast(b"after", topic=topic))
    with pytest.raises(DeliveryFailed, match=r"2 of 2 records were not delivered.*MessageSizeTooLarge"):
        sink.flush(10.0)
    hand_over(sink, forecast(b"again", topic=topic))
    sink.flush(10.0)
    sink.close()

    assert values_in(connection.bootstrap_servers, topic) == [b"again"]


def test_records_the_client_never_settles_are_given_up_all_the_same(connection: KafkaConnection) -> None:
    """kafka-python's producer is stuck for ever after it has given up a batch that it had sent before."""
    sink = KafkaSink(connection, delivery_timeout_seconds=0.2)

    class Stuck:
        _sender = sink._producer._sender

        def send(self, topic: str, **record: object) -> Future:
            return Future()

        def flush(self, timeout: float) -> None:
            time.sleep(timeout)
            raise KafkaTimeoutError

        close = sink._producer.close

    sink._producer = Stuck()
    sink.send(forecast(b"1"))
    with pytest.raises(TransportTimeout):
        sink.flush(0.1)
    with pytest.raises(DeliveryFailed, match="1 of 1 records were not delivered"):
        sink.flush(10.0)
    sink.close()


def test_send_goes_on_when_there_is_room_again(make_topic: MakeTopic, connection: KafkaConnection) -> None:
    topic = make_topic()
    sink = KafkaSink(connection, max_in_flight=7)

    for number in range(200):
        sink.send(forecast(b"%d" % number, topic=topic))
    sink.flush(10.0)
    sink.close()

    assert values_in(connection.bootstrap_servers, topic) == [b"%d" % number for number in range(200)]


@BOTH_PATHS
def test_a_record_that_is_too_large_is_refused_with_the_setting_to_change(
    make_topic: MakeTopic, connection: KafkaConnection, batched: bool
) -> None:
    sink = KafkaSink(connection, batched=batched)

    with pytest.raises(TransportError, match="MessageSizeTooLarge") as caught:
        hand_over(sink, forecast(b"x" * 2_000_000, topic=make_topic()))
    sink.close()

    assert not caught.value.retriable
    assert "max.message.bytes" in caught.value.hint


@BOTH_PATHS
def test_a_batch_that_is_too_large_for_the_broker_is_split_until_it_is_not(
    make_topic: MakeTopic, connection: KafkaConnection, batched: bool
) -> None:
    """And where one record of it stays too large, the flush fails, though all its other parts were delivered."""
    topic = make_topic(configs={"max.message.bytes": "2000"})
    sink = KafkaSink(connection, compression="none", batched=batched)
    values = [b"%d" % number for number in range(3_000)]

    hand_over(sink, *(forecast(value, topic=topic) for value in values))
    sink.flush(30.0)
    there = values_in(connection.bootstrap_servers, topic)
    hand_over(sink, *(forecast(value, topic=topic) for value in (b"x" * 10_000, *values[:300])))
    with pytest.raises(DeliveryFailed, match="MessageSizeTooLarge"):
        sink.flush(30.0)
    sink.close()

    assert there == values


def test_nothing_is_taken_of_records_of_which_one_cannot_be_sent(
    make_topic: MakeTopic, connection: KafkaConnection
) -> None:
    """What was taken of them would be sent twice when the caller tries again."""
    topic = make_topic(partitions=1)
    sink = KafkaSink(connection, batched=True)
    records = deque([forecast(b"1", topic=topic), forecast(b"2", topic=topic, partition=3)])

    with pytest.raises(TransportError):
        sink.send_all(records)
    left = len(records)
    records[1] = forecast(b"2", topic=topic)
    sink.send_all(records)
    sink.flush(10.0)
    sink.close()

    assert (left, len(records)) == (2, 0)
    assert values_in(connection.bootstrap_servers, topic) == [b"1", b"2"]


def test_records_without_a_partition_go_where_their_key_leads(
    make_topic: MakeTopic, connection: KafkaConnection
) -> None:
    topic = make_topic(partitions=3)
    sink = KafkaSink(connection, batched=True)

    hand_over(sink, *(forecast(b"%d" % number, topic=topic, partition=None) for number in range(20)))
    sink.flush(10.0)
    sink.close()

    found = [values_in(connection.bootstrap_servers, topic, partition) for partition in range(3)]
    assert sorted(map(len, found)) == [0, 0, 20]


def test_what_the_broker_refuses_fails_the_flush(make_topic: MakeTopic, connection: KafkaConnection) -> None:
    """The topic takes less than the client's limit, so only the broker knows; the good record still arrives."""
    topic = make_topic(configs={"max.message.bytes": "2000"})
    sink = KafkaSink(connection, compression="none")

    sink.send(forecast(b"small", topic=topic))
    sink.flush(10.0)
    sink.send(forecast(b"x" * 10_000, topic=topic))
    with pytest.raises(DeliveryFailed, match=r"1 of 1 records were not delivered.*MessageSizeTooLarge"):
        sink.flush(10.0)
    sink.close()

    assert values_in(connection.bootstrap_servers, topic) == [b"small"]


@BOTH_PATHS
def test_a_topic_that_does_not_exist_fails_within_the_delivery_timeout(
    connection: KafkaConnection, batched: bool
) -> None:
    sink = KafkaSink(connection, delivery_timeout_seconds=1.0, batched=batched)
    began = time.monotonic()

    with pytest.raises(TransportError, match="nowhere"):
        hand_over(sink, forecast(b"1", topic="nowhere"))
    sink.close()

    assert time.monotonic() - began < 4.0


@BOTH_PATHS
def test_a_topic_that_may_not_be_looked_up_fails_the_flush_with_all_that_followed(
    connection: KafkaConnection, batched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = KafkaSink(connection, max_in_flight=1, batched=batched)

    def refuse(topic: str, max_wait_ms: float) -> None:
        raise TopicAuthorizationFailedError({topic})

    monkeypatch.setattr(sink._producer, "_wait_on_metadata", refuse)

    hand_over(sink, forecast(b"1", topic="secret"))
    hand_over(sink, forecast(b"2", topic="secret"))
    with pytest.raises(DeliveryFailed, match=r"2 of 2 records were not delivered.*TopicAuthorizationFailed"):
        sink.flush(5.0)
    sink.close()


@BOTH_PATHS
def test_a_partition_that_does_not_exist_is_refused(
    make_topic: MakeTopic, connection: KafkaConnection, batched: bool
) -> None:
    topic = make_topic(partitions=1)
    sink = KafkaSink(connection, batched=batched)

    with pytest.raises(TransportError, match="partition 3, cannot be sent") as caught:
        hand_over(sink, forecast(b"1", topic=topic, partition=3))
    sink.close()

    assert "forecaster topics check" in caught.value.hint


def test_close_comes_back_while_the_broker_does_not(own_broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    sink = KafkaSink(connect(own_broker), delivery_timeout_seconds=60.0)
    sink.send(forecast(b"before"))
    sink.flush(10.0)
    own_broker.pause()
    sink.send(forecast(b"1"))
    began = time.monotonic()

    sink.close()
    sink.close()

    assert time.monotonic() - began < 12.0
    assert "sink closed with records not delivered" in caplog.text
    own_broker.resume()
