"""Notices another process of the group under this one's name.

A name (``kafka.instance_id``) is also the transactional id. Two processes of one name throw each other's transactions
away: nothing is lost or doubled, and nothing gets done. One of them has to end:

* with static membership the group knows members by their name. Who comes last takes the place; the broker tells the
  other with each of its heartbeats, but kafka-python only stops sending them. The elder ends.
* else both could be members. Who comes second finds the first one there, and does not join yet: it may be one that was
  killed a moment ago and is still counted. If it is there after a session, it lives, and the newcomer ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from forecaster.errors import ConfigurationError, TransportError

_SESSIONS = 2.0
"""A dead member is gone after one session; a coordinator that moved meanwhile counts it anew."""
_MARGIN_SECONDS = 1.0
_LOOK_SECONDS = 0.5
"""Between two looks whether a predecessor is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMember:
    """A member of a consumer group as its coordinator sees it."""

    member_id: str
    name: str
    """The instance id of a static member, else its client id."""
    host: str


class Namesakes:
    """Watches for a second process of our name.

    Args:
        members: the group's members now. May block for a request timeout.
        group_id: for people.
        name: ours.
        is_static: the name is the member's identity in the group.
        session_seconds: after this silence the group forgets a member.
    """

    def __init__(
        self,
        members: Callable[[], Sequence[GroupMember]],
        *,
        group_id: str,
        name: str,
        is_static: bool,
        session_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._members = members
        self._group_id = group_id
        self._name = name
        self._is_static = is_static
        self._patience = _SESSIONS * session_seconds + _MARGIN_SECONDS
        self._monotonic = monotonic
        self._elders: set[str] = set()
        self._elders_end = self._next_look = 0.0
        self._suspects: set[str] = set()
        self._look_at: float | None = None

    def begin(self) -> None:
        """To be called before this process joins: whoever has our name now was there first.

        Raises:
            TransportError: the group cannot be looked at.
        """
        if not self._is_static:
            self._elders = {member.member_id for member in self._named()}
            self._elders_end = self._monotonic() + self._patience

    def may_join(self) -> bool:
        """Whether nobody who was there first is left. To be asked until it says yes.

        Raises:
            ConfigurationError: one has outlived a session, so it is alive.
        """
        now = self._monotonic()
        if not self._elders or now < self._next_look:
            return not self._elders
        self._next_look = now + _LOOK_SECONDS
        try:
            left = [member for member in self._named() if member.member_id in self._elders]
        except TransportError:
            return False
        if left and now >= self._elders_end:
            self.refuse(left[0].host)
        self._elders = {member.member_id for member in left}
        return not left

    def suspect(self, member_id: str) -> None:
        """A transaction was lost, which a namesake may have caused: look now, and again later where that is needed.

        Args:
            member_id: ours; empty while we are no member.

        Raises:
            ConfigurationError: a static member of our name has taken our place.
        """
        if not member_id:
            return
        others = [member for member in self._named_or_nobody() if member.member_id != member_id]
        if self._is_static and others:
            self.refuse(others[0].host)
        if not self._is_static and others:
            self._suspects |= {member.member_id for member in others}
            if self._look_at is None:
                self._look_at = self._monotonic() + self._patience

    def check(self, member_id: str) -> None:
        """To be called now and then; costs a comparison unless somebody was seen a while ago.

        Raises:
            ConfigurationError: a namesake has outlived a session, so it is alive, and we are the one to end.
        """
        if self._look_at is None or self._monotonic() < self._look_at:
            return
        self._look_at = None
        # Two that began at the same moment saw nobody; each sees the other now, and one has to give way.
        rivals = {suspect for suspect in self._suspects if suspect < member_id}
        alive = [member for member in self._named_or_nobody() if member.member_id in rivals]
        self._suspects = set()
        if alive:
            self.refuse(alive[0].host)

    def refuse(self, host: str = "") -> NoReturn:
        """Raises the error that ends this process."""
        where = f" at {host.lstrip('/')}" if host else ""
        raise ConfigurationError(
            f"Another process{where} is in group {self._group_id} as instance {self._name}, the name of this one.",
            hint="Give every worker a kafka.instance_id of its own (FORECASTER_KAFKA__INSTANCE_ID), or stop the other "
            "one. Nothing was lost or answered twice.",
        )

    def _named(self) -> list[GroupMember]:
        return [member for member in self._members() if member.name == self._name]

    def _named_or_nobody(self) -> list[GroupMember]:
        try:
            return self._named()
        except TransportError:
            return []  # whatever keeps us from looking is met by the commit too, which tells it
