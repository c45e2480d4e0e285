"""Decisions about who serves: how one is recorded, and which champion follows from all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from forecaster.errors import ArtifactMismatch, NoChampion

_VERSION = re.compile(r"[a-z]+-\d{8}T\d{6}-[0-9a-f]{6}")
_NAMED = 8
_SERVING = ("promoted", "rolled_back")

Action = Literal["promoted", "refused", "rolled_back", "challenged", "confirmed", "failed"]
Settled = Literal["promoted", "refused", "rolled_back", "confirmed"]
"""How a trial may end."""


class RegistryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One decision about who serves."""

    number: int
    time: float
    """Wall-clock time, seconds since the epoch."""
    action: Action
    version: str
    """The model decided about; after ``rolled_back`` the one that serves again, after ``failed`` empty."""
    decision: dict[str, Any] = {}
    """What it rests on, as the trainer or the operator gave it."""
    group: str = ""
    """Of the streams it is about; empty for the default group."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Two models side by side on live readings: one serves, the other is scored as if it did."""

    number: int
    """Of the decision that began it."""
    kind: Literal["shadow", "guard"]
    """A challenger before it may serve; or the former champion, after another took over."""
    serving: str
    beside: str
    """The one that is only scored: the challenger of a shadow, the former champion of a guard."""
    former: str = ""
    """That would answer beside that one as its former champion; empty for none."""
    steps: int
    """Readings of each stream, on average, after which it is decided."""
    began: float
    """Wall-clock time, seconds since the epoch."""
    group: str = ""
    """Of the streams that are scored."""


class LiveScore(msgspec.Struct, frozen=True, kw_only=True):
    """What one partition has seen of a trial so far: sums, so that partitions add up.

    Losses are mean pinball over the quantile levels of what is published, in units of each stream's scale.
    """

    trial: int
    """`Trial.number`."""
    partition: int
    streams: int
    """Scored side by side."""
    steps: int
    """Readings of theirs that settled a forecast of both."""
    targets: int
    """Forecasts settled: a reading settles one a lead."""
    serving_loss: float
    beside_loss: float
    blocks: int
    """Runs of readings long enough to count as independent of each other."""
    difference: float
    """Sum over blocks of the mean of serving loss minus loss beside."""
    difference_squares: float
    """Sum of the squares of those means."""


class TrainingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asks the trainer for a training before the next one is due."""

    time: float
    """Wall-clock time, seconds since the epoch."""
    reason: str
    """One sentence for people."""
    group: str = ""
    """Of the streams to train on."""
    drift: bool = False
    """Whether the champion's live loss has risen: then a challenger that is not worse is enough."""


class Choice(NamedTuple):
    """What is to be written down."""

    action: Action
    version: str
    decision: Mapping[str, Any]


class Serving(NamedTuple):
    """Who answers, by group; a group without is absent."""

    champions: dict[str, str]
    formers: dict[str, str]
    """Champions before them: those that a rollback leads to."""
    trials: dict[str, Trial]
    """Under way."""


def line_up(history: Iterable[RegistryRecord], group: str = "") -> list[str]:
    """Champions of a group that a rollback can step back through, the present one last.

    >>> def record(action, version):
    ...     return RegistryRecord(number=1, time=0.0, action=action, version=version)
    >>> line_up([record("promoted", "a"), record("promoted", "b"), record("refused", "c")])
    ['a', 'b']
    >>> line_up([record("promoted", "a"), record("promoted", "b"), record("rolled_back", "a")])
    ['a']
    """
    champions: list[str] = []
    for record in history:
        if record.group == group:
            _move(champions, record)
    return champions


def former_champion(champions: Sequence[str]) -> str | None:
    """The last of a `line_up` that is another than the present one.

    >>> former_champion(["a", "b", "b"]), former_champion(["a", "a"]), former_champion([])
    ('a', None, None)
    """
    return next((version for version in reversed(champions) if version != champions[-1]), None)


def groups_decided(history: Iterable[RegistryRecord]) -> list[str]:
    """Groups that there are decisions about."""
    return list(dict.fromkeys(record.group for record in history))


def trial_under_way(history: Iterable[RegistryRecord], group: str = "") -> Trial | None:
    """The trial of a group that the newest decisions leave open.

    A challenger's promotion, refusal or successor ends a shadow; a roll-back, a confirmation or another promotion ends
    a guard. A promotion begins a guard where its decision names ``guard_steps`` and somebody served before.

    >>> def record(number, action, version, **decision):
    ...     return RegistryRecord(number=number, time=0.0, action=action, version=version, decision=decision)
    >>> past = [record(1, "promoted", "a"), record(2, "challenged", "b", shadow_steps=64)]
    >>> trial_under_way(past).beside, trial_under_way([*past, record(3, "refused", "b")])
    ('b', None)
    >>> guarded = trial_under_way([*past, record(3, "promoted", "b", guard_steps=64)])
    >>> guarded.kind, guarded.serving, guarded.beside, guarded.former
    ('guard', 'b', 'a', '')
    """
    trial: Trial | None = None
    champions: list[str] = []
    for record in history:
        if record.group != group:
            continue
        before = champions[-1] if champions else None
        if record.action in _SERVING:
            former = former_champion(champions)
            trial = None
            _move(champions, record)
            if record.action == "promoted" and before not in (None, record.version):
                trial = _trial(record, "guard", record.version, before, former, "guard_steps")
        elif record.action == "challenged":
            trial = _trial(record, "shadow", before, record.version, before, "shadow_steps")
        elif trial is not None and record.action in ("refused", "confirmed"):
            ends = trial.beside if trial.kind == "shadow" else trial.serving
            trial = None if record.version == ends else trial
    return trial


