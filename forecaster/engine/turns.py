"""How long the loop waits: for records to come, and between two turns when few do.

A turn costs the same milliseconds of fetch, answer and commit whether it brings one reading or a thousand. Turned as
fast as readings come one by one, it would spend most of a core on a thousand readings a second; so after a turn that
brought few, more are let gather.
"""

from __future__ import annotations

_POLL_SECONDS = 0.05
_POLL_SECONDS_RESTORING = 0.02
_FEW = 250
"""Records of a poll below which more are worth waiting for."""


class Pace:
    """When to poll again, and for how long.

    Args:
        min_turn_seconds: that a turn takes when it brought few records; 0 turns at once.
        idle_seconds: longest poll while nothing waits to be confirmed. Records end a poll when they come; a question to
            the loop waits for its end.
    """

    def __init__(self, *, min_turn_seconds: float = 0.0, idle_seconds: float = _POLL_SECONDS) -> None:
        self._min_turn = min_turn_seconds
        self._idle = idle_seconds

    def patience(self, *, restoring: int, unconfirmed: int) -> float:
        """Longest wait for records.

        Args:
            restoring: partitions that move on between polls, so that these are short.
            unconfirmed: answers that wait for a commit, which comes between polls too.
        """
        if restoring:
            return _POLL_SECONDS_RESTORING
        return _POLL_SECONDS if unconfirmed else self._idle

    def rest(self, records: int, *, took_seconds: float, has_backlog: bool) -> float:
        """How long to wait after a turn.

        Args:
            records: that its poll brought; none has waited already.
            took_seconds: the turn, wait for records and all.
            has_backlog: some of them are not answered yet.
        """
        if not 0 < records < _FEW or has_backlog:
            return 0.0
        return max(0.0, self._min_turn - took_seconds)
