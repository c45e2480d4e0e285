"""What engine and training ask of the outside. Each port has one contract suite that every implementation passes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from forecaster.records import Feedback, OutRecord, RawRecord
from forecaster.series.columns import FloatArray
from forecaster.series.groups import DEFAULT
from forecaster.state.copy import StateCopy

if TYPE_CHECKING:  # torch takes a second to import; who only moves bytes does without
    from forecaster.models.artifact import Manifest, ModelArtifact
    from forecaster.models.decisions import LiveScore, RegistryRecord, Settled, TrainingRequest, Trial

FRESH = "fresh"
"""Note on an offset that was committed before anything was answered: there is no state to go with it."""
KEPT = "kept"
"""Note on an offset that was committed together with state."""


class AssignmentListener(Protocol):
    """Is told which partitions of the source this member owns. Called on the polling thread, from inside ``poll``.

    Not told of a partition twice in a row; ``revoked`` may still commit, ``lost`` must not.
    """

    def assigned(self, partitions: Sequence[int]) -> None:
        """These partitions are now ours; their records follow in later polls, never in this call's."""

    def revoked(self, partitions: Sequence[int]) -> None:
        """These partitions leave us when this call returns; what was done may still be committed here."""

    def lost(self, partitions: Sequence[int]) -> None:
        """These partitions were taken away some time ago; nothing of them may be committed."""


class Source(Protocol):
    """Readings in the order of their partition.

    Positions are those of the *next* record to read: a commit of 5 says that offsets up to 4 are answered.
    """

    topic: str

    def subscribe(self, listener: AssignmentListener) -> None:
        """Begin to take part. Called once; partitions arrive through the listener during later polls."""

    def poll(self, max_records: int, timeout_seconds: float) -> list[RawRecord]:
        """Records of assigned partitions, each partition's in offset order, at most ``max_records``.

        Waits at most about ``timeout_seconds`` when there is nothing; an empty list is no end.

        Raises:
            TransportError: the source is gone or refuses; ``retriable`` says whether to poll again.
        """

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Store partition -> next offset for the group, and return when that is durable.

        Raises:
            TransportError: nothing is known to be stored; after ``Fenced`` the partitions belong to another member.
        """

    def lag(self) -> Mapping[int, int]:
        """Records known to be waiting, by assigned partition. Never blocks; may be a little old."""

    def is_exhausted(self) -> bool:
        """True when no record will ever come again (files and memory; never a broker)."""

    def close(self) -> None:
        """Leave. Calls ``revoked`` for what is still assigned. Idempotent."""


class Sink(Protocol):
    """Where answers go."""

    def send(self, record: OutRecord) -> None:
        """Hand a record over, in order per partition. May block for a while when too much is under way.

        Raises:
            TransportError: the sink cannot take it now.
        """

    def send_all(self, records: deque[OutRecord]) -> None:
        """Hand all of them over as `send` does, and take those that were handed over off the left of ``records``.

        Sinks that know no better way inherit this one.

        Raises:
            TransportError: the sink cannot take more now; what it did not take is left in ``records``.
        """
        while records:
            self.send(records[0])
            records.popleft()

    def flush(self, timeout_seconds: float) -> None:
        """Return when every record sent so far is acknowledged.

        Raises:
            DeliveryFailed: at least one record was refused or timed out; the message counts them.
            TransportTimeout: not all were acknowledged in time.
        """

    def close(self) -> None:
        """Release everything. Idempotent. Records not flushed may be lost."""


class HoldingSource(Source, Protocol):
    """A source whose new partitions hand nothing over until their state has been restored."""

    def waiting(self) -> frozenset[int]:
        """Partitions that have a committed offset and wait for `release`."""

    def release(self, partition: int, offset: int) -> None:
        """Hand over a waiting partition's records from this offset on."""

    def hold(self) -> None:
        """Stop handing over every partition's records; each waits for `release` again."""