def who_serves(history: Sequence[RegistryRecord]) -> Serving:
    """Champions, those before them, and trials under way."""
    serving = Serving({}, {}, {})
    for group in groups_decided(history):
        champions = line_up(history, group)
        serving.champions.update((group, version) for version in champions[-1:])
        if (former := former_champion(champions)) is not None:
            serving.formers[group] = former
        if (trial := trial_under_way(history, group)) is not None:
            serving.trials[group] = trial
    return serving


def no_champion_before(place: str, champions: Sequence[str], group: str) -> NoChampion:
    """The error for a rollback that leads nowhere.

    Args:
        place: the registry, for people.
        champions: `line_up` of the group.
    """
    of = f" of group {group}" if group else ""
    return NoChampion(
        f"The registry {place} has no champion{of} before {champions[-1] if champions else 'the first'}.",
        hint="`forecaster models list` shows what there is to promote.",
    )


def _move(champions: list[str], record: RegistryRecord) -> None:
    """What a decision about their group makes of a line of champions."""
    if record.action == "promoted":
        champions.append(record.version)
    elif record.action == "rolled_back":
        del champions[-1:]
        if champions[-1:] != [record.version]:  # its promotion is older than the oldest record there is
            champions[:] = [record.version]


def _trial(
    record: RegistryRecord,
    kind: Literal["shadow", "guard"],
    serving: str | None,
    beside: str | None,
    former: str | None,
    name: str,
) -> Trial | None:
    steps = record.decision.get(name)
    if not (isinstance(steps, int) and steps > 0 and serving and beside):
        return None
    return Trial(
        number=record.number,
        kind=kind,
        serving=serving,
        beside=beside,
        former=former or "",
        steps=steps,
        began=record.time,
        group=record.group,
    )


def unless_changed(
    action: Action, version: str, decision: Mapping[str, Any], *, expected: str | None, champion: str | None
) -> Choice:
    """A decision that holds only while the model it was made in view of serves; otherwise a refusal that says so.

    Args:
        expected: who served then, empty for nobody; ``None`` for a decision that holds whoever serves.
        champion: who serves now.

    >>> unless_changed("promoted", "c", {}, expected="a", champion="a").action
    'promoted'
    >>> unless_changed("promoted", "c", {}, expected="a", champion="b").decision["reason"]
    'champion changed: judged against a, b serves now'
    """
    if expected is None or expected == (champion or ""):
        return Choice(action, version, decision)
    reason = f"champion changed: judged against {expected or 'nobody'}, {champion or 'nobody'} serves now"
    return Choice("refused", version, {**decision, "outcome": "refused", "reason": reason})


def version_settled(trial: Trial, action: Settled) -> str:
    """The model that the decision ending a trial is about."""
    return trial.serving if action == "confirmed" else trial.beside


def spare_versions(created: Sequence[str], history: Sequence[RegistryRecord], keep: int) -> list[str]:
    """Models that nobody will miss, oldest first.

    Kept are of each group the champion, the one a rollback leads to and those that a trial needs, the ``keep`` models
    that served last, and of all others the ``keep`` newest.

    Args:
        created: versions there are, oldest first.
        history: all decisions, oldest first.
    """
    served = dict.fromkeys(record.version for record in reversed(history) if record.action in _SERVING)
    needed = set(list(served)[:keep])
    for group in groups_decided(history):
        trial = trial_under_way(history, group)
        needed |= {*line_up(history, group)[-2:], *([trial.beside, trial.former] if trial else [])}
    others = [version for version in created if version not in needed]
    return others[: max(len(others) - keep, 0)]


def check_version(version: str) -> None:
    """Raises `ArtifactMismatch` for what cannot be the name of a model."""
    if not _VERSION.fullmatch(version):
        raise ArtifactMismatch(
            f"{version!r} is not the name of a model, expected a form such as gru-20260101T000000-ab12cd.",
            hint="`forecaster models list` shows the names.",
        )


def no_such_model(place: str, version: str, present: Sequence[str]) -> ArtifactMismatch:
    """The error for a model that is not there; names those that are.

    Args:
        place: the registry, for people.
        present: versions there are, oldest first.
    """
    newest = ", ".join(reversed(present[-_NAMED:]))
    more = f" and {len(present) - _NAMED} older ones" if len(present) > _NAMED else ""
    return ArtifactMismatch(
        f"The registry {place} has no model {version}; it holds {newest or 'none'}{more}.",
        hint="`forecaster models list` shows the names.",
    )
