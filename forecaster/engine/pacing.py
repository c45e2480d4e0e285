"""How many records are worth processing before looking at the clock again."""

from __future__ import annotations

_FEWEST, _FIRST, _MOST = 8, 64, 1_024


class PartSize:
    """Records of one partition to process together, by what those before have cost.

    Where few streams carry a backlog each reading is a wave of its own, and a thousand of them would hold up a turn,
    and with it a stop, a commit and a rebalance, for many seconds; where many streams do, a thousand are a few waves.
    No answer depends on it: waves give the same bits however records are cut into parts.

    Parts in which hidden states are rebuilt, for a new model or after a long gap, are not to be learnt from: that walks
    through the whole ring, which takes as long for eight streams as for hundreds, and comes once.

    >>> size = PartSize(seconds=0.05)
    >>> size.records
    64
    >>> size.took(64, 0.01)  # all of what was allowed, and quick
    >>> size.records
    128
    >>> size.took(128, 0.4)
    >>> size.records
    16
    """

    def __init__(self, seconds: float) -> None:
        self.records = _FIRST
        self._seconds = seconds

    def took(self, records: int, seconds: float) -> None:
        """Learn from a part. One that was short for want of records is no reason to allow more."""
        if seconds > self._seconds:
            self.records = max(int(records * self._seconds / seconds), _FEWEST)
        elif records >= self.records:
            self.records = min(2 * self.records, _MOST)
