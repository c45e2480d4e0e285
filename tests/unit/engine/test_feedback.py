"""Where tasks hear labels: in the order of time from a recording, as they come from a topic."""

import json
import threading

import pytest
from factories import START
from state_logs import StateLogs, StateTail

from forecaster.engine.feedback import FollowedFeedback, RecordedFeedback, read_all
from forecaster.errors import TransportError, TransportTimeout
from forecaster.records import Feedback, RawRecord


def label(stream, seconds, *, is_true=False):
    return Feedback(stream, (is_true, START + seconds), None)


def raw(partition, offset, stream="a", **said):
    body = {"stream_id": stream, **(said or {"label": False, "timestamp": START})}
    return RawRecord("feedback", partition, offset, -1.0, None, json.dumps(body).encode())


def make_logs(*records):
    logs = StateLogs()
    logs.logs = {0: [], 1: []}
    for record in records:
        logs.logs[record.partition].append(record)
    return logs


def told(records):
    return [(record.partition, record.offset, record.feedback.stream_id) for record in records]


def test_recorded_labels_are_heard_once_readings_have_reached_their_time():
    feedback = RecordedFeedback([label("late", 20), Feedback("b", None, (START, START)), label("early", 10)])

    assert told(feedback.take({}, START + 9)) == []
    assert told(feedback.take({}, START + 10)) == [(0, 0, "early")]
    assert told(feedback.take({0: 1}, START + 19)) == []
    assert told(feedback.take({0: 1}, START + 1e9)) == [(0, 1, "late")]
    assert told(feedback.take({0: 2}, START + 1e9)) == []


def test_what_comes_in_a_topic_is_told_from_the_offsets_asked_for_and_bad_records_are_passed_over(caplog):
    logs = make_logs(raw(0, 3), raw(1, 0, "b"), RawRecord("feedback", 1, 1, -1.0, None, b"{}"))
    feedback, tail = FollowedFeedback(lambda: pytest.fail("opened by no turn")), StateTail(logs)
    feedback.turn(tail)
    logs.logs[1].append(raw(1, 5, "c"))
    feedback.turn(tail)
    feedback._thread = threading.current_thread()  # none is to be started

    assert told(feedback.take({}, 0.0)) == [(0, 3, "a"), (1, 0, "b"), (1, 5, "c")]
    assert told(feedback.take({0: 4, 1: 1}, 0.0)) == [(1, 5, "c")]
    assert "record is no feedback" in caplog.text


def test_a_topic_that_cannot_be_read_is_begun_again_and_each_record_is_there_once():
    logs = make_logs(raw(0, 0), raw(1, 0, "b"))
    logs.refuses_to_open = 1
    seen, broke = threading.Event(), threading.Event()

    def open_tail():
        tail = logs.tail()

        def on_poll():
            if broke.is_set():
                seen.set()
            else:
                broke.set()
                tail.error = TransportError("The broker has gone.")

        tail.on_poll = on_poll
        return tail

    feedback = FollowedFeedback(open_tail, retry_seconds=0.0)
    feedback.take({}, 0.0)

    assert seen.wait(10)
    feedback.close()
    assert len(logs.opened) == 2
    assert told(feedback.take({}, 0.0)) == [(0, 0, "a"), (1, 0, "b")]


def test_a_training_reads_all_there_is_and_gives_up_where_the_end_does_not_come():
    period = {"from": START, "to": START + 5}
    logs = make_logs(raw(0, 0, **period), raw(1, 0, "b", **period), raw(1, 1, "c", **period))

    found = read_all(StateTail(logs, most=1), give_up_seconds=60.0)

    assert sorted(said.stream_id for said in found) == ["a", "b", "c"]
    endless = StateTail(logs)
    endless.on_poll = lambda: logs.logs[0].append(raw(0, len(logs.logs[0]), **period))
    ticks = iter(range(1_000))
    with pytest.raises(TransportTimeout, match="within 5 s"):
        read_all(endless, give_up_seconds=5.0, monotonic=lambda: float(next(ticks)))
