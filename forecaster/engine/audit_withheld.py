"""Which readings without an answer were withheld by the publishing policy, and which have lost theirs."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from forecaster.engine.withholding import PublishingRules

_FORGOTTEN = -1
_NO_FORECAST, _BEGINS = -1, -2


@dataclass(slots=True)
class WithheldFindings:
    """What an audit found, by place among the answers that are due."""

    withheld: int = 0
    missing: list[tuple[int, str]] = field(default_factory=list)
    miscounted: list[tuple[int, str]] = field(default_factory=list)
    """Forecasts that say more were withheld than there are readings without an answer."""


@dataclass(slots=True)
class _Stream:
    """How far the walk has come in one stream."""

    is_known: bool
    """All its readings so far were seen: the first of them has to have a forecast."""
    published_at: float | None = None
    clock: float = float("-inf")
    run: list[tuple[int, float]] = field(default_factory=list)
    """Place and time of the accepted readings without a forecast since the last one published."""


class WithheldAudit:
    """Walks the readings of a partition in the order in which the daemon takes them in, stream by stream.

    A forecast says how many were withheld before it: the readings between it and the one before without an answer,
    exactly. If there are more, the one that many places before it had a forecast, which is lost. Where no forecast
    vouches for a run of readings (before a lost one, and at a stream's end) the policy bounds it
    (`PublishingRules.allows`).

    Args:
        rules: the policy.
        is_whole: no reading stands before the audited ones.
    """

    def __init__(self, rules: PublishingRules, *, is_whole: bool) -> None:
        self._rules = rules
        self._is_whole = is_whole
        self._codes: dict[str, int] = {}
        self._stream = array("i")  # these three by turn
        self._place = array("q")
        self._time = array("d")
        self._claims = array("q")  # by place: how many the forecast says were withheld

    def released(self, stream_id: str, place: int, time: float) -> None:
        """The daemon comes to this reading, which is due an answer at ``place``."""
        self._stream.append(self._codes.setdefault(stream_id, len(self._codes)))
        self._place.append(place)
        self._time.append(time)

    def forgotten(self, concerns: Callable[[str], bool]) -> None:
        """Streams that a tombstone makes forgotten at this turn."""
        for stream_id in [known for known in self._codes if concerns(known)]:
            self.released(stream_id, _FORGOTTEN, 0.0)

    def expects(self, due: int) -> None:
        """All readings are in; so many answers are due."""
        self._claims = array("q", [_NO_FORECAST]) * due

    def answered(self, place: int, *, begins: bool, withheld: int) -> None:
        """A forecast: the first of its stream's life, or the next after so many withheld ones."""
        self._claims[place] = _BEGINS if begins else withheld

    def finish(self, answers: bytearray) -> WithheldFindings:
        """What became of the readings without an answer; ``answers`` counts those of each place."""
        found = WithheldFindings()
        streams: dict[int, _Stream] = {}
        for code, place, time in zip(self._stream, self._place, self._time, strict=True):
            stream = streams.get(code)
            if stream is None:
                stream = streams[code] = _Stream(is_known=self._is_whole)
            if place == _FORGOTTEN:
                self._bound(stream, stream.run, found)
                streams[code] = _Stream(is_known=True)
            elif self._claims[place] != _NO_FORECAST:
                self._settle(stream, place, found)
                stream.published_at = stream.clock = time
                stream.is_known, stream.run = True, []
            elif not answers[place]:
                if time <= stream.clock:
                    found.missing.append((place, "no dead letter, though it is not later than the reading before"))
                else:
                    stream.clock = time
                    stream.run.append((place, time))
        for stream in streams.values():
            self._bound(stream, stream.run, found)
        return found

    def _settle(self, stream: _Stream, place: int, found: WithheldFindings) -> None:
        """Compare what a forecast says with the readings before it."""
        claim, run = self._claims[place], stream.run
        if claim == _BEGINS:  # whatever came before it belongs to a life that is over
            self._bound(stream, run, found)
            return
        lost = len(run) - claim - 1
        if lost >= 0:
            self._bound(stream, run[:lost], found)
            found.missing.append((run[lost][0], f"no answer; the stream's next forecast tells of {claim} withheld"))
        elif lost < -1 and stream.is_known:
            found.miscounted.append((place, f"tells of {claim} withheld, {len(run)} readings have no answer"))
        found.withheld += min(claim, len(run))

    def _bound(self, stream: _Stream, run: list[tuple[int, float]], found: WithheldFindings) -> None:
        """Count as withheld what the policy allows to be, and as lost what it does not."""
        published_at, readings = stream.published_at, 0
        for place, time in run:
            readings += 1
            if published_at is None and not stream.is_known:
                published_at = time  # of a forecast before the audited readings; later than it was
            if published_at is not None and self._rules.allows(readings, published_at, time):
                found.withheld += 1
            else:
                found.missing.append((place, "no answer, and too long since the one before to be withheld"))
                published_at, readings = time, 0
