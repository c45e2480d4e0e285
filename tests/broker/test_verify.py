"""`forecaster verify` on a real broker: committed answers only, every partition, exit codes and words."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
from factories import make_raw, make_task, process
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata
from kafka_fixtures import MakeTopic

from forecaster.cli import main as command_line
from forecaster.errors import TransportError, TransportTimeout
from forecaster.records import OutRecord, RawRecord
from forecaster.transports.kafka_audit import Extent, TopicAuditor
from forecaster.transports.kafka_client import KafkaConnection

PARTITIONS = 2


class Stage:
    """Readings in two partitions, and answers that a test puts into their topics as it likes."""

    def __init__(self, broker: str, make_topic: MakeTopic, group_id: str) -> None:
        self.broker, self.group_id = broker, group_id
        self.readings, self.forecasts, self.dead_letters = (
            make_topic(name, partitions=PARTITIONS) for name in ("readings", "forecasts", "dlq")
        )
        self._plain = KafkaProducer(bootstrap_servers=broker, acks="all")
        self._transactional: list[KafkaProducer] = []

    def read(self, count: int) -> list[OutRecord]:
        """Write readings, some of them broken, to each partition; the answers they call for."""
        answers: list[OutRecord] = []
        for partition in range(PARTITIONS):
            tp = TopicPartition(self.readings, partition)
            raws = []
            for number in range(count):
                made = make_raw(number, stream=f"p{partition}", value="broken" if number % 5 == 4 else float(number))
                sent = self._plain.send(self.readings, key=made.key, value=made.value, partition=partition)
                raws.append(RawRecord(self.readings, partition, sent.get(10).offset, -1.0, made.key, made.value))
            answers += process(make_task(), raws).records
            self.commit(tp, raws[-1].offset + 1)
        return answers

    def commit(self, tp: TopicPartition, offset: int) -> None:
        consumer = KafkaConsumer(bootstrap_servers=self.broker, group_id=self.group_id, enable_auto_commit=False)
        consumer.assign([tp])
        consumer.commit({tp: OffsetAndMetadata(offset, "", -1)})
        consumer.close(autocommit=False)

    def write(self, answers: Sequence[OutRecord], producer: KafkaProducer | None = None) -> None:
        producer = producer or self._plain
        names = {"forecasts": self.forecasts, "readings.dlq": self.dead_letters}
        for record in answers:
            producer.send(
                names[record.topic],
                key=record.key,
                value=record.value,
                partition=record.partition,
                headers=list(record.headers),
            )
        producer.flush()

    def transaction(self) -> KafkaProducer:
        """A producer with a transaction begun."""
        producer = KafkaProducer(
            bootstrap_servers=self.broker, transactional_id=f"{self.group_id}-{len(self._transactional)}"
        )
        self._transactional.append(producer)
        producer.init_transactions()
        producer.begin_transaction()
        return producer

    def verify(self, *flags: str) -> int:
        topics = ["--readings", self.readings, "--forecasts", self.forecasts, "--dead-letters", self.dead_letters]
        where = ["--bootstrap-servers", self.broker, "--group", self.group_id]
        return command_line.main(["verify", *topics, *where, *flags])

    def close(self) -> None:
        for producer in (self._plain, *self._transactional):
            producer.close(timeout=5)


@pytest.fixture
def stage(broker: str, make_topic: MakeTopic, group_id: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("COLUMNS", "200")
    made = Stage(broker, make_topic, group_id)
    yield made
    made.close()


def test_one_answer_for_each_reading_is_clean(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.write(stage.read(20))

    assert stage.verify("--complete") == 0
    assert "Every reading has its answer, once and in order." in capsys.readouterr().out


def test_answers_of_an_aborted_transaction_do_not_count(stage: Stage) -> None:
    answers = stage.read(20)
    lost = stage.transaction()
    stage.write(answers, lost)
    lost.abort_transaction()

    unanswered = stage.verify()
    kept = stage.transaction()
    stage.write(answers, kept)
    kept.commit_transaction()

    assert (unanswered, stage.verify()) == (1, 0)


def test_lost_and_doubled_answers_are_named_with_their_place(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    answers = stage.read(20)
    letter = next(at for at, record in enumerate(answers) if record.topic == "readings.dlq" and record.partition == 1)
    stage.write([*answers[:letter], *answers[letter + 1 :], answers[0]])

    code = stage.verify()

    words = capsys.readouterr().out.split()
    assert code == 1
    assert words[words.index("missing") + 1 :][:2] == ["1", "4"]
    assert words[words.index("duplicated") + 1 :][:2] == ["0", "0"]


def test_readings_the_group_has_not_committed_are_waiting_unless_all_must_be_answered(stage: Stage) -> None:
    stage.write(stage.read(20)[:-3])
    stage.commit(TopicPartition(stage.readings, 1), 15)

    assert (stage.verify(), stage.verify("--complete")) == (0, 1)


def test_since_leaves_earlier_readings_and_their_answers_alone(stage: Stage) -> None:
    stage.read(20)  # nobody ever answers these
    time.sleep(0.05)
    since = datetime.fromtimestamp(time.time(), UTC).isoformat()
    time.sleep(0.05)
    stage.write(stage.read(20))

    assert (stage.verify(), stage.verify("--since", since)) == (1, 0)


def test_a_transaction_left_open_is_waited_for_and_then_named(stage: Stage, broker: str) -> None:
    answers = stage.read(20)
    stage.write(answers, stage.transaction())
    impatient = KafkaConnection(bootstrap_servers=broker, request_timeout_seconds=2.0)

    with TopicAuditor(impatient) as auditor:
        extent = auditor.extents(stage.forecasts)[0]

        assert extent == Extent(0, sum(a.topic == "forecasts" and a.partition == 0 for a in answers))
        with pytest.raises(TransportTimeout, match="stands still at offset 0") as caught:
            list(auditor.read(stage.forecasts, 0, extent))
    assert "transaction" in caught.value.hint


def test_a_topic_that_is_not_there_is_an_error_with_a_remedy(stage: Stage, broker: str) -> None:
    with (
        TopicAuditor(KafkaConnection(bootstrap_servers=broker, request_timeout_seconds=5.0)) as auditor,
        pytest.raises(TransportError, match=f"{stage.readings}-not does not exist") as caught,
    ):
        auditor.extents(f"{stage.readings}-not")
    assert caught.value.hint