class TransactionalSink(Sink, Protocol):
    """A sink whose records appear together with the offsets they answer, or not at all."""

    def commit(self, offsets: Mapping[int, int], *, flush_timeout_seconds: float) -> None:
        """End the transaction with these next offsets of the source.

        Raises:
            TransportError: it is not known to be committed; `start_over`, then read what is.
        """

    def start_over(self) -> None:
        """Throw away the transaction under way.

        Raises:
            TransportError: the sink is not usable yet; calling again tries again.
        """


class RecoveryStore(Protocol):
    """What is needed to restore a partition. Every call may block; made for a thread beside the loop.

    ``give_up`` is asked now and then; when it says yes a read ends early and its result counts for nothing.
    """

    def take_over(self, partition: int) -> None:
        """The partition is ours: end what its last owner has left unfinished, where that is known and allowed."""

    def committed(self, partition: int) -> tuple[int, str]:
        """The group's next offset, and the note that was committed with it."""

    def state(self, partition: int, copy: StateCopy, give_up: Callable[[], bool]) -> bool:
        """Bring a copy of the partition's state up to the end of the log as it stands now; an empty one from the start.

        Transactions under way count: the end is that of a read-uncommitted reader, what is taken is committed. False
        where the log does not go on behind the copy (made anew, cut, compacted over): the copy is of no use then.
        """

    def readings(self, partition: int, begin: int, end: int, give_up: Callable[[], bool]) -> list[RawRecord]:
        """Readings with ``begin <= offset < end``."""

    def keep_warm(self) -> None:
        """Open now what the other calls need, and keep it open. Changes what they take, not what they answer.

        Raises:
            TransportError: it cannot be opened.
        """

    def tail(self) -> StateTail:
        """A reader that follows the state of many partitions.

        Raises:
            TransportError: the topic cannot be reached.
        """

    def close(self) -> None:
        """Release every connection. Idempotent."""


class StateTail(Protocol):
    """Committed state records of several partitions as they come. For one thread."""

    def partitions(self) -> frozenset[int]:
        """Those the state topic has."""

    def follow(self, partitions: frozenset[int], *, anew: frozenset[int]) -> None:
        """Read these partitions and no others: those in ``anew`` from the beginning, the rest where they stand."""

    def poll(self, timeout_seconds: float) -> list[RawRecord]:
        """Further records, each partition's in offset order; waits at most about ``timeout_seconds`` for the first.

        Raises:
            TransportError: a partition cannot be read on without a gap, or the broker refuses.
        """

    def current(self) -> frozenset[int]:
        """Partitions that were read to the end of the log, as of the last poll. Never blocks."""

    def close(self) -> None:
        """Release the connection. Idempotent."""


class FeedbackRecord(NamedTuple):
    """Feedback, and where it stands in its log."""

    partition: int
    offset: int
    feedback: Feedback


class FeedbackLog(Protocol):
    """What people have said of streams."""

    def take(self, begin: Mapping[int, int], watermark: float) -> list[FeedbackRecord]:
        """What is there now, each partition's in offset order. Never waits, and may be called by many.

        Args:
            begin: by partition, the first offset wanted; 0 where absent.
            watermark: event time up to which readings have come, for a log of recorded time.
        """

    def close(self) -> None:
        """Release everything. Idempotent."""


class HistorySink(Protocol):
    """Where the engine leaves accepted readings for a trainer that cannot read the source again."""

    def add(
        self,
        stream_ids: Sequence[str],
        times: Sequence[float] | FloatArray,
        values: Sequence[float] | FloatArray,
        covariates: Sequence[tuple[float, ...]],
        future: Sequence[tuple[float, ...]] | None = None,
    ) -> None:
        """One wave of accepted readings, at most one per stream, with what was known ahead; ``nan`` is missing."""

    def flag(self, stream_id: str, since: float, until: float | None) -> None:
        """An anomaly of a stream was raised at the reading of event time ``since``, ``until`` is ``None``; or the one
        raised then was cleared by the reading of event time ``until``."""


