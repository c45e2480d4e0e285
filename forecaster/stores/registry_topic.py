"""Models in a compacted topic, so that workers, trainers and operators need no shared disk.

What is remembered here of the topic is an index: heads, offsets of chunks, decisions. Chunks are read when a model is
asked for. A write takes four steps: claim the topic, read it to its end, write in one transaction, read back. The claim
ends whatever another writer was at, who then begins again; the last step tells a commit from what only looks like one.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from forecaster.errors import ArtifactMismatch, Fenced, TransportError
from forecaster.models.artifact import Manifest, ModelArtifact
from forecaster.models.decisions import (
    Action,
    Choice,
    LiveScore,
    RegistryRecord,
    Settled,
    TrainingRequest,
    Trial,
    check_version,
    line_up,
    no_champion_before,
    no_such_model,
    spare_versions,
    trial_under_way,
    unless_changed,
    version_settled,
    who_serves,
)
from forecaster.ports import LogRecord, ModelLog
from forecaster.series.groups import DEFAULT
from forecaster.stores.model_chunks import (
    MEND_HINT,
    Entry,
    ModelHead,
    chunk_key,
    decode_chunk,
    decode_decision,
    decode_head,
    encode_decision,
    encode_model,
    head_key,
    join,
    live_key,
    parse_key,
    request_key,
)

log = logging.getLogger(__name__)

_NEEDS_MODEL = ("promoted", "rolled_back", "challenged", "confirmed")
_ATTEMPTS = 8
_PAUSE_SECONDS = 0.2


class TopicRegistry:
    """A `ModelRegistry` in a log of keyed records.

    Args:
        model_log: the topic; closed with the registry.
        wait: between attempts of a write.
        rng: how long, so that two writers do not meet again.
    """

    def __init__(
        self,
        model_log: ModelLog,
        *,
        wait: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.place = f"topic {model_log.name}"
        self._log = model_log
        self._wait = wait
        self._rng = rng or random.Random()
        self._heads: dict[str, ModelHead] = {}
        self._chunks: dict[str, dict[int, int]] = {}
        """Version to chunk to offset."""
        self._decisions: dict[tuple[int, str], RegistryRecord] = {}
        """By number and group."""
        self._values: dict[str, bytes] = {}
        """Of heads and decisions, as they were written."""
        self._unreadable: dict[str, ArtifactMismatch | TransportError] = {}
        self._live: dict[tuple[int, int], LiveScore] = {}
        """Trial and partition to score."""
        self._requested: dict[str, TrainingRequest] = {}
        self._serving = who_serves([])
        self._is_stale = True
        """A decision came since champion and trial were looked up."""
        self._has_warned = False

    def champion(self, group: str = DEFAULT) -> str | None:
        """See `ModelRegistry.champion`."""
        self._look_up()
        return self._serving.champions.get(group)

    def champions(self, group: str = DEFAULT) -> tuple[str | None, str | None]:
        """See `ModelRegistry.champions`."""
        self._look_up()
        return self._serving.champions.get(group), self._serving.formers.get(group)

    def trial(self, group: str = DEFAULT) -> Trial | None:
        """See `ModelRegistry.trial`."""
        self._look_up()
        return self._serving.trials.get(group)

    def get(self, version: str) -> ModelArtifact:
        """See `ModelRegistry.get`."""
        check_version(version)
        self._refresh()
        if version not in self._heads:
            self._refresh(wait=True)
        return self._load(version)

    def manifests(self) -> list[Manifest]:
        """See `ModelRegistry.manifests`."""
        self._refresh()
        for key, error in self._unreadable.items():
            if isinstance(error, ArtifactMismatch):
                log.warning("model cannot be read", extra={"key": key, "error": str(error), "hint": error.hint})
        return [self._heads[version].manifest for version in self._versions()]

    def history(self) -> list[RegistryRecord]:
        """See `ModelRegistry.history`."""
        self._refresh()
        return self._readable_decisions()

    def put(self, artifact: ModelArtifact) -> None:
        """See `ModelRegistry.put`."""
        check_version(artifact.version)

        def entries() -> list[Entry]:
            if artifact.version in self._heads:
                try:
                    if self._load(artifact.version) == artifact:
                        return []
                except ArtifactMismatch as error:
                    log.warning("damaged model is written anew", extra={"error": str(error)})
                else:
                    raise ArtifactMismatch(
                        f"The registry {self.place} holds another model named {artifact.version}.",
                        hint="A name holds second and weights, so this is very unlikely by chance. Train again.",
                    )
            made = encode_model(artifact, max_value_bytes=self._log.max_value_bytes)
            surplus = set(self._chunks.get(artifact.version, ())) - set(range(len(made) - 1))
            return [*((chunk_key(artifact.version, index), None) for index in sorted(surplus)), *made]

        self._write(entries, f"Writing model {artifact.version}")

    def promote(
        self,
        version: str,
        decision: Mapping[str, Any],
        *,
        now: float,
        expected: str | None = None,
        group: str = DEFAULT,
    ) -> RegistryRecord:
        """See `ModelRegistry.promote`."""
        return self._decide_unless_changed("promoted", version, decision, now, expected, group)

    def refuse(self, version: str, decision: Mapping[str, Any], *, now: float, group: str = DEFAULT) -> RegistryRecord:
        """See `ModelRegistry.refuse`."""
        return _made(self._decide("refused", lambda: Choice("refused", version, decision), now, group))

    def fail(self, decision: Mapping[str, Any], *, now: float, group: str = DEFAULT) -> RegistryRecord:
        """See `ModelRegistry.fail`."""
        return _made(self._decide("failed", lambda: Choice("failed", "", decision), now, group))

    def challenge(
        self,
        version: str,
        decision: Mapping[str, Any],
        *,
        now: float,
        expected: str | None = None,
        group: str = DEFAULT,
    ) -> RegistryRecord:
        """See `ModelRegistry.challenge`."""
        return self._decide_unless_changed("challenged", version, decision, now, expected, group)

    def settle(
        self, trial: Trial, action: Settled, decision: Mapping[str, Any], *, now: float
    ) -> RegistryRecord | None:
        """See `ModelRegistry.settle`."""

        def choose() -> Choice | None:
            if trial_under_way(self._readable_decisions(), trial.group) != trial:
                return None
            return Choice(action, version_settled(trial, action), decision)

        return self._decide(action, choose, now, trial.group)

    def report(self, score: LiveScore) -> None:
        """See `ModelRegistry.report`."""
        self._log.publish(live_key(score.trial, score.partition), msgspec.json.encode(score))

    def live_scores(self, trial: Trial) -> list[LiveScore]:
        """See `ModelRegistry.live_scores`."""
        self._refresh()
        return [score for (number, _), score in sorted(self._live.items()) if number == trial.number]

    def request(self, wish: TrainingRequest) -> None:
        """See `ModelRegistry.request`."""
        self._log.publish(request_key(wish.group), msgspec.json.encode(wish))

    def requested(self, group: str = DEFAULT) -> TrainingRequest | None:
        """See `ModelRegistry.requested`."""
        return self._requested.get(group)

    def rollback(self, *, now: float, reason: str = "", group: str = DEFAULT) -> str:
        """See `ModelRegistry.rollback`."""

        def choose() -> Choice:
            champions = line_up(self._readable_decisions(), group)
            if len(champions) < 2:
                raise no_champion_before(self.place, champions, group)
            return Choice("rolled_back", champions[-2], {"from": champions[-1], "reason": reason})

        return _made(self._decide("rolled_back", choose, now, group)).version

    def prune(self, keep: int) -> list[str]:
        """See `ModelRegistry.prune`. Chunks without a head go too."""
        gone: list[str] = []

        def entries() -> list[Entry]:
            gone[:] = spare_versions(self._versions(), self._readable_decisions(), keep)
            known = {key.version for key in map(parse_key, self._values) if key is not None}
            orphans = [version for version in self._chunks if version not in known]
            tombstones: list[Entry] = []
            for version in (*gone, *orphans):
                if version in gone:
                    tombstones.append((head_key(version), None))
                tombstones += [(chunk_key(version, index), None) for index in sorted(self._chunks.get(version, ()))]
            return [*tombstones, *self._stale_scores()]

        self._write(entries, f"Pruning {self.place}")
        return gone

    def close(self) -> None:
        """Release everything. Idempotent."""
        self._log.close()

    def _look_up(self) -> None:
        """Who serves and who is on trial, anew where a decision came."""
        self._refresh()
        if self._is_stale:
            self._serving = who_serves(self._readable_decisions())
            self._is_stale = False

    def _stale_scores(self) -> list[Entry]:
        """Tombstones for scores of trials that are over."""
        trials = who_serves(self._readable_decisions()).trials
        numbers = {trial.number for trial in trials.values()}
        return [(live_key(*key), None) for key in sorted(self._live) if key[0] not in numbers]

    def _decide_unless_changed(
        self, action: Action, version: str, decision: Mapping[str, Any], now: float, expected: str | None, group: str
    ) -> RegistryRecord:
        check_version(version)

        def choose() -> Choice:
            champions = line_up(self._readable_decisions(), group)
            return unless_changed(
                action, version, decision, expected=expected, champion=champions[-1] if champions else None
            )

        return _made(self._decide(action, choose, now, group))

    def _decide(
        self, action: Action, choose: Callable[[], Choice | None], now: float, group: str
    ) -> RegistryRecord | None:
        """Write a decision; ``None`` where ``choose`` sees that there is nothing to decide any more.

        ``action`` is what is meant to be decided; what ``choose`` says in view of the newest decisions is written.
        """
        made: list[RegistryRecord] = []

        def entries() -> list[Entry]:
            made.clear()
            chosen = choose()
            if chosen is None:
                return []
            if chosen.action in _NEEDS_MODEL:
                self._load(chosen.version)
            history = self._readable_decisions()
            number = history[-1].number + 1 if history else 1
            made[:] = [
                RegistryRecord(
                    number=number,
                    time=now,
                    action=chosen.action,
                    version=chosen.version,
                    decision=dict(chosen.decision),
                    group=group,
                )
            ]
            return [encode_decision(made[0], uuid.uuid4().hex)]

        self._write(entries, f"Recording that {action} was decided")
        return made[0] if made else None

    def _write(self, make: Callable[[], Sequence[Entry]], doing: str) -> None:
        """Write what ``make`` says in view of all that was written before; nothing where it says nothing."""
        tried: Sequence[Entry] = ()
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._wait(_PAUSE_SECONDS * attempt * self._rng.uniform(0.5, 1.5))
            try:
                self._log.claim()
                self._refresh(wait=True)
                if tried and self._holds(tried):  # the attempt of which nothing was known
                    return
                tried = make()
                if not tried:
                    return
                self._log.append(tried)
                self._refresh(wait=True)
                if self._holds(tried):
                    return
                trouble = TransportError(f"What was committed to {self.place} is not there.")
            except TransportError as error:
                if not (error.retriable or isinstance(error, Fenced)):
                    raise
                trouble = error
            finally:
                self._log.release()
            log.info("registry is written again", extra={"attempt": attempt + 1, "error": str(trouble)})
        raise TransportError(
            f"{doing} failed {_ATTEMPTS} times. The last time: {trouble}",
            hint=trouble.hint or "Other trainers write all the time, or the broker is away. Try again.",
        ) from trouble

    def _holds(self, entries: Sequence[Entry]) -> bool:
        """Whether the newest of these keys are as in ``entries``; chunks stand and fall with their head."""
        return all(self._values.get(key) == value for key, value in entries if _is_kept_whole(key))

    def _load(self, version: str) -> ModelArtifact:
        """A model from its chunks, by the index as it is."""
        origin = f"Model {version} in {self.place}"
        if (error := self._unreadable.get(head_key(version))) is not None:
            raise _anew(error)
        if version not in self._heads:
            raise no_such_model(self.place, version, self._versions())
        head, offsets = self._heads[version], self._chunks.get(version, {})
        found = self._log.fetch([offsets[index] for index in range(head.chunks) if index in offsets])
        absent = [index for index in range(head.chunks) if offsets.get(index) not in found]
        if absent:
            raise ArtifactMismatch(
                f"{origin} is incomplete: of its chunks 0 to {head.chunks - 1} those missing are {_some(absent)}.",
                hint=MEND_HINT,
            )
        chunks = [
            decode_chunk(
                found[offsets[index]], index=index, count=head.chunks, origin=f"{origin}, offset {offsets[index]},"
            )
            for index in range(head.chunks)
        ]
        return join(head, chunks, origin=origin)

    def _versions(self) -> list[str]:
        """Of models whose head can be read, oldest first."""
        return sorted(self._heads, key=lambda version: (self._heads[version].manifest.created, version))

    def _readable_decisions(self) -> list[RegistryRecord]:
        for error in self._unreadable.values():
            if isinstance(error, TransportError):
                raise _anew(error)
        return [self._decisions[key] for key in sorted(self._decisions)]

    def _refresh(self, *, wait: bool = False) -> None:
        reading = self._log.read(wait=wait)
        if reading.is_from_beginning:
            self._forget()
        for record in reading.records:
            self._take(record)

    def _forget(self) -> None:
        for remembered in (
            self._heads,
            self._chunks,
            self._decisions,
            self._values,
            self._unreadable,
            self._live,
            self._requested,
        ):
            remembered.clear()
        self._is_stale, self._has_warned = True, False

    def _take(self, record: LogRecord) -> None:
        """Bring the index up to one record."""
        key = parse_key(record.key)
        origin = f"{record.key} in {self.place}, offset {record.offset},"
        if key is None:
            if not self._has_warned:
                log.warning("models topic holds records that are none of ours", extra={"key": record.key[:100]})
            self._has_warned = True
            return
        if key.is_request:
            self._take_request(key.group, record)
            return
        if key.version is not None and key.chunk is not None:
            offsets = self._chunks.setdefault(key.version, {})
            offsets.pop(key.chunk, None)
            if record.value is not None:
                offsets[key.chunk] = record.offset
            elif not offsets:
                del self._chunks[key.version]
            return
        if key.live is not None:
            self._take_score(key.live, record)
            return
        self._unreadable.pop(record.key, None)
        self._values.pop(record.key, None)
        if record.value is not None:
            self._values[record.key] = record.value
        if key.version is not None:
            self._heads.pop(key.version, None)
            if record.value is not None:
                try:
                    self._heads[key.version] = decode_head(record.value, version=key.version, origin=origin)
                except ArtifactMismatch as error:
                    self._unreadable[record.key] = error
        elif key.number is not None:
            self._is_stale = True
            self._decisions.pop((key.number, key.group), None)
            if record.value is not None:
                try:
                    self._decisions[key.number, key.group] = decode_decision(record.value, key=key, origin=origin)
                except TransportError as error:
                    self._unreadable[record.key] = error

    def _take_request(self, group: str, record: LogRecord) -> None:
        try:
            wish = msgspec.json.decode(record.value, type=TrainingRequest) if record.value is not None else None
        except msgspec.DecodeError as error:  # whoever asked will ask again
            log.warning("request for a training cannot be read", extra={"error": str(error)})
            return
        self._requested.pop(group, None)
        if wish is not None:
            self._requested[group] = wish

    def _take_score(self, key: tuple[int, int], record: LogRecord) -> None:
        self._live.pop(key, None)
        if record.value is None:
            return
        try:
            self._live[key] = msgspec.json.decode(record.value, type=LiveScore)
        except msgspec.DecodeError as error:  # a hint for a decision, and none itself
            log.warning("live score cannot be read", extra={"key": record.key, "error": str(error)})


def _made(record: RegistryRecord | None) -> RegistryRecord:
    assert record is not None, "this decision does not depend on a trial"
    return record


def _anew(error: ArtifactMismatch | TransportError) -> ArtifactMismatch | TransportError:
    """An exception that is raised again and again would hold every frame it ever passed."""
    return type(error)(str(error), hint=error.hint)


def _is_kept_whole(key: str) -> bool:
    parsed = parse_key(key)
    return parsed is not None and (parsed.number is not None or (parsed.version is not None and parsed.chunk is None))


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return f"{shown} and {len(numbers) - 5} more" if len(numbers) > 5 else shown
