"""Models in a directory: one file an artifact, one journal of decisions, from which the champion follows.

Layout::

    decisions.jsonl        one `RegistryRecord` a line, numbered from 1; the only truth about who serves
    group-decisions.jsonl  the same of groups other than the default, numbered with them: a program that knows no groups
                           does not take them for its own
    artifacts/<version>.model
    live/<n>-<partition>   `LiveScore` of the trial that decision n began; written over as it goes
    request                the newest wish for a training, a `TrainingRequest`; ``request-<group>`` of other groups
    lock                   held while writing, so that trainer and operator may write at the same time

A line counts once its newline is on disk. A writer that died half-way leaves a line without one: readers pass over
it, the next writer cuts it off.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from forecaster.errors import ArtifactMismatch, TransportError
from forecaster.models.artifact import Manifest, ModelArtifact, write_atomically
from forecaster.models.decisions import (
    Action,
    LiveScore,
    RegistryRecord,
    Settled,
    TrainingRequest,
    Trial,
    check_version,
    groups_decided,
    line_up,
    no_champion_before,
    no_such_model,
    spare_versions,
    trial_under_way,
    unless_changed,
    version_settled,
    who_serves,
)
from forecaster.series.groups import DEFAULT

log = logging.getLogger(__name__)


class DirectoryRegistry:
    """A `ModelRegistry` under one directory, for one machine or a shared disk.

    Safe against a crash at any moment, and between processes: writes hold a lock file, reads need none. One object
    is for one thread.

    Args:
        path: the directory; made at the first write.
    """

    def __init__(self, path: Path) -> None:
        self.place = f"directory {path}"
        self._path = path
        self._journal, self._group_journal = path / "decisions.jsonl", path / "group-decisions.jsonl"
        self._stamp: tuple[tuple[int, int, int], ...] | None = None
        self._serving = who_serves([])

    def put(self, artifact: ModelArtifact) -> None:
        """See `ModelRegistry.put`."""
        path = self._artifact_path(artifact.version)
        with self._writing():
            if path.exists():
                try:
                    if ModelArtifact.load(path) == artifact:
                        return
                except ArtifactMismatch as error:
                    log.warning("damaged model is written anew", extra={"error": str(error)})
                else:
                    raise ArtifactMismatch(
                        f"The registry {self.place} holds another model named {artifact.version}.",
                        hint="A name holds second and weights, so this is very unlikely by chance. Train again.",
                    )
            artifact.save(path)

    def get(self, version: str) -> ModelArtifact:
        """See `ModelRegistry.get`."""
        return ModelArtifact.load(self._known_path(version))

    def manifests(self) -> list[Manifest]:
        """See `ModelRegistry.manifests`."""
        manifests = []
        for file in sorted((self._path / "artifacts").glob("[!.]*.model")):
            try:
                manifests.append(ModelArtifact.load(file).manifest)
            except ArtifactMismatch as error:
                log.warning("model cannot be read", extra={"error": str(error), "hint": error.hint})
        return sorted(manifests, key=lambda manifest: (manifest.created, manifest.version))

    def champion(self, group: str = DEFAULT) -> str | None:
        """See `ModelRegistry.champion`. Reads the journals only if one changed."""
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
        return self._append_unless_changed("promoted", version, decision, now, expected, group)

    def refuse(self, version: str, decision: Mapping[str, Any], *, now: float, group: str = DEFAULT) -> RegistryRecord:
        """See `ModelRegistry.refuse`."""
        return self._append("refused", version, decision, now, group)

    def fail(self, decision: Mapping[str, Any], *, now: float, group: str = DEFAULT) -> RegistryRecord:
        """See `ModelRegistry.fail`."""
        return self._append("failed", "", decision, now, group)

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
        return self._append_unless_changed("challenged", version, decision, now, expected, group)

    def settle(
        self, trial: Trial, action: Settled, decision: Mapping[str, Any], *, now: float
    ) -> RegistryRecord | None:
        """See `ModelRegistry.settle`."""
        with self._writing():
            if trial_under_way(self.history(), trial.group) != trial:
                return None
            version = version_settled(trial, action)
            if action != "refused":
                self.get(version)
            return self._write_line(action, version, decision, now, trial.group)

    def report(self, score: LiveScore) -> None:
        """See `ModelRegistry.report`."""
        try:
            write_atomically(self._path / "live" / f"{score.trial}-{score.partition}", msgspec.json.encode(score))
        except OSError as error:
            raise self._refused(error) from error

    def live_scores(self, trial: Trial) -> list[LiveScore]:
        """See `ModelRegistry.live_scores`."""
        scores = []
        for file in (self._path / "live").glob(f"{trial.number}-*"):
            try:
                scores.append(msgspec.json.decode(file.read_bytes(), type=LiveScore))
            except (OSError, msgspec.DecodeError) as error:  # a hint for a decision, and none itself
                log.warning("live score cannot be read", extra={"file": file.name, "error": str(error)})
        return sorted(scores, key=lambda score: score.partition)

    def request(self, wish: TrainingRequest) -> None:
        """See `ModelRegistry.request`."""
        try:
            write_atomically(self._request_path(wish.group), msgspec.json.encode(wish))
        except OSError as error:
            raise self._refused(error) from error

    def requested(self, group: str = DEFAULT) -> TrainingRequest | None:
        """See `ModelRegistry.requested`."""
        try:
            return msgspec.json.decode(self._request_path(group).read_bytes(), type=TrainingRequest)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:  # whoever asked will ask again
            log.warning("request for a training cannot be read", extra={"error": str(error)})
            return None

    def rollback(self, *, now: float, reason: str = "", group: str = DEFAULT) -> str:
        """See `ModelRegistry.rollback`."""
        with self._writing():
            champions = line_up(self.history(), group)
            if len(champions) < 2:
                raise no_champion_before(self.place, champions, group)
            before = champions[-2]
            self.get(before)
            self._write_line("rolled_back", before, {"from": champions[-1], "reason": reason}, now, group)
        return before

    def history(self) -> list[RegistryRecord]:
        """See `ModelRegistry.history`."""
        records = [*self._read_journal(self._journal), *self._read_journal(self._group_journal)]
        return sorted(records, key=lambda record: record.number)

    def prune(self, keep: int) -> list[str]:
        """See `ModelRegistry.prune`."""
        with self._writing():
            gone = spare_versions(self._versions(), self.history(), keep)
            for version in gone:
                self._artifact_path(version).unlink(missing_ok=True)
            history = self.history()
            trials = [trial_under_way(history, group) for group in groups_decided(history)]
            numbers = {str(trial.number) for trial in trials if trial is not None}
            for file in (self._path / "live").glob("[0-9]*-*"):
                if file.name.partition("-")[0] not in numbers:
                    file.unlink(missing_ok=True)
        return gone

    def close(self) -> None:
        """Nothing is held open."""

    def _look_up(self) -> None:
        """Who serves and who is on trial, anew where a journal changed."""
        stamp = self._journal_stamp(self._journal), self._journal_stamp(self._group_journal)
        if stamp != self._stamp:
            self._serving = who_serves(self.history())
            self._stamp = stamp

    def _versions(self) -> list[str]:
        return [manifest.version for manifest in self.manifests()]

    def _append(
        self,
        action: Action,
        version: str,
        decision: Mapping[str, Any],
        now: float,
        group: str,
    ) -> RegistryRecord:
        with self._writing():
            return self._write_line(action, version, decision, now, group)

    def _append_unless_changed(
        self, action: Action, version: str, decision: Mapping[str, Any], now: float, expected: str | None, group: str
    ) -> RegistryRecord:
        with self._writing():
            champion = line_up(self.history(), group)[-1:]
            choice = unless_changed(
                action, version, decision, expected=expected, champion=champion[0] if champion else None
            )
            if choice.action != "refused":
                self.get(version)
            return self._write_line(*choice, now, group)

    def _write_line(
        self,
        action: Action,
        version: str,
        decision: Mapping[str, Any],
        now: float,
        group: str,
    ) -> RegistryRecord:
        """Append one record; the lock is held."""
        history = self.history()
        number = history[-1].number + 1 if history else 1
        record = RegistryRecord(
            number=number, time=now, action=action, version=version, decision=dict(decision), group=group
        )
        journal = self._journal if group == DEFAULT else self._group_journal
        with open(journal, "ab") as file:
            # A dead writer's half line is cut off, or ours would be glued to it.
            whole = journal.read_bytes().rpartition(b"\n")
            file.truncate(len(whole[0]) + len(whole[1]))
            file.write(msgspec.json.encode(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return record

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock; translate what the disk says."""
        try:
            (self._path / "artifacts").mkdir(parents=True, exist_ok=True)
            with open(self._path / "lock", "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file closes, also by death
                yield
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> TransportError:
        return TransportError(
            f"The registry {self.place} cannot be used: {error.strerror}.",
            hint="Check registry.directory, its permissions and the free space of its disk.",
        )

    def _read_journal(self, journal: Path) -> list[RegistryRecord]:
        try:
            content = journal.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._refused(error) from error
        whole, _, _ = content.rpartition(b"\n")
        try:
            return [msgspec.json.decode(line, type=RegistryRecord) for line in whole.splitlines() if line]
        except msgspec.DecodeError as error:
            raise TransportError(
                f"The journal {journal} holds a line that cannot be read: {error}",
                hint="Restore it from a backup, or remove that line; the artifacts are not touched by either.",
            ) from error

    def _request_path(self, group: str) -> Path:
        return self._path / (f"request-{group}" if group else "request")

    def _journal_stamp(self, journal: Path) -> tuple[int, int, int]:
        try:
            status = journal.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        except OSError as error:
            raise self._refused(error) from error
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _artifact_path(self, version: str) -> Path:
        check_version(version)
        return self._path / "artifacts" / f"{version}.model"

    def _known_path(self, version: str) -> Path:
        path = self._artifact_path(version)
        if not path.is_file():
            raise no_such_model(self.place, version, self._versions())
        return path