class ModelRegistry(Protocol):
    """Trained models by version, and the decisions about who of them serves which group of streams.

    Models are of no group, decisions are: a ``group`` that is not named is the default one.

    Trainers, operators and workers use one at the same time, from several processes. A decision is made when its
    method returns and not before; a reader sees a model whole or not at all. One object is for one thread.
    """

    place: str
    """Where it is, for people."""

    def champion(self, group: str = DEFAULT) -> str | None:
        """Version of the model that serves a group, ``None`` before its first promotion.

        Made to be asked often: it waits for nothing but the first time.

        Raises:
            TransportError: the registry cannot be read. Whoever serves goes on with the champion it has.
        """

    def get(self, version: str) -> ModelArtifact:
        """The model of this name, checked.

        Raises:
            ArtifactMismatch: there is none (the message names those there are), or it is damaged, incomplete or of
                another format.
            TransportError: the registry cannot be read.
        """

    def manifests(self) -> list[Manifest]:
        """Manifests of all models, oldest first; those that cannot be read are left out, and told of in the log."""

    def history(self) -> list[RegistryRecord]:
        """All decisions about all groups, oldest first.

        Raises:
            TransportError: the registry cannot be read, or holds a decision that is none of ours.
        """

    def put(self, artifact: ModelArtifact) -> None:
        """Keep a model. Doing so twice is the same as once; a damaged copy is mended.

        Raises:
            ArtifactMismatch: another model has this name.
            TransportError: it cannot be written.
        """

    def promote(
        self,
        version: str,
        decision: Mapping[str, Any],
        *,
        now: float,
        expected: str | None = None,
        group: str = DEFAULT,
    ) -> RegistryRecord:
        """Make a model that was `put` the champion.

        Args:
            decision: what it rests on, as JSON has it.
            now: wall-clock time, seconds since the epoch.
            expected: the champion in view of which it was decided, empty for nobody. If another serves by the time of
                writing, the model is ``refused`` instead, because the champion changed. ``None`` promotes in any case.

        Raises:
            ArtifactMismatch: there is no such model, or it is damaged; then nothing has changed.
            TransportError: it cannot be written.
        """

    def refuse(self, version: str, decision: Mapping[str, Any], *, now: float, group: str = DEFAULT) -> RegistryRecord:
        """Note that a challenger was not promoted; the champion stays.

        Raises:
            TransportError: it cannot be written.
        """

    def fail(self, decision: Mapping[str, Any], *, now: float, group: str = DEFAULT) -> RegistryRecord:
        """Note that a training ended without a model; the champion stays.

        Raises:
            TransportError: it cannot be written.
        """

    def challenge(
        self,
        version: str,
        decision: Mapping[str, Any],
        *,
        now: float,
        expected: str | None = None,
        group: str = DEFAULT,
    ) -> RegistryRecord:
        """Let a model that was `put` be scored on live readings beside the champion, which goes on serving.

        Args:
            expected: as for `promote`.
            decision: as for `promote`; ``shadow_steps`` in it says how long. A promotion whose decision names
                ``guard_steps`` lets the former champion be scored beside the new one in the same way.

        Raises:
            ArtifactMismatch: there is no such model, or it is damaged; then nothing has changed.
            TransportError: it cannot be written.
        """

    def champions(self, group: str = DEFAULT) -> tuple[str | None, str | None]:
        """The champion of a group and the one that served before it, each ``None`` where there is none, of one moment.
        As cheap as `champion`, and raises what that raises."""

    def trial(self, group: str = DEFAULT) -> Trial | None:
        """The trial under way of a group, if there is one. As cheap as `champion`, and raises what that raises."""

    def settle(
        self, trial: Trial, action: Settled, decision: Mapping[str, Any], *, now: float
    ) -> RegistryRecord | None:
        """End a trial; ``None`` where it has ended already, so that of several who decide the first counts.

        Args:
            action: ``promoted`` or ``refused`` for a shadow's challenger; ``rolled_back`` to a guard's former champion,
                or ``confirmed`` for who serves.

        Raises:
            ArtifactMismatch: the model that is to serve is gone or damaged; then nothing has changed.
            TransportError: it cannot be written.
        """

    def report(self, score: LiveScore) -> None:
        """Keep what a partition has seen of a trial, over what was kept of it before. No decision: it may get lost.

        Raises:
            TransportError: it cannot be written now.
        """

    def live_scores(self, trial: Trial) -> list[LiveScore]:
        """What partitions have reported of a trial, one of each; `trial` is to be asked first.

        Raises:
            TransportError: the registry cannot be read.
        """

    def request(self, wish: TrainingRequest) -> None:
        """Ask for a training of a group, in place of who asked before. No decision: it may get lost.

        Raises:
            TransportError: it cannot be written now.
        """

    def requested(self, group: str = DEFAULT) -> TrainingRequest | None:
        """The newest wish for a training of a group, fulfilled or not; `champion` is to be asked first.

        Raises:
            TransportError: the registry cannot be read.
        """

    def rollback(self, *, now: float, reason: str = "", group: str = DEFAULT) -> str:
        """Put the champion of a group before the present one back in service and return its version.

        Called again it goes back one further; a promotion after it starts from there.

        Raises:
            NoChampion: there is none to go back to.
            ArtifactMismatch: its model is gone or damaged; then nothing has changed.
            TransportError: it cannot be written.
        """

    def prune(self, keep: int) -> list[str]:
        """Delete models that nobody will miss and return their versions, oldest first.

        Kept are of each group the champion, the one a rollback leads to and those that a trial needs, the ``keep``
        models that served last, and of all others the ``keep`` newest. Decisions are all kept.
        """

    def close(self) -> None:
        """Release everything. Idempotent."""


class LogRecord(NamedTuple):
    """One record of a `ModelLog`."""

    offset: int
    key: str
    value: bytes | None
    """``None`` is a tombstone."""


class LogReading(NamedTuple):
    """What came since the last look at a `ModelLog`."""

    records: list[LogRecord]
    """In the order they were written."""
    is_from_beginning: bool
    """They are all there is: what was read before counts for nothing."""


class ModelLog(Protocol):
    """A log of keyed records of which the newest of each key is kept, as a compacted topic is.

    At most one may write at a time: `claim` takes the right to from whoever has it. One object is for one thread.
    """

    name: str
    """Of the topic."""

    @property
    def max_value_bytes(self) -> int:
        """Largest value of one record, with room left for its key and all else that travels with it."""

    def read(self, *, wait: bool) -> LogReading:
        """Committed records since the last call.

        The first call returns when it has read to the end, one with ``wait`` when it has read all that was written
        before it, transactions under way included. Others wait for nothing.

        Raises:
            TransportError: the log cannot be read; a later call begins anew.
        """

    def fetch(self, offsets: Sequence[int]) -> dict[int, bytes]:
        """Values of records that were read before, by offset; those that compaction has removed since are absent.

        Raises:
            TransportError: the log cannot be read.
        """

    def claim(self) -> None:
        """Become the one who writes, and end whatever another left unfinished.

        Raises:
            TransportError: nobody answers.
        """

    def append(self, entries: Sequence[tuple[str, bytes | None]]) -> None:
        """Write records in this order, so that readers see all of them or none. Needs a `claim`.

        Raises:
            Fenced: another has claimed since; nothing was written.
            TransportError: whether they were written is not known (``retriable``), or they cannot be.
        """

    def publish(self, key: str, value: bytes) -> None:
        """Write one record beside all claims, in no transaction: for what the next of its key replaces.

        Raises:
            TransportError: it is not known to be written.
        """

    def release(self) -> None:
        """Give up a claim. Idempotent."""

    def close(self) -> None:
        """Release everything. Idempotent."""
